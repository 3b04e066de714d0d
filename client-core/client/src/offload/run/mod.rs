//! One ask, from Enter to the last token: both sides write at the same time (eq. 29), and each can finish for the other.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `turns` | who may write: the rule by which the share of what is written comes out at α |
//! | `board` | the shared state: what is written, who has which answer in hand |
//! | `device` | the device's side |
//! | `server` | the server's side |
//! | `record` | what was measured, beside what was modelled |
//!
//! Who does what:
//! - The device answers the prompts that stay, in the order of the ask, several at a time where its engine can, then goes
//!   on with the shared prompt.
//! - The server answers one request at a time, each when its piece has come up the link. The shared prompt goes first:
//!   meanwhile the device has prompts of its own to answer, and then finds the server's words there.
//! - Nobody knows how long answers will be, so no plan holds: a side goes on for as long as `turns` lets it, and then puts
//!   the answer back; the other goes on from the very text. Who is free takes what nobody has in hand, its own prompts first.
//! - A server that is gone, refuses, or sends nothing for [`SILENCE_LIMIT_S`]: the device finishes its prompts from where
//!   their text ends. An engine that fails and cannot recover: the server does.
//! - Stop ends both sides within one token; the request is cancelled by dropping it.
//!
//! Deliberately absent: retrying a server within an ask. The device is quicker than a second silence.

mod board;
mod device;
mod record;
mod server;
mod turns;

#[cfg(test)]
mod share_tests;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::pin;

use futures::future::{Either, join, select};

use self::board::Board;
use self::turns::SHORT_TOKENS;
use super::length::AnswerLength;
use super::ports::{Clock, LocalEngine, Transport};
use super::signal::StopFlag;
use super::split::{OffloadRatio, PromptShare, PromptWeight, split};
use crate::protocol::engine::Finish;
use crate::protocol::worker::{AskMode, AskOptions, Event, Origin, PromptPlan, SlotRecord};
use crate::protocol::world::DeviceOutcome;

/// A server that sends nothing for this long counts as lost.
pub const SILENCE_LIMIT_S: f64 = 8.0;

/// What to answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// The page's id of it.
    pub id: u64,
    /// The prompts, none empty.
    pub prompts: Vec<String>,
    /// What of each answer is written already, in the order of the prompts; what is missing is empty.
    pub begun: Vec<String>,
    /// How.
    pub options: AskOptions,
}

impl Ask {
    /// What of a prompt's answer is written already.
    #[must_use]
    pub fn begun(&self, prompt: usize) -> &str {
        self.begun.get(prompt).map_or("", String::as_str)
    }
}

/// The slot that the ask is answered in, as the simulator has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlotModel {
    /// Slot number.
    pub slot: u64,
    /// Task size X.
    pub size_bits: f64,
    /// What the ratio and power in force cost this device; `alpha` is what the run goes by.
    pub outcome: DeviceOutcome,
}

/// One prompt's answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The text, whoever wrote it, with what was begun.
    pub text: String,
    /// Tokens of the server's.
    pub server_tokens: usize,
    /// Tokens of this device's.
    pub device_tokens: usize,
    /// Who wrote each token, in their order; what was begun before is not among them.
    pub by: Vec<Origin>,
}

impl Answer {
    /// Tokens that were written in this ask.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.by.len()
    }
}

/// What became of an ask.
#[derive(Clone, Debug, PartialEq)]
pub struct RunOutcome {
    /// Modelled and measured; `None` when nobody could answer ([`Event::Failed`] was sent).
    pub record: Option<SlotRecord>,
    /// One entry a prompt.
    pub answers: Vec<Answer>,
    /// Share of all tokens that the server wrote: near α, unless one side had to finish for the other.
    pub alpha: f64,
}

/// The ratio that counts: the mode can overrule the decider, and without an engine the server answers everything.
#[must_use]
pub fn ratio_in_force(mode: AskMode, has_engine: bool, decided: f64) -> OffloadRatio {
    match mode {
        AskMode::ServerOnly => OffloadRatio::ALL,
        AskMode::LocalOnly => OffloadRatio::NONE,
        AskMode::Split if !has_engine => OffloadRatio::ALL,
        AskMode::Split => OffloadRatio::saturating(decided),
    }
}

/// Answers `ask`. Every step is reported through `emit`, [`Event::Plan`] first and [`Event::Done`] or [`Event::Failed`]
/// last. `started_s` is the clock's time at which the person pressed Enter.
#[allow(clippy::too_many_arguments, reason = "each is a different port; a struct would only be taken apart again")]
pub async fn run<E: LocalEngine, T: Transport, C: Clock>(
    ask: &Ask,
    slot: &SlotModel,
    started_s: f64,
    mut engine: Option<&mut E>,
    transport: &T,
    clock: &C,
    length: &mut AnswerLength,
    stop: &StopFlag,
    emit: &dyn Fn(Event),
) -> RunOutcome {
    if engine.is_none() && ask.options.mode == AskMode::LocalOnly {
        let message = "No model is loaded on this device. Load it, or let the server answer.".to_owned();
        emit(Event::Failed { ask: Some(ask.id), message });
        return RunOutcome { record: None, answers: vec![Answer::default(); ask.prompts.len()], alpha: 0.0 };
    }
    let alpha = ratio_in_force(ask.options.mode, engine.is_some(), slot.outcome.alpha);
    let (entropies, entropy_s) = match engine.as_deref_mut() {
        Some(engine) => entropies(ask, alpha, engine, clock, stop).await,
        None => (vec![None; ask.prompts.len()], 0.0),
    };
    let weights: Vec<PromptWeight> = ask
        .prompts
        .iter()
        .zip(&entropies)
        .map(|(prompt, &entropy)| {
            let most = ask.options.sampling.max_tokens;
            PromptWeight { tokens: length.estimate(prompt.len(), 0, most).expected, entropy }
        })
        .collect();
    let shares = whole_if_short(split(&weights, slot.size_bits, alpha), &weights);
    emit(plan(ask, slot, alpha, &shares, &entropies));

    let (device_up, now_s) = (engine.is_some(), clock.now_s());
    let board = Board::new(ask, slot, alpha.get(), started_s, &shares, length, device_up, now_s, stop, emit);
    board.add_device_time(entropy_s);
    let device_side = async {
        if let Some(engine) = engine {
            device::answer(&board, engine, clock).await;
        }
    };
    join(device_side, server::answer(&board, transport, clock)).await;
    let seen = board.lengths_seen();
    let outcome = board.conclude(clock.now_s());
    for (prompt, tokens, finish) in seen {
        let bytes = ask.prompts[prompt].len();
        match finish {
            Finish::Stop => length.observe(bytes, tokens),
            Finish::Length => length.observe_cut(bytes, tokens),
            Finish::Cancelled => {}
        }
    }
    outcome
}

/// Entropy of every prompt, and the time that took, where the order of offloading depends on it; one prompt, or a ratio
/// of 0 or 1, has no order, and the first token should not wait for it.
async fn entropies<E: LocalEngine, C: Clock>(
    ask: &Ask,
    alpha: OffloadRatio,
    engine: &mut E,
    clock: &C,
    stop: &StopFlag,
) -> (Vec<Option<f32>>, f64) {
    let mut entropies = vec![None; ask.prompts.len()];
    if ask.prompts.len() < 2 || alpha == OffloadRatio::NONE || alpha == OffloadRatio::ALL {
        return (entropies, 0.0);
    }
    let begun_s = clock.now_s();
    for (prompt, entropy) in ask.prompts.iter().zip(&mut entropies) {
        if stop.is_stopped() {
            break;
        }
        // A prompt that the engine cannot read (too long for it) is left to the server last; answering it will tell why.
        *entropy = engine.entropy(&ask.options.earlier, prompt).await.ok();
    }
    (entropies, clock.now_s() - begun_s)
}

/// A short answer of a burst is one side's: that of the larger share. So what goes up is the whole answers nearest to α·X.
fn whole_if_short(mut shares: Vec<PromptShare>, weights: &[PromptWeight]) -> Vec<PromptShare> {
    if weights.len() > 1 {
        for (share, _) in shares.iter_mut().zip(weights).filter(|(_, weight)| weight.tokens < SHORT_TOKENS) {
            share.server_share = share.server_share.round();
            share.server_bits = share.server_share * share.bits;
        }
    }
    shares
}

fn plan(ask: &Ask, slot: &SlotModel, alpha: OffloadRatio, shares: &[PromptShare], entropies: &[Option<f32>]) -> Event {
    let offloaded_bits: f64 = shares.iter().map(|share| share.server_bits).sum();
    let paced = ask.options.pacing && offloaded_bits > 0.0 && slot.outcome.rate_bps > 0.0;
    Event::Plan {
        ask: ask.id,
        alpha: alpha.get(),
        power_w: slot.outcome.power_w,
        prompts: shares
            .iter()
            .zip(entropies)
            .map(|(share, &entropy)| PromptPlan { bits: share.bits, entropy, server_share: share.server_share })
            .collect(),
        uplink_s: if paced { offloaded_bits / slot.outcome.rate_bps } else { 0.0 },
    }
}

/// The work's result, or `None` as soon as the ask is stopped; the work is dropped then.
pub async fn unless_stopped<T>(stop: &StopFlag, work: impl Future<Output = T>) -> Option<T> {
    let (work, stopped) = (pin!(work), pin!(stop.stopped()));
    match select(stopped, work).await {
        Either::Left(_) => None,
        Either::Right((result, _)) => Some(result),
    }
}

/// The work's result, or `None` after `limit_s`; the work is dropped then.
pub async fn within<T, C: Clock>(clock: &C, limit_s: f64, work: impl Future<Output = T>) -> Option<T> {
    let (work, limit) = (pin!(work), pin!(clock.sleep(limit_s)));
    match select(work, limit).await {
        Either::Left((result, _)) => Some(result),
        Either::Right(_) => None,
    }
}
