//! What cargo does not bring: found on PATH at the right version, else installed once into a cache folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{command, find_on_path, output, run, step};

/// Trunk builds the page. 0.22 wants a newer compiler than the one that the workspace is pinned to.
const TRUNK: &str = "0.21.14";
/// Has to equal the `wasm-bindgen` crate's version in Cargo.lock.
const WASM_BINDGEN: &str = "0.2.130";
/// npm version of binaryen, which brings wasm-opt.
const BINARYEN: &str = "132.0.0";

/// Folders that have to be on PATH while trunk runs.
pub struct WasmTools {
    folders: Vec<PathBuf>,
}

impl WasmTools {
    /// Trunk with every tool on its PATH, so that it downloads nothing.
    pub fn trunk(&self, args: &[&str]) -> Result<Command> {
        let mut trunk = self.program("trunk", args)?;
        // Trunk reads NO_COLOR as a boolean option and refuses the customary `1`.
        trunk.env_remove("NO_COLOR");
        Ok(trunk)
    }

    /// One of the tools.
    pub fn program(&self, name: &str, args: &[&str]) -> Result<Command> {
        let mut paths = self.folders.clone();
        paths.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        let mut program = command(name, args);
        program.env("PATH", std::env::join_paths(&paths)?);
        Ok(program)
    }
}

/// `~/.cache/tandem/tools`, or where `TANDEM_CACHE` says.
fn cache_folder() -> Result<PathBuf> {
    let base = match std::env::var_os("TANDEM_CACHE") {
        Some(dir) => PathBuf::from(dir),
        None => home()?.join(".cache").join("tandem"),
    };
    Ok(base.join("tools"))
}

fn home() -> Result<PathBuf> {
    let home = std::env::var_os("HOME").or_else(|| std::env::var_os("USERPROFILE"));
    home.map(PathBuf::from).context("neither HOME nor USERPROFILE is set; set TANDEM_CACHE to a folder for build tools")
}

/// Finds or installs the wasm target, trunk, wasm-bindgen and wasm-opt.
pub fn ensure_wasm_tools() -> Result<WasmTools> {
    step("Build tools for the page (the first time takes minutes)");
    ensure_wasm_target()?;
    let cache = cache_folder()?;
    let bin = cache.join("bin");
    // `--locked` for trunk: a tool builds as its authors released it. wasm-bindgen-cli's own lock no longer builds.
    ensure_cargo_tool("trunk", TRUNK, &["--locked", "--no-default-features"], &cache)?;
    ensure_cargo_tool("wasm-bindgen", WASM_BINDGEN, &["--no-default-features", "--bin", "wasm-bindgen"], &cache)?;
    let binaryen = ensure_binaryen(&cache)?;
    Ok(WasmTools { folders: vec![bin, binaryen] })
}

fn ensure_wasm_target() -> Result<()> {
    let sysroot = output("rustc", &["--print", "sysroot"]).context("rustc does not run; install Rust with rustup")?;
    if Path::new(&sysroot).join("lib/rustlib/wasm32-unknown-unknown/lib").is_dir() {
        return Ok(());
    }
    run(command("rustup", &["target", "add", "wasm32-unknown-unknown"]))
        .context("the Rust target wasm32-unknown-unknown is missing and rustup could not add it")
}

fn ensure_cargo_tool(name: &str, version: &str, flags: &[&str], cache: &Path) -> Result<()> {
    let right = |program: &str| {
        output(program, &["--version"]).is_some_and(|text| text.split_whitespace().any(|word| word == version))
    };
    let cached = cache.join("bin").join(name);
    if right(&cached.to_string_lossy()) || right(name) {
        return Ok(());
    }
    let package = if name == "wasm-bindgen" { "wasm-bindgen-cli" } else { name };
    let exact = format!("={version}");
    let mut args = vec!["install", package, "--version", &exact, "--root"];
    let root = cache.to_string_lossy().into_owned();
    args.push(&root);
    args.extend_from_slice(flags);
    let mut install = command("cargo", &args);
    // A tool is built for this machine, whatever the workspace's own flags and target folder say.
    install.env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS").current_dir(std::env::temp_dir());
    // Trunk's own profile takes minutes to make a program fast that waits for others.
    install.envs(
        [("LTO", "off"), ("CODEGEN_UNITS", "16"), ("OPT_LEVEL", "1")]
            .map(|(key, value)| (format!("CARGO_PROFILE_RELEASE_{key}"), value)),
    );
    run(install).with_context(|| format!("{package} {version} could not be installed"))
}

fn ensure_binaryen(cache: &Path) -> Result<PathBuf> {
    let major = BINARYEN.split('.').next().unwrap_or(BINARYEN);
    let right = |program: &str| {
        output(program, &["--version"]).is_some_and(|text| text.split_whitespace().any(|word| word == major))
    };
    if right("wasm-opt")
        && let Some(folder) = find_on_path("wasm-opt").and_then(|file| file.parent().map(Path::to_path_buf))
    {
        return Ok(folder);
    }
    let folder = cache.join("node");
    let bin = folder.join("node_modules").join(".bin");
    if !right(&bin.join("wasm-opt").to_string_lossy()) {
        require_node()?;
        let package = format!("binaryen@{BINARYEN}");
        let prefix = folder.to_string_lossy().into_owned();
        run(command("npm", &["install", "--no-audit", "--no-fund", "--prefix", &prefix, &package]))
            .context("wasm-opt (npm package binaryen) could not be installed")?;
    }
    Ok(bin)
}

/// Node runs wasm-opt and the browser tests.
pub fn require_node() -> Result<()> {
    let Some(version) = output("node", &["--version"]) else {
        bail!("Node is missing; install Node 20 or newer (it runs wasm-opt and the browser tests)");
    };
    let major: u32 = version.trim_start_matches('v').split('.').next().and_then(|text| text.parse().ok()).unwrap_or(0);
    if major < 20 {
        bail!("Node {version} is too old; install Node 20 or newer");
    }
    Ok(())
}

/// Finds Chromium or Chrome (`CHROMIUM` names one), or installs it where it can.
pub fn ensure_chromium() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("CHROMIUM") {
        let named = PathBuf::from(named);
        if named.is_file() {
            return Ok(named);
        }
        bail!("CHROMIUM names {}, which is not a file", named.display());
    }
    if let Some(found) = find_chromium() {
        return Ok(found);
    }
    step("Chromium is missing; installing it (a minute or two)");
    let root = output("id", &["-u"]).as_deref() == Some("0");
    if root && find_on_path("apt-get").is_some() {
        let _ = run(command("apt-get", &["update", "-q"]));
        let mut install = command("apt-get", &["install", "-y", "-q", "--no-install-recommends", "chromium"]);
        install.env("DEBIAN_FRONTEND", "noninteractive");
        let _ = run(install);
    }
    if find_chromium().is_none() {
        let mut install = command("npx", &["playwright", "install", "chromium"]);
        install.current_dir("tests");
        let _ = run(install);
    }
    find_chromium().context(
        "no Chromium: install Chromium or Chrome by your system's package manager, or set CHROMIUM to its program file",
    )
}

fn find_chromium() -> Option<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"];
    if let Some(found) = names.iter().find_map(|name| find_on_path(name)) {
        return Some(found);
    }
    let mac = PathBuf::from("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome");
    if mac.is_file() {
        return Some(mac);
    }
    // Playwright's own download.
    let cache = home().ok()?.join(".cache").join("ms-playwright");
    let mut found: Vec<PathBuf> = std::fs::read_dir(cache)
        .ok()?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("chromium-"))
        .flat_map(|entry| ["chrome-linux/chrome", "chrome-linux64/chrome"].map(|program| entry.path().join(program)))
        .filter(|file| file.is_file())
        .collect();
    found.sort();
    found.pop()
}
