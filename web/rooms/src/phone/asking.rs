//! Questions, one after the other: on this phone by the room's α, or all on the server.

use std::rc::Rc;

use client::protocol::rooms::up::{Answer, MeasuredQuality};
use client::protocol::rooms::{ClientMessage, Part};
use client::protocol::worker::Origin;
use leptos::prelude::*;
use leptos::task::spawn_local;
use web::dom;
use web_sys::AbortController;

use super::answer::{Answering, Outcome, Question};
use super::ctx::Ctx;
use super::engine::{Model, Said, Stage};
use super::server;
use super::state::State;

/// Questions that may wait on the phone; the oldest go.
const MAX_WAITING: usize = 8;
/// Reports that are kept while there is no connection; the oldest go.
const MAX_UNSENT: usize = 32;

impl Ctx {
    /// Asks a question, after those that wait.
    pub fn ask(self, question: Question) {
        if self.is_busy() {
            self.waiting.update_value(|waiting| {
                waiting.push(question);
                if waiting.len() > MAX_WAITING {
                    waiting.remove(0);
                }
            });
        } else {
            self.begin(question);
        }
    }

    pub(super) fn is_busy(self) -> bool {
        self.answer.with_untracked(|answer| answer.as_ref().is_some_and(Answering::is_open))
    }

    /// Stops the present answer.
    pub fn stop(self) {
        self.model.with_value(Model::stop);
        if let Some(abort) = self.abort.try_update_value(Option::take).flatten() {
            abort.abort();
        }
        self.finish(Outcome::Stopped);
    }

    fn begin(self, question: Question) {
        if question.round.is_some() || self.nudge.get_untracked().is_some() {
            self.nudge.set(None);
        }
        let computes = self.state.with_untracked(State::part) == Part::Model
            && self.stage.with_untracked(|stage| *stage == Stage::Ready);
        let (alpha, power_share) = self.state.with_untracked(|state| match &state.decision {
            Some(own) => (own.outcome.alpha, own.outcome.power_w / own.power_max_w.max(f64::MIN_POSITIVE)),
            // Before the first slot.
            None => (0.5, 0.5),
        });
        let alpha = if computes { alpha } else { 1.0 };
        let threshold = self.state.with_untracked(|state| state.threshold);
        let text = question.text.clone();
        self.answer.set(Some(Answering::new(question, alpha, dom::now_ms())));
        if computes {
            self.model.with_value(|model| {
                model.ask(text, alpha, power_share, threshold, Rc::new(move |said| self.hear(said)));
            });
        } else {
            spawn_local(self.ask_server(text));
        }
    }

    fn hear(self, said: Said) {
        match said {
            Said::Text(origin, text) => self.token(origin, &text),
            Said::Notice(notice) => self.change(|answer| answer.notice = Some(notice)),
            Said::Failed(problem) => self.finish(Outcome::Failed(problem)),
            Said::Compared(quality) => self.compared(quality),
            Said::Done { stopped, server_lost } => {
                if server_lost {
                    self.change(|answer| {
                        answer.notice = Some("The server was lost; this phone went on alone.".to_owned());
                    });
                }
                self.finish(if stopped { Outcome::Stopped } else { Outcome::Whole });
            }
        }
    }

    async fn ask_server(self, question: String) {
        let Ok(abort) = AbortController::new() else { return };
        let signal = abort.signal();
        self.abort.set_value(Some(abort));
        let asked = server::answer(&question, &signal, |text| self.token(Origin::Server, text));
        match asked.await {
            Ok(()) => self.finish(Outcome::Whole),
            Err(_) if signal.aborted() => {}
            Err(problem) => self.finish(Outcome::Failed(format!("The server did not answer: {problem}."))),
        }
    }

    fn token(self, origin: Origin, text: &str) {
        self.meter.update_untracked(|meter| meter.token(origin == Origin::Device));
        self.change(|answer| answer.token(origin, text, dom::now_ms()));
    }

    fn compared(self, quality: MeasuredQuality) {
        self.answer.update(|answer| {
            if let Some(answer) = answer.as_mut().filter(|answer| answer.outcome == Outcome::Whole) {
                answer.quality = Some(quality);
            }
        });
        // What is lost with the connection is one sample of many.
        self.send(&ClientMessage::Quality(quality));
    }

    fn change(self, change: impl FnOnce(&mut Answering)) {
        self.answer.update(|answer| {
            if let Some(answer) = answer.as_mut().filter(|answer| answer.is_open()) {
                change(answer);
            }
        });
    }

    fn finish(self, outcome: Outcome) {
        if !self.is_busy() {
            return;
        }
        self.change(|answer| answer.end(outcome, dom::now_ms()));
        let Some(answer) = self.answer.get_untracked() else { return };
        if let Some(report) = answer.report() {
            let (here, there) = (report.device_tokens, report.server_tokens);
            self.meter.update(|meter| meter.answered(report.latency_s, answer.ttft_s, here, there));
            if report.round.is_some() {
                self.keep_answered();
            }
            self.report(report);
            if here == 0 && self.state.with_untracked(|state| state.threshold).is_some() {
                // The server's own words are their own reference, eq. 26 to 28 at α = 1.
                self.compared(MeasuredQuality { accuracy: 1.0, hallucination: 0.0 });
            }
        } else if matches!(answer.outcome, Outcome::Failed(_)) && answer.question.round.is_some() {
            // A round's question is owed: it is asked again as soon as the room is back.
            return self.waiting.update_value(|waiting| waiting.insert(0, answer.question));
        }
        self.next();
    }

    pub(super) fn next(self) {
        // A round that is over wants no answers any more.
        let open = self.state.with_untracked(|s| s.round.as_ref().filter(|round| round.open).map(|round| round.round));
        self.waiting.update_value(|waiting| waiting.retain(|one| one.round.is_none() || one.round == open));
        let next = self.waiting.try_update_value(|waiting| (!waiting.is_empty()).then(|| waiting.remove(0))).flatten();
        if let Some(next) = next {
            self.begin(next);
        }
    }

    pub(super) fn report(self, report: Answer) {
        if !self.send(&ClientMessage::Answer(report.clone())) {
            self.unsent.update_value(|unsent| {
                unsent.push(report);
                if unsent.len() > MAX_UNSENT {
                    unsent.remove(0);
                }
            });
        }
    }
}
