//! ggml's block formats as integers: value = scale · (code − offset) − minimum, per run of 16 or 32 codes.

use half::{bf16, f16};

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
    /// All of them.
    pub const ALL: [Self; 11] = [
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
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
            Self::Bf16 => "BF16",
        }
    }

    /// Elements and bytes of one block.
    pub const fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
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
            Self::Q4_0 => 8,
            Self::Q5_0 => 16,
            Self::Q6K => 32,
            _ => 0,
        }
    }

    /// Whether values are codes with scales.
    pub const fn is_quantised(self) -> bool {
        self.block().0 > 1
    }
}

/// 32 codes with their scales and minima. The two halves of 16 have scales of their own in Q6_K only.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScaledRun {
    /// 0 to 15 (Q4), 0 to 31 (Q5), 0 to 63 (Q6_K), −128 to 127 (Q8_0); [`GgmlType::offset`] is not yet taken from them.
    pub codes: [i8; BLOCK],
    /// Of the first and the second 16 codes.
    pub scales: [f32; 2],
    /// What is subtracted from every value.
    pub minimum: f32,
}

fn half_at(bytes: &[u8], at: usize) -> f32 {
    match bytes.get(at..at + 2) {
        Some(&[a, b]) => f16::from_le_bytes([a, b]).to_f32(),
        _ => 0.0,
    }
}

/// The 6-bit scale and minimum of sub-block `j` of Q4_K and Q5_K, from their twelve packed bytes.
pub(crate) fn scale_and_minimum(packed: &[u8; 12], j: usize) -> (u8, u8) {
    if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        let (low, high) = (packed[j + 4], (packed[j - 4] >> 6, packed[j] >> 6));
        ((low & 15) | (high.0 << 4), (low >> 4) | (high.1 << 4))
    }
}

/// Hands every run of 32 codes of a quantised block to `take`, in order. `block` has the format's size; unquantised
/// formats have no runs. Only Q8_0 has signed codes: the others' are six-bit at most, which multiply faster, with
/// [`GgmlType::offset`] left to whoever multiplies.
pub fn runs(format: GgmlType, block: &[u8], mut take: impl FnMut(ScaledRun)) {
    let mut codes = [0i8; BLOCK];
    let nibbles = |codes: &mut [i8; BLOCK], bytes: &[u8]| {
        for (i, byte) in bytes.iter().take(16).enumerate() {
            codes[i] = (byte & 15) as i8;
            codes[i + 16] = (byte >> 4) as i8;
        }
    };
    let fifth = |block: &[u8], at: usize| match block.get(at..at + 4) {
        Some(&[a, b, c, d]) => u32::from_le_bytes([a, b, c, d]),
        _ => 0,
    };
    let tail = |at: usize| block.get(at..).unwrap_or_default();
    match format {
        GgmlType::F32 | GgmlType::F16 | GgmlType::Bf16 => {}
        GgmlType::Q4_0 | GgmlType::Q4_1 => {
            let with_minimum = format == GgmlType::Q4_1;
            nibbles(&mut codes, tail(if with_minimum { 4 } else { 2 }));
            let minimum = if with_minimum { -half_at(block, 2) } else { 0.0 };
            take(ScaledRun { codes, scales: [half_at(block, 0); 2], minimum });
        }
        GgmlType::Q5_0 | GgmlType::Q5_1 => {
            let with_minimum = format == GgmlType::Q5_1;
            let start = if with_minimum { 4 } else { 2 };
            nibbles(&mut codes, tail(start + 4));
            let high = fifth(block, start);
            for (i, code) in codes.iter_mut().enumerate() {
                *code |= ((high >> i & 1) << 4) as i8;
            }
            let minimum = if with_minimum { -half_at(block, 2) } else { 0.0 };
            take(ScaledRun { codes, scales: [half_at(block, 0); 2], minimum });
        }
        GgmlType::Q8_0 => {
            for (code, byte) in codes.iter_mut().zip(tail(2)) {
                *code = *byte as i8;
            }
            take(ScaledRun { codes, scales: [half_at(block, 0); 2], minimum: 0.0 });
        }
        GgmlType::Q4K | GgmlType::Q5K => {
            let (d, least) = (half_at(block, 0), half_at(block, 2));
            let Some(packed) = block.get(4..16).and_then(|bytes| <&[u8; 12]>::try_from(bytes).ok()) else { return };
            let (high, low) = if format == GgmlType::Q5K { (tail(16), tail(48)) } else { (tail(0), tail(16)) };
            for j in 0..8 {
                let (scale, minimum) = scale_and_minimum(packed, j);
                for (i, code) in codes.iter_mut().enumerate() {
                    let byte = low.get(j / 2 * 32 + i).copied().unwrap_or(0);
                    *code = (if j % 2 == 0 { byte & 15 } else { byte >> 4 }) as i8;
                    if format == GgmlType::Q5K {
                        *code |= ((high.get(i).copied().unwrap_or(0) >> j & 1) << 4) as i8;
                    }
                }
                let (scale, minimum) = (d * f32::from(scale), least * f32::from(minimum));
                take(ScaledRun { codes, scales: [scale; 2], minimum });
            }
        }
        GgmlType::Q6K => {
            let d = half_at(block, 208);
            let byte = |at: usize| block.get(at).copied().unwrap_or(0);
            for j in 0..8 {
                // 128 elements to a half; its four runs take the low or the high nibbles of two stretches of 32 bytes.
                let (half, quarter) = (j / 4, j % 4);
                for (i, code) in codes.iter_mut().enumerate() {
                    let low = byte(half * 64 + quarter % 2 * 32 + i);
                    let low = if quarter < 2 { low & 15 } else { low >> 4 };
                    let high = byte(128 + half * 32 + i) >> (2 * quarter) & 3;
                    *code = (low | (high << 4)) as i8;
                }
                let scale = |part: usize| d * f32::from(byte(192 + 2 * j + part) as i8);
                take(ScaledRun { codes, scales: [scale(0), scale(1)], minimum: 0.0 });
            }
        }
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
            let offset = format.offset();
            for (block, out) in bytes.chunks_exact(size).zip(out.chunks_exact_mut(len)) {
                let mut places = out.as_chunks_mut::<BLOCK>().0.iter_mut();
                runs(format, block, |run| {
                    let Some(ys) = places.next() else { return };
                    for (i, (y, code)) in ys.iter_mut().zip(run.codes).enumerate() {
                        *y = run.scales[i / 16] * f32::from(code - offset) - run.minimum;
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
