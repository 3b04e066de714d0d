//! Matrices times activations.

use crate::blocks::BLOCK;
use crate::math::dot;
use crate::matrix::{EIGHT_BYTES, FOUR_BYTES, GROUP, Matrix, Planar, Store, halves};
use crate::pool::{self, Job, Places};
use crate::tile::{self, Columns};

/// Columns that are multiplied with one look at the weights.
const TILE: usize = 4;
/// Multiplications of one piece of a job: some tens of microseconds.
const PIECE: usize = 400_000;

/// Activations `[m, cols]`, and the same in eight bits, with one scale to 32: what planar matrices are multiplied with.
#[derive(Debug, Default)]
pub struct Activations {
    m: usize,
    cols: usize,
    values: Vec<f32>,
    quantised: bool,
    /// Four columns interleaved, for as many fours as there are; the rest one by one. So are the others.
    wide: Vec<[i16; 4]>,
    codes: Vec<[i8; 4]>,
    scales: Vec<f32>,
    sums: Vec<i32>,
    starts: Vec<[i16; 2]>,
}

impl Activations {
    /// Takes the size of `m` rows of `cols`; the values are to be written next.
    pub fn prepare(&mut self, m: usize, cols: usize) -> &mut [f32] {
        (self.m, self.cols, self.quantised) = (m, cols, false);
        self.values.resize(m * cols, 0.0);
        &mut self.values
    }

    /// `[m, cols]`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Rounds to eight bits, once.
    fn quantise(&mut self) {
        if std::mem::replace(&mut self.quantised, true) {
            return;
        }
        let (fours, blocks) = (self.values.len() / 4, self.cols / BLOCK);
        self.wide.resize(fours, [0; 4]);
        self.codes.resize(if tile::NARROW { fours } else { 0 }, [0; 4]);
        self.scales.resize(self.m * blocks, 0.0);
        self.sums.resize(self.m * blocks, 0);
        self.starts.resize(self.m * blocks, [0; 2]);
        for (i, x) in self.values.chunks_exact(self.cols).enumerate() {
            let tile = if i < self.m / TILE * TILE { TILE } else { 1 };
            let (first, c) = (i / tile * tile * blocks, i % tile);
            for (block, x) in x.as_chunks::<BLOCK>().0.iter().enumerate() {
                // `f32::max` is a call on wasm32; this is an instruction.
                let larger = |a: f32, b: f32| if b > a { b } else { a };
                let largest = x.iter().map(|x| x.abs()).fold(0f32, larger);
                let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
                let (mut even, mut odd) = (0, 0);
                let at = first + block * tile + c;
                for (k, x) in x.as_chunks::<4>().0.iter().enumerate() {
                    // Adding 1.5 · 2²³ rounds to the nearest whole number and leaves it in the low bits.
                    let code = x.map(|x| (x * inverse + 12_582_912.0).to_bits() as i16);
                    even += code[0] + code[1];
                    odd += code[2] + code[3];
                    let place = (first + block * tile) * 8 + k * tile + c;
                    self.wide[place] = code;
                    if tile::NARROW {
                        self.codes[place] = code.map(|code| code as i8);
                    }
                }
                self.scales[at] = largest / 127.0;
                self.sums[at] = i32::from(even + odd);
                self.starts[at] = [-8 * even, -8 * odd];
            }
        }
    }

    /// Columns i to i + C − 1, which were interleaved.
    fn columns<const C: usize>(&self, i: usize) -> Columns<'_, C> {
        let blocks = self.cols / BLOCK;
        let (wide, places) = (i * blocks * 8..(i + C) * blocks * 8, i * blocks..(i + C) * blocks);
        Columns {
            wide: self.wide[wide.clone()].as_chunks::<C>().0.as_chunks().0,
            codes: self.codes.get(wide).unwrap_or_default().as_chunks::<C>().0.as_chunks().0,
            scales: self.scales[places.clone()].as_chunks().0,
            sums: self.sums[places.clone()].as_chunks().0,
            starts: self.starts[places].as_chunks().0,
        }
    }
}

/// Writes `[m, Σ rows]` to `out`: every row holds the products with all `parts`, one after the other.
pub fn multiply(parts: &[&Matrix], x: &mut Activations, out: &mut Vec<f32>) {
    if parts.iter().any(|part| matches!(part.store, Store::Planar(_))) {
        x.quantise();
    }
    let width = parts.iter().map(|part| part.rows).sum::<usize>();
    out.resize(x.m * width, 0.0);
    let piece_groups = (PIECE / (GROUP * x.cols * x.m).max(1)).max(1);
    let pieces = parts.iter().map(|part| part.rows.div_ceil(GROUP).div_ceil(piece_groups)).sum();
    let job = Product { parts, x, width, piece_groups, out: Places::new(out) };
    pool::run(&job, pieces);
}

struct Product<'a> {
    parts: &'a [&'a Matrix],
    x: &'a Activations,
    width: usize,
    /// Groups of rows of one piece.
    piece_groups: usize,
    out: Places<'a>,
}

impl Job for Product<'_> {
    fn piece(&self, mut piece: usize) {
        let mut row = 0;
        for part in self.parts {
            let groups = part.rows.div_ceil(GROUP);
            let pieces = groups.div_ceil(self.piece_groups);
            if piece < pieces {
                let first = piece * self.piece_groups;
                return self.groups(part, row, first..(first + self.piece_groups).min(groups));
            }
            piece -= pieces;
            row += part.rows;
        }
    }
}

impl Product<'_> {
    /// The products with some groups of rows of `part`, whose first row is number `start` of the output.
    fn groups(&self, part: &Matrix, start: usize, groups: std::ops::Range<usize>) {
        match &part.store {
            Store::Planar(planar) => self.planar(part, planar, start, groups),
            Store::Single(values) => {
                for row in groups.start * GROUP..(groups.end * GROUP).min(part.rows) {
                    self.single(&values[row * part.cols..][..part.cols], start + row);
                }
            }
            Store::Half(format, bytes) => {
                // One piece, one allocation would be one too many for threads that must not allocate.
                let mut buffer = [0f32; 4096];
                let direct = part.cols <= buffer.len();
                for row in groups.start * GROUP..(groups.end * GROUP).min(part.rows) {
                    let bytes = &bytes[row * 2 * part.cols..][..2 * part.cols];
                    if direct {
                        let values = &mut buffer[..part.cols];
                        halves(*format, bytes, values);
                        self.single(values, start + row);
                    } else {
                        self.long_half(*format, bytes, &mut buffer, start + row);
                    }
                }
            }
        }
    }

    fn single(&self, weights: &[f32], row: usize) {
        for (i, x) in self.x.values.chunks_exact(self.x.cols).enumerate() {
            self.out.write(i * self.width + row, &[dot(weights, x)]);
        }
    }

    /// A row of halves that is longer than `buffer`, in stretches.
    fn long_half(&self, format: crate::blocks::Format, bytes: &[u8], buffer: &mut [f32], row: usize) {
        for (i, x) in self.x.values.chunks_exact(self.x.cols).enumerate() {
            let mut sum = 0.0;
            for (bytes, x) in bytes.chunks(2 * buffer.len()).zip(x.chunks(buffer.len())) {
                let values = &mut buffer[..x.len()];
                halves(format, bytes, values);
                sum += dot(values, x);
            }
            self.out.write(i * self.width + row, &[sum]);
        }
    }

    fn planar(&self, part: &Matrix, planar: &Planar, start: usize, groups: std::ops::Range<usize>) {
        if self.x.m == 1 {
            return self.single_column(part, planar, start, groups);
        }
        let mut group = groups.start;
        while group < groups.end {
            let two = tile::NARROW && planar.four && group + 2 <= groups.end && self.x.m >= TILE;
            let weights = [part_of(part, planar, group), part_of(part, planar, if two { group + 1 } else { group })];
            let row = start + group * GROUP;
            let rows = [group, group + 1].map(|group| part.rows.saturating_sub(group * GROUP).min(GROUP));
            let tiled = self.x.m / TILE * TILE;
            for i in (0..tiled).step_by(TILE) {
                let columns = self.x.columns::<TILE>(i);
                if two {
                    let [first, second] = tile::four_twice([&weights[0], &weights[1]], &columns);
                    self.write(i, row, rows[0], &first);
                    self.write(i, row + GROUP, rows[1], &second);
                } else {
                    self.write(i, row, rows[0], &sums(planar, &weights[0], &columns));
                }
            }
            for i in tiled..self.x.m {
                let columns = self.x.columns::<1>(i);
                self.write(i, row, rows[0], &sums(planar, &weights[0], &columns));
                if two {
                    self.write(i, row + GROUP, rows[1], &sums(planar, &weights[1], &columns));
                }
            }
            group += if two { 2 } else { 1 };
        }
    }

    /// One column: a group of rows takes so little time that nothing is looked up for it that could be looked up before.
    fn single_column(&self, part: &Matrix, planar: &Planar, start: usize, groups: std::ops::Range<usize>) {
        let columns = self.x.columns::<1>(0);
        let blocks = part.cols / BLOCK;
        let places = groups.start * blocks..groups.end * blocks;
        let of = |lanes: usize| places.start * lanes..places.end * lanes;
        let (code_bytes, scale_lanes) =
            (if planar.four { FOUR_BYTES } else { EIGHT_BYTES }, if planar.split { 2 * GROUP } else { GROUP });
        let codes = planar.codes[of(code_bytes)].chunks_exact(blocks * code_bytes);
        let scales = planar.scales[of(scale_lanes)].chunks_exact(blocks * scale_lanes);
        let minima = planar.minima.get(of(GROUP)).unwrap_or_default();
        for ((group, codes), scales) in groups.clone().zip(codes).zip(scales) {
            let minima = minima.get((group - groups.start) * blocks * GROUP..).unwrap_or_default();
            let minima = minima.get(..blocks * GROUP).unwrap_or_default();
            let weights = tile::Weights { codes, scales, minima, offset: planar.offset };
            let [sums] = sums(planar, &weights, &columns);
            let (row, rows) = (group * GROUP, (part.rows - group * GROUP).min(GROUP));
            if rows == GROUP {
                // Of constant size: no call.
                self.out.write(start + row, &sums[..GROUP]);
            } else {
                self.out.write(start + row, &sums[..rows]);
            }
        }
    }

    #[inline(always)]
    fn write<const C: usize>(&self, i: usize, row: usize, rows: usize, sums: &[[f32; GROUP]; C]) {
        for (c, sums) in sums.iter().enumerate() {
            self.out.write((i + c) * self.width + row, &sums[..rows]);
        }
    }
}

/// One group of rows.
fn part_of<'a>(part: &Matrix, planar: &'a Planar, group: usize) -> tile::Weights<'a> {
    let blocks = part.cols / BLOCK;
    let first = group * blocks;
    let scale_lanes = if planar.split { 2 * GROUP } else { GROUP };
    let code_bytes = if planar.four { FOUR_BYTES } else { EIGHT_BYTES };
    tile::Weights {
        codes: &planar.codes[first * code_bytes..][..blocks * code_bytes],
        scales: &planar.scales[first * scale_lanes..][..blocks * scale_lanes],
        minima: planar.minima.get(first * GROUP..(first + blocks) * GROUP).unwrap_or_default(),
        offset: planar.offset,
    }
}

#[inline(always)]
fn sums<const C: usize>(planar: &Planar, weights: &tile::Weights<'_>, columns: &Columns<'_, C>) -> [[f32; GROUP]; C] {
    match (planar.four, planar.split) {
        (true, _) => tile::four(weights, columns),
        (false, false) => tile::eight(weights, columns),
        (false, true) => tile::eight_split(weights, columns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::{self, Format};

    /// Every format against sums over its values with the rounded activations, in double precision.
    #[test]
    fn products_are_those_of_the_values() {
        use Format::{Bf16, F16, F32, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
        let mut state = 5u32;
        let mut random = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        };
        for format in [F32, F16, Bf16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4K, Q5K, Q6K] {
            for (rows, cols, m) in [(7, 512, 1), (10, 256, 6), (4, 768, 4)] {
                let mut bytes: Vec<u8> = (0..rows * format.row_bytes(cols).unwrap()).map(|_| random() as u8).collect();
                let (_, size) = format.block();
                for block in bytes.chunks_exact_mut(size) {
                    // Scales of sensible size.
                    let halves: &[usize] = match format {
                        F32 => continue,
                        Q4_1 | Q5_1 | Q4K | Q5K => &[0, 2],
                        Q6K => &[208],
                        _ => &[0],
                    };
                    for at in halves {
                        block[*at + 1] = 0x20 | block[*at + 1] & 0x83;
                    }
                }
                if format == F32 {
                    bytes = (0..rows * cols).flat_map(|_| (random() as f32 / 2e7 - 0.4).to_le_bytes()).collect();
                }
                let values = blocks::values(format, &bytes);
                let matrix = Matrix::new(format, rows, cols, &bytes, false).unwrap();
                let mut x = Activations::default();
                x.prepare(m, cols).fill_with(|| random() as f32 / 8e6 - 1.0);
                let mut out = Vec::new();
                multiply(&[&matrix, &matrix], &mut x, &mut out);
                let rounded: Vec<f64> = match format.is_quantised() {
                    true => (0..m * cols)
                        .map(|at| {
                            let (i, col) = (at / cols, at % cols);
                            let tile = if i < m / TILE * TILE { TILE } else { 1 };
                            let block = i / tile * tile * (cols / 32) + col / 32 * tile + i % tile;
                            let four = i / tile * tile * (cols / 4) + col / 4 * tile + i % tile;
                            f64::from(x.wide[four][col % 4]) * f64::from(x.scales[block])
                        })
                        .collect(),
                    false => x.values.iter().map(|x| f64::from(*x)).collect(),
                };
                for i in 0..m {
                    for row in 0..2 * rows {
                        let terms = values[row % rows * cols..][..cols].iter().zip(&rounded[i * cols..][..cols]);
                        let terms: Vec<f64> = terms.map(|(w, x)| f64::from(*w) * x).collect();
                        let expect: f64 = terms.iter().sum();
                        let size: f64 = terms.iter().map(|t| t.abs()).sum();
                        let found = f64::from(out[i * 2 * rows + row]);
                        assert!((found - expect).abs() <= 2e-6 * size, "{format:?} {row}: {found} {expect}");
                    }
                }
            }
        }
    }
}
