//! WebAssembly modules, made the same way for the page, the npm package and the browser tests: cargo, wasm-bindgen,
//! wasm-opt, and esbuild for the script. What was made of the same bytes before is kept, in target/modules.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::lints::page_command;
use crate::shell::{self, Work, command, run, step, target_folder};
use crate::tools::{self, Tools};

/// Changes when something is done to modules that the arguments of the tools do not show.
const RECIPE: &str = "1";

/// One module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Name of the binary and of what is made of it.
    pub name: String,
    /// Package that has it.
    pub package: String,
    /// Features of the package, separated by commas.
    pub features: String,
    /// Cargo's profile.
    pub profile: String,
    /// How it is loaded.
    pub target: Target,
    /// Arguments of wasm-opt; none: it is left as wasm-bindgen makes it.
    pub optimise: Vec<String>,
    /// Whether a page does without it at first, because it is large and few ask for it.
    pub is_late: bool,
}

/// How a module is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// By `import`.
    Web,
    /// By `import`, from the page when it is needed, under a name that the page knows.
    Later,
    /// By `importScripts`, in a worker.
    NoModules,
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Self::Web | Self::Later => "web",
            Self::NoModules => "no-modules",
        }
    }
}

impl Module {
    /// Name of the script.
    pub fn script(&self) -> String {
        format!("{}.js", self.name)
    }

    /// Name of the module.
    pub fn wasm(&self) -> String {
        format!("{}_bg.wasm", self.name)
    }

    /// Both names.
    pub fn files(&self) -> [String; 2] {
        [self.script(), self.wasm()]
    }

    /// Where [`build`] puts them.
    pub fn folder(&self) -> Result<PathBuf> {
        Ok(target_folder()?.join("modules").join(&self.name))
    }
}

/// Builds modules.
pub fn build(modules: &[&Module]) -> Result<()> {
    build_each(modules, &|_| Ok(()))
}

/// Builds modules, and does something with those of each call of cargo once they are there. Profiles are built side by side: a
/// call of cargo ends with a linker or an optimiser that uses one core, and only calls of one profile wait for each other.
/// wasm-bindgen is compiled meanwhile.
pub fn build_each(modules: &[&Module], then: &(dyn Fn(&[&Module]) -> Result<()> + Sync)) -> Result<()> {
    if modules.is_empty() {
        return Ok(());
    }
    let tools = &tools::ensure_page_tools()?;
    target_folder()?;
    shell::share_cores()?;
    let mut profiles: BTreeMap<&'static str, Vec<Vec<&Module>>> = BTreeMap::new();
    for group in groups(modules) {
        profiles.entry(lane(&group[0].profile)).or_default().push(group);
    }
    let mut lanes: Vec<(&'static str, Work<'_>)> = vec![("wasm-bindgen", Box::new(|| bindgen().map(drop)))];
    for (name, groups) in profiles {
        let each = move |group: &Vec<&Module>| finish(group, tools).and_then(|()| then(group));
        lanes.push((name, Box::new(move || groups.iter().try_for_each(each))));
    }
    shell::lanes(lanes)
}

/// What the modules of a profile are called where their builds speak.
fn lane(profile: &str) -> &'static str {
    match profile {
        "page" => "pages",
        _ => "workers",
    }
}

/// One call of cargo, and what is made of its modules.
fn finish(group: &[&Module], tools: &Tools) -> Result<()> {
    let names: Vec<&str> = group.iter().map(|module| module.name.as_str()).collect();
    step(&format!("As wasm: {}", names.join(", ")));
    run(page_command(&cargo_arguments(group))?)?;
    let bindgen = bindgen()?;
    group.iter().try_for_each(|module| process(module, tools, &bindgen))
}

/// Those that one call of cargo builds side by side: features are united within a call, so that each of two with different
/// ones would carry what the other needs, and wait for it.
fn groups<'a>(modules: &[&'a Module]) -> Vec<Vec<&'a Module>> {
    let mut groups: Vec<Vec<&Module>> = Vec::new();
    for module in modules {
        let key = |module: &Module| (module.package.clone(), module.profile.clone(), module.features.clone());
        match groups.iter_mut().find(|group| key(group[0]) == key(module)) {
            Some(group) => group.push(module),
            None => groups.push(vec![module]),
        }
    }
    groups
}

fn cargo_arguments(group: &[&Module]) -> Vec<String> {
    let [first, ..] = group else { return Vec::new() };
    let mut arguments =
        ["build", "--locked", "--target", "wasm32-unknown-unknown", "--profile"].map(str::to_owned).to_vec();
    arguments.extend([first.profile.clone(), "--package".into(), first.package.clone()]);
    for module in group {
        arguments.extend(["--bin".into(), module.name.clone()]);
    }
    if !first.features.is_empty() {
        arguments.extend(["--features".into(), first.features.clone()]);
    }
    arguments
}

/// wasm-bindgen, in a folder of its own: in the common one this build would wait for the native tests' to end. In the tests'
/// profile, since it is waited for and then works for seconds. Whoever asks first builds it, others wait.
fn bindgen() -> Result<PathBuf> {
    static PROGRAM: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut program = PROGRAM.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(program) = &*program {
        return Ok(program.clone());
    }
    let folder = target_folder()?.join("bindgen");
    let folder_name = folder.to_string_lossy();
    run(command(
        "cargo",
        &["build", "--locked", "--quiet", "--package", "xtask-bindgen", "--target-dir", &folder_name],
    ))?;
    Ok(program.insert(folder.join("debug").join(format!("xtask-bindgen{}", std::env::consts::EXE_SUFFIX))).clone())
}

/// wasm-bindgen, wasm-opt and esbuild over one module, unless they have been over the same bytes already.
fn process(module: &Module, tools: &Tools, bindgen: &Path) -> Result<()> {
    let wasm =
        target_folder()?.join("wasm32-unknown-unknown").join(&module.profile).join(format!("{}.wasm", module.name));
    let bytes = fs::read(&wasm).with_context(|| format!("cargo has not built {}", wasm.display()))?;
    let recipe = format!("{RECIPE} {} {} {}", module.target.name(), module.optimise.join(" "), tools::VERSIONS);
    let stamp = format!("{} {recipe}", hex(&Sha256::digest(&bytes)));
    let folder = module.folder()?;
    let stamp_file = folder.join("stamp");
    let is_there = module.files().iter().all(|file| folder.join(file).is_file());
    if is_there && fs::read_to_string(&stamp_file).is_ok_and(|known| known == stamp) {
        return Ok(());
    }
    step(&format!("{}: wasm-bindgen, wasm-opt, esbuild", module.name));
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let (input, out) = (wasm.to_string_lossy(), folder.to_string_lossy());
    run(command(bindgen, &[module.target.name(), &input, &out, &module.name]))?;
    if !module.optimise.is_empty() {
        let bound = folder.join(module.wasm()).to_string_lossy().into_owned();
        let mut arguments: Vec<&str> = module.optimise.iter().map(String::as_str).collect();
        arguments.extend([bound.as_str(), "-o", bound.as_str()]);
        run(tools.program("wasm-opt", &arguments)?)?;
    }
    tools.minify(&folder.join(module.script()), &folder.join(module.script()), &[])?;
    fs::write(&stamp_file, stamp).with_context(|| format!("{} cannot be written", stamp_file.display()))
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: &str, package: &str, features: &str, profile: &str, is_late: bool) -> Module {
        let own = str::to_owned;
        let (name, package, features, profile) = (own(name), own(package), own(features), own(profile));
        Module { name, package, features, profile, target: Target::NoModules, optimise: Vec::new(), is_late }
    }

    #[test]
    fn one_call_for_modules_that_share_their_crates() {
        let all = [
            module("web", "web", "", "page", false),
            module("worker", "worker", "engine", "release", false),
            module("policy_cpu", "worker", "policy-flex", "release", true),
            module("policy_gpu", "worker", "policy-wgpu", "release", true),
            module("engine_check", "worker", "engine", "release", false),
        ];
        let groups = groups(&all.iter().collect::<Vec<_>>());
        let calls: Vec<String> = groups.iter().map(|group| cargo_arguments(group)[5..].join(" ")).collect();
        let expected = [
            "page --package web --bin web",
            "release --package worker --bin worker --bin engine_check --features engine",
            "release --package worker --bin policy_cpu --features policy-flex",
            "release --package worker --bin policy_gpu --features policy-wgpu",
        ];
        assert_eq!(calls, expected);
        assert!(cargo_arguments(&groups[0]).starts_with(&["build", "--locked", "--target"].map(str::to_owned)));
    }
}
