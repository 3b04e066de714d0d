//! Causal attention over keys and values in half precision: up to four queries at a time, 32 keys to a step, with a
//! softmax that streams (see the portable [`attention`](crate::attention)). Keys lie in the lanes.

use std::arch::x86_64::*;

use super::math::{capped, exp};
use super::{halves, singles};
use crate::layout::{KEYS, LANES, MAX_HEAD, NONE, QUERIES, stride};
use crate::native::cache::{HalfCache, Tile};

/// Vectors of a step's keys.
const VECTORS: usize = KEYS / LANES;

/// Attention of the queries of a tile: `write(query, row)` takes their rows, `[head_dim]`.
#[target_feature(enable = "avx2,fma,f16c")]
pub fn attend(tile: &Tile<'_>, cache: &HalfCache, write: impl FnMut(usize, &[f32])) {
    match tile.q.len() {
        1 => attend_by::<1>(tile, cache, write),
        2 => attend_by::<2>(tile, cache, write),
        3 => attend_by::<3>(tile, cache, write),
        _ => attend_by::<QUERIES>(tile, cache, write),
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn attend_by<const N: usize>(tile: &Tile<'_>, cache: &HalfCache, mut write: impl FnMut(usize, &[f32])) {
    let (head_dim, width) = (tile.shape.head_dim, stride(tile.shape.head_dim));
    let mut sums = [[_mm256_setzero_ps(); N]; MAX_HEAD / LANES];
    let sums = &mut sums[..width / LANES];
    let total = stream::<N>(tile, cache, sums);
    for (t, total) in total.into_iter().enumerate() {
        let mut row = [0f32; MAX_HEAD];
        for (row, sums) in row.as_chunks_mut::<LANES>().0.iter_mut().zip(sums.iter()) {
            *row = bytemuck::cast(_mm256_div_ps(sums[t], _mm256_set1_ps(total)));
        }
        write(t, &row[..head_dim]);
    }
}

/// Σ exp(score − top) · value into `sums`, `[stride / 8][query]`; returns Σ exp(score − top) of every query.
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
fn stream<const N: usize>(tile: &Tile<'_>, cache: &HalfCache, sums: &mut [[__m256; N]]) -> [f32; N] {
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
                *p = bytemuck::cast(capped(singles(p), tile.shape.cap));
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
            let mut most = _mm256_set1_ps(top[t]);
            for p in p.iter() {
                most = _mm256_max_ps(most, singles(p));
            }
            let now = largest(most);
            if now != top[t] {
                let fade = exp(_mm256_set1_ps(top[t] - now));
                total[t] *= _mm256_cvtss_f32(fade);
                for sums in sums.iter_mut() {
                    sums[t] = _mm256_mul_ps(sums[t], fade);
                }
                top[t] = now;
            }
            for p in p.iter_mut() {
                *p = bytemuck::cast(exp(_mm256_sub_ps(singles(p), _mm256_set1_ps(now))));
            }
            if !whole {
                for (j, p) in p.as_flattened_mut().iter_mut().enumerate() {
                    if unseen(t, j) {
                        *p = 0.0;
                    }
                }
            }
            let mut sum = _mm256_setzero_ps();
            for p in p.iter() {
                sum = _mm256_add_ps(sum, singles(p));
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
#[target_feature(enable = "avx2,fma,f16c")]
fn scores<const N: usize>(keys: &[[u16; KEYS]], q: [&[f32]; N], scale: f32) -> [[[f32; LANES]; VECTORS]; N] {
    let mut p = [[[0f32; LANES]; VECTORS]; N];
    let mut q_rows = [&[][..]; N];
    for (row, q) in q_rows.iter_mut().zip(q) {
        *row = &q[..keys.len()];
    }
    // Two vectors of keys at a time: with four queries they leave registers for what they are multiplied with.
    for pair in 0..VECTORS / 2 {
        let mut sums = [[_mm256_setzero_ps(); 2]; N];
        for (at, keys) in keys.iter().enumerate() {
            let keys = keys.as_chunks::<LANES>().0;
            let keys = [halves(&keys[2 * pair]), halves(&keys[2 * pair + 1])];
            for t in 0..N {
                let q = _mm256_set1_ps(q_rows[t][at]);
                for i in 0..2 {
                    sums[t][i] = _mm256_fmadd_ps(q, keys[i], sums[t][i]);
                }
            }
        }
        for t in 0..N {
            for i in 0..2 {
                p[t][2 * pair + i] = bytemuck::cast(_mm256_mul_ps(sums[t][i], _mm256_set1_ps(scale)));
            }
        }
    }
    p
}

/// sums + p · value, of some eights of elements.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn weigh<const N: usize, const E: usize>(
    sums: &mut [[__m256; N]; E],
    values: [&[[u16; LANES]; KEYS]; E],
    p: &[[[f32; LANES]; VECTORS]; N],
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
                all[e][t] = _mm256_fmadd_ps(_mm256_set1_ps(weights[t][j]), value, all[e][t]);
            }
        }
    }
    *sums = all;
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn largest(x: __m256) -> f32 {
    let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sum_of(x: __m256) -> f32 {
    let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
}
