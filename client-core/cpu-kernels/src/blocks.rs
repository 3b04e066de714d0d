//! ggml's block formats as integers: value = scale · (code − offset) − minimum, per run of 16 or 32 codes; in the IQ4 types
//! a code is a place in a table of levels instead: value = scale · level.

mod runs;

use half::{bf16, f16};

pub use runs::{ScaledRun, runs};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use runs::{scale_and_minimum, six_bit_scale};

/// Columns that share a scale, at most; activations have one scale for each.
pub const BLOCK: usize = 32;

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
    /// Super-blocks of 256: sixteen blocks of 16 two-bit values with 4-bit scales and minima: 84 bytes.
    Q2K = 10,
    /// Super-blocks of 256: sixteen blocks of 16 three-bit values with 6-bit scales: 110 bytes.
    Q3K = 11,
    /// Super-blocks of 256: eight blocks of 32 four-bit values with 6-bit scales and minima: 144 bytes.
    Q4K = 12,
    /// Super-blocks of 256: eight blocks of 32 five-bit values with 6-bit scales and minima: 176 bytes.
    Q5K = 13,
    /// Super-blocks of 256: sixteen blocks of 16 six-bit values with 8-bit scales: 210 bytes.
    Q6K = 14,
    /// Blocks of 32 four-bit places in [`IQ4_LEVELS`] with one half-precision scale: 18 bytes.
    Iq4Nl = 20,
    /// Super-blocks of 256: eight blocks of 32 such places with 6-bit scales: 136 bytes.
    Iq4Xs = 23,
    /// The upper half of a single.
    Bf16 = 30,
    /// Blocks of 128 signs with one half-precision scale: 18 bytes.
    Q1_0 = 41,
}

/// What the codes of the IQ4 types stand for, in units of the scale: closer together where weights are many.
pub const IQ4_LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

impl GgmlType {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::Q3K,
        Self::Q2K,
        Self::Iq4Nl,
        Self::Iq4Xs,
        Self::Q1_0,
    ];

    /// The type with ggml's number `id`, if it is one that these kernels compute with.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.id() == id)
    }

    /// ggml's number of this type.
    pub const fn id(self) -> u32 {
        self as u32
    }

    /// The name that ggml and model pages use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
            Self::Iq4Nl => "IQ4_NL",
            Self::Iq4Xs => "IQ4_XS",
            Self::Bf16 => "BF16",
            Self::Q1_0 => "Q1_0",
        }
    }

    /// Elements and bytes of one block.
    pub const fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q4_0 | Self::Iq4Nl => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q1_0 => (128, 18),
            Self::Q2K => (256, 84),
            Self::Q3K => (256, 110),
            Self::Iq4Xs => (256, 136),
            Self::Q4K => (256, 144),
            Self::Q5K => (256, 176),
            Self::Q6K => (256, 210),
        }
    }

    /// Elements in one block.
    pub const fn block_len(self) -> usize {
        self.block().0
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        self.block().1
    }

    /// Bytes of a row of `cols` elements, or `None` when `cols` is not whole blocks or the size overflows.
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
        let (len, bytes) = self.block();
        if cols.is_multiple_of(len) { (cols / len).checked_mul(bytes) } else { None }
    }

    /// What is to be taken from every code: value = scale · (code − offset) − minimum.
    pub const fn offset(self) -> i8 {
        match self {
            Self::Q1_0 => 1,
            Self::Q3K => 4,
            Self::Q4_0 => 8,
            Self::Q5_0 => 16,
            Self::Q6K => 32,
            _ => 0,
        }
    }

    /// What codes stand for, where that is not themselves less an offset.
    pub const fn levels(self) -> Option<&'static [i8; 16]> {
        match self {
            Self::Iq4Nl | Self::Iq4Xs => Some(&IQ4_LEVELS),
            _ => None,
        }
    }

    /// Whether something is subtracted from every value, too.
    pub const fn has_minima(self) -> bool {
        matches!(self, Self::Q4_1 | Self::Q5_1 | Self::Q2K | Self::Q4K | Self::Q5K)
    }

    /// Where the numbers of sixteen bits of a block are: its scale and its minimum, or the element itself.
    pub const fn halves(self) -> &'static [usize] {
        match self {
            Self::F32 => &[],
            Self::Q4_1 | Self::Q5_1 | Self::Q4K | Self::Q5K => &[0, 2],
            Self::Q2K => &[80, 82],
            Self::Q3K => &[108],
            Self::Q6K => &[208],
            Self::F16 | Self::Bf16 | Self::Q1_0 | Self::Q4_0 | Self::Q5_0 | Self::Q8_0 | Self::Iq4Nl | Self::Iq4Xs => {
                &[0]
            }
        }
    }

    /// Whether values are codes with scales.
    pub const fn is_quantised(self) -> bool {
        self.block().0 > 1
    }
}

/// All values of `bytes`, which are whole blocks, into `out`; what has no place there is left out. Bit for bit ggml's.
pub fn decode(format: GgmlType, bytes: &[u8], out: &mut [f32]) {
    match format {
        GgmlType::F32 => {
            for (y, raw) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *y = f32::from_le_bytes(*raw);
            }
        }
        GgmlType::F16 => {
            for (y, raw) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *y = f16::from_le_bytes(*raw).to_f32();
            }
        }
        GgmlType::Bf16 => {
            for (y, raw) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *y = bf16::from_le_bytes(*raw).to_f32();
            }
        }
        _ => {
            let (len, size) = format.block();
            let (offset, levels) = (format.offset(), format.levels());
            for (block, out) in bytes.chunks_exact(size).zip(out.chunks_exact_mut(len)) {
                let mut places = out.as_chunks_mut::<BLOCK>().0.iter_mut();
                runs(format, block, |run| {
                    let Some(ys) = places.next() else { return };
                    for (half, (ys, codes)) in ys.chunks_exact_mut(16).zip(run.codes.chunks_exact(16)).enumerate() {
                        let (scale, minimum) = (run.scale(half), run.minimum(half));
                        for (y, code) in ys.iter_mut().zip(codes) {
                            let level = levels.map_or(code - offset, |levels| levels[usize::from(*code as u8 & 15)]);
                            *y = scale * f32::from(level) - minimum;
                        }
                    }
                });
            }
        }
    }
}

/// All values of `bytes`, which are whole blocks.
pub fn values(format: GgmlType, bytes: &[u8]) -> Vec<f32> {
    let (len, size) = format.block();
    let mut out = vec![0.0; bytes.len() / size * len];
    decode(format, bytes, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    /// Against llama.cpp's own decoders: `tests/data/make_blocks.py`.
    #[test]
    fn values_are_those_of_the_reference() {
        let mut formats = Vec::new();
        for line in include_str!("../tests/data/blocks.txt").lines() {
            let parts: Vec<&str> = line.split(' ').collect();
            let format = GgmlType::ALL.into_iter().find(|format| format.name() == parts[0]).unwrap();
            let expect: Vec<u32> = bytes(parts[2]).as_chunks().0.iter().map(|raw| u32::from_le_bytes(*raw)).collect();
            let found: Vec<u32> = values(format, &bytes(parts[1])).into_iter().map(f32::to_bits).collect();
            assert_eq!(found, expect, "{}", format.name());
            formats.push(format);
        }
        formats.dedup();
        assert_eq!(formats, [GgmlType::Q1_0, GgmlType::Q2K, GgmlType::Q3K, GgmlType::Iq4Nl, GgmlType::Iq4Xs]);
    }
}
