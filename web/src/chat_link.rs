//! What a person does in a chat, and what the worker says of it, browser's side.
//!
//! Tokens of a chat are taken in at once and shown with the next frame: an answer of thousands of them is drawn as often as
//! the screen is, whatever the models' speed.

use std::time::Duration;

use client::protocol::worker::{AskOptions, Command, Event};
use leptos::prelude::*;

use crate::chat::{ANEW_TEMPERATURE, Chat as Conversation};
use crate::ctx::Ctx;
use crate::run::Status;
use crate::settings::View;
use crate::state::{Kind, Phase, State};
use crate::{burst, dom, modules};

/// The module that draws answers.
pub const MARKDOWN: &str = "markdown";
/// What a question would take is counted when nobody has typed for so long.
const COUNT_DELAY: Duration = Duration::from_millis(350);

impl Ctx {
    /// Takes in an event of the chat's; says whether nothing more is to be done about it.
    pub fn chat_hears(self, event: &Event) -> bool {
        let mut is_chats = false;
        self.chat.update_untracked(|chat| is_chats = chat.apply(event, dom::now_ms()));
        if is_chats {
            self.draw_chat();
        }
        // The log has a row for every ask.
        is_chats && !matches!(event, Event::Done { .. } | Event::Compared { .. })
    }

    /// Shows the chat with the next frame.
    fn draw_chat(self) {
        if !self.chat_drawn.get_value() {
            return;
        }
        self.chat_drawn.set_value(false);
        request_animation_frame(move || {
            self.chat_drawn.set_value(true);
            self.chat.notify();
        });
    }

    /// Asks what stands in the chat's box.
    pub fn chat_ask(self) {
        let question = self.chat_draft.get_untracked();
        if self.chat_send(&question) {
            self.chat_draft.set(String::new());
        }
    }

    /// Asks a question that was asked before in other words; what followed it goes.
    pub fn chat_edit(self, index: usize, question: &str) -> bool {
        // First of all: what is taken back and cannot be asked would be lost.
        if self.chat_refuses(question) || self.routed(self.chat_options().mode).is_none() {
            return false;
        }
        self.chat.update(|chat| {
            chat.take_back(index);
            chat.anew();
        });
        self.chat_send(question)
    }

    /// Has the last answer written anew.
    pub fn chat_again(self) {
        if self.routed(self.chat_options().mode).is_none() {
            return;
        }
        let mut question = None;
        self.chat.update(|chat| {
            question = chat.exchanges().len().checked_sub(1).and_then(|last| chat.take_back(last));
        });
        if let Some(question) = question {
            self.chat_send_as(&question, true);
        }
    }

    /// Goes on with the last answer, which was cut.
    pub fn chat_go_on(self) {
        let options = self.chat_options();
        let Some((route, mode)) = self.routed(options.mode) else { return };
        let (ask, mut next) = (self.next_ask(), None);
        self.chat.update(|chat| next = chat.go_on(ask, mode, dom::now_ms()));
        if let Some((earlier, question, begun)) = next {
            self.put(route, ask, vec![question], vec![begun], AskOptions { mode, earlier, ..options });
        }
    }

    fn chat_send(self, question: &str) -> bool {
        self.chat.update_untracked(Conversation::anew);
        self.chat_send_as(question, false)
    }

    /// Whether a question cannot be asked now; says why.
    fn chat_refuses(self, question: &str) -> bool {
        let chars = question.chars().count();
        if question.trim().is_empty() {
            return true;
        }
        if chars > burst::MAX_CHARS {
            let text = format!("That is {chars} characters; the limit is {}. Shorten it.", burst::MAX_CHARS);
            self.notify(Kind::Problem, text);
            return true;
        }
        if self.chat.with_untracked(Conversation::busy) {
            self.notify(Kind::Info, "Still answering. Press Esc to stop, then ask again.");
            return true;
        }
        false
    }

    fn chat_send_as(self, question: &str, again: bool) -> bool {
        if self.chat_refuses(question) {
            return false;
        }
        let options = self.chat_options();
        let Some((route, mode)) = self.routed(options.mode) else { return false };
        let mut options = AskOptions { mode, ..options };
        if again {
            let tries = self.chat.with_untracked(Conversation::tries);
            options.sampling.seed = options.sampling.seed.wrapping_add(tries);
            if options.sampling.temperature <= 0.0 {
                options.sampling.temperature = ANEW_TEMPERATURE;
            }
        }
        let question = question.trim().to_owned();
        let ask = self.next_ask();
        self.chat.update(|chat| chat.begin(&question, ask, mode, dom::now_ms()));
        modules::want(self, MARKDOWN);
        self.put(route, ask, vec![question], Vec::new(), options);
        true
    }

    /// How a chat asks: what was said is the context, and the server is not asked for its own answer to compare: the next
    /// question should not wait for it.
    fn chat_options(self) -> AskOptions {
        let earlier = self.chat.with_untracked(Conversation::earlier);
        self.settings.with_untracked(|s| AskOptions { earlier, compare: false, ..s.options.clone() })
    }

    /// Begins another chat.
    pub fn chat_clear(self) {
        if let Some(ask) = self.chat.with_untracked(Conversation::asking) {
            self.stop_ask(ask);
        }
        self.chat.update(Conversation::clear);
        self.chat_draft.set(String::new());
    }

    /// The worker is gone: what it was writing ends here.
    pub fn chat_lost(self) {
        self.chat.update(|chat| {
            if let Some(ask) = chat.asking() {
                chat.finish(ask, Status::Failed("The engine stopped in the middle of this answer. Ask again.".into()));
            }
            chat.uncounted();
        });
    }
}

/// Counts what the next question would take, whenever something changes that it depends on.
pub fn follow_context(ctx: Ctx) {
    let depends = Memo::new(move |_| {
        let shown = ctx.view.get() == View::Chat;
        let (asked, idle) = ctx.chat.with(|chat| (chat.last().map(|run| run.ask), !chat.busy()));
        let ready = ctx.state.with(|s| s.phase == Phase::Ready && State::device_ready(s));
        let model = ctx.state.with(|s| (s.choice, s.server.as_ref().and_then(|server| server.model.clone())));
        let how = ctx.settings.with(|s| (s.options.mode, s.options.sampling.max_tokens));
        (shown && idle, asked, ready, model, how, ctx.chat_draft.get())
    });
    let pending = StoredValue::new(None::<TimeoutHandle>);
    Effect::new(move |_| {
        let (wanted, ready) = depends.with(|(wanted, _, ready, ..)| (*wanted, *ready));
        if let Some(timer) = pending.get_value() {
            timer.clear();
        }
        if !wanted {
            return;
        }
        if !ready {
            return ctx.chat.update(Conversation::uncounted);
        }
        let count = move || {
            if ctx.chat.with_untracked(Conversation::busy) {
                return;
            }
            let ask = ctx.next_ask();
            let prompt = ctx.chat_draft.get_untracked();
            ctx.chat.update_untracked(|chat| chat.count(ask));
            ctx.send(Command::Count { ask, prompt, options: ctx.chat_options() });
        };
        pending.set_value(set_timeout_with_handle(count, COUNT_DELAY).ok());
    });
}
