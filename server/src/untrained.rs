//! A policy that nobody has trained, for tests of what takes policy files.
#![allow(clippy::unwrap_used)]

use burn::tensor::Device;
use policy::file::{self, PolicyHeader};
use policy::{ActionMap, ActorConfig};

/// The file of one for one number of users; random weights, the same every time.
pub fn policy(users: usize) -> Vec<u8> {
    let device = Device::flex();
    device.seed(7);
    let config = ActorConfig { hidden: vec![16], ..ActorConfig::new(users) };
    let actor = config.init(&device);
    let (shape, action_map, algo) = (config.into(), ActionMap::EqualReceived, "ppo".to_owned());
    file::to_bytes(&PolicyHeader { shape, action_map, algo, seed: 1, steps: 0 }, &actor.into()).unwrap()
}
