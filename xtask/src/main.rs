//! Tandem's own commands, `cargo xtask …`: set-up, build, demo, tests and benches from a bare machine with rustup, a C
//! compiler and Node.
//!
//! - [`tools`]: finds or installs what cargo does not bring: the wasm target, wasm-opt, esbuild, Chromium, a Vulkan driver
//! - [`page`]: the page in dist/ and its modules; wasm-bindgen is the package beside this one, bindgen/
//! - [`build`]: the server, the engine's checks
//! - [`kernels`]: the CPU kernels as wasm modules
//! - [`npm`]: the client as a package
//! - [`browser`]: Playwright over both
//! - [`beside`]: building while lints and tests run, or the demo's server
//! - [`dependencies`]: licences, sources and doubles among them
//! - [`demo`], [`test`], [`bench`], [`control`]: one command each
//! - [`circles`]: modules that import each other
//! - [`shell`]: running programs and saying so
//!
//! Nothing here is needed at run time: `tandem serve` stands alone.

use anyhow::Result;
use clap::{Parser, Subcommand};

mod bench;
mod beside;
mod browser;
mod build;
mod circles;
mod control;
mod demo;
mod dependencies;
mod kernels;
mod lints;
mod npm;
mod page;
mod shell;
mod test;
mod tools;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, show, test and measure Tandem", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what is missing, build page and server, start the server and print the URL; the rest is built behind it.
    Demo(demo::Args),
    /// Everything that CI checks: format, lints, unit and property tests, and the page in a real Chromium.
    Test(test::Args),
    /// Measure; prints ratios and rates, never passes or fails.
    Bench(bench::Args),
    /// Train what public/reports/control.md speaks of, five seeds each, and draw its figures (hours).
    Control(control::Args),
    /// Make public/reports/recorded-run.json anew: the run that the page plays before a model is loaded.
    Record,
    /// Build the page into dist/ (release mode), compress it and print its sizes.
    Page,
    /// Build the CPU kernels as wasm modules of their own (trunk calls this after each build of the page).
    Kernels(kernels::Args),
    /// Build the client as an npm package into target/npm/tandem-client and print its sizes.
    Npm,
    /// Look for modules of a crate that import each other in a circle.
    Circles,
    /// Install trunk and what it needs, for working on the page.
    Setup,
    /// What `test` and `demo` start for themselves.
    #[command(name = beside::NAME, hide = true)]
    Beside(beside::Args),
}

fn main() -> Result<()> {
    shell::enter_workspace_root()?;
    match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Control(args) => control::run(&args),
        Command::Record => {
            browser::Playwright::prepare(false)?.run(&["--config".to_owned(), "record.config.mjs".to_owned()])
        }
        Command::Page => {
            page::build_all()?;
            page::sizes::compress()
        }
        Command::Kernels(args) => kernels::build(&args),
        Command::Npm => npm::package(),
        Command::Circles => circles::check(),
        Command::Beside(args) => {
            beside::end_with_standard_input();
            match args.what {
                beside::What::Page => browser::build_page(false),
                beside::What::Late => demo::late(),
            }
        }
        Command::Setup => tools::ensure_trunk(),
    }
}
