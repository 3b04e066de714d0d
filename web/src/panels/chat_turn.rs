//! One question of a chat and its answer.

use leptos::prelude::*;
use wasm_bindgen::prelude::*;

use crate::chat::{Chat as Conversation, Drawn};
use crate::chat_link::MARKDOWN;
use crate::ctx::{Ctx, ctx};
use crate::format;
use crate::modules;
use crate::run::{Answer, Run, Status};

#[wasm_bindgen]
extern "C" {
    /// An answer in the module's hands: see the crate `markdown`.
    type Shown;
    #[wasm_bindgen(method, catch)]
    fn grow(this: &Shown, text: &str, ends: &[u32], origins: &[u8]) -> Result<(), JsValue>;
    #[wasm_bindgen(method, catch)]
    fn whole(this: &Shown, text: &str, ends: &[u32], origins: &[u8]) -> Result<(), JsValue>;
}

/// A question and its answer.
#[component]
pub fn ChatTurn(index: usize) -> impl IntoView {
    let ctx = ctx();
    let question = ctx.chat.with_untracked(|c| c.answer(index).map(|a| a.question.clone())).unwrap_or_default();
    let editing = RwSignal::new(None::<String>);
    let busy = Memo::new(move |_| ctx.chat.with(Conversation::busy));
    let is_last = Memo::new(move |_| ctx.chat.with(|c| c.exchanges().len() == index + 1));
    let writing = Memo::new(move |_| ctx.chat.with(|c| c.exchanges().get(index).is_some_and(Run::active)));
    let unseen = Memo::new(move |_| ctx.chat.with(|c| index < c.left_out()));
    let first_seen = Memo::new(move |_| ctx.chat.with(|c| index == c.left_out() && index > 0));
    let problem = Memo::new(move |_| {
        ctx.chat.with(|c| match c.exchanges().get(index).map(|run| &run.status) {
            Some(Status::Failed(message)) => Some(message.clone()),
            Some(Status::Stopped) => Some("Stopped.".to_owned()),
            _ => None,
        })
    });
    let cut = Memo::new(move |_| ctx.chat.with(|c| c.answer(index).is_some_and(|a| a.cut)));
    let note = Memo::new(move |_| ctx.chat.with(|c| c.exchanges().get(index).map(note)).unwrap_or_default());
    let text = move || ctx.chat.with_untracked(|c| c.answer(index).map(Answer::text)).unwrap_or_default();
    let begin_edit = {
        let question = question.clone();
        move |_| editing.set(Some(question.clone()))
    };
    view! {
        <li class="chat-turn" class:unseen=move || unseen.get() data-testid=format!("chat-turn-{index}")>
            <p class="chat-border" hidden=move || !first_seen.get() data-testid="chat-border">"The models see the conversation from here on."</p>
            <div class="chat-question" hidden=move || editing.with(Option::is_some)>
                <p data-testid=format!("chat-question-{index}")>{question}</p>
                <button
                    class="quiet"
                    data-testid=format!("chat-edit-{index}")
                    title="Ask this in other words. What follows it is dropped."
                    hidden=move || busy.get()
                    on:click=begin_edit
                >
                    "Edit"
                </button>
            </div>
            {move || editing.with(Option::is_some).then(|| view! { <Edit index editing /> })}
            <AnswerBody index writing />
            <p class="run-problem" data-testid="chat-problem" hidden=move || problem.with(Option::is_none)>{move || problem.get()}</p>
            <p class="cut" data-testid="chat-cut" hidden=move || !cut.get()>
                "Cut here at the longest answer, or at the end of the model’s context. "
                <button class="textual" data-testid="chat-go-on" hidden=move || !is_last.get() || busy.get() on:click=move |_| ctx.chat_go_on()>
                    "Go on"
                </button>
            </p>
            <div class="chat-tools" hidden=move || writing.get()>
                <button class="quiet" data-testid=format!("chat-copy-{index}") on:click=move |_| ctx.copy(text(), "The answer is copied.")>"Copy"</button>
                <button
                    class="quiet"
                    data-testid="chat-again"
                    title="Has this answer written anew, with another seed; at temperature 0 with 0.7."
                    hidden=move || !is_last.get()
                    on:click=move |_| ctx.chat_again()
                >
                    "Write anew"
                </button>
                <span class="share-note" data-testid=format!("chat-note-{index}")>{move || note.get()}</span>
            </div>
        </li>
    }
}

/// Who wrote an answer, and what was read for it.
fn note(run: &Run) -> String {
    let Some(record) = &run.record else { return String::new() };
    let all = record.device_tokens + record.server_tokens;
    let read = |side: &str, read: Option<client::protocol::engine::Read>| {
        read.map_or(String::new(), |read| format!(" · {side} read {} new, {} kept", read.computed(), read.cached))
    };
    format!(
        "server {} of {}{}{}",
        record.server_tokens,
        format::count(all, "token"),
        read("device", record.device_read),
        read("server", record.server_read)
    )
}

/// The words of a question, to be changed.
#[component]
fn Edit(index: usize, editing: RwSignal<Option<String>>) -> impl IntoView {
    let ctx = ctx();
    let textarea = NodeRef::<leptos::html::Textarea>::new();
    Effect::new(move |_| {
        if let Some(textarea) = textarea.get() {
            let _ = textarea.focus();
        }
    });
    let send = move || {
        let text = editing.get_untracked().unwrap_or_default();
        if ctx.chat_edit(index, &text) {
            let _ = editing.try_set(None);
        }
    };
    let keys = move |event: web_sys::KeyboardEvent| match event.key().as_str() {
        "Enter" if !event.shift_key() && !event.is_composing() => {
            event.prevent_default();
            send();
        }
        "Escape" => {
            event.stop_propagation();
            editing.set(None);
        }
        _ => {}
    };
    view! {
        <div class="chat-editing">
            <label class="sr-only" for=format!("chat-words-{index}")>"The question in other words"</label>
            <textarea
                id=format!("chat-words-{index}")
                class="prompt chat-box"
                data-testid="chat-words"
                node_ref=textarea
                prop:value=move || editing.get().unwrap_or_default()
                on:input:target=move |event| editing.set(Some(event.target().value()))
                on:keydown=keys
            ></textarea>
            <div class="ask-buttons">
                <span class="hint">"What follows this question is dropped."</span>
                <button class="quiet" on:click=move |_| editing.set(None)>"Cancel"</button>
                <button class="primary" data-testid="chat-edit-send" on:click=move |_| send()>"Ask this"</button>
            </div>
        </div>
    }
}

/// The answer: as Markdown once the module is here, until then as plain text. Drawn once a frame at most.
#[component]
fn AnswerBody(index: usize, writing: Memo<bool>) -> impl IntoView {
    let ctx = ctx();
    let body = NodeRef::<leptos::html::Div>::new();
    let shown = StoredValue::new_local(None::<Shown>);
    // What has been drawn: bytes, and whether as a whole.
    let grown = Memo::new(move |_| ctx.chat.with(|c| c.answer(index).map_or(0, |a| a.tokens.len())));
    Effect::new(move |_| {
        let (Some(div), _, is_over) = (body.get(), grown.get(), !writing.get()) else { return };
        let has_module = ctx.modules_there.with(|there| there.contains(&MARKDOWN));
        let Some(drawn) = ctx.chat.with_untracked(|c| c.answer(index).map(Drawn::of)) else { return };
        if has_module && shown.with_value(Option::is_none) {
            shown.set_value(begin(&div));
        }
        let drawn_by_module = shown.with_value(|shown| {
            let Some(shown) = shown else { return false };
            // Only a reference's definition changes what is before it.
            let is_whole = is_over && drawn.text.contains("]:");
            let done = if is_whole {
                shown.whole(&drawn.text, &drawn.ends, &drawn.origins)
            } else {
                shown.grow(&drawn.text, &drawn.ends, &drawn.origins)
            };
            done.is_ok()
        });
        if !drawn_by_module {
            let _ = plain(&div, &drawn);
        }
    });
    view! {
        <div
            class="md"
            class:writing=move || writing.get()
            node_ref=body
            data-testid=format!("chat-answer-{index}")
        ></div>
    }
}

/// The module's hold of an element; `None`, and plain text, where that does not work.
fn begin(div: &web_sys::HtmlElement) -> Option<Shown> {
    let class = modules::export(MARKDOWN, "Answer")?;
    let made = js_sys::Reflect::construct(class.unchecked_ref::<js_sys::Function>(), &js_sys::Array::of1(div)).ok()?;
    Some(made.unchecked_into())
}

/// The text as it is, in the colours of who wrote it.
fn plain(div: &web_sys::HtmlElement, drawn: &Drawn) -> Result<(), JsValue> {
    div.set_text_content(None);
    let mut from = 0;
    for (end, origin) in drawn.ends.iter().zip(&drawn.origins) {
        let span = document().create_element("span")?;
        let name = if *origin == 0 { "device" } else { "server" };
        span.set_class_name(if *origin == 0 { "token device" } else { "token server" });
        span.set_attribute("data-testid", "token")?;
        span.set_attribute("data-origin", name)?;
        span.set_text_content(drawn.text.get(from..*end as usize));
        div.append_child(&span)?;
        from = *end as usize;
    }
    Ok(())
}

impl Ctx {
    /// Puts a text onto the clipboard, and says so.
    pub fn copy(self, text: String, said: &'static str) {
        use crate::state::Kind;
        leptos::task::spawn_local(async move {
            let written = window().navigator().clipboard().write_text(&text);
            match wasm_bindgen_futures::JsFuture::from(written).await {
                Ok(_) => self.notify(Kind::Info, said),
                Err(_) => {
                    self.notify(Kind::Info, "This browser does not let the page copy. Select the text and copy it.");
                }
            }
        });
    }
}
