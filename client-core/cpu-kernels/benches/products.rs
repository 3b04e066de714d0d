//! Products of the sizes that small models have, on one thread: the tiles of this machine beside the portable ones.
//!
//! `cargo bench -p cpu-kernels --bench products`; a word after `--` picks the formats whose names hold it. Decode has one
//! column and reads weights that no cache holds; its figure is bytes of weights per second. Prefill has 64 columns; its
//! figure is multiplications per second. The best of several rounds is printed, the two kinds of tiles in turn.
#![allow(clippy::disallowed_methods, reason = "a bench measures time")]

use std::hint::black_box;
use std::time::Instant;

use cpu_kernels::blocks::GgmlType;
use cpu_kernels::matrix::Matrix;
use cpu_kernels::product::{Activations, multiply};

const ROUNDS: usize = 2;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    println!(
        "{:<6} {:>12} {:>12} {:>7} {:>12}   {:>12} {:>12} {:>7}",
        "", "decode", "portable", "ratio", "in cache", "prefill", "portable", "ratio"
    );
    for format in GgmlType::ALL {
        let name = format.name();
        if !wanted.is_empty() && !wanted.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        // A feed-forward matrix of a model of half a billion parameters, eight of them: more than a cache holds.
        let (rows, cols) = (4864, 1024);
        let bytes = sensible(format, rows, cols);
        let native: Vec<_> = (0..8).map(|_| Matrix::new(format, rows, cols, &bytes, false)).collect();
        let portable: Vec<_> = (0..2).map(|_| Matrix::portable(format, rows, cols, &bytes, false)).collect();
        let (native, portable): (Vec<_>, Vec<_>) =
            (native.into_iter().flatten().collect(), portable.into_iter().flatten().collect());
        // Of that a part that the second-level cache holds: what the tile itself allows.
        let small: Vec<_> =
            Matrix::new(format, 256, cols, &bytes[..bytes.len() / rows * 256], false).into_iter().collect();
        let mut best = [f64::INFINITY; 5];
        for _ in 0..ROUNDS {
            for (best, (matrices, m)) in
                best.iter_mut().zip([(&native, 1), (&portable, 1), (&native, 64), (&portable, 64), (&small, 1)])
            {
                *best = best.min(seconds(if m == 1 { matrices } else { &matrices[..1] }, m));
            }
        }
        let file_bytes = bytes.len() as f64;
        let decode = [file_bytes / best[0] / 1e9, file_bytes / best[1] / 1e9];
        let products = (64 * rows * cols) as f64;
        let prefill = [products / best[2] / 1e9, products / best[3] / 1e9];
        println!(
            "{name:<6} {:>7.2} GB/s {:>7.2} GB/s {:>7.2} {:>7.2} GB/s   {:>7.1} G/s  {:>7.1} G/s  {:>7.2}",
            decode[0],
            decode[1],
            decode[0] / decode[1],
            file_bytes / rows as f64 * 256.0 / best[4] / 1e9,
            prefill[0],
            prefill[1],
            prefill[0] / prefill[1]
        );
    }
}

/// Seconds that this thread has computed, where the system says so (on a busy machine that is less disturbed than time on
/// the wall), else seconds since `started`.
fn clock(started: Instant) -> f64 {
    let spent = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let ns = spent.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
    ns.map_or_else(|| started.elapsed().as_secs_f64(), |ns| ns / 1e9)
}

/// Seconds that a matrix takes: of so many turns that clocks with coarse steps do.
fn seconds(matrices: &[Matrix], m: usize) -> f64 {
    let (mut x, mut out) = (Activations::default(), Vec::new());
    let (started, mut products) = (Instant::now(), 0);
    let turns = if matrices[0].rows > 256 { matrices.len() } else { 64 };
    let before = clock(started);
    loop {
        // Asking for the time takes some, too.
        for matrix in matrices.iter().cycle().take(turns) {
            let values = x.prepare(m, matrix.cols);
            for (i, x) in values.iter_mut().enumerate() {
                *x = (i % 101) as f32 * 0.02 - 1.0;
            }
            multiply(&[matrix], &mut x, &mut out);
            black_box(&out);
            products += 1;
        }
        let spent = clock(started) - before;
        if spent > 0.1 {
            return spent / f64::from(products);
        }
    }
}

/// Blocks whose half-precision fields are finite.
fn sensible(format: GgmlType, rows: usize, cols: usize) -> Vec<u8> {
    let bytes = rows * format.row_bytes(cols).unwrap_or_default();
    (0..bytes as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 & 0xbf).collect()
}
