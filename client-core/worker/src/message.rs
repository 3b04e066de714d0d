//! Values across the borders of the workers, and JavaScript's errors in words.
//!
//! Page and engine worker exchange texts (JSON): the page then needs one reader for what comes from the worker and from
//! files, and a developer's page none at all. The two workers exchange structured clones, which carry bytes as they are.

use serde::Serialize;
use serde::de::DeserializeOwned;
use wasm_bindgen::{JsCast, JsValue};

use client::protocol::worker::Command;

/// A command as the page posts it: its text, or `{ command, files }` with the files that a person chose.
///
/// # Errors
/// It is neither; says so in words.
pub fn command_of(data: &JsValue) -> Result<(Command, Vec<web_sys::Blob>), String> {
    let text = data.as_string().or_else(|| property(data, "command")?.as_string()).ok_or("the message is no text")?;
    let files = if data.is_object() { property(data, "files") } else { None };
    let files = files.map(|files| js_sys::Array::from(&files).iter().filter_map(|file| file.dyn_into().ok()).collect());
    Ok((serde_json::from_str(&text).map_err(|error| error.to_string())?, files.unwrap_or_default()))
}

/// A value as a structured-clonable object.
///
/// # Errors
/// The value has no such form; says so in words.
pub fn to_js<T: Serialize>(value: &T) -> Result<JsValue, String> {
    // A seed may be larger than what a JavaScript number holds exactly.
    let serializer = serde_wasm_bindgen::Serializer::new().serialize_large_number_types_as_bigints(true);
    value.serialize(&serializer).map_err(|error| error.to_string())
}

/// The value of a received object.
///
/// # Errors
/// It is not such a value; says so in words.
pub fn from_js<T: DeserializeOwned>(value: JsValue) -> Result<T, String> {
    serde_wasm_bindgen::from_value(value).map_err(|error| error.to_string())
}

/// What a JavaScript exception says.
#[must_use]
pub fn describe(error: &JsValue) -> String {
    match error.dyn_ref::<js_sys::Error>() {
        Some(error) => String::from(error.message()),
        None => error.as_string().unwrap_or_else(|| format!("{error:?}")),
    }
}

/// The `name` of a JavaScript exception: `QuotaExceededError`, `NotFoundError`, …
#[must_use]
pub fn error_name(error: &JsValue) -> String {
    property(error, "name").and_then(|name| name.as_string()).unwrap_or_default()
}

/// A property that may not be there, of an object that may not be one.
#[must_use]
pub fn property(object: &JsValue, name: &str) -> Option<JsValue> {
    let value = js_sys::Reflect::get(object, &JsValue::from_str(name)).ok()?;
    (!value.is_undefined() && !value.is_null()).then_some(value)
}
