//! The server's API from the page itself.

use client::offload::openai::error_message;
use leptos::prelude::*;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{AbortSignal, Headers, ReadableStreamDefaultReader, RequestInit, Response};

use crate::dom;

/// A request to the server that the page came from.
#[derive(Clone, Copy, Default)]
pub struct Ask<'a> {
    /// HTTP method; empty for GET, or for POST where there is JSON.
    pub method: &'a str,
    /// Path without a slash at the beginning.
    pub path: &'a str,
    /// JSON to send.
    pub json: Option<&'a str>,
    /// Id of the last event of a stream, to go on after it; empty for none.
    pub last_event_id: &'a str,
    /// Cuts it off.
    pub signal: Option<&'a AbortSignal>,
}

/// Sends a request; an answer that is no success is an error with what the server said.
pub async fn send(ask: Ask<'_>) -> Result<Response, String> {
    let words = |error: JsValue| dom::error_text(&error);
    let init = RequestInit::new();
    init.set_signal(ask.signal);
    let headers = Headers::new().map_err(words)?;
    if let Some(json) = ask.json {
        headers.set("content-type", "application/json").map_err(words)?;
        init.set_method("POST");
        init.set_body(&JsValue::from_str(json));
    }
    if !ask.method.is_empty() {
        init.set_method(ask.method);
    }
    if !ask.last_event_id.is_empty() {
        headers.set("last-event-id", ask.last_event_id).map_err(words)?;
    }
    init.set_headers_headers(&headers);
    let url = format!("{}{}", dom::base_url(), ask.path);
    let response = JsFuture::from(window().fetch_with_str_and_init(&url, &init)).await.map_err(words)?;
    let response: Response = response.unchecked_into();
    if response.ok() {
        return Ok(response);
    }
    let told = error_message(&text(&response).await.unwrap_or_default());
    let status = response.status();
    Err(if told.is_empty() {
        format!("it refused with status {status}")
    } else {
        format!("it refused ({status}): {told}")
    })
}

/// The text of a response.
pub async fn text(response: &Response) -> Result<String, String> {
    let promise = response.text().map_err(|e| dom::error_text(&e))?;
    let value = JsFuture::from(promise).await.map_err(|e| dom::error_text(&e))?;
    Ok(value.as_string().unwrap_or_default())
}

/// A JSON answer.
pub async fn json<T: serde::de::DeserializeOwned>(ask: Ask<'_>) -> Result<T, String> {
    let text = text(&send(ask).await?).await?;
    serde_json::from_str(&text).map_err(|e| format!("its answer is unreadable ({e})"))
}

/// Reads a response's body to its end, or until `take` has enough (`false`).
pub async fn read(response: Response, mut take: impl FnMut(&[u8]) -> Result<bool, String>) -> Result<(), String> {
    let body = response.body().ok_or("its answer is empty")?;
    let stream: ReadableStreamDefaultReader = body.get_reader().unchecked_into();
    loop {
        let chunk = JsFuture::from(stream.read()).await.map_err(|e| dom::error_text(&e))?;
        let field = |name: &str| js_sys::Reflect::get(&chunk, &JsValue::from_str(name)).unwrap_or(JsValue::UNDEFINED);
        if field("done").is_truthy() {
            return Ok(());
        }
        let bytes: js_sys::Uint8Array = field("value").unchecked_into();
        if !take(&bytes.to_vec())? {
            return Ok(());
        }
    }
}
