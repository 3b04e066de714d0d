//! What both builds with vectors share.

use std::arch::wasm32::*;

use super::{Columns, Facts, Weights};
use crate::matrix::GROUP;

#[inline(always)]
pub fn load<T: bytemuck::NoUninit>(values: &[T]) -> v128 {
    bytemuck::pod_read_unaligned(bytemuck::cast_slice::<T, u8>(values))
}

/// out + sums · scales · the scale of a column.
#[inline(always)]
pub fn scaled(out: v128, sums: v128, scales: v128, facts: &Facts) -> v128 {
    f32x4_add(out, f32x4_mul(f32x4_convert_i32x4(sums), f32x4_mul(scales, f32x4_splat(facts.scale))))
}

/// out − minima · (Σ codes · scale), after the products: rare formats pay for a second look at the sums.
#[inline(always)]
pub fn less_minima<const C: usize>(out: &mut [v128; C], weights: &Weights<'_>, columns: &Columns<'_, C>) {
    for (facts, minima) in columns.facts.iter().zip(weights.minima.as_chunks::<GROUP>().0) {
        let minima = load(minima);
        for c in 0..C {
            let sum = facts[c].sum() as f32 * facts[c].scale;
            out[c] = f32x4_sub(out[c], f32x4_mul(minima, f32x4_splat(sum)));
        }
    }
}
