//! A policy that is ready to decide.

use std::ops::RangeInclusive;

use burn::tensor::{Device, Tensor, TensorData};

use super::error::PolicyError;
use super::file::{self, Network, NetworkShape, PolicyHeader};
use super::set::{self, SET_FEATURES_PER_USER};
use super::spaces::ACTIONS_PER_USER;
use super::world::{self, Outlook, Proposal, WORLD_FEATURES_PER_USER};
use mec::{Physics, UserDecision, UserObservation};

/// A network on a device, with the header that says what it is for.
#[derive(Debug)]
pub struct Policy {
    header: PolicyHeader,
    network: Network,
    device: Device,
}

impl Policy {
    /// Loads a policy file onto a device.
    ///
    /// # Errors
    /// When the file is damaged, of another version, or not what its header promises.
    pub fn load(bytes: &[u8], device: &Device) -> Result<Self, PolicyError> {
        let (header, network) = file::from_bytes(bytes, device)?;
        Ok(Self { header, network, device: device.clone() })
    }

    /// A policy from a network that is at hand already, such as one under training.
    pub fn new(header: PolicyHeader, network: Network, device: &Device) -> Self {
        Self { header, network, device: device.clone() }
    }

    /// What the policy is for.
    pub fn header(&self) -> &PolicyHeader {
        &self.header
    }

    /// Numbers of users that it decides for: one, or all up to a largest one.
    pub fn users(&self) -> RangeInclusive<usize> {
        self.header.shape.users()
    }

    /// Decides a slot, one observation and one decision a user. Equal observations give equal decisions.
    ///
    /// # Errors
    /// When it is not for this number of users, or the device fails.
    pub async fn decide(&self, physics: &Physics, seen: &[UserObservation]) -> Result<Vec<UserDecision>, PolicyError> {
        self.decide_many(physics, seen.len(), seen).await
    }

    /// Decides many slots of `users` users each at once: observations slot after slot, decisions in the same order.
    ///
    /// # Errors
    /// When it is not for this number of users, the observations are no whole number of slots, or the device fails.
    pub async fn decide_many(
        &self,
        physics: &Physics,
        users: usize,
        seen: &[UserObservation],
    ) -> Result<Vec<UserDecision>, PolicyError> {
        let shape = &self.header.shape;
        shape.check_users(users)?;
        // What is left over of the last slot.
        let present = seen.len() % users;
        if present > 0 {
            return Err(PolicyError::Users { trained: users, present });
        }
        let slots = seen.len() / users;
        let mut outlooks = Vec::new();
        let outputs = match &self.network {
            Network::Fixed(actor) => {
                let sees = shape.sees();
                let inputs = users * sees.features_per_user();
                let mut features = vec![0.0; slots * inputs];
                for (seen, out) in seen.chunks(users).zip(features.chunks_mut(inputs)) {
                    sees.features(physics, seen, out);
                }
                let input = TensorData::new(features, [slots, inputs]);
                actor.action(Tensor::from_data(input, &self.device)) // [slots, users·actions]
            }
            Network::Set(actor) => {
                let mut features = vec![0.0; seen.len() * SET_FEATURES_PER_USER];
                for (seen, out) in seen.chunks(users).zip(features.chunks_mut(users * SET_FEATURES_PER_USER)) {
                    set::features(physics, seen, out);
                }
                let input = TensorData::new(features, [seen.len(), SET_FEATURES_PER_USER]);
                actor.action(Tensor::from_data(input, &self.device), users) // [slots·users, actions]
            }
            Network::World(actor) => {
                outlooks.extend(seen.chunks(users).map(|seen| Outlook::new(physics, seen)));
                let mut features = vec![0.0; seen.len() * WORLD_FEATURES_PER_USER];
                for (outlook, out) in outlooks.iter().zip(features.chunks_mut(users * WORLD_FEATURES_PER_USER)) {
                    world::features(physics, outlook, out);
                }
                let input = TensorData::new(features, [seen.len(), WORLD_FEATURES_PER_USER]);
                actor.action(Tensor::from_data(input, &self.device), users) // [slots·users, outputs]
            }
        };
        let failed = |e: String| PolicyError::Device(e);
        let outputs = outputs.into_data_async().await.map_err(|e| failed(e.to_string()))?;
        let outputs = outputs.try_into_vec_as::<f32>().map_err(|e| failed(format!("{e:?}")))?;
        let mut decisions = vec![UserDecision::default(); seen.len()];
        if let NetworkShape::World(config) = shape {
            let width = config.outputs();
            for ((outlook, outputs), out) in
                outlooks.iter().zip(outputs.chunks(users * width)).zip(decisions.chunks_mut(users))
            {
                let proposals = (0..config.proposals).map(|index| Proposal::read(outputs, width, index));
                outlook.decide(physics, proposals, out);
            }
            return Ok(decisions);
        }
        let rows = seen.chunks(users).zip(outputs.chunks(users * ACTIONS_PER_USER)).zip(decisions.chunks_mut(users));
        for ((seen, actions), out) in rows {
            self.header.action_map.decisions(physics, seen, actions, out);
        }
        Ok(decisions)
    }
}
