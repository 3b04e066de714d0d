//! The device's side of a run.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use super::board::Board;
use crate::offload::ports::{Clock, Job, Jobs, LocalEngine, LocalError};
use crate::protocol::engine::Finish;
use crate::protocol::worker::Origin;

/// Recoveries (onto another backend) that a run may need; an engine that fails more often is broken.
const MAX_RECOVERIES: usize = 2;

/// Answers the device's prompts until there are none left for it.
pub(super) async fn answer<E: LocalEngine, C: Clock>(board: &Board<'_>, engine: &mut E, clock: &C) {
    let mut recoveries = 0;
    let mut hand = InFlight { board, clock, waiting: VecDeque::new(), begun: Vec::new() };
    while let Some(prompt) = board.next_device_prompt().await {
        hand.waiting.push_back(prompt);
        while let Err(error) = engine.answer_all(&mut hand, &board.ask.options).await {
            hand.put_back();
            recoveries += 1;
            let recovered = if recoveries > MAX_RECOVERIES { Err(error) } else { engine.recover(&error).await };
            match recovered {
                Ok(note) => board.notice(note),
                Err(error) => {
                    board.device_failed(hand.waiting.into(), &error, clock.now_s());
                    return;
                }
            }
        }
    }
}

/// What the device has in hand: prompts that it took from the board and has not answered.
struct InFlight<'h, C> {
    board: &'h Board<'h>,
    clock: &'h C,
    waiting: VecDeque<usize>,
    begun: Vec<Begun>,
}

struct Begun {
    prompt: usize,
    /// Whether a token of it has been written since it was begun.
    told: bool,
}

impl<C: Clock> InFlight<'_, C> {
    /// What was begun waits again; the board knows how far it came.
    fn put_back(&mut self) {
        if !self.begun.is_empty() {
            self.board.end(Origin::Device, self.clock.now_s());
        }
        for begun in self.begun.drain(..).rev() {
            self.waiting.push_front(begun.prompt);
        }
    }
}

impl<C: Clock> Jobs for InFlight<'_, C> {
    fn waiting(&self) -> usize {
        if self.board.stop.is_stopped() { 0 } else { self.waiting.len() + self.board.device_prompts() }
    }

    fn next(&mut self) -> Option<Job> {
        while !self.board.stop.is_stopped() {
            let prompt = self.waiting.pop_front().or_else(|| self.board.take_device_prompt())?;
            let job = self.board.device_job(prompt);
            if job.max_tokens == 0 {
                self.board.finish(prompt, Finish::Length);
                continue;
            }
            self.board.begin(Origin::Device, self.clock.now_s());
            self.begun.push(Begun { prompt, told: false });
            return Some(job);
        }
        None
    }

    fn token(&mut self, prompt: usize, text: &str) -> ControlFlow<()> {
        if self.board.stop.is_stopped() {
            return ControlFlow::Break(());
        }
        let now_s = self.clock.now_s();
        let first = self.begun.iter_mut().find(|begun| begun.prompt == prompt && !begun.told);
        match first {
            Some(begun) => {
                begun.told = true;
                self.board.first_token(prompt, Origin::Device, text, now_s);
            }
            None => self.board.token(prompt, Origin::Device, text, now_s),
        }
        ControlFlow::Continue(())
    }

    fn done(&mut self, prompt: usize, result: Result<Finish, LocalError>) {
        let now_s = self.clock.now_s();
        self.begun.retain(|begun| begun.prompt != prompt);
        if self.begun.is_empty() {
            self.board.end(Origin::Device, now_s);
        }
        match result {
            // A stopped run is over as it is.
            Ok(Finish::Cancelled) => {}
            Ok(finish) => self.board.finish(prompt, finish),
            Err(error) => self.board.device_failed(vec![prompt], &error, now_s),
        }
    }
}
