//! What cargo does not bring: found at the right version, else installed, programs into a cache folder, Chromium and Mesa by
//! the system's package manager.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{command, find_on_path, output, run, step};

/// Builds and serves the page while somebody works on it. 0.22 wants a newer compiler than the one that the workspace is
/// pinned to.
const TRUNK: &str = "0.21.14";
/// For trunk, which wants the program; what xtask builds itself goes through the library (see bindgen/). Has to equal the
/// `wasm-bindgen` crate's version in Cargo.lock.
const WASM_BINDGEN: &str = "0.2.130";
/// npm version of binaryen, which brings wasm-opt.
const BINARYEN: &str = "132.0.0";
/// npm version of esbuild, which takes the comments out of scripts and styles.
const ESBUILD: &str = "0.28.2";
/// npm version of wllama, which the engine is measured beside.
const WLLAMA: &str = "3.13.0";
/// Of the tools that have their hands in a module.
pub const VERSIONS: &str = "binaryen 132.0.0, esbuild 0.28.2";

/// What builds the page.
pub struct Tools {
    /// Folders that come first on PATH.
    folders: Vec<PathBuf>,
}

impl Tools {
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

    /// Writes a script or style sheet without comments and spaces; names that others use stay.
    pub fn minify(&self, from: &Path, to: &Path, options: &[&str]) -> Result<()> {
        let (input, out) = (from.to_string_lossy(), format!("--outfile={}", to.display()));
        let mut arguments =
            vec![&*input, "--minify", "--log-level=warning", "--allow-overwrite", "--charset=utf8", &out];
        arguments.extend_from_slice(options);
        run(self.program("esbuild", &arguments)?).with_context(|| format!("{input} cannot be minified"))
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

/// Finds or installs what xtask builds the page with: the wasm target, wasm-opt and esbuild.
pub fn ensure_page_tools() -> Result<Tools> {
    ensure_wasm_target()?;
    Ok(Tools { folders: vec![ensure_node_tools(&cache_folder()?)?] })
}

/// Finds or installs what `trunk build` and `trunk serve` need besides.
pub fn ensure_trunk() -> Result<()> {
    ensure_page_tools()?;
    step("Trunk and wasm-bindgen, for working on the page (the first time takes minutes)");
    let cache = cache_folder()?;
    // `--locked` for trunk: a tool builds as its authors released it. wasm-bindgen-cli's own lock no longer builds.
    ensure_cargo_tool("trunk", TRUNK, &["--locked", "--no-default-features"], &cache)?;
    ensure_cargo_tool("wasm-bindgen", WASM_BINDGEN, &["--no-default-features", "--bin", "wasm-bindgen"], &cache)
}

/// Trunk with its tools, if they are installed.
pub fn find_trunk() -> Result<Option<Tools>> {
    let cache = cache_folder()?;
    if !is_installed("trunk", TRUNK, &cache) || !is_installed("wasm-bindgen", WASM_BINDGEN, &cache) {
        return Ok(None);
    }
    let mut tools = ensure_page_tools()?;
    tools.folders.insert(0, cache.join("bin"));
    Ok(Some(tools))
}

fn ensure_wasm_target() -> Result<()> {
    let sysroot = output("rustc", &["--print", "sysroot"]).context("rustc does not run; install Rust with rustup")?;
    if Path::new(&sysroot).join("lib/rustlib/wasm32-unknown-unknown/lib").is_dir() {
        return Ok(());
    }
    run(command("rustup", &["target", "add", "wasm32-unknown-unknown"]))
        .context("the Rust target wasm32-unknown-unknown is missing and rustup could not add it")
}

/// Whether a program says that it is of this version.
fn is_version(program: &str, version: &str) -> bool {
    output(program, &["--version"]).is_some_and(|text| text.split_whitespace().any(|word| word == version))
}

fn is_installed(name: &str, version: &str, cache: &Path) -> bool {
    is_version(&cache.join("bin").join(name).to_string_lossy(), version) || is_version(name, version)
}

fn ensure_cargo_tool(name: &str, version: &str, flags: &[&str], cache: &Path) -> Result<()> {
    if is_installed(name, version, cache) {
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

/// wasm-opt and esbuild, from npm; where their programs are.
fn ensure_node_tools(cache: &Path) -> Result<PathBuf> {
    let folder = cache.join("node");
    let bin = folder.join("node_modules").join(".bin");
    let major = BINARYEN.split('.').next().unwrap_or(BINARYEN);
    let cached = |name: &str| bin.join(name).to_string_lossy().into_owned();
    if !is_version(&cached("wasm-opt"), major) || !is_version(&cached("esbuild"), ESBUILD) {
        step("wasm-opt and esbuild");
        require_node()?;
        let packages = [format!("binaryen@{BINARYEN}"), format!("esbuild@{ESBUILD}")];
        npm_install(&folder, &packages)?;
    }
    Ok(bin)
}

/// wllama's package, in its folder.
pub fn ensure_wllama() -> Result<PathBuf> {
    let folder = cache_folder()?.join("wllama");
    let package = folder.join("node_modules/@wllama/wllama");
    let manifest = std::fs::read_to_string(package.join("package.json")).unwrap_or_default();
    if !manifest.contains(&format!("\"version\": \"{WLLAMA}\"")) {
        step("wllama");
        require_node()?;
        npm_install(&folder, &[format!("@wllama/wllama@{WLLAMA}")])?;
    }
    Ok(package)
}

fn npm_install(folder: &Path, packages: &[String]) -> Result<()> {
    let prefix = folder.to_string_lossy();
    let mut arguments = vec!["install", "--no-audit", "--no-fund", "--prefix", &prefix];
    arguments.extend(packages.iter().map(String::as_str));
    run(command("npm", &arguments)).with_context(|| format!("npm could not install {}", packages.join(" and ")))
}

/// Node runs wasm-opt and the browser tests.
pub fn require_node() -> Result<()> {
    let Some(version) = output("node", &["--version"]) else {
        bail!("Node is missing; install Node 20 or newer (it runs wasm-opt, esbuild and the browser tests)");
    };
    let major: u32 = version.trim_start_matches('v').split('.').next().and_then(|text| text.parse().ok()).unwrap_or(0);
    if major < 20 {
        bail!("Node {version} is too old; install Node 20 or newer");
    }
    Ok(())
}

/// Where Linux systems describe their Vulkan drivers.
const VULKAN_DRIVERS: [&str; 3] = ["/usr/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/etc/vulkan/icd.d"];

/// Finds or installs lavapipe, Mesa's Vulkan on the CPU: the file that describes it. It has half precision, subgroups and
/// packed products, so that the tests of every kernel run on a machine without a GPU, and in the same way on all of them.
pub fn ensure_lavapipe() -> Option<PathBuf> {
    if let Some(found) = find_lavapipe() {
        return Some(found);
    }
    if !cfg!(target_os = "linux") || find_on_path("apt-get").is_none() {
        return None;
    }
    step("Mesa's Vulkan driver is missing; installing it (half a minute)");
    install_by_apt(&["mesa-vulkan-drivers", "libvulkan1"]);
    find_lavapipe()
}

fn find_lavapipe() -> Option<PathBuf> {
    let folders = VULKAN_DRIVERS.iter().filter_map(|folder| std::fs::read_dir(folder).ok());
    folders.flatten().flatten().map(|entry| entry.path()).find(|file| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("lvp_icd") && name.ends_with(".json")
    })
}

/// Installs Debian packages where this user may; whether it worked is seen by what is there afterwards.
fn install_by_apt(packages: &[&str]) {
    if output("id", &["-u"]).as_deref() != Some("0") || find_on_path("apt-get").is_none() {
        return;
    }
    let _ = run(command("apt-get", &["update", "-q"]));
    let mut install = command("apt-get", &["install", "-y", "-q", "--no-install-recommends"]);
    install.args(packages).env("DEBIAN_FRONTEND", "noninteractive");
    let _ = run(install);
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
    install_by_apt(&["chromium"]);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Trunk's program and the library of xtask and page have to be of one version; what was made of a module is made anew
    /// when a tool changes.
    #[test]
    fn versions_agree() {
        let lock = include_str!("../../Cargo.lock");
        assert!(lock.contains(&format!("name = \"wasm-bindgen\"\nversion = \"{WASM_BINDGEN}\"")));
        assert!(lock.contains(&format!("name = \"wasm-bindgen-cli-support\"\nversion = \"{WASM_BINDGEN}\"")));
        assert_eq!(VERSIONS, format!("binaryen {BINARYEN}, esbuild {ESBUILD}"));
        let trunk = include_str!("../../.trunk.toml");
        assert!(trunk.contains(&format!("wasm_bindgen = \"{WASM_BINDGEN}\"")));
    }
}
