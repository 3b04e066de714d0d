//! From ggml's blocks to [`Packed`].
//!
//! Four codes of a row are a word here and mostly one in the file too, so that most of the work is moving words.

use crate::blocks::{BLOCK, GgmlType};
use crate::layout::GROUP;

use super::packed::{Bits, Factors, Packed, SUPER};

/// Words of 32 codes of one row.
type Words = [u32; 8];

impl Packed {
    /// An empty matrix of whole groups of rows; `None` where the format is not quantised. `cols` is whole blocks.
    pub fn zeros(format: GgmlType, rows: usize, cols: usize) -> Option<Self> {
        let bits = Self::bits(format)?;
        let (groups, blocks) = (rows.div_ceil(GROUP), cols / BLOCK);
        let is_super = Self::is_super(format);
        let factors = |parts: usize| Factors {
            halves: vec![0; groups * GROUP * if is_super { blocks / SUPER } else { blocks }],
            parts: vec![0; if is_super { groups * GROUP * blocks * parts } else { 0 }],
        };
        let with_minima = matches!(format, GgmlType::Q4_1 | GgmlType::Q5_1 | GgmlType::Q4K | GgmlType::Q5K);
        Some(Self {
            format,
            bits,
            blocks,
            codes: vec![0; groups * blocks * bits.bytes()],
            scales: factors(bits.parts()),
            minima: if with_minima { factors(1) } else { Factors::default() },
        })
    }

    /// Puts the blocks of row number `row` in, `row_bytes(cols)` bytes.
    pub fn put_row(&mut self, row: usize, bytes: &[u8]) {
        let (len, size) = self.format.block();
        for (at, block) in bytes.chunks_exact(size).enumerate() {
            self.put(row / GROUP, row % GROUP, at * (len / BLOCK), block);
        }
    }

    /// Puts a block of the file in, whose columns begin with block `first` of 32.
    fn put(&mut self, group: usize, row: usize, first: usize, block: &[u8]) {
        match self.format {
            GgmlType::F32 | GgmlType::F16 | GgmlType::Bf16 => {}
            GgmlType::Q4_0 | GgmlType::Q4_1 | GgmlType::Q5_0 | GgmlType::Q5_1 | GgmlType::Q8_0 => {
                self.put_plain(group, row, first, block);
            }
            GgmlType::Q4K | GgmlType::Q5K => self.put_with_minima(group, row, first, block),
            GgmlType::Q6K => self.put_six(group, row, first, block),
        }
    }

    fn put_plain(&mut self, group: usize, row: usize, block_at: usize, block: &[u8]) {
        let place = group * self.blocks + block_at;
        self.scales.halves[place * GROUP + row] = u16_at(block, 0);
        let with_minimum = !self.minima.halves.is_empty();
        let start = if with_minimum { 4 } else { 2 };
        if with_minimum {
            // The file adds it.
            self.minima.halves[place * GROUP + row] = u16_at(block, 2) ^ 0x8000;
        }
        if self.bits == Bits::Eight {
            return self.words(place, row, 0, words_at::<8>(block, start));
        }
        let high_bytes = if self.bits == Bits::Five { 4 } else { 0 };
        self.words(place, row, 0, words_at::<4>(block, start + high_bytes));
        if self.bits == Bits::Five {
            let bits = words_at::<1>(block, start)[0];
            // Bit 4k + j to bit k of byte j.
            let of_byte = |j: u32| (0..8).fold(0, |word, k| word | (bits >> (4 * k + j) & 1) << k) << (8 * j);
            self.words(place, row, 4, [(0..4).map(of_byte).fold(0, |word, byte| word | byte)]);
        }
    }

    fn put_with_minima(&mut self, group: usize, row: usize, first: usize, block: &[u8]) {
        let place = group * self.blocks + first;
        let above = (group * (self.blocks / SUPER) + first / SUPER) * GROUP + row;
        self.scales.halves[above] = u16_at(block, 0);
        self.minima.halves[above] = u16_at(block, 2);
        let Some(packed) = block.get(4..16).and_then(|bytes| <&[u8; 12]>::try_from(bytes).ok()) else { return };
        let five = self.bits == Bits::Five;
        let high = if five { words_at::<8>(block, 16) } else { [0; 8] };
        for j in 0..SUPER {
            let (scale, minimum) = crate::blocks::scale_and_minimum(packed, j);
            self.scales.parts[(place + j) * GROUP + row] = scale;
            self.minima.parts[(place + j) * GROUP + row] = minimum;
            let low: Words = words_at(block, if five { 48 } else { 16 } + j / 2 * 32);
            let nibbles = low.map(|word| word >> (4 * (j % 2)) & 0x0f0f_0f0f);
            self.nibbles(place + j, row, nibbles);
            if five {
                let word = (0..8).fold(0, |word, k| word | (high[k] >> j & 0x0101_0101) << k);
                self.words(place + j, row, 4, [word]);
            }
        }
    }

    fn put_six(&mut self, group: usize, row: usize, first: usize, block: &[u8]) {
        let place = group * self.blocks + first;
        let above = (group * (self.blocks / SUPER) + first / SUPER) * GROUP + row;
        self.scales.halves[above] = u16_at(block, 208);
        for j in 0..SUPER {
            // 128 elements to a half; its four runs take the low or the high nibbles of two stretches of 32 bytes.
            let (half, quarter) = (j / 4, j % 4);
            let low: Words = words_at(block, half * 64 + quarter % 2 * 32);
            self.nibbles(place + j, row, low.map(|word| word >> (4 * (quarter / 2)) & 0x0f0f_0f0f));
            let high: Words = words_at(block, 128 + half * 32);
            let high = high.map(|word| word >> (2 * quarter) & 0x0303_0303);
            let plane = |h: usize| (0..4).fold(0, |word, k| word | high[4 * h + k] << (2 * k));
            self.words(place + j, row, 4, [plane(0), plane(1)]);
            for part in 0..2 {
                let scale = block.get(192 + 2 * j + part).copied().unwrap_or(0);
                self.scales.parts[(2 * (place + j) + part) * GROUP + row] = scale;
            }
        }
    }

    /// 32 codes of four bits, one to a byte, as nibbles.
    fn nibbles(&mut self, place: usize, row: usize, codes: Words) {
        let word = |k: usize| codes[k] | codes[k + 4] << 4;
        self.words(place, row, 0, [word(0), word(1), word(2), word(3)]);
    }

    /// Words of a row into a block, from the vector with number `from` on.
    #[inline(always)]
    fn words<const N: usize>(&mut self, place: usize, row: usize, from: usize, words: [u32; N]) {
        let size = self.bits.bytes();
        let vectors = self.codes[place * size..][..size].as_chunks_mut::<{ 4 * GROUP }>().0;
        for (vector, word) in vectors.iter_mut().skip(from).zip(words) {
            vector[4 * row..4 * row + 4].copy_from_slice(&word.to_le_bytes());
        }
    }
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
