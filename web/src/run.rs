//! One burst of questions being answered: tokens with their origin, and the times that the page sees meanwhile.
//!
//! The live times serve until the worker's [`SlotRecord`] arrives; then its measurements are what is shown.

use client::offload::openai::Decoded;
use client::protocol::engine::Finish;
use client::protocol::worker::{AskMode, Event, Origin, PromptPlan, PromptQuality, SlotRecord};

/// How far a run is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Sent, no token yet.
    Waiting,
    /// Tokens arrive.
    Writing,
    /// All answered.
    Done,
    /// A person stopped it.
    Stopped,
    /// Broken off; why, and what to do.
    Failed(String),
}

/// Some text and who wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Who.
    pub origin: Origin,
    /// What.
    pub text: String,
}

/// One question and its answer so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The question.
    pub question: String,
    /// How it is shared, once planned.
    pub plan: Option<PromptPlan>,
    /// The answer.
    pub tokens: Vec<Token>,
    /// Whether it is complete.
    pub done: bool,
    /// Whether it ends where a limit cut it.
    pub cut: bool,
    /// Comparison with the full model's answer, where the device wrote some of it.
    pub quality: Option<PromptQuality>,
}

impl Answer {
    /// The answer as plain text.
    #[must_use]
    pub fn text(&self) -> String {
        self.tokens.iter().map(|t| t.text.as_str()).collect::<String>().trim().to_owned()
    }

    /// Number of tokens from an origin.
    #[must_use]
    pub fn count(&self, origin: Origin) -> usize {
        self.tokens.iter().filter(|t| t.origin == origin).count()
    }
}

/// Times of one side as the page sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Side {
    /// Tokens so far.
    pub tokens: usize,
    /// When the first arrived, in ms after the run's start.
    pub first_ms: Option<f64>,
    /// When the last arrived.
    pub last_ms: Option<f64>,
}

impl Side {
    fn saw_token(&mut self, at_ms: f64) {
        self.tokens += 1;
        self.first_ms.get_or_insert(at_ms);
        self.last_ms = Some(at_ms);
    }

    /// Time to the first token.
    #[must_use]
    pub fn ttft_s(&self) -> Option<f64> {
        self.first_ms.map(|ms| ms / 1e3)
    }

    /// Decode rate; `None` with fewer than two tokens or no time between them.
    #[must_use]
    pub fn tokens_per_s(&self) -> Option<f64> {
        let span_s = (self.last_ms? - self.first_ms?) / 1e3;
        #[expect(clippy::cast_precision_loss, reason = "token counts are small")]
        (self.tokens > 1 && span_s > 0.0).then(|| (self.tokens - 1) as f64 / span_s)
    }
}

/// The worker's plan of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Offloading ratio.
    pub alpha: f64,
    /// Transmit power.
    pub power_w: f64,
    /// Uplink time that pacing will make felt.
    pub uplink_s: f64,
}

/// Effective quality of a run, eq. 28.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compared {
    /// Effective accuracy.
    pub accuracy: f64,
    /// Effective hallucination.
    pub hallucination: f64,
}

/// One burst of questions.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Number that every event of it carries.
    pub ask: u64,
    /// Where the answers may be made.
    pub mode: AskMode,
    /// When it was asked, in the page's clock.
    pub started_ms: f64,
    /// How far it is.
    pub status: Status,
    /// Questions and answers.
    pub answers: Vec<Answer>,
    /// Which answers the ask is about, in the order of its prompts.
    asked: Vec<usize>,
    /// α and p, once decided.
    pub plan: Option<Plan>,
    /// The device's times.
    pub device: Side,
    /// The server's times.
    pub server: Side,
    /// What the server timed itself, where the page asks it without a worker.
    pub server_decoded: Decoded,
    /// What was modelled and measured, at the end.
    pub record: Option<SlotRecord>,
    /// The comparison, after the end.
    pub compared: Option<Compared>,
}

impl Run {
    /// A run that was just asked.
    #[must_use]
    pub fn new(ask: u64, questions: &[String], mode: AskMode, now_ms: f64) -> Self {
        let answer = |question: &String| Answer { question: question.clone(), ..Answer::default() };
        let answers: Vec<_> = questions.iter().map(answer).collect();
        Self::of(ask, answers, (0..questions.len()).collect(), mode, now_ms)
    }

    fn of(ask: u64, answers: Vec<Answer>, asked: Vec<usize>, mode: AskMode, now_ms: f64) -> Self {
        Self {
            ask,
            mode,
            started_ms: now_ms,
            status: Status::Waiting,
            answers,
            asked,
            plan: None,
            device: Side::default(),
            server: Side::default(),
            server_decoded: Decoded::default(),
            record: None,
            compared: None,
        }
    }

    /// Goes on with an answer that was cut, as another ask; returns the question and what there is of the answer. `None`
    /// while answers are being written, or where there is nothing to go on with.
    pub fn go_on(&mut self, index: usize, ask: u64, mode: AskMode, now_ms: f64) -> Option<(String, String)> {
        let active = self.active();
        let answer = self.answers.get_mut(index).filter(|answer| answer.cut && !active)?;
        (answer.cut, answer.done, answer.quality, answer.plan) = (false, false, None, None);
        let begun = answer.tokens.iter().map(|token| token.text.as_str()).collect();
        let question = answer.question.clone();
        *self = Self::of(ask, std::mem::take(&mut self.answers), vec![index], mode, now_ms);
        Some((question, begun))
    }

    /// The answer to a prompt of the ask.
    fn answer_mut(&mut self, prompt: usize) -> Option<&mut Answer> {
        self.answers.get_mut(*self.asked.get(prompt)?)
    }

    /// Whether more is to come.
    #[must_use]
    pub fn active(&self) -> bool {
        matches!(self.status, Status::Waiting | Status::Writing)
    }

    /// Times of a side.
    #[must_use]
    pub fn side(&self, origin: Origin) -> Side {
        match origin {
            Origin::Device => self.device,
            Origin::Server => self.server,
        }
    }

    /// Time to the first token of a side: the worker's measurement, else what the page saw.
    #[must_use]
    pub fn ttft_s(&self, origin: Origin) -> Option<f64> {
        match (&self.record, origin) {
            (Some(record), Origin::Device) => record.device_ttft_s,
            (Some(record), Origin::Server) => record.server_ttft_s,
            (None, _) => self.side(origin).ttft_s(),
        }
    }

    /// Decode rate of a side: the worker's measurement, else what the page saw of the device and heard from the server.
    #[must_use]
    pub fn tokens_per_s(&self, origin: Origin) -> Option<f64> {
        match (&self.record, origin) {
            (Some(record), Origin::Device) => record.device_tokens_per_s,
            (Some(record), Origin::Server) => record.server_tokens_per_s,
            (None, Origin::Device) => self.device.tokens_per_s(),
            (None, Origin::Server) => self.server_decoded.tokens_per_s(),
        }
    }

    /// Takes in an event; says whether it belonged to this run. Tokens that arrive after the end are dropped.
    pub fn apply(&mut self, event: &Event, now_ms: f64) -> bool {
        match event {
            Event::Plan { ask, alpha, power_w, prompts, uplink_s } if *ask == self.ask => {
                self.plan = Some(Plan { alpha: *alpha, power_w: *power_w, uplink_s: *uplink_s });
                for (prompt, plan) in prompts.iter().enumerate() {
                    if let Some(answer) = self.answer_mut(prompt) {
                        answer.plan = Some(plan.clone());
                    }
                }
            }
            Event::Token { ask, prompt, origin, text } if *ask == self.ask => {
                if !self.active() {
                    return true;
                }
                let Some(answer) = self.answer_mut(*prompt) else { return true };
                answer.tokens.push(Token { origin: *origin, text: text.clone() });
                self.status = Status::Writing;
                let side = match origin {
                    Origin::Device => &mut self.device,
                    Origin::Server => &mut self.server,
                };
                side.saw_token(now_ms - self.started_ms);
            }
            Event::PromptDone { ask, prompt, finish } if *ask == self.ask => {
                if let Some(answer) = self.answer_mut(*prompt) {
                    answer.done = true;
                    answer.cut = *finish == Finish::Length;
                }
            }
            Event::Done { ask, record } if *ask == self.ask => {
                self.status = if record.stopped { Status::Stopped } else { Status::Done };
                self.record = Some(record.clone());
            }
            Event::Compared { ask, prompts, accuracy, hallucination } if *ask == self.ask => {
                self.compared = Some(Compared { accuracy: *accuracy, hallucination: *hallucination });
                for (prompt, quality) in prompts.iter().enumerate() {
                    if let Some(answer) = self.answer_mut(prompt) {
                        answer.quality.clone_from(quality);
                    }
                }
            }
            Event::Failed { ask: Some(ask), message } if *ask == self.ask => {
                if self.active() {
                    self.status = Status::Failed(message.clone());
                }
            }
            _ => return false,
        }
        true
    }

    /// One sentence for screen readers, when it is over.
    #[must_use]
    pub fn summary(&self) -> Option<String> {
        let end = match &self.status {
            Status::Waiting | Status::Writing => return None,
            Status::Done => "Answered",
            Status::Stopped => "Stopped",
            Status::Failed(message) => return Some(message.clone()),
        };
        let texts: Vec<String> = self.answers.iter().map(Answer::text).collect();
        let end = if self.answers.iter().any(|answer| answer.cut) {
            format!("{end}, and cut at a limit")
        } else {
            end.to_owned()
        };
        Some(format!(
            "{end}: {} tokens from the device, {} from the server. {}",
            self.device.tokens,
            self.server.tokens,
            texts.join(" ")
        ))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use client::protocol::engine::Read;

    use super::*;

    /// A record whose numbers differ from each other, so that a swapped column shows.
    pub(crate) fn record(slot: u64) -> SlotRecord {
        SlotRecord {
            slot,
            prompts: 2,
            size_bits: 2e6,
            alpha: 0.625,
            power_w: 1.5,
            rate_bps: 80e6,
            model_local_s: 0.3375,
            model_uplink_s: 0.0156,
            model_server_s: 0.1125,
            model_latency_s: 0.3376,
            model_energy_j: 0.54,
            model_accuracy: 0.63,
            model_hallucination: 0.74,
            measured_local_s: Some(0.8),
            measured_uplink_s: Some(0.02),
            measured_server_s: None,
            measured_latency_s: 0.9,
            device_ttft_s: Some(0.25),
            server_ttft_s: None,
            device_tokens: 7,
            server_tokens: 0,
            device_tokens_per_s: Some(12.5),
            server_tokens_per_s: None,
            done_alpha: Some(0.575),
            handovers: 3,
            handover_s: 0.125,
            device_read: Some(Read { tokens: 41, cached: 29 }),
            server_read: Some(Read { tokens: 43, cached: 31 }),
            stopped: false,
            server_lost: true,
        }
    }

    fn token(ask: u64, prompt: usize, origin: Origin, text: &str) -> Event {
        Event::Token { ask, prompt, origin, text: text.into() }
    }

    #[test]
    fn tokens_go_to_their_prompt_and_side() {
        let mut run = Run::new(7, &["a?".into(), "b?".into()], AskMode::Split, 1000.0);
        assert!(run.apply(&token(7, 1, Origin::Server, "Nai"), 1100.0));
        assert!(run.apply(&token(7, 1, Origin::Device, "robi"), 1150.0));
        assert!(run.apply(&token(7, 0, Origin::Server, "x"), 1300.0));
        assert!(!run.apply(&token(8, 0, Origin::Server, "other ask"), 1300.0));
        assert!(run.apply(&token(7, 9, Origin::Server, "no such prompt"), 1300.0));
        assert_eq!(run.answers[1].text(), "Nairobi");
        assert_eq!(run.answers[1].tokens[1].origin, Origin::Device);
        assert_eq!((run.device.tokens, run.server.tokens), (1, 2));
        assert_eq!(run.ttft_s(Origin::Server), Some(0.1));
        assert_eq!(run.tokens_per_s(Origin::Server), None, "arrival says nothing of the server's speed");
        run.server_decoded += Decoded { tokens: 2, seconds: 0.4 };
        assert_eq!(run.tokens_per_s(Origin::Server), Some(5.0));
        assert_eq!(run.tokens_per_s(Origin::Device), None, "one token has no rate");
        assert!(run.apply(&token(7, 0, Origin::Device, "y"), 1350.0));
        assert_eq!(run.tokens_per_s(Origin::Device), Some(5.0));
    }

    #[test]
    fn the_workers_measurements_replace_the_pages() {
        let mut run = Run::new(1, &["a?".into()], AskMode::Split, 0.0);
        run.apply(&token(1, 0, Origin::Server, "x"), 10.0);
        run.apply(&Event::Done { ask: 1, record: record(3) }, 20.0);
        assert_eq!(run.status, Status::Done);
        assert_eq!(run.ttft_s(Origin::Device), Some(0.25));
        assert_eq!(run.ttft_s(Origin::Server), None, "not measured is not the page's guess");
        run.apply(&token(1, 0, Origin::Server, "late"), 30.0);
        assert_eq!(run.answers[0].text(), "x");
    }

    #[test]
    fn a_failure_keeps_what_was_written() {
        let mut run = Run::new(1, &["a?".into()], AskMode::Split, 0.0);
        run.apply(&token(1, 0, Origin::Device, "part"), 10.0);
        run.apply(&Event::Failed { ask: Some(1), message: "Gone. Try again.".into() }, 20.0);
        assert_eq!(run.status, Status::Failed("Gone. Try again.".into()));
        assert_eq!(run.answers[0].text(), "part");
        assert_eq!(run.summary().as_deref(), Some("Gone. Try again."));
    }

    #[test]
    fn an_answer_that_was_cut_goes_on_where_it_ended() {
        let mut run = Run::new(1, &["a?".into(), "b?".into()], AskMode::Split, 0.0);
        run.apply(&token(1, 1, Origin::Device, "First"), 10.0);
        run.apply(&Event::PromptDone { ask: 1, prompt: 0, finish: Finish::Stop }, 10.0);
        run.apply(&Event::PromptDone { ask: 1, prompt: 1, finish: Finish::Length }, 10.0);
        assert!(run.answers[1].cut && !run.answers[0].cut);
        assert_eq!(run.go_on(1, 2, AskMode::Split, 15.0), None, "not while others are being written");
        run.apply(&Event::Done { ask: 1, record: record(3) }, 20.0);
        assert!(run.summary().is_some_and(|summary| summary.contains("cut at a limit")));
        assert_eq!(run.go_on(0, 2, AskMode::Split, 25.0), None, "it is whole");
        assert_eq!(run.go_on(1, 2, AskMode::ServerOnly, 30.0), Some(("b?".into(), "First".into())));
        assert!(run.active() && run.record.is_none() && !run.answers[1].cut);
        // The other ask has one prompt, which is this answer.
        run.apply(&token(2, 0, Origin::Server, ", second"), 40.0);
        assert!(run.apply(&token(2, 1, Origin::Server, "no such prompt"), 40.0));
        run.apply(&Event::PromptDone { ask: 2, prompt: 0, finish: Finish::Stop }, 50.0);
        assert_eq!((run.answers[1].text().as_str(), run.answers[1].done), ("First, second", true));
        assert_eq!((run.answers[0].text().as_str(), run.server.tokens, run.device.tokens), ("", 1, 0));
    }

    #[test]
    fn plan_and_comparison_reach_the_answers() {
        let mut run = Run::new(1, &["a?".into(), "b?".into()], AskMode::Split, 0.0);
        let plan = |share| PromptPlan { bits: 1e6, entropy: Some(0.5), server_share: share };
        run.apply(
            &Event::Plan { ask: 1, alpha: 0.75, power_w: 1.0, prompts: vec![plan(0.5), plan(1.0)], uplink_s: 0.1 },
            5.0,
        );
        assert_eq!(run.answers[1].plan.as_ref().map(|p| p.server_share), Some(1.0));
        let quality = PromptQuality { reference: "r".into(), accuracy: 0.9, hallucination: 0.1 };
        run.apply(
            &Event::Compared {
                ask: 1,
                prompts: vec![Some(quality.clone()), None],
                accuracy: 0.95,
                hallucination: 0.05,
            },
            9.0,
        );
        assert_eq!(run.answers[0].quality, Some(quality));
        assert_eq!(run.answers[1].quality, None);
        assert_eq!(run.compared, Some(Compared { accuracy: 0.95, hallucination: 0.05 }));
    }
}
