//! The offloading policy: a small network that sees what eq. (46) lets it see and decides α and p of every user.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`spaces`] | observation → network input, network output → decision; every normalisation constant |
//! | [`actor`] | the network, a burn module, the same on every burn device |
//! | [`file`](mod@file) | the policy file: safetensors with a header in its metadata |
//! | [`manifest`] | `policies/manifest.json` and the golden decisions |
//! | [`decide`] | [`Policy`]: load a file, decide a slot |
//!
//! burn has no backend generics: the `Device` that a policy is loaded on says where it runs, `Device::flex()` on the CPU
//! (feature `policy-cpu`) or burn-wgpu on WebGPU (feature `policy-gpu`). Results are read asynchronously, which is the only
//! way in a browser.
//!
//! Deliberately absent: training (the server's `rl` module), sampling (a deployed decision is the mean action, so equal
//! observations give equal decisions), and downloading.

pub mod actor;
pub mod decide;
pub mod file;
pub mod manifest;
pub mod spaces;

pub use actor::{Activation, Actor, ActorConfig, Head};
pub use decide::Policy;
pub use file::{PolicyError, PolicyHeader};
pub use manifest::{GoldenCase, GoldenDecisions, PolicyEntry, PolicyManifest};
pub use spaces::{ACTIONS_PER_USER, ActionMap, FEATURES_PER_USER, SPACES_VERSION};
