//! One question and its answer, token by token, and what is reported of it.

use client::protocol::rooms::up::{Answer, MeasuredQuality};
use client::protocol::worker::Origin;

/// A question, and the round that it belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// What is asked.
    pub text: String,
    /// The round; `None` for one of the phone's own.
    pub round: Option<u32>,
}

/// Text of one side, as far as the other did not come between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Who wrote it.
    pub origin: Origin,
    /// The text.
    pub text: String,
}

/// How an answer stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// It is being written.
    #[default]
    Open,
    /// It is whole.
    Whole,
    /// A person stopped it.
    Stopped,
    /// It failed, for this reason.
    Failed(String),
}

/// An answer. Times are the page's clock, ms.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answering {
    /// The question.
    pub question: Question,
    /// What is written so far.
    pub pieces: Vec<Piece>,
    /// How it stands.
    pub outcome: Outcome,
    /// Something to know about it.
    pub notice: Option<String>,
    /// Share of it that the server was to write.
    pub alpha: f64,
    /// Tokens of this phone.
    pub device_tokens: u32,
    /// Tokens of the server.
    pub server_tokens: u32,
    /// From the question to the first token, seconds.
    pub ttft_s: Option<f64>,
    /// From the question to the last token, seconds.
    pub latency_s: Option<f64>,
    /// How good it is, eq. 28, where the room has phones measure that.
    pub quality: Option<MeasuredQuality>,
    began_ms: f64,
}

impl Answering {
    /// A question is asked now.
    #[must_use]
    pub fn new(question: Question, alpha: f64, now_ms: f64) -> Self {
        Self { question, alpha, began_ms: now_ms, ..Self::default() }
    }

    /// Whether it is still being written.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.outcome == Outcome::Open
    }

    /// One side has written a token.
    pub fn token(&mut self, origin: Origin, text: &str, now_ms: f64) {
        *(if origin == Origin::Device { &mut self.device_tokens } else { &mut self.server_tokens }) += 1;
        self.ttft_s.get_or_insert((now_ms - self.began_ms) / 1e3);
        match self.pieces.last_mut().filter(|last| last.origin == origin) {
            Some(last) => last.text += text,
            None => self.pieces.push(Piece { origin, text: text.to_owned() }),
        }
    }

    /// It is over.
    pub fn end(&mut self, outcome: Outcome, now_ms: f64) {
        self.latency_s = Some((now_ms - self.began_ms) / 1e3);
        self.outcome = outcome;
    }

    /// What the room is told: nothing of an answer that is not whole, or has no tokens.
    #[must_use]
    pub fn report(&self) -> Option<Answer> {
        let whole = self.outcome == Outcome::Whole && self.device_tokens + self.server_tokens > 0;
        whole.then(|| Answer {
            round: self.question.round,
            question: self.question.text.clone(),
            text: self.pieces.iter().map(|piece| piece.text.as_str()).collect(),
            device_tokens: self.device_tokens,
            server_tokens: self.server_tokens,
            latency_s: self.latency_s.unwrap_or_default(),
            ttft_s: self.ttft_s.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reported_is_what_was_written() {
        let question = Question { text: "?".to_owned(), round: Some(2) };
        let mut answer = Answering::new(question, 0.5, 1000.0);
        answer.token(Origin::Server, "Nai", 1200.0);
        answer.token(Origin::Server, "ro", 1300.0);
        answer.token(Origin::Device, "bi", 1400.0);
        assert_eq!((answer.pieces.len(), answer.report()), (2, None));
        answer.end(Outcome::Whole, 1500.0);
        let report = answer.report().expect("it is whole");
        assert_eq!((report.text.as_str(), report.device_tokens, report.server_tokens), ("Nairobi", 1, 2));
        assert_eq!((report.ttft_s, report.latency_s, report.round), (0.2, 0.5, Some(2)));
        for outcome in [Outcome::Stopped, Outcome::Failed("no".to_owned())] {
            answer.end(outcome, 1600.0);
            assert_eq!(answer.report(), None);
        }
        let mut empty = Answering::default();
        empty.end(Outcome::Whole, 1.0);
        assert_eq!(empty.report(), None);
    }
}
