//! The recorded run that a new visitor sees until a question is asked: what a real worker sent, with its times.
//!
//! The file is made by `cargo xtask record` from what `?record=1` collects (see `engine`):
//! `{"version":1,"prompts":["…"],"events":[{"t_ms":…,"event":…}]}`.

use client::protocol::worker::{AskMode, Event};
use serde::{Deserialize, Serialize};

use crate::run::Run;

/// Where the file lies, relative to the page.
pub const PATH: &str = "reports/recorded-run.json";
/// Format that this page reads.
pub const FORMAT: u32 = 1;

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recording {
    /// [`FORMAT`].
    pub version: u32,
    /// The questions.
    pub prompts: Vec<String>,
    /// In the order of their times.
    pub events: Vec<Entry>,
}

/// One message of the worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When, in ms from any start.
    pub t_ms: f64,
    /// What it said.
    pub event: Event,
}

/// A recording that can be played: the first complete burst of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Playback {
    run: Run,
    /// Times from the first message on, and what was said then.
    events: Vec<(f64, Event)>,
    next: usize,
}

impl Playback {
    /// Reads a recording. `None` when it holds no complete burst, is of another format, or is no recording at all.
    #[must_use]
    pub fn parse(json: &str) -> Option<Self> {
        let recording: Recording = serde_json::from_str(json).ok().filter(|r: &Recording| r.version == FORMAT)?;
        recording.events.iter().enumerate().find_map(|(index, entry)| {
            let Event::Plan { ask, prompts, .. } = &entry.event else { return None };
            if prompts.len() != recording.prompts.len() {
                return None;
            }
            let run = Run::new(*ask, &recording.prompts, AskMode::Split, 0.0);
            let mut probe = run.clone();
            let events: Vec<(f64, Event)> = recording.events[index..]
                .iter()
                .map(|e| (e.t_ms - entry.t_ms, e.event.clone()))
                .filter(|(at_ms, event)| probe.apply(event, *at_ms))
                .collect();
            (probe.record.is_some() && !probe.active()).then_some(Self { run, events, next: 0 })
        })
    }

    /// The run as it is now.
    #[must_use]
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// Plays everything up to a time after the start, and says how long until the next message; `None` at the end.
    pub fn advance(&mut self, to_ms: f64) -> Option<f64> {
        while let Some((at_ms, event)) = self.events.get(self.next) {
            if *at_ms > to_ms {
                return Some(at_ms - to_ms);
            }
            self.run.apply(event, *at_ms);
            self.next += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use client::protocol::worker::{Origin, PromptPlan};

    use super::*;
    use crate::run::Status;
    use crate::run::tests::record;

    fn recording() -> Recording {
        let plan = |ask| Event::Plan {
            ask,
            alpha: 1.0,
            power_w: 1.0,
            prompts: vec![PromptPlan { bits: 1e6, entropy: None, server_share: 1.0 }],
            uplink_s: 0.1,
        };
        let token = |ask, text: &str| Event::Token { ask, prompt: 0, origin: Origin::Server, text: text.into() };
        let events = [
            (1000.0, plan(1)), // never finished: to be passed over
            (1100.0, token(1, "no")),
            (2000.0, plan(2)),
            (2100.0, token(2, "Nai")),
            (2150.0, token(1, "stray")),
            (2300.0, token(2, "robi")),
            (2400.0, Event::Done { ask: 2, record: record(5) }),
        ];
        let events = events.into_iter().map(|(t_ms, event)| Entry { t_ms, event }).collect();
        Recording { version: FORMAT, prompts: vec!["a?".into()], events }
    }

    #[test]
    fn plays_the_first_complete_burst_at_its_own_pace() {
        let json = serde_json::to_string(&recording()).expect("json");
        let mut tape = Playback::parse(&json).expect("tape");
        assert_eq!(tape.run().ask, 2);
        assert_eq!(tape.advance(0.0), Some(100.0));
        assert_eq!(tape.advance(150.0), Some(150.0));
        assert_eq!(tape.run().answers[0].text(), "Nai");
        assert_eq!(tape.advance(1e9), None);
        assert_eq!(tape.run().answers[0].text(), "Nairobi");
        assert_eq!(tape.run().status, Status::Done);
    }

    #[test]
    fn anything_else_is_refused() {
        let change = |change: fn(&mut Recording)| {
            let mut changed = recording();
            change(&mut changed);
            serde_json::to_string(&changed).expect("json")
        };
        let cases = [
            String::new(),
            "<!doctype html>".into(),
            r#"{"version":1,"prompts":[],"events":[]}"#.into(),
            change(|r| r.version += 1),
            change(|r| drop(r.events.pop())),
            change(|r| r.prompts.clear()),
        ];
        for json in cases {
            assert_eq!(Playback::parse(&json), None, "{json}");
        }
    }
}
