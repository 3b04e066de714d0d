//! The `tandem` binary: reads the command line and hands over to one file of `tandem::cli`.

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use tandem::cli::Cli;

/// Training makes and drops tensors of some hundred kB at a time, which the system's allocator gives back to the system
/// every time and then waits for.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Milliseconds after which it gives back what was freed. By itself it keeps it for longer, and loading a model frees as much
/// again as a small model takes.
const PURGE_DELAY_MS: std::ffi::c_long = 10;
/// That option's number, `mi_option_purge_delay` in mimalloc.h.
const PURGE_DELAY: i32 = 15;

#[allow(unsafe_code, reason = "the allocator's options are set by a function of C's")]
fn give_back_soon() {
    // SAFETY: it stores a number in a table of mimalloc's, and looks whether there is such an option. What its own environment
    // variable says counts more.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, PURGE_DELAY_MS) }
}

fn main() -> ExitCode {
    give_back_soon();
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", tandem::cli::chain(&error));
            ExitCode::FAILURE
        }
    }
}
