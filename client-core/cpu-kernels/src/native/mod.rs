//! Products on machines whose vector instructions are found out at run time.
//!
//! | module | holds |
//! | --- | --- |
//! | [`packed`] | matrices in the order in which the tiles read them, about as many bits to a weight as the file has |
//! | `pack` | how ggml's blocks get into that order |
//! | [`activations`] | activations in eight bits beside it |
//! | [`cache`] | keys and values in half precision |
//! | `avx2` | x86-64 with AVX2, FMA and F16C: products, rounding, attention, activation functions |
//! | `avx512` | x86-64 with AVX-512 and VNNI: products |
//! | `neon` | AArch64 with NEON's dot products: all that `avx2` does |
//! | `codes`, `factors` | what these share |
//!
//! [`isa`] says which tiles this machine runs; where it says none, the portable ones (`tile`) do. Whatever is chosen, a
//! product has the same bits: sums of codes are exact, and single-precision operations come in the portable order.
//!
//! Deliberately absent, because they could not be tested where this was written: tiles for AVX-VNNI without AVX-512, and for
//! Arm's matrix instructions (i8mm). Their place is a variant of [`Isa`], a module beside `avx2`, and the `match`es on [`Isa`].
//! NEON's tiles were tested in an emulator (`cargo xtask test --only aarch64`), and their speed was never measured.

pub mod activations;
#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
pub mod cache;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod codes;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod factors;
#[cfg(target_arch = "aarch64")]
pub mod neon;
mod pack;
pub mod packed;

use std::cell::RefCell;
use std::sync::OnceLock;

use cache::HalfCache;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use cache::Tile;
use packed::Packed;

use crate::blocks::BLOCK;
use crate::glu::Gated;
use crate::layout::{AttentionShape, GROUP, QUERIES};
use crate::pool::{self, Job, Places, Work};

/// Sets of vector instructions for which there are tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// AVX2, FMA and F16C: Intel since Haswell (2013), AMD since Excavator (2015).
    Avx2,
    /// AVX-512 F, BW, VL and VNNI besides: Intel's servers since Cascade Lake (2019), AMD since Zen 4 (2022).
    Avx512,
    /// NEON with dot products and half precision: Apple since the M1 (2020), Arm's cores since the Cortex-A76 and the Neoverse N1
    /// (2018).
    Neon,
}

/// Names the best set of instructions that is used, whatever this machine has besides: to measure and to compare what others
/// have. Only for the moment before anything is packed.
pub const BEST: &str = "TANDEM_TILES";

/// The best set that this machine has; `None` where only the portable tiles run. Asked once.
pub fn isa() -> Option<Isa> {
    static ISA: OnceLock<Option<Isa>> = OnceLock::new();
    *ISA.get_or_init(detect)
}

#[allow(clippy::disallowed_methods, reason = "which tiles compute decides how fast it is, not what comes out")]
fn detect() -> Option<Isa> {
    let most = std::env::var(BEST).ok();
    let has = sets();
    match most.as_deref() {
        Some("portable") => None,
        Some("avx2") => has.first().copied(),
        _ => has.last().copied(),
    }
}

/// The sets that this machine has, worse ones first.
fn sets() -> Vec<Isa> {
    #[cfg_attr(
        not(any(target_arch = "x86_64", target_arch = "aarch64")),
        allow(unused_mut, reason = "there are no others")
    )]
    let mut sets = Vec::new();
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
        sets.push(Isa::Avx2);
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
        {
            sets.push(Isa::Avx512);
        }
    }
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("neon")
        && std::arch::is_aarch64_feature_detected!("dotprod")
        && std::arch::is_aarch64_feature_detected!("fp16")
    {
        sets.push(Isa::Neon);
    }
    sets
}

/// Rounds `values`, `[m, cols]`, to eight bits, as [`activations`] has them. Nothing happens where [`isa`] is none.
pub fn round(values: &[f32], m: usize, cols: usize, words: &mut Vec<u32>) {
    words.resize(m * (cols / BLOCK) * activations::WORDS, 0);
    let job = Rounding { values, m, cols, words: Places::new(words) };
    pool::run(&job, m.div_ceil(activations::TILE), Work { columns: m, products: 0 });
}

/// A piece is a tile of columns.
struct Rounding<'a> {
    values: &'a [f32],
    m: usize,
    cols: usize,
    words: Places<'a, u32>,
}

impl Job for Rounding<'_> {
    #[allow(clippy::single_match, reason = "an arm for every set of instructions; today there is one")]
    fn piece(&self, piece: usize) {
        let first = piece * activations::TILE;
        match isa() {
            #[cfg(target_arch = "x86_64")]
            Some(Isa::Avx2 | Isa::Avx512) => {
                // SAFETY: this machine has what the function needs.
                #[allow(unsafe_code, reason = "the one way to call what the machine was asked for")]
                unsafe {
                    avx2::round::tile(self.values, first, self.m, self.cols, &self.words);
                }
            }
            #[cfg(target_arch = "aarch64")]
            Some(Isa::Neon) => {
                // SAFETY: this machine has what the function needs.
                #[allow(unsafe_code, reason = "the one way to call what the machine was asked for")]
                unsafe {
                    neon::round::tile(self.values, first, self.m, self.cols, &self.words);
                }
            }
            _ => {}
        }
    }
}

/// The products of a matrix's rows of some groups with all `m` columns: `write(column, group, sums)` takes them. Nothing
/// happens where [`isa`] is none.
pub fn products(
    packed: &Packed,
    groups: std::ops::Range<usize>,
    words: &[u32],
    m: usize,
    write: impl FnMut(usize, usize, &[f32; GROUP]),
) {
    products_by(isa(), packed, groups, words, m, write);
}

/// The same by the tiles of a set that this machine has.
fn products_by(
    isa: Option<Isa>,
    packed: &Packed,
    groups: std::ops::Range<usize>,
    words: &[u32],
    m: usize,
    write: impl FnMut(usize, usize, &[f32; GROUP]),
) {
    #[cfg(target_arch = "x86_64")]
    thread_local! {
        static STRIPS: RefCell<(avx512::dot::Strip, avx2::dot::Strip)> = RefCell::default();
    }
    #[cfg(target_arch = "aarch64")]
    thread_local! {
        static STRIP: RefCell<neon::dot::Strip> = RefCell::default();
    }
    match isa {
        #[cfg(target_arch = "x86_64")]
        Some(Isa::Avx2) => STRIPS.with_borrow_mut(|(_, strip)| {
            // SAFETY: this machine has what the function needs.
            #[allow(unsafe_code, reason = "the one way to call what the machine was asked for")]
            unsafe {
                avx2::dot::products(packed, groups, words, m, strip, write);
            }
        }),
        #[cfg(target_arch = "x86_64")]
        Some(Isa::Avx512) => STRIPS.with_borrow_mut(|(strip, alone)| {
            // SAFETY: this machine has what the function needs.
            #[allow(unsafe_code, reason = "the one way to call what the machine was asked for")]
            unsafe {
                avx512::dot::products(packed, groups, words, m, (strip, alone), write);
            }
        }),
        #[cfg(target_arch = "aarch64")]
        Some(Isa::Neon) => STRIP.with_borrow_mut(|strip| {
            // SAFETY: this machine has what the function needs.
            #[allow(unsafe_code, reason = "the one way to call what the machine was asked for")]
            unsafe {
                neon::dot::products(packed, groups, words, m, strip, write);
            }
        }),
        _ => drop(write),
    }
}

/// Does a piece of [`Gated`]; false where [`isa`] is none.
pub fn gated(job: &Gated<'_>, piece: usize) -> bool {
    match isa() {
        #[cfg(target_arch = "x86_64")]
        Some(Isa::Avx2 | Isa::Avx512) => {
            // SAFETY: this machine has what the function needs.
            #[allow(unsafe_code, reason = "the one way to call what the machine was asked for")]
            unsafe {
                avx2::math::gated(job, piece);
            }
            true
        }
        #[cfg(target_arch = "aarch64")]
        Some(Isa::Neon) => {
            // SAFETY: this machine has what the function needs.
            #[allow(unsafe_code, reason = "the one way to call what the machine was asked for")]
            unsafe {
                neon::math::gated(job, piece);
            }
            true
        }
        _ => false,
    }
}

/// Attention of some queries of one key head, which see tokens from `begin` up to, and without, `end`: `write(query, row)`
/// takes their rows. Nothing happens where [`isa`] is none: there is no [`HalfCache`] then.
pub fn attend(
    q: &[&[f32]],
    cache: &HalfCache,
    begin: [usize; QUERIES],
    end: [usize; QUERIES],
    shape: AttentionShape,
    write: impl FnMut(usize, &[f32]),
) {
    match isa() {
        #[cfg(target_arch = "x86_64")]
        Some(Isa::Avx2 | Isa::Avx512) => {
            let tile = Tile { q, begin, end, shape };
            // SAFETY: this machine has what the function needs.
            #[allow(unsafe_code, reason = "the one way to call what the machine was asked for")]
            unsafe {
                avx2::attention::attend(&tile, cache, write);
            }
        }
        #[cfg(target_arch = "aarch64")]
        Some(Isa::Neon) => {
            let tile = Tile { q, begin, end, shape };
            // SAFETY: this machine has what the function needs.
            #[allow(unsafe_code, reason = "the one way to call what the machine was asked for")]
            unsafe {
                neon::attention::attend(&tile, cache, write);
            }
        }
        _ => drop(write),
    }
}

#[cfg(test)]
mod tests;
