//! `cargo xtask bench`: measurements. They print rates and ratios and judge nothing.

use anyhow::Result;

use crate::browser::Playwright;
use crate::shell::{self, command, step};

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Args {
    /// What to measure.
    #[arg(value_enum)]
    what: What,
    /// Use the page in dist/ as it is instead of building it again.
    #[arg(long)]
    keep_page: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum What {
    /// Slots a second of the MEC simulator (criterion).
    Mec,
    /// Prefill and decode of both engine tiers in headless Chromium, TTFT, wasm sizes.
    Engine,
}

/// Runs one bench.
pub fn run(args: &Args) -> Result<()> {
    match args.what {
        What::Mec => {
            step("Simulator");
            shell::run(command("cargo", &["bench", "-p", "client-core", "--bench", "mec"]))
        }
        What::Engine => {
            let playwright = Playwright::prepare(args.keep_page)?;
            step("Engine, in headless Chromium");
            playwright.run(&["--config".to_owned(), "bench.config.mjs".to_owned()])
        }
    }
}
