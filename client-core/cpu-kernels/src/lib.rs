//! The CPU forward pass of decoders of the Llama kind, and nothing else: no files, no text, no sampling.
//!
//! | module | holds |
//! | --- | --- |
//! | [`abi`] | the numbers that a page's worker and this module exchange |
//! | [`blocks`] | ggml's block formats as integer codes with scales and minima |
//! | [`matrix`] | matrices as they are multiplied: eight rows interleaved, codes and scales apart |
//! | [`product`] | activations in eight bits, and matrices times activations |
//! | [`tile`] | the innermost loops: wasm simd128, wasm relaxed SIMD, portable |
//! | `native` | the same natively, for the vector instructions that the machine turns out to have |
//! | [`attention`] | causal attention over the cache with a softmax that streams |
//! | [`cache`] | keys and values of a sequence, to be kept and shared |
//! | [`layout`] | how numbers lie in memory: groups of rows, orders of codes, padded heads |
//! | [`glu`] | the job of a gated activation |
//! | [`math`] | RMSNorm, RoPE, SwiGLU, GeGLU |
//! | [`simd`] | four singles at a time |
//! | [`model`] | weights, sequences and the pass itself |
//! | [`pool`] | work that several threads may take pieces of |
//! | `exports` | on wasm32: the functions that a page's worker calls |
//!
//! On wasm32 this crate is a module of its own with a memory of its own, built in four ways (simd128 or relaxed SIMD,
//! one thread or several over a shared memory), each a few dozen kilobytes; the page takes the best that the browser
//! runs. Natively it is an ordinary library. The integer arithmetic is exact, so that all builds choose the same tokens
//! up to the rounding of single-precision sums.
//!
//! Several sequences can take a token each in one pass, which reads the weights once for all of them.
//!
//! Deliberately absent: checking of model files (client-core proves every size before it calls).

pub mod abi;
pub mod attention;
pub mod blocks;
pub mod cache;
mod fill;
pub mod glu;
pub mod layout;
pub mod math;
pub mod matrix;
pub mod model;
#[cfg(not(target_arch = "wasm32"))]
pub mod native;
pub mod pool;
pub mod product;
pub mod simd;
pub mod tile;

#[cfg(target_arch = "wasm32")]
mod exports;
