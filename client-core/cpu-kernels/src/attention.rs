//! Causal attention with grouped heads over a cache, with a softmax that streams: keys are taken 32 at a time, and what
//! has been summed is scaled down when a larger score comes up. The scores of a long context are never all in memory.
//!
//! Up to four queries go together, one to a lane: they share every look at keys and values, and their maxima, exponentials
//! and sums are vectors. Query heads of one key head and neighbouring tokens are such queries.

use crate::layout::{AttentionShape, KEYS, LANES, MAX_HEAD, NONE, QUERIES, copy_place, stride};
use crate::matrix::WrongSize;
use crate::pool::{self, Job, Places, Work};
use crate::simd::F4;

#[cfg(not(target_arch = "wasm32"))]
use crate::native::{self, cache::HalfCache};

/// Keys and values of one layer and one key head.
#[derive(Debug, Clone)]
pub enum HeadCache {
    /// In single precision.
    Single(SingleCache),
    /// In half precision, for native attention.
    #[cfg(not(target_arch = "wasm32"))]
    Half(HalfCache),
}

impl Default for HeadCache {
    fn default() -> Self {
        Self::Single(SingleCache::default())
    }
}

impl HeadCache {
    /// An empty one: in half precision if that is wanted and this machine's attention takes it.
    pub fn new(half: bool) -> Self {
        #[cfg(not(target_arch = "wasm32"))]
        if half && native::isa().is_some() {
            return Self::Half(HalfCache::default());
        }
        let _ = half;
        Self::default()
    }

    /// Sets the key and the value of a token, which follows those that are there or takes the place of one.
    pub fn put(&mut self, token: usize, key: &[f32], value: &[f32]) {
        match self {
            Self::Single(cache) => cache.put(token, key, value),
            #[cfg(not(target_arch = "wasm32"))]
            Self::Half(cache) => cache.put(token, key, value),
        }
    }

    /// An empty one of the same kind.
    pub(crate) fn emptied(&self) -> Self {
        match self {
            Self::Single(_) => Self::default(),
            #[cfg(not(target_arch = "wasm32"))]
            Self::Half(_) => Self::Half(HalfCache::default()),
        }
    }

    /// Memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Single(cache) => (cache.k.capacity() + cache.v.capacity()) * size_of::<f32>(),
            #[cfg(not(target_arch = "wasm32"))]
            Self::Half(cache) => cache.bytes(),
        }
    }

    /// Takes over some tokens of `from`, which holds them; they follow those that are there. Heads have `stride` elements.
    pub(crate) fn extend(
        &mut self,
        from: &Self,
        tokens: std::ops::Range<usize>,
        stride: usize,
    ) -> Result<(), WrongSize> {
        let copied = match (self, from) {
            (Self::Single(to), Self::Single(from)) => {
                copy_place(&mut to.k, &from.k, tokens.start * stride..tokens.end * stride)
                    .and_then(|()| copy_place(&mut to.v, &from.v, steps(&tokens, stride)))
            }
            #[cfg(not(target_arch = "wasm32"))]
            (Self::Half(to), Self::Half(from)) => to.share(from, tokens),
            #[cfg(not(target_arch = "wasm32"))]
            _ => None,
        };
        copied.ok_or(WrongSize)
    }
}

/// Where the steps lie that hold these tokens: of the first one, the tokens before are the same in both caches.
fn steps(tokens: &std::ops::Range<usize>, stride: usize) -> std::ops::Range<usize> {
    tokens.start / KEYS * KEYS * stride..tokens.end.next_multiple_of(KEYS) * stride
}

/// Keys and values in single precision, padded with zeros to whole lanes, in the order in which they are read.
#[derive(Debug, Clone, Default)]
pub struct SingleCache {
    /// `[tokens][stride]`.
    k: Vec<f32>,
    /// `[⌈tokens / 32⌉][stride / 8][32][8]`: of the tokens of a step, eight elements each, then the next eight.
    v: Vec<f32>,
}

impl SingleCache {
    fn put(&mut self, token: usize, key: &[f32], value: &[f32]) {
        let stride = stride(key.len());
        let (start, step) = (token * stride, token / KEYS * KEYS * stride);
        self.k.resize(self.k.len().max(start + stride), 0.0);
        self.k[start..start + key.len()].copy_from_slice(key);
        self.v.resize(self.v.len().max(step + KEYS * stride), 0.0);
        for (at, value) in value.chunks(LANES).enumerate() {
            let place = step + (at * KEYS + token % KEYS) * LANES;
            self.v[place..place + value.len()].copy_from_slice(value);
        }
    }
}

/// Attention of `m` tokens at positions `start ..`. `q` is `[m][heads][stride]`, padded; `out` is `[m, heads · head_dim]`.
pub fn attend(q: &[f32], cache: &[HeadCache], start: usize, m: usize, shape: AttentionShape, out: &mut [f32]) {
    let job = Attention { q, cache, start, m, shape, out: Places::new(out) };
    pool::run(&job, shape.kv_heads * job.tiles(), Work { columns: m, products: 0 });
}

struct Attention<'a> {
    q: &'a [f32],
    cache: &'a [HeadCache],
    start: usize,
    m: usize,
    shape: AttentionShape,
    out: Places<'a, f32>,
}

impl Attention<'_> {
    fn group(&self) -> usize {
        self.shape.heads / self.shape.kv_heads
    }

    /// Token and head of a key head's query number `n`.
    fn place(&self, head: usize, n: usize) -> (usize, usize) {
        (n / self.group(), head * self.group() + n % self.group())
    }

    fn tiles(&self) -> usize {
        (self.group() * self.m).div_ceil(QUERIES)
    }
}

impl Job for Attention<'_> {
    /// Query number n of a key head: token n / group, and the n % group-th of the heads that share the key head.
    fn piece(&self, piece: usize) {
        let (head, first) = (piece / self.tiles(), piece % self.tiles() * QUERIES);
        let queries = (self.group() * self.m - first).min(QUERIES);
        match &self.cache[head] {
            HeadCache::Single(cache) => match queries {
                1 => self.tile::<1>(cache, head, first),
                2 => self.tile::<2>(cache, head, first),
                3 => self.tile::<3>(cache, head, first),
                _ => self.tile::<QUERIES>(cache, head, first),
            },
            #[cfg(not(target_arch = "wasm32"))]
            HeadCache::Half(cache) => {
                let (shape, stride) = (self.shape, stride(self.shape.head_dim));
                let place: [_; QUERIES] = std::array::from_fn(|t| self.place(head, first + t.min(queries - 1)));
                let q = place.map(|(token, q_head)| &self.q[(token * shape.heads + q_head) * stride..][..stride]);
                let end = place.map(|(token, _)| self.start + token + 1);
                let begin = end.map(|end| shape.window.map_or(0, |window| end.saturating_sub(window)));
                native::attend(&q[..queries], cache, begin, end, shape, |t, row| {
                    let (token, q_head) = place[t];
                    self.out.write((token * shape.heads + q_head) * shape.head_dim, row);
                });
            }
        }
    }
}

impl Attention<'_> {
    /// Queries `first` to `first + N − 1` of a key head.
    // Four of these in one function would be too much for an engine to compile well.
    #[inline(never)]
    fn tile<const N: usize>(&self, cache: &SingleCache, head: usize, first: usize) {
        let shape = self.shape;
        let stride = stride(shape.head_dim);
        let place: [_; N] = std::array::from_fn(|t| self.place(head, first + t));
        let q = place.map(|(token, q_head)| self.q[(token * shape.heads + q_head) * stride..][..stride].as_chunks().0);
        // Every query sees from `begin` up to, and without, `end`.
        let end = place.map(|(token, _)| self.start + token + 1);
        let begin = end.map(|end| shape.window.map_or(0, |window| end.saturating_sub(window)));
        let mut sums = [[F4::splat(0.0); N]; MAX_HEAD / 4];
        let total = stream(q, cache, begin, end, shape, &mut sums);
        for (t, (token, q_head)) in place.into_iter().enumerate() {
            let mut row = [0f32; MAX_HEAD];
            for (row, sums) in row[..stride].as_chunks_mut::<4>().0.iter_mut().zip(&sums) {
                *row = (sums[t] / F4::splat(total[t])).array();
            }
            self.out.write((token * shape.heads + q_head) * shape.head_dim, &row[..shape.head_dim]);
        }
    }
}

/// Σ exp(score − top) · value into `sums`, `[stride / 4][query]`; returns Σ exp(score − top) of every query.
#[inline(always)]
fn stream<const N: usize>(
    q: [&[[f32; 4]]; N],
    cache: &SingleCache,
    begin: [usize; N],
    end: [usize; N],
    AttentionShape { scale, cap, .. }: AttentionShape,
    sums: &mut [[F4; N]; MAX_HEAD / 4],
) -> [f32; QUERIES] {
    let width = q[0].len();
    let sums = &mut sums[..width];
    let (keys, values) = (cache.k.as_chunks::<4>().0, cache.v.as_chunks::<4>().0);
    let mut total = F4::splat(0.0);
    let mut top = F4::splat(NONE);
    // Steps lie at multiples of KEYS, so that a query's sums do not depend on who shares the tile.
    let mut step = begin.iter().fold(usize::MAX, |least, at| least.min(*at)) / KEYS * KEYS;
    let last = end.iter().fold(0, |most, at| most.max(*at));
    while step < last {
        let count = KEYS.min(last - step);
        // Scores, one query to a lane.
        let mut p = [[0f32; QUERIES]; KEYS];
        let keys = &keys[step * width..(step + count) * width];
        let (twos, one) = keys.split_at(count / 2 * 2 * width);
        for (p, keys) in p.as_chunks_mut::<2>().0.iter_mut().zip(twos.chunks_exact(2 * width)) {
            let (a, b) = keys.split_at(width);
            *p = scores([a, b], q, scale);
        }
        if !one.is_empty() {
            [p[count - 1]] = scores([one], q, scale);
        }
        if cap != 0.0 {
            for p in &mut p[..count] {
                *p = F4::load(p).capped(cap).array();
            }
        }
        let whole = (0..N).all(|t| begin[t] <= step && end[t] >= step + KEYS);
        if !whole {
            for (j, p) in p.iter_mut().enumerate() {
                for t in 0..N {
                    if !(begin[t]..end[t]).contains(&(step + j)) {
                        p[t] = NONE;
                    }
                }
            }
        }
        let now = p.iter().fold(top, |top, p| top.max(F4::load(p)));
        let fade = (top - now).exp();
        if top.array() != now.array() {
            total = total * fade;
            for sums in sums.iter_mut() {
                for (sum, fade) in sums.iter_mut().zip(fade.array()) {
                    *sum = *sum * F4::splat(fade);
                }
            }
        }
        top = now;
        for p in &mut p {
            *p = (F4::load(p) - now).exp().array();
        }
        if !whole {
            for (j, p) in p.iter_mut().enumerate() {
                for t in 0..N {
                    if !(begin[t]..end[t]).contains(&(step + j)) {
                        p[t] = 0.0;
                    }
                }
            }
        }
        total = p.iter().fold(total, |total, p| total + F4::load(p));
        let eights = values[step * width..].chunks_exact(2 * KEYS);
        for (sums, values) in sums.as_chunks_mut::<2>().0.iter_mut().zip(eights) {
            let [mut a, mut b] = *sums;
            for (p, value) in p[..count].iter().zip(values.as_chunks::<2>().0) {
                let (v0, v1) = (F4::load(&value[0]), F4::load(&value[1]));
                for t in 0..N {
                    let weight = F4::splat(p[t]);
                    a[t] = a[t] + weight * v0;
                    b[t] = b[t] + weight * v1;
                }
            }
            *sums = [a, b];
        }
        step += count;
    }
    total.array()
}

/// q · k · scale of some queries with a few keys.
#[inline(always)]
fn scores<const N: usize, const K: usize>(
    keys: [&[[f32; 4]]; K],
    q: [&[[f32; 4]]; N],
    scale: f32,
) -> [[f32; QUERIES]; K] {
    let mut sums = [[F4::splat(0.0); QUERIES]; K];
    let width = q[0].len();
    let (keys, q) = (keys.map(|key| &key[..width]), q.map(|q| &q[..width]));
    for at in 0..width {
        let q: [F4; N] = std::array::from_fn(|t| F4::load(&q[t][at]));
        for (sums, key) in sums.iter_mut().zip(keys) {
            let key = F4::load(&key[at]);
            for (sum, q) in sums.iter_mut().zip(q) {
                *sum = *sum + q * key;
            }
        }
    }
    sums.map(|sums| (F4::sums(sums) * F4::splat(scale)).array())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against scores and weights in double precision, with and without a window, at the edges of steps.
    #[test]
    fn attention_is_a_softmax() {
        let mut state = 3u32;
        let mut random = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8e6 - 1.0
        };
        for (heads, kv_heads, head_dim, start, m, window, cap) in [
            (3, 1, 8, 0, 1, None, 0.0f32),
            (4, 2, 12, 30, 5, None, 0.0),
            (9, 3, 64, 95, 3, None, 2.5),
            (2, 2, 6, 61, 40, Some(7), 0.0),
            (2, 1, 16, 100, 4, Some(33), 1.5),
            (6, 1, 24, 64, 1, None, 0.0),
            (2, 2, 20, 31, 2, None, 0.0),
        ] {
            let (stride, len) = (stride(head_dim), start + m);
            let mut rows = |n: usize| -> Vec<f32> {
                (0..n * stride).map(|i| if i % stride < head_dim { 3.0 * random() } else { 0.0 }).collect()
            };
            let q = rows(m * heads);
            // Numbers that half precision has too.
            let mut halves =
                |n: usize| -> Vec<f32> { rows(n).into_iter().map(|x| half::f16::from_f32(x).to_f32()).collect() };
            let pairs: Vec<_> = (0..kv_heads).map(|_| (halves(len), halves(len))).collect();
            for half in [false, true] {
                let mut cache = vec![HeadCache::new(half); kv_heads];
                for (cache, (k, v)) in cache.iter_mut().zip(&pairs) {
                    // What is put in twice is what was put in last.
                    for (keys, values) in [(v, k), (k, v)] {
                        for token in 0..len {
                            let of = |rows: &'_ [f32]| rows[token * stride..][..head_dim].to_vec();
                            cache.put(token, &of(keys), &of(values));
                        }
                    }
                }
                let mut out = vec![0.0; m * heads * head_dim];
                let scale = 1.0 / (head_dim as f32).sqrt();
                attend(
                    &q,
                    &cache,
                    start,
                    m,
                    AttentionShape { heads, kv_heads, head_dim, window, scale, cap },
                    &mut out,
                );
                for (at, found) in out.chunks_exact(head_dim).enumerate() {
                    let (token, head) = (at / heads, at % heads);
                    let (keys, values) = &pairs[head / (heads / kv_heads)];
                    let end = start + token + 1;
                    let seen = window.map_or(0, |w| end.saturating_sub(w))..end;
                    let q = &q[at * stride..][..head_dim];
                    let weights: Vec<f64> = seen
                        .clone()
                        .map(|j| {
                            let k = &keys[j * stride..][..head_dim];
                            let score: f64 = q.iter().zip(k).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                            let (score, cap) = (score / (head_dim as f64).sqrt(), f64::from(cap));
                            if cap > 0.0 { (cap * (score / cap).tanh()).exp() } else { score.exp() }
                        })
                        .collect();
                    let total: f64 = weights.iter().sum();
                    for (i, y) in found.iter().enumerate() {
                        let sum: f64 =
                            weights.iter().zip(seen.clone()).map(|(w, j)| w * f64::from(values[j * stride + i])).sum();
                        assert!((f64::from(*y) - sum / total).abs() < 2e-5, "{at} {i}: {y} {}", sum / total);
                    }
                }
            }
        }
    }
}
