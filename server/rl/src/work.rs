//! What a run asks of a machine at once, estimated from its hyper-parameters: a range holds for each of them alone, while the
//! work of a gradient step and the memory grow with their product.
//!
//! Counted are the products of matrices, 2 operations for each weight and row forwards and 4 backwards, and the largest arrays.
//! How long a whole run takes is for whoever has a clock to say.

use policy::set::SET_FEATURES_PER_USER;
use policy::world::WORLD_FEATURES_PER_USER;
use policy::{ACTIONS_PER_USER, ActorConfig};

use super::config::{Algo, TrainConfig};
use super::ppo::PpoConfig;
use super::replay::ReplayConfig;
use super::wm_ppo::{Imaginer, WmPpoConfig};

/// Operations for each weight and row, forwards.
const FORWARD: f64 = 2.0;
/// The same with the way back.
const BOTH_WAYS: f64 = 6.0;
/// Bytes of a number.
const BYTES: f64 = 4.0;

/// What a run asks of a machine, about.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ComputeCost {
    /// Floating-point operations of a gradient step, between which a run can be stopped.
    pub step_flop: f64,
    /// Bytes of what is remembered and worked on.
    pub memory_bytes: f64,
}

/// Weights of a perceptron.
fn weights(inputs: usize, hidden: &[usize], outputs: usize) -> f64 {
    let sizes: Vec<usize> = [inputs].iter().chain(hidden).chain(&[outputs]).copied().collect();
    sizes.windows(2).map(|pair| pair[0] as f64 * pair[1] as f64).sum()
}

impl TrainConfig {
    /// What the run asks of a machine.
    pub fn work(&self) -> ComputeCost {
        match self.algo {
            Algo::Ppo => self.of_ppo(&self.ppo),
            Algo::PpoLagrangian => self.of_ppo(&self.ppo_lagrangian.ppo),
            Algo::WmPpo | Algo::WmPpoMended => self.of_wm_ppo(&self.wm_ppo),
            // One actor and one or two critics, each with its target.
            Algo::Td3 => self.of_off_policy(&self.td3.replay, &self.td3.hidden, 2.0),
            Algo::Ddpg => self.of_off_policy(&self.ddpg.replay, &self.ddpg.hidden, 1.0),
            Algo::Sac => self.of_off_policy(&self.sac.replay, &self.sac.hidden, 2.0),
            Algo::SetDpg => self.of_set_dpg(),
            Algo::SetAscent => self.of_set_ascent(),
        }
    }

    /// Inputs and actions of the networks for one number of users.
    fn widths(&self) -> (usize, usize) {
        let shape = ActorConfig { sees: self.sees, ..ActorConfig::new(self.mec.users) };
        (shape.inputs(), shape.actions())
    }

    fn of_ppo(&self, ppo: &PpoConfig) -> ComputeCost {
        let (inputs, actions) = self.widths();
        let both = weights(inputs, &ppo.hidden, 2 * actions) + weights(inputs, &ppo.hidden, 1);
        let rows = self.envs as f64 * ppo.rollout_steps as f64;
        let minibatch = rows.min(ppo.minibatch as f64);
        ComputeCost {
            step_flop: BOTH_WAYS * both * minibatch,
            // A rollout, its copy in rows to learn from, and the activations of a pass.
            memory_bytes: BYTES * rows * (3 * inputs + 3 * actions + 16) as f64,
        }
    }

    fn of_wm_ppo(&self, wm: &WmPpoConfig) -> ComputeCost {
        let (inputs, actions) = self.widths();
        let ppo = &wm.ppo;
        let base = self.of_ppo(ppo);
        let both = weights(inputs, &ppo.hidden, 2 * actions) + weights(inputs, &ppo.hidden, 1);
        let rows = self.envs as f64 * ppo.rollout_steps as f64;
        let imagined = if wm.imagination > 0.0 { (wm.starts * wm.horizon) as f64 } else { 0.0 };
        let (model_flop, lived_row, remembered) = match wm.imaginer {
            Imaginer::Recurrent => {
                let m = &wm.model;
                let (h, z, u) = (m.deterministic, m.stochastic, m.hidden);
                let gru = weights(z + actions, &[], 3 * h) + weights(h, &[], 3 * h);
                let of_state = weights(h, &[u], 2 * z) + weights(h + u, &[u], 2 * z) + weights(h + z, &[u], inputs + 2);
                let model = gru + of_state + weights(inputs, &[], u);
                (BOTH_WAYS * model * m.sequences as f64 * m.length as f64, 2 * h + z + 3 * u, m.memory)
            }
            Imaginer::Ensemble => {
                let e = &wm.ensemble;
                let model = weights(e.history * inputs + actions, &e.hidden, inputs + 1);
                let widest = e.hidden.iter().max().copied().unwrap_or_default();
                (BOTH_WAYS * model * e.batch as f64, e.history * inputs + widest, e.memory)
            }
        };
        let parts = (rows / ppo.minibatch as f64).ceil().max(1.0);
        let remembered = (remembered as f64).min(self.steps as f64);
        ComputeCost {
            step_flop: model_flop.max(base.step_flop + BOTH_WAYS * both * imagined / parts),
            memory_bytes: base.memory_bytes
                + BYTES * rows * lived_row as f64
                + BYTES * remembered * (inputs + actions + 1) as f64
                + BYTES * imagined * (2 * inputs + 2 * actions + 8) as f64,
        }
    }

    fn of_off_policy(&self, replay: &ReplayConfig, hidden: &[usize], critics: f64) -> ComputeCost {
        let (inputs, actions) = self.widths();
        let (actor, critic) = (weights(inputs, hidden, 2 * actions), weights(inputs + actions, hidden, 1));
        // The critics learn, their targets are asked, and the actor learns through a critic.
        let step = BOTH_WAYS * (actor + (critics + 1.0) * critic) + FORWARD * (actor + critics * critic);
        let rows = (replay.capacity as f64).min(self.steps as f64);
        ComputeCost {
            step_flop: step * replay.batch as f64,
            memory_bytes: BYTES * rows * (2 * inputs + actions + 1) as f64,
        }
    }

    fn of_set_ascent(&self) -> ComputeCost {
        let ascent = &self.set_ascent;
        let shape = ascent.shape(self.mec.users);
        let all: f64 = shape.encoder_layers().iter().chain(&shape.head_layers()).map(|[i, o]| (i * o) as f64).sum();
        let rows = ascent.batch as f64 * (self.mec.users as f64 + 1.0) / 2.0;
        // Completing a proposal takes about 2,000 operations a user, and each output is moved both ways.
        let quotients = 2.0 * shape.outputs() as f64 * (self.mec.users as f64 + 3.0) / 4.0 * 2000.0;
        let widest = ascent.encoder.iter().chain(&ascent.head).sum::<usize>() + WORLD_FEATURES_PER_USER;
        ComputeCost {
            step_flop: rows * (BOTH_WAYS * all + quotients),
            memory_bytes: BYTES * rows * 4.0 * widest as f64 + ascent.batch as f64 * 8e3,
        }
    }

    fn of_set_dpg(&self) -> ComputeCost {
        let dpg = &self.set_dpg;
        let replay = &dpg.replay;
        let net = |inputs: usize, encoder: &[usize], head: &[usize], outputs: usize| {
            let pooled = encoder.last().copied().unwrap_or_default();
            let encoder = weights(inputs, encoder.split_last().map_or(&[][..], |(_, rest)| rest), pooled);
            // A user's head sees its own features and what all encoders say together.
            encoder + weights(inputs + 2 * pooled, head, outputs)
        };
        let actor = net(SET_FEATURES_PER_USER, &dpg.encoder, &dpg.head, ACTIONS_PER_USER);
        let critic = net(SET_FEATURES_PER_USER + ACTIONS_PER_USER, &dpg.critic_encoder, &dpg.critic_head, 1);
        let counts = self.mec.users as f64;
        // Users of a slot of each number of users.
        let users = counts * (counts + 1.0) / 2.0;
        let kept = (replay.capacity as f64).min(self.steps as f64 / counts);
        ComputeCost {
            step_flop: BOTH_WAYS * (actor + 2.0 * critic) * users * replay.batch as f64,
            memory_bytes: BYTES * kept * users * (2 * SET_FEATURES_PER_USER + ACTIONS_PER_USER + 1) as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use mec::MecParams;

    use super::*;
    use crate::config::Preset;

    #[test]
    fn every_preset_is_light() {
        for algo in Algo::ALL {
            for preset in Preset::ALL {
                let config = TrainConfig::preset(algo, preset, MecParams::with_users(10));
                let work = config.work();
                assert!(work.step_flop > 1e5 && work.step_flop < 2e9, "{}: {work:?}", algo.name());
                assert!(work.memory_bytes > 1e4 && work.memory_bytes < 1e9, "{}: {work:?}", algo.name());
            }
        }
    }

    #[test]
    fn ppos_work_by_hand() {
        let mut config = TrainConfig::preset(Algo::Ppo, Preset::Tuned, MecParams::with_users(1));
        let (inputs, actions) = config.widths();
        config.ppo.hidden = vec![10];
        (config.envs, config.ppo.rollout_steps, config.ppo.epochs, config.ppo.minibatch) = (2, 5, 3, 4);
        let both = (10 * (inputs + 2 * actions) + 10 * (inputs + 1)) as f64;
        let work = config.work();
        assert_eq!(work.step_flop, 6.0 * both * 4.0);
        // Each within its range, and too much together.
        let heavy = PpoConfig { hidden: vec![1024; 4], minibatch: 65_536, rollout_steps: 3200, ..PpoConfig::default() };
        let heavy = TrainConfig { ppo: heavy, envs: 256, ..config };
        heavy.validate().expect("within ranges");
        let work = heavy.work();
        assert!(work.step_flop > 1e12 && work.memory_bytes > 1e8, "{work:?}");
    }
}
