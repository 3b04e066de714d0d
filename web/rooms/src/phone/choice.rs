//! How to take part: with the compact model in this tab, whose size is said before it is fetched, or without.

use client::protocol::rooms::Part;
use leptos::prelude::*;
use leptos::task::spawn_local;
use wasm_bindgen::JsValue;
use web::api::{self, Ask};
use web::{dom, format};

use super::ctx::Ctx;

/// What the model needs that is worth counting: engine, kernels, the policy's module that the engine asks, and the model.
const FILES: [&str; 5] =
    ["worker.js", "worker_bg.wasm", "kernels-relaxed-threads.wasm", "policy_cpu_bg.wasm", "models/compact.gguf"];
/// Below this charge of the battery the phone is advised to do without.
const LOW_BATTERY: f64 = 0.2;

/// Bytes of those files as they are sent, as far as they are there: a fresh checkout's server may still be building the
/// policy's. `None` where the server does not tell.
async fn download_bytes() -> Option<u64> {
    let mut sum = 0;
    for path in FILES {
        let Ok(head) = api::send(Ask { method: "HEAD", path, ..Ask::default() }).await else { continue };
        let length = head.headers().get("content-length").ok().flatten()?;
        sum += length.parse::<u64>().ok()?;
    }
    (sum > 0).then_some(sum)
}

fn has_webgpu() -> bool {
    js_sys::Reflect::has(&window().navigator(), &JsValue::from_str("gpu")).unwrap_or(false)
}

/// The three ways.
#[component]
pub fn Choice() -> impl IntoView {
    let ctx = expect_context::<Ctx>();
    let bytes = RwSignal::new(None::<Option<u64>>);
    spawn_local(async move { bytes.set(Some(download_bytes().await)) });
    let verdict = move || {
        let size = match bytes.get() {
            None => "The size is being asked for".to_owned(),
            Some(None) => "The server does not tell the size".to_owned(),
            Some(Some(sum)) => format!("{} to fetch once", format::bytes(sum)),
        };
        let place = if has_webgpu() { "runs on the GPU" } else { "runs on the processor" };
        format!("{size} · {place} · uses the battery while it answers")
    };
    let advice = move || {
        let low = ctx.battery.get().filter(|charge| *charge < LOW_BATTERY);
        match (low, dom::costly_link()) {
            (Some(charge), _) => {
                Some(format!("The battery is at {}: rather let the server answer.", format::percent(charge)))
            }
            (None, Some(why)) => Some(format!("Note that {why}.")),
            (None, None) => None,
        }
    };
    let option = move |part: Part, id: &'static str, title: &'static str, primary: bool| {
        view! { <button class:primary=primary data-testid=id on:click=move |_| ctx.take_part(part)>{title}</button> }
    };
    view! {
        <section class="card choice" data-testid="choice">
            <h2>"You are in. How do you take part?"</h2>
            {option(Part::Model, "part-model", "Run the compact model here", true)}
            <p class="hint" data-testid="verdict">{verdict}</p>
            {option(Part::ServerOnly, "part-server", "Without a model: the server answers", false)}
            <p class="hint">"Nothing to fetch. Everything you ask goes over the simulated channel."</p>
            {option(Part::LoadOnly, "part-load", "Only be there", false)}
            <p class="hint">"This phone places load on the cell and asks nothing."</p>
            <p class="problem" hidden=move || advice().is_none()>{advice}</p>
        </section>
    }
}
