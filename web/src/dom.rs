//! The few things of the browser that the pages need, without ceremony.

use leptos::prelude::*;
use wasm_bindgen::{JsCast, JsValue};

/// Puts a page into the document's `<main id="app">`, in place of the shell that its HTML shows before.
pub fn mount<V: IntoView + 'static>(page: impl FnOnce() -> V + 'static) {
    console_error_panic_hook::set_once();
    let root: web_sys::HtmlElement = document()
        .get_element_by_id("app")
        .map_or_else(|| document().body().expect("a document has a body"), JsCast::unchecked_into);
    root.set_inner_html("");
    leptos::mount::mount_to(root, page).forget();
}

/// The page's clock, in ms.
pub fn now_ms() -> f64 {
    window().performance().map_or(0.0, |p| p.now())
}

/// Whether a media query holds.
pub fn media(query: &str) -> bool {
    window().match_media(query).ok().flatten().is_some_and(|m| m.matches())
}

/// Whether the person asked for less motion.
pub fn reduced_motion() -> bool {
    media("(prefers-reduced-motion: reduce)")
}

/// Folder that the page lies in, with a slash at the end.
pub fn base_url() -> String {
    let href = document().base_uri().ok().flatten().unwrap_or_default();
    let plain = href.split(['?', '#']).next().unwrap_or_default();
    plain.rfind('/').map_or_else(String::new, |end| plain[..=end].to_owned())
}

/// Query of the page, with its question mark.
pub fn query() -> String {
    window().location().search().unwrap_or_default()
}

/// Fragment of the page, with its hash sign.
pub fn fragment() -> String {
    window().location().hash().unwrap_or_default()
}

/// Remembers a value across visits; private windows may refuse, which is no harm.
pub fn remember(key: &str, value: &str) {
    if let Ok(Some(storage)) = window().local_storage() {
        let _ = storage.set_item(key, value);
    }
}

/// A value that was remembered.
pub fn recall(key: &str) -> Option<String> {
    window().local_storage().ok().flatten()?.get_item(key).ok().flatten()
}

/// Why what goes over this link should be asked for first, where the browser tells: a person saves data, or pays by what
/// goes over it.
pub fn costly_link() -> Option<&'static str> {
    let field = |of: &JsValue, name: &str| js_sys::Reflect::get(of, &JsValue::from_str(name)).ok();
    let link = field(&window().navigator(), "connection").filter(JsValue::is_object)?;
    let says = |name: &str, value: &str| field(&link, name).and_then(|v| v.as_string()).as_deref() == Some(value);
    if field(&link, "saveData").is_some_and(|saves| saves.is_truthy()) {
        return Some("this browser saves data");
    }
    let metered = says("type", "cellular") || says("effectiveType", "2g") || says("effectiveType", "slow-2g");
    metered.then_some("this link is slow or metered")
}

/// Hands a text to the person as a file.
pub fn download(name: &str, mime: &str, text: &str) -> Result<(), JsValue> {
    let options = web_sys::BlobPropertyBag::new();
    options.set_type(mime);
    let parts = js_sys::Array::of1(&JsValue::from_str(text));
    let blob = web_sys::Blob::new_with_str_sequence_and_options(&parts, &options)?;
    let url = web_sys::Url::create_object_url_with_blob(&blob)?;
    let anchor: web_sys::HtmlAnchorElement = document().create_element("a")?.unchecked_into();
    anchor.set_href(&url);
    anchor.set_download(name);
    anchor.click();
    // Not at once: some browsers start the download only after this task.
    set_timeout(
        move || {
            let _ = web_sys::Url::revoke_object_url(&url);
        },
        std::time::Duration::from_secs(30),
    );
    Ok(())
}

/// The present value of a design token, such as `--ink`.
pub fn token(name: &str) -> String {
    let root = document().document_element();
    let style = root.and_then(|root| window().get_computed_style(&root).ok().flatten());
    style.and_then(|style| style.get_property_value(name).ok()).unwrap_or_default().trim().to_owned()
}

/// Hands a drawing to the person as a PNG, at twice its size so that it is sharp on paper.
pub async fn download_png(name: &str, svg: &str, width: f64, height: f64) -> Result<(), JsValue> {
    const SCALE: f64 = 2.0;
    let image = web_sys::HtmlImageElement::new()?;
    image.set_src(&format!("data:image/svg+xml;charset=utf-8,{}", String::from(js_sys::encode_uri_component(svg))));
    wasm_bindgen_futures::JsFuture::from(image.decode()).await?;
    let canvas: web_sys::HtmlCanvasElement = document().create_element("canvas")?.unchecked_into();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes of charts")]
    let (wide, high) = ((width * SCALE) as u32, (height * SCALE) as u32);
    canvas.set_width(wide);
    canvas.set_height(high);
    let context = canvas.get_context("2d")?.ok_or_else(|| JsValue::from_str("this browser draws no pictures"))?;
    let draw: js_sys::Function = js_sys::Reflect::get(&context, &JsValue::from_str("drawImage"))?.dyn_into()?;
    let arguments = js_sys::Array::new();
    for argument in [image.into(), JsValue::from(0), JsValue::from(0), JsValue::from(wide), JsValue::from(high)] {
        arguments.push(&argument);
    }
    draw.apply(&context, &arguments)?;
    let anchor: web_sys::HtmlAnchorElement = document().create_element("a")?.unchecked_into();
    anchor.set_href(&canvas.to_data_url()?);
    anchor.set_download(name);
    anchor.click();
    Ok(())
}

/// A random seed that reads well and survives JavaScript's numbers.
pub fn random_seed() -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 999,999")]
    let seed = (js_sys::Math::random() * 1e6) as u64;
    seed
}

/// What a JavaScript error says.
pub fn error_text(error: &JsValue) -> String {
    error
        .dyn_ref::<js_sys::Error>()
        .map(|e| String::from(e.message()))
        .or_else(|| error.as_string())
        .unwrap_or_else(|| format!("{error:?}"))
}

/// Whether keys that are typed here belong to a text.
pub fn in_text_field(target: Option<web_sys::EventTarget>) -> bool {
    let Some(element) = target.and_then(|t| t.dyn_into::<web_sys::HtmlElement>().ok()) else { return false };
    let typed = element
        .dyn_ref::<web_sys::HtmlInputElement>()
        .is_some_and(|input| matches!(input.type_().as_str(), "text" | "number" | "search" | "url"));
    typed || element.tag_name() == "TEXTAREA" || element.tag_name() == "SELECT" || element.is_content_editable()
}
