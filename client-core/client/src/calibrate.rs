//! A world like the machines at hand: the simulator's clocks and sizes from what a burst takes in fact.
//!
//! The paper's slot speaks of a task of X bits at φ cycles a bit. Which task that is for a language model, eq. 14–29 leave
//! open. Here it is the burst that is asked: with N tokens of answers expected, X = b·(N + n₀) bits, and a token costs c = φ·b
//! cycles. Bursts of several sizes, answered by both sides at the same time, show what they take: T = t·(N + n₀), where n₀ tokens'
//! worth of time goes by however short the answers are, with requests, reading, and answers that change hands. Of what each side
//! was busy for a token of its own, stretched until the busier one takes T, come τ_k, the device's time for a token, and τ, the
//! server's, each with all that such a token costs there: round trips, waiting for the other, the load that the other side and
//! other people put on the machine at that moment. Then
//!
//! ```text
//! f_k = c/τ_k     (14): (1−α)·φ·X/f_k = (1−α)·(N + n₀)·τ_k
//! F   = c/τ       (22): α·φ·X/F       = α·(N + n₀)·τ
//! ```
//!
//! so that eq. 29 gives the time of the burst, max of the two, the uplink before the server's. b is what goes up in fact:
//! the bits of the requests over the tokens that they brought (eq. 20). One number is free, since only φX/f and φX/F show:
//! the clock f_k, which eq. 15 turns into energy. It is the paper's 2 GHz, or for tasks that take longer than the paper's
//! the lower clock at which the whole task costs what the paper's does, κ·f³·T = const; a device that takes long is
//! not one that may spend more. Where the settings' ranges do not hold all of that, b gives way first (a larger X over
//! a fast uplink is still a short time), then f_k.
//!
//! Eq. 29 lets both sides work side by side, which the answers to a burst do. The tokens of one answer come one after the
//! other: where a single prompt is shared, what is measured is nearer to the sum of the two times than to the longer one. For
//! bursts like the measured ones that is in τ, τ_k and n₀, which are fitted to what the bursts took.

use async_trait::async_trait;

use crate::offload::length::AnswerLength;
use crate::offload::openai::ChatRequest;
use crate::offload::ports::{ChatStream, Clock, LocalEngine, Transport, TransportError};
use crate::offload::run::{Ask, SlotModel, run};
use crate::offload::signal::StopFlag;
use crate::protocol::similarity::{SimilarityRequest, SimilarityResponse};
use crate::protocol::worker::{AskMode, AskOptions, SlotRecord};
use crate::protocol::world::{CalibratedTask, Calibration, DeviceOutcome, WorldSettings};
use mec::MecParams;
use mec::settings::find;

/// Longest answer while both sides are measured, tokens: rates do not need more.
const MOST_TOKENS: usize = 48;
/// A part of the work below this says little of the side that does it.
const LEAST_SHARE: f64 = 0.2;
/// Bursts behind the first three: their sizes, as multiples of the one that is asked, and how far their α is from that at
/// which both sides take as long. How often answers change hands hangs on both.
const BURSTS: [(f64, f64); 9] = [
    (0.5, 0.0),
    (2.0, 0.0),
    (1.0, 0.06),
    (0.5, -0.06),
    (2.0, 0.06),
    (1.0, -0.06),
    (0.5, 0.06),
    (2.0, -0.06),
    (1.0, 0.0),
];
/// So often they are gone through. The first of them is always answered; no other is begun this many seconds after it.
const ROUNDS: usize = 3;
const BURSTS_S: f64 = 4.0;
/// Most of a burst's time that is taken not to hang on its tokens.
const MOST_FIXED: f64 = 0.9;
/// Bits of a request beside its prompt: headers, JSON.
const REQUEST_BITS: f64 = 8.0 * 600.0;
/// Tasks that the world has to have room for, as multiples of the measured one.
const ROOM: f64 = 5.0;

/// Measures both sides: the burst is answered three times, by both of them at the same time. The first time shows how long its
/// answers are, the second how fast the sides are, and from the third on the work is shared so that both take as long, as it
/// will be; then smaller and larger ones, for some seconds. Nothing is held back to a simulated channel, nothing is told of
/// these answers, and the server reads each question anew. `length` learns from the first two; from the third on, a burst
/// knows how long answers are and not which, as with questions that nobody asked before: how often answers change hands hangs
/// on that.
///
/// # Errors
/// Why nothing could be measured, and what to do.
pub async fn calibrate<E: LocalEngine, T: Transport, C: Clock>(
    prompts: &[String],
    engine: &mut E,
    transport: &T,
    clock: &C,
    length: &mut AnswerLength,
    stop: &StopFlag,
) -> Result<Calibration, String> {
    let mut bursts: Vec<SlotRecord> = Vec::new();
    let mut answer = async |size: f64, alpha: f64, length: &mut AnswerLength| {
        let count = ((size * prompts.len() as f64).round() as usize).max(1);
        let mut options = AskOptions { mode: AskMode::Split, pacing: false, compare: false, ..AskOptions::default() };
        options.sampling.max_tokens = MOST_TOKENS;
        let prompts = prompts.iter().cycle().take(count).cloned().collect();
        let ask = Ask { id: 0, prompts, begun: Vec::new(), options };
        let outcome = DeviceOutcome { alpha, ..DeviceOutcome::default() };
        let slot = SlotModel { slot: 0, size_bits: 1.0, outcome };
        let begun_s = clock.now_s();
        let unread = Unread { inner: transport, salt: format!("calibrate {begun_s} {alpha} {size}") };
        let done = run(&ask, &slot, begun_s, Some(&mut *engine), &unread, clock, length, stop, &|_| ()).await;
        let record = done.record.filter(|record| !record.stopped && !record.server_lost);
        record.ok_or_else(|| match stop.is_stopped() {
            true => "Stopped: the world is as it was.".to_owned(),
            false => {
                "Device and server have to answer both to be measured, and one of them did not. Try again.".to_owned()
            }
        })
    };
    let too_short = || "The answers were too short to measure anything. Ask something longer.".to_owned();
    let mut even = 0.5;
    for round in 0..3 {
        let record = match round {
            0 | 1 => answer(1.0, even, length).await?,
            _ => answer(1.0, even, &mut length.of_any_prompt()).await?,
        };
        let [device_s, server_s] = paces(std::slice::from_ref(&record)).ok_or_else(too_short)?;
        even = (device_s / (device_s + server_s)).clamp(LEAST_SHARE, 1.0 - LEAST_SHARE);
        bursts = vec![record];
    }
    let [device_tokens_per_s, server_tokens_per_s] =
        bursts.first().map_or([None; 2], |record| [record.device_tokens_per_s, record.server_tokens_per_s]);
    let begun_s = clock.now_s();
    for (at, (size, aside)) in BURSTS.into_iter().cycle().take(ROUNDS * BURSTS.len()).enumerate() {
        if at == 0 || clock.now_s() - begun_s < BURSTS_S {
            bursts.push(answer(size, even + aside, &mut length.of_any_prompt()).await?);
        }
    }
    let [device_s, server_s] = paces(&bursts).ok_or_else(too_short)?;
    let [token_s, fixed_tokens] = line(&bursts).ok_or_else(too_short)?;
    // The busier side of a burst like the one that is asked takes as long as that burst.
    let stretch = token_s / ((1.0 - even) * device_s).max(even * server_s);
    let bytes: usize = prompts.iter().map(String::len).sum();
    Ok(Calibration {
        tokens: prompts.iter().map(|prompt| length.estimate(prompt.len(), 0, MOST_TOKENS).expected).sum(),
        fixed_tokens,
        device_s_per_token: stretch * device_s,
        server_s_per_token: stretch * server_s,
        device_tokens_per_s,
        server_tokens_per_s,
        request_bits: 8.0 * bytes as f64 + REQUEST_BITS * prompts.len() as f64,
        round_trip_s: None,
    })
}

/// A server that has read nothing of a burst's prompts before: what it keeps from the last one would make it too fast.
struct Unread<'t, T> {
    inner: &'t T,
    salt: String,
}

#[async_trait(?Send)]
impl<T: Transport> Transport for Unread<'_, T> {
    async fn chat(&self, request: &ChatRequest) -> Result<ChatStream, TransportError> {
        let salted = ChatRequest { cache_salt: Some(self.salt.clone()), ..request.clone() };
        match self.inner.chat(&salted).await {
            // Engines that do not know the field.
            Err(TransportError::Refused { status: 400 | 422, .. }) => self.inner.chat(request).await,
            other => other,
        }
    }

    async fn similarity(&self, request: &SimilarityRequest) -> Result<SimilarityResponse, TransportError> {
        self.inner.similarity(request).await
    }
}

/// Seconds that the device and the server were busy for a token of their own; `None` where a side wrote nothing.
fn paces(bursts: &[SlotRecord]) -> Option<[f64; 2]> {
    let pace = |seconds: fn(&SlotRecord) -> Option<f64>, tokens: fn(&SlotRecord) -> usize| {
        let seconds: f64 = bursts.iter().filter_map(seconds).sum();
        let tokens: usize = bursts.iter().map(tokens).sum();
        (seconds > 0.0 && tokens > 0).then(|| seconds / tokens as f64)
    };
    Some([pace(|r| r.measured_local_s, |r| r.device_tokens)?, pace(|r| r.measured_server_s, |r| r.server_tokens)?])
}

/// The t and n₀ of T = t·(N + n₀) that fit the bursts best (least squares), neither below 0.
fn line(bursts: &[SlotRecord]) -> Option<[f64; 2]> {
    let tokens = |record: &SlotRecord| (record.device_tokens + record.server_tokens) as f64;
    let count = bursts.len() as f64;
    let mean = |of: &dyn Fn(&SlotRecord) -> f64| bursts.iter().map(of).sum::<f64>() / count;
    let (mean_tokens, mean_s) = (mean(&tokens), mean(&|record| record.measured_latency_s));
    let spread = mean(&|record| (tokens(record) - mean_tokens).powi(2));
    let both = mean(&|record| (tokens(record) - mean_tokens) * (record.measured_latency_s - mean_s));
    let slope = if spread > 0.0 { both / spread } else { f64::INFINITY };
    let fixed_s = (mean_s - slope * mean_tokens).clamp(0.0, MOST_FIXED * mean_s);
    let token_s = (mean_s - fixed_s) / mean_tokens;
    (token_s.is_finite() && token_s > 0.0).then(|| [token_s, fixed_s / token_s])
}

/// Puts what was measured into the settings of a world; all else stays as it is.
pub fn apply(measured: &Calibration, world: &mut WorldSettings) {
    let range = |key: &str| find(key).map_or((0.0, f64::INFINITY), |setting| (setting.min, setting.max));
    let within = |value: f64, (min, max): (f64, f64)| value.clamp(min, max);
    let paper = MecParams::DEFAULT;
    let task = CalibratedTask { tokens: measured.tokens.max(1.0), fixed_tokens: measured.fixed_tokens };
    let tokens = task.whole(task.tokens);
    let paper_bits = 1e6 * (paper.size_min_mbit + paper.size_max_mbit) / 2.0;
    let paper_s = paper.cycles_per_bit * paper_bits / paper.device_hz;
    let alone_s = measured.device_s_per_token * tokens;
    let slower = (paper_s / alone_s).cbrt().min(1.0);
    let (size, work, server) = (range("size_min_mbit"), range("cycles_per_bit"), range("server_hz"));
    // c = f·τ_k; the largest φ·X has to hold the task, and F = c/τ has to be a server's clock.
    let most_cycles = work.1 * 1e6 * size.1 / (ROOM * tokens);
    let cycles = (paper.device_hz * slower * measured.device_s_per_token).min(most_cycles);
    let cycles = within(cycles, (server.0 * measured.server_s_per_token, server.1 * measured.server_s_per_token));
    let least_bits = (1e6 * ROOM * size.0 / tokens).max(cycles / work.1);
    let most_bits = (1e6 * size.1 / (ROOM * tokens)).min(cycles / work.0);
    let bits = (measured.request_bits / tokens).min(most_bits).max(least_bits);
    for (key, value) in [
        ("device_hz", cycles / measured.device_s_per_token),
        ("server_hz", cycles / measured.server_s_per_token),
        ("cycles_per_bit", cycles / bits),
    ] {
        world.values.insert(key.to_owned(), within(value, range(key)));
    }
    world.size_mbit = Some(within(bits * tokens / 1e6, size));
    world.calibrated = Some(task);
}

/// Takes a calibration back: the simulator's own clocks and sizes.
pub fn forget(world: &mut WorldSettings) {
    world.values.retain(|key, _| !["device_hz", "server_hz", "cycles_per_bit"].contains(&key.as_str()));
    (world.size_mbit, world.calibrated) = (None, None);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cell::Cell;
    use crate::offload::fakes::{FakeClock, FakeEngine, FakeServer};
    use crate::protocol::world::Decider;

    fn measured(device_s: f64, server_s: f64, tokens: f64, fixed_tokens: f64) -> Calibration {
        Calibration {
            tokens,
            fixed_tokens,
            device_s_per_token: device_s,
            server_s_per_token: server_s,
            device_tokens_per_s: None,
            server_tokens_per_s: None,
            request_bits: 2e4,
            round_trip_s: None,
        }
    }

    proptest! {
        /// Eq. 14 and 22 of the calibrated world give the times that were measured.
        #[test]
        fn the_model_takes_as_long_as_the_machines(
            device_s in 1e-3_f64..1.0,
            ratio in 0.1_f64..100.0,
            tokens in 5.0_f64..2000.0,
            fixed in 0.0_f64..3.0,
            alpha in 0.0_f64..=1.0,
            share in 0.3_f64..3.0,
        ) {
            let server_s = device_s / ratio;
            // What the settings' ranges hold: 400 s on the device, 40 on the server.
            let whole = (1.0 + fixed) * tokens;
            prop_assume!(whole * device_s <= 400.0 && whole * server_s <= 40.0);
            let mut world = WorldSettings { users: 1, decider: Decider::ClosedForm, ..WorldSettings::default() };
            apply(&measured(device_s, server_s, tokens, fixed * tokens), &mut world);
            let mut cell = Cell::open(world.clone(), None);
            prop_assert!(cell.refused().is_empty(), "{:?}", cell.refused());
            cell.expect_tokens(share * tokens);
            let (_, decisions) = cell.decide(None);
            let (slot, _) = cell.slot(decisions, alpha);
            let near = |a: f64, b: f64| (a - b).abs() <= 1e-6 * b + 1e-12;
            let done = (share + fixed) * tokens;
            let (local_s, server_part_s) = ((1.0 - alpha) * done * device_s, alpha * done * server_s);
            prop_assert!(near(slot.outcome.local_s, local_s), "{} s, not {local_s}: {:?}", slot.outcome.local_s, world);
            prop_assert!(near(slot.outcome.server_s, server_part_s), "{} s, not {server_part_s}: {:?}", slot.outcome.server_s, world);
            forget(&mut world);
            prop_assert_eq!((world.values.len(), world.size_mbit, world.calibrated), (0, None, None));
        }
    }

    #[test]
    fn what_is_measured_is_what_the_sides_take() {
        let clock = FakeClock::default();
        let prompts: Vec<String> = ["aaaa", "bbbb", "cccc", "dddd"].map(str::to_owned).to_vec();
        let mut engine = FakeEngine::new(&clock);
        engine.length = 20;
        let mut server = FakeServer::new(&clock);
        server.lengths = prompts.iter().map(|prompt| (prompt.clone(), 20)).collect();
        let (mut length, stop) = (AnswerLength::default(), StopFlag::default());
        let work = calibrate(&prompts, &mut engine, &server, &clock, &mut length, &stop);
        let measured = clock.block_on(work).expect("both answer");
        assert_eq!(measured.tokens, 80.0);
        // A token takes 0.1 and 0.05 s; reading, looking at prompts and replying come on top.
        assert!((0.1..0.12).contains(&measured.device_s_per_token), "{measured:?}");
        assert!((0.05..0.06).contains(&measured.server_s_per_token), "{measured:?}");

        server.refuses = Some(crate::offload::ports::TransportError::Unreachable("gone".into()));
        let work = calibrate(&prompts, &mut engine, &server, &clock, &mut length, &stop);
        assert!(clock.block_on(work).is_err_and(|problem| problem.contains("one of them did not")));
        stop.stop();
        let work = calibrate(&prompts, &mut engine, &server, &clock, &mut length, &stop);
        assert!(clock.block_on(work).is_err_and(|problem| problem.contains("Stopped")));
    }

    /// Short answers, for which requests and answers that change hands take longer than the tokens: a calibrated world tells
    /// how long bursts of other sizes take, within a fifth in the median, and one that counted tokens alone would not.
    #[test]
    fn short_answers_take_as_long_as_the_model_says() {
        let clock = FakeClock::default();
        let (mut engine, mut server) = (FakeEngine::new(&clock), FakeServer::new(&clock));
        (engine.token_s, engine.read_s, server.token_s, server.reply_s) = (0.005, 0.005, 0.004, 0.04);
        // Two to seven tokens each.
        let prompts: Vec<String> = (0..800).map(|n| format!("question {n}")).collect();
        let lengths = prompts.iter().enumerate().map(|(n, prompt)| (prompt.clone(), 2 + n * 7919 % 6)).collect();
        (engine.lengths, server.lengths) = (Vec::clone(&lengths), lengths);
        let (mut length, stop) = (AnswerLength::default(), StopFlag::default());
        let work = calibrate(&prompts[..4], &mut engine, &server, &clock, &mut length, &stop);
        let measured = clock.block_on(work).expect("both answer");
        let off = |measured: &Calibration, engine: &mut FakeEngine, length: &mut AnswerLength| {
            let mut world =
                WorldSettings { users: 2, seed: 7, decider: Decider::ClosedForm, ..WorldSettings::default() };
            apply(measured, &mut world);
            let mut cell = Cell::open(world, None);
            let mut off = Vec::new();
            let mut asked = 4;
            for round in 0..150 {
                // Half of the measured burst to twice as many.
                let prompts = prompts[asked..asked + 2 + round * 13 % 7].to_vec();
                asked += prompts.len();
                let options = AskOptions { pacing: false, compare: false, ..AskOptions::default() };
                let expect = |prompt: &String| length.estimate(prompt.len(), 0, MOST_TOKENS).expected;
                cell.expect_tokens(prompts.iter().map(expect).sum());
                let (_, decisions) = cell.decide(None);
                let alpha = decisions[0].alpha;
                let (slot, decisions) = cell.slot(decisions, alpha);
                let ask = Ask { id: 1, prompts, begun: Vec::new(), options };
                let work = run(&ask, &slot, clock.now_s(), Some(&mut *engine), &server, &clock, length, &stop, &|_| ());
                let record = clock.block_on(work).record.expect("both answer");
                off.push((record.model_latency_s / record.measured_latency_s - 1.0).abs());
                cell.step(&decisions);
            }
            off.sort_by(f64::total_cmp);
            off[off.len() / 2]
        };
        let whole = off(&measured, &mut engine, &mut length);
        assert!(whole <= 0.2, "{whole} {measured:?}");
        // The same time of the measured burst, as if all of it were its tokens'.
        let more = 1.0 + measured.fixed_tokens / measured.tokens;
        let tokens_alone = Calibration {
            fixed_tokens: 0.0,
            device_s_per_token: more * measured.device_s_per_token,
            server_s_per_token: more * measured.server_s_per_token,
            ..measured
        };
        let alone = off(&tokens_alone, &mut engine, &mut length);
        assert!(whole < alone, "{whole} by {alone}: {measured:?}");
    }
}
