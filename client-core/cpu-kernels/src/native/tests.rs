//! Native tiles against the portable ones: the same bits, whatever the shape.

use proptest::prelude::*;

use super::*;
use crate::blocks::{self, GgmlType};
use crate::matrix::{Matrix, Store};
use crate::product::{Activations, multiply};

const QUANTISED: [GgmlType; 13] = [
    GgmlType::Q4_0,
    GgmlType::Q4_1,
    GgmlType::Q5_0,
    GgmlType::Q5_1,
    GgmlType::Q8_0,
    GgmlType::Q4K,
    GgmlType::Q5K,
    GgmlType::Q6K,
    GgmlType::Q3K,
    GgmlType::Q2K,
    GgmlType::Iq4Nl,
    GgmlType::Iq4Xs,
    GgmlType::Q1_0,
];

/// Random blocks with finite scales of sensible size.
pub(super) fn random_bytes(format: GgmlType, rows: usize, cols: usize, mut random: impl FnMut() -> u32) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..rows * format.row_bytes(cols).unwrap()).map(|_| (random() >> 8) as u8).collect();
    for block in bytes.chunks_exact_mut(format.block().1) {
        for at in format.halves() {
            block[*at + 1] = 0x20 | block[*at + 1] & 0x83;
        }
    }
    bytes
}

pub(super) fn generator(seed: u32) -> impl FnMut() -> u32 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 4
    }
}

fn times(matrices: &[&Matrix], x: &[f32]) -> Vec<u32> {
    let cols = matrices[0].cols;
    let (mut activations, mut out) = (Activations::default(), Vec::new());
    activations.prepare(x.len() / cols, cols).copy_from_slice(x);
    multiply(matrices, &mut activations, &mut out);
    out.into_iter().map(f32::to_bits).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Any format, any number of rows (whole groups or not, an odd number of groups or an even one), of columns and of
    /// activations; extreme codes on both sides among them.
    #[test]
    fn products_have_the_portable_bits(
        format in proptest::sample::select(&QUANTISED[..]),
        rows in 1usize..40,
        blocks in 1usize..7,
        m in 1usize..14,
        extreme in any::<bool>(),
        seed in any::<u32>(),
    ) {
        let cols = blocks * format.block().0;
        let mut random = generator(seed);
        let mut bytes = random_bytes(format, rows, cols, &mut random);
        let mut x: Vec<f32> = (0..m * cols).map(|_| (random() as f32 / 1.3e8 - 1.0) * 3.0).collect();
        if extreme {
            // Codes of all ones or all zeros, and activations of the largest size and any sign.
            let size = format.block().1;
            let (from, to) = match format {
                GgmlType::Q4K => (16, size),
                GgmlType::Q5K => (16, size),
                GgmlType::Q6K => (0, 192),
                GgmlType::Q3K => (0, 96),
                GgmlType::Q2K => (16, 80),
                GgmlType::Iq4Xs => (8, size),
                GgmlType::Q4_1 | GgmlType::Q5_1 => (4, size),
                _ => (2, size),
            };
            for block in bytes.chunks_exact_mut(size) {
                let code = [0xff, 0, 0x80, 0x7f][random() as usize % 4];
                block[from..to].fill(code);
            }
            let sign = random() % 3;
            for x in &mut x {
                *x = if sign == 0 || sign == 1 && random().is_multiple_of(2) { -2.5 } else { 2.5 };
            }
        }
        let native = Matrix::new(format, rows, cols, &bytes, false).unwrap();
        let portable = Matrix::portable(format, rows, cols, &bytes, false).unwrap();
        prop_assert!(isa().is_none() || matches!(native.store, Store::Packed(_)));
        prop_assert_eq!(times(&[&native], &x), times(&[&portable], &x));
        // By each set of tiles that this machine has.
        if let Store::Packed(packed) = &native.store {
            let portable = times(&[&portable], &x);
            let mut words = Vec::new();
            round(&x, m, cols, &mut words);
            for isa in sets() {
                let mut found = vec![0; m * rows];
                products_by(Some(isa), packed, 0..rows.div_ceil(GROUP), &words, m, |column, group, sums| {
                    for (row, sum) in (group * GROUP..rows).zip(sums) {
                        found[column * rows + row] = sum.to_bits();
                    }
                });
                prop_assert_eq!(&found, &portable, "{:?}", isa);
            }
        }
        // Beside another matrix, whose rows come first.
        prop_assert_eq!(times(&[&portable, &native], &x), times(&[&native, &portable], &x));
    }

    /// What is read back is what the file says.
    #[test]
    fn rows_are_what_was_packed(
        format in proptest::sample::select(&QUANTISED[..]),
        rows in 1usize..20,
        blocks in 1usize..4,
        cut in 0usize..20,
        seed in any::<u32>(),
    ) {
        let cols = blocks * format.block().0;
        let bytes = random_bytes(format, rows, cols, generator(seed));
        let mut packed = Packed::zeros(format, rows, cols).unwrap();
        let (row_bytes, cut) = (bytes.len() / rows, cut.min(rows));
        packed.put_rows(cut, row_bytes, &bytes[cut * row_bytes..]);
        packed.put_rows(0, row_bytes, &bytes[..cut * row_bytes]);
        for (row, expect) in blocks::values(format, &bytes).chunks_exact(cols).enumerate() {
            let mut found = vec![f32::NAN; cols];
            packed.row(row, &mut found);
            prop_assert!(found.iter().zip(expect).all(|(a, b)| a == b), "{:?} {} {:?} {:?}", format, row, found, expect);
        }
    }
}

/// Where tiles have to be tested, a machine that has none is a failure, not a pass.
#[test]
#[allow(clippy::disallowed_methods, reason = "a test's own setting")]
fn the_tiles_that_have_to_be_tested_are_here() {
    if let Ok(name) = std::env::var("TANDEM_REQUIRE_TILES") {
        assert!(sets().iter().any(|set| format!("{set:?}").eq_ignore_ascii_case(&name)), "{name} of {:?}", sets());
    }
}

/// However many threads share the packing, and whether the first row begins a group or not.
#[test]
fn threads_pack_what_one_packs() {
    let (rows, cols) = (131, 8192);
    for format in [GgmlType::Q4_1, GgmlType::Q6K, GgmlType::Q2K] {
        let bytes = random_bytes(format, rows, cols, generator(3));
        let row_bytes = bytes.len() / rows;
        let [alone, shared] = [1, 3].map(|threads| {
            crate::pool::set_threads(threads);
            let mut packed = Packed::zeros(format, rows, cols).unwrap();
            packed.put_rows(5, row_bytes, &bytes[5 * row_bytes..]);
            packed.put_rows(0, row_bytes, &bytes[..5 * row_bytes]);
            packed
        });
        assert!(alone.codes == shared.codes, "{format:?}");
        let factors =
            |packed: &Packed| [&packed.scales, &packed.minima].map(|of| (of.halves.clone(), of.parts.clone()));
        assert!(factors(&alone) == factors(&shared), "{format:?}");
    }
}

/// NaN among activations is NaN among products, not a number that looks right; infinity is not finite.
#[test]
fn nan_stays_visible() {
    if isa().is_none() {
        return;
    }
    let bytes = random_bytes(GgmlType::Q4_0, 8, 64, generator(1));
    let matrix = Matrix::new(GgmlType::Q4_0, 8, 64, &bytes, false).unwrap();
    for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = vec![1.0; 64];
        x[40] = bad;
        assert!(times(&[&matrix], &x).into_iter().all(|bits| !f32::from_bits(bits).is_finite()), "{bad}");
    }
}
