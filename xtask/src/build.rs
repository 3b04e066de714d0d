//! Building the server, and the engine's checks for the browser tests.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::kernels;
use crate::page::module::{Module, Target};
use crate::shell::{command, run, step, target_folder};

/// The engine's checks: a module of the browser tests alone, which is why web/index.html does not have it.
pub fn engine_check_module() -> Module {
    Module {
        name: "engine_check".into(),
        package: "worker".into(),
        // Those of the page's engine worker, so that no crate is compiled for it alone.
        features: "engine".into(),
        profile: "release".into(),
        target: Target::Web,
        optimise: Vec::new(),
        is_late: false,
    }
}

/// Builds the engine's checks into target/engine-check/.
pub fn engine_check() -> Result<()> {
    let module = engine_check_module();
    crate::page::module::build(&[&module])?;
    let folder = Path::new("target/engine-check");
    kernels::build(&kernels::Args { out: folder.to_owned() })?;
    for file in module.files().map(|file| module.folder().map(|folder| folder.join(file))) {
        copy_into(&file?, folder)?;
    }
    copy_into(Path::new("web/src/kernels_worker.js"), folder)
}

/// Copies a file into a folder under its own name.
pub fn copy_into(from: &Path, folder: &Path) -> Result<()> {
    let to = folder.join(from.file_name().unwrap_or_default());
    std::fs::copy(from, &to).map(drop).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// Builds the `tandem` binary for a demo and says where it is: in a profile without the release's optimisation
/// across crates, and without the engine on a GPU, which only `tandem bench-engine` uses.
pub fn demo_server() -> Result<PathBuf> {
    step("The server (the first time takes minutes)");
    let arguments = [
        "build",
        "--locked",
        "--profile",
        "demo",
        "--package",
        "tandem-server",
        "--bin",
        "tandem",
        "--no-default-features",
    ];
    run(command("cargo", &arguments))?;
    Ok(target_folder()?.join("demo").join(format!("tandem{}", std::env::consts::EXE_SUFFIX)))
}
