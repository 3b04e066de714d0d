//! A guided tour: one card, six stops, the panel that is meant outlined.

use leptos::prelude::*;
use wasm_bindgen::JsCast;

use crate::ctx::ctx;
use crate::dom;

/// Anchor, title and text of each stop.
const STOPS: [(&str, &str, &str); 6] = [
    (
        "prompt",
        "Ask",
        "One question a line. Several lines are a burst: they share one radio slot, and the policy splits them between this \
         device and the server.",
    ),
    (
        "model",
        "The compact model",
        "A small language model of 4 bits a weight. It runs in this tab, on WebGPU where there is one. Until you load it, the \
         server answers alone.",
    ),
    (
        "answers",
        "Who wrote what",
        "Text of this device has a single underline, text of the server a double one. The questions that the compact model \
         doubts most go to the server first; the one on the boundary is begun there and finished here.",
    ),
    (
        "cell",
        "The cell",
        "Everything real runs over a simulated radio channel. Move a device away from the mast: its rate falls, and the \
         decision changes at once.",
    ),
    (
        "decision",
        "The decision",
        "A policy trained by reinforcement learning picks the share α and the power p. Below it: the optimum that a search \
         finds for this slot, and simple rules.",
    ),
    (
        "controls",
        "The world is yours",
        "Bandwidth, noise, processors, limits: each slider changes the next slot. The whole state is in the page’s link, so \
         you can share exactly what you see.",
    ),
];

fn target(index: usize) -> Option<web_sys::Element> {
    STOPS.get(index).and_then(|stop| document().get_element_by_id(stop.0))
}

/// The card.
#[component]
pub fn Tour() -> impl IntoView {
    let ctx = ctx();
    let next = NodeRef::<leptos::html::Button>::new();
    Effect::new(move |before: Option<Option<usize>>| {
        let now = ctx.tour.get();
        if let Some(element) = before.flatten().and_then(target) {
            let _ = element.remove_attribute("data-tour");
        }
        if let Some(element) = now.and_then(target) {
            let _ = element.set_attribute("data-tour", "here");
            let options = web_sys::ScrollIntoViewOptions::new();
            options.set_block(web_sys::ScrollLogicalPosition::Start);
            let behaviour =
                if dom::reduced_motion() { web_sys::ScrollBehavior::Instant } else { web_sys::ScrollBehavior::Smooth };
            options.set_behavior(behaviour);
            element.scroll_into_view_with_scroll_into_view_options(&options);
        }
        now
    });
    Effect::new(move |_| {
        if let Some(button) = next.get() {
            let _ = button.unchecked_ref::<web_sys::HtmlElement>().focus();
        }
    });
    view! {
        <Show when=move || ctx.tour.get().is_some()>
            {move || {
                let index = ctx.tour.get().unwrap_or(0);
                let (_, title, text) = STOPS[index.min(STOPS.len() - 1)];
                let last = index + 1 >= STOPS.len();
                view! {
                    <div class="tour" role="dialog" aria-labelledby="tour-title" aria-describedby="tour-text">
                        <p class="muted num">{format!("{} of {}", index + 1, STOPS.len())}</p>
                        <h2 id="tour-title">{title}</h2>
                        <p id="tour-text">{text}</p>
                        <div class="dialog-buttons">
                            <button
                                class="primary"
                                node_ref=next
                                on:click=move |_| ctx.tour.set((!last).then_some(index + 1))
                            >
                                {if last { "Done" } else { "Next" }}
                            </button>
                            <button hidden=index == 0 on:click=move |_| ctx.tour.set(index.checked_sub(1))>"Back"</button>
                            <button class="quiet" hidden=last on:click=move |_| ctx.tour.set(None)>"Close"</button>
                        </div>
                    </div>
                }
            }}
        </Show>
    }
}
