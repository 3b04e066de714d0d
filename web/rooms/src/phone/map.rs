//! My place in the cell. A finger anywhere on the map takes my dot along; arrow keys move it too.

use client::protocol::rooms::down::Decision;
use leptos::prelude::*;
use wasm_bindgen::JsCast;
use web::format;
use web::geometry::CellMap;

use super::ctx::Ctx;
use super::state::State;
use crate::draw::{self, Detail};

/// Step of the arrow keys, as a share of the radius.
const KEY_STEP: f64 = 0.05;
/// Least time between two messages while a finger moves, ms.
const SEND_EVERY_MS: f64 = 120.0;

/// The map and what it says of the channel.
#[component]
pub fn Map() -> impl IntoView {
    let ctx = expect_context::<Ctx>();
    // Where a finger holds the dot; a picture that is under way still shows the old place.
    let held = RwSignal::new(None::<[f64; 2]>);
    let is_down = RwSignal::new(false);
    let sent_ms = StoredValue::new(0.0f64);
    let radius = move || ctx.state.with(|s| s.radius_m);
    let here = Memo::new(move |_| ctx.state.with(State::place));
    // The server's own word is back.
    Effect::new(move |_| {
        here.track();
        if !is_down.get_untracked() {
            held.set(None);
        }
    });
    let go = move |place: [f64; 2], at_once: bool| {
        held.set(Some(place));
        let now = web::dom::now_ms();
        if at_once || now - sent_ms.get_value() > SEND_EVERY_MS {
            sent_ms.set_value(now);
            ctx.place(place);
        }
    };
    let under = move |event: &web_sys::PointerEvent| {
        let frame = event.current_target()?.unchecked_into::<web_sys::Element>().get_bounding_client_rect();
        let scale = 200.0 / frame.width().max(1.0);
        let x = (f64::from(event.client_x()) - frame.left()) * scale - 100.0;
        let y = (f64::from(event.client_y()) - frame.top()) * scale - 100.0;
        Some(CellMap::new(untrack(radius)).to_metres(x, y))
    };
    let down = move |event: web_sys::PointerEvent| {
        if let Some(target) = event.current_target() {
            let _ = target.unchecked_into::<web_sys::Element>().set_pointer_capture(event.pointer_id());
        }
        is_down.set(true);
        under(&event).into_iter().for_each(|place| go(place, true));
    };
    let moved = move |event: web_sys::PointerEvent| {
        if is_down.get_untracked() {
            under(&event).into_iter().for_each(|place| go(place, false));
        }
    };
    let up = move |_: web_sys::PointerEvent| {
        if is_down.get_untracked() {
            is_down.set(false);
            held.get_untracked().into_iter().for_each(|place| go(place, true));
        }
    };
    let keys = move |event: web_sys::KeyboardEvent| {
        let step = untrack(radius) * KEY_STEP;
        let (dx, dy) = match event.key().as_str() {
            "ArrowLeft" => (-step, 0.0),
            "ArrowRight" => (step, 0.0),
            "ArrowUp" => (0.0, step),
            "ArrowDown" => (0.0, -step),
            _ => return,
        };
        event.prevent_default();
        if let Some([x, y]) = held.get_untracked().or(here.get_untracked()) {
            go(CellMap::new(untrack(radius)).keep_inside([x + dx, y + dy]), true);
        }
    };
    let fact = move |read: fn(&Decision) -> String| {
        move || ctx.state.with(|s| s.decision.as_ref().map_or_else(|| format::NA.to_owned(), read))
    };
    view! {
        <section class="card" aria-label="My place in the cell">
            <div
                class="map"
                data-testid="map"
                tabindex="0"
                role="application"
                aria-label="My place in the cell. Drag, or use the arrow keys."
                on:pointerdown=down
                on:pointermove=moved
                on:pointerup=up
                on:pointercancel=up
                on:keydown=keys
                inner_html=move || ctx.state.with(|s| draw::cell(&s.dots(held.get()), s.radius_m, Detail::Numbers))
            ></div>
            <dl class="facts">
                <div><dt>"Distance"</dt><dd>{fact(|d| format!("{:.1} m", d.distance_m))}</dd></div>
                <div><dt>"Gain"</dt><dd>{fact(|d| format!("{:.0} dB", d.gain_db).replace('-', "−"))}</dd></div>
                <div><dt>"Task"</dt><dd>{fact(|d| format::bits(d.size_bits))}</dd></div>
                <div><dt>"In the cell"</dt><dd>{fact(|d| d.active.to_string())}</dd></div>
            </dl>
            <p class="hint">"Touch the map to walk there: closer is faster."</p>
        </section>
    }
}
