//! `cargo xtask test`: everything that CI checks, in the order of what fails fastest; the page is built beside it.

use anyhow::{Context, Result};

use crate::beside::Build;
use crate::browser::Playwright;
use crate::shell::{self, command, find_on_path, step};
use crate::tools;

/// One set of packages and features for every native command: another one would compile the dependencies again.
/// `cargo test` builds the `tandem` binary too, because tandem-server has black-box tests of its own.
pub const NATIVE: &[&str] = &["--workspace"];

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
#[command(after_help = "The first run takes tens of minutes on two cores; later ones a few.")]
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
}

/// Runs the parts.
pub fn run(args: &Args) -> Result<()> {
    let wanted = |part| args.only.is_none_or(|only| only == part);
    let mut page = None;
    if wanted(Part::Lint) {
        format()?;
    }
    if args.only.is_none() && !args.keep_page {
        tools::require_node()?;
        // Before two builds would both install them.
        tools::ensure_wasm_tools()?;
        shell::share_cores()?;
        page = Build::start()?;
    }
    if wanted(Part::Lint) {
        lint()?;
    }
    if wanted(Part::Native) {
        native()?;
    }
    if wanted(Part::Browser) {
        let playwright = match page {
            Some(page) => {
                page.finish()?;
                Playwright::over_page()?
            }
            None => Playwright::prepare(args.keep_page)?,
        };
        step("Browser tests");
        let context = "the browser tests failed; traces and pictures are in tests/test-results";
        playwright.run(&args.rest).context(context)?;
    }
    step("All passed");
    Ok(())
}

fn format() -> Result<()> {
    step("Format");
    shell::run(command("cargo", &["fmt", "--all", "--", "--check"]))
}

fn lint() -> Result<()> {
    crate::circles::check()?;
    step("Lints, native (the first time takes minutes)");
    let mut clippy = vec!["clippy", "--all-targets"];
    clippy.extend_from_slice(NATIVE);
    clippy.extend(["--", "-D", "warnings"]);
    shell::run(command("cargo", &clippy))?;
    step("Lints, wasm32 (the first time takes minutes)");
    tools::ensure_wasm_tools()?;
    // Without `policy-wgpu`: checking burn-wgpu takes longer than everything else, and trunk compiles it anyway.
    for (package, features) in
        [(["-p", "web"].as_slice(), ""), (["-p", "worker", "--lib", "--bins"].as_slice(), "engine,policy-flex")]
    {
        let mut clippy = vec!["clippy", "--target", "wasm32-unknown-unknown"];
        clippy.extend_from_slice(package);
        if !features.is_empty() {
            clippy.extend(["--features", features]);
        }
        clippy.extend(["--", "-D", "warnings"]);
        shell::run(command("cargo", &clippy))?;
    }
    if find_on_path("cargo-deny").is_some() {
        step("Licences and sources of the dependencies");
        shell::run(command(
            "cargo",
            &["deny", "check", "--config", ".cargo/deny.toml", "bans", "licenses", "sources"],
        ))?;
    } else {
        eprintln!("  cargo-deny is not installed; licences and sources are not checked in this run");
    }
    Ok(())
}

fn native() -> Result<()> {
    step("Unit, property and black-box tests (the first time takes minutes)");
    // All binaries first: the black-box tests run them.
    let mut build = vec!["test", "--no-run", "--quiet"];
    build.extend_from_slice(NATIVE);
    shell::run(command("cargo", &build))?;
    let mut test = vec!["test"];
    test.extend_from_slice(NATIVE);
    shell::run(command("cargo", &test))
}
