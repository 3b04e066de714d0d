//! TD3: twin delayed deep deterministic policy gradient (Fujimoto, van Hoof, Meger 2018), readable from top to bottom.
//!
//! What it adds to DDPG: the lower of two critics as target, noise on the target's action, and an actor that moves less
//! often than its critics.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use policy::{Activation, Actor, ActorConfig, Head};
use rand_distr::{Distribution, StandardNormal};

use super::error::TrainError;
use super::hyper::{
    HyperParameters, activation, below, hyper_parameters, learning_rate, optional_layers, over_zero, part, whole,
    within,
};
use super::nets::{TwinCritic, fan_in, host, rows};
use super::off_policy::{self, Algorithm, Means, Random, WithTarget, adam};
use super::replay::{Batch, ReplayConfig};
use super::session::Job;
use super::settings::RunSettings;
use super::stop::Ending;

hyper_parameters! {
    /// Hyper-parameters; the original paper's (its appendix C), nets as wide as the MEC paper's. Noise is in units of the
    /// actions' range [0, 1], half of the original's for [−1, 1].
    pub struct Td3Config, fits Td3Config::replay_fits => {
        /// Discount γ.
        gamma: f32 = 0.99 => below(0.0, 1.0);
        /// Share τ by which the targets move at an update of the actor.
        tau: f32 = 0.005 => over_zero(1.0);
        /// Learning rate of the actor.
        actor_rate: f64 = 1e-3 => learning_rate();
        /// Learning rate of the critics.
        critic_rate: f64 = 1e-3 => learning_rate();
        /// Standard deviation of the Gaussian noise that explores, of the actions' range.
        exploration: f32 = 0.05 => within(0.0, 1.0);
        /// Standard deviation of the noise on the target's action, of the actions' range.
        target_noise: f32 = 0.1 => within(0.0, 1.0);
        /// That noise is cut off here.
        target_noise_limit: f32 = 0.25 => within(0.0, 1.0);
        /// Steps of the critics for each of actor and targets.
        policy_delay: u64 = 2 => whole(1, 64);
        /// Units of the hidden layers of actor and critics.
        hidden: Vec<usize> = vec![256, 256] => optional_layers(), "units";
        /// Nonlinearity.
        activation: Activation = Activation::Relu => activation();
        /// Collecting and replaying.
        replay: ReplayConfig = ReplayConfig { batch: 100, ..ReplayConfig::default() } => part::<ReplayConfig>();
    }
}

impl Td3Config {
    /// What works on the default system, where no action moves the state: no discounting of what follows, since nothing
    /// does; an actor slower than its critics, or it runs into the flat ends of tanh before they know the task; more noise.
    pub fn tuned() -> Self {
        Self { gamma: 0.0, actor_rate: 3e-4, exploration: 0.1, ..Self::default() }
    }

    fn replay_fits(&self) -> Result<(), String> {
        self.replay.fits_together()
    }

    /// Shape of the policy network.
    pub fn actor(&self, settings: &RunSettings) -> ActorConfig {
        settings.actor(&self.hidden, self.activation, Head::Deterministic)
    }
}

struct Td3<'a> {
    config: &'a Td3Config,
    actor: WithTarget<Actor>,
    critics: WithTarget<TwinCritic>,
}

impl<'a> Td3<'a> {
    fn new(config: &'a Td3Config, shape: &ActorConfig, device: &Device, random: &mut Random) -> Self {
        let actor = Actor::from_values(shape, fan_in(&shape.layers(), None, random), device);
        let critics = TwinCritic::fan_in(shape.inputs() + shape.actions(), &config.hidden, device, random);
        Self {
            config,
            actor: WithTarget::new(actor, adam().init(), config.actor_rate),
            critics: WithTarget::new(critics, adam().init(), config.critic_rate),
        }
    }

    /// The critics' targets, `[batch]`: `r + γ min Q'(s', π'(s') + noise)`.
    fn targets(&self, rewards: Tensor<1>, next: Tensor<2>, random: &mut Random) -> Tensor<1> {
        let config = self.config;
        if config.gamma == 0.0 {
            return rewards;
        }
        let action = self.actor.target.action(next.clone()); // [batch, actions]
        let [batch, width] = action.dims();
        let limit = config.target_noise_limit;
        let noise: Vec<f32> =
            (0..batch * width).map(|_| (config.target_noise * gaussian(random)).clamp(-limit, limit)).collect();
        let action = (action + rows(&noise, width, &next.device())).clamp(0.0, 1.0);
        rewards + self.critics.target.lower(next, action, config.activation).mul_scalar(config.gamma)
    }
}

fn gaussian(random: &mut Random) -> f32 {
    StandardNormal.sample(random)
}

impl Algorithm for Td3<'_> {
    fn explore(&mut self, features: Tensor<2>, random: &mut Random) -> Vec<f32> {
        let mut actions = host(self.actor().action(features));
        for action in &mut actions {
            *action = (*action + self.config.exploration * gaussian(random)).clamp(0.0, 1.0);
        }
        actions
    }

    fn learn(&mut self, number: u64, batch: Batch, random: &mut Random, means: &mut Means) {
        let activation = self.config.activation;
        let Batch { features, actions, rewards, next_features } = batch;
        let target = Tensor::from_inner(self.targets(rewards, next_features, random));
        let (features, actions) = (Tensor::from_inner(features), Tensor::from_inner(actions));
        self.critics.online.regress(features.clone(), actions, target, activation, means);

        if !(number + 1).is_multiple_of(self.config.policy_delay) {
            return;
        }
        let action = self.actor.online.net.action(features.clone());
        let value = self.critics.online.net.first_fixed().of_action(features, action, activation);
        let loss = value.mean().neg();
        means.add("actor_loss", loss.clone().into_scalar());
        self.actor.online.descend(loss);
        if self.config.gamma > 0.0 {
            self.actor.follow(self.config.tau);
            self.critics.follow(self.config.tau);
        }
    }

    fn actor(&self) -> Actor {
        self.actor.online.net.valid()
    }

    fn learning_rate(&self) -> f64 {
        self.config.actor_rate
    }

    fn save(&self, folder: &Path) -> Result<(), TrainError> {
        self.actor.save(folder, "actor")?;
        self.critics.save(folder, "critics")
    }

    fn load(&mut self, folder: &Path) -> Result<(), TrainError> {
        self.actor.load(folder, "actor")?;
        self.critics.load(folder, "critics")
    }
}

/// Trains into a run folder, from its checkpoint if it has one.
///
/// # Errors
/// See [`crate::train`].
pub fn train(job: Job<'_>, config: &Td3Config) -> Result<Ending, TrainError> {
    let shape = config.actor(job.settings);
    off_policy::train(job, &config.replay, shape.clone(), |device, random| Td3::new(config, &shape, device, random))
}
