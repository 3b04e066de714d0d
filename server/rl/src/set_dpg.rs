//! One policy for any number of users: a deterministic policy gradient (Silver et al. 2014) on networks that take users as a
//! set, trained on cells of every size at once; readable from top to bottom.
//!
//! Like tuned TD3 it looks no further than the slot (γ = 0), where a critic is a regression of rewards on what was seen and
//! done, and needs neither targets nor a twin. What differs is the networks ([`SetNet`]), that a gradient step holds slots
//! of every number of users, and two things that let one pair of networks serve all of them:
//!
//! - The critic's outputs are what each user costs, in seconds, and its value is one over their sum: the form of the reward
//!   (47). The networks then learn a user's cost among others, which differs by little from 1 to 10 users, where the reward
//!   differs by a factor of twenty.
//! - Errors and values count relative to the mean reward that random actions get with as many users.

use burn::tensor::Device;
use mec::world::nth_seed;
use mec::{MecParams, WorldSnapshot};
use policy::set::SET_FEATURES_PER_USER;
use policy::{ACTIONS_PER_USER, Activation, Network, SetActor, SetConfig};
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

use super::checkpoint::{read_state, write_state};
use super::error::TrainError;
use super::hyper::{
    HyperParameters, activation, hyper_parameters, layers, learning_rate, optional_layers, over_zero, part, whole,
    within,
};
use super::mlp::tanh;
use super::nets::host;
use super::off_policy::{Means, Random};
use super::replay::{ReplayBuffer, ReplayConfig};
use super::rollout::{Collector, Experience};
use super::session::{Job, Session, Update};
use super::set_net::{SetNet, SetNetState};
use super::stop::Ending;

hyper_parameters! {
    /// Hyper-parameters. Noise is in units of the actions' range [0, 1].
    pub struct SetDpgConfig, fits SetDpgConfig::replay_fits => {
        /// Learning rate of the actor at the start; it falls linearly to 0.
        actor_rate: f64 = 1e-3 => learning_rate();
        /// Learning rate of the critic at the start; it falls linearly to 0.
        critic_rate: f64 = 2e-3 => learning_rate();
        /// Standard deviation of the Gaussian noise that explores, of the actions' range. Half of tuned TD3's: with many
        /// users everybody's noise is in everybody's reward.
        exploration: f32 = 0.05 => within(0.0, 1.0);
        /// Steps of the critic for each of the actor.
        policy_delay: u64 = 2 => whole(1, 64);
        /// Steps of the critic before the actor's first: a critic that knows nothing pushes the actor to the flat ends of
        /// tanh.
        head_start: u64 = 500 => whole(0, 1_000_000), "steps";
        /// Largest norm of the gradients of encoder and head.
        max_grad_norm: f32 = 10.0 => over_zero(1000.0);
        /// Units of the layers of the actor's encoder.
        encoder: Vec<usize> = vec![64, 64] => layers(), "units";
        /// Units of the hidden layers of the actor's head.
        head: Vec<usize> = vec![64, 64] => optional_layers(), "units";
        /// Units of the layers of the critic's encoder.
        critic_encoder: Vec<usize> = vec![64, 64] => layers(), "units";
        /// Units of the hidden layers of the critic's head.
        critic_head: Vec<usize> = vec![64, 64] => optional_layers(), "units";
        /// Nonlinearity.
        activation: Activation = Activation::Relu => activation();
        /// Collecting and replaying; capacity and batch are for each number of users.
        replay: ReplayConfig = ReplayConfig {
            capacity: 20_000,
            batch: 32,
            warm_up: 4000,
            updates_per_step: 0.025,
            report_steps: 200,
        } => part::<ReplayConfig>();
    }
}

impl SetDpgConfig {
    fn replay_fits(&self) -> Result<(), String> {
        self.replay.fits_together()
    }

    /// Shape of the policy network.
    pub fn shape(&self, most_users: usize) -> SetConfig {
        SetConfig { most_users, encoder: self.encoder.clone(), head: self.head.clone(), activation: self.activation }
    }
}

/// What a user's cost of 1 in the critic's outputs stands for: about a user's latency.
const COST_UNIT_S: f32 = 0.3;

/// A minibatch: slots of every number of users, users of all slots after one another.
#[derive(Default)]
struct Slots {
    /// Users of each slot, `[slots]`.
    users: Vec<usize>,
    /// `[rows, SET_FEATURES_PER_USER]`
    features: Vec<f32>,
    /// In [0, 1], `[rows, ACTIONS_PER_USER]`
    actions: Vec<f32>,
    /// `[slots]`
    rewards: Vec<f32>,
    /// Mean reward of random actions with as many users, `[slots]`.
    usual: Vec<f32>,
}

struct SetDpg<'a> {
    config: &'a SetDpgConfig,
    actor: SetNet,
    critic: SetNet,
}

/// Both networks, for a checkpoint.
#[derive(Serialize, Deserialize)]
struct Nets {
    actor: SetNetState,
    critic: SetNetState,
}

/// What the critic takes: features and actions centred on 0, a row a user.
fn with_actions(features: &[f32], centred: &[f32]) -> Vec<f32> {
    let rows = features.chunks_exact(SET_FEATURES_PER_USER).zip(centred.chunks_exact(ACTIONS_PER_USER));
    rows.flat_map(|(features, actions)| features.iter().chain(actions).copied()).collect()
}

/// Slots' values from what the critic says of their users: one over the sum of costs, `COST_UNIT_S · softplus`.
fn values(raw: &[f32], users: &[usize]) -> Vec<f32> {
    let mut rest = raw;
    let value = |count: &usize| {
        let (own, others) = rest.split_at(*count);
        rest = others;
        let cost: f32 = own.iter().map(|x| x.max(0.0) + (-x.abs()).exp().ln_1p()).sum();
        1.0 / (COST_UNIT_S * cost).max(1e-3)
    };
    users.iter().map(value).collect()
}

/// Derivatives by what the critic says of users from those by the slots' values.
fn by_raw(raw: &[f32], users: &[usize], values: &[f32], by_value: &[f32]) -> Vec<f32> {
    let of_slots = users.iter().zip(values).zip(by_value);
    let of_rows = of_slots.flat_map(|((count, q), d)| std::iter::repeat_n(-d * q * q * COST_UNIT_S, *count));
    raw.iter().zip(of_rows).map(|(x, d)| d / (1.0 + (-x).exp())).collect()
}

impl<'a> SetDpg<'a> {
    fn new(config: &'a SetDpgConfig, random: &mut Random) -> Self {
        let inputs = SET_FEATURES_PER_USER;
        let (encoder, head) = (&config.critic_encoder, &config.critic_head);
        Self {
            config,
            actor: SetNet::new(
                inputs,
                &config.encoder,
                &config.head,
                ACTIONS_PER_USER,
                config.activation,
                0.01,
                random,
            ),
            critic: SetNet::new(inputs + ACTIONS_PER_USER, encoder, head, 1, config.activation, 0.1, random),
        }
    }

    fn explore(&self, features: Vec<f32>, users: &[usize], random: &mut Random) -> Vec<f32> {
        let mut actions = self.actor.forward(features, users);
        for action in &mut actions {
            let noise: f32 = StandardNormal.sample(random);
            *action = (0.5 * (1.0 + tanh(*action)) + self.config.exploration * noise).clamp(0.0, 1.0);
        }
        actions
    }

    /// The `number`-th gradient step, at a share `left` of the learning rates. Returns whether all of it was finite.
    fn learn(&mut self, number: u64, slots: &Slots, left: f64, means: &mut Means) -> bool {
        let config = self.config;
        let (users, count) = (&slots.users, slots.users.len() as f32);
        let centred: Vec<f32> = slots.actions.iter().map(|a| 2.0 * a - 1.0).collect();
        let (raw, tape) = self.critic.forward_taped(with_actions(&slots.features, &centred), users);
        let q = values(&raw, users);
        let (mut loss, mut by_value) = (0.0, Vec::with_capacity(q.len()));
        for ((q, reward), usual) in q.iter().zip(&slots.rewards).zip(&slots.usual) {
            let error = (q - reward) / usual;
            loss += error * error / count;
            by_value.push(2.0 * error / usual / count);
        }
        means.add("qf_loss", loss);
        let gradients = self.critic.backward(tape, users, by_raw(&raw, users, &q, &by_value));
        let mut finite = self.critic.descend(&gradients, config.critic_rate * left, config.max_grad_norm);

        if number < config.head_start || !(number + 1).is_multiple_of(config.policy_delay) {
            return finite;
        }
        let (raw_action, actor_tape) = self.actor.forward_taped(slots.features.clone(), users);
        let centred: Vec<f32> = raw_action.iter().map(|x| tanh(*x)).collect();
        let (raw, tape) = self.critic.forward_taped(with_actions(&slots.features, &centred), users);
        let q = values(&raw, users);
        means.add("actor_loss", -q.iter().zip(&slots.usual).map(|(q, usual)| q / usual).sum::<f32>() / count);
        let by_value: Vec<f32> = slots.usual.iter().map(|usual| -1.0 / usual / count).collect();
        let by_input = self.critic.by_input(tape, users, by_raw(&raw, users, &q, &by_value));
        let by_action = by_input.chunks_exact(SET_FEATURES_PER_USER + ACTIONS_PER_USER);
        let by_action = by_action.flat_map(|row| &row[SET_FEATURES_PER_USER..]);
        let by_raw_action = by_action.zip(&centred).map(|(d, t)| d * (1.0 - t * t)).collect();
        let gradients = self.actor.backward(actor_tape, users, by_raw_action);
        finite &= self.actor.descend(&gradients, config.actor_rate * left, config.max_grad_norm);
        finite
    }

    fn network(&self, shape: &SetConfig) -> Network {
        let [encoder, head] = self.actor.values();
        SetActor::from_values(shape, encoder, head, &Device::flex()).into()
    }
}

/// What the loop remembers in a checkpoint, beside the replay buffers.
#[derive(Serialize, Deserialize)]
struct LoopState {
    random: Random,
    /// Of each number of users.
    worlds: Vec<Vec<WorldSnapshot>>,
    /// Gradient steps done.
    learned: u64,
    /// Mean reward of random actions, of each number of users; none while these are still tried.
    usual: Vec<f32>,
}

/// The cells of one number of users, and what was lived through there.
struct Cells {
    users: usize,
    collector: Collector,
    buffer: ReplayBuffer,
}

fn replay_file(users: usize) -> String {
    format!("replay-k{users}.safetensors")
}

/// Trains on every number of users from 1 to the configured one, into a run folder, from its checkpoint if it has one; on
/// one thread a resumed run gives the curve of an uninterrupted one bit for bit. `envs` is cells of each number of users.
///
/// # Errors
/// See [`crate::train`].
pub fn train(job: Job<'_>, dpg: &SetDpgConfig) -> Result<Ending, TrainError> {
    let Job { settings, run, stop, .. } = &job;
    let (settings, stop) = (*settings, *stop);
    let (replay, device) = (&dpg.replay, Device::flex());
    let shape = dpg.shape(settings.mec.users);
    // Streams of their own for weights, exploration and worlds.
    let stream = |n: u64| nth_seed(settings.seed, n);
    let mut learner = SetDpg::new(dpg, &mut Random::seed_from_u64(stream(0)));
    let mut state =
        LoopState { random: Random::seed_from_u64(stream(1)), worlds: Vec::new(), learned: 0, usual: Vec::new() };
    let resumed = run.progress.update > 0;
    if resumed {
        let path = run.checkpoint_file("loop.cbor");
        state = read_state(&path)?;
        let path = run.checkpoint_file("nets.cbor");
        let nets: Nets = read_state(&path)?;
        let damaged = |problem: String| TrainError::damaged(&path, problem);
        learner.actor.restore(nets.actor).map_err(damaged)?;
        learner.critic.restore(nets.critic).map_err(damaged)?;
    }
    let mut worlds = std::mem::take(&mut state.worlds).into_iter();
    let mut all = Vec::new();
    for users in 1..=settings.mec.users {
        let params = MecParams { users, ..settings.mec };
        let (inputs, actions) = (users * SET_FEATURES_PER_USER, users * ACTIONS_PER_USER);
        let cells = if resumed {
            let damaged = |problem: String| TrainError::damaged(&run.checkpoint_file("loop.cbor"), problem);
            let worlds = worlds.next().ok_or_else(|| damaged(format!("it has no cells of {users} users")))?;
            let collector = Collector::restore_for_sets(params, worlds, settings.action_map);
            let path = run.checkpoint_file(&replay_file(users));
            Cells {
                users,
                collector: collector.map_err(|e| damaged(e.to_string()))?,
                buffer: ReplayBuffer::load(&path, replay.capacity, inputs, actions)?,
            }
        } else {
            let seed = nth_seed(stream(2), users as u64);
            Cells {
                users,
                collector: Collector::new_for_sets(params, settings.envs, seed, settings.action_map),
                buffer: ReplayBuffer::new(replay.capacity, inputs, actions),
            }
        };
        all.push(cells);
    }

    // What a step of all cells is.
    let users: Vec<usize> = all.iter().flat_map(|cells| std::iter::repeat_n(cells.users, settings.envs)).collect();
    let step_slots = users.len() as u64;
    let rows: usize = users.iter().sum();
    let mut session = Session::open(job, shape.clone().into(), step_slots * replay.report_steps as u64)?;
    while session.progress.update < session.updates {
        let guard = stop.guard(session.progress.update);
        let mut means = Means::default();
        let left = 1.0 - session.progress.update as f64 / session.updates.max(1) as f64;
        let (mut share, mut taken) = (0.0, 0);
        for _ in 0..replay.report_steps {
            guard.check()?;
            let steps = session.progress.steps + taken;
            let actions = if steps < replay.warm_up {
                (0..rows * ACTIONS_PER_USER).map(|_| state.random.random()).collect()
            } else {
                let features = all.iter().flat_map(|cells| cells.collector.features()).copied().collect();
                learner.explore(features, &users, &mut state.random)
            };
            let mut rest = actions.as_slice();
            for cells in &mut all {
                let (own, others) = rest.split_at(settings.envs * cells.collector.actions());
                rest = others;
                let mut experience = Experience::default();
                cells.collector.step(own, &mut experience);
                share += session.share(cells.users, experience.mean_reward());
                cells.buffer.push(&experience);
            }
            taken += step_slots;

            let learnable = (steps + step_slots).saturating_sub(replay.warm_up);
            if learnable == 0 {
                continue;
            }
            if state.usual.is_empty() {
                let mean = |rewards: &[f32]| rewards.iter().sum::<f32>() / rewards.len() as f32;
                state.usual = all.iter().map(|cells| mean(cells.buffer.rewards())).collect();
            }
            let due = (learnable as f64 * replay.updates_per_step) as u64;
            while state.learned < due {
                guard.check()?;
                let mut slots = Slots::default();
                for (cells, usual) in all.iter().zip(&state.usual) {
                    let batch = cells.buffer.sample(replay.batch, &device, &mut state.random);
                    slots.users.extend(std::iter::repeat_n(cells.users, replay.batch));
                    slots.features.extend(host(batch.features));
                    slots.actions.extend(host(batch.actions));
                    slots.rewards.extend(host(batch.rewards));
                    slots.usual.extend(std::iter::repeat_n(*usual, replay.batch));
                }
                guard.finite(learner.learn(state.learned, &slots, left, &mut means), "gradient")?;
                state.learned += 1;
            }
        }
        let next = session.finish_update(Update {
            network: &learner.network(&shape),
            steps: taken,
            mean_reward: share / (replay.report_steps * all.len()) as f64,
            learning_rate: dpg.actor_rate * left,
            losses: means.named(),
        })?;
        if next.checkpoint {
            state.worlds = all.iter().map(|cells| cells.collector.snapshot()).collect();
            session.checkpoint(|folder| {
                let nets = Nets { actor: learner.actor.state(), critic: learner.critic.state() };
                write_state(&folder.join("nets.cbor"), &nets)?;
                write_state(&folder.join("loop.cbor"), &state)?;
                all.iter().try_for_each(|cells| cells.buffer.save(&folder.join(replay_file(cells.users))))
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
    use super::*;
    use crate::config::{Algo, Preset, TrainConfig};
    use crate::run::{Metrics, Run};
    use crate::stop::Stop;

    fn tiny(most_users: usize, steps: u64) -> TrainConfig {
        let mut config = TrainConfig {
            seed: 3,
            steps,
            envs: 2,
            eval_every: 1,
            eval_slots: 200,
            checkpoint_every: 100,
            ..TrainConfig::preset(Algo::SetDpg, Preset::Tuned, MecParams::with_users(most_users))
        };
        let sizes = [("encoder", "[16]"), ("head", "[16]"), ("critic_encoder", "[24]"), ("critic_head", "[24]")];
        let replay = [("replay.batch", "16"), ("replay.warm_up", "400"), ("head_start", "50")];
        for (key, value) in sizes.into_iter().chain(replay).chain([("replay.report_steps", "50")]) {
            config.set_hyper(key, value).expect(key);
        }
        config
    }

    fn go(config: &TrainConfig, run: &mut Run) {
        assert_eq!(crate::train(config, run, &Stop::default()).expect("trained"), Ending::Finished);
    }

    #[test]
    fn values_are_one_over_summed_costs_and_so_are_their_derivatives() {
        let (raw, users) = ([0.3, -1.0, 2.0, -40.0, 40.0], [2, 1, 2]);
        let q = values(&raw, &users);
        let softplus = |x: f32| x.exp().ln_1p();
        let want = 1.0 / (COST_UNIT_S * (softplus(0.3) + softplus(-1.0)));
        assert!((q[0] - want).abs() < 1e-5 && (q[2] - 1.0 / (COST_UNIT_S * 40.0)).abs() < 1e-5, "{q:?}");
        let got = by_raw(&raw, &users, &q, &[1.0, 2.0, 3.0]);
        for (row, (slot, by_value)) in [(0, 1.0), (0, 1.0), (1, 2.0), (2, 3.0), (2, 3.0)].into_iter().enumerate() {
            let moved = |by: f32| {
                let mut raw = raw;
                raw[row] += by;
                values(&raw, &users)[slot]
            };
            let want = by_value * (moved(1e-2) - moved(-1e-2)) / 2e-2;
            assert!((got[row] - want).abs() < 1e-3 * (1.0 + want.abs()), "{row}: {} {want}", got[row]);
        }
    }

    #[test]
    fn one_policy_learns_to_decide_for_one_to_three_users() {
        let dir = tempfile::tempdir().expect("folder");
        let mut config = tiny(3, 6000);
        config.set_hyper("replay.updates_per_step", "0.2").expect("updates");
        let mut run = Run::create(dir.path(), &config).expect("run");
        go(&config, &mut run);
        let history = run.history();
        let (first, last) = (&history[0], &history[history.len() - 1]);
        for users in 1..=3 {
            let share = |metrics: &Metrics| metrics.losses[&format!("eval/ratio_k{users}")];
            assert!(
                share(last) > 0.85 && share(last) > share(first) + 0.05,
                "K = {users}: {} {}",
                share(first),
                share(last)
            );
        }
        let bytes = std::fs::read(dir.path().join("policy.safetensors")).expect("policy");
        let policy = policy::Policy::load(&bytes, &Device::flex()).expect("policy");
        assert_eq!((policy.users(), policy.header().algo.as_str()), (1..=3, "set-dpg"));
    }

    #[test]
    fn a_resumed_run_gives_the_curve_of_an_uninterrupted_one() {
        let [straight, broken] = [(); 2].map(|()| tempfile::tempdir().expect("folder"));
        let mut config = tiny(2, 1600);
        // The ring is full and the episode under way when the run is interrupted.
        config.mec.horizon = 130;
        config.set_hyper("replay.capacity", "150").expect("capacity");
        go(&config, &mut Run::create(straight.path(), &config).expect("run"));
        let mut run = Run::create(broken.path(), &config).expect("run");
        let stop = std::sync::Arc::new(Stop::default());
        let raise = std::sync::Arc::clone(&stop);
        run.on_update = Box::new(move |m| {
            if m.global_step >= 600 {
                raise.raise();
            }
        });
        assert_eq!(crate::train(&config, &mut run, &stop).expect("trained"), Ending::Stopped);
        let (mut run, config) = Run::resume::<TrainConfig>(broken.path()).expect("resumed");
        assert!(run.progress.steps > 400 && run.progress.steps < 1600);
        go(&config, &mut run);
        let logged = |folder: &tempfile::TempDir| {
            let (run, _) = Run::resume::<TrainConfig>(folder.path()).expect("run");
            // All but the speed.
            let metrics = run.history().into_iter().map(|m| Metrics { steps_per_second: 0.0, ..m });
            metrics.collect::<Vec<_>>()
        };
        assert_eq!(logged(&straight), logged(&broken));
        let policy = |folder: &tempfile::TempDir| std::fs::read(folder.path().join("policy.safetensors"));
        assert_eq!(policy(&straight).expect("policy"), policy(&broken).expect("policy"));
    }
}
