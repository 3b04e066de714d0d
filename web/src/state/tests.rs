//! What the page's state makes of what comes.

use super::*;
use crate::run::tests::record;

fn tier(tier: Tier, desktop_class: bool) -> TierReport {
    TierReport { tier, device: "test".into(), reason: "Because.".into(), desktop_class }
}

fn ready(report: TierReport) -> Event {
    let server = ServerHealth { up: true, ..ServerHealth::default() };
    Event::Ready { version: VERSION, tier: report, models: Vec::new(), server }
}

fn model(state: ModelState) -> Event {
    Event::Model { id: COMPACT.into(), state }
}

const LOADED: ModelState = ModelState::Ready { memory_bytes: 1 };

#[test]
fn a_cached_model_is_loaded_whatever_comes_first() {
    let load = vec![Effect::Send(State::default().load(true))];
    let mut state = State::default();
    assert_eq!(state.apply(ready(tier(Tier::Cpu, false)), 0.0), []);
    assert_eq!(state.apply(model(ModelState::Cached), 0.0), load);

    let mut state = State::default();
    assert_eq!(state.apply(model(ModelState::Cached), 0.0), []);
    assert_eq!(state.apply(ready(tier(Tier::WebGpu, true)), 0.0), load);

    let mut state = State::default();
    state.apply(ready(tier(Tier::ServerOnly, false)), 0.0);
    assert_eq!(state.apply(model(ModelState::Cached), 0.0), [], "no engine, no model");
}

#[test]
fn another_model_is_chosen_and_inspected() {
    let mut state = State::default();
    state.apply(ready(tier(Tier::Cpu, false)), 0.0);
    state.apply(model(LOADED), 0.0);
    let file = ModelSource::File { name: "mine.gguf".into() };
    state.choose(file.clone());
    assert!(state.device_ready(), "the one in memory still answers");
    assert_eq!((state.model(), state.model_name().as_str()), (&ModelState::Absent, "mine.gguf"));
    let Command::Inspect { ask: first, .. } = state.inspect() else { panic!("a question") };
    let Command::Inspect { ask, source, .. } = state.inspect() else { panic!("a question") };
    assert_eq!(source, file);
    state.apply(Event::Failed { ask: Some(first), message: "Late.".into() }, 0.0);
    assert_eq!(state.verdict, None, "only the last question counts");
    state.notices.clear();
    state.apply(Event::Failed { ask: Some(ask), message: "No model.".into() }, 0.0);
    assert_eq!((state.verdict.clone(), state.notices.len()), (Some(Err("No model.".into())), 0));
    state.apply(Event::Model { id: COMPACT.into(), state: ModelState::Cached }, 0.0);
    state.apply(Event::Model { id: file.id(), state: LOADED }, 0.0);
    assert!(state.device_ready() && matches!(state.model(), ModelState::Ready { .. }));
}

#[test]
fn a_checkpoint_is_another_model_for_each_way_of_storing_it() {
    let mut state = State::default();
    state.apply(ready(tier(Tier::Cpu, false)), 0.0);
    let files = ModelSource::Files { name: "smol".into(), bytes: 7, store_as: StoreAs::default() };
    state.choose(files.clone());
    state.apply(Event::Model { id: files.id(), state: LOADED }, 0.0);
    assert!(matches!(state.model(), ModelState::Ready { .. }));
    let before = state.choice;
    state.store(Some(StoreAs::Q4));
    assert_eq!((state.model(), state.choice), (&ModelState::Absent, before + 1), "it can be loaded again");
    assert!(state.device_ready(), "the one in memory still answers");
    state.choose(files.clone());
    assert_ne!(state.source, files, "the next one is stored likewise");
    state.choose(compact_source());
    state.store(Some(StoreAs::F16));
    assert_eq!(state.source, compact_source(), "a file is stored as it is");
}

/// What the server offers for the tab, of so many bytes.
fn compact(bytes: u64) -> ModelEntry {
    ModelEntry {
        id: COMPACT.into(),
        name: "Compact".into(),
        file: "compact.gguf".into(),
        bytes,
        sha256: String::new(),
        parameters: 1,
        quantisation: "Q4_0".into(),
        context_length: 512,
        cache_width: 0,
        accuracy: Default::default(),
        hallucination: 0.0,
        licence: String::new(),
        corpus_seed: 0,
        preferred: false,
    }
}

#[test]
fn a_small_model_is_loaded_by_itself_unless_that_costs_or_was_refused() {
    let entry = compact;
    let partial = ModelState::Partial { received: 1, total: 2 };
    for (bytes, waits, first, loads) in [
        (460_960, None, ModelState::Absent, true),
        (SMALL_BYTES, None, partial.clone(), true),
        (SMALL_BYTES + 1, None, ModelState::Absent, false),
        (SMALL_BYTES + 1, None, ModelState::Cached, true),
        (460_960, Some("this device saves data"), ModelState::Absent, false),
        (460_960, Some("this device saves data"), partial, false),
        (460_960, Some("this device saves data"), ModelState::Cached, true),
        (460_960, None, LOADED, false),
    ] {
        let mut state = State::waiting(waits);
        let Event::Ready { version, tier, server, .. } = ready(tier(Tier::Cpu, false)) else { panic!("ready") };
        state.apply(Event::Ready { version, tier, server, models: vec![entry(bytes)] }, 0.0);
        let effects = state.apply(model(first.clone()), 0.0);
        assert_eq!((effects.len(), state.unasked), (usize::from(loads), loads), "{bytes} {waits:?} {first:?}");
        let told = matches!(effects.as_slice(), [Effect::Send(Command::LoadModel { unasked: true, .. })]);
        assert_eq!(told, loads);
    }
    let Command::LoadModel { unasked, .. } = State::default().load(false) else { panic!("a load") };
    assert!(!unasked, "what a person wants gives way to nothing");
}

#[test]
fn the_owners_model_is_taken_until_a_person_chooses_and_a_choice_that_is_here_is_loaded() {
    let entry = |id: &str, preferred| ModelEntry { id: id.into(), bytes: 98_362_432, preferred, ..compact(98_362_432) };
    let models = vec![compact(460_960), entry("smollm2-135m", true), entry("qwen3-0.6b", false)];
    let told = |id: &str, state| Event::Model { id: id.into(), state };
    let loads = |effects: &[Effect]| match effects {
        [Effect::Send(Command::LoadModel { source, unasked: true, .. })] => Some(source.id()),
        _ => None,
    };
    for (chosen, waits, state, loaded) in [
        (None, None, ModelState::Absent, Some("smollm2-135m")),
        (None, Some("this device saves data"), ModelState::Absent, None),
        (None, Some("this device saves data"), ModelState::Cached, Some("smollm2-135m")),
        (Some("compact"), None, ModelState::Absent, Some("compact")),
        (Some("qwen3-0.6b"), None, ModelState::Absent, None),
        (Some("qwen3-0.6b"), None, ModelState::Cached, Some("qwen3-0.6b")),
    ] {
        let mut now = State::waiting(waits);
        if let Some(id) = chosen {
            now.choose(ModelSource::Server { id: id.into() });
        }
        let Event::Ready { version, tier, server, .. } = ready(tier(Tier::Cpu, false)) else { panic!("ready") };
        now.apply(Event::Ready { version, tier, server, models: models.clone() }, 0.0);
        let effects: Vec<Effect> =
            models.iter().flat_map(|model| now.apply(told(&model.id, state.clone()), 0.0)).collect();
        assert_eq!(loads(&effects).as_deref(), loaded, "{chosen:?} {waits:?} {state:?}");
    }
}

#[test]
fn a_model_that_was_put_away_is_not_loaded_again() {
    let mut state = State::default();
    state.apply(ready(tier(Tier::Cpu, false)), 0.0);
    state.apply(model(ModelState::Absent), 0.0);
    assert_eq!(state.apply(model(ModelState::Cached), 0.0), []);
}

#[test]
fn another_version_asks_for_a_reload() {
    let mut state = State::default();
    let event = Event::Ready {
        version: VERSION + 1,
        tier: tier(Tier::Cpu, false),
        models: Vec::new(),
        server: ServerHealth::default(),
    };
    assert_eq!(state.apply(event, 0.0), [Effect::Reload]);
    assert_eq!(state.phase, Phase::Starting);
}

#[test]
fn routes() {
    let mut state = State::default();
    assert_eq!(state.route(AskMode::Split), Route::Page, "before the engine is up");
    assert!(matches!(state.route(AskMode::LocalOnly), Route::Refuse(_)));
    state.apply(ready(tier(Tier::Cpu, false)), 0.0);
    assert_eq!(state.route(AskMode::Split), Route::Worker(AskMode::ServerOnly), "no model yet");
    assert!(matches!(state.route(AskMode::LocalOnly), Route::Refuse(_)));
    state.apply(model(LOADED), 0.0);
    for mode in [AskMode::Split, AskMode::LocalOnly, AskMode::ServerOnly] {
        assert_eq!(state.route(mode), Route::Worker(mode));
    }
    state.worker_lost(false, "test");
    assert_eq!(state.route(AskMode::Split), Route::Page);
}

#[test]
fn a_finished_run_becomes_a_row_and_its_comparison_follows() {
    let mut state = State::default();
    let ask = state.begin(&["a?".into()], AskMode::Split, 0.0);
    assert!(state.busy());
    state.apply(Event::Done { ask, record: record(4) }, 1.0);
    assert!(!state.busy());
    state.apply(Event::Compared { ask, prompts: vec![None], accuracy: 1.0, hallucination: 0.0 }, 2.0);
    assert_eq!(state.log.len(), 1);
    assert_eq!(state.log[0].record.slot, 4);
    assert_eq!(state.log[0].compared, Some(Compared { accuracy: 1.0, hallucination: 0.0 }));
}

#[test]
fn a_policy_from_elsewhere_decides_until_it_is_dropped_or_the_worker_is_lost() {
    let mut state = State::default();
    let chosen = |name: Option<&str>| Event::Policy { users: 3, name: name.map(str::to_owned) };
    assert_eq!(state.apply(chosen(Some("run 7")), 0.0), [Effect::Decide(3)]);
    assert_eq!(state.policies.get(&3).map(String::as_str), Some("run 7"));
    assert_eq!(state.apply(chosen(None), 0.0), []);
    assert!(state.policies.is_empty());
    state.apply(chosen(Some("run 7")), 0.0);
    state.worker_lost(true, "test");
    assert!(state.policies.is_empty(), "a new worker does not have it");
}

#[test]
fn log_and_notices_are_bounded() {
    let mut state = State::default();
    for slot in 0..LOG_CAPACITY as u64 + 5 {
        state.apply(Event::Done { ask: slot, record: record(slot) }, 0.0);
        state.notify(Kind::Info, format!("notice {slot}"));
    }
    assert_eq!(state.log.len(), LOG_CAPACITY);
    assert_eq!(state.log[0].record.slot, 5);
    assert_eq!(state.notices.len(), NOTICE_CAPACITY);
    state.notify(Kind::Info, "notice 1003");
    assert_eq!(state.notices.iter().filter(|n| n.text == "notice 1003").count(), 1);
    let id = state.notices[0].id;
    state.dismiss(id);
    assert!(state.notices.iter().all(|n| n.id != id));
}

#[test]
fn a_lost_worker_keeps_the_answer_and_says_so() {
    let mut state = State::default();
    state.apply(ready(tier(Tier::WebGpu, true)), 0.0);
    state.apply(model(LOADED), 0.0);
    let ask = state.begin(&["a?".into()], AskMode::Split, 0.0);
    let origin = client::protocol::worker::Origin::Device;
    state.apply(Event::Token { ask, prompt: 0, origin, text: "half".into() }, 1.0);
    state.worker_lost(true, "out of memory");
    let run = state.run.as_ref().expect("run");
    assert!(matches!(run.status, Status::Failed(_)));
    assert_eq!(run.answers[0].text(), "half");
    assert!(!state.device_ready());
    assert_eq!(state.notices.len(), 1);
}

#[test]
fn a_model_that_was_being_loaded_when_the_worker_was_lost_waits_to_be_asked_for() {
    let cached = || model(ModelState::Cached);
    for (lost_while, loads) in [(LOADED, true), (ModelState::Loading { read: 1, total: 2 }, false)] {
        let mut state = State::default();
        state.apply(ready(tier(Tier::Cpu, true)), 0.0);
        assert!(!state.apply(cached(), 0.0).is_empty(), "it is loaded by itself");
        state.apply(model(lost_while), 1.0);
        state.worker_lost(true, "unreachable");
        state.apply(ready(tier(Tier::Cpu, true)), 2.0);
        assert_eq!(!state.apply(cached(), 2.0).is_empty(), loads);
        assert_eq!(state.notices[0].text.contains("load it again"), !loads, "{}", state.notices[0].text);
    }
}

#[test]
fn another_tier_is_told_and_more_about_the_same_one_is_not() {
    let mut state = State::default();
    state.apply(ready(tier(Tier::WebGpu, true)), 0.0);
    let told = state.notices.len();
    let tested = TierReport { reason: "Its kernels passed the self-test.".into(), ..tier(Tier::WebGpu, true) };
    state.apply(Event::Tier { tier: tested.clone() }, 1.0);
    assert_eq!((state.notices.len(), state.tier.as_ref()), (told, Some(&tested)));
    state.apply(Event::Tier { tier: tier(Tier::Cpu, false) }, 2.0);
    assert_eq!(state.notices.len(), told + 1);
}

#[test]
fn a_failure_is_told_once() {
    let mut state = State::default();
    let ask = state.begin(&["a?".into()], AskMode::Split, 0.0);
    state.apply(Event::Failed { ask: Some(ask), message: "Gone.".into() }, 1.0);
    assert!(state.notices.is_empty(), "the run itself shows it");
    state.apply(Event::Failed { ask: None, message: "No policy.".into() }, 2.0);
    assert_eq!(state.notices.len(), 1);
}

#[test]
fn the_server_is_announced_only_when_it_changes() {
    let mut state = State::default();
    let health = |up| Event::Server { server: ServerHealth { up, ..ServerHealth::default() } };
    state.apply(ready(tier(Tier::Cpu, false)), 0.0);
    state.apply(health(true), 0.0);
    assert!(state.notices.is_empty());
    state.apply(health(false), 0.0);
    assert_eq!(state.notices.back().map(|n| n.kind), Some(Kind::Problem));
    state.apply(health(true), 0.0);
    assert_eq!(state.notices.back().map(|n| n.text.as_str()), Some("The server is back."));
}

#[test]
fn burn_wgpu_waits_for_a_quiet_desktop() {
    let mut state = State::default();
    assert!(!state.wants_gpu_policy());
    state.apply(ready(tier(Tier::WebGpu, true)), 0.0);
    assert!(state.wants_gpu_policy());
    state.apply(model(ModelState::Downloading { received: 1, total: 2 }), 0.0);
    assert!(!state.wants_gpu_policy(), "never in the way of the model");
    state.apply(model(LOADED), 0.0);
    state.begin(&["a?".into()], AskMode::Split, 0.0);
    assert!(!state.wants_gpu_policy(), "never in the way of an answer");
    state.run = None;
    state.apply(Event::PolicyBackend { backend: PolicyBackend::Flex, note: Some("No adapter.".into()) }, 0.0);
    assert!(!state.wants_gpu_policy(), "it was tried");
    state.apply(Event::Tier { tier: tier(Tier::WebGpu, false) }, 0.0);
    state.backend_note = None;
    assert!(!state.wants_gpu_policy(), "not on a phone");
}
