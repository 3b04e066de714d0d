//! The room's slots as a file, with the presenter's secret.

use leptos::prelude::*;
use wasm_bindgen::JsCast;
use wasm_bindgen_futures::JsFuture;
use web::{api, dom};
use web_sys::{Headers, RequestInit, Response};

/// Asks for the slots in a format and hands them to the person.
///
/// # Errors
/// What the server or the browser said.
pub async fn download(code: &str, secret: &str, ending: &str, mime: &str) -> Result<(), String> {
    let words = |error: wasm_bindgen::JsValue| dom::error_text(&error);
    let headers = Headers::new().map_err(words)?;
    headers.set("authorization", &format!("Bearer {secret}")).map_err(words)?;
    let init = RequestInit::new();
    init.set_headers_headers(&headers);
    let url = format!("{}api/rooms/{code}/slots.{ending}", dom::base_url());
    let response = JsFuture::from(window().fetch_with_str_and_init(&url, &init)).await.map_err(words)?;
    let response: Response = response.unchecked_into();
    let text = api::text(&response).await?;
    if !response.ok() {
        return Err(format!("the server refused it (status {}): {text}", response.status()));
    }
    dom::download(&format!("tandem-room-{code}.{ending}"), mime, &text).map_err(words)
}
