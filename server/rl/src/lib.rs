//! Training and judging offloading policies.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`config`] | what a training run is: algorithm, system, budget; written beside its results |
//! | [`ppo`] | proximal policy optimisation, one file from top to bottom |
//! | [`actor_critic`] | the losses of its networks, and a gradient step of both |
//! | [`ppo_lagrangian`] | the same, holding every user's limits by Lagrange multipliers |
//! | [`td3`], [`ddpg`], [`sac`] | the off-policy algorithms, one file each from top to bottom |
//! | [`off_policy`] | the loop that those three share: explore, remember, learn, report |
//! | [`set_dpg`] | one policy for any number of users, trained on cells of every size |
//! | [`set_net`] | its networks, with their gradients written out |
//! | [`replay`] | what they learn from: the transitions of the past |
//! | [`wm_ppo`] | world-model PPO, the paper's and a mended form |
//! | [`world_model`] | the recurrent state-space model that it imagines with |
//! | [`rssm`] | its networks |
//! | [`memory`] | the slots of the past that world models learn from |
//! | [`ensemble`] | the cheaper model of the tuned form: an ensemble of perceptrons |
//! | [`mlp`] | actor and critic of both, with their gradients written out |
//! | [`beta`] | the Beta distribution of the actions: sampling, log-probability, entropy, derivatives |
//! | [`nets`] | value networks, their first weights, Polyak averaging |
//! | [`rollout`] | stepping many simulated cells with a network and remembering what happened |
//! | [`evaluate`] | any policy, learned or not, on fresh slots: reward, latency, energy, broken limits |
//! | [`references`] | what policies are held against: the best constant action, plans |
//! | [`run`] | the run folder: configuration, metrics, curves, checkpoints, the best policy so far |
//! | [`session`] | what every algorithm does around its updates: evaluate, log, keep the best policy |
//! | [`tensorboard`] | its metrics as TensorBoard reads them |
//! | [`ship`] | putting a policy and its evaluation into the folder that the page downloads from |
//!
//! A further algorithm is a variant of [`config::Algo`] and a file with a `train` function like [`ppo::train`]: rollout,
//! evaluation, run folder and policy file are shared.
//!
//! Deliberately absent: the physics and the network, which page and server share through `client_core`, and any learning
//! from the optimum: policies see rewards only.

pub mod actor_critic;
pub mod beta;
pub mod config;
pub mod ddpg;
pub mod ensemble;
pub mod evaluate;
pub mod memory;
pub mod mlp;
pub mod nets;
pub mod off_policy;
pub mod ppo;
pub mod ppo_lagrangian;
pub mod references;
pub mod replay;
pub mod rollout;
pub mod rssm;
pub mod run;
pub mod sac;
pub mod session;
pub mod set_dpg;
pub mod set_net;
pub mod ship;
pub mod td3;
pub mod tensorboard;
pub mod wm_ppo;
pub mod world_model;

use std::sync::atomic::AtomicBool;

/// How a training run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All steps were taken.
    Finished,
    /// The stop flag was raised; everything up to there is kept.
    Stopped,
}

/// Trains with the algorithm that the configuration names, into its run folder.
///
/// Raising `stop` ends the run after the present update with everything kept.
///
/// # Errors
/// When a hyper-parameter is out of its range, the folder cannot be written, a checkpoint cannot be read, or a loss
/// stops being a number (the last good checkpoint is kept).
pub fn train(config: &config::TrainConfig, run: &mut run::Run, stop: &AtomicBool) -> Result<Ending, run::TrainError> {
    config.validate()?;
    match config.algo {
        config::Algo::Ppo => ppo::train(config, run, stop),
        config::Algo::PpoLagrangian => ppo_lagrangian::train(config, run, stop),
        config::Algo::Td3 => td3::train(config, run, stop),
        config::Algo::Ddpg => ddpg::train(config, run, stop),
        config::Algo::Sac => sac::train(config, run, stop),
        config::Algo::SetDpg => set_dpg::train(config, run, stop),
        config::Algo::WmPpo | config::Algo::WmPpoMended => wm_ppo::train(config, run, stop),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use mec::world::nth_seed;
    use mec::{MecParams, UserDecision, Variant, VecEnv};

    use super::config::{Algo, Preset, TrainConfig};
    use super::run::{Metrics, Run, TrainError};
    use super::wm_ppo::Imaginer;
    use super::*;

    /// A run of seconds: small networks, short episodes that rollouts cut in two.
    fn small(algo: Algo) -> TrainConfig {
        let mec = MecParams { horizon: 9, ..MecParams::with_users(1).with_variant(Variant::Backlog) };
        let mut config = TrainConfig::preset(algo, Preset::Tuned, mec);
        (config.envs, config.steps, config.eval_every, config.eval_slots, config.checkpoint_every) = (2, 96, 3, 8, 2);
        let ppo = config.ppo_mut().expect("built on ppo");
        (ppo.hidden, ppo.rollout_steps, ppo.epochs, ppo.minibatch) = (vec![8, 8], 6, 2, 5);
        let model = &mut config.wm_ppo.model;
        (model.deterministic, model.stochastic, model.hidden) = (8, 3, 8);
        (model.sequences, model.length, model.updates, model.memory) = (3, 4, 2, 60);
        let ensemble = &mut config.wm_ppo.ensemble;
        (ensemble.hidden, ensemble.updates, ensemble.batch, ensemble.memory) = (vec![8], 3, 5, 60);
        (config.wm_ppo.starts, config.wm_ppo.horizon) = (4, 3);
        config
    }

    /// What a run logged, without what a clock decides, and without the best so far: who stops evaluates once more.
    fn told(run: &Run) -> Vec<Metrics> {
        run.history().iter().map(|m| Metrics { steps_per_second: 0.0, best_reward: None, ..m.clone() }).collect()
    }

    #[test]
    fn a_resumed_run_gives_the_curve_of_one_that_never_stopped() {
        let mended = |imaginer| {
            let mut config = small(Algo::WmPpoMended);
            config.wm_ppo.imaginer = imaginer;
            config
        };
        let plain = [Algo::Ppo, Algo::PpoLagrangian, Algo::WmPpo].map(small);
        let configs = plain.into_iter().chain([Imaginer::Recurrent, Imaginer::Ensemble].map(mended));
        for config in configs {
            let algo = config.algo;
            let dir = tempfile::tempdir().expect("folder");
            let mut straight = Run::create(&dir.path().join("straight"), &config).expect("run");
            assert_eq!(train(&config, &mut straight, &AtomicBool::new(false)).expect("trained"), Ending::Finished);
            assert_eq!(straight.history().len(), 8);

            // Stopped in the fourth update; its fifth is torn off, as by a crash, and done again.
            let path = dir.path().join("resumed");
            let mut run = Run::create(&path, &config).expect("run");
            let stop = Arc::new(AtomicBool::new(false));
            let raise = Arc::clone(&stop);
            run.on_update = Box::new(move |m| raise.store(m.global_step >= 36, Ordering::Relaxed));
            assert_eq!(train(&config, &mut run, &stop).expect("trained"), Ending::Stopped);
            assert_eq!(run.progress.update, 4);
            drop(run);
            let lines = std::fs::read_to_string(path.join("metrics.jsonl")).expect("metrics");
            std::fs::write(path.join("metrics.jsonl"), format!("{lines}{{\"global_step\": 60, \"cha"))
                .expect("written");
            let (mut run, same) = Run::resume(&path).expect("resumed");
            assert_eq!(same, config);
            assert_eq!(train(&config, &mut run, &AtomicBool::new(false)).expect("trained"), Ending::Finished);

            // What it read back from its file may differ in a last digit; what it did itself may not.
            assert_eq!(told(&run)[4..], told(&straight)[4..], "{}", algo.name());
            assert_eq!(run.history().len(), 8);
        }
    }

    #[test]
    fn patience_ends_a_run_that_gets_no_better() {
        let mut config = TrainConfig { patience: 2, eval_every: 1, steps: 100_000, ..small(Algo::Ppo) };
        config.ppo.learning_rate = 1e-30;
        let dir = tempfile::tempdir().expect("folder");
        let mut run = Run::create(dir.path(), &config).expect("run");
        assert_eq!(train(&config, &mut run, &AtomicBool::new(false)).expect("trained"), Ending::Finished);
        assert_eq!(run.history().len(), 3);
        let (mut run, _) = Run::resume(dir.path()).expect("resumed");
        assert_eq!(train(&config, &mut run, &AtomicBool::new(false)).expect("trained"), Ending::Finished);
        assert_eq!(run.history().len(), 3);
    }

    #[test]
    fn a_run_that_meets_nan_says_where_and_keeps_its_last_checkpoint() {
        for algo in [Algo::Ppo, Algo::WmPpo] {
            let mut config = TrainConfig { steps: 36, ..small(algo) };
            let dir = tempfile::tempdir().expect("folder");
            let mut run = Run::create(dir.path(), &config).expect("run");
            train(&config, &mut run, &AtomicBool::new(false)).expect("trained");
            assert_eq!(run.progress.update, 3);
            config.steps = 1200;
            let ppo = config.ppo_mut().expect("built on ppo");
            (ppo.learning_rate, ppo.anneal) = (1e38, false);
            let error = train(&config, &mut run, &AtomicBool::new(false)).expect_err("diverged");
            assert!(matches!(error, TrainError::NotANumber { update, .. } if update >= 3), "{error}");
            assert_eq!(Run::resume(dir.path()).expect("still there").0.progress.update, 3);
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
        let error = train(&config, &mut run, &AtomicBool::new(false)).expect_err("no room").to_string();
        assert!(error.contains("curves") && error.to_lowercase().contains("space"), "{error}");
        drop(run);
        // There is room again.
        assert!(!part.exists());
        let (mut run, config) = Run::resume(dir.path()).expect("resumed");
        assert_eq!(run.progress.update, 4);
        assert_eq!(train(&config, &mut run, &AtomicBool::new(false)).expect("trained"), Ending::Finished);
        assert_eq!(run.history().len(), 8);
    }

    #[test]
    fn tuned_ppo_beats_the_best_constant_action() {
        let mec = MecParams::with_users(2);
        let mut config = TrainConfig::preset(Algo::Ppo, Preset::Tuned, mec);
        (config.envs, config.steps, config.eval_every, config.eval_slots) = (16, 16 * 16 * 60, 60, 400);
        config.ppo.hidden = vec![64, 64];
        let dir = tempfile::tempdir().expect("folder");
        let mut run = Run::create(dir.path(), &config).expect("run");
        train(&config, &mut run, &AtomicBool::new(false)).expect("trained");
        let learned = run.history().last().and_then(|m| m.eval_reward).expect("evaluated");
        // Both users alike: one of 21 ratios, at full power.
        let best = (0..=20).map(|i| {
            let decision = UserDecision { alpha: f64::from(i) / 20.0, power_w: mec.physics().p_max_w };
            let mut envs = VecEnv::new(mec, 400, nth_seed(5, 1));
            envs.step(&[decision; 800]).iter().map(|r| r.totals.reward).sum::<f64>() / 400.0
        });
        let best = best.fold(0.0, f64::max);
        assert!(learned > 1.05 * best, "learned {learned}, constant {best}");
    }
}
