//! Cargo commands that lint what they compile.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{command, output};

/// One set of packages and features for every native command: another one would compile the dependencies again.
/// `cargo test` builds the `tandem` binary too, because tandem-server has black-box tests of its own. Without wasm-bindgen's
/// program: it has no tests, and the page's build compiles its many crates anyway.
const NATIVE: &[&str] = &["--workspace", "--exclude", "xtask-bindgen"];

/// Set for a build of the page whose workspace crates are linted as they are compiled.
pub const LINT_PAGE: &str = "TANDEM_LINT_PAGE";

/// A cargo command over the native set that lints.
pub fn native_command(arguments: &[&str]) -> Result<Command> {
    let mut cargo = command("cargo", &[arguments, NATIVE].concat());
    lint(&mut cargo)?;
    Ok(cargo)
}

/// A cargo command for the page's modules, which lints where [`LINT_PAGE`] asks for it.
pub fn page_command(arguments: &[String]) -> Result<Command> {
    let mut cargo = command("cargo", arguments);
    if std::env::var_os(LINT_PAGE).is_some() {
        lint(&mut cargo)?;
        stricter(&mut cargo)?;
    }
    Ok(cargo)
}

/// Has a cargo command use the rules of `.cargo/clippy-wasm`: in a browser much of the standard library compiles and then
/// panics.
pub fn stricter(cargo: &mut Command) -> Result<()> {
    cargo.env("CLIPPY_CONF_DIR", std::env::current_dir()?.join(".cargo/clippy-wasm"));
    Ok(())
}

/// Makes clippy the compiler of a cargo command, as `cargo clippy` makes it one, but for a build: a check beside it would go
/// through all dependencies and the workspace a second time, for minutes.
fn lint(cargo: &mut Command) -> Result<()> {
    let sysroot = output("rustc", &["--print", "sysroot"]).context("rustc does not say where it is")?;
    let driver = Path::new(&sysroot).join("bin").join(format!("clippy-driver{}", std::env::consts::EXE_SUFFIX));
    if !driver.is_file() {
        bail!("{} is missing: `rustup component add clippy` brings it", driver.display());
    }
    cargo.env("RUSTC_WORKSPACE_WRAPPER", driver);
    // In the form in which cargo-clippy hands over what follows its `--`.
    cargo.env("CLIPPY_ARGS", "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__");
    Ok(())
}
