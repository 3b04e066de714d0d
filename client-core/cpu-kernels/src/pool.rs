//! Work that several threads may take pieces of.
//!
//! A job is cut into pieces, and whoever has time claims the next one. The thread that posts a job takes pieces too, so a
//! helper that sleeps, or that a busy machine does not run, costs nothing: its pieces are taken by the others. Only a
//! helper that loses its core in the middle of a piece is waited for, and on a busy machine all of them may be in each
//! other's way. Where that makes them no help they are left alone (`pace.rs`).
//!
//! On wasm32 `--cfg kernel_threads` asks for threads, which the page's workers are; without it a job is a loop. Natively
//! the threads are this crate's own, as many as [`set_threads`] says (one at first, which is the caller's). What is computed
//! does not depend on their number.

/// Pieces of work that may run at the same time.
pub trait Job: Sync {
    /// Does piece number `piece`. Every piece is done exactly once.
    fn piece(&self, piece: usize);
}

/// How much work a job is, and of which kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Columns that are computed; 0 where weights are laid out.
    pub columns: usize,
    /// Multiplications, or weights; 0 where time depends on more than their number, for jobs that go with the others.
    pub products: usize,
}

/// Runs all pieces of `job`, which is so much `work`, and returns when the last one is done.
pub fn run(job: &dyn Job, pieces: usize, work: Work) {
    #[cfg(any(kernel_threads, not(target_arch = "wasm32")))]
    if pieces > 1 && shared::run(job, pieces, work) {
        return;
    }
    #[cfg(not(any(kernel_threads, not(target_arch = "wasm32"))))]
    let _ = work;
    for piece in 0..pieces {
        job.piece(piece);
    }
}

/// A slice of results of which every piece of a job writes its own places.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a, T> {
    start: *mut T,
    len: usize,
    slice: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: a `Places` is only a place to write to; `write` says who may write where.
#[allow(unsafe_code)]
unsafe impl<T: Send> Sync for Places<'_, T> {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl<T: Send> Send for Places<'_, T> {}

impl<'a, T: Copy> Places<'a, T> {
    /// Over `slice`, which nobody else touches while this lives.
    pub fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), slice: std::marker::PhantomData }
    }

    /// Writes `values` to `at ..`. Two pieces of a job must not be given the same places. Places past the end are a
    /// mistake of this crate and are not written.
    #[allow(unsafe_code)]
    #[inline(always)]
    pub fn write(&self, at: usize, values: &[T]) {
        debug_assert!(at + values.len() <= self.len, "a result has no place");
        if at + values.len() <= self.len {
            // SAFETY: the places lie inside the slice, which is borrowed for as long as this lives; the pieces of a job
            // write disjoint places, and nobody reads before the job is over.
            unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), self.start.add(at), values.len()) };
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod native;
#[cfg(any(kernel_threads, not(target_arch = "wasm32")))]
mod pace;
#[cfg(any(kernel_threads, not(target_arch = "wasm32")))]
pub mod shared;

#[cfg(not(target_arch = "wasm32"))]
pub use native::{Caller, set_threads, threads};
