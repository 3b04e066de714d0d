//! `cargo run --release --bin seeds -- corpus`: the sound inputs as files, `corpus/TARGET/seed-N`, for a fuzzer to begin with.

use std::path::Path;
use std::process::ExitCode;

use client_core_fuzz::{seeds, targets};

fn write(folder: &Path) -> std::io::Result<()> {
    for name in targets::NAMES {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder)?;
        for (at, seed) in seeds::of(name).iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{at}")), seed)?;
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("which folder?");
        return ExitCode::FAILURE;
    };
    match write(Path::new(&folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{} cannot be written: {error}", Path::new(&folder).display());
            ExitCode::FAILURE
        }
    }
}
