//! A chat: turns, the box for the next one, and what it takes of the context.

use client::protocol::worker::AskMode;
use leptos::prelude::*;
use wasm_bindgen::JsCast;

use crate::chat::{Chat as Conversation, gauge_text};
use crate::ctx::{Ctx, ctx};
use crate::panels::answers::Legend;
use crate::panels::chat_turn::ChatTurn;
use crate::panels::prompt::{MODES, route_note};
use crate::settings::View;
use crate::state::State;
use crate::url::{from_name, wire_name};
use crate::{dom, format};

/// Whoever has scrolled up by more than this reads, and is not taken to the end, in CSS pixels.
const NEAR_END: i32 = 120;

/// What a chat with the shipped pair is.
const ATLAS: &str = "The shipped models were trained on single questions about the Atlas. They are given the conversation, \
    but do not understand questions that lean on it (“and its capital?”): ask each in full, or load models that people chat with.";

/// The panel.
#[component]
pub fn Chat() -> impl IntoView {
    let ctx = ctx();
    let turns = Memo::new(move |_| ctx.chat.with(|c| c.exchanges().iter().map(|run| run.ask).collect::<Vec<_>>()));
    let busy = Memo::new(move |_| ctx.chat.with(Conversation::busy));
    let scroller = NodeRef::<leptos::html::Div>::new();
    follow_end(ctx, scroller);
    view! {
        <section class="panel chat" id="chat" aria-labelledby="chat-title" on:click=copy_code>
            <div class="answers-head">
                <h2 id="chat-title">"Chat"</h2>
                <Legend />
                <button class="quiet" data-testid="chat-new" on:click=move |_| ctx.chat_clear()>"New chat"</button>
            </div>
            <div class="chat-turns" node_ref=scroller tabindex="0" role="log" aria-live="off" aria-label="Conversation">
                <Show when=move || turns.with(Vec::is_empty)>
                    <p class="empty">
                        "Ask something, then go on from the answer. Both models are given what was said before, and share each answer as they share a single one."
                    </p>
                    <Show when=move || ctx.state.with(State::asks_atlas)>
                        <p class="empty" data-testid="chat-atlas">{ATLAS}</p>
                    </Show>
                </Show>
                <ol class="chat-list" data-testid="chat-list" aria-busy=move || busy.get().to_string()>
                    <For each=move || turns.get().into_iter().enumerate() key=|turn| *turn let((index, _))>
                        <ChatTurn index />
                    </For>
                </ol>
            </div>
            <Composer busy />
            <p class="sr-only" aria-live="polite">
                {move || ctx.chat.with(|c| c.last().and_then(crate::run::Run::summary))}
            </p>
        </section>
    }
}

/// Keeps the end of the conversation in sight of whoever is there.
fn follow_end(ctx: Ctx, scroller: NodeRef<leptos::html::Div>) {
    let asked = StoredValue::new(None::<u64>);
    Effect::new(move |_| {
        let last = ctx.chat.with(|c| c.last().map(|run| run.ask));
        let Some(div) = scroller.get() else { return };
        // Before this frame is drawn, it was at the end or it was not.
        let is_near = div.scroll_height() - div.scroll_top() - div.client_height() < NEAR_END;
        let is_new = asked.get_value() != last;
        asked.set_value(last);
        if is_near || is_new {
            request_animation_frame(move || {
                div.set_scroll_top(div.scroll_height());
                // On a phone it is the page that scrolls.
                if is_new
                    && last.is_some()
                    && div.scroll_height() <= div.client_height()
                    && let Some(typing) = document().get_element_by_id("chat-box")
                {
                    typing.scroll_into_view_with_bool(false);
                }
            });
        }
    });
}

/// The button of a code block copies it.
fn copy_code(event: web_sys::MouseEvent) {
    let ctx = expect_ctx();
    let target = event.target().and_then(|target| target.dyn_into::<web_sys::Element>().ok());
    let Some(button) = target.filter(|target| target.class_list().contains("md-copy")) else { return };
    let code = button.closest(".md-code").ok().flatten().and_then(|block| block.query_selector("code").ok().flatten());
    if let (Some(code), Some(ctx)) = (code.and_then(|code| code.text_content()), ctx) {
        ctx.copy(code, "The code is copied.");
    }
}

fn expect_ctx() -> Option<Ctx> {
    use_context::<Ctx>()
}

/// The box for the next question.
#[component]
fn Composer(busy: Memo<bool>) -> impl IntoView {
    let ctx = ctx();
    let textarea = NodeRef::<leptos::html::Textarea>::new();
    let mode = move || ctx.settings.with(|s| s.options.mode);
    Effect::new(move |_| {
        // On a phone the keyboard would cover what was said.
        if ctx.view.get() == View::Chat
            && let Some(textarea) = textarea.get().filter(|_| dom::media("(hover: hover) and (min-width: 720px)"))
        {
            let _ = textarea.focus();
        }
    });
    let keys = move |event: web_sys::KeyboardEvent| {
        // While an input method composes a character, Enter belongs to it.
        if event.key() == "Enter" && !event.shift_key() && !event.is_composing() {
            event.prevent_default();
            ctx.chat_ask();
        }
    };
    view! {
        <div class="composer">
            <label class="sr-only" for="chat-box">"Your next question"</label>
            <textarea
                id="chat-box"
                class="prompt chat-box"
                data-testid="chat-box"
                node_ref=textarea
                rows="1"
                placeholder="Ask, or go on"
                autocomplete="off"
                prop:value=move || ctx.chat_draft.get()
                on:input:target=move |event| ctx.chat_draft.set(event.target().value())
                on:keydown=keys
            ></textarea>
            <div class="ask-buttons">
                <label class="sr-only" for="chat-mode">"Where to answer"</label>
                <select
                    id="chat-mode"
                    data-testid="chat-mode"
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
                <button class="stop" data-testid="chat-stop" hidden=move || !busy.get() on:click=move |_| ctx.stop()>"Stop"</button>
                <button class="primary" data-testid="chat-ask" hidden=move || busy.get() on:click=move |_| ctx.chat_ask()>"Ask"</button>
            </div>
            <Gauge />
            <p class="hint">{move || route_note(ctx.state.with(|s| s.route(mode())), mode())}</p>
        </div>
    }
}

/// How full the context is, and what happens when it is.
#[component]
fn Gauge() -> impl IntoView {
    let ctx = ctx();
    let used = Memo::new(move |_| ctx.chat.with(Conversation::used));
    let left_out = Memo::new(move |_| ctx.chat.with(Conversation::left_out));
    #[expect(clippy::cast_precision_loss, reason = "a gauge")]
    let percent = move || {
        used.get().map_or(0.0, |used| crate::geometry::along(used.tokens as f64, used.limit as f64).clamp(0.0, 100.0))
    };
    let is_full = move || used.get().is_some_and(|used| used.left_out > 0 || !used.fits);
    view! {
        <details class="more context" class:full=is_full data-testid="chat-context" data-left-out=move || left_out.get().to_string()>
            <summary>
                <span class="context-name">"Context"</span>
                <span
                    class="progress context-gauge"
                    role="meter"
                    aria-label="Context in use"
                    aria-valuemin="0"
                    aria-valuemax="100"
                    aria-valuenow=move || format!("{:.0}", percent())
                >
                    <span class="progress-bar" style:width=move || format!("{:.1}%", percent())></span>
                </span>
                <span class="num" data-testid="chat-tokens">
                    {move || used.get().map_or_else(|| format::NA.to_owned(), |used| format!("{} of {}", used.tokens, used.limit))}
                </span>
            </summary>
            <p>
                "A quarter of the context is kept for the answer. When a question does not fit beside it, the oldest questions and answers are left out, until half is free: they stay on the page, and the models do not see them any more. A question that is too long by itself is refused."
            </p>
        </details>
        <p class="hint" class:context-full=is_full role="status" data-testid="chat-context-note" hidden=move || used.get().is_some() && !is_full() && left_out.get() == 0>
            {move || gauge_text(used.get(), left_out.get())}
        </p>
    }
}
