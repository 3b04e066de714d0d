//! Everything that Tandem's page and server share, under one name for programs that want all of it. Each part is a crate
//! of its own, which builds and tests alone:
//!
//! | crate | what it holds |
//! | --- | --- |
//! | [`mec`] | the simulator: channel, tasks, quality, cost, the per-slot optimum |
//! | [`policy`] | the offloading policy: observation and action spaces, networks, policy files |
//! | `engine` | the language-model engine: GGUF, tokenizer, sampling, CPU and WebGPU backends |
//! | `cpu-kernels` | the engine's forward pass on a CPU, natively and as a wasm module of its own |
//! | [`client`] | one task on two machines: wire types, split, download, verdict, the cell's view |
//! | `worker` | the browser's web workers |
//!
//! Deliberately absent: any code.

pub use client;
#[cfg(feature = "engine")]
pub use engine;
pub use mec;
pub use policy;
