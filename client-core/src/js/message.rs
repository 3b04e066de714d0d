//! Values across the worker's border, and JavaScript's errors in words.

use serde::Serialize;
use serde::de::DeserializeOwned;
use wasm_bindgen::{JsCast, JsValue};

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
