//! The loop that TD3, DDPG and SAC share: explore, remember, learn from what is remembered, report.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor};
use mec::WorldSnapshot;
use mec::world::nth_seed;
use policy::{Activation, Actor, ActorConfig};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

use super::checkpoint::{read_state, write_state};
use super::error::TrainError;
use super::nets::{TwinCritic, load_module, load_optimiser, mse, polyak, rows, save_module, save_optimiser};
use super::replay::{Batch, ReplayBuffer, ReplayConfig};
use super::rollout::{Collector, Experience};
use super::session::{Job, Session, Update};
use super::stats::reward_scale;
use super::stop::Ending;

/// What is random in exploring and learning.
pub type Random = Xoshiro256PlusPlus;

/// An algorithm, as the loop sees it.
pub trait Algorithm {
    /// Actions in [0, 1] to explore with, a row an environment. `features` is `[envs, inputs]`, without gradients.
    fn explore(&mut self, features: Tensor<2>, random: &mut Random) -> Vec<f32>;

    /// Told when an environment begins its next episode.
    fn begin_episode(&mut self, _env: usize) {}

    /// The `number`-th gradient step, counted from 0. Logs its scalars into `means`.
    fn learn(&mut self, number: u64, batch: Batch, random: &mut Random, means: &mut Means);

    /// The policy as it stands, without gradients.
    fn actor(&self) -> Actor;

    /// Learning rate of the actor.
    fn learning_rate(&self) -> f64;

    /// Writes all that the algorithm remembers into the folder of a checkpoint.
    ///
    /// # Errors
    /// When it cannot be written.
    fn save(&self, folder: &Path) -> Result<(), TrainError>;

    /// Takes up what [`Algorithm::save`] wrote.
    ///
    /// # Errors
    /// When it cannot be read or is of another shape.
    fn load(&mut self, folder: &Path) -> Result<(), TrainError>;
}

/// Means of what the gradient steps log.
#[derive(Default)]
pub struct Means(BTreeMap<&'static str, (f64, u64)>);

impl Means {
    /// Adds a value to the mean `losses/NAME`.
    pub fn add(&mut self, name: &'static str, value: f32) {
        let (sum, count) = self.0.entry(name).or_default();
        *sum += f64::from(value);
        *count += 1;
    }

    fn all_finite(&self) -> bool {
        self.0.values().all(|(sum, _)| sum.is_finite())
    }

    /// The means under their names in the log.
    pub fn named(&self) -> BTreeMap<String, f64> {
        self.0.iter().map(|(name, (sum, count))| (format!("losses/{name}"), sum / *count as f64)).collect()
    }
}

/// Adam with the ε of the original paper, which TD3, DDPG and SAC all take.
pub fn adam() -> AdamConfig {
    AdamConfig::new().with_epsilon(1e-8)
}

/// A network and the optimiser that trains it.
pub struct Trained<M> {
    /// The network, with gradients.
    pub net: M,
    /// Its optimiser.
    pub optimiser: ModuleOptimizer,
    /// Its learning rate.
    pub rate: f64,
}

impl<M: Module> Trained<M> {
    /// One step down the gradient of a loss.
    pub fn descend(&mut self, loss: Tensor<1>) {
        let gradients = GradientsParams::from_grads(loss.backward(), &self.net);
        self.net = self.optimiser.step(self.rate, self.net.clone(), gradients);
    }

    /// Writes both into a folder.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn save(&self, folder: &Path, name: &str) -> Result<(), TrainError> {
        save_module(&self.net, &folder.join(format!("{name}.bpk")))?;
        save_optimiser(&self.optimiser, &folder.join(format!("{name}-optimiser.bpk")))
    }

    /// Reads what [`Trained::save`] wrote, into a network of the same shape and its fresh optimiser.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn load(&mut self, folder: &Path, name: &str) -> Result<(), TrainError> {
        self.net = load_module(self.net.clone(), &folder.join(format!("{name}.bpk")))?;
        let path = folder.join(format!("{name}-optimiser.bpk"));
        self.optimiser = load_optimiser(self.optimiser.clone(), &path)?;
        Ok(())
    }
}

impl Trained<TwinCritic> {
    /// A step of both critics towards `target`, `[batch]`, in the mean of squares. Logs their values and losses.
    pub fn regress(
        &mut self,
        features: Tensor<2>,
        actions: Tensor<2>,
        target: Tensor<1>,
        activation: Activation,
        means: &mut Means,
    ) {
        let (first, second) = self.net.both(features, actions, activation);
        means.add("qf1_values", first.clone().mean().into_scalar());
        means.add("qf2_values", second.clone().mean().into_scalar());
        let (first, second) = (mse(first, target.clone()), mse(second, target));
        means.add("qf1_loss", first.clone().into_scalar());
        means.add("qf2_loss", second.clone().into_scalar());
        self.descend(first + second);
    }
}

/// A network that is trained, and its target: a copy that follows slowly, from which others bootstrap.
pub struct WithTarget<M> {
    /// The network and its optimiser.
    pub online: Trained<M>,
    /// Without gradients.
    pub target: M,
}

impl<M: Module> WithTarget<M> {
    /// The target is the network as it stands.
    pub fn new(net: M, optimiser: ModuleOptimizer, rate: f64) -> Self {
        Self { target: net.valid(), online: Trained { net, optimiser, rate } }
    }

    /// Moves the target towards the network by a share `tau`.
    pub fn follow(&mut self, tau: f32) {
        self.target = polyak(self.target.clone(), &self.online.net.valid(), tau);
    }

    /// Writes both into a folder.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn save(&self, folder: &Path, name: &str) -> Result<(), TrainError> {
        self.online.save(folder, name)?;
        save_module(&self.target, &folder.join(format!("target-{name}.bpk")))
    }

    /// Reads what [`WithTarget::save`] wrote.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn load(&mut self, folder: &Path, name: &str) -> Result<(), TrainError> {
        self.online.load(folder, name)?;
        self.target = load_module(self.target.clone(), &folder.join(format!("target-{name}.bpk")))?;
        Ok(())
    }
}

/// What the loop itself remembers in a checkpoint, beside algorithm and replay buffer.
#[derive(Serialize, Deserialize)]
struct LoopState {
    random: Random,
    worlds: Vec<WorldSnapshot>,
    /// Gradient steps done.
    learned: u64,
}

/// Trains into a run folder, from its checkpoint if it has one; on one thread a resumed run gives the curve of an
/// uninterrupted one bit for bit.
///
/// `create` makes the algorithm's networks on a device with gradients.
///
/// # Errors
/// See [`crate::train`].
pub fn train<A: Algorithm>(
    job: Job<'_>,
    replay: &ReplayConfig,
    actor_config: ActorConfig,
    create: impl FnOnce(&Device, &mut Random) -> A,
) -> Result<Ending, TrainError> {
    let Job { settings, run, stop, .. } = &job;
    let (settings, stop, device) = (*settings, *stop, Device::flex());
    // Streams of their own for weights, exploration and worlds.
    let stream = |n: u64| nth_seed(settings.seed, n);
    let mut algorithm = create(&device.clone().autodiff(), &mut Random::seed_from_u64(stream(0)));
    let (inputs, actions) = (actor_config.inputs(), actor_config.actions());
    let resumed = run.progress.update > 0;
    let (mut buffer, mut state, mut collector);
    if resumed {
        let folder = run.checkpoint_file("");
        algorithm.load(&folder)?;
        buffer = ReplayBuffer::load(&folder.join("replay.safetensors"), replay.capacity, inputs, actions)?;
        let path = folder.join("loop.cbor");
        state = read_state::<LoopState>(&path)?;
        let worlds = std::mem::take(&mut state.worlds);
        let lived = run.progress.steps / settings.envs as u64;
        let restored = Collector::restore(settings, stream(2), worlds, lived);
        collector = restored.map_err(|e| TrainError::damaged(&path, e))?;
    } else {
        buffer = ReplayBuffer::new(replay.capacity, inputs, actions);
        state = LoopState { random: Random::seed_from_u64(stream(1)), worlds: Vec::new(), learned: 0 };
        collector = Collector::new(settings, stream(2));
    }

    let update_steps = (settings.envs * replay.report_steps) as u64;
    let mut session = Session::open(job, actor_config.into(), update_steps)?;
    while session.progress.update < session.updates {
        let guard = stop.guard(session.progress.update);
        let mut means = Means::default();
        let (mut reward, mut taken) = (0.0, 0);
        for _ in 0..replay.report_steps {
            guard.check()?;
            let steps = session.progress.steps + taken;
            let actions = if steps < replay.warm_up {
                (0..settings.envs * actions).map(|_| state.random.random()).collect()
            } else {
                algorithm.explore(rows(collector.features(), inputs, &device), &mut state.random)
            };
            let mut experience = Experience::default();
            collector.step(&actions, &mut experience);
            reward += experience.mean_reward();
            taken += settings.envs as u64;
            buffer.push(&experience);
            for (env, _) in experience.truncated.iter().enumerate().filter(|(_, truncated)| **truncated) {
                algorithm.begin_episode(env);
            }

            let learnable = (steps + settings.envs as u64).saturating_sub(replay.warm_up);
            if buffer.len() < replay.batch || learnable == 0 {
                continue;
            }
            if session.progress.reward_scale == 0.0 {
                session.progress.reward_scale = reward_scale(buffer.rewards());
            }
            let due = (learnable as f64 * replay.updates_per_step) as u64;
            while state.learned < due {
                guard.check()?;
                let mut batch = buffer.sample(replay.batch, &device, &mut state.random);
                batch.rewards = batch.rewards.mul_scalar(session.progress.reward_scale);
                algorithm.learn(state.learned, batch, &mut state.random, &mut means);
                state.learned += 1;
            }
            guard.finite(means.all_finite(), "loss")?;
        }
        let next = session.finish_update(Update {
            network: &algorithm.actor().into(),
            steps: taken,
            mean_reward: reward / replay.report_steps as f64,
            learning_rate: algorithm.learning_rate(),
            losses: means.named(),
        })?;
        if next.checkpoint {
            state.worlds = collector.snapshot();
            session.checkpoint(|folder| {
                algorithm.save(folder)?;
                buffer.save(&folder.join("replay.safetensors"))?;
                write_state(&folder.join("loop.cbor"), &state)
            })?;
        }
        if next.stopped {
            return Ok(Ending::Stopped);
        }
    }
    Ok(Ending::Finished)
}

#[cfg(test)]
mod tests {
    use mec::MecParams;

    use super::*;
    use crate::config::{Algo, Preset, TrainConfig};
    use crate::run::Run;
    use crate::stop::Stop;

    const ALGORITHMS: [Algo; 3] = [Algo::Td3, Algo::Ddpg, Algo::Sac];

    fn tiny(algo: Algo, preset: Preset, steps: u64) -> TrainConfig {
        let mut config = TrainConfig {
            seed: 3,
            steps,
            envs: 1,
            eval_every: 1,
            eval_slots: 100,
            checkpoint_every: 100,
            ..TrainConfig::preset(algo, preset, MecParams::with_users(1))
        };
        let sizes = [("hidden", "[32, 32]"), ("replay.batch", "32"), ("replay.warm_up", "100")];
        for (key, value) in sizes.into_iter().chain([("replay.report_steps", "100")]) {
            config.set_hyper(key, value).expect(key);
        }
        config
    }

    fn go(config: &TrainConfig, run: &mut Run) {
        let ending = crate::train(config, run, &Stop::default()).expect("trained");
        assert_eq!(ending, Ending::Finished);
    }

    #[test]
    fn every_algorithm_learns_to_decide_for_one_user() {
        for algo in ALGORITHMS {
            let dir = tempfile::tempdir().expect("folder");
            let mut config = tiny(algo, Preset::Tuned, 1500);
            // Few steps and small nets: critics that learn fast, and enough noise that no seed stays at α = 1.
            let rates_and_noise: &[(&str, &str)] = match algo {
                Algo::Td3 => &[("actor_rate", "3e-4"), ("critic_rate", "1e-2"), ("exploration", "0.2")],
                Algo::Ddpg => &[("actor_rate", "3e-4"), ("critic_rate", "1e-2"), ("noise_sigma", "0.2")],
                _ => &[("actor_rate", "1e-3"), ("critic_rate", "3e-3"), ("alpha", "0.3"), ("target_entropy", "-1")],
            };
            for (key, value) in rates_and_noise.iter().chain(&[("replay.warm_up", "200")]) {
                config.set_hyper(key, value).expect(key);
            }
            let mut run = Run::create(dir.path(), &config).expect("run");
            go(&config, &mut run);
            // The first evaluation is of the untrained policy: it comes with the end of the warm-up.
            let ratios: Vec<f64> = run.history().iter().filter_map(|m| m.eval_ratio).collect();
            let (first, last) = (ratios[0], ratios[ratios.len() - 1]);
            let learned = |update: usize| run.history()[update].losses.keys().any(|name| name.starts_with("losses/"));
            assert!(!learned(1) && learned(2));
            assert!(last > 0.9 && last > first + 0.1, "{}: {ratios:?}", algo.name());
        }
    }

    #[test]
    fn a_resumed_run_gives_the_curve_of_an_uninterrupted_one() {
        for algo in ALGORITHMS {
            let [straight, broken] = [(); 2].map(|()| tempfile::tempdir().expect("folder"));
            let mut config = tiny(algo, Preset::Paper, 600);
            // The ring is full and the episode under way when the run is interrupted.
            config.mec.horizon = 130;
            config.envs = 2;
            config.set_hyper("replay.capacity", "150").expect("capacity");
            config.set_hyper("replay.report_steps", "50").expect("report");
            go(&config, &mut Run::create(straight.path(), &config).expect("run"));
            go(&TrainConfig { steps: 300, ..config.clone() }, &mut Run::create(broken.path(), &config).expect("run"));
            let (mut run, config) = Run::resume::<TrainConfig>(broken.path()).expect("resumed");
            assert_eq!(run.progress.steps, 300);
            go(&config, &mut run);
            let curve = |folder: &tempfile::TempDir| {
                let text = std::fs::read_to_string(folder.path().join("metrics.jsonl")).expect("metrics");
                // All but the speed.
                let lines = text.lines().map(|line| {
                    line.split(',').filter(|part| !part.contains("charts/SPS")).map(str::to_owned).collect::<Vec<_>>()
                });
                lines.collect::<Vec<_>>()
            };
            assert_eq!(curve(&straight), curve(&broken), "{}", algo.name());
            let policy = |folder: &tempfile::TempDir| std::fs::read(folder.path().join("policy.safetensors"));
            assert_eq!(policy(&straight).expect("policy"), policy(&broken).expect("policy"));
        }
    }

    #[test]
    fn a_loss_that_is_not_finite_ends_the_run_and_keeps_its_checkpoint() {
        let dir = tempfile::tempdir().expect("folder");
        let mut config = tiny(Algo::Td3, Preset::Tuned, 200);
        config.checkpoint_every = 1;
        let mut run = Run::create(dir.path(), &config).expect("run");
        go(&config, &mut run);
        // A step so long that squares overflow.
        config.steps = 400;
        config.set_hyper("critic_rate", "1e30").expect("rate");
        let (mut run, _) = Run::resume::<TrainConfig>(dir.path()).expect("resumed");
        let error = config.train(&mut run, &Stop::default()).expect_err("not finite");
        assert!(matches!(error, TrainError::NotFinite { update: 2, .. }), "{error}");
        assert_eq!(Run::resume::<TrainConfig>(dir.path()).expect("kept").0.progress.steps, 200);
    }
}
