//! Keys and values of one layer and one key head in half precision, in the order in which attention reads them.
//!
//! They lie in pages of [`PAGE`] tokens. Sequences that begin with the same tokens share the pages of these; who writes to one
//! that others see gets a copy of it first. So a system prompt of many conversations is in memory once, and taking one over
//! costs no copying.

use std::sync::Arc;

use half::f16;
use half::slice::HalfFloatSliceExt as _;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::layout::{AttentionShape, QUERIES};
use crate::layout::{KEYS, LANES, MAX_HEAD, stride};

/// Some queries of one key head, as attention over a cache takes them.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub struct Tile<'a> {
    /// Their rows, `[stride]` each.
    pub q: &'a [&'a [f32]],
    /// The first token that each sees.
    pub begin: [usize; QUERIES],
    /// The token behind the last that each sees.
    pub end: [usize; QUERIES],
    /// The layer's.
    pub shape: AttentionShape,
}

/// Tokens of a page: whole steps of attention.
pub const PAGE: usize = 2 * KEYS;

/// Padded with zeros to whole lanes and to whole pages.
#[derive(Debug, Clone, Default)]
pub struct HalfCache {
    pages: Vec<Arc<Page>>,
}

#[derive(Debug, Clone)]
struct Page {
    /// `[PAGE / 32][stride][32]`: of an element, 32 keys side by side.
    k: Vec<[u16; KEYS]>,
    /// `[PAGE / 32][stride / 8][32][8]`: of the tokens of a step, eight elements each, then the next eight.
    v: Vec<[[u16; LANES]; KEYS]>,
}

impl HalfCache {
    /// Sets the key and the value of a token, which follows those that are there or takes the place of one.
    pub fn put(&mut self, token: usize, key: &[f32], value: &[f32]) {
        let stride = stride(key.len());
        let empty = || {
            let k = vec![[0; KEYS]; PAGE / KEYS * stride];
            Arc::new(Page { k, v: vec![[[0; LANES]; KEYS]; PAGE / KEYS * stride / LANES] })
        };
        if self.pages.len() <= token / PAGE {
            self.pages.resize_with(token / PAGE + 1, empty);
        }
        let page = Arc::make_mut(&mut self.pages[token / PAGE]);
        let (step, lane) = (token % PAGE / KEYS, token % KEYS);
        let mut halves = [f16::ZERO; MAX_HEAD];
        let halves = &mut halves[..key.len()];
        halves.convert_from_f32_slice(key);
        for (keys, half) in page.k[step * stride..].iter_mut().zip(halves.iter()) {
            keys[lane] = half.to_bits();
        }
        halves.convert_from_f32_slice(value);
        for (values, halves) in page.v[step * stride / LANES..].iter_mut().zip(halves.chunks(LANES)) {
            for (y, half) in values[lane].iter_mut().zip(halves) {
                *y = half.to_bits();
            }
        }
    }

    /// Keys of step number `step`, `[stride][32]`.
    pub fn keys(&self, step: usize, stride: usize) -> &[[u16; KEYS]] {
        &self.pages[step / (PAGE / KEYS)].k[step % (PAGE / KEYS) * stride..][..stride]
    }

    /// Its values, `[stride / 8][32][8]`.
    pub fn values(&self, step: usize, stride: usize) -> &[[[u16; LANES]; KEYS]] {
        &self.pages[step / (PAGE / KEYS)].v[step % (PAGE / KEYS) * stride / LANES..][..stride / LANES]
    }

    /// Memory that it takes, pages that others see as well included.
    pub(crate) fn bytes(&self) -> usize {
        self.pages.iter().map(|page| size_of_val(&*page.k) + size_of_val(&*page.v)).sum()
    }

    /// Takes over the pages of `from` that hold these tokens; those before are the same in both. `None` where one of them is
    /// shorter.
    pub(crate) fn share(&mut self, from: &Self, tokens: std::ops::Range<usize>) -> Option<()> {
        let first = tokens.start / PAGE;
        let pages = from.pages.get(first..tokens.end.div_ceil(PAGE))?;
        if self.pages.len() < first {
            return None;
        }
        self.pages.truncate(first);
        self.pages.extend_from_slice(pages);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(cache: &mut HalfCache, tokens: std::ops::Range<usize>, of: f32) {
        for token in tokens {
            let row: Vec<f32> = (0..8).map(|at| of + token as f32 + at as f32 / 8.0).collect();
            cache.put(token, &row, &row);
        }
    }

    fn key(cache: &HalfCache, token: usize) -> f32 {
        f16::from_bits(cache.keys(token / KEYS, 8)[3][token % KEYS]).to_f32()
    }

    /// What sequences begin with is there once; what one of them writes behind it the others do not see.
    #[test]
    fn pages_are_shared_until_somebody_writes() {
        let mut first = HalfCache::default();
        put(&mut first, 0..3 * PAGE - 5, 0.0);
        let mut second = HalfCache::default();
        second.share(&first, 0..2 * PAGE + 10).unwrap();
        assert!(first.pages.iter().zip(&second.pages).all(|(a, b)| Arc::ptr_eq(a, b)));
        put(&mut second, 2 * PAGE + 10..2 * PAGE + 12, 500.0);
        assert!(first.pages[..2].iter().zip(&second.pages).all(|(a, b)| Arc::ptr_eq(a, b)));
        assert!(!Arc::ptr_eq(&first.pages[2], &second.pages[2]));
        let token = 2 * PAGE + 11;
        assert_eq!([key(&first, token), key(&second, token)], [token as f32 + 0.375, token as f32 + 500.5]);
        assert_eq!(key(&second, 2 * PAGE + 9), key(&first, 2 * PAGE + 9));
        // The second goes on with what the first has, from the middle of a page on.
        second.share(&first, 2 * PAGE + 10..3 * PAGE - 5).unwrap();
        assert_eq!(key(&second, token), key(&first, token));
        assert_eq!(second.share(&first, 0..3 * PAGE + 1), None, "that is not there");
        assert_eq!(HalfCache::default().share(&first, PAGE..2 * PAGE), None, "nor what is before it");
        assert_eq!(first.bytes(), 3 * PAGE * 8 * 2 * 2);
    }
}
