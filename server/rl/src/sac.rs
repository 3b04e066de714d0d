//! SAC: soft actor-critic with an entropy weight that tunes itself (Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and
//! Applications"), readable from top to bottom.
//!
//! Actions are (1 + tanh x)/2 of Gaussian x. Log-probabilities are those of tanh x in [−1, 1], as in the original, so that
//! its target entropy of −1 an action means the same here.

use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::activation::softplus;
use burn::tensor::{Device, Tensor};
use policy::activation::squash;
use policy::{Activation, Actor, ActorConfig, Head};
use rand_distr::{Distribution, StandardNormal};

use super::error::TrainError;
use super::hyper::{
    HyperParameters, activation, below, hyper_parameters, learning_rate, optional_layers, over_zero, part, within,
};
use super::nets::{TwinCritic, fan_in, host, rows};
use super::off_policy::{self, Algorithm, Means, Random, Trained, WithTarget, adam};
use super::replay::{Batch, ReplayConfig};
use super::session::Job;
use super::settings::RunSettings;
use super::stop::Ending;

/// ln σ is kept in here, as in the authors' code.
const LN_DEVIATION: (f64, f64) = (-20.0, 2.0);

hyper_parameters! {
    /// Hyper-parameters; the original paper's (its table 1), whose nets are as wide as the MEC paper's.
    pub struct SacConfig, fits SacConfig::replay_fits => {
        /// Discount γ.
        gamma: f32 = 0.99 => below(0.0, 1.0);
        /// Share τ by which the targets move at every step.
        tau: f32 = 0.005 => over_zero(1.0);
        /// Learning rate of the actor.
        actor_rate: f64 = 3e-4 => learning_rate();
        /// Learning rate of the critics.
        critic_rate: f64 = 3e-4 => learning_rate();
        /// Learning rate of the entropy's weight α.
        alpha_rate: f64 = 3e-4 => learning_rate();
        /// Weight α of the entropy at the start.
        alpha: f32 = 1.0 => over_zero(1000.0);
        /// Entropy that α is tuned for, in each action.
        target_entropy: f32 = -1.0 => within(-1000.0, 1000.0), "nats";
        /// Units of the hidden layers of actor and critics.
        hidden: Vec<usize> = vec![256, 256] => optional_layers(), "units";
        /// Nonlinearity.
        activation: Activation = Activation::Relu => activation();
        /// Collecting and replaying.
        replay: ReplayConfig = ReplayConfig::default() => part::<ReplayConfig>();
    }
}

impl SacConfig {
    /// What works on the default system, where no action moves the state: no discounting of what follows, since nothing
    /// does; small batches and longer steps; and less noise from the start and in the end, since the best decisions are
    /// narrow.
    pub fn tuned() -> Self {
        Self {
            gamma: 0.0,
            actor_rate: 1e-3,
            critic_rate: 1e-3,
            alpha_rate: 1e-3,
            alpha: 0.1,
            target_entropy: -2.0,
            replay: ReplayConfig { batch: 64, ..ReplayConfig::default() },
            ..Self::default()
        }
    }

    fn replay_fits(&self) -> Result<(), String> {
        self.replay.fits_together()
    }

    /// Shape of the policy network.
    pub fn actor(&self, settings: &RunSettings) -> ActorConfig {
        settings.actor(&self.hidden, self.activation, Head::SquashedGaussian)
    }
}

/// The weight α of the entropy, as its logarithm.
#[derive(Module, Debug)]
struct Temperature {
    ln_alpha: Param<Tensor<1>>,
}

struct Sac<'a> {
    config: &'a SacConfig,
    actor: Trained<Actor>,
    critics: WithTarget<TwinCritic>,
    temperature: Trained<Temperature>,
}

/// Actions drawn for states, `[batch, actions]` in [0, 1], and the log-probabilities of tanh x, `[batch]`.
fn draw(actor: &Actor, features: Tensor<2>, random: &mut Random) -> (Tensor<2>, Tensor<1>) {
    let device = features.device();
    let (mean, ln_deviation) = actor.gaussian(features); // [batch, actions] each
    let ln_deviation = ln_deviation.clamp(LN_DEVIATION.0, LN_DEVIATION.1);
    let [batch, width] = mean.dims();
    let noise: Vec<f32> = (0..batch * width).map(|_| StandardNormal.sample(random)).collect();
    let noise = rows(&noise, width, &device);
    let x = mean + ln_deviation.clone().exp() * noise.clone();
    let gaussian = noise.clone() * noise * -0.5 - ln_deviation - 0.5 * std::f32::consts::TAU.ln();
    // ln(1 − tanh² x) = 2 (ln 2 − x − softplus(−2x)), which does not overflow.
    let slope = (x.clone().neg() - softplus(x.clone().mul_scalar(-2.0), 1.0) + std::f32::consts::LN_2) * 2.0;
    (squash(x), (gaussian - slope).sum_dim(1).squeeze_dim(1))
}

impl<'a> Sac<'a> {
    fn new(config: &'a SacConfig, shape: &ActorConfig, device: &Device, random: &mut Random) -> Self {
        let actor = Actor::from_values(shape, fan_in(&shape.layers(), None, random), device);
        let critics = TwinCritic::fan_in(shape.inputs() + shape.actions(), &config.hidden, device, random);
        let ln_alpha = Param::from_tensor(Tensor::from_floats([config.alpha.ln()], device));
        Self {
            config,
            actor: Trained { net: actor, optimiser: adam().init(), rate: config.actor_rate },
            critics: WithTarget::new(critics, adam().init(), config.critic_rate),
            temperature: Trained { net: Temperature { ln_alpha }, optimiser: adam().init(), rate: config.alpha_rate },
        }
    }

    /// The critics' targets, `[batch]`: `r + γ (min Q'(s', a') − α ln π(a'|s'))` with a' drawn.
    fn targets(&self, alpha: f32, rewards: Tensor<1>, next: Tensor<2>, random: &mut Random) -> Tensor<1> {
        if self.config.gamma == 0.0 {
            return rewards;
        }
        let (action, log_prob) = draw(&self.actor.net.valid(), next.clone(), random);
        let value = self.critics.target.lower(next, action, self.config.activation) - log_prob.mul_scalar(alpha);
        rewards + value.mul_scalar(self.config.gamma)
    }
}

impl Algorithm for Sac<'_> {
    fn explore(&mut self, features: Tensor<2>, random: &mut Random) -> Vec<f32> {
        host(draw(&self.actor.net.valid(), features, random).0)
    }

    fn learn(&mut self, _number: u64, batch: Batch, random: &mut Random, means: &mut Means) {
        let activation = self.config.activation;
        let alpha = self.temperature.net.ln_alpha.val().into_scalar::<f32>().exp();
        means.add("alpha", alpha);
        let Batch { features, actions, rewards, next_features } = batch;
        let target = Tensor::from_inner(self.targets(alpha, rewards, next_features, random));
        let (features, actions) = (Tensor::from_inner(features), Tensor::from_inner(actions));
        self.critics.online.regress(features.clone(), actions, target, activation, means);

        let (action, log_prob) = draw(&self.actor.net, features.clone(), random);
        let actions = action.dims()[1] as f32;
        let value = self.critics.online.net.clone().no_grad().lower(features, action, activation);
        let mean_log_prob = log_prob.clone().mean().into_scalar::<f32>();
        means.add("entropy", -mean_log_prob);
        let loss = (log_prob.mul_scalar(alpha) - value).mean();
        means.add("actor_loss", loss.clone().into_scalar());
        self.actor.descend(loss);

        // Its gradient by ln α in the form of the authors' code: −ln α · (ln π + target).
        let excess = mean_log_prob + self.config.target_entropy * actions;
        let loss = self.temperature.net.ln_alpha.val().mul_scalar(-excess);
        means.add("alpha_loss", loss.clone().into_scalar());
        self.temperature.descend(loss);
        if self.config.gamma > 0.0 {
            self.critics.follow(self.config.tau);
        }
    }

    fn actor(&self) -> Actor {
        self.actor.net.valid()
    }

    fn learning_rate(&self) -> f64 {
        self.config.actor_rate
    }

    fn save(&self, folder: &Path) -> Result<(), TrainError> {
        self.actor.save(folder, "actor")?;
        self.critics.save(folder, "critics")?;
        self.temperature.save(folder, "temperature")
    }

    fn load(&mut self, folder: &Path) -> Result<(), TrainError> {
        self.actor.load(folder, "actor")?;
        self.critics.load(folder, "critics")?;
        self.temperature.load(folder, "temperature")
    }
}

/// Trains into a run folder, from its checkpoint if it has one.
///
/// # Errors
/// See [`crate::train`].
pub fn train(job: Job<'_>, config: &SacConfig) -> Result<Ending, TrainError> {
    let shape = config.actor(job.settings);
    off_policy::train(job, &config.replay, shape.clone(), |device, random| Sac::new(config, &shape, device, random))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn log_probabilities_are_those_of_the_squashed_draws() {
        // Weights 0, so that the biases are mean and ln σ whatever the state.
        let shape = ActorConfig { hidden: Vec::new(), head: Head::SquashedGaussian, ..ActorConfig::new(1) };
        let (mean, deviation) = ([0.4f64, -1.5], [0.5f64, 0.9]);
        let bias = vec![mean[0], mean[1], deviation[0].ln(), deviation[1].ln()];
        let bias: Vec<f32> = bias.into_iter().map(|v| v as f32).collect();
        let actor = Actor::from_values(&shape, vec![(vec![0.0; 7 * 4], bias)], &Device::flex());
        let features = rows(&[0.3; 7 * 50], 7, &Device::flex());
        let (actions, log_probs) = draw(&actor, features, &mut Random::seed_from_u64(1));
        for (action, log_prob) in host(actions).chunks(2).zip(host(log_probs)) {
            let mut want = 0.0;
            for ((action, mean), deviation) in action.iter().zip(mean).zip(deviation) {
                let y = 2.0 * f64::from(*action) - 1.0;
                let z = (y.atanh() - mean) / deviation;
                want += -0.5 * z * z - deviation.ln() - 0.5 * std::f64::consts::TAU.ln() - (1.0 - y * y).ln();
            }
            assert!((f64::from(log_prob) - want).abs() < 1e-3 * (1.0 + want.abs()), "{log_prob} instead of {want}");
        }
    }
}
