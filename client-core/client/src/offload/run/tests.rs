//! Runs on a simulated clock, against scripted engines and servers.

use std::cell::RefCell;

use super::*;
use crate::offload::compare::compare;
use crate::offload::fakes::{FakeClock, FakeEngine, FakeServer, Step};
use crate::offload::openai::ChatRequest;
use crate::offload::ports::TransportError;
use crate::protocol::engine::{Finish, Read, Turn};
use crate::protocol::sampling::MOST_TOKENS;
use crate::protocol::worker::Origin;

struct Scene {
    clock: FakeClock,
    engine: Option<FakeEngine>,
    server: FakeServer,
    options: AskOptions,
    prompts: Vec<&'static str>,
    /// What of the answers is written already.
    begun: Vec<&'static str>,
    alpha: f64,
    rate_bps: f64,
    /// Tokens of earlier answers.
    history: Vec<usize>,
    /// Stops the ask at this time.
    stop_at_s: Option<f64>,
}

struct Seen {
    events: Vec<(f64, Event)>,
    outcome: RunOutcome,
    length: AnswerLength,
}

impl Scene {
    fn new(prompts: &[&'static str], alpha: f64) -> Self {
        let clock = FakeClock::default();
        let mut engine = FakeEngine::new(&clock);
        // The first prompt is the hardest, and so on.
        engine.entropies = prompts.iter().enumerate().map(|(index, &prompt)| (prompt, 5.0 - index as f32)).collect();
        Self {
            engine: Some(engine),
            server: FakeServer::new(&clock),
            clock,
            options: AskOptions::default(),
            prompts: prompts.to_vec(),
            begun: Vec::new(),
            alpha,
            rate_bps: 1e6,
            history: Vec::new(),
            stop_at_s: None,
        }
    }

    fn script(mut self, prompt: &'static str, steps: &[Step]) -> Self {
        self.server.scripts.push((prompt, steps.to_vec()));
        self
    }

    fn ask(&self) -> Ask {
        let prompts = self.prompts.iter().map(|&prompt| prompt.to_owned()).collect();
        let begun = self.begun.iter().map(|&begun| begun.to_owned()).collect();
        Ask { id: 9, prompts, begun, options: self.options.clone() }
    }

    fn play(&mut self) -> Seen {
        let events = RefCell::new(Vec::new());
        let stop = StopFlag::default();
        let mut length = AnswerLength::default();
        self.history.iter().for_each(|&tokens| length.observe(4, tokens));
        let alpha = ratio_in_force(self.options.mode, self.engine.is_some(), self.alpha).get();
        let outcome = DeviceOutcome { alpha, power_w: 2.0, rate_bps: self.rate_bps, ..DeviceOutcome::default() };
        let slot = SlotModel { slot: 3, size_bits: 1e6, outcome };
        let ask = self.ask();
        let emit = |event| events.borrow_mut().push((self.clock.now_s(), event));
        let outcome = self.clock.block_on(async {
            let engine = self.engine.as_mut();
            let work = run(&ask, &slot, 0.0, engine, &self.server, &self.clock, &mut length, &stop, &emit);
            let stopper = async {
                if let Some(at_s) = self.stop_at_s {
                    self.clock.sleep(at_s).await;
                    stop.stop();
                }
            };
            join(work, stopper).await.0
        });
        Seen { events: events.into_inner(), outcome, length }
    }
}

impl Seen {
    /// Texts by prompt, each run of one origin's in brackets.
    fn texts(&self) -> Vec<String> {
        let mut texts = vec![(String::new(), None); self.outcome.answers.len()];
        for (_, event) in &self.events {
            if let Event::Token { prompt, origin, text, .. } = event {
                let (whole, last) = &mut texts[*prompt];
                if last.replace(*origin) != Some(*origin) {
                    whole.push_str(if *origin == Origin::Server { "|server: " } else { "|device: " });
                }
                whole.push_str(text);
            }
        }
        texts.into_iter().map(|(text, _)| text.trim_end().to_owned()).collect()
    }

    fn notices(&self) -> Vec<&str> {
        self.events
            .iter()
            .filter_map(|(_, event)| match event {
                Event::Notice { message, .. } => Some(message.as_str()),
                _ => None,
            })
            .collect()
    }

    fn finishes(&self) -> Vec<Finish> {
        let finish = |event: &Event| match event {
            Event::PromptDone { finish, .. } => Some(*finish),
            _ => None,
        };
        self.events.iter().filter_map(|(_, event)| finish(event)).collect()
    }

    fn failure(&self) -> Option<&str> {
        self.events.iter().find_map(|(_, event)| match event {
            Event::Failed { message, .. } => Some(message.as_str()),
            _ => None,
        })
    }

    fn prompts_done(&self) -> usize {
        self.events.iter().filter(|(_, event)| matches!(event, Event::PromptDone { .. })).count()
    }

    fn record(&self) -> &SlotRecord {
        self.outcome.record.as_ref().expect("a record")
    }

    fn shares(&self) -> Vec<f64> {
        match &self.events[0].1 {
            Event::Plan { prompts, .. } => prompts.iter().map(|prompt| prompt.server_share).collect(),
            other => panic!("the first event is {other:?}"),
        }
    }
}

const WHOLE: &str = "|server: s0 s1 s2 s3 s4";
const OWN: &str = "|device: d0 d1 d2 d3 d4";

#[test]
fn both_sides_write_at_the_same_time() {
    let mut scene = Scene::new(&["aaaa", "bbbb"], 0.5);
    let seen = scene.play();
    assert_eq!(seen.texts(), [WHOLE, OWN]);
    assert_eq!(seen.shares(), [1.0, 0.0]);
    assert_eq!(seen.prompts_done(), 2);
    let record = seen.record();
    // 0.02 s of entropies; then the device writes 5 tokens of 0.1 s, and the server gets its 0.5 Mbit at 1 Mbit/s,
    // replies after 0.02 s and writes 5 tokens of 0.05 s: eq. 29's max.
    assert!((record.measured_latency_s - (0.02 + 0.5 + 0.02 + 0.25)).abs() < 1e-9, "{record:?}");
    assert!((record.measured_local_s.expect("worked") - 0.52).abs() < 1e-9);
    assert!((record.measured_uplink_s.expect("offloaded") - 0.5).abs() < 1e-9);
    assert!((record.measured_server_s.expect("worked") - 0.27).abs() < 1e-9);
    assert!((record.device_ttft_s.expect("wrote") - 0.12).abs() < 1e-9);
    assert!((record.device_tokens_per_s.expect("5 tokens") - 10.0).abs() < 1e-6);
    assert!((record.server_tokens_per_s.expect("5 tokens") - 20.0).abs() < 1e-6);
    assert_eq!((record.device_tokens, record.server_tokens, record.stopped, record.server_lost), (5, 5, false, false));
    assert_eq!(seen.outcome.alpha, 0.5);
}

#[test]
fn a_shared_prompt_is_begun_by_the_server_and_finished_by_the_device() {
    let mut scene = Scene::new(&["aaaa"], 0.4);
    scene.rate_bps = 1e7;
    let seen = scene.play();
    // 0.48 of the five tokens that are relied on.
    assert_eq!(seen.texts(), ["|server: s0 s1 |device: d2 d3 d4"]);
    let engine = scene.engine.as_ref().expect("there is one");
    assert_eq!(engine.calls, [("aaaa".to_owned(), "s0 s1 ".to_owned(), MOST_TOKENS - 2)]);
    assert_eq!(scene.server.requests.borrow()[0].2, 2);
    assert_eq!(seen.prompts_done(), 1);
    let mut expect = AnswerLength::default();
    expect.observe(4, 5);
    assert_eq!(seen.length, expect);
    let record = seen.record();
    assert_eq!((record.done_alpha, record.handovers), (Some(0.4), 1));
    assert!((record.handover_s - 0.1).abs() < 1e-9, "a token of the device's: {record:?}");
}

#[test]
fn the_device_does_not_wait_for_a_slow_link() {
    // 0.4 s for the server's piece; the device writes what is its part of five tokens, and the server goes on.
    let mut scene = Scene::new(&["aaaa"], 0.4);
    let seen = scene.play();
    assert_eq!(seen.texts(), ["|device: d0 d1 d2 |server: s3 s4"]);
    let record = seen.record();
    assert!((record.device_ttft_s.expect("wrote") - 0.1).abs() < 1e-9, "{record:?}");
    assert!((record.measured_latency_s - (0.4 + 0.02 + 0.1)).abs() < 0.101, "{record:?}");
}

#[test]
fn the_shared_prompt_goes_up_first_and_pieces_queue_on_the_link() {
    let mut scene = Scene::new(&["aaaa", "bbbb", "cccc", "dddd"], 0.625);
    scene.history = vec![5; 6];
    let seen = scene.play();
    assert_eq!(seen.shares(), [1.0, 1.0, 0.5, 0.0]);
    let requests = scene.server.requests.borrow().clone();
    let order: Vec<&str> = requests.iter().map(|request| request.1.as_str()).collect();
    assert_eq!(order, ["cccc", "aaaa", "bbbb"]);
    for (request, arrival_s) in requests.iter().zip([0.125, 0.375, 0.625]) {
        assert!(request.0 >= 0.04 + arrival_s - 1e-9, "{request:?} before {arrival_s}");
    }
    assert_eq!(seen.texts()[2], "|server: s0 s1 |device: d2 d3 d4");
}

#[test]
fn without_pacing_nothing_is_held_back() {
    let mut scene = Scene::new(&["aaaa"], 1.0);
    scene.options.pacing = false;
    let seen = scene.play();
    assert_eq!(scene.server.requests.borrow()[0].0, 0.0);
    assert!((seen.record().measured_uplink_s.expect("offloaded") - 0.02).abs() < 1e-9);
    assert!(matches!(seen.events[0].1, Event::Plan { uplink_s, .. } if uplink_s == 0.0));
}

#[test]
fn the_ends_of_alpha_leave_the_other_side_alone() {
    let seen = Scene::new(&["a", "b"], 0.0).play();
    assert_eq!(seen.texts(), [OWN, OWN]);
    assert_eq!((seen.record().measured_uplink_s, seen.record().measured_server_s), (None, None));
    let mut scene = Scene::new(&["a", "b"], 1.0);
    let seen = scene.play();
    assert_eq!(seen.texts(), [WHOLE, WHOLE]);
    assert_eq!(seen.record().measured_local_s, None);
    assert!(scene.engine.expect("there is one").calls.is_empty());
}

#[test]
fn modes_overrule_the_decider() {
    for (mode, expect) in [(AskMode::LocalOnly, OWN), (AskMode::ServerOnly, WHOLE)] {
        let mut scene = Scene::new(&["a"], 0.5);
        scene.options.mode = mode;
        assert_eq!(scene.play().texts(), [expect], "{mode:?}");
    }
}

#[test]
fn a_server_that_fails_is_finished_for() {
    let refused = TransportError::Refused { status: 503, message: "draining".into() };
    let cases: [(&str, Vec<Step>, &str); 5] = [
        ("killed", vec![Step::Tokens(2), Step::Cut], "broke off"),
        ("refused in the stream", vec![Step::Tokens(2), Step::Fail(refused)], "draining"),
        ("silent from the start", vec![Step::Hang], "sent nothing for 8 seconds"),
        ("silent on the way", vec![Step::Tokens(2), Step::Wait(9.0), Step::Tokens(3), Step::End], "sent nothing"),
        ("cut before a word", vec![Step::Cut], "broke off"),
    ];
    for (name, script, why) in cases {
        let begun = script.iter().any(|step| matches!(step, Step::Tokens(2)));
        let mut scene = Scene::new(&["aaaa", "bbbb", "cccc"], 0.67).script("aaaa", &script);
        scene.rate_bps = 1e9;
        // Both whole prompts of the server's are lost with it; the third is the shared one, answered before.
        let seen = scene.play();
        let first = if begun { "|server: s0 s1 |device: d2 d3 d4" } else { OWN };
        assert_eq!(seen.texts()[0], first, "{name}");
        assert_eq!(seen.texts()[1], OWN, "{name}");
        assert_eq!(seen.prompts_done(), 3, "{name}");
        assert!(seen.record().server_lost, "{name}");
        assert_eq!(seen.notices().len(), 1, "{name}: {:?}", seen.notices());
        assert!(seen.notices()[0].contains(why), "{name}: {:?}", seen.notices());
        assert_eq!(scene.server.alive.get(), 0, "{name}: the stream was dropped");
        assert!(seen.outcome.alpha < 0.5, "{name}: {}", seen.outcome.alpha);
    }
}

#[test]
fn a_server_that_is_gone_does_not_hold_anything_up() {
    let mut scene = Scene::new(&["a", "b"], 1.0);
    scene.server.refuses = Some(TransportError::Unreachable("connection refused".into()));
    let seen = scene.play();
    assert_eq!(seen.texts(), [OWN, OWN]);
    assert_eq!(scene.server.requests.borrow().len(), 1, "the second prompt is not even tried");
    assert_eq!(seen.outcome.alpha, 0.0);
    assert_eq!(
        seen.notices(),
        ["The server cannot be reached (connection refused). This device finishes the answer alone."]
    );
}

#[test]
fn one_bad_request_does_not_cost_the_others() {
    let error = TransportError::Refused { status: 400, message: "too long".into() };
    let mut scene = Scene::new(&["aaaa", "bbbb"], 1.0).script("aaaa", &[Step::Fail(error)]);
    let seen = scene.play();
    assert_eq!(seen.texts(), [OWN, WHOLE]);
}

#[test]
fn without_an_engine_the_server_answers_everything() {
    let mut scene = Scene::new(&["a", "b"], 0.3);
    scene.engine = None;
    let seen = scene.play();
    assert_eq!(seen.texts(), [WHOLE, WHOLE]);
    assert_eq!(seen.outcome.alpha, 1.0);
}

#[test]
fn nobody_left_is_said_and_does_not_hang() {
    let mut scene = Scene::new(&["a", "b"], 0.3);
    scene.engine = None;
    scene.server.refuses = Some(TransportError::Unreachable("gone".into()));
    let seen = scene.play();
    assert!(seen.failure().is_some_and(|message| message.contains("cannot be reached")), "{:?}", seen.events);
    assert_eq!(seen.outcome.record, None);

    let mut scene = Scene::new(&["a"], 0.3).script("a", &[Step::Tokens(2), Step::Cut]);
    scene.engine = None;
    let seen = scene.play();
    assert_eq!(seen.texts(), ["|server: s0 s1"]);
    assert_eq!((seen.failure(), seen.prompts_done(), seen.notices().len()), (None, 0, 1));
    assert!(seen.record().server_lost);

    let mut scene = Scene::new(&["a"], 0.3);
    scene.engine = None;
    scene.options.mode = AskMode::LocalOnly;
    assert!(scene.play().failure().is_some_and(|message| message.contains("No model")));
}

#[test]
fn stop_ends_both_sides_within_a_token() {
    let mut scene = Scene::new(&["aaaa", "bbbb"], 0.5);
    scene.options.pacing = false;
    scene.stop_at_s = Some(0.27);
    let seen = scene.play();
    // Entropies until 0.02; the device would write its third token at 0.32, the server its sixth never.
    assert_eq!(seen.texts()[1], "|device: d0 d1");
    assert!(seen.events.iter().all(|(at_s, event)| !matches!(event, Event::Token { .. }) || *at_s <= 0.27));
    let record = seen.record();
    assert!(record.stopped && record.measured_latency_s <= 0.27 + 0.1 + 1e-9, "{record:?}");
    assert_eq!(scene.server.alive.get(), 0);
    assert_eq!(seen.prompts_done(), 0);
}

#[test]
fn stop_ends_waiting_for_the_link_and_for_a_hanging_server() {
    for (name, rate_bps, script) in [("link", 1e3, vec![Step::Tokens(1), Step::End]), ("server", 1e9, vec![Step::Hang])]
    {
        let mut scene = Scene::new(&["a"], 1.0).script("a", &script);
        scene.rate_bps = rate_bps;
        scene.stop_at_s = Some(1.0);
        let seen = scene.play();
        assert!(seen.record().stopped, "{name}");
        assert!((seen.record().measured_latency_s - 1.0).abs() < 1e-9, "{name}");
        assert_eq!(seen.record().server_tokens, 0, "{name}");
    }
}

#[test]
fn a_lost_gpu_goes_on_where_it_was() {
    let mut scene = Scene::new(&["a", "b"], 0.0);
    let engine = scene.engine.as_mut().expect("there is one");
    (engine.fails_after, engine.recovers) = (Some(7), true);
    let seen = scene.play();
    assert_eq!(seen.texts(), [OWN, OWN]);
    assert_eq!(seen.notices(), ["Going on on the CPU."]);
    assert_eq!(scene.engine.expect("there is one").calls[2], ("b".to_owned(), "d0 d1 ".to_owned(), MOST_TOKENS - 2));
}

#[test]
fn a_broken_engine_leaves_the_rest_to_the_server() {
    let mut scene = Scene::new(&["a", "b", "c"], 0.0);
    scene.engine.as_mut().expect("there is one").fails_after = Some(2);
    let seen = scene.play();
    assert_eq!(seen.texts(), ["|device: d0 d1 |server: s2 s3 s4", WHOLE, WHOLE]);
    assert_eq!(seen.prompts_done(), 3);
    assert_eq!(seen.notices()[0], "The GPU was lost. The server goes on.");
    assert!((seen.outcome.alpha - 13.0 / 15.0).abs() < 1e-9);
}

#[test]
fn a_prompt_that_the_engine_cannot_read_goes_to_the_server_alone() {
    let mut scene = Scene::new(&["a", "b", "c"], 0.0);
    scene.engine.as_mut().expect("there is one").refuses = Some("b");
    let seen = scene.play();
    assert_eq!(seen.texts(), [OWN, WHOLE, OWN]);
    assert_eq!(seen.prompts_done(), 3);
    assert!((seen.outcome.alpha - 1.0 / 3.0).abs() < 1e-9);
}

#[test]
fn limits_are_kept_across_both_sides() {
    let mut scene = Scene::new(&["aaaa"], 0.5).script("aaaa", &[Step::Tokens(50), Step::End]);
    scene.options.sampling.max_tokens = 4;
    scene.rate_bps = 1e9;
    scene.engine.as_mut().expect("there is one").length = 50;
    let seen = scene.play();
    assert_eq!(seen.texts(), ["|server: s0 s1 |device: d2 d3"]);
    assert_eq!(seen.prompts_done(), 1);
    let mut expect = AnswerLength::default();
    expect.observe_cut(4, 4);
    assert_eq!(seen.length, expect, "an answer that was cut is at least as long");
    assert_eq!(seen.finishes(), [Finish::Length], "and the page is told that it was");
}

#[test]
fn the_end_is_the_models_unless_a_limit_is_asked_for() {
    // A server that is named no limit ends by itself, or here.
    let mut scene = Scene::new(&["aaaa"], 1.0).script("aaaa", &[Step::Tokens(MOST_TOKENS + 9), Step::End]);
    let seen = scene.play();
    assert_eq!(seen.finishes(), [Finish::Length]);
    assert_eq!(seen.outcome.answers[0].server_tokens, MOST_TOKENS);
    let mut scene = Scene::new(&["aaaa"], 1.0);
    assert_eq!(scene.play().finishes(), [Finish::Stop]);
    let request = ChatRequest::of_question(&[], "q", "", &scene.options.sampling);
    assert_eq!(request.max_tokens, None, "engines refuse more than their context holds");
    // One that does not heed the limit that it was given.
    scene.options.sampling.max_tokens = 3;
    scene.server.heedless = true;
    let seen = scene.script("aaaa", &[Step::Tokens(50), Step::End]).play();
    assert_eq!((seen.outcome.answers[0].server_tokens, seen.finishes()), (3, vec![Finish::Length]));
}

#[test]
fn what_was_said_before_goes_to_both_sides() {
    let mut scene = Scene::new(&["aaaa"], 0.5);
    scene.options.earlier = vec![Turn::user("one two"), Turn::assistant("three")];
    let seen = scene.play();
    assert_eq!(seen.texts(), ["|device: d0 d1 d2 |server: s3 s4"]);
    let told = scene.server.earlier.borrow();
    assert!(!told.is_empty() && told.iter().all(|earlier| *earlier == scene.options.earlier), "{told:?}");
    assert_eq!(seen.record().device_read, Some(Read { tokens: 3 + 1, cached: 3 }), "the prompt alone is new");
    assert_eq!(seen.record().server_read, None, "this server does not tell");
}

#[test]
fn an_answer_that_was_cut_is_gone_on_with_on_either_side() {
    let mut scene = Scene::new(&["aaaa"], 0.0);
    scene.begun = vec!["d0 d1 "];
    let seen = scene.play();
    assert_eq!(seen.texts(), ["|device: d2 d3 d4"]);
    assert_eq!(seen.outcome.answers[0].text, "d0 d1 d2 d3 d4 ");
    assert_eq!(seen.length, AnswerLength::default(), "nobody knows how long it is in all");
    let request = ChatRequest::of_question(&[], "q", "so far", &scene.options.sampling);
    assert_eq!(request.messages, [Turn::user("q"), Turn::assistant("so far")]);
    // Where the device is lost before it wrote a word of its own, the server goes on from there.
    let mut scene = Scene::new(&["aaaa"], 0.0);
    scene.begun = vec!["d0 d1 "];
    scene.engine.as_mut().expect("there is one").fails_after = Some(0);
    let seen = scene.play();
    assert_eq!(seen.texts(), ["|server: s2 s3 s4"]);
    assert_eq!(seen.outcome.answers[0].text, "d0 d1 s2 s3 s4 ");
}

#[test]
fn an_entropy_that_cannot_be_had_is_no_failure() {
    let mut scene = Scene::new(&["aaaa", "bbbb"], 0.5);
    scene.engine.as_mut().expect("there is one").entropies.remove(0);
    let seen = scene.play();
    assert_eq!(seen.shares(), [0.0, 1.0]);
    assert_eq!(seen.texts(), [OWN, WHOLE]);
}

#[test]
fn comparison_counts_only_what_the_device_wrote() {
    let mut scene = Scene::new(&["aaaa", "bbbb", "cccc"], 0.5);
    scene.history = vec![5; 6];
    let seen = scene.play();
    assert_eq!(seen.texts(), [WHOLE, "|server: s0 s1 |device: d2 d3 d4", OWN]);
    let ask = scene.ask();
    let work = compare(&ask, &seen.outcome.answers, seen.outcome.alpha, &scene.server, &scene.clock);
    let event = scene.clock.block_on(work).expect("the server answers");
    let Event::Compared { ask: 9, prompts, accuracy, hallucination } = event else { panic!("{event:?}") };
    assert_eq!(prompts[0], None);
    let shared = prompts[1].as_ref().expect("compared");
    // The two tokens that the server wrote are equal to its reference and do not count.
    assert_eq!((shared.accuracy, shared.hallucination), (0.5, 1.0));
    assert_eq!(shared.reference, "s0 s1 s2 s3 s4 ");
    let device = 8.0 / 15.0;
    assert!((accuracy - (1.0 - 0.5 * device)).abs() < 1e-12 && (hallucination - device).abs() < 1e-12);
}

#[test]
fn comparison_needs_the_server() {
    let mut scene = Scene::new(&["a"], 0.0);
    let seen = scene.play();
    scene.server.refuses = Some(TransportError::Unreachable("gone".into()));
    let ask = scene.ask();
    let work = compare(&ask, &seen.outcome.answers, 0.0, &scene.server, &scene.clock);
    assert_eq!(scene.clock.block_on(work), Err(TransportError::Unreachable("gone".into())));
}
