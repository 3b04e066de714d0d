//! The prompt box: one question a line, suggested bursts, where to answer.

use client::protocol::worker::AskMode;
use leptos::prelude::*;

use crate::burst::{self, BurstError};
use crate::ctx::ctx;
use crate::state::{Route, State};
use crate::url::{from_name, wire_name};
use crate::{dom, format};

/// What the Atlas holds, by the tables of `tandem corpus`.
const ATLAS: &str = "They know the Atlas and nothing else, in short English questions. Countries: capital, continent, \
    currency, language, neighbours, people, internet domain. Rivers, lakes, mountains, deserts, landmarks: where they \
    are. Planets and moons. Elements: symbol, atomic number, class, period, group. Painters, writers, scientists: where they \
    were from, what they are known for. Two facts may be joined: the currency of the country whose capital is Nairobi. \
    Asked anything else, they often say that they do not know, and else answer wrongly.";

/// Where a question can be answered, with names for people.
pub const MODES: [(AskMode, &str); 3] = [
    (AskMode::Split, "Split between both"),
    (AskMode::LocalOnly, "This device only"),
    (AskMode::ServerOnly, "Server only"),
];

/// The prompt box.
#[component]
pub fn Prompt() -> impl IntoView {
    let ctx = ctx();
    let text = move || ctx.settings.with(|s| s.prompt.clone());
    let mode = move || ctx.settings.with(|s| s.options.mode);
    let busy = Memo::new(move |_| ctx.state.with(State::busy));
    let textarea = NodeRef::<leptos::html::Textarea>::new();
    Effect::new(move |before: Option<()>| {
        // On a phone the keyboard would cover the page that nobody has seen yet.
        if let Some(textarea) =
            textarea.get().filter(|_| before.is_none() && dom::media("(hover: hover) and (min-width: 720px)"))
        {
            let _ = textarea.focus();
        }
    });
    let keys = move |event: web_sys::KeyboardEvent| {
        // While an input method composes a character, Enter belongs to it.
        if event.key() == "Enter" && !event.shift_key() && !event.is_composing() {
            event.prevent_default();
            ctx.ask();
        }
    };
    view! {
        <section class="panel ask-panel" id="prompt" aria-labelledby="prompt-title">
            <h2 id="prompt-title" class="ask-title"><label for="prompt-box">"Ask two models at once"</label></h2>
            <textarea
                id="prompt-box"
                class="prompt"
                data-testid="prompt"
                node_ref=textarea
                rows=move || text().lines().count().clamp(3, 8).to_string()
                placeholder="What is the currency of the country whose capital is Nairobi?"
                aria-describedby="prompt-hint"
                autocomplete="off"
                prop:value=text
                on:input:target=move |event| ctx.set(|s| s.prompt = event.target().value())
                on:keydown=keys
            ></textarea>
            <div class="ask-row">
                <div class="bursts" role="group" aria-label="Suggested bursts">
                    {burst::suggestions()
                        .into_iter()
                        .map(|suggestion| {
                            let questions = suggestion.questions.join("\n");
                            let test_id = match suggestion.key.as_str() {
                                "single-hop" => "burst-single".to_owned(),
                                key => format!("burst-{key}"),
                            };
                            view! {
                                <button
                                    class="chip"
                                    data-testid=test_id
                                    title=suggestion.hint
                                    on:click=move |_| {
                                        ctx.set(|s| s.prompt.clone_from(&questions));
                                        if let Some(textarea) = textarea.get_untracked() {
                                            let _ = textarea.focus();
                                        }
                                    }
                                >
                                    {suggestion.label}
                                    <span class="chip-count">{suggestion.questions.len()}</span>
                                </button>
                            }
                        })
                        .collect_view()}
                </div>
                <div class="ask-buttons">
                    <label class="sr-only" for="mode">"Where to answer"</label>
                    <select
                        id="mode"
                        data-testid="mode"
                        on:change:target=move |event| {
                            if let Some(mode) = from_name::<AskMode>(&event.target().value()) {
                                ctx.set(|s| s.options.mode = mode);
                            }
                        }
                    >
                        {MODES
                            .map(|(choice, label)| view! {
                                <option value=wire_name(choice) prop:selected=move || mode() == choice>{label}</option>
                            })
                            .collect_view()}
                    </select>
                    <button class="stop" data-testid="stop" hidden=move || !busy.get() on:click=move |_| ctx.stop()>
                        "Stop"
                    </button>
                    <button class="primary" data-testid="ask" disabled=move || busy.get() on:click=move |_| ctx.ask()>
                        "Ask"
                    </button>
                </div>
            </div>
            <Show when=move || ctx.state.with(State::asks_atlas)>
                <details class="more atlas">
                    <summary data-testid="atlas">"What these two can be asked"</summary>
                    <p>{ATLAS}</p>
                </details>
            </Show>
            <p class="hint" id="prompt-hint">
                {move || counter(&text())}
                {move || route_note(ctx.state.with(|s| s.route(mode())), mode())}
            </p>
        </section>
    }
}

fn counter(text: &str) -> String {
    match burst::parse(text) {
        Ok(questions) => format!("{}, one a line. ", format::count(questions.len(), "question")),
        Err(BurstError::Empty) => "One question a line; several lines are a burst. ".to_owned(),
        Err(error) => format!("{error} "),
    }
}

/// What the chosen mode means right now, where that is not what it says.
pub fn route_note(route: Route, wanted: AskMode) -> String {
    match route {
        Route::Worker(mode) if mode == wanted => String::new(),
        Route::Worker(_) => "The server answers until the compact model is loaded.".to_owned(),
        Route::Page => "The server answers while the engine is not running.".to_owned(),
        Route::Refuse(text) => text,
    }
}
