//! End-to-end tests of Tandem; the tests themselves stand in `tests/` beside this folder, and what they share here. Playwright's
//! specs are in `e2e/`, and what those share is in `e2e/harness.mjs`.
// Clippy's leave for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// The binary that cargo built beside the test.
///
/// # Panics
/// It is not there.
#[must_use]
pub fn tandem() -> Command {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(|deps| deps.parent()).unwrap();
    let binary: PathBuf = profile.join(format!("tandem{}", std::env::consts::EXE_SUFFIX));
    assert!(binary.is_file(), "{} is missing; `cargo test --no-run --workspace` builds it", binary.display());
    Command::new(binary)
}

/// What a command says to an input, once it has ended.
///
/// # Panics
/// It does not start.
#[must_use]
pub fn run(args: &[&str], input: &str) -> Output {
    let mut child = tandem()
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("tandem does not start: {error}"));
    // A program that refuses its arguments closes its input early.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// Output as text.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
