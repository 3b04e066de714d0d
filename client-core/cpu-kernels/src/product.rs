//! Matrices times activations.

use crate::blocks::BLOCK;
use crate::layout::GROUP;
use crate::math::dot;
use crate::matrix::{Matrix, Planar, Store, halves};
#[cfg(not(target_arch = "wasm32"))]
use crate::native;
use crate::pool::{self, Job, Places, Work};
use crate::tile::{self, ActivationForms, BlockStats, Columns, Kernel, SignMagnitude, Task, Weights};

/// Columns that are multiplied with one look at the weights.
const TILE: usize = 4;
/// Multiplications of one piece of a job: some tens of microseconds.
#[cfg(target_arch = "wasm32")]
const PIECE: usize = 400_000;
/// Fewest and most multiplications of one piece of a job: some microseconds, and some tens of them.
#[cfg(not(target_arch = "wasm32"))]
const PIECES: [usize; 2] = [60_000, 4_000_000];
/// Pieces of a job for each thread: the last to come is waited for.
#[cfg(not(target_arch = "wasm32"))]
const PIECES_PER_THREAD: usize = 6;

/// Groups of rows of one piece of a job of so many multiplications, `of_group` to a group.
fn groups_of_piece(products: usize, of_group: usize) -> usize {
    #[cfg(target_arch = "wasm32")]
    {
        let _ = products;
        (PIECE / of_group.max(1)).max(1)
    }
    #[cfg(not(target_arch = "wasm32"))]
    {
        let [least, most] = PIECES;
        let piece = (products / (PIECES_PER_THREAD * pool::threads())).clamp(least, most);
        // Two groups share a look at activations.
        (piece / of_group.max(1)).max(2).next_multiple_of(2)
    }
}

/// Activations `[m, cols]`, and the same in eight bits, with one scale to 32: what planar matrices are multiplied with.
#[derive(Debug, Default)]
pub struct Activations {
    m: usize,
    cols: usize,
    values: Vec<f32>,
    /// Four columns interleaved, for as many fours as there are; the rest one by one. So are the others.
    wide: Vec<[i16; 2]>,
    codes: Vec<[i8; 4]>,
    sign_magnitude: Vec<SignMagnitude>,
    stats: Vec<BlockStats>,
    /// For native tiles: see `native::activations`.
    #[cfg(not(target_arch = "wasm32"))]
    native: Vec<u32>,
}

impl Activations {
    /// Takes the size of `m` rows of `cols`; the values are to be written next.
    pub fn prepare(&mut self, m: usize, cols: usize) -> &mut [f32] {
        (self.m, self.cols) = (m, cols);
        self.values.resize(m * cols, 0.0);
        &mut self.values
    }

    /// `[m, cols]`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Rounds to eight bits.
    fn quantise(&mut self, forms: ActivationForms) {
        let (fours, blocks) = (self.values.len() / 4, self.cols / BLOCK);
        // What is left in the other forms is not looked at.
        if forms.wide {
            self.wide.resize(2 * fours, [0; 2]);
        }
        if forms.codes {
            self.codes.resize(fours, [0; 4]);
        }
        if forms.sign_magnitude {
            self.sign_magnitude.resize(fours, [[0; 4]; 2]);
        }
        self.stats.resize(self.m * blocks, BlockStats::default());
        let job = Rounding {
            forms,
            m: self.m,
            cols: self.cols,
            values: &self.values,
            wide: Places::new(&mut self.wide),
            codes: Places::new(&mut self.codes),
            sign_magnitude: Places::new(&mut self.sign_magnitude),
            stats: Places::new(&mut self.stats),
        };
        pool::run(&job, self.m.div_ceil(TILE), Work { columns: self.m, products: 0 });
    }

    /// Columns i to i + C − 1, which were interleaved.
    #[inline(always)]
    fn columns<const C: usize>(&self, i: usize) -> Columns<'_, C> {
        let blocks = self.cols / BLOCK;
        let fours = i * blocks * 8..(i + C) * blocks * 8;
        Columns {
            wide: self.wide.get(2 * fours.start..2 * fours.end).unwrap_or_default().as_chunks::<C>().0.as_chunks().0,
            codes: self.codes.get(fours.clone()).unwrap_or_default().as_chunks::<C>().0.as_chunks().0,
            sign_magnitude: self.sign_magnitude.get(fours).unwrap_or_default().as_chunks::<C>().0.as_chunks().0,
            stats: self.stats[i * blocks..(i + C) * blocks].as_chunks().0,
        }
    }
}

/// See [`Activations`]; a piece is a tile of columns.
struct Rounding<'a> {
    forms: ActivationForms,
    m: usize,
    cols: usize,
    values: &'a [f32],
    wide: Places<'a, [i16; 2]>,
    codes: Places<'a, [i8; 4]>,
    sign_magnitude: Places<'a, SignMagnitude>,
    stats: Places<'a, BlockStats>,
}

impl Job for Rounding<'_> {
    fn piece(&self, piece: usize) {
        let blocks = self.cols / BLOCK;
        for i in piece * TILE..(piece * TILE + TILE).min(self.m) {
            let tile = if i < self.m / TILE * TILE { TILE } else { 1 };
            let (first, c) = (i / tile * tile * blocks, i % tile);
            let x = &self.values[i * self.cols..][..self.cols];
            for (block, x) in x.as_chunks::<BLOCK>().0.iter().enumerate() {
                let (codes, stats) = tile::rounded(x);
                let place = first + block * tile;
                if self.forms.wide {
                    for (k, pair) in codes.as_chunks().0.iter().enumerate() {
                        self.wide.write(place * 16 + k * tile + c, &[*pair]);
                    }
                }
                if self.forms.codes {
                    for (k, four) in codes.map(|code| code as i8).as_chunks().0.iter().enumerate() {
                        self.codes.write(place * 8 + k * tile + c, &[*four]);
                    }
                }
                if self.forms.sign_magnitude {
                    let sizes = codes.map(|code| code.unsigned_abs() as u8);
                    let signs = codes.map(|code| (code >> 15) as u8);
                    for (k, (size, sign)) in sizes.as_chunks().0.iter().zip(signs.as_chunks().0).enumerate() {
                        self.sign_magnitude.write(place * 8 + k * tile + c, &[[*size, *sign]]);
                    }
                }
                self.stats.write(place + c, &[stats]);
            }
        }
    }
}

/// Writes `[m, Σ rows]` to `out`: every row holds the products with all `parts`, one after the other.
pub fn multiply(parts: &[&Matrix], x: &mut Activations, out: &mut Vec<f32>) {
    let mut forms = ActivationForms::default();
    for part in parts {
        match &part.store {
            Store::Planar(planar) => forms.add(planar.codes_are, planar.order),
            #[cfg(not(target_arch = "wasm32"))]
            Store::Packed(_) => forms.native = true,
            _ => {}
        }
    }
    #[cfg(not(target_arch = "wasm32"))]
    if std::mem::take(&mut forms.native) {
        native::round(&x.values, x.m, x.cols, &mut x.native);
    }
    if forms != ActivationForms::default() {
        x.quantise(forms);
    }
    let width = parts.iter().map(|part| part.rows).sum::<usize>();
    out.resize(x.m * width, 0.0);
    let products = x.m * x.cols * width;
    let piece_groups = groups_of_piece(products, GROUP * x.cols * x.m);
    let pieces = parts.iter().map(|part| part.rows.div_ceil(GROUP).div_ceil(piece_groups)).sum();
    let job = Product { parts, x, width, piece_groups, out: Places::new(out) };
    pool::run(&job, pieces, Work { columns: x.m, products });
}

struct Product<'a> {
    parts: &'a [&'a Matrix],
    x: &'a Activations,
    width: usize,
    /// Groups of rows of one piece.
    piece_groups: usize,
    out: Places<'a, f32>,
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
            Store::Planar(planar) => {
                tile::choose(planar.codes_are, planar.order, Rows { product: self, part, planar, start, groups });
            }
            #[cfg(not(target_arch = "wasm32"))]
            Store::Packed(packed) => {
                let (rows, m) = (part.rows, self.x.m);
                native::products(packed, groups, &self.x.native, m, |column, group, sums| {
                    let row = group * GROUP;
                    let sums = &sums[..GROUP.min(rows - row)];
                    self.out.write(column * self.width + start + row, sums);
                });
            }
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
    fn long_half(&self, format: crate::blocks::GgmlType, bytes: &[u8], buffer: &mut [f32], row: usize) {
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
}

/// Some groups of rows of a planar matrix times all columns.
struct Rows<'a> {
    product: &'a Product<'a>,
    part: &'a Matrix,
    planar: &'a Planar,
    /// Of the output, for the first row of `part`.
    start: usize,
    groups: std::ops::Range<usize>,
}

impl Task for Rows<'_> {
    // All kernels in one function would be too much for an engine to compile well.
    #[inline(never)]
    fn run<K: Kernel>(self) {
        let m = self.product.x.m;
        for group in self.groups.clone() {
            let weights = self.weights(group);
            for i in (0..m / TILE * TILE).step_by(TILE) {
                self.write(i, group, &K::products(&weights, &self.product.x.columns::<TILE>(i)));
            }
            for i in m / TILE * TILE..m {
                self.write(i, group, &K::products(&weights, &self.product.x.columns::<1>(i)));
            }
        }
    }
}

impl Rows<'_> {
    #[inline(always)]
    fn weights(&self, group: usize) -> Weights<'_> {
        let (planar, are) = (self.planar, self.planar.codes_are);
        let blocks = self.part.cols / BLOCK;
        let (first, codes, parts) = (group * blocks, are.bytes(), are.parts());
        let above = first / are.shared() * GROUP..(first + blocks) / are.shared() * GROUP;
        // In parts of a block; where blocks share a scale, in scales.
        let of_scales =
            if are.shared() > 1 { above.clone() } else { first * parts * GROUP..(first + blocks) * parts * GROUP };
        Weights {
            codes: &planar.codes[first * codes..][..blocks * codes],
            scales: &planar.scales[of_scales],
            factors: planar.factors.get(first * parts * GROUP..(first + blocks) * parts * GROUP).unwrap_or_default(),
            minima: planar.minima.get(above).unwrap_or_default(),
            offset: planar.offset,
        }
    }

    #[inline(always)]
    fn write<const C: usize>(&self, i: usize, group: usize, sums: &[[f32; GROUP]; C]) {
        let Product { width, ref out, .. } = *self.product;
        let row = group * GROUP;
        let rows = self.part.rows - row;
        for (c, sums) in sums.iter().enumerate() {
            let at = (i + c) * width + self.start + row;
            if rows >= GROUP {
                // Of constant size: no call.
                out.write(at, &sums[..GROUP]);
            } else {
                out.write(at, &sums[..rows]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::{self, GgmlType};

    /// Every format against sums over its values with the rounded activations, in double precision.
    #[test]
    fn products_are_those_of_the_values() {
        use GgmlType::{Bf16, F16, F32, Iq4Nl, Iq4Xs, Q1_0, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
        let mut state = 5u32;
        let mut random = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        };
        for format in [F32, F16, Bf16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4K, Q5K, Q6K, Q3K, Q2K, Iq4Nl, Iq4Xs, Q1_0] {
            for (rows, cols, m) in [(7, 512, 1), (10, 256, 6), (4, 768, 4)] {
                let mut bytes: Vec<u8> = (0..rows * format.row_bytes(cols).unwrap()).map(|_| random() as u8).collect();
                let (_, size) = format.block();
                for block in bytes.chunks_exact_mut(size) {
                    // Scales of sensible size.
                    for at in format.halves() {
                        block[*at + 1] = 0x20 | block[*at + 1] & 0x83;
                    }
                }
                if format == F32 {
                    bytes = (0..rows * cols).flat_map(|_| (random() as f32 / 2e7 - 0.4).to_le_bytes()).collect();
                }
                let values = blocks::values(format, &bytes);
                let matrix = Matrix::portable(format, rows, cols, &bytes, false).unwrap();
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
                            let pair = i / tile * tile * (cols / 2) + col / 2 * tile + i % tile;
                            f64::from(x.wide[pair][col % 2]) * f64::from(x.stats[block].scale)
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

    /// A model of NaN and infinity ends in NaN or infinity, not in a panic.
    #[test]
    fn nan_and_infinity_do_not_panic() {
        for format in [GgmlType::Q4_0, GgmlType::Q4K, GgmlType::Q6K, GgmlType::Q8_0] {
            let (rows, cols) = (9, 256);
            let bytes = vec![0xff; rows * format.row_bytes(cols).unwrap()];
            let matrix = Matrix::new(format, rows, cols, &bytes, false).unwrap();
            for x in [f32::from_bits(0x7fff_ffff), f32::from_bits(0xffff_8000), f32::INFINITY, f32::MAX] {
                let (mut activations, mut out) = (Activations::default(), Vec::new());
                activations.prepare(5, cols).fill(x);
                multiply(&[&matrix], &mut activations, &mut out);
                assert_eq!(out.len(), 5 * rows);
            }
        }
    }
}
