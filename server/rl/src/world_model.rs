//! The world model of (34)–(35): a recurrent state-space model of what the slots do.
//!
//! Its state is a deterministic part h `[·, 128]`, carried by a GRU, and a Gaussian part z `[·, 16]`. From h alone the prior
//! guesses z, from h and the observation the posterior infers it, and decoders read observation, reward and end of the
//! episode off both:
//!
//! ```text
//! h' = GRU(h, z, a)      z ~ posterior(h, encoder(o))  or  z ~ prior(h)      ô, r̂, d̂ = decoders(h, z)
//! ```
//! The reward of an action is decoded from the state that the action leads to: (34) puts a into the *next* h, so the state
//! before cannot know it. Observations are the policy's features and rewards the scaled ones, both of order 1.

use std::path::Path;

use burn::grad_clipping::GradientClippingConfig;
use burn::module::Module;
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::activation::{sigmoid, softplus};
use burn::tensor::{Device, Tensor};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::error::TrainError;
use super::hyper::{hyper_parameters, learning_rate, whole, within};
use super::nets::{host, matrix, rows};
use super::rollout::Experience;
use super::rssm::{Decoded, Gaussian, Rssm, Sizes};
use super::sequence_buffer::{SequenceBuffer, Sequences};
use super::stop::UpdateGuard;

/// Largest norm of a parameter's gradient.
const MAX_GRAD_NORM: f32 = 10.0;

hyper_parameters! {
    /// Hyper-parameters of the world model. The defaults are the paper's where it prints any; what it leaves open is marked.
    pub struct WorldModelConfig => {
        /// Units of the deterministic state h (open).
        deterministic: usize = 128 => whole(1, 2048), "units";
        /// Units of the random state z (open).
        stochastic: usize = 16 => whole(1, 256), "units";
        /// Units of the hidden layers.
        hidden: usize = 256 => whole(1, 4096), "units";
        /// Learning rate.
        learning_rate: f64 = 1e-3 => learning_rate();
        /// Weight of the reward, λ_r of (35).
        reward_weight: f32 = 1.0 => within(0.0, 1000.0);
        /// Weight of the divergence, β of (35).
        kl_weight: f32 = 1.0 => within(0.0, 1000.0);
        /// Weight of decoding what the prior guesses (0: not in (35)). It is the prior that imagination is made of.
        prior_weight: f32 = 0.0 => within(0.0, 1000.0);
        /// Gradient steps after each rollout (open).
        updates: usize = 4 => whole(0, 1600), "steps";
        /// Sequences of a gradient step (open).
        sequences: usize = 10 => whole(1, 256);
        /// Slots of a sequence (open).
        length: usize = 20 => whole(1, 320), "slots";
        /// Slots that are remembered to learn from; the paper's buffer holds the present episode.
        memory: usize = 200 => whole(1, 1_000_000), "slots";
    }
}

impl WorldModelConfig {
    fn sizes(&self) -> Sizes {
        Sizes { deterministic: self.deterministic, stochastic: self.stochastic, hidden: self.hidden }
    }
}

/// Means of a gradient step's loss terms.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ModelLosses {
    /// ‖ô − o‖² of the posterior's state.
    pub reconstruction: f64,
    /// (r̂ − r)² of the posterior's state.
    pub reward: f64,
    /// KL(posterior ‖ prior).
    pub kl: f64,
}

/// Where a world model is, a row a state.
#[derive(Clone)]
pub struct Latent {
    /// `[rows, deterministic]`
    h: Tensor<2>,
    /// `[rows, stochastic]`
    z: Tensor<2>,
}

/// What the model predicts of a rollout, a row a slot.
pub struct Observed {
    /// The state in which each decision was made.
    pub latent: Latent,
    /// ô of the slot after, one step ahead, from the prior's mean.
    pub observation: Vec<f32>,
    /// r̂, one step ahead, from the prior's mean.
    pub reward: Vec<f32>,
}

/// One imagined slot, a row a state.
pub struct ImaginedSlot {
    /// The state that it leads to.
    pub latent: Latent,
    /// ô
    pub observation: Vec<f32>,
    /// r̂
    pub reward: Vec<f32>,
    /// Probability that the episode goes on.
    pub goes_on: Vec<f32>,
}

/// The model with its optimiser.
pub struct WorldModel {
    config: WorldModelConfig,
    rssm: Rssm,
    optimiser: ModuleOptimizer,
    device: Device,
    plain: Device,
    inputs: usize,
    actions: usize,
}

const MODEL_FILE: &str = "world_model.bpk";
const OPTIMISER_FILE: &str = "world_model_optimiser.bpk";

impl WorldModel {
    /// A fresh model for rows of `inputs` features and `actions` actions.
    pub fn new(config: &WorldModelConfig, inputs: usize, actions: usize, rng: &mut Xoshiro256PlusPlus) -> Self {
        let device = Device::flex().autodiff();
        let optimiser = AdamConfig::new().with_grad_clipping(Some(GradientClippingConfig::Norm(MAX_GRAD_NORM))).init();
        Self {
            config: config.clone(),
            rssm: Rssm::new(config.sizes(), inputs, actions, &device, rng),
            optimiser,
            device,
            plain: Device::flex(),
            inputs,
            actions,
        }
    }

    /// Learns from sequences of the memory by (35). Nothing happens while the memory holds none that is long enough.
    ///
    /// # Errors
    /// When a loss is NaN or infinite, or the run is to stop.
    pub fn train(
        &mut self,
        memory: &SequenceBuffer,
        rng: &mut Xoshiro256PlusPlus,
        guard: UpdateGuard<'_>,
    ) -> Result<Option<ModelLosses>, TrainError> {
        let mut sums = ModelLosses::default();
        let updates = self.config.updates;
        for _ in 0..updates {
            let Some(sequences) = memory.draw(self.config.sequences, self.config.length, rng) else { return Ok(None) };
            let losses = self.descend(&sequences, rng, guard)?;
            let share = 1.0 / updates as f64;
            sums.reconstruction += share * losses.reconstruction;
            sums.reward += share * losses.reward;
            sums.kl += share * losses.kl;
        }
        Ok((updates > 0).then_some(sums))
    }

    fn descend(
        &mut self,
        sequences: &Sequences,
        rng: &mut Xoshiro256PlusPlus,
        guard: UpdateGuard<'_>,
    ) -> Result<ModelLosses, TrainError> {
        let Sequences { observations, actions, rewards, count, length } = sequences;
        let (count, length) = (*count, *length);
        let (device, rssm, config) = (&self.device, &self.rssm, &self.config);
        let encoded = rssm.encode(rows(observations, self.inputs, device)); // [(length + 1)·count, hidden]
        let encoded_at = |slot: usize| encoded.clone().slice([slot * count..(slot + 1) * count, 0..config.hidden]);
        let mut h = Tensor::zeros([count, config.deterministic], device);
        let mut z = rssm.posterior(h.clone(), encoded_at(0)).sample(rng);
        let (mut hs, mut zs, mut means, mut deviations) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (slot, actions) in actions.chunks_exact(count * self.actions).enumerate() {
            guard.check()?;
            h = rssm.advance(h, z, rows(actions, self.actions, device));
            let posterior = rssm.posterior(h.clone(), encoded_at(slot + 1));
            z = posterior.sample(rng);
            hs.push(h.clone());
            zs.push(z.clone());
            means.push(posterior.mean);
            deviations.push(posterior.deviation);
        }
        // All slots at once from here on: [length·count, ·].
        let (h, z) = (Tensor::cat(hs, 0), Tensor::cat(zs, 0));
        let posterior = Gaussian { mean: Tensor::cat(means, 0), deviation: Tensor::cat(deviations, 0) };
        let prior = rssm.prior(h.clone());
        let observation = rows(&observations[count * self.inputs..], self.inputs, device);
        let reward = rows(rewards, 1, device);
        let slots = (length * count) as f64;
        let against_truth = |decoded: Decoded| {
            let off = decoded.observation - observation.clone();
            let reconstruction = (off.clone() * off).sum().div_scalar(slots);
            let off = decoded.reward - reward.clone();
            let reward = (off.clone() * off).mean();
            // No episode of this system ends but by its time limit, so the truth is "goes on" everywhere.
            (reconstruction, reward, softplus(decoded.end, 1.0).mean())
        };
        let (reconstruction, reward_error, end) = against_truth(rssm.decode(h.clone(), z));
        let kl = posterior.divergence(&prior).mean();
        let mut loss = reconstruction.clone()
            + reward_error.clone().mul_scalar(config.reward_weight)
            + kl.clone().mul_scalar(config.kl_weight)
            + end;
        if config.prior_weight > 0.0 {
            let guess = prior.sample(rng);
            let (reconstruction, reward, _) = against_truth(rssm.decode(h, guess));
            loss = loss + (reconstruction + reward.mul_scalar(config.reward_weight)).mul_scalar(config.prior_weight);
        }
        guard.finite(loss.clone().into_scalar::<f32>().is_finite(), "world-model loss")?;
        let losses = ModelLosses {
            reconstruction: f64::from(reconstruction.into_scalar::<f32>()),
            reward: f64::from(reward_error.into_scalar::<f32>()),
            kl: f64::from(kl.into_scalar::<f32>()),
        };
        let gradients = GradientsParams::from_grads(loss.backward(), &self.rssm);
        self.rssm = self.optimiser.step(self.config.learning_rate, self.rssm.clone(), gradients);
        Ok(losses)
    }

    /// Lives through a rollout of `envs` environments, knowing of each slot what came before it, and predicts each one
    /// step ahead. `carry` is h of every environment, row after row, from one rollout to the next; empty at the start.
    ///
    /// # Errors
    /// When the run is to stop.
    pub fn observe(
        &self,
        experience: &Experience,
        envs: usize,
        carry: &mut Vec<f32>,
        guard: UpdateGuard<'_>,
    ) -> Result<Observed, TrainError> {
        let rssm = self.rssm.valid();
        let (units, plain) = (self.config.deterministic, &self.plain);
        carry.resize(envs * units, 0.0);
        let encoded = rssm.encode(rows(&experience.features, self.inputs, plain)); // [rows, hidden]
        let mut h = rows(carry, units, plain); // [envs, deterministic]
        let (mut hs, mut zs, mut nexts) = (Vec::new(), Vec::new(), Vec::new());
        let slots = experience.actions.chunks_exact(envs * self.actions).zip(experience.truncated.chunks_exact(envs));
        for (slot, (actions, truncated)) in slots.enumerate() {
            guard.check()?;
            let seen = encoded.clone().slice([slot * envs..(slot + 1) * envs, 0..self.config.hidden]);
            let z = rssm.posterior(h.clone(), seen).mean;
            let next = rssm.advance(h.clone(), z.clone(), rows(actions, self.actions, plain));
            hs.push(h);
            zs.push(z);
            nexts.push(next.clone());
            h = next;
            if truncated.contains(&true) {
                // A new episode begins with nothing known.
                let kept: Vec<f32> = truncated.iter().map(|ended| f32::from(u8::from(!ended))).collect();
                h = h * matrix(kept, 1, plain);
            }
        }
        *carry = host(h);
        let next = Tensor::cat(nexts, 0);
        let guess = rssm.prior(next.clone()).mean;
        let decoded = rssm.decode(next, guess);
        Ok(Observed {
            latent: Latent { h: Tensor::cat(hs, 0), z: Tensor::cat(zs, 0) },
            observation: host(decoded.observation),
            reward: host(decoded.reward),
        })
    }

    /// Some of the states, for [`WorldModel::dream`] to begin in.
    pub fn pick(&self, latent: &Latent, chosen: &[usize]) -> Latent {
        let pick = |tensor: &Tensor<2>| {
            let width = tensor.dims()[1];
            let values = host(tensor.clone());
            let picked = chosen.iter().flat_map(|row| &values[row * width..(row + 1) * width]).copied();
            matrix(picked.collect(), width, &self.plain)
        };
        Latent { h: pick(&latent.h), z: pick(&latent.z) }
    }

    /// One imagined slot from each state under the given actions, a row a state, with z drawn from the prior.
    pub fn dream(&self, latent: &Latent, actions: &[f32], rng: &mut Xoshiro256PlusPlus) -> ImaginedSlot {
        let rssm = self.rssm.valid();
        let h = rssm.advance(latent.h.clone(), latent.z.clone(), rows(actions, self.actions, &self.plain));
        let z = rssm.prior(h.clone()).sample(rng);
        let decoded = rssm.decode(h.clone(), z.clone());
        ImaginedSlot {
            latent: Latent { h, z },
            observation: host(decoded.observation),
            reward: host(decoded.reward),
            goes_on: host(sigmoid(decoded.end.neg())),
        }
    }

    /// Writes the model into a checkpoint's folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), TrainError> {
        let path = folder.join(MODEL_FILE);
        self.rssm.clone().into_record().save(&path).map_err(|e| TrainError::damaged(&path, e))?;
        let path = folder.join(OPTIMISER_FILE);
        self.optimiser.save(&path).map_err(|e| TrainError::damaged(&path, e))
    }

    /// Takes a checkpoint over.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn restore(mut self, folder: &Path) -> Result<Self, TrainError> {
        let path = folder.join(MODEL_FILE);
        self.rssm = self.rssm.try_load_file(&path).map_err(|e| TrainError::damaged(&path, e))?;
        let path = folder.join(OPTIMISER_FILE);
        self.optimiser = self.optimiser.load(&path).map_err(|e| TrainError::damaged(&path, e))?;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence_buffer::tests::{ToyWorld, reward};
    use crate::stats::r_squared;
    use crate::stop::Stop;
    use rand::SeedableRng;

    fn explained(truth: &[f32], prediction: &[f32], width: usize) -> f64 {
        r_squared(truth, prediction, width).expect("the truth varies")
    }

    fn config() -> WorldModelConfig {
        WorldModelConfig {
            deterministic: 16,
            stochastic: 4,
            hidden: 32,
            learning_rate: 5e-3,
            kl_weight: 0.1,
            prior_weight: 1.0,
            updates: 400,
            sequences: 16,
            length: 6,
            memory: 1000,
            ..WorldModelConfig::default()
        }
    }

    #[test]
    fn the_model_learns_to_predict_and_a_restored_one_goes_on_alike() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(2);
        let mut model = WorldModel::new(&config(), 2, 1, &mut rng);
        let mut memory = SequenceBuffer::new(2, 1000);
        let rollout = ToyWorld::new(2).live(300, &mut rng);
        memory.add(&rollout, &rollout.rewards);
        let fresh = ToyWorld::new(2).live(100, &mut rng);
        let judge = |model: &WorldModel| {
            let seen = model.observe(&fresh, 2, &mut Vec::new(), Stop::default().guard(0)).expect("not stopped");
            (explained(&fresh.rewards, &seen.reward, 1), explained(&fresh.next_features, &seen.observation, 2))
        };
        let before = judge(&model);
        let losses = model.train(&memory, &mut rng, Stop::default().guard(0)).expect("finite").expect("sequences");
        let after = judge(&model);
        assert!(before.0 < 0.2 && before.1 < 0.2 && after.0 > 0.7 && after.1 > 0.9, "{before:?} {after:?}");
        assert!(losses.reconstruction.is_finite() && losses.reward > 0.0 && losses.kl >= 0.0);

        let folder = tempfile::tempdir().expect("folder");
        model.save(folder.path()).expect("saved");
        let mut other = WorldModel::new(&config(), 2, 1, &mut rng).restore(folder.path()).expect("restored");
        let mut twin = rng.clone();
        model.config.updates = 5;
        other.config.updates = 5;
        let stop = Stop::default();
        let learned = model.train(&memory, &mut rng, stop.guard(0)).expect("finite");
        assert_eq!(learned, other.train(&memory, &mut twin, stop.guard(0)).expect("finite"));
        assert_eq!(judge(&model), judge(&other));
    }

    #[test]
    fn an_imagined_slot_is_like_a_real_one() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(4);
        let mut model = WorldModel::new(&config(), 2, 1, &mut rng);
        let mut memory = SequenceBuffer::new(1, 1000);
        let rollout = ToyWorld::new(1).live(500, &mut rng);
        memory.add(&rollout, &rollout.rewards);
        model.train(&memory, &mut rng, Stop::default().guard(0)).expect("finite");
        let observed = model.observe(&rollout, 1, &mut Vec::new(), Stop::default().guard(0)).expect("not stopped");
        let starts: Vec<usize> = (0..250).step_by(5).collect();
        let actions: Vec<f32> = starts.iter().map(|i| (*i % 7) as f32 / 6.0).collect();
        let dreamt = model.dream(&model.pick(&observed.latent, &starts), &actions, &mut rng);
        let seen: Vec<f32> = starts.iter().map(|row| rollout.features[2 * row]).collect();
        let rewards: Vec<f32> = actions.iter().zip(&seen).map(|(a, s)| reward(*s, *a)).collect();
        let share = explained(&rewards, &dreamt.reward, 1);
        assert!(share > 0.6, "{share}");
        let next: Vec<f32> = actions.iter().flat_map(|a| [*a, 1.0]).collect();
        assert!(explained(&next, &dreamt.observation, 2) > 0.8);
        assert!(dreamt.goes_on.iter().all(|p| *p > 0.8));
    }
}
