//! `cargo xtask npm`: the client as an npm package, in target/npm/tandem-client.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::build;
use crate::kernels;
use crate::page::index::Index;
use crate::page::module::{self, Module, Target};
use crate::page::sizes;
use crate::shell::{step, target_folder};
use crate::tools;

/// Where the package's own files are.
const SOURCE: &str = "client-core/npm";
/// What starts the engine worker, the policy's and a helper of the CPU kernels; the page has the same.
const SCRIPTS: [&str; 3] = ["web/src/worker_boot.js", "web/src/policy_boot.js", "web/src/kernels_worker.js"];
/// Most bytes of the worker's wasm under brotli.
const WORKER_LIMIT: u64 = 1_200_000;

fn folder() -> Result<PathBuf> {
    Ok(target_folder()?.join("npm").join("tandem-client"))
}

/// Whether there is a package from before.
pub fn is_built() -> Result<bool> {
    let worker = folder()?.join("worker");
    let index = Index::read()?;
    Ok(workers(&index).flat_map(Module::files).all(|file| worker.join(file).is_file()))
}

/// The page's workers that the package carries: all but burn-wgpu's policy, which is 19 MB and a choice.
fn workers(index: &Index) -> impl Iterator<Item = &Module> {
    index.modules().filter(|module| module.target == Target::NoModules && module.features != "policy-wgpu")
}

/// Builds the package and prints its sizes.
pub fn package() -> Result<()> {
    tools::require_node()?;
    let out = folder()?;
    let worker = out.join("worker");
    if out.exists() {
        std::fs::remove_dir_all(&out).with_context(|| format!("cannot empty {}", out.display()))?;
    }
    std::fs::create_dir_all(&worker).with_context(|| format!("cannot make {}", worker.display()))?;
    let index = Index::read()?;
    let modules: Vec<&Module> = workers(&index).collect();
    module::build(&modules)?;
    step("The package");
    for module in modules {
        for file in module.files() {
            build::copy_into(&module.folder()?.join(file), &worker)?;
        }
    }
    copy_folder(Path::new(SOURCE), &out)?;
    for script in SCRIPTS.map(Path::new) {
        build::copy_into(script, &worker)?;
    }
    kernels::build(&kernels::Args { out: worker.clone() })?;
    build::copy_into(Path::new("LICENSE"), &out)?;
    let manifest = out.join("package.json");
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&manifest)?)?;
    json["version"] = env!("CARGO_PKG_VERSION").into();
    std::fs::write(&manifest, serde_json::to_string_pretty(&json)? + "\n")?;
    let sizes = sizes::print(&worker)?;
    let wasm = sizes.iter().find(|(name, _)| name == "worker_bg.wasm").map_or(0, |(_, bytes)| *bytes);
    if wasm > WORKER_LIMIT {
        eprintln!("  worker_bg.wasm is larger than {WORKER_LIMIT} bytes under brotli");
    }
    println!("{}", out.display());
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in std::fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let path = entry?.path();
        let Some(name) = path.file_name() else { continue };
        if path.is_dir() { copy_folder(&path, &to.join(name))? } else { build::copy_into(&path, to)? }
    }
    Ok(())
}
