//! The browser's side of the crate: what the workers are made of. Only here are browser APIs touched.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`clock`] | performance.now and timers as a [`Clock`](crate::offload::ports::Clock) |
//! | [`checkpoint`] | the files of a safetensors checkpoint, each wherever it lies |
//! | [`fetch`] | requests that are cancelled by dropping them |
//! | `kernels` | the CPU forward pass as a module of its own, in the best build that the browser runs |
//! | [`message`] | posting and receiving serde values, errors in words |
//! | [`file`] | a model's file or files, read piece by piece wherever they lie |
//! | [`shelf`] | model files in the origin private file system |
//! | [`transport`] | the server's API over fetch |
//! | `worker` | the engine worker: commands in, events out |
//! | [`policy_link`] | the messages between the engine worker and the policy's workers |
//! | `policy_worker` | those workers, on burn flex and on burn-wgpu |
//!
//! Deliberately absent: decisions. What can be decided without a browser is in `offload`, `download` and `cell`, where it
//! is tested natively.

#[cfg(feature = "llm")]
pub mod checkpoint;
pub mod clock;
pub mod fetch;
#[cfg(feature = "llm")]
pub mod file;
#[cfg(feature = "llm-cpu")]
pub mod kernels;
pub mod message;
pub mod policy_link;
#[cfg(any(feature = "policy-cpu", feature = "policy-gpu"))]
pub mod policy_worker;
pub mod shelf;
pub mod transport;
#[cfg(all(feature = "llm-cpu", feature = "llm-gpu"))]
pub mod worker;
