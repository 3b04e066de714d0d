//! Products of matrices that lie in slices, by the library that training multiplies with too.

#![allow(
    unsafe_code,
    reason = "the library takes pointers; every element that it touches is checked to lie in its slice"
)]

use gemm::Parallelism;

use super::real::Real;

/// A matrix in a slice: element (i, j) is at `i · row + j · col`.
#[derive(Debug, Clone, Copy)]
pub struct View<'a, R> {
    values: &'a [R],
    rows: usize,
    cols: usize,
    row: usize,
    col: usize,
}

impl<'a, R> View<'a, R> {
    /// `rows` rows of `cols` elements, each row `step` after the one before.
    ///
    /// # Panics
    /// The slice is too short.
    pub fn new(values: &'a [R], [rows, cols]: [usize; 2], step: usize) -> Self {
        assert!(cols <= step || rows < 2, "rows of {cols} every {step} elements overlap");
        assert!(reach(rows, cols, step, 1) <= values.len(), "{rows} rows of {cols} every {step} elements do not fit");
        Self { values, rows, cols, row: step, col: 1 }
    }

    /// The same elements with rows as columns.
    #[must_use]
    pub fn turned(self) -> Self {
        Self { values: self.values, rows: self.cols, cols: self.rows, row: self.col, col: self.row }
    }
}

/// Elements from the first to the last of a matrix, both included.
fn reach(rows: usize, cols: usize, row: usize, col: usize) -> usize {
    if rows == 0 || cols == 0 { 0 } else { (rows - 1) * row + (cols - 1) * col + 1 }
}

/// a·b into `out`, whose rows begin every `step` elements; what lies between them stays. With `threads` the machine's cores
/// share the work.
///
/// # Panics
/// The sizes do not fit each other.
pub fn multiply<R: Real>(out: &mut [R], step: usize, a: View<'_, R>, b: View<'_, R>, threads: bool) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    assert_eq!(b.rows, k, "the columns of the left are the rows of the right");
    assert!(n <= step || m < 2, "rows of {n} every {step} elements overlap");
    assert!(reach(m, n, step, 1) <= out.len(), "{m} rows of {n} every {step} elements do not fit the result");
    if m == 0 || n == 0 {
        return;
    }
    let parallelism = if threads && m * n * k > 1 << 20 { Parallelism::Rayon(0) } else { Parallelism::None };
    let signed = |step: usize| isize::try_from(step).unwrap_or(isize::MAX);
    // SAFETY: `View::new` and the lines above have checked that the last element of each lies in its slice; `out` is borrowed
    // alone, and nothing of it is read.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            signed(step),
            false,
            a.values.as_ptr(),
            signed(a.col),
            signed(a.row),
            b.values.as_ptr(),
            signed(b.col),
            signed(b.row),
            R::of(0.0),
            R::of(1.0),
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// x·Wᵀ: `x` `[n, cols]`, `weights` `[rows, cols]`, the result `[n, rows]`.
pub fn project<R: Real>(weights: &[R], x: &[R], cols: usize) -> Vec<R> {
    let cols = cols.max(1);
    let (rows, n) = (weights.len() / cols, x.len() / cols);
    let mut out = vec![R::default(); rows * n];
    multiply(&mut out, rows, View::new(x, [n, cols], cols), View::new(weights, [rows, cols], cols).turned(), true);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_plain_loops() {
        let (rows, cols, n) = (5, 37, 3);
        let w: Vec<f64> = (0..rows * cols).map(|i| (i as f64 * 0.7).sin()).collect();
        let x: Vec<f64> = (0..n * cols).map(|i| (i as f64 * 0.3).cos()).collect();
        let out = project(&w, &x, cols);
        for t in 0..n {
            for r in 0..rows {
                let want: f64 = (0..cols).map(|c| w[r * cols + c] * x[t * cols + c]).sum();
                assert!((out[t * rows + r] - want).abs() < 1e-12, "{t} {r}");
            }
        }
    }

    #[test]
    fn parts_of_matrices_go_into_parts_of_one() {
        // The middle two columns of 4, times a 2 by 2 matrix, into the last two columns of 3.
        let a: Vec<f32> = (0..8).map(|i| i as f32).collect();
        let b = [1.0, 2.0, 3.0, 4.0];
        let mut out = vec![9.0f32; 6];
        multiply(&mut out[1..], 3, View::new(&a[1..], [2, 2], 4), View::new(&b, [2, 2], 2), false);
        assert_eq!(out, [9.0, 1.0 + 6.0, 2.0 + 8.0, 9.0, 5.0 + 18.0, 10.0 + 24.0]);
    }

    #[test]
    #[should_panic(expected = "do not fit")]
    fn a_slice_that_is_too_short_is_refused() {
        let _ = View::new(&[0.0f32; 5], [2, 3], 3);
    }
}
