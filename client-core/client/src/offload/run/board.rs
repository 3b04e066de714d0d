//! What both sides of a run share: the text so far, who writes which answer, and the events that tell the page.
//!
//! An answer is open until it is over, and in the hands of one side or of nobody. A side that is free takes the next answer
//! that nobody has in hand, if [`Tally`] says that it may write; one that has written its part puts the answer back.
//!
//! Both sides are futures of one thread, so the state is a `RefCell` that is never held across an await.

use std::cell::RefCell;
use std::pin::pin;

use futures::future::select;

use super::record::{Measured, Side};
use super::turns::{DUST, SHORT_TOKENS, Tally};
use super::{Answer, Ask, RunOutcome, SlotModel, unless_stopped};
use crate::offload::length::AnswerLength;
use crate::offload::openai::Decoded;
use crate::offload::pacing::Uplink;
use crate::offload::ports::{Clock, Job, LocalError, TransportError};
use crate::offload::signal::{Notify, StopFlag};
use crate::offload::split::PromptShare;
use crate::protocol::engine::{Finish, Read};
use crate::protocol::worker::{Event, Origin};

/// The server begins an answer of which it has a part, unless its words would be waited for longer than this: the full
/// model's beginning is worth a moment, since the compact one goes on from it.
const FIRST_WORDS_S: f64 = 0.25;

/// The server's turn at an answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ServerTurn {
    pub(super) prompt: usize,
    /// What there is of the answer.
    pub(super) begun: String,
    /// Tokens that the server may write; fewer than `left` means that somebody goes on.
    pub(super) max_tokens: usize,
    /// Tokens that the answer may still have.
    pub(super) left: usize,
}

pub(super) struct Board<'a> {
    pub(super) ask: &'a Ask,
    pub(super) stop: &'a StopFlag,
    slot: &'a SlotModel,
    /// The ratio in force.
    alpha: f64,
    shares: &'a [PromptShare],
    length: &'a AnswerLength,
    emit: &'a dyn Fn(Event),
    changed: Notify,
    state: RefCell<State>,
}

struct State {
    open: Vec<Open>,
    device_up: bool,
    server_up: bool,
    uplink: Uplink,
    /// Why a prompt was left to nobody, as a sentence.
    given_up: Option<String>,
    measured: Measured,
}

/// A prompt and how far its answer is.
#[derive(Debug, Default)]
struct Open {
    answer: Answer,
    over: bool,
    holder: Option<Origin>,
    /// A side that cannot write this answer: the prompt is too long for it, or it failed here.
    refused: Vec<Origin>,
    /// When the server's piece has come up the link.
    arrival_s: f64,
    /// When its last token was written.
    last_s: f64,
    /// How the answer ended.
    ended: Option<Finish>,
}

/// What a side finds when it looks for something to do.
enum Found {
    /// There is nothing left to do in this run.
    Over,
    /// A turn.
    Turn(usize),
    /// Something whose piece is still on the link.
    Link(f64),
}

impl<'a> Board<'a> {
    #[allow(clippy::too_many_arguments, reason = "called once, with everything that a run knows")]
    pub(super) fn new(
        ask: &'a Ask,
        slot: &'a SlotModel,
        alpha: f64,
        started_s: f64,
        shares: &'a [PromptShare],
        length: &'a AnswerLength,
        device_up: bool,
        now_s: f64,
        stop: &'a StopFlag,
        emit: &'a dyn Fn(Event),
    ) -> Self {
        let mut uplink =
            if ask.options.pacing { Uplink::new(now_s, slot.outcome.rate_bps) } else { Uplink::unpaced(now_s) };
        let mut open: Vec<Open> = (0..ask.prompts.len())
            .map(|prompt| Open {
                answer: Answer { text: ask.begun(prompt).to_owned(), ..Answer::default() },
                ..Open::default()
            })
            .collect();
        let mut measured = Measured::new(started_s, now_s);
        // The shared prompt's piece goes up first, then those of the whole ones. α·X bits are what the server gets of the
        // task (eq. 20), all of them where a short answer is the server's whole; where it helps out with another prompt, bits of
        // these count for it.
        for prompt in server_order(shares) {
            let share = shares[prompt];
            if share.server_share > 0.0 {
                measured.last_arrival_s = Some(uplink.arrival_s(now_s, share.server_bits));
            }
            open[prompt].arrival_s = measured.last_arrival_s.unwrap_or(now_s);
        }
        let state = State { open, device_up, server_up: true, uplink, given_up: None, measured };
        Self { ask, stop, slot, alpha, shares, length, emit, changed: Notify::default(), state: RefCell::new(state) }
    }

    /// The ask's limit of an answer.
    fn most_tokens(&self) -> usize {
        self.ask.options.sampling.max_tokens
    }

    fn tally(&self, state: &State) -> Tally {
        let mut tally = Tally { alpha: self.alpha, server: 0, device: 0, low: 0.0, expected: 0.0 };
        for (open, text) in state.open.iter().zip(&self.ask.prompts) {
            let written = open.answer.tokens();
            tally.server += open.answer.server_tokens;
            tally.device += open.answer.device_tokens;
            if open.over {
                tally.low += written as f64;
                tally.expected += written as f64;
            } else {
                let estimate = self.length.estimate(text.len(), written, self.most_tokens());
                // Any of several open answers may be over with what it has; `Tally::turn` adds the token that comes next.
                tally.low += if estimate.low > (written + 1) as f64 { estimate.low } else { written as f64 };
                tally.expected += estimate.expected;
            }
        }
        tally
    }

    /// Whether a side can write this answer at all.
    fn can(state: &State, side: Origin, prompt: usize) -> bool {
        let up = if side == Origin::Device { state.device_up } else { state.server_up };
        up && !state.open[prompt].refused.contains(&side)
    }

    /// What a side should take now, beside `held` answers that it has in hand already.
    fn look(&self, state: &State, side: Origin, held: usize, now_s: f64) -> Found {
        let up = if side == Origin::Device { state.device_up } else { state.server_up };
        if state.open.iter().all(|open| open.over) || !up {
            return Found::Over;
        }
        let order = if side == Origin::Device { device_order(self.shares) } else { server_order(self.shares) };
        let other = if side == Origin::Device { Origin::Server } else { Origin::Device };
        let should = self.tally(state).should_begin(side, held);
        let mut link_s = f64::INFINITY;
        for prompt in order {
            let open = &state.open[prompt];
            let alone = !Self::can(state, other, prompt);
            if open.over || open.holder.is_some() || !Self::can(state, side, prompt) || !(should || alone) {
                continue;
            }
            match side {
                Origin::Server if self.has_its_part(state, prompt) => {}
                Origin::Server if open.arrival_s > now_s => link_s = link_s.min(open.arrival_s),
                Origin::Device if !alone && (self.is_servers(state, prompt, now_s) || self.is_late(state, prompt)) => {}
                _ => return Found::Turn(prompt),
            }
        }
        Found::Link(link_s)
    }

    /// Whether the device leaves the first words of this answer to the server, which is about to write them.
    fn is_servers(&self, state: &State, prompt: usize, now_s: f64) -> bool {
        let open = &state.open[prompt];
        let busy = state.open.iter().any(|open| open.holder == Some(Origin::Server));
        let begun = open.answer.tokens() > 0 || !self.ask.begun(prompt).is_empty();
        self.shares[prompt].server_share > 0.0
            && !begun
            && !busy
            && open.arrival_s - now_s <= FIRST_WORDS_S
            && self.tally(state).should_begin(Origin::Server, 0)
    }

    /// Whether whoever has this answer in hand ends it.
    fn is_short(&self, state: &State, prompt: usize) -> bool {
        let written = state.open[prompt].answer.tokens();
        let estimate = self.length.estimate(self.ask.prompts[prompt].len(), written, self.most_tokens());
        self.ask.prompts.len() > 1 && estimate.expected < SHORT_TOKENS
    }

    /// Whether the device helps with this answer of the server's only when the shared one is over.
    fn is_late(&self, state: &State, prompt: usize) -> bool {
        let shared = |(share, open): (&PromptShare, &Open)| share.is_shared() && !open.over;
        self.shares[prompt].server_share >= 1.0 && self.shares.iter().zip(&state.open).any(shared)
    }

    /// Whether the server has written its part of the shared prompt, as far as can be told, while others wait for it: those
    /// are the ones that the compact model is least sure of.
    fn has_its_part(&self, state: &State, prompt: usize) -> bool {
        let share = self.shares[prompt];
        let waits = |(other, open): (usize, &Open)| {
            let whole = self.shares[other].server_share >= 1.0;
            whole && !open.over && open.holder.is_none() && Self::can(state, Origin::Server, other)
        };
        share.is_shared() && state.open.iter().enumerate().any(waits) && {
            let answer = &state.open[prompt].answer;
            let estimate = self.length.estimate(self.ask.prompts[prompt].len(), answer.tokens(), self.most_tokens());
            answer.server_tokens as f64 + 0.5 + DUST >= share.server_share * estimate.expected
        }
    }

    /// How many more answers the device would take now, beside `held`.
    pub(super) fn waiting_for_device(&self, held: usize, now_s: f64) -> usize {
        let state = self.state.borrow();
        let free = state.open.iter().filter(|open| !open.over && open.holder.is_none()).count();
        (0..free)
            .take_while(|more| matches!(self.look(&state, Origin::Device, held + more, now_s), Found::Turn(_)))
            .count()
    }

    /// The device's next prompt, beside `held` that it has in hand, if there is one now.
    pub(super) fn take_for_device(&self, held: usize, now_s: f64) -> Option<usize> {
        let mut state = self.state.borrow_mut();
        let Found::Turn(prompt) = self.look(&state, Origin::Device, held, now_s) else { return None };
        state.open[prompt].holder = Some(Origin::Device);
        Some(prompt)
    }

    /// Waits until there is something for the device to take; says whether there is.
    pub(super) async fn device_wanted<C: Clock>(&self, clock: &C) -> bool {
        let look = || match self.look(&self.state.borrow(), Origin::Device, 0, clock.now_s()) {
            Found::Over => Some(false),
            Found::Turn(_) => Some(true),
            Found::Link(_) => None,
        };
        unless_stopped(self.stop, self.changed.wait_for(look)).await.unwrap_or(false)
    }

    /// Where the device would go on with a prompt now.
    pub(super) fn device_job(&self, prompt: usize) -> Job {
        let state = self.state.borrow();
        let answer = &state.open[prompt].answer;
        let max_tokens = self.most_tokens().saturating_sub(answer.tokens());
        Job { prompt, text: self.ask.prompts[prompt].clone(), prefix: answer.text.clone(), max_tokens }
    }

    /// The server's next turn; `None` when there is nothing left for it to do in this run.
    pub(super) async fn next_server_turn<C: Clock>(&self, clock: &C) -> Option<ServerTurn> {
        loop {
            let found = self.changed.wait_for(|| {
                let now_s = clock.now_s();
                let found = self.look(&self.state.borrow(), Origin::Server, 0, now_s);
                // Nothing to wait for on the link means waiting for a change.
                match found {
                    Found::Link(arrival_s) if arrival_s.is_infinite() => None,
                    found => Some(found),
                }
            });
            let arrival_s = match unless_stopped(self.stop, found).await? {
                Found::Over => return None,
                Found::Turn(prompt) => return Some(self.server_turn(prompt)),
                Found::Link(arrival_s) => arrival_s,
            };
            let over = self.changed.wait_for(|| {
                let found = self.look(&self.state.borrow(), Origin::Server, 0, f64::NEG_INFINITY);
                matches!(found, Found::Over).then_some(())
            });
            let arrival = clock.sleep(arrival_s - clock.now_s());
            unless_stopped(self.stop, select(pin!(arrival), pin!(over))).await?;
        }
    }

    fn server_turn(&self, prompt: usize) -> ServerTurn {
        let mut state = self.state.borrow_mut();
        state.open[prompt].holder = Some(Origin::Server);
        let left = self.most_tokens().saturating_sub(state.open[prompt].answer.tokens());
        // While the device writes too, the server's turn grows: it is told when it is over. Otherwise it is known.
        let with_device = state.open.iter().any(|open| open.holder == Some(Origin::Device));
        let alone = !Self::can(&state, Origin::Device, prompt);
        let turn = if with_device || alone || self.is_short(&state, prompt) {
            left
        } else {
            self.tally(&state).turn(Origin::Server, left)
        };
        ServerTurn { prompt, begun: state.open[prompt].answer.text.clone(), max_tokens: turn.max(1).min(left), left }
    }

    /// Whether a side that has this answer in hand should write one more token of it.
    pub(super) fn may_go_on(&self, side: Origin, prompt: usize) -> bool {
        let state = self.state.borrow();
        if self.is_short(&state, prompt) {
            return true;
        }
        let other = if side == Origin::Device { Origin::Server } else { Origin::Device };
        let ends = side == Origin::Server && self.has_its_part(&state, prompt);
        !Self::can(&state, other, prompt) || (!ends && self.tally(&state).may_go_on(side))
    }

    /// A side has written its part of an answer, for now.
    pub(super) fn put_back(&self, prompt: usize) {
        let cut = {
            let mut state = self.state.borrow_mut();
            let open = &mut state.open[prompt];
            open.holder = None;
            open.answer.tokens() >= self.most_tokens()
        };
        if cut { self.finish(prompt, Finish::Length) } else { self.changed.notify_all() }
    }

    /// The server has nothing to add to this answer.
    pub(super) fn leave_to_device(&self, prompt: usize) {
        self.state.borrow_mut().open[prompt].refused.push(Origin::Server);
        self.put_back(prompt);
        self.give_up_lost("The server wrote nothing.");
    }

    /// A token was written; `text` may be empty while a character is not whole.
    pub(super) fn token(&self, prompt: usize, origin: Origin, text: &str, now_s: f64) {
        self.state.borrow_mut().measured.side(origin).token(now_s);
        self.write(prompt, origin, text, now_s);
    }

    /// The first token after a prompt was read was written: what it took was reading.
    pub(super) fn first_token(&self, prompt: usize, origin: Origin, text: &str, now_s: f64) {
        self.state.borrow_mut().measured.side(origin).first_token(now_s);
        self.write(prompt, origin, text, now_s);
    }

    fn write(&self, prompt: usize, origin: Origin, text: &str, now_s: f64) {
        {
            let mut state = self.state.borrow_mut();
            let open = &mut state.open[prompt];
            let before = open.answer.by.last().copied();
            let since_s = now_s - std::mem::replace(&mut open.last_s, now_s);
            open.answer.text.push_str(text);
            open.answer.by.push(origin);
            match origin {
                Origin::Device => open.answer.device_tokens += 1,
                Origin::Server => open.answer.server_tokens += 1,
            }
            if before.is_some_and(|before| before != origin) {
                state.measured.hand_over(since_s);
            }
        }
        if !text.is_empty() {
            (self.emit)(Event::Token { ask: self.ask.id, prompt, origin, text: text.to_owned() });
        }
        // The other side's part has grown.
        self.changed.notify_all();
    }

    /// A prompt is answered, or cut at a limit.
    pub(super) fn finish(&self, prompt: usize, finish: Finish) {
        {
            let open = &mut self.state.borrow_mut().open[prompt];
            (open.over, open.holder) = (true, None);
            // Of one that was begun before, nobody knows the length.
            open.ended = Some(finish).filter(|_| self.ask.begun(prompt).is_empty());
        }
        (self.emit)(Event::PromptDone { ask: self.ask.id, prompt, finish });
        self.changed.notify_all();
    }

    /// A request failed: the device takes over this prompt, and all others of the server's unless the fault lies with
    /// this one request.
    pub(super) fn server_failed(&self, prompt: usize, error: &TransportError) {
        let device_up = {
            let mut state = self.state.borrow_mut();
            state.open[prompt].holder = None;
            state.open[prompt].refused.push(Origin::Server);
            state.server_up &= error.concerns_request_only();
            state.measured.server_lost = true;
            state.device_up
        };
        let reason = sentence(error);
        if device_up {
            self.notice(format!("{reason} This device finishes the answer alone."));
        }
        self.give_up_lost(&reason);
    }

    /// The engine failed, for good or for one prompt; it had these in hand. The server goes on with them.
    pub(super) fn device_failed(&self, prompts: &[usize], error: &LocalError, now_s: f64) {
        let server_up = {
            let mut guard = self.state.borrow_mut();
            let state = &mut *guard;
            state.device_up &= error.prompt_only;
            state.measured.device_lost = true;
            for (prompt, open) in state.open.iter_mut().enumerate().filter(|(_, open)| !open.over) {
                if prompts.contains(&prompt) {
                    open.holder = None;
                    open.refused.push(Origin::Device);
                }
                // Pieces that were to stay go up the link now.
                let goes = !state.device_up || prompts.contains(&prompt);
                if goes && self.shares[prompt].server_share <= 0.0 {
                    open.arrival_s = state.uplink.arrival_s(now_s, self.shares[prompt].bits);
                    state.measured.last_arrival_s = Some(open.arrival_s);
                }
            }
            state.server_up
        };
        let reason = sentence(error);
        if server_up {
            self.notice(format!("{reason} The server goes on."));
        }
        self.give_up_lost(&reason);
    }

    /// Prompts that nobody can go on with stay as they are.
    fn give_up_lost(&self, reason: &str) {
        {
            let mut guard = self.state.borrow_mut();
            for prompt in 0..guard.open.len() {
                let lost = ![Origin::Device, Origin::Server].iter().any(|&side| Self::can(&guard, side, prompt));
                if lost && !guard.open[prompt].over {
                    guard.open[prompt].over = true;
                    guard.given_up.get_or_insert_with(|| reason.to_owned());
                }
            }
        }
        self.changed.notify_all();
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

    /// A side has read a prompt.
    pub(super) fn read(&self, origin: Origin, read: Read) {
        *self.state.borrow_mut().measured.side(origin).read.get_or_insert_default() += read;
    }

    /// A reply of the server's began after this long.
    pub(super) fn add_reply_time(&self, seconds: f64) {
        self.state.borrow_mut().measured.reply_s += seconds;
    }

    /// What is learnt of lengths: prompts whose answers ended by themselves or were cut at a limit.
    pub(super) fn lengths_seen(&self) -> Vec<(usize, usize, Finish)> {
        let state = self.state.borrow();
        let ended = state.open.iter().enumerate();
        ended.filter_map(|(prompt, open)| Some((prompt, open.answer.tokens(), open.ended?))).collect()
    }

    /// Reports the end of the ask.
    pub(super) fn conclude(self, now_s: f64) -> RunOutcome {
        let state = self.state.into_inner();
        let answers: Vec<Answer> = state.open.into_iter().map(|open| open.answer).collect();
        let tokens: usize = answers.iter().map(Answer::tokens).sum();
        if let Some(reason) = &state.given_up {
            let message = format!("{reason} This device could not finish the answer; what you typed is kept.");
            if tokens == 0 {
                let advice = "Try again, or load the model so that this device can answer by itself.";
                (self.emit)(Event::Failed { ask: Some(self.ask.id), message: format!("{message} {advice}") });
                return RunOutcome { record: None, answers, alpha: 0.0 };
            }
            (self.emit)(Event::Notice { ask: Some(self.ask.id), message });
        }
        let record = state.measured.record(self.ask, self.slot, self.stop.is_stopped(), now_s);
        (self.emit)(Event::Done { ask: self.ask.id, record: record.clone() });
        let alpha = record.done_alpha.unwrap_or(self.alpha);
        RunOutcome { record: Some(record), answers, alpha }
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

/// The server's order: the shared prompt, those that it answers whole, those that stay.
fn server_order(shares: &[PromptShare]) -> Vec<usize> {
    ordered(shares, |share| if share.is_shared() { 0 } else { 1 + u8::from(share.server_share <= 0.0) })
}

/// The device's order: its own prompts, the shared one, those of the server's.
fn device_order(shares: &[PromptShare]) -> Vec<usize> {
    ordered(shares, |share| if share.is_shared() { 1 } else { 2 * u8::from(share.server_share > 0.0) })
}

fn ordered(shares: &[PromptShare], rank: impl Fn(&PromptShare) -> u8) -> Vec<usize> {
    let mut order: Vec<usize> = (0..shares.len()).collect();
    order.sort_by_key(|&prompt| rank(&shares[prompt]));
    order
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
