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

pub use read::{ArrayView, Gguf, GgufError, TensorInfo, Value};

/// The four bytes a GGUF file begins with.
pub const MAGIC: [u8; 4] = *b"GGUF";
/// The version that is written.
pub const VERSION: u32 = 3;
/// The versions that are read: little-endian files do not differ.
pub const VERSIONS: [u32; 2] = [2, VERSION];
/// Alignment of tensor data when `general.alignment` is not given, in bytes.
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// How a tensor's elements are stored. The numbers are those of ggml's `ggml_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum GgmlType {
    /// IEEE single precision, little-endian.
    F32 = 0,
    /// IEEE half precision.
    F16 = 1,
    /// Blocks of 32 four-bit values with one half-precision scale: 18 bytes.
    Q4_0 = 2,
    /// Blocks of 32 four-bit values with a scale and a minimum in half precision: 20 bytes.
    Q4_1 = 3,
    /// Blocks of 32 five-bit values with one half-precision scale: 22 bytes.
    Q5_0 = 6,
    /// Blocks of 32 five-bit values with a scale and a minimum in half precision: 24 bytes.
    Q5_1 = 7,
    /// Blocks of 32 eight-bit values with one half-precision scale: 34 bytes.
    Q8_0 = 8,
    /// Super-blocks of 256: eight blocks of 32 four-bit values with 6-bit scales and minima: 144 bytes.
    Q4K = 12,
    /// Super-blocks of 256: eight blocks of 32 five-bit values with 6-bit scales and minima: 176 bytes.
    Q5K = 13,
    /// Super-blocks of 256: sixteen blocks of 16 six-bit values with 8-bit scales: 210 bytes.
    Q6K = 14,
    /// The upper half of a single.
    Bf16 = 30,
}

impl GgmlType {
    /// The type with ggml's number `id`, if it is one that this engine computes with.
    pub fn from_id(id: u32) -> Option<Self> {
        Some(match id {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            30 => Self::Bf16,
            _ => return None,
        })
    }

    /// ggml's number of this type.
    pub fn id(self) -> u32 {
        self as u32
    }

    /// Elements in one block.
    pub const fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Bytes of a row of `cols` elements, or `None` when `cols` is not whole blocks or the size overflows.
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
        if !cols.is_multiple_of(self.block_len()) {
            return None;
        }
        (cols / self.block_len()).checked_mul(self.block_bytes())
    }

    /// The name that ggml and model pages use.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
            Self::Bf16 => "BF16",
        }
    }
}

/// ggml's names of the types that a file may hold and this engine does not compute with, for the error message.
pub(crate) fn foreign_type_name(id: u32) -> &'static str {
    match id {
        4 => "Q4_2",
        5 => "Q4_3",
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
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
        _ => "a type that is not known",
    }
}
