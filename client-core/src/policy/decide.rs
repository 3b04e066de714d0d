//! A policy that is ready to decide.

use burn::tensor::{Device, Tensor, TensorData};

use super::actor::Actor;
use super::file::{self, PolicyError, PolicyHeader};
use super::spaces::{self, ACTIONS_PER_USER, FEATURES_PER_USER};
use crate::mec::{Physics, UserDecision, UserObservation};

/// A network on a device, with the header that says what it is for.
#[derive(Debug)]
pub struct Policy {
    header: PolicyHeader,
    actor: Actor,
    device: Device,
}

impl Policy {
    /// Loads a policy file onto a device.
    ///
    /// # Errors
    /// When the file is damaged, of another version, or not what its header promises.
    pub fn load(bytes: &[u8], device: &Device) -> Result<Self, PolicyError> {
        let (header, actor) = file::from_bytes(bytes, device)?;
        Ok(Self { header, actor, device: device.clone() })
    }

    /// A policy from a network that is at hand already, such as one under training.
    pub fn new(header: PolicyHeader, actor: Actor, device: &Device) -> Self {
        Self { header, actor, device: device.clone() }
    }

    /// What the policy is for.
    pub fn header(&self) -> &PolicyHeader {
        &self.header
    }

    /// Users that it decides for.
    pub fn users(&self) -> usize {
        self.header.config.users
    }

    /// Decides a slot, one observation and one decision a user. Equal observations give equal decisions.
    ///
    /// # Errors
    /// When the number of users is not the one it was trained for, or the device fails.
    pub async fn decide(&self, physics: &Physics, seen: &[UserObservation]) -> Result<Vec<UserDecision>, PolicyError> {
        if seen.len() != self.users() {
            return Err(PolicyError::Users { trained: self.users(), present: seen.len() });
        }
        self.decide_many(physics, seen).await
    }

    /// Decides many slots at once: observations slot after slot, decisions in the same order.
    ///
    /// # Errors
    /// When the number of observations is no multiple of the users, or the device fails.
    pub async fn decide_many(
        &self,
        physics: &Physics,
        seen: &[UserObservation],
    ) -> Result<Vec<UserDecision>, PolicyError> {
        let users = self.users();
        if !seen.len().is_multiple_of(users) {
            return Err(PolicyError::Users { trained: users, present: seen.len() % users });
        }
        let batch = seen.len() / users;
        let mut features = vec![0.0; seen.len() * FEATURES_PER_USER];
        spaces::features(physics, seen, &mut features);
        let input = TensorData::new(features, [batch, users * FEATURES_PER_USER]);
        let actions = self.actor.action(Tensor::from_data(input, &self.device)); // [batch, actions]
        let failed = |e: String| PolicyError::Device(e);
        let actions = actions.into_data_async().await.map_err(|e| failed(e.to_string()))?;
        let actions = actions.try_into_vec_as::<f32>().map_err(|e| failed(format!("{e:?}")))?;
        let mut decisions = vec![UserDecision::default(); seen.len()];
        let rows = seen.chunks(users).zip(actions.chunks(users * ACTIONS_PER_USER)).zip(decisions.chunks_mut(users));
        for ((seen, actions), out) in rows {
            self.header.action_map.decisions(physics, seen, actions, out);
        }
        Ok(decisions)
    }
}
