//! Causal attention over keys and values in half precision: up to four queries at a time, 32 keys to a step, with a
//! softmax that streams (see the portable [`attention`](crate::attention)). Keys lie in the lanes.

use std::arch::aarch64::*;

use super::math::{capped, exp};
use super::{TWO, halves, singles};
use crate::layout::{KEYS, LANES, MAX_HEAD, NONE, QUERIES, stride};
use crate::native::cache::{HalfCache, Tile};

/// Eights of a step's keys.
const EIGHTS: usize = KEYS / LANES;

/// Attention of the queries of a tile: `write(query, row)` takes their rows, `[head_dim]`.
#[target_feature(enable = "neon,dotprod,fp16")]
pub fn attend(tile: &Tile<'_>, cache: &HalfCache, write: impl FnMut(usize, &[f32])) {
    match tile.q.len() {
        1 => attend_by::<1>(tile, cache, write),
        2 => attend_by::<2>(tile, cache, write),
        3 => attend_by::<3>(tile, cache, write),
        _ => attend_by::<QUERIES>(tile, cache, write),
    }
}

#[target_feature(enable = "neon,dotprod,fp16")]
fn attend_by<const N: usize>(tile: &Tile<'_>, cache: &HalfCache, mut write: impl FnMut(usize, &[f32])) {
    let (head_dim, width) = (tile.shape.head_dim, stride(tile.shape.head_dim));
    let mut sums = [[[vdupq_n_f32(0.0); TWO]; N]; MAX_HEAD / LANES];
    let sums = &mut sums[..width / LANES];
    let total = stream::<N>(tile, cache, sums);
    for (t, total) in total.into_iter().enumerate() {
        let mut row = [0f32; MAX_HEAD];
        for (row, sums) in row.as_chunks_mut::<LANES>().0.iter_mut().zip(sums.iter()) {
            *row = bytemuck::cast(each(sums[t], |sums| vdivq_f32(sums, vdupq_n_f32(total))));
        }
        write(t, &row[..head_dim]);
    }
}

/// Σ exp(score − top) · value into `sums`, `[stride / 8][query]`; returns Σ exp(score − top) of every query.
#[inline(never)]
#[target_feature(enable = "neon,dotprod,fp16")]
fn stream<const N: usize>(tile: &Tile<'_>, cache: &HalfCache, sums: &mut [[[float32x4_t; TWO]; N]]) -> [f32; N] {
    let width = stride(tile.shape.head_dim);
    let (begin, end) = (&tile.begin[..N], &tile.end[..N]);
    let mut q: [&[f32]; N] = [&[]; N];
    for (q, row) in q.iter_mut().zip(tile.q) {
        *q = &row[..width];
    }
    let (mut total, mut top) = ([0f32; N], [NONE; N]);
    // Steps lie at multiples of KEYS, so that a query's sums do not depend on who shares the tile.
    let first = begin.iter().fold(usize::MAX, |least, at| least.min(*at)) / KEYS;
    let last = end.iter().fold(0, |most, at| most.max(*at));
    for step in first..last.div_ceil(KEYS) {
        let from = step * KEYS;
        let mut p = scores::<N>(cache.keys(step, width), q, tile.shape.scale);
        if tile.shape.cap != 0.0 {
            for p in p.as_flattened_mut() {
                *p = bytemuck::cast(each(singles(p), |p| capped(p, tile.shape.cap)));
            }
        }
        let unseen = |t: usize, j: usize| !(begin[t]..end[t]).contains(&(from + j));
        let whole = (0..N).all(|t| begin[t] <= from && end[t] >= from + KEYS);
        for t in 0..N {
            let p = &mut p[t];
            if !whole {
                for (j, p) in p.as_flattened_mut().iter_mut().enumerate() {
                    if unseen(t, j) {
                        *p = NONE;
                    }
                }
            }
            let mut most = vdupq_n_f32(top[t]);
            for p in p.iter() {
                let [low, high] = singles(p);
                most = vmaxq_f32(most, vmaxq_f32(low, high));
            }
            let now = vmaxvq_f32(most);
            if now != top[t] {
                let fade = exp(vdupq_n_f32(top[t] - now));
                total[t] *= vgetq_lane_f32::<0>(fade);
                for sums in sums.iter_mut() {
                    sums[t] = each(sums[t], |sums| vmulq_f32(sums, fade));
                }
                top[t] = now;
            }
            for p in p.iter_mut() {
                *p = bytemuck::cast(each(singles(p), |p| exp(vsubq_f32(p, vdupq_n_f32(now)))));
            }
            if !whole {
                for (j, p) in p.as_flattened_mut().iter_mut().enumerate() {
                    if unseen(t, j) {
                        *p = 0.0;
                    }
                }
            }
            let mut sum = [vdupq_n_f32(0.0); TWO];
            for p in p.iter() {
                let p = singles(p);
                sum = [vaddq_f32(sum[0], p[0]), vaddq_f32(sum[1], p[1])];
            }
            total[t] += sum_of(sum);
        }
        let count = KEYS.min(last - from);
        let (twos, one) = cache.values(step, width).as_chunks::<2>();
        let (sum_twos, sum_one) = sums.as_chunks_mut::<2>();
        for (sums, values) in sum_twos.iter_mut().zip(twos) {
            weigh::<N, 2>(sums, [&values[0], &values[1]], &p, count);
        }
        if let ([sums], [values]) = (sum_one, one) {
            let mut one = [*sums];
            weigh::<N, 1>(&mut one, [values], &p, count);
            [*sums] = one;
        }
    }
    total
}

/// q · k · scale of all keys of a step: `[query][keys]`.
#[inline]
#[target_feature(enable = "neon,dotprod,fp16")]
fn scores<const N: usize>(keys: &[[u16; KEYS]], q: [&[f32]; N], scale: f32) -> [[[f32; LANES]; EIGHTS]; N] {
    let mut p = [[[0f32; LANES]; EIGHTS]; N];
    let mut q_rows = [&[][..]; N];
    for (row, q) in q_rows.iter_mut().zip(q) {
        *row = &q[..keys.len()];
    }
    // Two eights of keys at a time: with four queries they leave registers for what they are multiplied with.
    for pair in 0..EIGHTS / 2 {
        let mut sums = [[[vdupq_n_f32(0.0); TWO]; 2]; N];
        for (at, keys) in keys.iter().enumerate() {
            let keys = keys.as_chunks::<LANES>().0;
            let keys = [halves(&keys[2 * pair]), halves(&keys[2 * pair + 1])];
            for t in 0..N {
                let q = q_rows[t][at];
                for i in 0..2 {
                    for h in 0..TWO {
                        sums[t][i][h] = vfmaq_n_f32(sums[t][i][h], keys[i][h], q);
                    }
                }
            }
        }
        for t in 0..N {
            for i in 0..2 {
                p[t][2 * pair + i] = bytemuck::cast(each(sums[t][i], |sums| vmulq_f32(sums, vdupq_n_f32(scale))));
            }
        }
    }
    p
}

/// sums + p · value, of some eights of elements.
#[inline]
#[target_feature(enable = "neon,dotprod,fp16")]
fn weigh<const N: usize, const E: usize>(
    sums: &mut [[[float32x4_t; TWO]; N]; E],
    values: [&[[u16; LANES]; KEYS]; E],
    p: &[[[f32; LANES]; EIGHTS]; N],
    count: usize,
) {
    let mut all = *sums;
    let mut weights = [&[][..]; N];
    for (weights, p) in weights.iter_mut().zip(p) {
        *weights = p.as_flattened();
    }
    for j in 0..count.min(KEYS) {
        for e in 0..E {
            let value = halves(&values[e][j]);
            for t in 0..N {
                for h in 0..TWO {
                    all[e][t][h] = vfmaq_n_f32(all[e][t][h], value[h], weights[t][j]);
                }
            }
        }
    }
    *sums = all;
}

/// The same done to both vectors of an eight. `array::map` would be a call.
#[inline(always)]
fn each(x: [float32x4_t; TWO], act: impl Fn(float32x4_t) -> float32x4_t) -> [float32x4_t; TWO] {
    [act(x[0]), act(x[1])]
}

/// The sum of the lanes.
#[inline]
#[target_feature(enable = "neon,dotprod,fp16")]
fn sum_of(x: [float32x4_t; TWO]) -> f32 {
    let x = vaddq_f32(x[0], x[1]);
    let x = vadd_f32(vget_low_f32(x), vget_high_f32(x));
    vget_lane_f32::<0>(x) + vget_lane_f32::<1>(x)
}
