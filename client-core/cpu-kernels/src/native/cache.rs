//! Keys and values of one layer and one key head in half precision, in the order in which attention reads them.

use half::f16;
use half::slice::HalfFloatSliceExt as _;

use crate::layout::{KEYS, LANES, MAX_HEAD, copy_place, stride};

/// Tokens for which room is made at once: doubling would leave up to half of a long context's memory empty.
const GROWTH: usize = 8 * KEYS;

/// Padded with zeros to whole lanes and to whole steps of 32 tokens.
#[derive(Debug, Clone, Default)]
pub struct HalfCache {
    /// `[⌈tokens / 32⌉][stride][32]`: of an element, 32 keys side by side.
    pub(super) k: Vec<u16>,
    /// `[⌈tokens / 32⌉][stride / 8][32][8]`: of the tokens of a step, eight elements each, then the next eight.
    pub(super) v: Vec<u16>,
}

impl HalfCache {
    /// Sets the key and the value of a token, which follows those that are there or takes the place of one.
    pub fn put(&mut self, token: usize, key: &[f32], value: &[f32]) {
        let stride = stride(key.len());
        let step = token / KEYS * KEYS * stride;
        for list in [&mut self.k, &mut self.v] {
            let len = step + KEYS * stride;
            if list.len() < len {
                if list.capacity() < len {
                    list.reserve_exact((GROWTH * stride).max(list.len() / 4 / stride * stride));
                }
                list.resize(len, 0);
            }
        }
        let mut halves = [f16::ZERO; MAX_HEAD];
        let halves = &mut halves[..key.len()];
        halves.convert_from_f32_slice(key);
        for (at, half) in halves.iter().enumerate() {
            self.k[step + at * KEYS + token % KEYS] = half.to_bits();
        }
        halves.convert_from_f32_slice(value);
        for (at, halves) in halves.chunks(LANES).enumerate() {
            let place = step + (at * KEYS + token % KEYS) * LANES;
            for (y, half) in self.v[place..].iter_mut().zip(halves) {
                *y = half.to_bits();
            }
        }
    }

    /// Memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        (self.k.capacity() + self.v.capacity()) * size_of::<u16>()
    }

    /// Takes over whole steps of `from`, which lie at `place` in both; `None` where `from` is shorter.
    pub(crate) fn copy(&mut self, from: &Self, place: std::ops::Range<usize>) -> Option<()> {
        copy_place(&mut self.k, &from.k, place.clone())?;
        copy_place(&mut self.v, &from.v, place)
    }
}
