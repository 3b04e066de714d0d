//! The device's side of a run.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use super::board::Board;
use crate::offload::ports::{Clock, Job, Jobs, LocalEngine, LocalError};
use crate::protocol::engine::{Finish, Read};
use crate::protocol::worker::Origin;

/// Recoveries (onto another backend) that a run may need; an engine that fails more often is broken.
const MAX_RECOVERIES: usize = 2;
/// Tokens in a row without a whole character (or within what may become a stop text) that are waited for before an answer is
/// put back; who goes on would not see them.
const MAX_HELD_BACK: usize = 8;

/// Writes the device's part until there is nothing left for it to do.
pub(super) async fn answer<E: LocalEngine, C: Clock>(board: &Board<'_>, engine: &mut E, clock: &C) {
    let mut recoveries = 0;
    let mut hand = InFlight { board, clock, waiting: VecDeque::new(), begun: Vec::new() };
    while board.device_wanted(clock).await {
        while let Err(error) = engine.answer_all(&mut hand, &board.ask.options).await {
            hand.put_back();
            recoveries += 1;
            let recovered = if recoveries > MAX_RECOVERIES { Err(error) } else { engine.recover(&error).await };
            match recovered {
                Ok(note) => board.notice(note),
                Err(error) => {
                    board.device_failed(hand.waiting.make_contiguous(), &error, clock.now_s());
                    return;
                }
            }
        }
    }
}

/// What the device has in hand: prompts that it took from the board.
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
    /// Tokens at its end that have brought no text yet.
    held_back: usize,
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
        if self.board.stop.is_stopped() {
            return 0;
        }
        let held = self.waiting.len() + self.begun.len();
        self.waiting.len() + self.board.waiting_for_device(held, self.clock.now_s())
    }

    fn next(&mut self) -> Option<Job> {
        while !self.board.stop.is_stopped() {
            let waiting = self.waiting.pop_front();
            let prompt = waiting.or_else(|| self.board.take_for_device(self.begun.len(), self.clock.now_s()))?;
            let job = self.board.device_job(prompt);
            if job.max_tokens == 0 {
                self.board.finish(prompt, Finish::Length);
                continue;
            }
            self.board.begin(Origin::Device, self.clock.now_s());
            self.begun.push(Begun { prompt, told: false, held_back: 0 });
            return Some(job);
        }
        None
    }

    fn token(&mut self, prompt: usize, text: &str) -> ControlFlow<()> {
        if self.board.stop.is_stopped() {
            return ControlFlow::Break(());
        }
        let Some(begun) = self.begun.iter_mut().find(|begun| begun.prompt == prompt) else {
            return ControlFlow::Break(());
        };
        // A token that is not the device's to write is as if it had not been computed.
        let whole = begun.held_back == 0 || begun.held_back > MAX_HELD_BACK;
        if whole && !self.board.may_go_on(Origin::Device, prompt) {
            return ControlFlow::Break(());
        }
        begun.held_back = if text.is_empty() { begun.held_back + 1 } else { 0 };
        let now_s = self.clock.now_s();
        if std::mem::replace(&mut begun.told, true) {
            self.board.token(prompt, Origin::Device, text, now_s);
        } else {
            self.board.first_token(prompt, Origin::Device, text, now_s);
        }
        ControlFlow::Continue(())
    }

    fn read(&mut self, read: Read) {
        self.board.read(Origin::Device, read);
    }

    fn done(&mut self, prompt: usize, result: Result<Finish, LocalError>) {
        let now_s = self.clock.now_s();
        self.begun.retain(|begun| begun.prompt != prompt);
        if self.begun.is_empty() {
            self.board.end(Origin::Device, now_s);
        }
        match result {
            // A stopped run is over as it is.
            Ok(Finish::Cancelled) if self.board.stop.is_stopped() => {}
            Ok(Finish::Cancelled) => self.board.put_back(prompt),
            Ok(finish) => self.board.finish(prompt, finish),
            Err(error) => self.board.device_failed(&[prompt], &error, now_s),
        }
    }
}
