//! Whether the share of what is written comes out at α: scripted backends, answers of 5 to 500 tokens, a simulated clock.

use std::cell::RefCell;
use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::offload::fakes::{FakeClock, FakeEngine, FakeServer};

/// What is promised of |done − α| for answers of 5 tokens and more.
const PROMISED: f64 = 0.1 + 1e-9;

/// A burst and who answers it.
#[derive(Clone, Debug)]
struct Case {
    alpha: f64,
    /// Tokens of each answer.
    lengths: Vec<usize>,
    /// Answers that were seen before.
    history: Vec<usize>,
    device_token_s: f64,
    server_token_s: f64,
    /// Answers that the device writes at a time.
    rows: usize,
    /// What reading costs the device, and replying the server, in each turn.
    turn_s: f64,
    rate_bps: f64,
}

impl Case {
    fn new(alpha: f64, lengths: &[usize], history: &[usize]) -> Self {
        let (lengths, history) = (lengths.to_vec(), history.to_vec());
        let (device_token_s, server_token_s) = (0.05, 0.02);
        Self { alpha, lengths, history, device_token_s, server_token_s, rows: 4, turn_s: 0.05, rate_bps: 5e7 }
    }

    fn play(&self) -> SlotRecord {
        let clock = FakeClock::default();
        let prompts: Vec<String> = (0..self.lengths.len()).map(|n| format!("{n}{}", "?".repeat(20 + n))).collect();
        let lengths: Vec<(String, usize)> = prompts.iter().cloned().zip(self.lengths.iter().copied()).collect();
        let mut engine = FakeEngine::new(&clock);
        (engine.token_s, engine.read_s, engine.rows) = (self.device_token_s, self.turn_s, self.rows);
        engine.lengths.clone_from(&lengths);
        let mut server = FakeServer::new(&clock);
        (server.token_s, server.reply_s) = (self.server_token_s, self.turn_s);
        server.lengths = lengths;
        let mut length = AnswerLength::default();
        self.history.iter().for_each(|&tokens| length.observe(21, tokens));
        let outcome = DeviceOutcome { alpha: self.alpha, rate_bps: self.rate_bps, ..DeviceOutcome::default() };
        let slot = SlotModel { slot: 0, size_bits: 2e6, outcome };
        let ask = Ask { id: 1, prompts, begun: Vec::new(), options: AskOptions::default() };
        let (events, stop) = (RefCell::new(Vec::new()), StopFlag::default());
        let emit = |event| events.borrow_mut().push(event);
        let work = run(&ask, &slot, 0.0, Some(&mut engine), &server, &clock, &mut length, &stop, &emit);
        let outcome = clock.block_on(work);
        let done = events.borrow().iter().filter(|event| matches!(event, Event::PromptDone { .. })).count();
        assert_eq!(done, self.lengths.len(), "{self:?}");
        for (answer, &tokens) in outcome.answers.iter().zip(&self.lengths) {
            assert_eq!((answer.tokens(), answer.text.matches(' ').count()), (tokens, tokens), "{self:?}: {answer:?}");
            // Whoever wrote them, tokens stand in their order: each went on from the very text.
            for (position, word) in answer.text.split_whitespace().enumerate() {
                assert_eq!(&word[1..], position.to_string(), "{self:?}");
            }
        }
        outcome.record.expect("it was answered")
    }
}

fn off(case: &Case, record: &SlotRecord) -> f64 {
    (record.done_alpha.expect("something was written") - case.alpha).abs()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Nothing is known of the lengths, or what is known is of answers of every length.
    #[test]
    fn the_share_is_alpha_whatever_the_lengths(
        alpha in prop_oneof![0.0_f64..=1.0, Just(0.0), Just(1.0), Just(0.69)],
        lengths in prop::collection::vec(prop_oneof![5_usize..=500, 5_usize..=20], 1..=4),
        history in prop_oneof![Just(vec![]), prop::collection::vec(5_usize..=500, 0..64)],
        speeds in (0.005_f64..0.3, 0.005_f64..0.3),
        rows in prop_oneof![Just(1_usize), Just(4_usize)],
        rate_bps in prop_oneof![Just(1e9), Just(5e7), Just(1e6)],
    ) {
        // An answer shorter than three quarters of all that were seen is a surprise of another kind.
        let history = if history.len() < 5 { Vec::new() } else { [&history[..], &[5]].concat() };
        let (device_token_s, server_token_s) = speeds;
        let case = Case { device_token_s, server_token_s, rows, rate_bps, ..Case::new(alpha, &lengths, &history) };
        let record = case.play();
        prop_assert!(off(&case, &record) <= PROMISED, "{:?} → {:?}", case, record);
    }

    /// Answers like those before: few changes of hands.
    #[test]
    fn lengths_that_are_known_cost_few_handovers(
        alpha in 0.0_f64..=1.0, typical in 20_usize..=400, spread in prop::collection::vec(0.8_f64..1.25, 13), prompts in 1_usize..=4,
    ) {
        let lengths: Vec<usize> = spread.iter().map(|factor| (factor * typical as f64) as usize).collect();
        let case = Case::new(alpha, &lengths[..prompts], &lengths[4..]);
        let record = case.play();
        prop_assert!(off(&case, &record) <= PROMISED, "{:?} → {:?}", case, record);
        prop_assert!(record.handovers <= 8 * prompts, "{:?} → {:?}", case, record);
    }
}

/// Short answers of a burst do not change hands, and their share is the nearest that whole answers have.
#[test]
fn short_answers_of_a_burst_are_one_sides() {
    let lengths = [3, 4, 2, 4, 3, 4];
    for step in 0..=20 {
        let alpha = f64::from(step) / 20.0;
        let case = Case::new(alpha, &lengths, &[3, 4, 2, 4, 3, 4]);
        let record = case.play();
        assert_eq!(record.handovers, 0, "{case:?} → {record:?}");
        assert!(off(&case, &record) <= 4.0 / 20.0, "{case:?} → {record:?}");
        assert!(alpha > 0.0 && alpha < 1.0 || off(&case, &record) == 0.0, "{record:?}");
    }
    // By itself, one is shared all the same.
    let case = Case::new(0.5, &[4], &[4, 4, 4, 4, 4]);
    let record = case.play();
    assert_eq!((record.device_tokens, record.server_tokens), (2, 2));
}

/// Several answers that may all be over at once: what each of them will have at least is what it has.
#[test]
fn answers_that_end_together_keep_the_share() {
    let case = Case {
        device_token_s: 0.272,
        server_token_s: 0.005,
        rate_bps: 1e9,
        ..Case::new(0.2397, &[5, 9, 8], &[5, 5, 5, 5, 11, 5])
    };
    let record = case.play();
    assert!(off(&case, &record) <= PROMISED, "{case:?} → {record:?}");
}

/// Planned and done, side by side: `cargo test -p client planned_and_done -- --nocapture` prints it.
#[test]
fn planned_and_done() {
    let mut table = String::from("prompts  tokens  known  α planned: done (handovers, s waited, s in all)\n");
    let mut worst: f64 = 0.0;
    for prompts in [1, 2, 4] {
        for tokens in [5, 12, 40, 120, 500] {
            for known in [false, true] {
                let history: Vec<usize> =
                    if known { (0..16).map(|n| tokens * (16 + n % 3) / 16).collect() } else { Vec::new() };
                // Answers of one burst differ by half.
                let lengths: Vec<usize> = (0..prompts).map(|n| tokens.max(tokens * (4 + n) / 5)).collect();
                let _ = write!(table, "{prompts:>7} {tokens:>7}  {:<5}", if known { "yes" } else { "no" });
                for alpha in [0.0, 0.1, 0.3, 0.5, 0.69, 0.9, 1.0] {
                    let case = Case::new(alpha, &lengths, &history);
                    let record = case.play();
                    worst = worst.max(off(&case, &record));
                    let done = record.done_alpha.expect("something was written");
                    let (handovers, waited, whole) = (record.handovers, record.handover_s, record.measured_latency_s);
                    let _ = write!(table, "  {alpha:.2}: {done:.2} ({handovers}, {waited:.2}, {whole:.1})");
                }
                table.push('\n');
            }
        }
    }
    println!("{table}worst: {worst:.3}");
    assert!(worst <= PROMISED, "{table}");
}
