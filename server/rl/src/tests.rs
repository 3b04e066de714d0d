//! Whole runs of every algorithm: resumed, stopped, out of patience, out of disk, out of numbers.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use mec::world::nth_seed;
use mec::{MecParams, UserDecision, Variant, VecEnv};
use policy::Sees;

use super::config::{Algo, Preset, TrainConfig};
use super::error::TrainError;
use super::run::Run;
use super::stop::Stop;
use super::wm_ppo::Imaginer;
use super::worlds::Worlds;
use super::*;

/// A run of seconds: small networks, short episodes that rollouts cut in two; twelve updates, or a few more.
fn small(algo: Algo) -> TrainConfig {
    let mec = MecParams { horizon: 9, ..MecParams::with_users(1).with_variant(Variant::Backlog) };
    let mut config = TrainConfig::preset(algo, Preset::Tuned, mec);
    (config.envs, config.steps, config.eval_every, config.eval_slots, config.checkpoint_every) = (2, 144, 3, 8, 2);
    if let Some(ppo) = config.ppo_mut() {
        (ppo.hidden, ppo.rollout_steps, ppo.epochs, ppo.minibatch) = (vec![8, 8], 6, 2, 5);
    }
    let model = &mut config.wm_ppo.model;
    (model.deterministic, model.stochastic, model.hidden) = (8, 3, 8);
    (model.sequences, model.length, model.updates, model.memory) = (3, 4, 2, 60);
    let ensemble = &mut config.wm_ppo.ensemble;
    (ensemble.hidden, ensemble.updates, ensemble.batch, ensemble.memory) = (vec![8], 3, 5, 60);
    (config.wm_ppo.starts, config.wm_ppo.horizon) = (4, 3);
    let off_policy = [("replay.batch", "8"), ("replay.warm_up", "20"), ("replay.report_steps", "6")];
    if algo == Algo::SetAscent {
        let sizes = [("encoder", "[8]"), ("head", "[8]"), ("batch", "12"), ("report_steps", "1"), ("proposals", "2")];
        sizes.into_iter().for_each(|(key, value)| config.set_hyper(key, value).expect(key));
        return config;
    }
    let (nets, hidden) = match algo {
        Algo::SetDpg => (["encoder", "head", "critic_encoder", "critic_head"].as_slice(), "[8]"),
        Algo::Td3 | Algo::Ddpg | Algo::Sac => (["hidden"].as_slice(), "[8, 8]"),
        _ => return config,
    };
    for (key, value) in nets.iter().map(|key| (*key, hidden)).chain(off_policy) {
        config.set_hyper(key, value).expect(key);
    }
    config
}

/// Every algorithm, both imaginers of world-model PPO, and each loop with random systems that change within an episode.
fn all_small() -> Vec<TrainConfig> {
    let mut configs: Vec<_> = Algo::ALL.map(small).into();
    let random = |algo: Algo| TrainConfig { worlds: Worlds::Random, world_slots: 5, sees: Sees::World, ..small(algo) };
    configs.extend([Algo::Ppo, Algo::WmPpoMended, Algo::Td3].map(random));
    let imaginer = Imaginer::Recurrent;
    let mut recurrent = small(Algo::WmPpoMended);
    recurrent.wm_ppo.imaginer = imaginer;
    configs.push(recurrent);
    configs
}

fn go(config: &TrainConfig, run: &mut Run) {
    assert_eq!(train(config, run, &Stop::default()).expect("trained"), Ending::Finished);
}

fn resume(path: &Path) -> (Run, TrainConfig) {
    Run::resume(path).expect("resumed")
}

/// What a run logged, without what a clock decides, and the policy that it kept.
fn left_behind(path: &Path) -> (Vec<BTreeMap<String, f64>>, Vec<u8>) {
    let text = std::fs::read_to_string(path.join(run::METRICS_FILE)).expect("metrics");
    let line = |line: &str| {
        let mut line: BTreeMap<String, f64> = serde_json::from_str(line).expect("numbers by name");
        line.remove("charts/SPS").expect("a speed");
        line
    };
    (text.lines().map(line).collect(), std::fs::read(path.join(run::POLICY_FILE)).expect("policy"))
}

#[test]
fn a_resumed_run_is_the_one_that_never_stopped() {
    for config in all_small() {
        let algo = config.algo.name();
        let dir = tempfile::tempdir().expect("folder");
        let straight = dir.path().join("straight");
        go(&config, &mut Run::create(&straight, &config).expect("run"));
        let wanted = left_behind(&straight);
        assert_eq!(wanted.0.len(), 12, "{algo}");

        // Stopped after the fourth update, where no evaluation is due; its fifth is torn off, as by a crash.
        let path = dir.path().join("resumed");
        let mut run = Run::create(&path, &config).expect("run");
        let stop = Arc::new(Stop::default());
        let raise = Arc::clone(&stop);
        run.on_update = Box::new(move |m| {
            if m.global_step >= 48 {
                raise.raise();
            }
        });
        assert_eq!(train(&config, &mut run, &stop).expect("trained"), Ending::Stopped);
        assert_eq!((run.progress.update, run.history().len()), (4, 4), "{algo}");
        drop(run);
        let lines = std::fs::read_to_string(path.join(run::METRICS_FILE)).expect("metrics");
        std::fs::write(path.join(run::METRICS_FILE), format!("{lines}{{\"global_step\": 60, \"cha")).expect("written");
        let (mut run, same) = resume(&path);
        assert_eq!(same, config);
        go(&config, &mut run);
        assert_eq!(left_behind(&path), wanted, "{algo}");
    }
}

#[test]
fn a_run_left_in_the_middle_of_its_updates_is_the_one_that_never_stopped() {
    for config in all_small() {
        let algo = config.algo.name();
        let dir = tempfile::tempdir().expect("folder");
        let (straight, path) = (dir.path().join("straight"), dir.path().join("broken"));
        go(&config, &mut Run::create(&straight, &config).expect("run"));
        let mut run = Run::create(&path, &config).expect("run");
        let mut stops = 0;
        // More is let pass each time, so that it comes to an end.
        for checks in (1..).map(|n| 9 * n) {
            match train(&config, &mut run, &Stop::after_checks(checks)).expect("trained") {
                Ending::Finished => break,
                Ending::Stopped => stops += 1,
            }
            run = resume(&path).0;
        }
        assert!(stops > 3, "{algo}: {stops}");
        assert_eq!(left_behind(&path), left_behind(&straight), "{algo}");
    }
}

#[test]
fn a_run_that_is_told_to_stop_before_it_begins_leaves_nothing_half_done() {
    for algo in Algo::ALL {
        // So many slots that evaluating them would be noticed.
        let config = TrainConfig { eval_slots: 20_000, ..small(algo) };
        let dir = tempfile::tempdir().expect("folder");
        let mut run = Run::create(dir.path(), &config).expect("run");
        let stop = Stop::default();
        stop.raise();
        assert_eq!(train(&config, &mut run, &stop).expect("stopped"), Ending::Stopped);
        assert_eq!((run.history().len(), dir.path().join("checkpoint").exists()), (0, false), "{}", algo.name());
    }
}

#[test]
fn patience_ends_a_run_that_gets_no_better_and_stopping_spends_none_of_it() {
    let mut config = TrainConfig { patience: 2, eval_every: 2, steps: 100_000, ..small(Algo::Ppo) };
    // A step that is lost in rounding.
    config.ppo.learning_rate = 1e-30;
    let dir = tempfile::tempdir().expect("folder");
    let mut run = Run::create(dir.path(), &config).expect("run");
    for update in [1, 3, 4, 5] {
        let stop = Arc::new(Stop::default());
        let raise = Arc::clone(&stop);
        run.on_update = Box::new(move |m| {
            if m.global_step == 12 * update {
                raise.raise();
            }
        });
        assert_eq!(train(&config, &mut run, &stop).expect("trained"), Ending::Stopped);
        run = resume(dir.path()).0;
    }
    go(&config, &mut run);
    assert_eq!(run.history().len(), 6);
    let (mut run, _) = resume(dir.path());
    go(&config, &mut run);
    assert_eq!(run.history().len(), 6);
}

#[test]
fn a_run_that_meets_nan_says_where_and_keeps_its_last_checkpoint() {
    for algo in [Algo::Ppo, Algo::WmPpo] {
        let mut config = TrainConfig { steps: 36, ..small(algo) };
        let dir = tempfile::tempdir().expect("folder");
        let mut run = Run::create(dir.path(), &config).expect("run");
        go(&config, &mut run);
        assert_eq!(run.progress.update, 3);
        config.steps = 1200;
        let ppo = config.ppo_mut().expect("built on ppo");
        (ppo.learning_rate, ppo.anneal) = (1e38, false);
        assert!(matches!(train(&config, &mut run, &Stop::default()), Err(TrainError::Config(_))));
        let error = config.train(&mut run, &Stop::default()).expect_err("diverged");
        assert!(matches!(error, TrainError::NotFinite { update, .. } if update >= 3), "{error}");
        assert_eq!(resume(dir.path()).0.progress.update, 3);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_ends_a_run_with_its_reason_and_with_the_checkpoint_before() {
    let config = small(Algo::Ppo);
    let dir = tempfile::tempdir().expect("folder");
    let mut run = Run::create(dir.path(), &config).expect("run");
    let part = dir.path().join("curves.part");
    // Full from the fourth update on; the sixth one's curves are the next to be drawn.
    let full = part.clone();
    run.on_update = Box::new(move |metrics| {
        if metrics.global_step == 48 {
            std::os::unix::fs::symlink("/dev/full", &full).expect("linked");
        }
    });
    let error = train(&config, &mut run, &Stop::default()).expect_err("no room").to_string();
    assert!(error.contains("curves") && error.to_lowercase().contains("space"), "{error}");
    drop(run);
    // There is room again.
    assert!(!part.exists());
    let (mut run, config) = resume(dir.path());
    assert_eq!(run.progress.update, 4);
    go(&config, &mut run);
    assert_eq!(run.history().len(), 12);
}

#[test]
fn one_cell_and_one_step_give_numbers_of_the_usual_size() {
    for algo in Algo::ALL {
        let mut config = TrainConfig { envs: 1, steps: 40, eval_every: 20, ..small(algo) };
        if let Some(ppo) = config.ppo_mut() {
            ppo.rollout_steps = 1;
        } else if algo == Algo::SetAscent {
            config.set_hyper("batch", "1").expect("batch");
        } else {
            for (key, value) in [("replay.warm_up", "0"), ("replay.batch", "1"), ("replay.report_steps", "1")] {
                config.set_hyper(key, value).expect(key);
            }
        }
        let dir = tempfile::tempdir().expect("folder");
        let mut run = Run::create(dir.path(), &config).expect("run");
        go(&config, &mut run);
        assert!(run.progress.reward_scale <= 100.0, "{}: {}", algo.name(), run.progress.reward_scale);
        let (lines, _) = left_behind(dir.path());
        assert_eq!(lines.len(), 40, "{}", algo.name());
        for (key, value) in lines.iter().flatten().filter(|(key, _)| key.starts_with("losses/")) {
            assert!(value.abs() < 1e5, "{}: {key} is {value}", algo.name());
        }
    }
}

#[test]
fn tuned_ppo_beats_the_best_constant_action() {
    let mec = MecParams::with_users(2);
    let mut config = TrainConfig::preset(Algo::Ppo, Preset::Tuned, mec);
    (config.envs, config.steps, config.eval_every, config.eval_slots) = (16, 16 * 16 * 60, 60, 400);
    config.ppo.hidden = vec![64, 64];
    let dir = tempfile::tempdir().expect("folder");
    let mut run = Run::create(dir.path(), &config).expect("run");
    go(&config, &mut run);
    let learned = run.evaluated().and_then(|m| m.eval_reward).expect("evaluated");
    // Both users alike: one of 21 ratios, at full power.
    let best = (0..=20).map(|i| {
        let decision = UserDecision { alpha: f64::from(i) / 20.0, power_w: mec.physics().p_max_w };
        let mut envs = VecEnv::new(mec, 400, nth_seed(5, 1));
        envs.step(&[decision; 800]).iter().map(|r| r.totals.reward).sum::<f64>() / 400.0
    });
    let best = best.fold(0.0, f64::max);
    assert!(learned > 1.05 * best, "learned {learned}, constant {best}");
}
