//! GGUF: the file format in which language models travel.
//!
//! | file | holds |
//! | --- | --- |
//! | [`write`] | the writer |
//! | `read.rs` | a zero-copy reader that takes hostile files: checked arithmetic, caps, no overlap |
//!
//! Deliberately absent: GGUF v1 (whose lengths have 32 bits; v2 is read as v3), big-endian and split files, which are named
//! as such, and nested arrays. A file is parsed here, and every tensor's
//! place and size is proved to lie inside it, before any backend sees a byte of it.

#[cfg(any(test, feature = "testing"))]
pub(crate) mod builder;
mod read;
pub mod write;

/// How a tensor's elements are stored: the kernels' crate knows the blocks.
pub use cpu_kernels::blocks::GgmlType;
pub use read::{ArrayView, Gguf, GgufError, TensorInfo, Value};

/// The four bytes a GGUF file begins with.
pub const MAGIC: [u8; 4] = *b"GGUF";
/// The version that is written.
pub const VERSION: u32 = 3;
/// The versions that are read: little-endian files do not differ.
pub const VERSIONS: [u32; 2] = [2, VERSION];
/// Alignment of tensor data when `general.alignment` is not given, in bytes.
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// ggml's names of the types that a file may hold and this engine does not compute with, for the error message.
pub(crate) fn foreign_type_name(id: u32) -> &'static str {
    match id {
        4 => "Q4_2",
        5 => "Q4_3",
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        21 => "IQ3_S",
        22 => "IQ2_S",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        31 => "Q4_0_4_4",
        32 => "Q4_0_4_8",
        33 => "Q4_0_8_8",
        34 => "TQ1_0",
        35 => "TQ2_0",
        36 => "IQ4_NL_4_4",
        37 => "IQ4_NL_4_8",
        38 => "IQ4_NL_8_8",
        39 => "MXFP4",
        40 => "NVFP4",
        42 => "Q2_0",
        _ => "a type that is not known",
    }
}
