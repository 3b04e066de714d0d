//! Matrices as they are multiplied.
//!
//! Eight rows are interleaved, two or four codes of each in turn ([`Order`]): one product of a vector with as many
//! activations, repeated, leaves one sum to a row in each lane. Scales and minima lie apart, as singles, eight rows beside
//! each other, so that they are vectors too. The last rows are padded with zeros to a group of eight.

use half::f16;

use crate::blocks::{self, BLOCK, GgmlType, IQ4_LEVELS};
use crate::fill::Cells;
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

/// Why a matrix cannot be made: its size is not what was said, or more than there is memory for.
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
            Store::Single(zeroed(rows.checked_mul(cols).ok_or(WrongSize)?)?)
        } else if !format.is_quantised() {
            Store::Half(format, zeroed(bytes)?)
        } else {
            Store::Planar(Planar::zeros(format, tile::order(Codes::of(format)), rows, cols)?)
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
            Store::Planar(planar)
                if format.is_quantised()
                    && Codes::of(format) == planar.codes_are
                    && planar.offset == format.offset() =>
            {
                planar.cells().put_rows(format, first, row_bytes, bytes);
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
            let mut planar = Planar::zeros(format, tile::order(Codes::of(format)), rows, cols)?;
            planar.cells().put_rows(format, 0, row_bytes, bytes);
            Store::Planar(planar)
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

/// Bytes that a matrix takes with the tiles that every machine runs, which are a page's; what [`Matrix::bytes`] then says.
/// `None` where `cols` is not whole blocks.
pub fn portable_bytes(format: GgmlType, rows: usize, cols: usize, as_singles: bool) -> Option<u64> {
    let row_bytes = format.row_bytes(cols)?;
    if as_singles || format == GgmlType::F32 {
        return Some(4 * rows as u64 * cols as u64);
    }
    if !format.is_quantised() {
        return Some(rows as u64 * row_bytes as u64);
    }
    let are = Codes::of(format);
    let places = rows.div_ceil(GROUP) as u64 * (cols / BLOCK) as u64;
    let singles = places / are.shared() as u64 * GROUP as u64;
    let parts = places * are.parts() as u64;
    let scales = if are.has_factors() { singles * 4 + parts * GROUP as u64 } else { singles * are.parts() as u64 * 4 };
    let minima = if format.has_minima() { singles * 4 } else { 0 };
    Some(places * are.bytes() as u64 + scales + minima)
}

/// So many zeros. A page's memory may end here, which is no reason to end with it.
fn zeroed<T: Copy + Default>(count: usize) -> Result<Vec<T>, WrongSize> {
    let mut zeros = Vec::new();
    zeros.try_reserve_exact(count).map_err(|_| WrongSize)?;
    zeros.resize(count, T::default());
    Ok(zeros)
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
    fn zeros(format: GgmlType, order: Order, rows: usize, cols: usize) -> Result<Self, WrongSize> {
        let codes_are = Codes::of(format);
        let places = rows.div_ceil(GROUP) * (cols / BLOCK);
        let parts = if codes_are.has_factors() { 1 } else { codes_are.parts() };
        let singles = places / codes_are.shared() * GROUP;
        Ok(Self {
            codes: zeroed(places * codes_are.bytes())?,
            codes_are,
            order,
            offset: format.offset(),
            scales: zeroed(singles * parts)?,
            factors: zeroed(if codes_are.has_factors() { places * codes_are.parts() * GROUP } else { 0 })?,
            minima: zeroed(if format.has_minima() { singles } else { 0 })?,
        })
    }

    /// All of it, to be filled.
    fn cells(&mut self) -> Cells<'_> {
        Cells {
            codes_are: self.codes_are,
            order: self.order,
            codes: &mut self.codes,
            scales: &mut self.scales,
            factors: &mut self.factors,
            minima: &mut self.minima,
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
                    let portable = Matrix::portable(format, rows, cols, &bytes, false).unwrap();
                    assert_eq!(portable_bytes(format, rows, cols, false), Some(portable.bytes() as u64), "{format:?}");
                    for order in [Order::Pairs, Order::Fours] {
                        // At once, and in two pieces that part a group, the later one first.
                        for cut in [0, 9] {
                            let mut planar = Planar::zeros(format, order, rows, cols).unwrap();
                            let row_bytes = bytes.len() / rows;
                            planar.cells().put_rows(format, cut, row_bytes, &bytes[cut * row_bytes..]);
                            planar.cells().put_rows(format, 0, row_bytes, &bytes[..cut * row_bytes]);
                            planar.row(row, cols, &mut out);
                            let same = out.iter().zip(expect).all(|(a, b)| a.to_bits() == b.to_bits() || a == b);
                            assert!(same, "{format:?} {order:?} {row} {cut}");
                        }
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
            let half_rows = vec![0; 8 * GgmlType::F16.row_bytes(cols).unwrap()];
            let refused = pieces.put_rows(GgmlType::F16, 0, &half_rows);
            assert_eq!(
                refused.is_err(),
                !matches!(format, GgmlType::F16 | GgmlType::F32),
                "{format:?}: of another format"
            );
        }
    }
}
