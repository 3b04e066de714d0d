//! From ggml's blocks to planar matrices, group of rows by group, on as many threads as compute a pass.

use crate::blocks::{self, BLOCK, GgmlType, ScaledRun};
use crate::layout::{Codes, EIGHT_BYTES, GROUP, Order};
use crate::pool::{self, Job, Places, Work};

/// Weights that a thread lays out at once: about a tenth of a millisecond.
const PIECE_WEIGHTS: usize = 1 << 17;
/// Blocks of 32 columns in the largest block of a file.
const MOST_BLOCKS: usize = 8;

/// Codes, scales and minima of a matrix or of some blocks of one, laid out as [`Planar`](crate::matrix::Planar) has them.
pub(crate) struct Cells<'a> {
    pub codes_are: Codes,
    pub order: Order,
    pub codes: &'a mut [u8],
    pub scales: &'a mut [f32],
    pub factors: &'a mut [u8],
    pub minima: &'a mut [f32],
}

impl Cells<'_> {
    /// Puts rows of `row_bytes` bytes each in, from number `first` on, which are rows that the matrix has. Whole groups are
    /// shared among threads.
    pub(crate) fn put_rows(&mut self, format: GgmlType, first: usize, row_bytes: usize, bytes: &[u8]) {
        let (of_block, blocks) = (format.block().0 / BLOCK, row_bytes / format.block().1 * (format.block().0 / BLOCK));
        // Groups that are not whole may hold other rows already.
        let odd = (first.next_multiple_of(GROUP) - first) * row_bytes;
        let (before, whole) = bytes.split_at(odd.min(bytes.len()));
        let (whole, behind) = whole.split_at(whole.len() / (GROUP * row_bytes) * (GROUP * row_bytes));
        let behind_first = first + (before.len() + whole.len()) / row_bytes;
        for (first, rows) in [(first, before), (behind_first, behind)] {
            for (row, bytes) in (first..).zip(rows.chunks_exact(row_bytes)) {
                for (block, bytes) in (0..).zip(bytes.chunks_exact(format.block().1)) {
                    self.put_block(format, row / GROUP * blocks + block * of_block, row % GROUP, bytes);
                }
            }
        }
        let of_group = GROUP * row_bytes;
        let groups = whole.len() / of_group;
        let piece_groups = (PIECE_WEIGHTS / (GROUP * BLOCK * blocks).max(1)).max(1);
        let job = Filling {
            format,
            codes_are: self.codes_are,
            order: self.order,
            blocks,
            row_bytes,
            bytes: whole,
            first: first.div_ceil(GROUP),
            piece_groups,
            codes: Places::new(self.codes),
            scales: Places::new(self.scales),
            factors: Places::new(self.factors),
            minima: Places::new(self.minima),
        };
        let work = Work { columns: 0, products: groups * GROUP * BLOCK * blocks };
        pool::run(&job, groups.div_ceil(piece_groups), work);
    }

    /// Puts a block of the file in: of row `row` of a group, from block number `place` on.
    fn put_block(&mut self, format: GgmlType, place: usize, row: usize, bytes: &[u8]) {
        // A function for each format: browsers are long in compiling large ones, and this is needed for a second.
        macro_rules! by_format {
            ($($format:ident)*) => {
                match format {
                    $(GgmlType::$format => self.put_block_of::<{ GgmlType::$format.id() }>(place, row, bytes),)*
                    GgmlType::F32 | GgmlType::F16 | GgmlType::Bf16 => {}
                }
            };
        }
        by_format!(Q1_0 Q2K Q3K Q4_0 Q4_1 Q4K Q5_0 Q5_1 Q5K Q6K Q8_0 Iq4Nl Iq4Xs);
    }

    #[inline(never)]
    fn put_block_of<const FORMAT: u32>(&mut self, mut place: usize, row: usize, bytes: &[u8]) {
        let Some(format) = GgmlType::from_id(FORMAT) else { return };
        blocks::runs(format, bytes, |run| {
            self.put(Codes::of(format), place, row, &run);
            place += 1;
        });
    }

    /// Puts the run of block number `place` and row `row` of a group in.
    #[inline(always)]
    fn put(&mut self, are: Codes, place: usize, row: usize, run: &ScaledRun) {
        let order = self.order;
        let codes = &mut self.codes[place * are.bytes()..][..are.bytes()];
        match are {
            Codes::Four | Codes::Levels | Codes::LevelsSuper => {
                let both: [u8; 16] = std::array::from_fn(|col| run.codes[col] as u8 | (run.codes[col + 16] as u8) << 4);
                order.put(row, &both, codes);
            }
            Codes::Six | Codes::SixSplit | Codes::Eight => {
                order.put(row, bytemuck::cast_ref::<_, [u8; BLOCK]>(&run.codes), codes);
            }
            Codes::One | Codes::Two | Codes::Three => {
                let halved = u32::from(are == Codes::One);
                for (col, code) in run.codes.iter().enumerate() {
                    are.planes().put(order, row, col, *code as u8 >> halved, codes);
                }
            }
        }
        let (parts, above) = (are.parts(), place / are.shared() * GROUP + row);
        if are.has_factors() {
            self.scales[above] = run.units[0];
            for part in 0..parts {
                let minimum = if are == Codes::Two { run.minima[part] << 4 } else { 0 };
                self.factors[(parts * place + part) * GROUP + row] = run.scales[part] as u8 | minimum;
            }
        } else if are.shared() > 1 {
            self.scales[above] = run.scale(0);
        } else {
            for part in 0..parts {
                self.scales[(parts * place + part) * GROUP + row] = run.scale(part);
            }
        }
        if let Some(minimum) = self.minima.get_mut(above) {
            *minimum = if are.has_factors() { run.units[1] } else { run.minimum(0) };
        }
    }
}

/// Whole groups of rows on their way from a file into a matrix; a piece is some of them.
struct Filling<'a> {
    format: GgmlType,
    codes_are: Codes,
    order: Order,
    /// Blocks of 32 columns of a row.
    blocks: usize,
    row_bytes: usize,
    bytes: &'a [u8],
    /// Number of the first group.
    first: usize,
    piece_groups: usize,
    codes: Places<'a, u8>,
    scales: Places<'a, f32>,
    factors: Places<'a, u8>,
    minima: Places<'a, f32>,
}

impl Job for Filling<'_> {
    fn piece(&self, piece: usize) {
        let from = piece * self.piece_groups;
        let groups = self.bytes.chunks_exact(GROUP * self.row_bytes).enumerate();
        for (group, rows) in groups.skip(from).take(self.piece_groups) {
            self.group(self.first + group, rows);
        }
    }
}

impl Filling<'_> {
    /// Writes a group, one of the file's blocks of all its rows after the other. Helpers cannot allocate, so that it is put
    /// together on the stack.
    fn group(&self, group: usize, rows: &[u8]) {
        let (are, block_bytes) = (self.codes_are, self.format.block().1);
        let count = (self.format.block().0 / BLOCK).min(MOST_BLOCKS);
        let singles = if are.shared() > 1 { count / are.shared() } else { count * are.parts() } * GROUP;
        let minima = count / are.shared() * GROUP;
        let factors = count * are.parts() * GROUP;
        // All of what is written next time: a group has all its rows.
        let mut cells = Cells {
            codes_are: are,
            order: self.order,
            codes: &mut [0; MOST_BLOCKS * EIGHT_BYTES][..count * are.bytes()],
            scales: &mut [0.0; MOST_BLOCKS * 2 * GROUP][..singles],
            factors: &mut [0; MOST_BLOCKS * 2 * GROUP][..if are.has_factors() { factors } else { 0 }],
            minima: &mut [0.0; MOST_BLOCKS * GROUP][..if self.format.has_minima() { minima } else { 0 }],
        };
        for at in 0..self.row_bytes / block_bytes {
            for (row, bytes) in rows.chunks_exact(self.row_bytes).enumerate() {
                cells.put_block(self.format, 0, row, &bytes[at * block_bytes..][..block_bytes]);
            }
            // Everything lies in the order of groups and blocks, as much for each.
            let place = (group * self.blocks) / count + at;
            self.codes.write(place * cells.codes.len(), cells.codes);
            self.scales.write(place * cells.scales.len(), cells.scales);
            self.factors.write(place * cells.factors.len(), cells.factors);
            self.minima.write(place * cells.minima.len(), cells.minima);
        }
    }
}
