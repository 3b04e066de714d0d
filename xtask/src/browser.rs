//! Playwright with the real page, the real server and a real Chromium.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Result;

use crate::build;
use crate::lints::native_command;
use crate::npm;
use crate::page;
use crate::page::index::Index;
use crate::shell::{self, command, run, step, target_folder};
use crate::tools;

/// Everything that a spec needs, built and found.
pub struct Playwright {
    chromium: PathBuf,
    tandem: PathBuf,
}

/// Builds the page, the engine's checks and the npm package, and installs what the browser tests run with beside that.
pub fn build_page(keep_page: bool) -> Result<()> {
    shell::share_cores()?;
    shell::lanes(vec![("browser", Box::new(install)), ("page", Box::new(|| build_all(keep_page)))])
}

/// The node packages of tests/, and Chromium.
fn install() -> Result<()> {
    let mut packages = command("npm", &["ci", "--no-audit", "--no-fund"]);
    packages.current_dir("tests");
    run(packages)?;
    tools::ensure_chromium().map(drop)
}

fn build_all(keep_page: bool) -> Result<()> {
    if !keep_page {
        // At once, so that nothing waits for the page's first part.
        let documents = Index::all()?;
        let check = build::engine_check_module();
        let all: Vec<_> = documents.iter().flat_map(Index::modules).chain([&check]).collect();
        page::compile(&all)?;
        page::build_all()?;
    }
    build::engine_check()?;
    if !keep_page || !npm::is_built()? {
        npm::package()?;
    }
    Ok(())
}

impl Playwright {
    /// Builds page and server, with [`build_page`].
    pub fn prepare(keep_page: bool) -> Result<Self> {
        tools::require_node()?;
        build_page(keep_page)?;
        Self::over_page()
    }

    /// As [`prepare`](Self::prepare), where [`build_page`] has been done already.
    pub fn over_page() -> Result<Self> {
        step("The server for the browser tests");
        run(native_command(&["test", "--no-run", "--quiet"])?)?;
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
