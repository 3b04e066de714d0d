//! The compact model: what it is, how big, where it is, and what can be done with it.

use client_core::protocol::worker::{Command, ModelState, Tier};
use leptos::prelude::*;

use crate::ctx::ctx;
use crate::state::{COMPACT, Phase, State};
use crate::{chart, format};

/// State of the model as the page names it.
fn name(state: &ModelState) -> &'static str {
    match state {
        ModelState::Absent => "absent",
        ModelState::Partial { .. } => "partial",
        ModelState::Cached => "cached",
        ModelState::Downloading { .. } => "downloading",
        ModelState::Loading => "loading",
        ModelState::Ready { .. } => "ready",
        ModelState::Failed { .. } => "failed",
    }
}

#[expect(clippy::cast_precision_loss, reason = "a progress bar")]
fn progress(state: &ModelState) -> Option<f64> {
    match state {
        ModelState::Downloading { received, total } | ModelState::Partial { received, total } => {
            Some(chart::along(*received as f64, *total as f64))
        }
        _ => None,
    }
}

fn sentence(state: &State) -> String {
    if state.phase == Phase::Ready && state.tier.as_ref().is_some_and(|t| t.tier == Tier::ServerOnly) {
        return "This tab cannot run it; the server answers.".into();
    }
    if matches!(state.phase, Phase::Absent(_)) {
        return "The engine does not run in this tab; the server answers.".into();
    }
    let size = state.compact_entry().map_or_else(|| format::NA.to_owned(), |m| format::bytes(m.bytes));
    match state.compact() {
        ModelState::Absent => "Not on this device. It is downloaded once and kept.".into(),
        ModelState::Partial { received, total } => {
            format!("{} of {} are here. The download can go on.", format::bytes(*received), format::bytes(*total))
        }
        ModelState::Cached => format!("On this device ({size}), not in memory."),
        ModelState::Downloading { received, total } => {
            format!("{} of {}", format::bytes(*received), format::bytes(*total))
        }
        ModelState::Loading => "Being checked and put into memory …".into(),
        ModelState::Ready { memory_bytes } => format!("Ready. Its weights take {}.", format::bytes(*memory_bytes)),
        ModelState::Failed { message } => message.clone(),
    }
}

/// The panel.
#[component]
pub fn ModelPanel() -> impl IntoView {
    let ctx = ctx();
    let state = Memo::new(move |_| ctx.state.with(|s| s.compact().clone()));
    let entry = Memo::new(move |_| ctx.state.with(|s| s.compact_entry().cloned()));
    let usable = Memo::new(move |_| {
        ctx.state.with(|s| s.phase == Phase::Ready && s.tier.as_ref().is_some_and(|t| t.tier != Tier::ServerOnly))
    });
    let can_load = move || {
        usable.get()
            && state.with(|s| {
                matches!(
                    s,
                    ModelState::Absent | ModelState::Partial { .. } | ModelState::Cached | ModelState::Failed { .. }
                )
            })
    };
    let load_label = move || {
        let size = entry.with(|e| e.as_ref().map(|e| format::bytes(e.bytes)));
        let size = size.map_or_else(String::new, |size| format!(" ({size})"));
        state.with(|s| match s {
            ModelState::Partial { .. } => "Continue the download".to_owned(),
            ModelState::Cached => "Load".to_owned(),
            ModelState::Failed { .. } => format!("Try again{size}"),
            _ => format!("Load the compact model{size}"),
        })
    };
    view! {
        <section class="panel model" id="model" aria-labelledby="model-title">
            <div class="model-text" data-testid="model-state" data-state=move || state.with(name)>
                <h2 id="model-title">
                    <span class="swatch device" aria-hidden="true"></span>
                    {move || entry.with(|e| e.as_ref().map_or("Compact model".to_owned(), |e| e.name.clone()))}
                </h2>
                <p class="model-state">{move || ctx.state.with(sentence)}</p>
                <p class="model-facts">
                    {move || entry.with(|e| e.as_ref().map(|e| {
                        #[expect(clippy::cast_precision_loss, reason = "a count for people")]
                        let parameters = format::si(e.parameters as f64, "");
                        format!(
                            "{parameters} parameters · {} · {} right on one-fact questions, {} on two-fact ones",
                            e.quantisation,
                            format::percent(e.accuracy.single_hop),
                            format::percent(e.accuracy.two_hop),
                        )
                    }))}
                </p>
                <Show when=move || state.with(|s| progress(s).is_some())>
                    <div
                        class="progress"
                        role="progressbar"
                        aria-label="Download"
                        aria-valuemin="0"
                        aria-valuemax="100"
                        aria-valuenow=move || state.with(|s| format!("{:.0}", progress(s).unwrap_or(0.0)))
                    >
                        <div class="progress-bar" style:width=move || format!("{:.1}%", state.with(|s| progress(s).unwrap_or(0.0)))></div>
                    </div>
                </Show>
            </div>
            <div class="model-buttons">
                <Show when=can_load>
                    <button class="primary" data-testid="load-model" on:click=move |_| ctx.load_model()>{load_label}</button>
                </Show>
                <Show when=move || state.with(|s| matches!(s, ModelState::Downloading { .. }))>
                    <button data-testid="cancel-load" on:click=move |_| ctx.send(Command::CancelLoad)>"Cancel"</button>
                </Show>
                <Show when=move || state.with(|s| matches!(s, ModelState::Cached | ModelState::Partial { .. } | ModelState::Ready { .. }))>
                    <button
                        class="quiet"
                        data-testid="delete-model"
                        on:click=move |_| ctx.send(Command::DeleteModel { id: COMPACT.to_owned() })
                    >
                        "Delete"
                    </button>
                </Show>
            </div>
        </section>
    }
}
