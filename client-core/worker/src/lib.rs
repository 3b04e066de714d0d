//! The browser's workers: the engine's and the policy's. Of the crates below `web`, only this one touches browser APIs.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`clock`] | performance.now and timers as a [`Clock`](client::offload::ports::Clock) |
//! | [`checkpoint`] | the files of a safetensors checkpoint, each wherever it lies |
//! | [`fetch`] | requests that are cancelled by dropping them |
//! | `kernels` | the CPU forward pass as a module of its own, in the best build that the browser runs |
//! | [`message`] | posting and receiving serde values, errors in words |
//! | [`file`], [`reading`] | a model's file wherever it lies; one or many of them, read piece by piece into an engine |
//! | [`opfs`] | model files in the origin private file system |
//! | [`transport`] | the server's API over fetch |
//! | `engine_worker` | the engine worker: commands in, events out |
//! | [`policy_link`] | the messages between the engine worker and the policy's workers |
//! | `policy_worker` | those workers, on burn flex and on burn-wgpu |
//!
//! Deliberately absent: decisions. What can be decided without a browser is in `client`, where it is tested natively.

#![cfg(target_arch = "wasm32")]

#[cfg(feature = "engine")]
pub mod checkpoint;
pub mod clock;
#[cfg(feature = "engine")]
pub mod engine_worker;
pub mod fetch;
#[cfg(feature = "engine")]
pub mod file;
#[cfg(feature = "engine")]
pub mod kernels;
pub mod message;
pub mod opfs;
pub mod policy_link;
#[cfg(any(feature = "policy-flex", feature = "policy-wgpu"))]
pub mod policy_worker;
#[cfg(feature = "engine")]
pub mod reading;
pub mod transport;
