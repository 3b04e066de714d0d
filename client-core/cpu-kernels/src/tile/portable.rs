//! Plain loops over codes in [`Order::Pairs`].

use super::{BlockStats, CENTRE, Columns, Kernel, ROUND, Task, Weights};
use crate::blocks::{BLOCK, IQ4_LEVELS};
use crate::layout::{Codes, EIGHT_BYTES, FOUR_BYTES, GROUP, ONE_BYTES, Order, THREE_BYTES, TWO_BYTES};

/// How codes are to lie.
pub fn order(_: Codes) -> Order {
    Order::Pairs
}

#[inline(always)]
pub fn choose(codes: Codes, _: Order, task: impl Task) {
    match codes {
        Codes::Four => task.run::<Four>(),
        Codes::Six | Codes::Eight => task.run::<Eight>(),
        Codes::SixSplit => task.run::<Split>(),
        Codes::One => task.run::<Low<1>>(),
        Codes::Two => task.run::<Low<2>>(),
        Codes::Three => task.run::<Low<3>>(),
        Codes::Levels => task.run::<Levels<false>>(),
        Codes::LevelsSuper => task.run::<Levels<true>>(),
    }
}

/// 32 values rounded to eight bits: codes from −127 to 127, and what is known of them.
pub fn rounded(x: &[f32; BLOCK]) -> ([i16; BLOCK], BlockStats) {
    // `f32::max` is a call on wasm32; this is an instruction.
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let largest = x.iter().map(|x| x.abs()).fold(0.0, larger);
    let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    let codes = x.map(|x| (x * inverse + ROUND).to_bits() as i16);
    let mut stats = BlockStats { scale: largest / 127.0, ..BlockStats::default() };
    for (i, code) in codes.into_iter().enumerate() {
        // A NaN or an infinity may become any code.
        stats.halves[i / 16] = stats.halves[i / 16].wrapping_add(code);
        let centre = &mut stats.centre[i % 4 / 2];
        *centre = centre.wrapping_sub(code.wrapping_mul(CENTRE.into()));
        stats.negative -= i32::from(code.min(0));
    }
    (codes, stats)
}

struct Four;
struct Eight;
struct Split;

impl Kernel for Four {
    #[inline(always)]
    fn products<const C: usize>(weights: &Weights<'_>, columns: &Columns<'_, C>) -> [[f32; GROUP]; C] {
        let mut out = [[0.0; GROUP]; C];
        for (block, codes) in weights.codes.as_chunks::<FOUR_BYTES>().0.iter().enumerate() {
            let mut bytes = [0; EIGHT_BYTES];
            let (low, high) = bytes.split_at_mut(FOUR_BYTES);
            for ((low, high), code) in low.iter_mut().zip(high).zip(codes) {
                (*low, *high) = (code & 15, code >> 4);
            }
            let sums = dots(&bytes, weights.offset, &columns.wide[block]);
            finish(&mut out, &weights.scales[block * GROUP..], block, sums, columns);
        }
        less_minima(&mut out, weights, columns);
        out
    }
}

impl Kernel for Eight {
    #[inline(always)]
    fn products<const C: usize>(weights: &Weights<'_>, columns: &Columns<'_, C>) -> [[f32; GROUP]; C] {
        let mut out = [[0.0; GROUP]; C];
        for (block, codes) in weights.codes.as_chunks::<EIGHT_BYTES>().0.iter().enumerate() {
            let sums = dots(codes, weights.offset, &columns.wide[block]);
            finish(&mut out, &weights.scales[block * GROUP..], block, sums, columns);
        }
        less_minima(&mut out, weights, columns);
        out
    }
}

impl Kernel for Split {
    #[inline(always)]
    fn products<const C: usize>(weights: &Weights<'_>, columns: &Columns<'_, C>) -> [[f32; GROUP]; C] {
        let mut out = [[0.0; GROUP]; C];
        for (block, codes) in weights.codes.as_chunks::<{ EIGHT_BYTES / 2 }>().0.iter().enumerate() {
            let x = &columns.wide[block / 2][block % 2 * 8..][..8];
            let sums = dots(codes, weights.offset, x);
            finish(&mut out, &weights.scales[block * GROUP..], block / 2, sums, columns);
        }
        out
    }
}

/// Codes of `BITS` bits in planes.
struct Low<const BITS: usize>;
/// Places among levels; `SUPER` where scales are multiples of one.
struct Levels<const SUPER: bool>;

impl<const BITS: usize> Kernel for Low<BITS> {
    #[inline(always)]
    fn products<const C: usize>(weights: &Weights<'_>, columns: &Columns<'_, C>) -> [[f32; GROUP]; C] {
        let (size, parts, shared) = match BITS {
            1 => (ONE_BYTES, 1, Codes::One.shared()),
            2 => (TWO_BYTES, 2, Codes::Two.shared()),
            _ => (THREE_BYTES, 2, Codes::Three.shared()),
        };
        let mut out = [[0.0; GROUP]; C];
        for (block, codes) in weights.codes.chunks_exact(size).enumerate() {
            let mut bytes = [0; EIGHT_BYTES];
            match BITS {
                1 => plane::<1>(codes, &mut bytes, 1),
                2 => plane::<2>(codes, &mut bytes, 0),
                _ => {
                    plane::<2>(&codes[..TWO_BYTES], &mut bytes, 0);
                    plane::<1>(&codes[TWO_BYTES..], &mut bytes, 2);
                }
            }
            for (part, bytes) in bytes.chunks_exact(EIGHT_BYTES / parts).enumerate() {
                let x = &columns.wide[block][part * 8..][..16 / parts];
                let scales = scaled(weights, block, parts * block + part, shared, |factor| {
                    f32::from((if BITS == 2 { factor & 15 } else { factor }) as i8)
                });
                finish(&mut out, &scales, block, dots(bytes, weights.offset, x), columns);
            }
        }
        for (block, stats) in columns.stats.iter().enumerate().filter(|_| BITS == 2) {
            for part in 0..parts {
                let units = &weights.minima[block / shared * GROUP..][..GROUP];
                let factors = &weights.factors[(parts * block + part) * GROUP..][..GROUP];
                for (out, stats) in out.iter_mut().zip(stats) {
                    let sum = f32::from(stats.halves[part]) * stats.scale;
                    for ((y, unit), factor) in out.iter_mut().zip(units).zip(factors) {
                        *y -= unit * f32::from(factor >> 4) * sum;
                    }
                }
            }
        }
        out
    }
}

impl<const SUPER: bool> Kernel for Levels<SUPER> {
    #[inline(always)]
    fn products<const C: usize>(weights: &Weights<'_>, columns: &Columns<'_, C>) -> [[f32; GROUP]; C] {
        let shared = if SUPER { Codes::LevelsSuper.shared() } else { 1 };
        let level = |code: u8| IQ4_LEVELS[usize::from(code & 15)] as u8;
        let mut out = [[0.0; GROUP]; C];
        for (block, codes) in weights.codes.as_chunks::<FOUR_BYTES>().0.iter().enumerate() {
            let mut bytes = [0; EIGHT_BYTES];
            let (low, high) = bytes.split_at_mut(FOUR_BYTES);
            for ((low, high), code) in low.iter_mut().zip(high).zip(codes) {
                (*low, *high) = (level(*code), level(code >> 4));
            }
            let scales = scaled(weights, block, block, shared, |factor| f32::from(factor as i8));
            finish(&mut out, &scales, block, dots(&bytes, 0, &columns.wide[block]), columns);
        }
        out
    }
}

/// Adds `BITS` bits of every code to `bytes`, at bit `to`.
fn plane<const BITS: usize>(plane: &[u8], bytes: &mut [u8; EIGHT_BYTES], to: usize) {
    for (turn, bytes) in bytes.chunks_exact_mut(plane.len()).enumerate() {
        for (byte, codes) in bytes.iter_mut().zip(plane) {
            *byte |= (codes >> (BITS * turn) & ((1 << BITS) - 1)) << to;
        }
    }
}

/// The scales of part number `at` of all blocks, which lies in `block`.
fn scaled(weights: &Weights<'_>, block: usize, at: usize, shared: usize, of: impl Fn(u8) -> f32) -> [f32; GROUP] {
    let units = &weights.scales[block / shared * GROUP..][..GROUP];
    let factors = weights.factors.get(at * GROUP..(at + 1) * GROUP);
    std::array::from_fn(|row| factors.map_or(1.0, |factors| of(factors[row])) * units[row])
}

/// Interleaved rows times interleaved activations.
fn dots<const C: usize>(codes: &[u8], offset: i8, x: &[[[i16; 2]; C]]) -> [[i32; GROUP]; C] {
    let mut sums = [[0; GROUP]; C];
    for (codes, x) in codes.as_chunks::<{ 2 * GROUP }>().0.iter().zip(x) {
        for (sums, x) in sums.iter_mut().zip(x) {
            for (sum, codes) in sums.iter_mut().zip(codes.as_chunks::<2>().0) {
                let code = |w: u8| i32::from(w as i8) - i32::from(offset);
                *sum += codes.iter().zip(x).map(|(w, x)| code(*w) * i32::from(*x)).sum::<i32>();
            }
        }
    }
    sums
}

fn finish<const C: usize>(
    out: &mut [[f32; GROUP]; C],
    scales: &[f32],
    block: usize,
    sums: [[i32; GROUP]; C],
    columns: &Columns<'_, C>,
) {
    for ((out, sums), stats) in out.iter_mut().zip(sums).zip(columns.stats[block]) {
        for ((y, sum), scale) in out.iter_mut().zip(sums).zip(scales) {
            *y += sum as f32 * (scale * stats.scale);
        }
    }
}

fn less_minima<const C: usize>(out: &mut [[f32; GROUP]; C], weights: &Weights<'_>, columns: &Columns<'_, C>) {
    for (stats, minima) in columns.stats.iter().zip(weights.minima.as_chunks::<GROUP>().0) {
        for (out, stats) in out.iter_mut().zip(stats) {
            let sum = stats.sum() as f32 * stats.scale;
            for (y, minimum) in out.iter_mut().zip(minima) {
                *y -= minimum * sum;
            }
        }
    }
}
