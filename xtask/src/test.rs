//! `cargo xtask test`: everything that CI checks, in the order of what fails fastest; the page is built beside it.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::beside::{Build, What};
use crate::browser::Playwright;
use crate::dependencies;
use crate::lints::{native_command, stricter};
use crate::page::same;
use crate::shell::{self, command, find_on_path, output, step};
use crate::tools;

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
#[command(after_help = "The first run compiles several hundred crates; later ones take minutes.")]
pub struct Args {
    /// Run one part only.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Use the page in dist/ as it is instead of building it again.
    #[arg(long)]
    keep_page: bool,
    /// Passed on to Playwright, for example `-- -g download`.
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Parts of the test run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Format and lints.
    Lint,
    /// Unit, property and black-box tests without a browser.
    Native,
    /// The page in Chromium.
    Browser,
    /// The CPU kernels for 64-bit Arm, in an emulator: no part of a whole run.
    Aarch64,
}

/// Runs the parts.
pub fn run(args: &Args) -> Result<()> {
    if args.only == Some(Part::Aarch64) {
        return aarch64();
    }
    let wanted = |part| args.only.is_none_or(|only| only == part);
    let mut page = None;
    if wanted(Part::Lint) {
        format()?;
    }
    if args.only.is_none() && !args.keep_page {
        tools::require_node()?;
        // Before two builds would both install them.
        tools::ensure_page_tools()?;
        shell::share_cores()?;
        page = Build::start(What::Page)?;
    }
    if wanted(Part::Lint) {
        lint(page.is_some())?;
    }
    let mut skipped = Vec::new();
    if wanted(Part::Native) {
        skipped.extend(native()?);
    }
    if wanted(Part::Browser) {
        let playwright = match page {
            Some(page) => {
                page.finish()?;
                Playwright::over_page()?
            }
            None => Playwright::prepare(args.keep_page)?,
        };
        same::check()?;
        step("Browser tests");
        let context = "the browser tests failed; traces and pictures are in tests/test-results";
        playwright.run(&args.rest).context(context)?;
        if let Some(flaky) = flaky(Path::new("tests/test-results/report.json"))? {
            skipped.push(flaky);
        }
    }
    if skipped.is_empty() {
        step("All passed");
    } else {
        step(&format!("All else passed, but not all is well:\n  {}", skipped.join("\n  ")));
    }
    Ok(())
}

/// The tiles that a machine with another processor cannot run are compiled for it and run by QEMU.
fn aarch64() -> Result<()> {
    const TARGET: &str = "aarch64-unknown-linux-gnu";
    step("CPU kernels for AArch64, in QEMU");
    for program in ["aarch64-linux-gnu-gcc", "qemu-aarch64"] {
        if find_on_path(program).is_none() {
            bail!(
                "{program} is missing; on Debian: apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"
            );
        }
    }
    shell::run(command("rustup", &["target", "add", TARGET]))?;
    let mut test = command("cargo", &["test", "--package", "cpu-kernels", "--target", TARGET]);
    test.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc")
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", "qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu max")
        .env("TANDEM_REQUIRE_TILES", "neon");
    shell::run(test)
}

fn format() -> Result<()> {
    step("Format");
    shell::run(command("cargo", &["fmt", "--all", "--", "--check"]))
}

/// Lints; for wasm32 only where the page's build, which lints too, does not run beside.
fn lint(beside_page: bool) -> Result<()> {
    crate::circles::check()?;
    step("Lints, native, while the tests are compiled (the first time takes minutes)");
    shell::run(native_command(&["test", "--no-run", "--quiet", "--all-targets"])?)?;
    if !beside_page {
        lint_wasm()?;
    }
    dependencies::check()
}

fn lint_wasm() -> Result<()> {
    step("Lints, wasm32 (the first time takes minutes)");
    tools::ensure_page_tools()?;
    // Without `policy-wgpu`: checking burn-wgpu takes longer than everything else.
    for (package, features) in [
        (["-p", "web", "-p", "rooms", "-p", "compact", "-p", "markdown"].as_slice(), ""),
        (["-p", "worker", "--lib", "--bins"].as_slice(), "engine,policy-flex"),
    ] {
        let mut clippy = vec!["clippy", "--target", "wasm32-unknown-unknown"];
        clippy.extend_from_slice(package);
        if !features.is_empty() {
            clippy.extend(["--features", features]);
        }
        clippy.extend(["--", "-D", "warnings"]);
        let mut clippy = command("cargo", &clippy);
        stricter(&mut clippy)?;
        shell::run(clippy)?;
    }
    Ok(())
}

/// Runs them; what could not be run, in words.
fn native() -> Result<Option<String>> {
    step("Unit, property and black-box tests (the first time takes minutes)");
    // All binaries first: the black-box tests run them.
    shell::run(native_command(&["test", "--no-run", "--quiet"])?)?;
    let driver = tools::ensure_lavapipe();
    let mut test = native_command(&["test"])?;
    if driver.is_none() && !has_vulkan() {
        // Each of them finds that out for itself.
        let reason = "SKIPPED: the engine's tests on a GPU. There is no Vulkan device and no Mesa (lavapipe) to stand in for one";
        eprintln!("  {reason}");
        shell::run(test)?;
        return Ok(Some(reason.to_owned()));
    }
    // Where there is a device, a test that does not get it has failed.
    test.env("TANDEM_REQUIRE_GPU", "1");
    if let Some(driver) = driver {
        eprintln!("  GPU tests run on Mesa's lavapipe ({})", driver.display());
        // The old name of the variable is the only one that old loaders know.
        test.env("VK_DRIVER_FILES", &driver).env("VK_ICD_FILENAMES", &driver);
        // Mesa looks for a display by it, and complains at every device where there is none.
        if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
            test.env("XDG_RUNTIME_DIR", std::env::temp_dir());
        }
    }
    shell::run(test).map(|()| None)
}

/// Whether there is a device of another kind; asked of the loader's own program where it is installed.
fn has_vulkan() -> bool {
    output("vulkaninfo", &["--summary"]).is_some_and(|text| text.contains("GPU0"))
}

/// Tests of Playwright's report that needed a second try, in words; `None` if none did.
fn flaky(report: &Path) -> Result<Option<String>> {
    let text = std::fs::read(report).with_context(|| format!("{} is missing", report.display()))?;
    let report: serde_json::Value =
        serde_json::from_slice(&text).with_context(|| format!("{} cannot be read", report.display()))?;
    let mut titles = Vec::new();
    let mut suites: Vec<&serde_json::Value> = report["suites"].as_array().into_iter().flatten().collect();
    while let Some(suite) = suites.pop() {
        suites.extend(suite["suites"].as_array().into_iter().flatten());
        for spec in suite["specs"].as_array().into_iter().flatten() {
            let tests = spec["tests"].as_array().into_iter().flatten();
            if tests.into_iter().any(|test| test["status"] == "flaky") {
                let text = |key: &str| spec[key].as_str().unwrap_or_default();
                titles.push(format!("{}: {}", text("file"), text("title")));
            }
        }
    }
    titles.sort();
    Ok((!titles.is_empty()).then(|| {
        format!("FLAKY, {} of the browser tests passed at a second try only: {}", titles.len(), titles.join("; "))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_tries_are_counted_and_named() {
        let spec = |title: &str, status: &str| serde_json::json!({"title": title, "file": "ask.spec.mjs", "tests": [{"status": status}]});
        let report = |specs: serde_json::Value| {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("report.json");
            let report = serde_json::json!({"suites": [{"specs": [], "suites": [{"specs": specs}]}]});
            std::fs::write(&file, report.to_string()).unwrap();
            flaky(&file).unwrap()
        };
        assert_eq!(report(serde_json::json!([spec("a", "expected"), spec("b", "skipped")])), None);
        let told = report(serde_json::json!([spec("a", "flaky"), spec("b", "expected"), spec("c", "flaky")])).unwrap();
        assert!(told.contains("2 of") && told.contains("ask.spec.mjs: a; ask.spec.mjs: c"), "{told}");
        assert!(flaky(Path::new("no-such-file")).is_err());
    }
}
