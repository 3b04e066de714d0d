//! Matrices as they are multiplied.
//!
//! Eight rows are interleaved, two or four codes of each in turn ([`Order`]): one product of a vector with as many
//! activations, repeated, leaves one sum to a row in each lane. Scales and minima lie apart, as singles, eight rows beside
//! each other, so that they are vectors too. The last rows are padded with zeros to a group of eight.

use half::f16;

use crate::blocks::{self, BLOCK, GgmlType, IQ4_LEVELS, ScaledRun};
use crate::layout::{Codes, GROUP, Order};
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
    /// `[groups][blocks][Codes::bytes]`: 256 bytes of eight-bit codes, or 128 of four-bit ones, which hold columns 0 to 15
    /// of a block below and columns 16 to 31 above; see [`Codes`].
    pub codes: Vec<u8>,
    /// What the codes are.
    pub codes_are: Codes,
    /// How they lie in a block.
    pub order: Order,
    /// What is taken from every code.
    pub offset: i8,
    /// `[groups][blocks][8]`, or `[2][8]` where the halves of a block have scales of their own; with
    /// [`Codes::shared`] `[groups][blocks / shared][8]`.
    pub scales: Vec<f32>,
    /// What the scales are multiplied with, `[groups][blocks][Codes::parts][8]`; empty but with [`Codes::has_factors`].
    pub factors: Vec<u8>,
    /// `[groups][blocks / shared][8]`; empty where all are 0.
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
        #[cfg(not(target_arch = "wasm32"))]
        if !as_singles
            && native::isa().is_some()
            && format.row_bytes(cols).is_some_and(|_| rows > 0 && cols > 0)
            && let Some(packed) = Packed::zeros(format, rows, cols)
        {
            return Ok(Self { rows, cols, store: Store::Packed(packed) });
        }
        Self::zeros_portable(format, rows, cols, as_singles)
    }

    /// As [`zeros`](Self::zeros), but never for tiles that only some machines run.
    ///
    /// # Errors
    /// As there.
    pub fn zeros_portable(format: GgmlType, rows: usize, cols: usize, as_singles: bool) -> Result<Self, WrongSize> {
        let row_bytes = format.row_bytes(cols).filter(|_| rows > 0 && cols > 0).ok_or(WrongSize)?;
        let bytes = row_bytes.checked_mul(rows).ok_or(WrongSize)?;
        let store = if as_singles || format == GgmlType::F32 {
            Store::Single(vec![0.0; rows.checked_mul(cols).ok_or(WrongSize)?])
        } else if !format.is_quantised() {
            Store::Half(format, vec![0; bytes])
        } else {
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
                packed.put_rows(first, row_bytes, bytes);
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
            Store::Planar(p) => p.codes.len() + p.factors.len() + 4 * (p.scales.len() + p.minima.len()),
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
        let places = rows.div_ceil(GROUP) * (cols / BLOCK);
        let parts = if codes_are.has_factors() { 1 } else { codes_are.parts() };
        let singles = places / codes_are.shared() * GROUP;
        Self {
            codes: vec![0; places * codes_are.bytes()],
            codes_are,
            order,
            offset: format.offset(),
            scales: vec![0.0; singles * parts],
            factors: vec![0; if codes_are.has_factors() { places * codes_are.parts() * GROUP } else { 0 }],
            minima: vec![0.0; if format.has_minima() { singles } else { 0 }],
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
        let (order, are) = (self.order, self.codes_are);
        let codes = &mut self.codes[place * are.bytes()..][..are.bytes()];
        match are {
            Codes::Four | Codes::Levels | Codes::LevelsSuper => {
                for (col, (low, high)) in run.codes[..16].iter().zip(&run.codes[16..]).enumerate() {
                    codes[order.place(row, col)] = *low as u8 | (*high as u8) << 4;
                }
            }
            Codes::Six | Codes::SixSplit | Codes::Eight => {
                for (col, code) in run.codes.iter().enumerate() {
                    codes[order.place(row, col)] = *code as u8;
                }
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

    fn row(&self, row: usize, cols: usize, out: &mut [f32]) {
        let are = self.codes_are;
        let (first, row) = (row / GROUP * (cols / BLOCK), row % GROUP);
        for (block, out) in out.chunks_exact_mut(BLOCK).enumerate() {
            let place = first + block;
            let codes = &self.codes[place * are.bytes()..][..are.bytes()];
            let above = place / are.shared() * GROUP + row;
            for (half, out) in out.chunks_exact_mut(16).enumerate() {
                let at = (are.parts() * place + half * (are.parts() - 1)) * GROUP + row;
                let factor = self.factors.get(at).copied();
                let (low, high) = match factor {
                    Some(both) if are == Codes::Two => (f32::from(both & 15), f32::from(both >> 4)),
                    Some(factor) => (f32::from(factor as i8), 1.0),
                    None => (1.0, 1.0),
                };
                let scale = low * self.scales[if are.shared() > 1 { above } else { at }];
                let minimum = high * self.minima.get(above).copied().unwrap_or(0.0);
                for (col, y) in (16 * half..).zip(out) {
                    let code = are.planes().get(self.order, row, col, codes);
                    let level = match are {
                        Codes::Levels | Codes::LevelsSuper => i32::from(IQ4_LEVELS[usize::from(code & 15)]),
                        Codes::One => 2 * i32::from(code) - i32::from(self.offset),
                        _ => i32::from(code as i8) - i32::from(self.offset),
                    };
                    *y = scale * level as f32 - minimum;
                }
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
