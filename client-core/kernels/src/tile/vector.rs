//! What both builds with vectors share.

use std::arch::wasm32::*;

use super::{Columns, Facts, Weights};
use crate::matrix::GROUP;

/// Sums of `C` columns, a lane to each of the eight rows.
pub type Sums<const C: usize> = [[v128; 2]; C];

#[inline(always)]
pub fn load<T: bytemuck::NoUninit>(values: &[T]) -> v128 {
    bytemuck::pod_read_unaligned(bytemuck::cast_slice::<T, u8>(values))
}

#[inline(always)]
fn load_rows(values: &[f32; GROUP]) -> [v128; 2] {
    [load(&values[..4]), load(&values[4..])]
}

/// Adds up, over the blocks, the sums of codes that `sums` returns for one of the `SCALES` parts of a block that have
/// scales of their own, times these; minima are taken off.
#[inline(always)]
pub fn each_block<'a, X, const BYTES: usize, const SCALES: usize, const C: usize>(
    weights: &Weights<'a>,
    columns: &Columns<'a, C>,
    x: &'a [X],
    sums: impl Fn(usize, &'a [u8; BYTES], &'a X, &'a [Facts; C]) -> Sums<C>,
) -> [[f32; GROUP]; C] {
    let mut out = [[f32x4_splat(0.0); 2]; C];
    let codes = weights.codes.as_chunks::<BYTES>().0;
    let scales = weights.scales.as_chunks::<GROUP>().0.as_chunks::<SCALES>().0;
    for ((codes, scales), (x, facts)) in codes.iter().zip(scales).zip(x.iter().zip(columns.facts)) {
        for (part, scales) in scales.iter().enumerate() {
            let (sums, scales) = (sums(part, codes, x, facts), load_rows(scales));
            for c in 0..C {
                for r in 0..2 {
                    let scale = f32x4_mul(scales[r], f32x4_splat(facts[c].scale));
                    out[c][r] = f32x4_add(out[c][r], f32x4_mul(f32x4_convert_i32x4(sums[c][r]), scale));
                }
            }
        }
    }
    // After the products: rare formats pay for a second look at the sums of activations.
    for (facts, minima) in columns.facts.iter().zip(weights.minima.as_chunks::<GROUP>().0) {
        let minima = load_rows(minima);
        for c in 0..C {
            let sum = f32x4_splat(facts[c].sum() as f32 * facts[c].scale);
            for r in 0..2 {
                out[c][r] = f32x4_sub(out[c][r], f32x4_mul(minima[r], sum));
            }
        }
    }
    out.map(bytemuck::cast)
}
