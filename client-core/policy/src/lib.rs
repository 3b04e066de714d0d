//! The offloading policy: a small network that sees what eq. (46) lets it see and decides α and p of every user.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `spaces` | observation → network input, network output → decision; every normalisation constant |
//! | `activation` | what is applied to networks' numbers one by one |
//! | `sees` | what the network for one number of users is told: the slot, or its system as well |
//! | `actor` | the network for one number of users, a burn module, the same on every burn device |
//! | `set` | the network for any number of users, likewise |
//! | `world` | the policy for any number of users that is told which system it decides in |
//! | `file` | the policy file: safetensors with a header in its metadata |
//! | [`manifest`] | `policies/manifest.json` and the golden decisions |
//! | [`error`] | what can be wrong with either |
//! | `decide` | `Policy`: load a file, decide a slot |
//!
//! Manifest and error are always there; what needs burn only with the feature `network`. The page's engine worker does without
//! it: modules of their own decide for it (`js::policy_worker`).
//!
//! burn has no backend generics: the `Device` that a policy is loaded on says where it runs, `Device::flex()` on the CPU
//! (feature `flex`) or burn-wgpu on WebGPU (feature `wgpu`). Results are read asynchronously, which is the only
//! way in a browser.
//!
//! Deliberately absent: training (the server's `rl` module), sampling (a deployed decision is the mean action, so equal
//! observations give equal decisions), and downloading.

#[cfg(feature = "network")]
pub mod activation;
#[cfg(feature = "network")]
pub mod actor;
#[cfg(feature = "network")]
pub mod decide;
pub mod error;
#[cfg(feature = "network")]
pub mod file;
pub mod manifest;
#[cfg(feature = "network")]
pub mod sees;
#[cfg(feature = "network")]
pub mod set;
#[cfg(feature = "network")]
pub mod spaces;
#[cfg(feature = "network")]
pub mod world;

#[cfg(feature = "network")]
pub use activation::Activation;
#[cfg(feature = "network")]
pub use actor::{Actor, ActorConfig, Head};
#[cfg(feature = "network")]
pub use decide::Policy;
pub use error::PolicyError;
#[cfg(feature = "network")]
pub use file::{Network, NetworkShape, PolicyHeader};
pub use manifest::{GoldenCase, GoldenDecisions, PolicyEntry, PolicyManifest, SetEntry, Shipped};
#[cfg(feature = "network")]
pub use sees::Sees;
#[cfg(feature = "network")]
pub use set::{SetActor, SetConfig};
#[cfg(feature = "network")]
pub use spaces::{ACTIONS_PER_USER, ActionMap, FEATURES_PER_USER, SPACES_VERSION};
#[cfg(feature = "network")]
pub use world::WorldConfig;
