//! The service without HTTP: real trainings of a tiny system, each a matter of milliseconds or stopped as soon as enough
//! was seen.

use std::path::Path;
use std::time::{Duration, Instant};

use client::protocol::runs::{RunLimits, RunRequest, RunState, RunView};
use serde_json::json;

use super::store::Store;
use super::{Runs, RunsConfig, RunsError};
use rl::run::METRICS_FILE;

/// Steps that no test waits for.
const ENDLESS: u64 = 1_000_000;

pub(crate) fn tiny(steps: u64) -> RunRequest {
    let body = json!({
        "users": 1, "envs": 2, "steps": steps,
        "hyper": {
            "rollout_steps": 4, "minibatch": 8, "epochs": 1, "hidden": [4],
            "eval_slots": 4, "eval_every": 1, "checkpoint_every": 1,
        },
    });
    serde_json::from_value(body).unwrap()
}

fn open(dir: &Path, limits: RunLimits) -> Runs {
    Runs::open(RunsConfig { dir: dir.to_owned(), limits, threads: 1, off: None }).unwrap()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "gave up waiting until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn until_state(runs: &Runs, id: i64, state: RunState) -> RunView {
    until(state.name(), || {
        let view = runs.get(id).unwrap();
        assert!(view.error.is_none() || view.state == state, "{:?}", view.error);
        view.state == state
    });
    runs.get(id).unwrap()
}

fn close(runs: &Runs) {
    runs.finish_shutdown(Duration::from_secs(60));
}

#[test]
fn a_run_learns_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let runs = open(folder.path(), RunLimits::default());
    let id = runs.create(&tiny(40)).unwrap().id;
    let view = until_state(&runs, id, RunState::Finished);
    assert_eq!((view.steps, view.total_steps, view.resumes, view.has_policy), (40, 40, 0, true));
    assert!(view.created_ms <= view.started_ms.unwrap() && view.started_ms <= view.ended_ms);
    let (best, optimum) = (view.best_reward.unwrap(), view.references["optimum"]);
    assert!(best > 0.0 && best <= optimum && view.references.contains_key("closed form"), "{view:?}");
    assert!(std::io::read_to_string(runs.curves(id).unwrap().0).unwrap().contains("</svg>"));
    assert!(runs.policy(id).unwrap().1 > 0);
    let metrics = std::fs::read_to_string(folder.path().join(id.to_string()).join(METRICS_FILE)).unwrap();
    assert_eq!(metrics.lines().count(), 5);

    assert!(matches!(runs.stop(id), Err(RunsError::State { state: RunState::Finished, .. })));
    assert!(matches!(runs.resume(id), Err(RunsError::State { state: RunState::Finished, .. })));
    runs.delete(id).unwrap();
    assert!(matches!(runs.get(id), Err(RunsError::Unknown(_))));
    assert!(!folder.path().join(id.to_string()).exists());
    close(&runs);
}

#[test]
fn what_does_not_fit_waits_and_what_does_not_fit_there_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let runs = open(folder.path(), RunLimits { queue: 1, kept: 3, ..RunLimits::default() });
    let first = runs.create(&tiny(ENDLESS)).unwrap().id;
    let second = runs.create(&tiny(8)).unwrap();
    assert_eq!(second.state, RunState::Queued);
    assert!(matches!(runs.create(&tiny(8)), Err(RunsError::QueueFull(1))));
    assert!(matches!(runs.delete(first), Err(RunsError::State { .. })), "it learns");

    assert_eq!(runs.stop(second.id).unwrap().state, RunState::Stopped);
    assert_eq!(runs.resume(second.id).unwrap().state, RunState::Queued);
    until("the first run has a policy", || runs.get(first).unwrap().has_policy);
    let asked = runs.stop(first).unwrap();
    assert!(asked.stopping || asked.state == RunState::Stopped);
    let stopped = until_state(&runs, first, RunState::Stopped);
    assert!(stopped.steps > 0 && stopped.steps < ENDLESS);
    until_state(&runs, second.id, RunState::Finished);

    runs.resume(first).unwrap();
    until("it goes on", || runs.get(first).unwrap().steps > stopped.steps);
    assert_eq!(runs.get(first).unwrap().resumes, 1);
    runs.stop(first).unwrap();
    until_state(&runs, first, RunState::Stopped);

    let third = runs.create(&tiny(8)).unwrap().id;
    until_state(&runs, third, RunState::Finished);
    assert!(matches!(runs.create(&tiny(8)), Err(RunsError::TooMany(3))));
    close(&runs);
}

/// What was only estimated when it was taken is measured while it learns.
#[test]
fn a_run_that_turns_out_to_take_too_long_ends_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let runs = open(folder.path(), RunLimits { minutes: 1, ..RunLimits::default() });
    let mut config = super::request::config(&tiny(ENDLESS), &RunLimits::default()).unwrap();
    // Years of it, which nobody would be given who asks for them.
    config.steps = 1_000_000_000_000;
    let id = runs.with_store(|store| store.insert(&config, 1)).unwrap();
    {
        let mut scheduler = super::lock(&runs.0.scheduler);
        scheduler.enqueue(id);
        runs.start_next(&mut scheduler);
    }
    let view = until_state(&runs, id, RunState::Failed);
    let why = view.error.unwrap();
    assert!(why.contains("first updates") && why.contains("hours"), "{why}");
    assert!(view.steps >= 16, "{}", view.steps);
    close(&runs);
}

#[test]
fn a_restart_interrupts_what_ran_and_goes_on_with_what_waited() {
    let folder = tempfile::tempdir().unwrap();
    let runs = open(folder.path(), RunLimits::default());
    let (first, second) = (runs.create(&tiny(ENDLESS)).unwrap().id, runs.create(&tiny(8)).unwrap().id);
    until("some steps are taken", || runs.get(first).unwrap().steps > 0);
    close(&runs);
    assert!(matches!(runs.list(), Err(RunsError::Closing)));
    assert!(matches!(runs.create(&tiny(8)), Err(RunsError::Closing)));

    let runs = open(folder.path(), RunLimits::default());
    let interrupted = runs.get(first).unwrap();
    assert_eq!((interrupted.state, interrupted.error.as_deref()), (RunState::Interrupted, None));
    until_state(&runs, second, RunState::Finished);
    runs.resume(first).unwrap();
    until("it goes on", || runs.get(first).unwrap().steps > interrupted.steps);
    close(&runs);

    // A crash leaves a run that says that it runs.
    Store::open(folder.path()).unwrap().begin(first, 1).unwrap();
    let off = Some("test".to_owned());
    let config = RunsConfig { dir: folder.path().to_owned(), limits: RunLimits::default(), threads: 1, off };
    let runs = Runs::open(config).unwrap();
    assert_eq!(runs.get(first).unwrap().state, RunState::Interrupted);
    assert!(matches!(runs.resume(first), Err(RunsError::Off(_))));
    close(&runs);
}

#[test]
fn a_resumed_run_logs_every_update_once() {
    let folder = tempfile::tempdir().unwrap();
    let runs = open(folder.path(), RunLimits::default());
    let id = runs.create(&tiny(1600)).unwrap().id;
    until("some steps are taken", || runs.get(id).unwrap().steps > 0);
    // It may have finished in between, where the machine is fast; then there is nothing to resume.
    if runs.stop(id).is_ok() {
        until("it has ended", || !runs.get(id).unwrap().state.is_active());
        if runs.get(id).unwrap().state.can_resume() {
            runs.resume(id).unwrap();
        }
    }
    until_state(&runs, id, RunState::Finished);
    let text = std::fs::read_to_string(folder.path().join(id.to_string()).join(METRICS_FILE)).unwrap();
    let steps =
        text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["global_step"].as_u64());
    assert_eq!(steps.collect::<Vec<_>>(), (1..=200).map(|n| Some(8 * n)).collect::<Vec<_>>());
    close(&runs);
}

#[test]
fn a_run_that_breaks_down_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let runs = open(folder.path(), RunLimits::default());
    std::fs::write(folder.path().join("1"), "in the way").unwrap();
    let id = runs.create(&tiny(8)).unwrap().id;
    let failed = until_state(&runs, id, RunState::Failed);
    assert!(failed.error.unwrap().contains("1"));
    std::fs::remove_file(folder.path().join("1")).unwrap();
    runs.resume(id).unwrap();
    until_state(&runs, id, RunState::Finished);
    close(&runs);

    let runs = open(folder.path(), RunLimits { minutes: 0, ..RunLimits::default() });
    let id = runs.create(&tiny(ENDLESS)).unwrap().id;
    let stopped = until_state(&runs, id, RunState::Stopped);
    assert!(stopped.error.unwrap().contains("limit"));
    close(&runs);
}

#[test]
fn a_folder_serves_one_server_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path(), RunLimits::default());
    let config = RunsConfig { dir: folder.path().to_owned(), limits: RunLimits::default(), threads: 1, off: None };
    let error = Runs::open(config).err().unwrap().to_string();
    assert!(error.contains("in use") && error.contains("--runs"), "{error}");
    close(&first);
}

#[test]
fn no_training_is_no_error_until_somebody_wants_some() {
    let runs = Runs::none("nobody wants it.");
    let list = runs.list().unwrap();
    assert_eq!((list.training.off.as_deref(), list.runs.len()), (Some("nobody wants it."), 0));
    assert!(matches!(runs.create(&tiny(8)), Err(RunsError::Off(_))));
    close(&runs);
}

#[test]
fn an_end_that_could_not_be_noted_is_known_and_noted_later() {
    let folder = tempfile::tempdir().unwrap();
    let runs = open(folder.path(), RunLimits::default());
    let id = runs.create(&tiny(ENDLESS)).unwrap().id;
    until("some steps are taken", || runs.get(id).unwrap().steps > 0);
    // As on a full disk: reading works, writing does not.
    let full = |on: bool| {
        super::lock(&runs.0.store).as_ref().unwrap().refuse_writes(on);
    };
    full(true);
    runs.stop(id).unwrap();
    let stopped = until_state(&runs, id, RunState::Stopped);
    assert!(stopped.steps > 0 && stopped.ended_ms.is_some());
    assert_eq!(runs.list().unwrap().runs[0].state, RunState::Stopped);
    assert!(matches!(runs.stop(id), Err(RunsError::State { state: RunState::Stopped, .. })));
    assert!(matches!(runs.resume(id), Err(RunsError::Store(_))), "it says what is wrong, not that it still runs");
    full(false);
    // By itself, and in the database.
    until("it is noted", || {
        super::lock(&runs.0.store).as_ref().unwrap().get(id).unwrap().unwrap().view.state == RunState::Stopped
    });
    assert_eq!(runs.resume(id).unwrap().resumes, 1);
    until("it goes on", || runs.get(id).unwrap().steps > stopped.steps);
    close(&runs);
}

#[test]
fn a_damaged_entry_is_shown_and_can_be_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let runs = open(folder.path(), RunLimits::default());
    let ids: Vec<i64> = (0..2).map(|_| runs.create(&tiny(8)).unwrap().id).collect();
    for id in &ids {
        until_state(&runs, *id, RunState::Finished);
    }
    super::lock(&runs.0.store).as_ref().unwrap().damage(ids[0]);
    let list = runs.list().unwrap().runs;
    assert_eq!(list.iter().map(|run| run.state).collect::<Vec<_>>(), [RunState::Finished, RunState::Failed]);
    assert!(list[1].error.as_ref().unwrap().contains("delete it"));
    assert!(matches!(runs.resume(ids[0]), Err(RunsError::State { .. })));
    runs.delete(ids[0]).unwrap();
    assert_eq!(runs.list().unwrap().runs.len(), 1);
    close(&runs);
}
