//! The policy for every world: one network for any number of users that is told which system it decides in.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `belief` | what the last slot tells of this one's quality, exactly, and what a decision is worth by it |
//! | `features` | the network's input: ratios of times, energies and gaps to limits, without units |
//! | `proposal` | the network's output: several proposals of powers, made whole decisions, of which the best is taken |
//!
//! The network learns what has no closed form: who sends how loud, how much softer where energy binds, and how far over
//! the limits it pays to aim while this slot's quality is hidden. What has one is computed: for given powers the best
//! ratios are a linear programme ([`mec::RatioSolver`]), and the difficulty follows from what was seen of the last slot. So the
//! network proposes, arithmetic completes each proposal and says what it is worth by the belief, and the best is decided, after a
//! short search about it (each user silenced or let in, each number a step up or down, where that is worth more).
//! Four decisions without any learning are among the candidates: nobody sends, everybody is received equally loud (at two
//! margins), everybody sends as loud as possible. Of the best one, those who offload nothing are silenced, and the ratios of the others found once
//! more. Without a network the policy is the best of the four; by its own belief it is never worse than the closed form.
//!
//! Everything is a symmetric function of the users, so they can join and leave.

mod belief;
mod features;
mod proposal;

pub use belief::Belief;
pub use features::{WORLD_FEATURES_PER_USER, features};
pub use proposal::{Outlook, PROPOSAL_OUTPUTS, Proposal};

use burn::tensor::Device;

use super::activation::Activation;
use super::set::{LayerValues, SetActor, layers};

/// Sizes of the network, which is a [`SetActor`].
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct WorldConfig {
    /// Largest number of users; it decides for any from 1 on.
    pub most_users: usize,
    /// Units of the encoder's layers, each with the activation behind it.
    pub encoder: Vec<usize>,
    /// Units of the head's hidden layers.
    pub head: Vec<usize>,
    /// Nonlinearity.
    pub activation: Activation,
    /// Proposals of the network in each slot.
    pub proposals: usize,
}

impl WorldConfig {
    /// Inputs and outputs of each layer of the encoder.
    pub fn encoder_layers(&self) -> Vec<[usize; 2]> {
        layers(WORLD_FEATURES_PER_USER, &self.encoder, None)
    }

    /// Inputs and outputs of each layer of the head.
    pub fn head_layers(&self) -> Vec<[usize; 2]> {
        let code = self.encoder.last().copied().unwrap_or(WORLD_FEATURES_PER_USER);
        layers(3 * code, &self.head, Some(self.outputs()))
    }

    /// Builds the network from the values of its encoder's and its head's layers.
    pub fn actor(&self, values: [Vec<LayerValues>; 2], device: &Device) -> SetActor {
        SetActor::from_layers([self.encoder_layers(), self.head_layers()], self.activation, values, device)
    }

    /// Numbers that the network gives a user.
    pub fn outputs(&self) -> usize {
        PROPOSAL_OUTPUTS * self.proposals
    }
}
