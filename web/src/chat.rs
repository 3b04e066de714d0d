//! A conversation: questions and answers in turn, each answer made like any other ([`Run`]), with what was said before as its
//! context. Pure: the browser's side is in `chat_link` and in `panels::chat`.
//!
//! What is left out because the context is full stays on the page; the worker decides it ([`client::offload::context`]) and
//! this keeps count, so that what was once left out stays out and both sides' caches keep what they hold.

use client::protocol::engine::{ContextUse, Turn};
use client::protocol::worker::{AskMode, Event, Origin};

use crate::run::{Answer, Run, Status};

/// What an answer is written anew with where answers are greedy: else it would be the same again.
pub const ANEW_TEMPERATURE: f32 = 0.7;

/// A conversation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chat {
    /// Questions and answers, oldest first.
    exchanges: Vec<Run>,
    /// How many of them, from the first on, the models do not see any more.
    left_out: usize,
    /// What the next question would take; `None` where nobody can count.
    used: Option<ContextUse>,
    /// The ask that counts.
    counting: Option<u64>,
    /// How often the last answer was written anew.
    tries: u64,
}

impl Chat {
    /// Questions and answers, oldest first.
    #[must_use]
    pub fn exchanges(&self) -> &[Run] {
        &self.exchanges
    }

    /// The latest.
    #[must_use]
    pub fn last(&self) -> Option<&Run> {
        self.exchanges.last()
    }

    /// The answer of an exchange.
    #[must_use]
    pub fn answer(&self, index: usize) -> Option<&Answer> {
        self.exchanges.get(index)?.answers.first()
    }

    /// How many exchanges the models do not see any more.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// What the next question would take of the context.
    #[must_use]
    pub fn used(&self) -> Option<ContextUse> {
        self.used
    }

    /// How often the last answer was written anew.
    #[must_use]
    pub fn tries(&self) -> u64 {
        self.tries
    }

    /// Whether an answer is being written.
    #[must_use]
    pub fn busy(&self) -> bool {
        self.last().is_some_and(Run::active)
    }

    /// Number of the ask that is being answered.
    #[must_use]
    pub fn asking(&self) -> Option<u64> {
        self.last().filter(|run| run.active()).map(|run| run.ask)
    }

    /// What was said and is still seen, as the models are told. What was never answered was not said.
    #[must_use]
    pub fn earlier(&self) -> Vec<Turn> {
        let seen = self.exchanges.iter().skip(self.left_out).flat_map(|run| &run.answers);
        let turns = seen.filter(|answer| is_answered(answer)).map(|answer| {
            // As it was written, so that it is cut into the same tokens again.
            let text = answer.tokens.iter().map(|token| token.text.as_str()).collect::<String>();
            [Turn::user(&answer.question), Turn::assistant(text)]
        });
        turns.flatten().collect()
    }

    /// Begins an exchange.
    pub fn begin(&mut self, question: &str, ask: u64, mode: AskMode, now_ms: f64) {
        self.exchanges.push(Run::new(ask, &[question.to_owned()], mode, now_ms));
    }

    /// Takes the question of an exchange back, with what follows it; returns the question. Nothing happens while an answer is
    /// being written.
    pub fn take_back(&mut self, index: usize) -> Option<String> {
        if self.busy() {
            return None;
        }
        let question = self.answer(index)?.question.clone();
        self.tries = if index + 1 == self.exchanges.len() { self.tries + 1 } else { 0 };
        self.exchanges.truncate(index);
        self.left_out = self.left_out.min(index);
        Some(question)
    }

    /// Goes on with the last answer, which was cut, as another ask; returns what was said before, the question, and what there is
    /// of the answer. `None` where there is nothing to go on with, or an answer is being written.
    pub fn go_on(&mut self, ask: u64, mode: AskMode, now_ms: f64) -> Option<(Vec<Turn>, String, String)> {
        let mut last = self.exchanges.pop()?;
        let earlier = self.earlier();
        let begun = last.go_on(0, ask, mode, now_ms);
        self.exchanges.push(last);
        begun.map(|(question, begun)| (earlier, question, begun))
    }

    /// A question of its own, not the last one again.
    pub fn anew(&mut self) {
        self.tries = 0;
    }

    /// Forgets all of it.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Remembers which ask counts.
    pub fn count(&mut self, ask: u64) {
        self.counting = Some(ask);
    }

    /// Nobody can count.
    pub fn uncounted(&mut self) {
        (self.used, self.counting) = (None, None);
    }

    /// Takes in an event; says whether it is about this conversation.
    pub fn apply(&mut self, event: &Event, now_ms: f64) -> bool {
        match event {
            Event::Context { ask, used } if self.counting == Some(*ask) => {
                (self.used, self.counting) = (*used, None);
                true
            }
            Event::Failed { ask: Some(ask), .. } if self.counting == Some(*ask) => {
                self.uncounted();
                true
            }
            Event::Context { ask, used } if self.asking() == Some(*ask) => {
                self.used = *used;
                self.leave_out(used.map_or(0, |used| used.left_out));
                true
            }
            // Of an answer that was taken back too: its last words may come late.
            event => self.exchanges.iter_mut().rev().any(|run| run.apply(event, now_ms)),
        }
    }

    /// The worker left out so many of the exchanges that it was told of.
    fn leave_out(&mut self, mut exchanges: usize) {
        while exchanges > 0 && self.left_out + 1 < self.exchanges.len() {
            exchanges -= usize::from(self.answer(self.left_out).is_some_and(is_answered));
            self.left_out += 1;
        }
    }

    /// Ends what no event will end.
    pub fn finish(&mut self, ask: u64, status: Status) {
        if let Some(run) = self.exchanges.iter_mut().find(|run| run.ask == ask && run.active()) {
            run.status = status;
        }
    }
}

fn is_answered(answer: &Answer) -> bool {
    answer.tokens.iter().any(|token| !token.text.trim().is_empty())
}

/// An answer as the page draws it.
#[derive(Debug, Default, PartialEq)]
pub struct Drawn {
    /// All of it.
    pub text: String,
    /// Bytes at which parts of it end that one side wrote.
    pub ends: Vec<u32>,
    /// Who: 0 for the device, 1 for the server.
    pub origins: Vec<u8>,
}

impl Drawn {
    /// Joins what was written, without blanks at its beginning.
    #[must_use]
    pub fn of(answer: &Answer) -> Self {
        let mut drawn = Self::default();
        for token in &answer.tokens {
            let text = if drawn.text.is_empty() { token.text.trim_start() } else { &token.text };
            if text.is_empty() {
                continue;
            }
            drawn.text.push_str(text);
            let origin = u8::from(token.origin == Origin::Server);
            if drawn.origins.last() == Some(&origin) {
                drawn.ends.pop();
            } else {
                drawn.origins.push(origin);
            }
            drawn.ends.push(u32::try_from(drawn.text.len()).unwrap_or(u32::MAX));
        }
        drawn
    }
}

/// What the gauge says in words.
#[must_use]
pub fn gauge_text(used: Option<ContextUse>, left_out: usize) -> String {
    let count = |exchanges: usize| match exchanges {
        1 => "question and its answer".to_owned(),
        more => format!("{more} questions and their answers"),
    };
    let before = match left_out {
        0 => String::new(),
        more => format!(" The first {} are left out already.", count(more)),
    };
    match used {
        None => {
            "Counted once a model of this tab is loaded; until then the server says when it is too much.".to_owned()
        }
        Some(ContextUse { fits: false, tokens, limit, .. }) => {
            format!("This question alone takes {tokens} of {limit} tokens: it will be refused. Shorten it.")
        }
        Some(ContextUse { left_out: 0, tokens, limit, .. }) => format!("{tokens} of {limit} tokens.{before}"),
        Some(ContextUse { left_out, tokens, limit, .. }) => format!(
            "Full: the oldest {} will be left out of the next question, which then takes {tokens} of {limit} tokens.{before}",
            count(left_out)
        ),
    }
}

#[cfg(test)]
mod tests {
    use client::protocol::engine::Finish;

    use super::*;
    use crate::run::tests::record;

    fn token(ask: u64, origin: Origin, text: &str) -> Event {
        Event::Token { ask, prompt: 0, origin, text: text.into() }
    }

    /// A chat in which these were asked and answered, with numbers from 1.
    fn chat(exchanges: &[(&str, &str)]) -> Chat {
        let mut chat = Chat::default();
        for (ask, (question, answer)) in (1..).zip(exchanges) {
            chat.begin(question, ask, AskMode::Split, 0.0);
            if !answer.is_empty() {
                assert!(chat.apply(&token(ask, Origin::Device, answer), 1.0));
            }
            assert!(chat.apply(&Event::PromptDone { ask, prompt: 0, finish: Finish::Stop }, 2.0));
            assert!(chat.apply(&Event::Done { ask, record: record(ask) }, 3.0));
        }
        chat
    }

    fn said(chat: &Chat) -> Vec<String> {
        chat.earlier().into_iter().map(|turn| format!("{}:{}", turn.role, turn.content)).collect()
    }

    fn used(left_out: usize) -> ContextUse {
        ContextUse { tokens: 40, limit: 100, left_out, fits: true }
    }

    #[test]
    fn what_was_answered_is_the_context_of_what_comes() {
        let mut chat = chat(&[("a?", " A."), ("b?", ""), ("c?", "C.")]);
        assert_eq!(said(&chat), ["user:a?", "assistant: A.", "user:c?", "assistant:C."], "with its blank, as written");
        assert!(!chat.busy());
        chat.begin("d?", 9, AskMode::Split, 0.0);
        assert_eq!((chat.busy(), chat.asking()), (true, Some(9)));
        assert_eq!(said(&chat).len(), 4, "what is being asked was not said yet");
        assert!(!chat.apply(&token(77, Origin::Device, "x"), 1.0), "somebody else's");
    }

    #[test]
    fn an_edit_drops_what_follows() {
        let mut edited = chat(&[("a?", "A."), ("b?", "B."), ("c?", "C.")]);
        assert_eq!(edited.take_back(1).as_deref(), Some("b?"));
        assert_eq!(said(&edited), ["user:a?", "assistant:A."]);
        assert_eq!((edited.tries(), edited.take_back(5)), (0, None));
        let mut again = chat(&[("a?", "A."), ("b?", "B.")]);
        assert_eq!(again.take_back(1).as_deref(), Some("b?"));
        assert_eq!(again.tries(), 1, "the last one is written anew");
        again.begin("b?", 9, AskMode::Split, 0.0);
        assert_eq!(again.take_back(0), None, "not while an answer is being written");
        again.finish(9, Status::Stopped);
        assert_eq!(again.take_back(1).as_deref(), Some("b?"));
        assert_eq!(again.tries(), 2);
    }

    #[test]
    fn an_answer_that_was_cut_goes_on_behind_what_was_said_before_it() {
        let mut chat = chat(&[("a?", "A."), ("b?", "B")]);
        assert_eq!(chat.go_on(9, AskMode::Split, 4.0), None, "it is whole");
        chat.begin("c?", 3, AskMode::Split, 4.0);
        chat.apply(&token(3, Origin::Server, " C"), 5.0);
        assert_eq!(chat.go_on(9, AskMode::Split, 5.0), None, "it is being written");
        chat.apply(&Event::PromptDone { ask: 3, prompt: 0, finish: Finish::Length }, 6.0);
        chat.apply(&Event::Done { ask: 3, record: record(3) }, 7.0);
        let (earlier, question, begun) = chat.go_on(9, AskMode::Split, 8.0).expect("it was cut");
        assert_eq!((earlier.len(), question.as_str(), begun.as_str()), (4, "c?", " C"));
        assert_eq!((chat.exchanges().len(), chat.asking()), (3, Some(9)));
        chat.apply(&token(9, Origin::Device, " D."), 9.0);
        chat.finish(9, Status::Done);
        assert_eq!(said(&chat).last().map(String::as_str), Some("assistant: C D."));
    }

    #[test]
    fn what_is_left_out_stays_out() {
        let mut chat = chat(&[("a?", "A."), ("b?", ""), ("c?", "C."), ("d?", "D.")]);
        chat.begin("e?", 9, AskMode::Split, 0.0);
        // Told of three exchanges, the worker left out two: the one without an answer goes too.
        assert!(chat.apply(&Event::Context { ask: 9, used: Some(used(2)) }, 1.0));
        assert_eq!((chat.left_out(), chat.used()), (3, Some(used(2))));
        assert_eq!(said(&chat), ["user:d?", "assistant:D."]);
        chat.finish(9, Status::Stopped);
        chat.count(10);
        assert!(chat.apply(&Event::Context { ask: 10, used: Some(used(1)) }, 2.0));
        assert_eq!(chat.left_out(), 3, "a look leaves nothing out");
        chat.take_back(1);
        assert_eq!(chat.left_out(), 1);
        chat.clear();
        assert_eq!(chat, Chat::default());
    }

    #[test]
    fn a_count_that_fails_is_no_failure_of_the_chat() {
        let mut chat = chat(&[("a?", "A.")]);
        chat.count(5);
        assert!(chat.apply(&Event::Failed { ask: Some(5), message: "no".into() }, 1.0));
        assert_eq!((chat.used(), chat.last().map(|run| &run.status)), (None, Some(&Status::Done)));
    }

    #[test]
    fn neighbours_by_one_hand_are_drawn_together() {
        let mut chat = Chat::default();
        chat.begin("a?", 1, AskMode::Split, 0.0);
        for (origin, text) in [
            (Origin::Device, " "),
            (Origin::Device, " é"),
            (Origin::Device, "b"),
            (Origin::Server, ""),
            (Origin::Server, "c"),
        ] {
            chat.apply(&token(1, origin, text), 1.0);
        }
        let drawn = Drawn::of(chat.answer(0).expect("an answer"));
        assert_eq!(drawn, Drawn { text: "ébc".into(), ends: vec![3, 4], origins: vec![0, 1] });
    }

    #[test]
    fn the_gauge_says_before_what_will_happen() {
        for (used, left_out, expect) in [
            (Some(used(0)), 0, "40 of 100 tokens."),
            (Some(used(0)), 2, "40 of 100 tokens. The first 2 questions and their answers are left out already."),
            (
                Some(used(1)),
                0,
                "Full: the oldest question and its answer will be left out of the next question, which then takes 40 of 100 tokens.",
            ),
        ] {
            assert_eq!(gauge_text(used, left_out), expect);
        }
        assert!(gauge_text(None, 0).starts_with("Counted once"));
        assert!(gauge_text(Some(ContextUse { fits: false, ..used(0) }), 0).contains("will be refused"));
    }
}
