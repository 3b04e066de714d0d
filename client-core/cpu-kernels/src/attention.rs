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

/// How keys and values are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheForm {
    /// In single precision.
    Single,
    /// In half precision.
    Half,
    /// In half precision and in pages, for native attention.
    #[cfg(not(target_arch = "wasm32"))]
    Native,
}

/// Tiles that one piece of work has at most.
const TILES: usize = 4;

/// Keys and values of one layer and one key head.
#[derive(Debug, Clone)]
pub enum HeadCache {
    /// [`CacheForm::Single`].
    Single(PlainCache<f32>),
    /// [`CacheForm::Half`].
    Half(PlainCache<Half>),
    /// [`CacheForm::Native`].
    #[cfg(not(target_arch = "wasm32"))]
    Native(HalfCache),
}

impl HeadCache {
    /// An empty one; where this machine has no native attention, for the one that every machine has.
    pub fn new(form: CacheForm) -> Self {
        match form {
            CacheForm::Single => Self::Single(PlainCache::default()),
            #[cfg(not(target_arch = "wasm32"))]
            CacheForm::Native if native::isa().is_some() => Self::Native(HalfCache::default()),
            _ => Self::Half(PlainCache::default()),
        }
    }

    /// Sets the key and the value of a token, which follows those that are there or takes the place of one.
    pub fn put(&mut self, token: usize, key: &[f32], value: &[f32]) {
        match self {
            Self::Single(cache) => cache.put(token, key, value),
            Self::Half(cache) => cache.put(token, key, value),
            #[cfg(not(target_arch = "wasm32"))]
            Self::Native(cache) => cache.put(token, key, value),
        }
    }

    /// An empty one of the same kind.
    pub(crate) fn emptied(&self) -> Self {
        match self {
            Self::Single(_) => Self::Single(PlainCache::default()),
            Self::Half(_) => Self::Half(PlainCache::default()),
            #[cfg(not(target_arch = "wasm32"))]
            Self::Native(_) => Self::Native(HalfCache::default()),
        }
    }

    /// Memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Single(cache) => cache.bytes(),
            Self::Half(cache) => cache.bytes(),
            #[cfg(not(target_arch = "wasm32"))]
            Self::Native(cache) => cache.bytes(),
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
            (Self::Single(to), Self::Single(from)) => to.extend(from, &tokens, stride),
            (Self::Half(to), Self::Half(from)) => to.extend(from, &tokens, stride),
            #[cfg(not(target_arch = "wasm32"))]
            (Self::Native(to), Self::Native(from)) => to.share(from, tokens),
            _ => None,
        };
        copied.ok_or(WrongSize)
    }
}

/// A number of a cache.
pub trait Element: Copy + Default + std::fmt::Debug {
    /// The number nearest to `x` that it can hold.
    fn of(x: f32) -> Self;
    /// Four of them as singles.
    fn load(four: &[Self; 4]) -> F4;
}

impl Element for f32 {
    fn of(x: f32) -> Self {
        x
    }

    #[inline(always)]
    fn load(four: &[Self; 4]) -> F4 {
        F4::load(four)
    }
}

/// A finite number in half precision. NaN becomes a large one: a token whose key is NaN has a query that is, which carries it on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Half(u16);

impl Element for Half {
    fn of(x: f32) -> Self {
        let most = half::f16::MAX.to_f32();
        Self(half::f16::from_f32(x.clamp(-most, most)).to_bits())
    }

    #[inline(always)]
    fn load(four: &[Self; 4]) -> F4 {
        F4::load_halves(&four.map(|half| half.0))
    }
}

/// Keys and values, padded with zeros to whole lanes, in the order in which they are read.
#[derive(Debug, Clone, Default)]
pub struct PlainCache<T> {
    /// `[tokens][stride]`.
    k: Vec<T>,
    /// `[⌈tokens / 32⌉][stride / 8][32][8]`: of the tokens of a step, eight elements each, then the next eight.
    v: Vec<T>,
}

impl<T: Element> PlainCache<T> {
    fn put(&mut self, token: usize, key: &[f32], value: &[f32]) {
        let stride = stride(key.len());
        let (start, step) = (token * stride, token / KEYS * KEYS * stride);
        self.k.resize(self.k.len().max(start + stride), T::default());
        let set = |to: &mut [T], from: &[f32]| to.iter_mut().zip(from).for_each(|(y, x)| *y = T::of(*x));
        set(&mut self.k[start..start + key.len()], key);
        self.v.resize(self.v.len().max(step + KEYS * stride), T::default());
        for (at, value) in value.chunks(LANES).enumerate() {
            let place = step + (at * KEYS + token % KEYS) * LANES;
            set(&mut self.v[place..place + value.len()], value);
        }
    }

    fn bytes(&self) -> usize {
        (self.k.capacity() + self.v.capacity()) * size_of::<T>()
    }

    fn extend(&mut self, from: &Self, tokens: &std::ops::Range<usize>, stride: usize) -> Option<()> {
        // Of the first step, the tokens before are the same in both caches.
        let steps = tokens.start / KEYS * KEYS * stride..tokens.end.next_multiple_of(KEYS) * stride;
        copy_place(&mut self.k, &from.k, tokens.start * stride..tokens.end * stride)?;
        copy_place(&mut self.v, &from.v, steps)
    }
}

/// Attention of `m` tokens at positions `start ..`. `q` is `[m][heads][stride]`, padded; `out` is `[m, heads · head_dim]`.
pub fn attend(q: &[f32], cache: &[HeadCache], start: usize, m: usize, shape: AttentionShape, out: &mut [f32]) {
    let job = Attention { q, cache, start, m, shape, out: Places::new(out) };
    pool::run(&job, shape.kv_heads * job.pieces(), Work { columns: m, products: 0 });
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

    /// Queries of a piece: more than a tile, where there are many, so that keys and values in half precision become singles
    /// once for several tiles.
    fn queries(&self) -> usize {
        if self.m > 1 && matches!(self.cache.first(), Some(HeadCache::Half(_))) { TILES * QUERIES } else { QUERIES }
    }

    /// Pieces of a key head.
    fn pieces(&self) -> usize {
        (self.group() * self.m).div_ceil(self.queries())
    }
}

impl Job for Attention<'_> {
    /// Query number n of a key head: token n / group, and the n % group-th of the heads that share the key head.
    fn piece(&self, piece: usize) {
        let (head, first) = (piece / self.pieces(), piece % self.pieces() * self.queries());
        let queries = (self.group() * self.m - first).min(self.queries());
        match &self.cache[head] {
            HeadCache::Single(cache) => self.tile_of(queries, cache, head, first),
            HeadCache::Half(cache) => {
                let whole = queries / QUERIES;
                match whole {
                    0 => {}
                    1 => self.tile::<QUERIES, _>(cache, head, first),
                    _ => self.tiles(whole, cache, head, first),
                }
                self.tile_of(queries % QUERIES, cache, head, first + whole * QUERIES);
            }
            #[cfg(not(target_arch = "wasm32"))]
            HeadCache::Native(cache) => {
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
    /// A tile of so many queries from number `first` of a key head on.
    fn tile_of<T: Element>(&self, queries: usize, cache: &PlainCache<T>, head: usize, first: usize) {
        match queries {
            0 => {}
            1 => self.tile::<1, T>(cache, head, first),
            2 => self.tile::<2, T>(cache, head, first),
            3 => self.tile::<3, T>(cache, head, first),
            _ => {
                debug_assert_eq!(queries, QUERIES, "a tile has no more");
                self.tile::<QUERIES, T>(cache, head, first);
            }
        }
    }

    /// Queries `first` to `first + N − 1` of a key head.
    // Four of these in one function would be too much for an engine to compile well.
    #[inline(never)]
    fn tile<const N: usize, T: Element>(&self, cache: &PlainCache<T>, head: usize, first: usize) {
        let (keys, values) = (cache.k.as_chunks::<4>().0, cache.v.as_chunks::<4>().0);
        let mut tile = self.begin::<N>(head, first);
        let width = tile.width();
        for step in (tile.first_step()..tile.last()).step_by(KEYS) {
            tile.step(&keys[step * width..], &values[step * width..], step, self.shape);
        }
        self.finish(&tile, head, first);
    }

    /// So many tiles at once, of which there are at most [`TILES`]: their keys and values become singles once.
    #[inline(never)]
    fn tiles(&self, count: usize, cache: &PlainCache<Half>, head: usize, first: usize) {
        let (keys, values) = (cache.k.as_chunks::<4>().0, cache.v.as_chunks::<4>().0);
        let at = |tile: usize| first + tile.min(count - 1) * QUERIES;
        let mut tiles: [Tile<'_, QUERIES>; TILES] = std::array::from_fn(|tile| self.begin(head, at(tile)));
        let tiles = &mut tiles[..count];
        let width = tiles[0].width();
        let mut singles = [[[0f32; 4]; KEYS * MAX_HEAD / 4]; 2];
        let first_step = tiles.iter().map(Tile::first_step).min().unwrap_or(0);
        let last = tiles.iter().map(Tile::last).max().unwrap_or(0);
        for step in (first_step..last).step_by(KEYS) {
            let seen = KEYS.min(last - step) * width;
            for (singles, (halves, len)) in singles.iter_mut().zip([(keys, seen), (values, KEYS * width)]) {
                for (single, half) in singles.iter_mut().zip(&halves[step * width..][..len]) {
                    *single = Half::load(half).array();
                }
            }
            for tile in tiles.iter_mut() {
                if (tile.first_step()..tile.last()).contains(&step) {
                    tile.step(&singles[0], &singles[1], step, self.shape);
                }
            }
        }
        for (n, tile) in tiles.iter().enumerate() {
            self.finish(tile, head, at(n));
        }
    }

    /// The tile of queries `first` to `first + N − 1` of a key head, which have seen nothing.
    #[inline(always)]
    fn begin<const N: usize>(&self, head: usize, first: usize) -> Tile<'_, N> {
        let (shape, stride) = (self.shape, stride(self.shape.head_dim));
        let place: [_; N] = std::array::from_fn(|t| self.place(head, first + t));
        // Every query sees from `begin` up to, and without, `end`.
        let end = place.map(|(token, _)| self.start + token + 1);
        Tile {
            q: place.map(|(token, q_head)| self.q[(token * shape.heads + q_head) * stride..][..stride].as_chunks().0),
            begin: end.map(|end| shape.window.map_or(0, |window| end.saturating_sub(window))),
            end,
            sums: [[F4::splat(0.0); N]; MAX_HEAD / 4],
            total: F4::splat(0.0),
            top: F4::splat(NONE),
        }
    }

    /// Writes what its queries are to have.
    #[inline(always)]
    fn finish<const N: usize>(&self, tile: &Tile<'_, N>, head: usize, first: usize) {
        let (shape, stride) = (self.shape, stride(self.shape.head_dim));
        let total = tile.total.array();
        for (t, total) in total.into_iter().enumerate().take(N) {
            let (token, q_head) = self.place(head, first + t);
            let mut row = [0f32; MAX_HEAD];
            for (row, sums) in row[..stride].as_chunks_mut::<4>().0.iter_mut().zip(&tile.sums) {
                *row = (sums[t] / F4::splat(total)).array();
            }
            self.out.write((token * shape.heads + q_head) * shape.head_dim, &row[..shape.head_dim]);
        }
    }
}

/// Queries that share every look at keys and values.
struct Tile<'a, const N: usize> {
    /// `[stride / 4]` each.
    q: [&'a [[f32; 4]]; N],
    begin: [usize; N],
    end: [usize; N],
    /// Σ exp(score − top) · value, `[stride / 4][query]`.
    sums: [[F4; N]; MAX_HEAD / 4],
    /// Σ exp(score − top), a query to a lane.
    total: F4,
    /// The largest score so far, a query to a lane.
    top: F4,
}

// Helpers have a stack of 128 KiB, and nothing watches its end.
const _: () = assert!(
    2 * 4 * KEYS * MAX_HEAD + TILES * size_of::<Tile<'_, QUERIES>>() < 96 << 10,
    "too large for a helper's stack"
);

impl<const N: usize> Tile<'_, N> {
    /// Fours of elements of a head.
    fn width(&self) -> usize {
        self.q[0].len()
    }

    /// The first key of the first step that a query of it sees. Steps lie at multiples of [`KEYS`], so that a query's sums do not
    /// depend on who shares the tile.
    fn first_step(&self) -> usize {
        self.begin.iter().fold(usize::MAX, |least, at| least.min(*at)) / KEYS * KEYS
    }

    /// The key behind the last that one sees.
    fn last(&self) -> usize {
        self.end.iter().fold(0, |most, at| most.max(*at))
    }

    /// Takes in the keys from number `step` on, `[keys][stride / 4]`, and their values, `[stride / 8][32][2]`.
    #[inline(always)]
    fn step<T: Element>(&mut self, keys: &[[T; 4]], values: &[[T; 4]], step: usize, shape: AttentionShape) {
        let AttentionShape { scale, cap, .. } = shape;
        let (q, begin, end) = (self.q, self.begin, self.end);
        let width = q[0].len();
        let count = KEYS.min(self.last() - step);
        let sums = &mut self.sums[..width];
        // Scores, one query to a lane.
        let mut p = [[0f32; QUERIES]; KEYS];
        let keys = &keys[..count * width];
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
        let top = self.top;
        let now = p.iter().fold(top, |top, p| top.max(F4::load(p)));
        let fade = (top - now).exp();
        if top.array() != now.array() {
            self.total = self.total * fade;
            for sums in sums.iter_mut() {
                for (sum, fade) in sums.iter_mut().zip(fade.array()) {
                    *sum = *sum * F4::splat(fade);
                }
            }
        }
        self.top = now;
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
        self.total = p.iter().fold(self.total, |total, p| total + F4::load(p));
        for (sums, values) in sums.as_chunks_mut::<2>().0.iter_mut().zip(values.chunks_exact(2 * KEYS)) {
            let [mut a, mut b] = *sums;
            for (p, value) in p[..count].iter().zip(values.as_chunks::<2>().0) {
                let (v0, v1) = (T::load(&value[0]), T::load(&value[1]));
                for t in 0..N {
                    let weight = F4::splat(p[t]);
                    a[t] = a[t] + weight * v0;
                    b[t] = b[t] + weight * v1;
                }
            }
            *sums = [a, b];
        }
    }
}

/// q · k · scale of some queries with a few keys.
#[inline(always)]
fn scores<const N: usize, const K: usize, T: Element>(
    keys: [&[[T; 4]]; K],
    q: [&[[f32; 4]]; N],
    scale: f32,
) -> [[f32; QUERIES]; K] {
    let mut sums = [[F4::splat(0.0); QUERIES]; K];
    let width = q[0].len();
    let (keys, q) = (keys.map(|key| &key[..width]), q.map(|q| &q[..width]));
    for at in 0..width {
        let q: [F4; N] = std::array::from_fn(|t| F4::load(&q[t][at]));
        for (sums, key) in sums.iter_mut().zip(keys) {
            let key = T::load(&key[at]);
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
            // Every number of queries behind whole tiles: of one head, and of three and seven that share keys.
            (1, 1, 8, 0, 5, None, 0.0),
            (1, 1, 8, 0, 6, None, 0.0),
            (1, 1, 8, 33, 7, None, 0.0),
            (6, 2, 24, 40, 2, None, 0.0),
            (3, 1, 64, 10, 7, Some(9), 0.0),
            (7, 1, 8, 33, 3, None, 0.0),
            (14, 2, 256, 5, 18, None, 0.0),
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
            for form in [CacheForm::Single, CacheForm::Half, CacheForm::Native] {
                let mut cache = vec![HeadCache::new(form); kv_heads];
                for (cache, (k, v)) in cache.iter_mut().zip(&pairs) {
                    // What is put in twice is what was put in last.
                    for (keys, values) in [(v, k), (k, v)] {
                        for token in 0..len {
                            let of = |rows: &'_ [f32]| rows[token * stride..][..head_dim].to_vec();
                            cache.put(token, &of(keys), &of(values));
                        }
                    }
                }
                // What is not written shows.
                let mut out = vec![f32::NAN; m * heads * head_dim];
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
