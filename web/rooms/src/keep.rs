//! What both pages remember between visits and read from their address.

use client::protocol::rooms::tidy_code;
use leptos::prelude::*;
use wasm_bindgen::JsValue;
use web::dom;

/// What the address names after `#`: a room's code, and the presenter's secret after a slash where the link carries it.
pub fn of_address() -> (Option<String>, Option<String>) {
    let fragment = dom::fragment();
    let own = fragment.trim_start_matches('#');
    let (code, secret) = own.split_once('/').map_or((own, None), |(code, secret)| (code, Some(secret.to_owned())));
    (tidy_code(code), secret.filter(|secret| !secret.is_empty()))
}

/// Writes the room's code, and nothing else, into the address.
pub fn show_code(code: &str) {
    let _ = window().history().and_then(|h| h.replace_state_with_url(&JsValue::NULL, "", Some(&format!("#{code}"))));
}

/// Where a room's WebSocket is.
pub fn socket_url(code: &str) -> String {
    format!("{}ws/rooms/{code}", dom::base_url().replacen("http", "ws", 1))
}

/// What phones open: the address that stands under the QR code.
pub fn join_url(code: &str) -> String {
    format!("{}join#{code}", dom::base_url())
}

/// Names of what is remembered of a room.
pub fn key(what: &str, code: &str) -> String {
    format!("tandem-room-{what}-{code}")
}

/// Takes back what was remembered.
pub fn forget(key: &str) {
    if let Ok(Some(storage)) = window().local_storage() {
        let _ = storage.remove_item(key);
    }
}

/// Where the codes of the rooms that this browser presents are remembered, newest first, with spaces between them.
const ROOMS: &str = "tandem-rooms";
/// Most of them.
const MAX_ROOMS: usize = 5;

/// The codes of the rooms that this browser presents.
pub fn rooms() -> String {
    dom::recall(ROOMS).unwrap_or_default()
}

/// The secret of a room that this browser presents.
pub fn known_secret(code: &str) -> Option<String> {
    dom::recall(&key("secret", code))
}

/// Remembers a room that this browser presents, and shows its code in the address.
pub fn remember_room(code: &str, secret: &str) {
    dom::remember(&key("secret", code), secret);
    let known = rooms();
    let others = known.split_whitespace().filter(|known| *known != code).take(MAX_ROOMS - 1);
    let list: Vec<&str> = std::iter::once(code).chain(others).collect();
    dom::remember(ROOMS, &list.join(" "));
    show_code(code);
}

/// Forgets a room that is no more.
pub fn forget_room(code: &str) {
    forget(&key("secret", code));
    dom::remember(ROOMS, &rooms().replace(code, ""));
}

/// Whether the server's certificate is likely one that it made itself: no authority vouches for a number in a hall's network.
pub fn has_own_certificate() -> bool {
    let location = window().location();
    let is_number = |host: &str| host.chars().all(|c| c.is_ascii_hexdigit() || matches!(c, '.' | ':' | '[' | ']'));
    location.protocol().is_ok_and(|scheme| scheme == "https:") && location.hostname().is_ok_and(|host| is_number(&host))
}

/// A seed that no other page has.
pub fn seed() -> u64 {
    // Bits of a fraction: phones that were opened in the same second still differ.
    js_sys::Math::random().to_bits() ^ dom::now_ms().to_bits().rotate_left(32)
}

/// Changes between light and dark, as the main page does, and remembers it.
pub fn change_theme() {
    let Some(root) = document().document_element() else { return };
    let dark = match root.get_attribute("data-theme").as_deref() {
        Some("dark") => true,
        Some("light") => false,
        _ => dom::media("(prefers-color-scheme: dark)"),
    };
    let theme = if dark { "light" } else { "dark" };
    let _ = root.set_attribute("data-theme", theme);
    dom::remember("tandem-theme", theme);
}
