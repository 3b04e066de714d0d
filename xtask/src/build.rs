//! Building the server, and the engine's checks for the browser tests.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::kernels;
use crate::page::module::{Module, Target};
use crate::shell::{command, output, run, step, target_folder};

/// One set of packages and features for every native command: another one would compile the dependencies again.
/// `cargo test` builds the `tandem` binary too, because tandem-server has black-box tests of its own. Without wasm-bindgen's
/// program: it has no tests, and the page's build compiles its many crates anyway.
const NATIVE: &[&str] = &["--workspace", "--exclude", "xtask-bindgen"];

/// A cargo command over the native set whose compiler is clippy, as `cargo clippy` makes it one, but for a build: a check
/// beside it would go through all dependencies and the workspace a second time, for minutes.
pub fn native_command(arguments: &[&str]) -> Result<Command> {
    let sysroot = output("rustc", &["--print", "sysroot"]).context("rustc does not say where it is")?;
    let driver = Path::new(&sysroot).join("bin").join(format!("clippy-driver{}", std::env::consts::EXE_SUFFIX));
    if !driver.is_file() {
        bail!("{} is missing: `rustup component add clippy` brings it", driver.display());
    }
    let mut cargo = command("cargo", &[arguments, NATIVE].concat());
    cargo.env("RUSTC_WORKSPACE_WRAPPER", driver);
    // In the form in which cargo-clippy hands over what follows its `--`.
    cargo.env("CLIPPY_ARGS", "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__");
    Ok(cargo)
}

/// The engine's checks: a module of the browser tests alone, which is why web/index.html does not have it.
pub fn engine_check_module() -> Module {
    Module {
        name: "engine_check".into(),
        package: "worker".into(),
        // Those of the page's engine worker, so that no crate is compiled for it alone.
        features: "engine".into(),
        profile: "release".into(),
        target: Target::Web,
        optimise: Vec::new(),
        is_late: false,
    }
}

/// Builds the engine's checks into target/engine-check/.
pub fn engine_check() -> Result<()> {
    let module = engine_check_module();
    crate::page::module::build(&[&module])?;
    let folder = Path::new("target/engine-check");
    kernels::build(&kernels::Args { out: folder.to_owned() })?;
    for file in module.files().map(|file| module.folder().map(|folder| folder.join(file))) {
        copy_into(&file?, folder)?;
    }
    copy_into(Path::new("web/src/kernels_worker.js"), folder)
}

/// Copies a file into a folder under its own name.
pub fn copy_into(from: &Path, folder: &Path) -> Result<()> {
    let to = folder.join(from.file_name().unwrap_or_default());
    std::fs::copy(from, &to).map(drop).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// Builds the `tandem` binary for a demo and says where it is: in a profile without the release's optimisation
/// across crates, and without the engine on a GPU, which only `tandem bench-engine` uses.
pub fn demo_server() -> Result<PathBuf> {
    step("The server (the first time takes minutes)");
    let arguments = [
        "build",
        "--locked",
        "--profile",
        "demo",
        "--package",
        "tandem-server",
        "--bin",
        "tandem",
        "--no-default-features",
    ];
    run(command("cargo", &arguments))?;
    Ok(target_folder()?.join("demo").join(format!("tandem{}", std::env::consts::EXE_SUFFIX)))
}
