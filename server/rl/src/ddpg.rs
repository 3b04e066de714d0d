//! DDPG: deep deterministic policy gradient (Lillicrap et al. 2016), readable from top to bottom.

use std::path::Path;

use burn::module::Module;
use burn::optim::decay::WeightDecayConfig;
use burn::tensor::{Device, Tensor};
use policy::{Activation, Actor, ActorConfig, Head};
use rand_distr::{Distribution, StandardNormal};

use super::checkpoint::{read_state, write_state};
use super::error::TrainError;
use super::hyper::{
    HyperParameters, activation, below, hyper_parameters, learning_rate, optional_layers, over_zero, part, within,
};
use super::nets::{Critic, fan_in, host, mse};
use super::off_policy::{self, Algorithm, Means, Random, WithTarget, adam};
use super::replay::{Batch, ReplayConfig};
use super::session::Job;
use super::settings::RunSettings;
use super::stop::Ending;

/// Bound of the head's first weights (section 7): the first actions are in the middle of the range.
const HEAD_BOUND: f32 = 3e-3;

hyper_parameters! {
    /// Hyper-parameters; the original paper's (its section 7), nets as wide as the MEC paper's, and the actions enter the
    /// critic with the state. Noise is in units of the actions' range [0, 1], half of the original's for [−1, 1].
    pub struct DdpgConfig, fits DdpgConfig::replay_fits => {
        /// Discount γ.
        gamma: f32 = 0.99 => below(0.0, 1.0);
        /// Share τ by which the targets move at every step.
        tau: f32 = 0.001 => over_zero(1.0);
        /// Learning rate of the actor.
        actor_rate: f64 = 1e-4 => learning_rate();
        /// Learning rate of the critic.
        critic_rate: f64 = 1e-3 => learning_rate();
        /// Weight of the critic's L2 penalty.
        critic_decay: f32 = 0.01 => within(0.0, 1000.0);
        /// σ of the Ornstein-Uhlenbeck noise `x' = x − θx + σ·N(0, 1)` that explores.
        noise_sigma: f32 = 0.1 => within(0.0, 1.0);
        /// θ of that noise: 1 makes it independent from slot to slot.
        noise_theta: f32 = 0.15 => within(0.0, 1.0);
        /// Units of the hidden layers of actor and critic.
        hidden: Vec<usize> = vec![256, 256] => optional_layers(), "units";
        /// Nonlinearity.
        activation: Activation = Activation::Relu => activation();
        /// Collecting and replaying.
        replay: ReplayConfig =
            ReplayConfig { batch: 64, warm_up: 64, ..ReplayConfig::default() } => part::<ReplayConfig>();
    }
}

impl DdpgConfig {
    /// What works on the default system, where no action moves the state: no discounting of what follows, since nothing
    /// does; noise without memory; no penalty on the critic; a faster actor.
    pub fn tuned() -> Self {
        Self { gamma: 0.0, actor_rate: 3e-4, critic_decay: 0.0, noise_theta: 1.0, ..Self::default() }
    }

    fn replay_fits(&self) -> Result<(), String> {
        self.replay.fits_together()
    }

    /// Shape of the policy network.
    pub fn actor(&self, settings: &RunSettings) -> ActorConfig {
        settings.actor(&self.hidden, self.activation, Head::Deterministic)
    }
}

struct Ddpg<'a> {
    config: &'a DdpgConfig,
    actor: WithTarget<Actor>,
    critic: WithTarget<Critic>,
    /// State of the noise, `[envs, actions]`.
    noise: Vec<f32>,
    actions: usize,
}

impl<'a> Ddpg<'a> {
    fn new(config: &'a DdpgConfig, shape: &ActorConfig, envs: usize, device: &Device, random: &mut Random) -> Self {
        let actor = Actor::from_values(shape, fan_in(&shape.layers(), Some(HEAD_BOUND), random), device);
        let critic = Critic::fan_in(shape.inputs() + shape.actions(), &config.hidden, device, random);
        let decay = (config.critic_decay > 0.0).then(|| WeightDecayConfig::new(config.critic_decay));
        let critic_optimiser = adam().with_weight_decay(decay).init();
        Self {
            config,
            actor: WithTarget::new(actor, adam().init(), config.actor_rate),
            critic: WithTarget::new(critic, critic_optimiser, config.critic_rate),
            noise: vec![0.0; envs * shape.actions()],
            actions: shape.actions(),
        }
    }

    /// The critic's targets, `[batch]`: `r + γ Q'(s', π'(s'))`.
    fn targets(&self, rewards: Tensor<1>, next: Tensor<2>) -> Tensor<1> {
        if self.config.gamma == 0.0 {
            return rewards;
        }
        let action = self.actor.target.action(next.clone()); // [batch, actions]
        rewards + self.critic.target.of_action(next, action, self.config.activation).mul_scalar(self.config.gamma)
    }
}

impl Algorithm for Ddpg<'_> {
    fn explore(&mut self, features: Tensor<2>, random: &mut Random) -> Vec<f32> {
        let mut actions = host(self.actor().action(features));
        for (action, noise) in actions.iter_mut().zip(&mut self.noise) {
            let fresh: f32 = StandardNormal.sample(random);
            *noise += self.config.noise_sigma * fresh - self.config.noise_theta * *noise;
            *action = (*action + *noise).clamp(0.0, 1.0);
        }
        actions
    }

    fn begin_episode(&mut self, env: usize) {
        self.noise[env * self.actions..(env + 1) * self.actions].fill(0.0);
    }

    fn learn(&mut self, _number: u64, batch: Batch, _random: &mut Random, means: &mut Means) {
        let activation = self.config.activation;
        let Batch { features, actions, rewards, next_features } = batch;
        let target = Tensor::from_inner(self.targets(rewards, next_features));
        let (features, actions) = (Tensor::from_inner(features), Tensor::from_inner(actions));
        let value = self.critic.online.net.of_action(features.clone(), actions, activation);
        means.add("qf_values", value.clone().mean().into_scalar());
        let loss = mse(value, target);
        means.add("qf_loss", loss.clone().into_scalar());
        self.critic.online.descend(loss);

        let action = self.actor.online.net.action(features.clone());
        let value = self.critic.online.net.clone().no_grad().of_action(features, action, activation);
        let loss = value.mean().neg();
        means.add("actor_loss", loss.clone().into_scalar());
        self.actor.online.descend(loss);
        if self.config.gamma > 0.0 {
            self.actor.follow(self.config.tau);
            self.critic.follow(self.config.tau);
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
        self.critic.save(folder, "critic")?;
        write_state(&folder.join("noise.cbor"), &self.noise)
    }

    fn load(&mut self, folder: &Path) -> Result<(), TrainError> {
        self.actor.load(folder, "actor")?;
        self.critic.load(folder, "critic")?;
        let path = folder.join("noise.cbor");
        let noise: Vec<f32> = read_state(&path)?;
        if noise.len() != self.noise.len() {
            let problem = format!("noise of {} actions instead of {}", noise.len(), self.noise.len());
            return Err(TrainError::damaged(&path, problem));
        }
        self.noise = noise;
        Ok(())
    }
}

/// Trains into a run folder, from its checkpoint if it has one.
///
/// # Errors
/// See [`crate::train`].
pub fn train(job: Job<'_>, config: &DdpgConfig) -> Result<Ending, TrainError> {
    let (shape, envs) = (config.actor(job.settings), job.settings.envs);
    off_policy::train(job, &config.replay, shape.clone(), |device, random| {
        Ddpg::new(config, &shape, envs, device, random)
    })
}
