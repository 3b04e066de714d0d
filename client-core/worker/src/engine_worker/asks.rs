//! Answering, stopping, comparing.

use std::rc::Rc;

use wasm_bindgen_futures::spawn_local;

use super::EngineWorker;
use super::engine::Writing;
use super::models::sentence;
use super::world::Change;
use client::calibrate::calibrate;
use client::offload::compare::compare;
use client::offload::length::AnswerLength;
use client::offload::ports::Clock;
use client::offload::run::{Ask, RunOutcome, ratio_in_force, run, unless_stopped};
use client::offload::signal::StopFlag;
use client::protocol::worker::{AskOptions, Event};
use client::protocol::world::Calibration;

/// Asks that may wait for their turn; more are refused.
const MAX_WAITING: usize = 4;

/// Pairs of models whose answers' lengths are remembered; the oldest go first.
const MAX_PAIRS: usize = 8;

/// Questions and answers before an ask, at most: more than any context holds.
const MAX_EXCHANGES: usize = 4096;

/// Something that the page asked for, until it is over.
pub(super) struct Asked {
    pub(super) stop: StopFlag,
    /// Whether all that is left is to compare the answers with the server's.
    answered: bool,
}

impl EngineWorker {
    /// Notes a task that can be stopped by its number.
    pub(super) fn begin(&self, ask: u64) -> StopFlag {
        let stop = StopFlag::default();
        self.asks.borrow_mut().insert(ask, Asked { stop: stop.clone(), answered: false });
        stop
    }

    pub(super) fn ask(self: &Rc<Self>, id: u64, prompts: Vec<String>, begun: Vec<String>, options: AskOptions) {
        let started_s = self.clock.now_s();
        let fail = |message: &str| self.emit(Event::Failed { ask: Some(id), message: message.to_owned() });
        if prompts.is_empty() || prompts.iter().any(|prompt| prompt.trim().is_empty()) {
            return fail("There is nothing to answer: type a question.");
        }
        if self.asks.borrow().values().filter(|asked| !asked.answered).count() > MAX_WAITING {
            return fail("Too many questions are waiting already; what you typed is kept. Stop one, or wait.");
        }
        if self.asks.borrow().contains_key(&id) {
            return fail("This question is being answered already.");
        }
        if let Err(problem) = options.sampling.check() {
            return fail(&sentence(&problem));
        }
        if !options.earlier.len().is_multiple_of(2) || options.earlier.len() > 2 * MAX_EXCHANGES {
            return fail("This conversation is not one of questions and answers, or too long. Begin a new chat.");
        }
        let mut ask = Ask { id, prompts, begun, options };
        let stop = self.begin(id);
        let engine_worker = Rc::clone(self);
        spawn_local(async move {
            let outcome = engine_worker.answer(&mut ask, started_s, &stop).await;
            if let Some(asked) = engine_worker.asks.borrow_mut().get_mut(&id) {
                asked.answered = true;
            }
            if let Some(outcome) = outcome {
                engine_worker.compare(&ask, &outcome, &stop).await;
            }
            engine_worker.asks.borrow_mut().remove(&id);
        });
    }

    async fn answer(self: &Rc<Self>, ask: &mut Ask, started_s: f64, stop: &StopFlag) -> Option<RunOutcome> {
        let _turn = self.turn.lock().await;
        self.world.settled().await;
        let pair = self.pair_name();
        let mut length = self.length_of(&pair);
        let (mut loaded, epoch) = self.models.take();
        if let Err(message) = self.fit(ask, loaded.as_ref()) {
            self.models.put_back(loaded, epoch);
            self.emit(Event::Failed { ask: Some(ask.id), message });
            return None;
        }
        let most = ask.options.sampling.max_tokens;
        let tokens = ask.prompts.iter().map(|prompt| length.estimate(prompt.len(), 0, most).expected).sum();
        let planned = self.world.decided(self, Some(tokens)).await.map(|(cell, decisions)| {
            let alpha = decisions.first().map_or(0.0, |own| own.alpha);
            let alpha = ratio_in_force(ask.options.mode, loaded.is_some(), alpha).get();
            cell.slot(decisions, alpha)
        });
        let Some((slot, decisions)) = planned else {
            self.models.put_back(loaded, epoch);
            self.emit(Event::Failed { ask: Some(ask.id), message: "The page has not been greeted yet.".to_owned() });
            return None;
        };
        let outcome = {
            let mut writing = loaded.as_mut().map(|loaded| Writing { engine_worker: self, loaded });
            let emit = |event| self.emit(event);
            let (server, clock) = (self.server(), &self.clock);
            run(ask, &slot, started_s, writing.as_mut(), &server, clock, &mut length, stop, &emit).await
        };
        self.keep_length(pair, length);
        self.models.put_back(loaded, epoch);
        if outcome.record.is_some() {
            self.change_world(Change::Step(decisions));
        }
        let lost = outcome.record.as_ref().is_none_or(|record| record.server_lost);
        if lost {
            let engine_worker = Rc::clone(self);
            spawn_local(async move { engine_worker.check_server().await });
        }
        Some(outcome)
    }

    /// Has both sides answer a burst, and tells the page how fast they are.
    pub(super) fn calibrate(self: &Rc<Self>, id: u64, prompts: Vec<String>) {
        let stop = self.begin(id);
        let engine_worker = Rc::clone(self);
        spawn_local(async move {
            let event = match engine_worker.measured(&prompts, &stop).await {
                Ok(measured) => Event::Calibrated { ask: id, measured },
                Err(message) => Event::Failed { ask: Some(id), message },
            };
            engine_worker.asks.borrow_mut().remove(&id);
            engine_worker.emit(event);
        });
    }

    async fn measured(self: &Rc<Self>, prompts: &[String], stop: &StopFlag) -> Result<Calibration, String> {
        let _turn = self.turn.lock().await;
        self.look_at_server().await;
        let round_trip_s = self.health.borrow().rtt_ms.map(|ms| ms / 1e3);
        let pair = self.pair_name();
        let mut length = self.length_of(&pair);
        let (mut loaded, epoch) = self.models.take();
        let result = match loaded.as_mut() {
            None => Err("Load a model first: both sides are measured.".to_owned()),
            Some(loaded) => {
                let mut writing = Writing { engine_worker: self, loaded };
                let (server, clock) = (self.server(), &self.clock);
                calibrate(prompts, &mut writing, &server, clock, &mut length, stop).await
            }
        };
        self.models.put_back(loaded, epoch);
        self.keep_length(pair, length);
        result.map(|measured| Calibration { round_trip_s, ..measured })
    }

    /// What the two models are called that answer now.
    fn pair_name(&self) -> [String; 2] {
        let device = self.models.words().map(|(name, _)| name);
        let server = self.server_model.borrow().as_ref().map(|model| model.name.clone());
        [device, server].map(Option::unwrap_or_default)
    }

    /// How long the answers of a pair are.
    fn length_of(&self, pair: &[String; 2]) -> AnswerLength {
        let lengths = self.lengths.borrow();
        lengths.iter().find(|entry| entry.0 == *pair).map(|entry| entry.1.clone()).unwrap_or_default()
    }

    fn keep_length(&self, pair: [String; 2], length: AnswerLength) {
        let mut lengths = self.lengths.borrow_mut();
        lengths.retain(|entry| entry.0 != pair);
        if lengths.len() == MAX_PAIRS {
            lengths.remove(0);
        }
        lengths.push((pair, length));
    }

    /// Asks the server for its own answers. It is an extra: one that fails is not worth more than a word.
    async fn compare(&self, ask: &Ask, outcome: &RunOutcome, stop: &StopFlag) {
        let Some(record) = &outcome.record else { return };
        // The words of two models that have nothing to do with each other compare to nothing; the page says so.
        if self.mismatched()
            || !ask.options.compare
            || record.stopped
            || record.server_lost
            || record.device_tokens == 0
        {
            return;
        }
        let (server, clock) = (self.server(), &self.clock);
        let work = compare(ask, &outcome.answers, outcome.alpha, &server, clock);
        match unless_stopped(stop, work).await {
            Some(Ok(event)) => self.emit(event),
            Some(Err(error)) => {
                let message = format!("The answers could not be compared with the server's: {error}.");
                self.emit(Event::Notice { ask: Some(ask.id), message });
            }
            None => {}
        }
    }
}
