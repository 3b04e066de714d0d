//! The innermost loops: groups of eight rows of a planar matrix times a few columns of activations.
//!
//! | build | products |
//! | --- | --- |
//! | simd128 (`wide`) | codes widened to sixteen bits once for all columns, `i32x4.dot_i16x8_s` |
//! | relaxed SIMD (`narrow`) | bytes times seven-bit bytes, `i32x4.relaxed_dot_i8x16_i7x16_add_s`, where the machine has that as one instruction; else four-bit codes in sixteen bits and `wide` for the rest |
//! | portable | plain loops |
//!
//! All sums of codes are exact, so that the builds differ in nothing.

use crate::layout::{Codes, GROUP, Order};

/// What is taken from four-bit codes, where something is.
const CENTRE: i8 = 8;
/// Added to a single of at most 2²² it rounds that to the nearest whole number and leaves it in the low bits.
pub(crate) const ROUND: f32 = 12_582_912.0;

#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
mod narrow;
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod portable;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod vector;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wide;

#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
use narrow as build;
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
use portable as build;
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
pub use portable::rounded;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub use vector::rounded;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128", not(target_feature = "relaxed-simd")))]
use wide as build;

/// The forms of activations that matrices are multiplied with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ActivationForms {
    /// [`Columns::wide`].
    pub wide: bool,
    /// [`Columns::codes`].
    pub codes: bool,
    /// [`Columns::sign_magnitude`].
    pub sign_magnitude: bool,
    /// What the native tiles take.
    #[cfg(not(target_arch = "wasm32"))]
    pub native: bool,
}

impl ActivationForms {
    /// Adds what a matrix forms.
    pub fn add(&mut self, codes: Codes, order: Order) {
        match (order, codes) {
            (Order::Pairs, _) => self.wide = true,
            (Order::Fours, Codes::Eight | Codes::Levels | Codes::LevelsSuper) => self.sign_magnitude = true,
            (Order::Fours, _) => self.codes = true,
        }
    }
}

/// How codes are to lie for the kernels of this build, on this machine.
pub fn order(codes: Codes) -> Order {
    build::order(codes)
}

/// One group of rows of a [`Planar`](crate::matrix::Planar).
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    /// Whole blocks.
    pub codes: &'a [u8],
    /// Eight to a block, or sixteen; eight to [`Codes::shared`] blocks.
    pub scales: &'a [f32],
    /// What these are multiplied with, eight to a part of a block, or none.
    pub factors: &'a [u8],
    /// Eight to a block, or to [`Codes::shared`] blocks, or none.
    pub minima: &'a [f32],
    /// Taken from every code.
    pub offset: i8,
}

/// Four codes of activations as |x| and, in all bits of a byte, whether x < 0.
pub type SignMagnitude = [[u8; 4]; 2];

/// What is known of the 32 codes x of a block of one column.
#[derive(Debug, Clone, Copy, Default)]
pub struct BlockStats {
    /// Value = scale · x.
    pub scale: f32,
    /// Sums of the first and the second sixteen.
    pub halves: [i16; 2],
    /// −[`CENTRE`] times the sum of those at 4k and 4k + 1, and of those at 4k + 2 and 4k + 3.
    pub centre: [i16; 2],
    /// Sum of −x over the negative ones.
    pub negative: i32,
}

impl BlockStats {
    /// Sum of all.
    #[inline(always)]
    pub fn sum(&self) -> i32 {
        i32::from(self.halves[0]) + i32::from(self.halves[1])
    }
}

/// The activations of `C` columns, interleaved like the weights: two or four of the first column, as many of the next, and
/// so on, so that one address serves them all. Only what is needed is there ([`ActivationForms`]).
#[derive(Debug, Clone, Copy)]
pub struct Columns<'a, const C: usize> {
    /// Codes in sixteen bits.
    pub wide: &'a [[[[i16; 2]; C]; 16]],
    /// Codes in eight bits.
    pub codes: &'a [[[[i8; 4]; C]; 8]],
    /// The same, sign_magnitude: what codes of full range are multiplied with.
    pub sign_magnitude: &'a [[[SignMagnitude; C]; 8]],
    /// One to a block and column.
    pub stats: &'a [[BlockStats; C]],
}

/// The innermost loop for one kind of codes.
pub trait Kernel {
    /// Products of a group of rows with `C` columns, which have as many blocks.
    fn products<const C: usize>(weights: &Weights<'_>, columns: &Columns<'_, C>) -> [[f32; GROUP]; C];
}

/// What calls a kernel, compiled for each of them: which it is, is asked once and not for each group.
pub trait Task {
    /// Does it.
    fn run<K: Kernel>(self);
}

/// Runs `task` with the kernel for these codes.
#[inline(always)]
pub fn choose(codes: Codes, order: Order, task: impl Task) {
    build::choose(codes, order, task);
}

/// Chooses between the two ways of the relaxed build (see `narrow`), which return the same, for matrices that are made from
/// now on: `None` for the faster.
#[cfg(target_arch = "wasm32")]
pub fn fuse(choice: Option<bool>) {
    #[cfg(target_feature = "relaxed-simd")]
    narrow::fuse(choice);
    let _ = choice;
}
