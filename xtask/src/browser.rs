//! Playwright with the real page, the real server and a real Chromium.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;

use crate::build::{self, native_command};
use crate::npm;
use crate::page::index::Index;
use crate::page::{self, module};
use crate::shell::{command, run, step, target_folder};
use crate::tools;

/// Everything that a spec needs, built and found.
pub struct Playwright {
    chromium: PathBuf,
    tandem: PathBuf,
}

/// Builds the page, the engine's checks and the npm package.
pub fn build_page(keep_page: bool) -> Result<()> {
    if !keep_page {
        // All that share their crates in one call.
        let documents = Index::all()?;
        let check = build::engine_check_module();
        let all = documents.iter().flat_map(Index::modules);
        let early: Vec<_> = all.filter(|module| !module.is_late).chain([&check]).collect();
        module::build(&early)?;
        page::build_all()?;
    }
    build::engine_check()?;
    if !keep_page || !npm::is_built()? {
        npm::package()?;
    }
    Ok(())
}

impl Playwright {
    /// Builds page and server, installs the node packages of tests/, finds Chromium.
    pub fn prepare(keep_page: bool) -> Result<Self> {
        tools::require_node()?;
        build_page(keep_page)?;
        Self::over_page()
    }

    /// As [`prepare`](Self::prepare), where [`build_page`] has been done already.
    pub fn over_page() -> Result<Self> {
        step("The server for the browser tests");
        run(native_command(&["test", "--no-run", "--quiet"])?)?;
        let mut install = command("npm", &["ci", "--no-audit", "--no-fund"]);
        install.current_dir("tests");
        run(install)?;
        let tandem = target_folder()?.join("debug").join(format!("tandem{}", std::env::consts::EXE_SUFFIX));
        Ok(Self { chromium: tools::ensure_chromium()?, tandem })
    }

    /// Runs `playwright test` with these arguments.
    pub fn run(&self, args: &[String]) -> Result<()> {
        self.run_with(args, &[])
    }

    /// As [`run`](Self::run), with more in the environment.
    pub fn run_with(&self, args: &[String], env: &[(&str, OsString)]) -> Result<()> {
        let mut arguments = vec!["playwright".to_owned(), "test".to_owned()];
        arguments.extend(args.iter().cloned());
        let mut playwright = command("npx", &arguments);
        playwright.current_dir("tests").env("CHROMIUM", &self.chromium).env("TANDEM", &self.tandem);
        playwright.envs(env.iter().map(|(name, value)| (name, value)));
        run(playwright)
    }
}
