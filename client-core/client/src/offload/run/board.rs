//! What both sides of a run share: the text so far, what each has still to do, and the events that tell the page.
//!
//! Both sides are futures of one thread, so the state is a `RefCell` that is never held across an await.

use std::cell::RefCell;
use std::collections::VecDeque;

use super::record::{Measured, Side};
use super::{Answer, Ask, RunOutcome, SlotModel, unless_stopped};
use crate::offload::length::AnswerLength;
use crate::offload::openai::Decoded;
use crate::offload::pacing::Uplink;
use crate::offload::ports::{Job, LocalError, TransportError};
use crate::offload::signal::{Notify, StopFlag};
use crate::offload::split::PromptShare;
use crate::protocol::engine::Finish;
use crate::protocol::worker::{Event, Origin};

/// A request to the server that waits for its piece to come up the link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ServerJob {
    pub(super) prompt: usize,
    /// Tokens that the server may write; fewer than the ask's limit means that the device goes on.
    pub(super) max_tokens: usize,
    /// When the piece has arrived.
    pub(super) arrival_s: f64,
}

pub(super) struct Board<'a> {
    pub(super) ask: &'a Ask,
    pub(super) stop: &'a StopFlag,
    slot: &'a SlotModel,
    shares: &'a [PromptShare],
    emit: &'a dyn Fn(Event),
    changed: Notify,
    state: RefCell<State>,
}

struct State {
    answers: Vec<Answer>,
    /// Prompts that nobody has finished or given up.
    open: usize,
    /// Lengths of the answers that ended by themselves.
    lengths: Vec<usize>,
    device_up: bool,
    server_up: bool,
    device_jobs: VecDeque<usize>,
    server_jobs: VecDeque<ServerJob>,
    uplink: Uplink,
    /// Why a prompt was left to nobody, as a sentence.
    given_up: Option<String>,
    measured: Measured,
}

impl<'a> Board<'a> {
    #[allow(clippy::too_many_arguments, reason = "called once, with everything that a run knows")]
    pub(super) fn new(
        ask: &'a Ask,
        slot: &'a SlotModel,
        started_s: f64,
        shares: &'a [PromptShare],
        length: &AnswerLength,
        device_up: bool,
        now_s: f64,
        stop: &'a StopFlag,
        emit: &'a dyn Fn(Event),
    ) -> Self {
        let uplink =
            if ask.options.pacing { Uplink::new(now_s, slot.outcome.rate_bps) } else { Uplink::unpaced(now_s) };
        let state = State {
            answers: (0..ask.prompts.len())
                .map(|prompt| Answer { text: ask.begun(prompt).to_owned(), ..Answer::default() })
                .collect(),
            open: ask.prompts.len(),
            lengths: Vec::new(),
            device_up,
            server_up: true,
            device_jobs: (0..shares.len()).filter(|&prompt| shares[prompt].server_share <= 0.0).collect(),
            server_jobs: VecDeque::new(),
            uplink,
            given_up: None,
            measured: Measured::new(started_s, now_s),
        };
        let board = Self { ask, stop, slot, shares, emit, changed: Notify::default(), state: RefCell::new(state) };
        let shared = (0..shares.len()).filter(|&prompt| shares[prompt].is_shared());
        let whole = (0..shares.len()).filter(|&prompt| shares[prompt].server_share >= 1.0);
        for prompt in shared.chain(whole) {
            let max_tokens = length.server_tokens(shares[prompt].server_share, board.most_tokens());
            board.give_to_server(prompt, shares[prompt].server_bits, max_tokens, now_s);
        }
        board
    }

    /// The ask's limit of an answer.
    pub(super) fn most_tokens(&self) -> usize {
        self.ask.options.sampling.max_tokens
    }

    /// The device's next prompt; `None` when there is nothing left to do in this run.
    pub(super) async fn next_device_prompt(&self) -> Option<usize> {
        let next = self.changed.wait_for(|| {
            let mut state = self.state.borrow_mut();
            if state.open == 0 || !state.device_up {
                return Some(None);
            }
            state.device_jobs.pop_front().map(Some)
        });
        unless_stopped(self.stop, next).await.flatten()
    }

    /// The same without waiting.
    pub(super) fn take_device_prompt(&self) -> Option<usize> {
        self.state.borrow_mut().device_jobs.pop_front()
    }

    /// How many prompts wait for the device.
    pub(super) fn device_prompts(&self) -> usize {
        self.state.borrow().device_jobs.len()
    }

    /// Where the device would go on with a prompt now.
    pub(super) fn device_job(&self, prompt: usize) -> Job {
        let state = self.state.borrow();
        let answer = &state.answers[prompt];
        let written = answer.server_tokens + answer.device_tokens;
        let max_tokens = self.most_tokens().saturating_sub(written);
        Job { prompt, text: self.ask.prompts[prompt].clone(), prefix: answer.text.clone(), max_tokens }
    }

    /// The server's next request; `None` when there is nothing left to do in this run.
    pub(super) async fn next_server_job(&self) -> Option<ServerJob> {
        let next = self.changed.wait_for(|| {
            let mut state = self.state.borrow_mut();
            if state.open == 0 || !state.server_up {
                return Some(None);
            }
            state.server_jobs.pop_front().map(Some)
        });
        unless_stopped(self.stop, next).await.flatten()
    }

    /// A token was written; `text` may be empty while a character is not whole.
    pub(super) fn token(&self, prompt: usize, origin: Origin, text: &str, now_s: f64) {
        self.state.borrow_mut().measured.side(origin).token(now_s);
        self.write(prompt, origin, text);
    }

    /// The first token after a prompt was read was written: what it took was reading.
    pub(super) fn first_token(&self, prompt: usize, origin: Origin, text: &str, now_s: f64) {
        self.state.borrow_mut().measured.side(origin).first_token(now_s);
        self.write(prompt, origin, text);
    }

    fn write(&self, prompt: usize, origin: Origin, text: &str) {
        {
            let answer = &mut self.state.borrow_mut().answers[prompt];
            answer.text.push_str(text);
            match origin {
                Origin::Device => answer.device_tokens += 1,
                Origin::Server => answer.server_tokens += 1,
            }
        }
        if !text.is_empty() {
            (self.emit)(Event::Token { ask: self.ask.id, prompt, origin, text: text.to_owned() });
        }
    }

    /// A prompt is answered, or cut at a limit.
    pub(super) fn finish(&self, prompt: usize, finish: Finish) {
        {
            let mut state = self.state.borrow_mut();
            state.open -= 1;
            // Of one that was begun before, nobody knows the length.
            if finish == Finish::Stop && self.ask.begun(prompt).is_empty() {
                let answer = &state.answers[prompt];
                let tokens = answer.server_tokens + answer.device_tokens;
                state.lengths.push(tokens);
            }
        }
        (self.emit)(Event::PromptDone { ask: self.ask.id, prompt, finish });
        self.changed.notify_all();
    }

    /// The device goes on with a prompt from where its text ends.
    pub(super) fn give_to_device(&self, prompt: usize) {
        self.state.borrow_mut().device_jobs.push_back(prompt);
        self.changed.notify_all();
    }

    /// Nobody can go on with a prompt: it stays as it is.
    fn give_up(&self, prompt: usize, reason: &str) {
        {
            let mut state = self.state.borrow_mut();
            // The shared prompt waits in no queue while the server writes its part, so it cannot be given up twice.
            state.open -= 1;
            state.given_up.get_or_insert_with(|| reason.to_owned());
            debug_assert!(prompt < state.answers.len());
        }
        self.changed.notify_all();
    }

    fn give_to_server(&self, prompt: usize, bits: f64, max_tokens: usize, now_s: f64) {
        {
            let mut state = self.state.borrow_mut();
            let arrival_s = state.uplink.arrival_s(now_s, bits);
            state.measured.last_arrival_s = Some(arrival_s);
            state.server_jobs.push_back(ServerJob { prompt, max_tokens, arrival_s });
        }
        self.changed.notify_all();
    }

    /// A request failed: the device takes over this prompt, and all others of the server's unless the fault lies with
    /// this one request.
    pub(super) fn server_failed(&self, job: &ServerJob, error: &TransportError) {
        let mut lost = vec![job.prompt];
        let device_up = {
            let mut state = self.state.borrow_mut();
            if !error.concerns_request_only() {
                state.server_up = false;
                lost.extend(state.server_jobs.drain(..).map(|job| job.prompt));
            }
            state.measured.server_lost = true;
            state.device_up
        };
        let reason = sentence(error);
        if device_up {
            self.notice(format!("{reason} This device finishes the answer alone."));
            lost.into_iter().for_each(|prompt| self.give_to_device(prompt));
        } else {
            lost.into_iter().for_each(|prompt| self.give_up(prompt, &reason));
        }
    }

    /// The engine failed, for good or for one prompt; it had these in hand. The server gets what was not begun. A begun
    /// answer stays as it is: not every engine behind the server can go on with words that are not its own.
    pub(super) fn device_failed(&self, mut prompts: Vec<usize>, error: &LocalError, now_s: f64) {
        let server_up = {
            let mut state = self.state.borrow_mut();
            if !error.prompt_only {
                state.device_up = false;
                prompts.extend(state.device_jobs.drain(..));
            }
            state.measured.device_lost = true;
            state.server_up
        };
        let reason = sentence(error);
        if server_up {
            self.notice(format!("{reason} The server answers what was not begun."));
        }
        for prompt in prompts {
            let untouched = {
                let answer = &self.state.borrow().answers[prompt];
                answer.server_tokens + answer.device_tokens == 0
            };
            if server_up && untouched {
                self.give_to_server(prompt, self.shares[prompt].bits, self.most_tokens(), now_s);
            } else {
                self.give_up(prompt, &reason);
            }
        }
    }

    pub(super) fn notice(&self, message: String) {
        (self.emit)(Event::Notice { ask: Some(self.ask.id), message });
    }

    /// A side starts to work on something.
    pub(super) fn begin(&self, origin: Origin, now_s: f64) {
        self.state.borrow_mut().measured.side(origin).begin(now_s);
    }

    /// A side has done its work; one that is stopped never says so.
    pub(super) fn end(&self, origin: Origin, now_s: f64) {
        self.state.borrow_mut().measured.side(origin).end(now_s);
    }

    /// The device worked before the split was known.
    pub(super) fn add_device_time(&self, seconds: f64) {
        self.state.borrow_mut().measured.device.add(seconds);
    }

    /// The server timed tokens of its own.
    pub(super) fn server_decoded(&self, decoded: Decoded) {
        self.state.borrow_mut().measured.server_decoded += decoded;
    }

    /// A reply of the server's began after this long.
    pub(super) fn add_reply_time(&self, seconds: f64) {
        self.state.borrow_mut().measured.reply_s += seconds;
    }

    pub(super) fn lengths_seen(&self) -> Vec<usize> {
        self.state.borrow().lengths.clone()
    }

    /// Reports the end of the ask.
    pub(super) fn conclude(self, now_s: f64) -> RunOutcome {
        let state = self.state.into_inner();
        let written = state.answers.iter().any(|answer| answer.server_tokens + answer.device_tokens > 0);
        if let Some(reason) = &state.given_up {
            let message = format!("{reason} This device could not finish the answer; what you typed is kept.");
            if !written {
                let advice = "Try again, or load the model so that this device can answer by itself.";
                (self.emit)(Event::Failed { ask: Some(self.ask.id), message: format!("{message} {advice}") });
                return RunOutcome { record: None, answers: state.answers, alpha: 0.0 };
            }
            (self.emit)(Event::Notice { ask: Some(self.ask.id), message });
        }
        let handed_over = state.measured.server_lost || state.measured.device_lost;
        let alpha = if handed_over { written_share(self.shares, &state.answers) } else { self.slot.outcome.alpha };
        let record = state.measured.record(self.ask, self.slot, self.stop.is_stopped(), now_s);
        (self.emit)(Event::Done { ask: self.ask.id, record: record.clone() });
        RunOutcome { record: Some(record), answers: state.answers, alpha }
    }
}

impl Measured {
    fn side(&mut self, origin: Origin) -> &mut Side {
        match origin {
            Origin::Device => &mut self.device,
            Origin::Server => &mut self.server,
        }
    }
}

/// Share of the task's bits that the server wrote, each prompt's bits spread evenly over its tokens.
fn written_share(shares: &[PromptShare], answers: &[Answer]) -> f64 {
    let (mut server_bits, mut bits) = (0.0, 0.0);
    for (share, answer) in shares.iter().zip(answers) {
        let tokens = answer.server_tokens + answer.device_tokens;
        if tokens > 0 {
            server_bits += share.bits * answer.server_tokens as f64 / tokens as f64;
            bits += share.bits;
        }
    }
    if bits > 0.0 { server_bits / bits } else { 0.0 }
}

/// An error as a sentence: capital letter, full stop.
fn sentence(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    let mut characters = text.trim_end_matches('.').chars();
    match characters.next() {
        Some(first) => first.to_uppercase().chain(characters).chain(['.']).collect(),
        None => "Something went wrong.".to_owned(),
    }
}
