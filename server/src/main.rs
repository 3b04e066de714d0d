//! The `tandem` binary: reads the command line and hands over to one file of `tandem::cli`.

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use tandem::cli::Cli;

/// Training makes and drops tensors of some hundred kB at a time, which the system's allocator gives back to the system
/// every time and then waits for.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", tandem::cli::chain(&error));
            ExitCode::FAILURE
        }
    }
}
