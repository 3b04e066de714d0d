//! Threads over one shared memory: instances of this module that a page's workers run, or natively threads.
//!
//! A ticket holds the number of the job, of its pieces and of the next piece in one word, so that a piece is claimed by
//! one exchange and a helper that comes late finds either pieces of the job it looked at or none. Nothing is allocated by
//! helpers: the allocator of the wasm build knows of one thread only.
//!
//! One job is shared at a time. In a page one thread posts them all; natively who finds another's job under way does its own
//! alone.

#![allow(unsafe_code, reason = "a job crosses threads as two words")]

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};

use super::pace::Pace;
use super::{Job, Work};

/// Bits of the ticket that number the pieces; as many count them.
const BITS: u32 = 20;
const MASK: u64 = (1 << BITS) - 1;
/// Looks at the ticket before a helper parks: some tens of microseconds.
const SPINS: u32 = if cfg!(target_arch = "wasm32") { 20_000 } else { 2000 };

static TICKET: AtomicU64 = AtomicU64::new(0);
static DONE: AtomicU32 = AtomicU32::new(0);
static JOB: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];
static HELPERS: AtomicU32 = AtomicU32::new(0);
/// Helpers that may take pieces of the job under way: those with smaller numbers.
static ALLOWED: AtomicU32 = AtomicU32::new(0);
static PARKED: AtomicU32 = AtomicU32::new(0);
/// Raised to wake helpers; they wait for it to change.
static SIGNAL: AtomicU32 = AtomicU32::new(0);
/// Whoever holds it may post a job.
static PACE: Mutex<Pace> = Mutex::new(Pace::new());

#[cfg(target_arch = "wasm32")]
mod host {
    #[link(wasm_import_module = "tandem")]
    unsafe extern "C" {
        /// Wakes everyone who waits for the word at this address.
        fn wake(address: *const u32);
        /// Milliseconds since some moment.
        fn now() -> f64;
    }

    /// Looks before the helpers are waited for by yielding; a page's thread has nobody to yield to.
    pub const LOOKS: u32 = u32::MAX;

    pub fn wake_all() {
        // SAFETY: the page's function only looks the address up.
        unsafe { wake(super::SIGNAL.as_ptr()) }
    }

    pub fn now_ms() -> f64 {
        // SAFETY: the page's function only tells the time.
        unsafe { now() }
    }

    /// How many helpers may take pieces of the next job.
    pub fn helpers() -> u32 {
        super::HELPERS.load(super::Ordering::Relaxed)
    }
}

#[cfg(not(target_arch = "wasm32"))]
use super::native as host;

/// Does the job with the helpers, or without where they are no help; false when there is nobody to share it with.
pub(super) fn run(job: &dyn Job, pieces: usize, work: Work) -> bool {
    let helpers = host::helpers();
    if helpers == 0 || pieces as u64 > MASK {
        return false;
    }
    // Held while the job is under way.
    let mut pace = match PACE.try_lock() {
        Ok(pace) => pace,
        Err(TryLockError::Poisoned(pace)) => pace.into_inner(),
        Err(TryLockError::WouldBlock) => return false,
    };
    let started_ms = host::now_ms();
    if pace.is_alone(work) {
        (0..pieces).for_each(|piece| job.piece(piece));
    } else {
        ALLOWED.store(helpers, Ordering::Relaxed);
        share(job, pieces);
    }
    pace.note(work, host::now_ms() - started_ms);
    true
}

/// Posts the job and works on it until it is done.
fn share(job: &dyn Job, pieces: usize) {
    // SAFETY: a reference to a trait object is two words; it is put together again only while this function has it.
    let words: [usize; 2] = unsafe { std::mem::transmute::<&dyn Job, [usize; 2]>(job) };
    JOB[0].store(words[0], Ordering::Relaxed);
    JOB[1].store(words[1], Ordering::Relaxed);
    DONE.store(0, Ordering::Relaxed);
    let number = (TICKET.load(Ordering::Relaxed) >> (2 * BITS)) + 1;
    TICKET.store(number << (2 * BITS) | (pieces as u64) << BITS, Ordering::SeqCst);
    if PARKED.load(Ordering::SeqCst) > 0 {
        SIGNAL.fetch_add(1, Ordering::SeqCst);
        host::wake_all();
    }
    while take_piece() {}
    let mut looks = 0u32;
    while (DONE.load(Ordering::Acquire) as usize) < pieces {
        if looks < host::LOOKS {
            looks += 1;
            std::hint::spin_loop();
        } else {
            // A helper has lost its core to somebody, this thread perhaps.
            std::thread::yield_now();
        }
    }
}

/// Claims and does one piece; false when none is left.
fn take_piece() -> bool {
    let ticket = TICKET.load(Ordering::Acquire);
    let (next, pieces) = (ticket & MASK, ticket >> BITS & MASK);
    if next >= pieces {
        return false;
    }
    let words = [JOB[0].load(Ordering::Relaxed), JOB[1].load(Ordering::Relaxed)];
    if TICKET.compare_exchange(ticket, ticket + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
        // SAFETY: the piece belongs to the job whose words were read: whoever posts the next one waits for this piece
        // first, so the ticket could not have been the same otherwise. All instances share one table of functions.
        let job: &dyn Job = unsafe { std::mem::transmute::<[usize; 2], &dyn Job>(words) };
        job.piece(next as usize);
        DONE.fetch_add(1, Ordering::AcqRel);
    }
    true
}

/// A helper's work, of the one with this number: takes pieces until none has come for a while, then returns the value of the
/// signal to wait on.
pub fn help(number: u32) -> u32 {
    let mut idle = 0;
    while idle < SPINS {
        if number < ALLOWED.load(Ordering::Relaxed) && take_piece() {
            idle = 0;
        } else {
            idle += 1;
            std::hint::spin_loop();
        }
    }
    let signal = SIGNAL.load(Ordering::SeqCst);
    PARKED.fetch_add(1, Ordering::SeqCst);
    // A job that was posted in between did not see this helper parked.
    if number < ALLOWED.load(Ordering::Relaxed)
        && TICKET.load(Ordering::SeqCst) & MASK < TICKET.load(Ordering::SeqCst) >> BITS & MASK
    {
        SIGNAL.load(Ordering::SeqCst).wrapping_sub(1)
    } else {
        signal
    }
}

/// A helper that waited is back.
pub fn unpark() {
    PARKED.fetch_sub(1, Ordering::SeqCst);
}

/// Address of the signal.
pub fn signal() -> *const u32 {
    SIGNAL.as_ptr()
}

/// The signal's value.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn signalled() -> u32 {
    SIGNAL.load(Ordering::SeqCst)
}

/// How many helpers there are.
pub fn set_helpers(count: u32) {
    HELPERS.store(count, Ordering::Relaxed);
    *PACE.lock().unwrap_or_else(PoisonError::into_inner) = Pace::new();
}

/// How many there are.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn helpers() -> u32 {
    HELPERS.load(Ordering::Relaxed)
}
