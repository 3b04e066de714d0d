//! From ggml's blocks to [`Packed`].
//!
//! Four codes of a row are a word here and mostly one in the file too, so that most of the work is moving words, which as
//! many threads share as compute a pass.

use crate::blocks::{BLOCK, GgmlType};
use crate::layout::GROUP;
use crate::pool;

use super::packed::{Bits, Factors, Packed, SUPER, place};

/// Words of 32 codes of one row.
type Words = [u32; 8];

/// Bytes of a file that are worth a thread's start.
const LEAST_BYTES: usize = 256 << 10;

/// Groups of rows of a matrix that are being filled.
struct Groups<'a> {
    format: GgmlType,
    bits: Bits,
    blocks: usize,
    shared: usize,
    /// How many there are.
    count: usize,
    codes: &'a mut [u8],
    scales: FactorsOf<'a>,
    minima: FactorsOf<'a>,
}

/// The part of a matrix' [`Factors`] that belongs to some groups.
struct FactorsOf<'a> {
    halves: &'a mut [u16],
    parts: &'a mut [u8],
}

impl Packed {
    /// An empty matrix of whole groups of rows; `None` where the format is not quantised. `cols` is whole blocks.
    pub fn zeros(format: GgmlType, rows: usize, cols: usize) -> Option<Self> {
        let bits = Self::bits(format)?;
        let (groups, blocks) = (rows.div_ceil(GROUP), cols / BLOCK);
        let shared = format.block_len() / BLOCK;
        let factors = |parts: usize| Factors {
            halves: vec![0; groups * GROUP * (blocks / shared)],
            parts: vec![0; if Self::is_super(format) { groups * GROUP * blocks * parts } else { 0 }],
        };
        let minima = if bits == Bits::Two { factors(0) } else { factors(1) };
        Some(Self {
            format,
            bits,
            blocks,
            shared,
            codes: vec![0; groups * blocks * bits.bytes()],
            scales: factors(bits.parts()),
            minima: if format.has_minima() { minima } else { Factors::default() },
        })
    }

    /// Puts rows of `row_bytes` bytes each in, from number `first` on, which are rows that the matrix has.
    pub fn put_rows(&mut self, first: usize, row_bytes: usize, bytes: &[u8]) {
        let rows = bytes.len() / row_bytes.max(1);
        let threads = pool::threads().min(bytes.len() / LEAST_BYTES).max(1);
        // Whole groups to a thread, so that nothing is written by two.
        let share = (first % GROUP + rows).div_ceil(threads).next_multiple_of(GROUP);
        let mut rest = self.groups().split_at(first / GROUP).1;
        let (mut bytes, mut skipped) = (bytes, first % GROUP);
        std::thread::scope(|scope| {
            while !bytes.is_empty() {
                let (now, later) = bytes.split_at(bytes.len().min((share - skipped) * row_bytes));
                let count = (share / GROUP).min(rest.count);
                let (groups, others) = rest.split_at(count);
                let from = std::mem::take(&mut skipped);
                (bytes, rest) = (later, others);
                match bytes.is_empty() {
                    true => groups.fill(from, row_bytes, now),
                    false => _ = scope.spawn(move || groups.fill(from, row_bytes, now)),
                }
            }
        });
    }

    /// All of its groups.
    fn groups(&mut self) -> Groups<'_> {
        Groups {
            format: self.format,
            bits: self.bits,
            blocks: self.blocks,
            shared: self.shared,
            count: self.codes.len() / (self.blocks * self.bits.bytes()).max(1),
            codes: &mut self.codes,
            scales: FactorsOf::of(&mut self.scales),
            minima: FactorsOf::of(&mut self.minima),
        }
    }
}

impl<'a> Groups<'a> {
    /// The first `count` of them, and the others.
    fn split_at(self, count: usize) -> (Self, Self) {
        let all = self.count.max(1);
        let (codes, other_codes) = self.codes.split_at_mut(self.codes.len() / all * count);
        let (scales, other_scales) = self.scales.split_at(count, all);
        let (minima, other_minima) = self.minima.split_at(count, all);
        let Self { format, bits, blocks, shared, .. } = self;
        (
            Self { format, bits, blocks, shared, count, codes, scales, minima },
            Self {
                format,
                bits,
                blocks,
                shared,
                count: self.count - count,
                codes: other_codes,
                scales: other_scales,
                minima: other_minima,
            },
        )
    }

    /// Puts rows in, from number `first` on.
    fn fill(mut self, first: usize, row_bytes: usize, bytes: &[u8]) {
        for (at, bytes) in bytes.chunks_exact(row_bytes).enumerate() {
            self.put_row(first + at, bytes);
        }
    }

    /// Puts the blocks of row number `row` in.
    fn put_row(&mut self, row: usize, bytes: &[u8]) {
        let (len, size) = self.format.block();
        for (at, block) in bytes.chunks_exact(size).enumerate() {
            self.put(row / GROUP, row % GROUP, at * (len / BLOCK), block);
        }
    }

    /// Puts a block of the file in, whose columns begin with block `first` of 32.
    fn put(&mut self, group: usize, row: usize, first: usize, block: &[u8]) {
        match self.format {
            GgmlType::F32 | GgmlType::F16 | GgmlType::Bf16 => {}
            GgmlType::Q4_0 | GgmlType::Q4_1 | GgmlType::Q5_0 | GgmlType::Q5_1 | GgmlType::Q8_0 | GgmlType::Iq4Nl => {
                self.put_plain(group, row, first, block);
            }
            GgmlType::Q1_0 => self.put_one(group, row, first, block),
            GgmlType::Q2K => self.put_two(group, row, first, block),
            GgmlType::Q3K => self.put_three(group, row, first, block),
            GgmlType::Iq4Xs => self.put_levels(group, row, first, block),
            GgmlType::Q4K | GgmlType::Q5K => self.put_with_minima(group, row, first, block),
            GgmlType::Q6K => self.put_six(group, row, first, block),
        }
    }

    fn put_plain(&mut self, group: usize, row: usize, block_at: usize, block: &[u8]) {
        let at = group * self.blocks + block_at;
        self.scales.halves[at * GROUP + row] = u16_at(block, 0);
        let with_minimum = !self.minima.halves.is_empty();
        let start = if with_minimum { 4 } else { 2 };
        if with_minimum {
            // The file adds it.
            self.minima.halves[at * GROUP + row] = u16_at(block, 2) ^ 0x8000;
        }
        if self.bits == Bits::Eight {
            return self.words(at, row, 0, words_at::<8>(block, start));
        }
        let high_bytes = if self.bits == Bits::Five { 4 } else { 0 };
        self.words(at, row, 0, words_at::<4>(block, start + high_bytes));
        if self.bits == Bits::Five {
            let bits = words_at::<1>(block, start)[0];
            // Bit 4k + j to bit k of byte j.
            let of_byte = |j: u32| (0..8).fold(0, |word, k| word | (bits >> (4 * k + j) & 1) << k) << (8 * j);
            self.words(at, row, 4, [(0..4).map(of_byte).fold(0, |word, byte| word | byte)]);
        }
    }

    fn put_with_minima(&mut self, group: usize, row: usize, first: usize, block: &[u8]) {
        let at = self.put_scale(group, row, first, u16_at(block, 0));
        self.minima.halves[at / SUPER * GROUP + row] = u16_at(block, 2);
        let Some(packed) = block.get(4..16).and_then(|bytes| <&[u8; 12]>::try_from(bytes).ok()) else { return };
        let five = self.bits == Bits::Five;
        let high = if five { words_at::<8>(block, 16) } else { [0; 8] };
        for j in 0..SUPER {
            let (scale, minimum) = crate::blocks::scale_and_minimum(packed, j);
            self.put_factor(at + j, 0, row, scale);
            self.minima.parts[(at + j) * GROUP + row] = minimum;
            let low: Words = words_at(block, if five { 48 } else { 16 } + j / 2 * 32);
            let low = low.map(|word| word >> (4 * (j % 2)) & 0x0f0f_0f0f);
            if five {
                let code = |k: usize| low[k] | (high[k] >> j & 0x0101_0101) << 4;
                self.planes::<4, 1>(at + j, row, std::array::from_fn(code));
            } else {
                self.planes::<4, 0>(at + j, row, low);
            }
        }
    }

    fn put_six(&mut self, group: usize, row: usize, first: usize, block: &[u8]) {
        let at = self.put_scale(group, row, first, u16_at(block, 208));
        for j in 0..SUPER {
            // 128 elements to a half; its four runs take the low or the high nibbles of two stretches of 32 bytes.
            let (half, quarter) = (j / 4, j % 4);
            let low: Words = words_at(block, half * 64 + quarter % 2 * 32);
            let high: Words = words_at(block, 128 + half * 32);
            let code =
                |k: usize| low[k] >> (4 * (quarter / 2)) & 0x0f0f_0f0f | (high[k] >> (2 * quarter) & 0x0303_0303) << 4;
            self.planes::<4, 2>(at + j, row, std::array::from_fn(code));
            for part in 0..2 {
                self.put_factor(at + j, part, row, block.get(192 + 2 * j + part).copied().unwrap_or(0));
            }
        }
    }

    fn put_one(&mut self, group: usize, row: usize, first: usize, block: &[u8]) {
        let at = self.put_scale(group, row, first, u16_at(block, 0));
        for (j, bits) in words_at::<4>(block, 2).into_iter().enumerate() {
            // Bits 4k to 4k + 3 to the lowest bits of four bytes: copies 7 bits apart do not overlap.
            self.planes::<1, 0>(
                at + j,
                row,
                std::array::from_fn(|k| ((bits >> (4 * k) & 15) * 0x20_4081) & 0x0101_0101),
            );
        }
    }

    fn put_two(&mut self, group: usize, row: usize, first: usize, block: &[u8]) {
        let at = self.put_scale(group, row, first, u16_at(block, 80));
        self.minima.halves[at / SUPER * GROUP + row] = u16_at(block, 82);
        for j in 0..SUPER {
            let low: Words = words_at(block, 16 + j / 4 * 32);
            self.planes::<2, 0>(at + j, row, low.map(|word| word >> (2 * (j % 4)) & 0x0303_0303));
            for part in 0..2 {
                self.put_factor(at + j, part, row, block.get(2 * j + part).copied().unwrap_or(0));
            }
        }
    }

    fn put_three(&mut self, group: usize, row: usize, first: usize, block: &[u8]) {
        let at = self.put_scale(group, row, first, u16_at(block, 108));
        let high: Words = words_at(block, 0);
        for j in 0..SUPER {
            let low: Words = words_at(block, 32 + j / 4 * 32);
            let code = |k: usize| low[k] >> (2 * (j % 4)) & 0x0303_0303 | (high[k] >> j & 0x0101_0101) << 2;
            self.planes::<2, 1>(at + j, row, std::array::from_fn(code));
            for part in 0..2 {
                let scale = crate::blocks::six_bit_scale(self.format, block, 2 * j + part);
                self.put_factor(at + j, part, row, scale as u8);
            }
        }
    }

    fn put_levels(&mut self, group: usize, row: usize, first: usize, block: &[u8]) {
        let at = self.put_scale(group, row, first, u16_at(block, 0));
        for j in 0..SUPER {
            self.words(at + j, row, 0, words_at::<4>(block, 8 + 16 * j));
            self.put_factor(at + j, 0, row, crate::blocks::six_bit_scale(self.format, block, j) as u8);
        }
    }

    /// The half that the blocks from `first` on share. Returns the first of them, counted through all groups.
    fn put_scale(&mut self, group: usize, row: usize, first: usize, half: u16) -> usize {
        let at = group * self.blocks + first;
        self.scales.halves[at / self.shared * GROUP + row] = half;
        at
    }

    /// What that is multiplied with for a part of a block.
    fn put_factor(&mut self, at: usize, part: usize, row: usize, factor: u8) {
        self.scales.parts[(self.bits.parts() * at + part) * GROUP + row] = factor;
    }

    /// 32 codes, one to a byte, into planes of their `LOW` lowest bits and of the `HIGH` bits above.
    #[inline(always)]
    fn planes<const LOW: usize, const HIGH: usize>(&mut self, at: usize, row: usize, codes: Words) {
        self.words(at, row, 0, plane::<LOW>(codes));
        if HIGH > 0 {
            self.words(at, row, LOW, plane::<HIGH>(codes.map(|word| word >> LOW)));
        }
    }

    /// Words of a row into a block, from the vector with number `from` on.
    #[inline(always)]
    fn words<const N: usize>(&mut self, at: usize, row: usize, from: usize, words: [u32; N]) {
        let size = self.bits.bytes();
        let vectors = self.codes[at * size..][..size].as_chunks_mut::<{ 4 * GROUP }>().0;
        for (vector, word) in vectors.iter_mut().skip(from).zip(words) {
            vector[4 * row..4 * row + 4].copy_from_slice(&word.to_le_bytes());
        }
    }
}

impl<'a> FactorsOf<'a> {
    fn of(factors: &'a mut Factors) -> Self {
        Self { halves: &mut factors.halves, parts: &mut factors.parts }
    }

    /// What belongs to the first `count` of `all` groups, and the rest.
    fn split_at(self, count: usize, all: usize) -> (Self, Self) {
        let (halves, other_halves) = self.halves.split_at_mut(self.halves.len() / all * count);
        let (parts, other_parts) = self.parts.split_at_mut(self.parts.len() / all * count);
        (Self { halves, parts }, Self { halves: other_halves, parts: other_parts })
    }
}

/// The lowest `BITS` bits of 32 codes, of which a word holds four, as a row's words of a plane.
#[inline(always)]
fn plane<const BITS: usize>(codes: Words) -> [u32; BITS] {
    let mask = 0x0101_0101 * (0xff >> (8 - BITS));
    let mut words = [0; BITS];
    for (k, code) in codes.into_iter().enumerate() {
        let (vector, from) = place(BITS, k);
        words[vector] |= (code & mask) << from;
    }
    words
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    match bytes.get(at..at + 2) {
        Some(&[a, b]) => u16::from_le_bytes([a, b]),
        _ => 0,
    }
}

/// Words from byte `at` on; zero past the end.
#[inline(always)]
fn words_at<const N: usize>(bytes: &[u8], at: usize) -> [u32; N] {
    let words = bytes.get(at..at + 4 * N).unwrap_or_default().as_chunks::<4>().0;
    std::array::from_fn(|i| words.get(i).map_or(0, |word| u32::from_le_bytes(*word)))
}
