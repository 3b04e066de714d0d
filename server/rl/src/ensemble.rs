//! A world model that is cheap enough to be trained on all that was ever lived through: an ensemble of perceptrons.
//!
//! Each member sees the last few observations (one alone hides what is still queued at the server) and the action, and
//! predicts the mean of the next observation, as a difference, and of the reward:
//!
//! ```text
//! ô' = o + f(o₋₂, o₋₁, o, a)      r̂ = g(o₋₂, o₋₁, o, a)
//! ```
//! It does not learn how the world's chance is distributed, it remembers what it was. An imagined stretch begins in a
//! remembered slot and lives that stretch through again with other actions: what the truth was off the prediction then is
//! added to the prediction now. So tasks and channels, which no action moves, come exactly as they really came, and where
//! the policy does what was done, imagination is the truth (noise inferred from real trajectories: Heess et al. 2015).

use burn::tensor::Device;
use policy::Activation;
use policy::spaces::FEATURE_LIMIT;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::error::TrainError;
use super::hyper::{hyper_parameters, layers, learning_rate, whole};
use super::mlp::{Mlp, MlpState};
use super::nets::matrix;
use super::rollout::Experience;
use super::sequence_buffer::{Place, SequenceBuffer};
use super::stop::UpdateGuard;
use super::world_model::ModelLosses;

/// Largest norm of a member's gradient.
const MAX_GRAD_NORM: f32 = 10.0;

hyper_parameters! {
    /// Hyper-parameters of the ensemble.
    pub struct EnsembleConfig => {
        /// Perceptrons; each imagines its share of the stretches.
        members: usize = 3 => whole(1, 64);
        /// Observations that a prediction looks at, the present one included.
        history: usize = 3 => whole(1, 64), "slots";
        /// Units of the hidden layers.
        hidden: Vec<usize> = vec![128, 128] => layers(), "units";
        /// Learning rate.
        learning_rate: f64 = 1e-3 => learning_rate();
        /// Gradient steps of each member after each rollout.
        updates: usize = 100 => whole(0, 1600), "steps";
        /// Rows of a gradient step, drawn from all that is remembered.
        batch: usize = 256 => whole(1, 4096), "rows";
        /// Slots that are remembered.
        memory: usize = 1_000_000 => whole(1, 1_000_000), "slots";
    }
}

/// What a prediction says, a row a slot.
#[derive(Clone, Debug, Default)]
pub struct Predicted {
    /// ô'
    pub observation: Vec<f32>,
    /// r̂
    pub reward: Vec<f32>,
}

/// The members with their optimisers.
pub struct Ensemble {
    config: EnsembleConfig,
    members: Vec<Mlp>,
    inputs: usize,
    actions: usize,
    device: Device,
}

impl Ensemble {
    /// Fresh members for rows of `inputs` features and `actions` actions.
    pub fn new(config: &EnsembleConfig, inputs: usize, actions: usize, rng: &mut Xoshiro256PlusPlus) -> Self {
        let mut sizes = vec![config.history * inputs + actions];
        sizes.extend(&config.hidden);
        sizes.push(inputs + 1);
        let shapes: Vec<[usize; 2]> = sizes.windows(2).map(|pair| [pair[0], pair[1]]).collect();
        let members = (0..config.members).map(|_| Mlp::new(&shapes, Activation::Relu, 0.1, rng)).collect();
        Self { config: config.clone(), members, inputs, actions, device: Device::flex() }
    }

    /// Number of members.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// The network's input: windows and actions, row after row, actions centred like observations.
    fn join(&self, windows: &[f32], actions: &[f32]) -> Vec<f32> {
        let width = self.config.history * self.inputs;
        let rows = windows.chunks_exact(width).zip(actions.chunks_exact(self.actions));
        rows.flat_map(|(window, actions)| window.iter().copied().chain(actions.iter().map(|a| 2.0 * a - 1.0))).collect()
    }

    /// Learns from all that is remembered.
    ///
    /// # Errors
    /// When a gradient is NaN or infinite, or the run is to stop.
    pub fn train(
        &mut self,
        memory: &SequenceBuffer,
        rng: &mut Xoshiro256PlusPlus,
        guard: UpdateGuard<'_>,
    ) -> Result<Option<ModelLosses>, TrainError> {
        let mut sums = ModelLosses::default();
        let steps = self.config.updates * self.members.len();
        for step in 0..steps {
            guard.check()?;
            let places = memory.places(self.config.batch, 1, rng);
            if places.is_empty() {
                return Ok(None);
            }
            let (mut windows, mut actions, mut truth) = (Vec::new(), Vec::new(), Vec::new());
            for place in &places {
                memory.window(*place, self.config.history, &mut windows);
                actions.extend_from_slice(memory.action(*place));
                let (seen, next) = (memory.observation(*place), memory.observation(place.later(1)));
                truth.extend(next.iter().zip(seen).map(|(next, seen)| next - seen));
                truth.push(memory.reward(*place));
            }
            let joined = self.join(&windows, &actions);
            let width = joined.len() / places.len();
            let index = step % self.members.len();
            let (output, tape) = self.members[index].forward_taped(matrix(joined, width, &self.device));
            let share = 1.0 / places.len() as f32;
            let off: Vec<f32> = output.iter().zip(&truth).map(|(y, t)| y - t).collect();
            for row in off.chunks_exact(self.inputs + 1) {
                let (observation, reward) = row.split_at(self.inputs);
                let part = f64::from(share) / steps as f64;
                sums.reconstruction += part * observation.iter().map(|d| f64::from(d * d)).sum::<f64>();
                sums.reward += part * reward.iter().map(|d| f64::from(d * d)).sum::<f64>();
            }
            let by_output = off.iter().map(|d| 2.0 * share * d).collect();
            let gradients = self.members[index].backward(tape, by_output);
            let finite = self.members[index].descend(&gradients, self.config.learning_rate, MAX_GRAD_NORM);
            guard.finite(finite, "world-model gradient")?;
        }
        Ok((steps > 0).then_some(sums))
    }

    /// What a member predicts to come after windows and actions.
    fn predict(&self, member: usize, windows: &[f32], actions: &[f32]) -> Predicted {
        let joined = self.join(windows, actions);
        let width = self.config.history * self.inputs;
        let output = self.members[member].forward(matrix(joined, width + self.actions, &self.device));
        let mut out = Predicted::default();
        for (row, window) in output.chunks_exact(self.inputs + 1).zip(windows.chunks_exact(width)) {
            let present = &window[width - self.inputs..];
            out.observation.extend(row.iter().zip(present).map(|(d, o)| o + d));
            out.reward.push(row[self.inputs]);
        }
        out
    }

    /// One step ahead of every slot of a rollout of `envs` environments, the members' mean. What was before the rollout
    /// is not looked at.
    pub fn observe(&self, experience: &Experience, envs: usize) -> Predicted {
        let inputs = self.inputs;
        let seen = |row: usize| &experience.features[row * inputs..(row + 1) * inputs];
        let mut windows = Vec::new();
        for row in 0..experience.truncated.len() {
            let mut rows = vec![row];
            while rows.len() < self.config.history {
                let first = rows[rows.len() - 1];
                let begins = first < envs || experience.truncated[first - envs];
                rows.push(if begins { first } else { first - envs });
            }
            rows.iter().rev().for_each(|row| windows.extend_from_slice(seen(*row)));
        }
        let mut mean = Predicted {
            observation: vec![0.0; experience.features.len()],
            reward: vec![0.0; experience.truncated.len()],
        };
        let share = 1.0 / self.members.len() as f32;
        for member in 0..self.members.len() {
            let said = self.predict(member, &windows, &experience.actions);
            mean.observation.iter_mut().zip(said.observation).for_each(|(m, v)| *m += share * v);
            mean.reward.iter_mut().zip(said.reward).for_each(|(m, v)| *m += share * v);
        }
        mean
    }

    /// The windows that stretches begin with, for [`Ensemble::relive`].
    pub fn windows(&self, memory: &SequenceBuffer, places: &[Place]) -> Vec<f32> {
        let mut windows = Vec::new();
        places.iter().for_each(|place| memory.window(*place, self.config.history, &mut windows));
        windows
    }

    /// The present observations of windows.
    pub fn present(&self, windows: &[f32]) -> Vec<f32> {
        let width = self.config.history * self.inputs;
        windows.chunks_exact(width).flat_map(|window| &window[width - self.inputs..]).copied().collect()
    }

    /// Lives remembered slots through again, after imagined `windows` and with other actions. Moves the windows on by a
    /// slot and returns the rewards.
    pub fn relive(
        &self,
        member: usize,
        memory: &SequenceBuffer,
        places: &[Place],
        windows: &mut Vec<f32>,
        actions: &[f32],
    ) -> Vec<f32> {
        let lived: Vec<f32> = places.iter().flat_map(|place| memory.action(*place)).copied().collect();
        let expected = self.predict(member, &self.windows(memory, places), &lived);
        let mut said = self.predict(member, windows, actions);
        let truth = places.iter().flat_map(|place| memory.observation(place.later(1)));
        for ((said, expected), truth) in said.observation.iter_mut().zip(&expected.observation).zip(truth) {
            *said = (*said + truth - expected).clamp(-FEATURE_LIMIT, FEATURE_LIMIT);
        }
        let width = self.config.history * self.inputs;
        let moved = windows.chunks_exact(width).zip(said.observation.chunks_exact(self.inputs));
        *windows = moved.flat_map(|(old, new)| old[self.inputs..].iter().chain(new)).copied().collect();
        said.reward
    }

    /// A copy for a checkpoint.
    pub fn state(&self) -> Vec<MlpState> {
        self.members.iter().map(Mlp::state).collect()
    }

    /// Takes a checkpoint over.
    ///
    /// # Errors
    /// When it is of another ensemble, in words.
    pub fn restore(&mut self, state: Vec<MlpState>) -> Result<(), String> {
        if state.len() != self.members.len() {
            return Err(format!("an ensemble of {} instead of {}", state.len(), self.members.len()));
        }
        self.members.iter_mut().zip(state).try_for_each(|(member, state)| member.restore(state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::r_squared;
    use crate::stop::Stop;
    use rand::{RngExt, SeedableRng};

    /// A made-up world of one environment and episodes of 20 slots: the first feature is the last action, the second is
    /// noise that no action moves, and a slot's reward is its action less those of the two slots before.
    fn live(slots: usize, rng: &mut Xoshiro256PlusPlus) -> Experience {
        let mut out = Experience::default();
        let (mut last, mut before, mut noise) = (0.0f32, 0.0f32, 0.0f32);
        for slot in 1..=slots {
            let action: f32 = rng.random();
            out.features.extend([last, noise]);
            out.actions.push(action);
            out.rewards.push(action - last - before);
            (before, last) = (last, action);
            noise = 0.5 * noise + rng.random::<f32>() - 0.5;
            out.next_features.extend([last, noise]);
            let ended = slot % 20 == 0;
            out.truncated.push(ended);
            if ended {
                (last, before, noise) = (0.0, 0.0, 0.0);
            }
        }
        out
    }

    fn trained(rng: &mut Xoshiro256PlusPlus) -> (Ensemble, SequenceBuffer) {
        let config =
            EnsembleConfig { members: 2, hidden: vec![32], updates: 400, batch: 64, ..EnsembleConfig::default() };
        let mut ensemble = Ensemble::new(&config, 2, 1, rng);
        let mut memory = SequenceBuffer::new(1, config.memory);
        let rollout = live(600, rng);
        memory.add(&rollout, &rollout.rewards);
        let losses = ensemble.train(&memory, rng, Stop::default().guard(0)).expect("finite").expect("slots");
        assert!(losses.reward.is_finite() && losses.reconstruction > 0.0);
        (ensemble, memory)
    }

    #[test]
    fn it_learns_to_predict_what_one_observation_hides() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        let (ensemble, _) = trained(&mut rng);
        let fresh = live(200, &mut rng);
        let predicted = ensemble.observe(&fresh, 1);
        let explained = r_squared(&fresh.rewards, &predicted.reward, 1).expect("rewards vary");
        assert!(explained > 0.8, "{explained}");
    }

    #[test]
    fn living_through_again_with_the_same_actions_is_the_truth() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(2);
        let (ensemble, memory) = trained(&mut rng);
        let mut places = memory.places(30, 5, &mut rng);
        let (mut same, mut other) = (ensemble.windows(&memory, &places), ensemble.windows(&memory, &places));
        for slot in 0..5 {
            let lived: Vec<f32> = places.iter().flat_map(|place| memory.action(*place)).copied().collect();
            ensemble.relive(0, &memory, &places, &mut same, &lived);
            let full = ensemble.relive(0, &memory, &places, &mut other, &vec![1.0; lived.len()]);
            places.iter_mut().for_each(|place| *place = place.later(1));
            let truth = ensemble.windows(&memory, &places);
            let apart =
                |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f32>() / a.len() as f32;
            assert!(apart(&same, &truth) < 1e-5);
            // No action moves the noise; who did all there is two slots ago pays for it.
            let noise = |windows: &[f32]| windows.chunks(2).map(|row| row[1]).collect::<Vec<_>>();
            assert!(apart(&noise(&other), &noise(&truth)) < 0.2);
            let mean = full.iter().sum::<f32>() / full.len() as f32;
            assert!(slot < 2 || (mean + 1.0).abs() < 0.4, "{mean}");
        }
    }

    #[test]
    fn a_rollouts_windows_are_the_memorys() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(3);
        let (ensemble, _) = trained(&mut rng);
        let rollout = live(60, &mut rng);
        let mut memory = SequenceBuffer::new(1, 60);
        memory.add(&rollout, &rollout.rewards);
        let predicted = ensemble.observe(&rollout, 1);
        for place in memory.places(20, 1, &mut rng) {
            let windows = ensemble.windows(&memory, &[place]);
            let by = |member| ensemble.predict(member, &windows, memory.action(place)).reward[0];
            let mean = 0.5 * (by(0) + by(1));
            assert!(predicted.reward.iter().any(|reward| (reward - mean).abs() < 1e-4));
        }
    }

    #[test]
    fn a_restored_ensemble_goes_on_alike_and_another_one_is_refused() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(4);
        let (mut ensemble, memory) = trained(&mut rng);
        let mut other = Ensemble::new(&ensemble.config, 2, 1, &mut rng);
        other.restore(ensemble.state()).expect("restored");
        let mut twin = rng.clone();
        let stop = Stop::default();
        let learned = ensemble.train(&memory, &mut rng, stop.guard(0)).expect("finite");
        assert_eq!(learned, other.train(&memory, &mut twin, stop.guard(0)).expect("finite"));
        let small = EnsembleConfig { members: 1, ..ensemble.config.clone() };
        let error = Ensemble::new(&small, 2, 1, &mut rng).restore(ensemble.state()).expect_err("refused");
        assert!(error.contains("ensemble of 2"), "{error}");
    }
}
