//! Matrices as they are multiplied.
//!
//! Eight rows are interleaved, two or four codes of each in turn ([`Order`]): one product of a vector with as many
//! activations, repeated, leaves one sum to a row in each lane. Scales and minima lie apart, as singles, eight rows beside
//! each other, so that they are vectors too. The last rows are padded with zeros to a group of eight.

use half::f16;

use crate::blocks::{self, BLOCK, GgmlType, ScaledRun};
use crate::layout::{Codes, EIGHT_BYTES, FOUR_BYTES, GROUP, Order};
#[cfg(not(target_arch = "wasm32"))]
use crate::native::{self, packed::Packed};
use crate::tile;

/// A matrix `[rows, cols]` in one of the forms that can be multiplied.
#[derive(Debug)]
pub struct Matrix {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Its elements.
    pub store: Store,
}

/// Elements of a matrix.
#[derive(Debug)]
pub enum Store {
    /// `[rows, cols]`.
    Single(Vec<f32>),
    /// `[rows, cols]` in half precision or as the upper halves of singles, turned into singles row by row.
    Half(GgmlType, Vec<u8>),
    /// Codes with scales, for the tiles of this build.
    Planar(Planar),
    /// Codes with scales, for the native tiles that this machine runs.
    #[cfg(not(target_arch = "wasm32"))]
    Packed(Packed),
}

/// Codes, scales and minima, group of rows by group of rows, block of 32 columns by block.
#[derive(Debug)]
pub struct Planar {
    /// `[groups][blocks][256]` bytes of eight-bit codes, or `[128]` of four-bit ones, which hold columns 0 to 15 of a block
    /// below and columns 16 to 31 above.
    pub codes: Vec<u8>,
    /// What the codes are.
    pub codes_are: Codes,
    /// How they lie in a block.
    pub order: Order,
    /// What is taken from every code.
    pub offset: i8,
    /// `[groups][blocks][8]`, or `[2][8]` where the halves of a block have scales of their own.
    pub scales: Vec<f32>,
    /// `[groups][blocks][8]`; empty where all are 0.
    pub minima: Vec<f32>,
}

/// Why a matrix cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrongSize;

impl Matrix {
    /// Takes `rows · row_bytes(cols)` bytes of `format`. Quantised models of few parameters are better held as singles
    /// (`as_singles`): exact, and on small matrices as fast.
    ///
    /// # Errors
    /// The bytes are not that many, or `cols` is not whole blocks.
    pub fn new(format: GgmlType, rows: usize, cols: usize, bytes: &[u8], as_singles: bool) -> Result<Self, WrongSize> {
        #[cfg(not(target_arch = "wasm32"))]
        if native::isa().is_some() {
            row_bytes(format, rows, cols, bytes)?;
            let mut matrix = Self::zeros(format, rows, cols, as_singles)?;
            matrix.put_rows(format, 0, bytes)?;
            return Ok(matrix);
        }
        Self::portable(format, rows, cols, bytes, as_singles)
    }

    /// A matrix whose rows come in pieces ([`put_rows`](Self::put_rows)), in the form that [`new`](Self::new) would give it.
    ///
    /// # Errors
    /// `cols` is not whole blocks, or there are no rows.
    pub fn zeros(format: GgmlType, rows: usize, cols: usize, as_singles: bool) -> Result<Self, WrongSize> {
        let row_bytes = format.row_bytes(cols).filter(|_| rows > 0 && cols > 0).ok_or(WrongSize)?;
        let bytes = row_bytes.checked_mul(rows).ok_or(WrongSize)?;
        let store = if as_singles || format == GgmlType::F32 {
            Store::Single(vec![0.0; rows.checked_mul(cols).ok_or(WrongSize)?])
        } else if !format.is_quantised() {
            Store::Half(format, vec![0; bytes])
        } else {
            #[cfg(not(target_arch = "wasm32"))]
            if native::isa().is_some()
                && let Some(packed) = Packed::zeros(format, rows, cols)
            {
                return Ok(Self { rows, cols, store: Store::Packed(packed) });
            }
            Store::Planar(Planar::zeros(format, tile::order(Codes::of(format)), rows, cols))
        };
        Ok(Self { rows, cols, store })
    }

    /// Puts whole rows of `format` in, from number `first` on: with [`zeros`](Self::zeros), a matrix from a file of which
    /// only a part is in memory at a time.
    ///
    /// # Errors
    /// They are no whole rows of the format that the matrix was made for, or more than it has.
    pub fn put_rows(&mut self, format: GgmlType, first: usize, bytes: &[u8]) -> Result<(), WrongSize> {
        let row_bytes = format.row_bytes(self.cols).ok_or(WrongSize)?;
        let rows = bytes.len() / row_bytes;
        let fits = bytes.len().is_multiple_of(row_bytes) && first.checked_add(rows).is_some_and(|end| end <= self.rows);
        if !fits {
            return Err(WrongSize);
        }
        match &mut self.store {
            Store::Single(values) => {
                blocks::decode(format, bytes, &mut values[first * self.cols..][..rows * self.cols]);
            }
            Store::Half(of, all) if *of == format => {
                all[first * row_bytes..][..bytes.len()].copy_from_slice(bytes);
            }
            #[cfg(not(target_arch = "wasm32"))]
            Store::Packed(packed) if packed.format == format => {
                for (row, bytes) in bytes.chunks_exact(row_bytes).enumerate() {
                    packed.put_row(first + row, bytes);
                }
            }
            Store::Planar(planar) if Codes::of(format) == planar.codes_are && planar.offset == format.offset() => {
                for (row, bytes) in bytes.chunks_exact(row_bytes).enumerate() {
                    planar.put_row(format, first + row, self.cols, bytes);
                }
            }
            _ => return Err(WrongSize),
        }
        Ok(())
    }

    /// As [`new`](Self::new), but never for tiles that only some machines run: what these are compared with.
    ///
    /// # Errors
    /// As there.
    pub fn portable(
        format: GgmlType,
        rows: usize,
        cols: usize,
        bytes: &[u8],
        as_singles: bool,
    ) -> Result<Self, WrongSize> {
        let row_bytes = row_bytes(format, rows, cols, bytes)?;
        let store = if as_singles || format == GgmlType::F32 {
            Store::Single(blocks::values(format, bytes))
        } else if format.is_quantised() {
            Store::Planar(Planar::new(format, tile::order(Codes::of(format)), cols, bytes.chunks_exact(row_bytes)))
        } else {
            Store::Half(format, bytes.to_vec())
        };
        Ok(Self { rows, cols, store })
    }

    /// Row number `row` as singles into `out`, `[cols]`. Nothing is written past the last row.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        match &self.store {
            Store::Single(values) => {
                if let Some(values) = values.chunks_exact(self.cols).nth(row) {
                    out.copy_from_slice(values);
                }
            }
            Store::Half(format, bytes) => {
                if let Some(bytes) = bytes.chunks_exact(2 * self.cols).nth(row) {
                    halves(*format, bytes, out);
                }
            }
            Store::Planar(planar) => planar.row(row, self.cols, out),
            #[cfg(not(target_arch = "wasm32"))]
            Store::Packed(packed) => packed.row(row, out),
        }
    }

    /// Bytes that the elements take here.
    pub fn bytes(&self) -> usize {
        match &self.store {
            Store::Single(values) => 4 * values.len(),
            Store::Half(_, bytes) => bytes.len(),
            Store::Planar(p) => p.codes.len() + 4 * (p.scales.len() + p.minima.len()),
            #[cfg(not(target_arch = "wasm32"))]
            Store::Packed(packed) => packed.bytes(),
        }
    }
}

/// Bytes of a row, where `bytes` are all of them.
fn row_bytes(format: GgmlType, rows: usize, cols: usize, bytes: &[u8]) -> Result<usize, WrongSize> {
    let row_bytes = format.row_bytes(cols).filter(|_| rows > 0 && cols > 0).ok_or(WrongSize)?;
    if row_bytes.checked_mul(rows) == Some(bytes.len()) { Ok(row_bytes) } else { Err(WrongSize) }
}

/// A row of two-byte elements as singles.
pub(crate) fn halves(format: GgmlType, bytes: &[u8], out: &mut [f32]) {
    let words = bytes.as_chunks::<2>().0;
    if format == GgmlType::Bf16 {
        for (y, raw) in out.iter_mut().zip(words) {
            *y = f32::from_bits(u32::from(u16::from_le_bytes(*raw)) << 16);
        }
        return;
    }
    for (y, raw) in out.iter_mut().zip(words) {
        let bits = u32::from(u16::from_le_bytes(*raw));
        let magnitude = bits & 0x7fff;
        // Shifted into a single's fields the exponent is 112 too small; multiplying mends subnormal numbers as well.
        let finite = f32::from_bits(magnitude << 13) * f32::from_bits(0x7780_0000);
        *y = f32::from_bits(finite.to_bits() | (bits & 0x8000) << 16);
        if magnitude >= 0x7c00 {
            *y = f16::from_le_bytes(*raw).to_f32();
        }
    }
}

impl Planar {
    fn new<'a>(format: GgmlType, order: Order, cols: usize, rows: impl ExactSizeIterator<Item = &'a [u8]>) -> Self {
        let mut planar = Self::zeros(format, order, rows.len(), cols);
        for (row, bytes) in rows.enumerate() {
            planar.put_row(format, row, cols, bytes);
        }
        planar
    }

    fn zeros(format: GgmlType, order: Order, rows: usize, cols: usize) -> Self {
        let codes_are = Codes::of(format);
        let with_minima = matches!(format, GgmlType::Q4_1 | GgmlType::Q5_1 | GgmlType::Q4K | GgmlType::Q5K);
        let places = rows.div_ceil(GROUP) * (cols / BLOCK);
        Self {
            codes: vec![0; places * codes_are.bytes()],
            codes_are,
            order,
            offset: format.offset(),
            scales: vec![0.0; places * codes_are.scales()],
            minima: vec![0.0; if with_minima { places * GROUP } else { 0 }],
        }
    }

    fn put_row(&mut self, format: GgmlType, row: usize, cols: usize, bytes: &[u8]) {
        let mut place = row / GROUP * (cols / BLOCK);
        for block in bytes.chunks_exact(format.block().1) {
            blocks::runs(format, block, |run| {
                self.put(place, row % GROUP, &run);
                place += 1;
            });
        }
    }

    fn put(&mut self, place: usize, row: usize, run: &ScaledRun) {
        let order = self.order;
        if self.codes_are == Codes::Four {
            let codes = &mut self.codes[place * FOUR_BYTES..][..FOUR_BYTES];
            for (col, (low, high)) in run.codes[..16].iter().zip(&run.codes[16..]).enumerate() {
                codes[order.place(row, col)] = *low as u8 | (*high as u8) << 4;
            }
        } else {
            let codes = &mut self.codes[place * EIGHT_BYTES..][..EIGHT_BYTES];
            for (col, code) in run.codes.iter().enumerate() {
                codes[order.place(row, col)] = *code as u8;
            }
        }
        if self.codes_are == Codes::SixSplit {
            self.scales[(2 * place) * GROUP + row] = run.scales[0];
            self.scales[(2 * place + 1) * GROUP + row] = run.scales[1];
        } else {
            self.scales[place * GROUP + row] = run.scales[0];
        }
        if let Some(minimum) = self.minima.get_mut(place * GROUP + row) {
            *minimum = run.minimum;
        }
    }

    fn row(&self, row: usize, cols: usize, out: &mut [f32]) {
        let (first, row) = (row / GROUP * (cols / BLOCK), row % GROUP);
        for (block, out) in out.chunks_exact_mut(BLOCK).enumerate() {
            let place = first + block;
            for (col, y) in out.iter_mut().enumerate() {
                let code = if self.codes_are == Codes::Four {
                    let byte = self.codes[place * FOUR_BYTES + self.order.place(row, col % 16)];
                    i32::from(if col < 16 { byte & 15 } else { byte >> 4 })
                } else {
                    i32::from(self.codes[place * EIGHT_BYTES + self.order.place(row, col)] as i8)
                };
                let scale = match self.codes_are == Codes::SixSplit {
                    true => self.scales[(2 * place + col / 16) * GROUP + row],
                    false => self.scales[place * GROUP + row],
                };
                let minimum = self.minima.get(place * GROUP + row).copied().unwrap_or(0.0);
                *y = scale * (code - i32::from(self.offset)) as f32 - minimum;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_every_bit_pattern() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let mut out = vec![0.0; 1 << 16];
        halves(GgmlType::F16, &bytes, &mut out);
        for (bits, y) in (0..=u16::MAX).zip(out) {
            let expect = f16::from_bits(bits).to_f32();
            assert!(y.to_bits() == expect.to_bits() || y.is_nan() && expect.is_nan(), "{bits:#x}: {y} {expect}");
        }
    }

    /// What is read back from the planar form is what the blocks say, for every format and order and for rows that fill no
    /// group.
    #[test]
    fn rows_are_what_was_put_in() {
        for format in GgmlType::ALL {
            let (rows, cols) = (14, 512);
            let mut state = 7u32;
            let mut bytes: Vec<u8> = (0..rows * format.row_bytes(cols).unwrap())
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                })
                .collect();
            // Finite scales: exponents of all half-precision fields are cut down.
            for at in (1..bytes.len()).step_by(2) {
                bytes[at] &= 0xbf;
            }
            let expect = blocks::values(format, &bytes);
            let matrix = Matrix::new(format, rows, cols, &bytes, false).unwrap();
            for (row, expect) in expect.chunks_exact(cols).enumerate() {
                let mut out = vec![0.0; cols];
                matrix.row(row, &mut out);
                assert!(out.iter().zip(expect).all(|(a, b)| a.to_bits() == b.to_bits() || a == b), "{format:?} {row}");
                if format.is_quantised() {
                    for order in [Order::Pairs, Order::Fours] {
                        let planar = Planar::new(format, order, cols, bytes.chunks_exact(bytes.len() / rows));
                        planar.row(row, cols, &mut out);
                        let same = out.iter().zip(expect).all(|(a, b)| a.to_bits() == b.to_bits() || a == b);
                        assert!(same, "{format:?} {order:?} {row}");
                    }
                }
            }
            assert_eq!(Matrix::new(format, rows, cols, &bytes[1..], false).unwrap_err(), WrongSize);
            let (row_bytes, mut pieces) = (bytes.len() / rows, Matrix::zeros(format, rows, cols, false).unwrap());
            for (first, bytes) in [(9, &bytes[9 * row_bytes..]), (0, &bytes[..9 * row_bytes])] {
                pieces.put_rows(format, first, bytes).unwrap();
            }
            for (row, expect) in expect.chunks_exact(cols).enumerate() {
                let mut out = vec![0.0; cols];
                pieces.row(row, &mut out);
                assert!(out.iter().zip(expect).all(|(a, b)| a.to_bits() == b.to_bits() || a == b), "{format:?} {row}");
            }
            assert_eq!(pieces.put_rows(format, 9, &bytes[8 * row_bytes..]), Err(WrongSize), "past the end");
            assert_eq!(pieces.put_rows(format, 0, &bytes[1..row_bytes]), Err(WrongSize), "no whole row");
        }
    }
}
