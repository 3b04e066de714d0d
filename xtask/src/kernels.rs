//! The CPU kernels as wasm modules of their own, in four builds. trunk calls this when it has built the page, so that
//! `trunk serve` has them too.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::shell::{command, run, step, target_folder};

/// Arguments of `cargo xtask kernels`.
#[derive(clap::Args)]
pub struct Args {
    /// Folder for the modules [default: where trunk puts the page, else dist].
    #[arg(long, env = "TRUNK_STAGING_DIR", default_value = "dist")]
    pub out: PathBuf,
}

/// A memory that threads share. The standard library that comes with rustc was built for one thread, which the linker
/// would object to; nothing of it is called by two threads (see the crate's `pool`).
const SHARED: &str = "--cfg=kernel_threads -Clink-arg=--shared-memory -Clink-arg=--import-memory -Clink-arg=--max-memory=4294967296 \
                      -Clink-arg=--no-check-features -Clink-arg=--export=__stack_pointer";

/// Names of the builds, and what the compiler is told.
const BUILDS: [(&str, &str, bool); 4] = [
    ("simd", "+simd128", false),
    ("relaxed", "+simd128,+relaxed-simd", false),
    ("simd-threads", "+simd128,+atomics,+bulk-memory", true),
    ("relaxed-threads", "+simd128,+relaxed-simd,+atomics,+bulk-memory", true),
];

/// Builds them into a folder.
pub fn build(args: &Args) -> Result<()> {
    fs::create_dir_all(&args.out).with_context(|| format!("{}", args.out.display()))?;
    for (name, bytes) in built()? {
        let file = args.out.join(name);
        fs::write(&file, bytes).with_context(|| format!("{} cannot be written", file.display()))?;
    }
    Ok(())
}

/// Builds them: their names and bytes.
pub fn built() -> Result<Vec<(String, Vec<u8>)>> {
    step("The CPU kernels, in four builds");
    let target = target_folder()?.join("kernels");
    let mut built = Vec::new();
    for (name, features, shared) in BUILDS {
        let mut flags = format!("-Ctarget-feature={features} -Cstrip=symbols");
        if shared {
            flags = format!("{flags} {SHARED}");
        }
        // One folder for each: flags are part of what cargo compares, and one build would throw the other away.
        let folder = target.join(name);
        let folder_name = folder.to_string_lossy();
        let mut cargo = vec![
            "rustc",
            "--locked",
            "--quiet",
            "--release",
            "--package",
            "cpu-kernels",
            "--lib",
            "--crate-type",
            "cdylib",
        ];
        cargo.extend(["--target", "wasm32-unknown-unknown", "--target-dir", &folder_name]);
        let mut cargo = command("cargo", &cargo);
        cargo.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", flags).env_remove("RUSTFLAGS");
        run(cargo).with_context(|| format!("the CPU kernels ({name}) did not build"))?;
        let wasm = folder.join("wasm32-unknown-unknown/release/cpu_kernels.wasm");
        built.push((format!("kernels-{name}.wasm"), fs::read(&wasm).with_context(|| format!("{}", wasm.display()))?));
    }
    Ok(built)
}
