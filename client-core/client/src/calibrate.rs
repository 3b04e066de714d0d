//! A world like the machines at hand: the simulator's clocks and sizes from what a burst takes in fact.
//!
//! The paper's slot speaks of a task of X bits at φ cycles a bit. Which task that is for a language model, eq. 14–29 leave
//! open. Here it is the burst that is asked: with N tokens of answers expected, X = b·N bits, and a token costs c = φ·b
//! cycles. What was measured is τ_k, the device's time for a token of its part, and τ, the server's, each with all that such a
//! token costs there: reading prompts, taking turns, round trips, the load that the other side and other people put
//! on the machine at that moment, and its part of the time in which one side waits for the other. Then
//!
//! ```text
//! f_k = c/τ_k     (14): (1−α)·φ·X/f_k = (1−α)·N·τ_k
//! F   = c/τ       (22): α·φ·X/F       = α·N·τ
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
//! bursts like the measured one that is in τ and τ_k, since both are stretched by what the burst took beyond its busier side.

use crate::offload::length::AnswerLength;
use crate::offload::ports::{Clock, LocalEngine, Transport};
use crate::offload::run::{Ask, SlotModel, run};
use crate::offload::signal::StopFlag;
use crate::protocol::worker::{AskMode, AskOptions, SlotRecord};
use crate::protocol::world::{Calibration, DeviceOutcome, WorldSettings};
use mec::MecParams;
use mec::settings::find;

/// Longest answer while both sides are measured, tokens: rates do not need more.
const MOST_TOKENS: usize = 48;
/// A part of the work below this says little of the side that does it.
const LEAST_SHARE: f64 = 0.2;
/// Most times longer than the busier side's work that a burst is taken to last.
const MOST_WAITING: f64 = 3.0;
/// Bits of a request beside its prompt: headers, JSON.
const REQUEST_BITS: f64 = 8.0 * 600.0;
/// Tasks that the world has to have room for, as multiples of the measured one.
const ROOM: f64 = 5.0;

/// Measures both sides: the burst is answered three times, by both of them at the same time. The first time shows how long its
/// answers are, the second how fast the sides are, and the third time the work is shared so that both take as long, as it
/// will be. Nothing is held back to a simulated channel, and nothing is told of these answers. `length` learns from them.
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
    let mut options = AskOptions { mode: AskMode::Split, pacing: false, compare: false, ..AskOptions::default() };
    options.sampling.max_tokens = MOST_TOKENS;
    let ask = Ask { id: 0, prompts: prompts.to_vec(), begun: Vec::new(), options };
    let (mut alpha, mut measured) = (0.5, None);
    for _ in 0..3 {
        let outcome = DeviceOutcome { alpha, ..DeviceOutcome::default() };
        let slot = SlotModel { slot: 0, size_bits: 1.0, outcome };
        let begun_s = clock.now_s();
        let done = run(&ask, &slot, begun_s, Some(&mut *engine), transport, clock, length, stop, &|_| ()).await;
        let record = done.record.filter(|record| !record.stopped && !record.server_lost);
        let Some(record) = record else {
            return Err(match stop.is_stopped() {
                true => "Stopped: the world is as it was.".to_owned(),
                false => "Device and server have to answer both to be measured, and one of them did not. Try again."
                    .to_owned(),
            });
        };
        let paces = paces(&record).ok_or("The answers were too short to measure anything. Ask something longer.")?;
        alpha = (paces[0] / (paces[0] + paces[1])).clamp(LEAST_SHARE, 1.0 - LEAST_SHARE);
        measured = Some((record, paces));
    }
    let (record, paces) = measured.ok_or("Nothing was measured. Try again.")?;
    let [device_s, server_s] = paces.map(|pace| waits(&record) * pace);
    let bytes: usize = prompts.iter().map(String::len).sum();
    let most = ask.options.sampling.max_tokens;
    Ok(Calibration {
        tokens: prompts.iter().map(|prompt| length.estimate(prompt.len(), 0, most).expected).sum(),
        device_s_per_token: device_s,
        server_s_per_token: server_s,
        device_tokens_per_s: record.device_tokens_per_s,
        server_tokens_per_s: record.server_tokens_per_s,
        request_bits: 8.0 * bytes as f64 + REQUEST_BITS * prompts.len() as f64,
        round_trip_s: None,
    })
}

/// Seconds a token of the device's and of the server's, with all that these cost there; `None` where a side wrote nothing.
fn paces(record: &SlotRecord) -> Option<[f64; 2]> {
    let pace = |seconds: Option<f64>, tokens: usize| {
        seconds.filter(|seconds| *seconds > 0.0 && tokens > 0).map(|seconds| seconds / tokens as f64)
    };
    Some([pace(record.measured_local_s, record.device_tokens)?, pace(record.measured_server_s, record.server_tokens)?])
}

/// How many times longer the burst took than the side that was busy for longer: the rest is the time in which one side waited for
/// the other's part of an answer that they share.
fn waits(record: &SlotRecord) -> f64 {
    let sides = [record.measured_local_s, record.measured_server_s].map(Option::unwrap_or_default);
    let busy_s = sides[0].max(record.measured_uplink_s.unwrap_or_default() + sides[1]);
    let times = record.measured_latency_s / busy_s;
    if times.is_finite() { times.clamp(1.0, MOST_WAITING) } else { 1.0 }
}

/// Puts what was measured into the settings of a world; all else stays as it is.
pub fn apply(measured: &Calibration, world: &mut WorldSettings) {
    let range = |key: &str| find(key).map_or((0.0, f64::INFINITY), |setting| (setting.min, setting.max));
    let within = |value: f64, (min, max): (f64, f64)| value.clamp(min, max);
    let paper = MecParams::DEFAULT;
    let tokens = measured.tokens.max(1.0);
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
    world.calibrated_tokens = Some(tokens);
}

/// Takes a calibration back: the simulator's own clocks and sizes.
pub fn forget(world: &mut WorldSettings) {
    world.values.retain(|key, _| !["device_hz", "server_hz", "cycles_per_bit"].contains(&key.as_str()));
    (world.size_mbit, world.calibrated_tokens) = (None, None);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cell::Cell;
    use crate::offload::fakes::{FakeClock, FakeEngine, FakeServer};
    use crate::protocol::world::Decider;

    fn measured(device_s: f64, server_s: f64, tokens: f64) -> Calibration {
        Calibration {
            tokens,
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
            alpha in 0.0_f64..=1.0,
            share in 0.3_f64..3.0,
        ) {
            let server_s = device_s / ratio;
            // What the settings' ranges hold: 400 s on the device, 40 on the server.
            prop_assume!(tokens * device_s <= 400.0 && tokens * server_s <= 40.0);
            let mut world = WorldSettings { users: 1, decider: Decider::ClosedForm, ..WorldSettings::default() };
            apply(&measured(device_s, server_s, tokens), &mut world);
            let mut cell = Cell::open(world.clone(), None);
            prop_assert!(cell.refused().is_empty(), "{:?}", cell.refused());
            cell.expect_tokens(share * tokens);
            let (_, decisions) = cell.decide(None);
            let (slot, _) = cell.slot(decisions, alpha);
            let near = |a: f64, b: f64| (a - b).abs() <= 1e-6 * b + 1e-12;
            let (local_s, server_part_s) = ((1.0 - alpha) * share * tokens * device_s, alpha * share * tokens * server_s);
            prop_assert!(near(slot.outcome.local_s, local_s), "{} s, not {local_s}: {:?}", slot.outcome.local_s, world);
            prop_assert!(near(slot.outcome.server_s, server_part_s), "{} s, not {server_part_s}: {:?}", slot.outcome.server_s, world);
            forget(&mut world);
            prop_assert_eq!((world.values.len(), world.size_mbit, world.calibrated_tokens), (0, None, None));
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
}
