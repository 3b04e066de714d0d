//! The language-model engine: from the bytes of a model file to streamed text, on WebGPU or on the CPU.
//!
//! | module | holds |
//! | --- | --- |
//! | [`gguf`], [`safetensors`] | the file formats, read so that hostile files end in an error |
//! | [`config`], [`weights`] | a model's sizes and its tensors, checked against each other |
//! | [`assemble`] | from a file's metadata and tensors to those, whatever its family and format |
//! | `names` | what tensors are called in each format |
//! | [`parts`], [`source`], [`files`] | tensors in pieces, from files that are larger than this memory |
//! | `disk` | natively: a model file on disk, read in pieces |
//! | [`quant`] | ggml's block formats, bit for bit |
//! | [`tokenizer`], [`template`] | text to tokens and back; conversations to text |
//! | [`prompt`] | what the model goes on after, and which texts in it may be control tokens |
//! | [`sampler`], [`generate`] | choosing tokens; what generation takes and returns |
//! | [`continuation`] | one answer while it is written, whoever computes it |
//! | [`backend`], [`preconditions`] | the traits that both devices implement, for one sequence or several at once; what each of them checks first |
//! | [`one_by_one`] | several sequences on a backend that computes one at a time |
//! | [`cpu`] | the `cpu-kernels` crate as a backend, in the page and on the server |
//! | `candle` | natively, through candle: models that those kernels do not hold |
//! | [`gpu`] | our own kernels on WebGPU |
//! | [`reference`] | the forward pass in plain single precision: the oracle of the tests |
//! | [`checks`] | both backends against the oracle and the golden answers, natively and in a browser |
//! | [`synthetic`] | random models of any shape, for tests and benches |
//! | [`yielding`] | letting other tasks of the thread run between tokens |
//! | [`engine`] | all of it joined: [`Engine`] |
//! | [`together`] | several answers at the same time over one engine's weights |
//!
//! A token's way: [`Engine::generate`] renders the conversation, encodes it, brings the backend's KV cache to the prompt
//! (keeping the common beginning), then asks for one token after the other.
//!
//! Deliberately absent: downloading, storage and messages (the worker's), and any clock or random source of its own: the
//! caller passes time and seed.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests read checkpoints from disk"))]

pub mod assemble;
pub mod backend;
#[cfg(feature = "candle")]
pub mod candle;
#[cfg(all(feature = "cpu", feature = "gpu"))]
pub mod checks;
pub mod config;
pub mod continuation;
#[cfg(feature = "cpu")]
pub mod cpu;
#[cfg(not(target_arch = "wasm32"))]
pub mod disk;
pub mod engine;
pub mod error;
#[cfg(test)]
#[cfg(feature = "cpu")]
mod family_tests;
pub mod files;
pub mod generate;
pub mod gguf;
// On wasm32 a GPU handle stays on its thread; natively the same `Arc` is shared between threads.
#[cfg_attr(target_arch = "wasm32", allow(clippy::arc_with_non_send_sync))]
#[cfg(feature = "gpu")]
pub mod gpu;
mod names;
pub mod one_by_one;
pub mod parts;
pub mod preconditions;
pub mod prompt;
pub mod quant;
pub mod reference;
pub mod safetensors;
pub mod sampler;
pub mod source;
pub mod synthetic;
pub mod template;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod together;
pub mod tokenizer;
pub mod weights;
pub mod yielding;

pub use engine::{ChatTokenizer, Engine, ModelInfo};
pub use error::EngineError;
pub use generate::{ChatMessage, FinishReason, GenerationStats, SamplingOptions, TokenEvent};
pub use prompt::Prompt;
pub use together::Together;
pub use tokenizer::Tokenizer;
pub use yielding::YieldNow;

#[cfg(all(target_arch = "wasm32", feature = "browser"))]
pub mod event_loop;
