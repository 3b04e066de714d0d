//! Building the page and the server.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::kernels;
use crate::shell::{command, output, run, step};
use crate::tools;

/// Where cargo puts wasm modules, in its target folder.
pub const WASM: &str = "wasm32-unknown-unknown/release";

/// Builds the page, the engine worker and the policy's modules into dist/.
pub fn page() -> Result<()> {
    let tools = tools::ensure_wasm_tools()?;
    step("The page and its workers, as wasm (the first time takes minutes)");
    // `--offline` keeps trunk from fetching tools. It hands the flag on to cargo, so the crates have to be here before.
    run(command("cargo", &["fetch", "--locked"])).context("the dependencies could not be downloaded")?;
    run(tools.trunk(&["build", "--release", "--offline", "--skip-version-check"])?).context("the page did not build")
}

/// Builds the engine's checks for the browser tests into target/engine-check/.
pub fn engine_check() -> Result<()> {
    let tools = tools::ensure_wasm_tools()?;
    step("The engine's checks, as wasm");
    let wasm = module_wasm("engine_check", WORKER_FEATURES)?;
    let wasm = wasm.to_string_lossy();
    let bindgen = ["--target", "web", "--no-typescript", "--out-dir", "target/engine-check", &wasm];
    run(tools.program("wasm-bindgen", &bindgen)?)?;
    let folder = Path::new("target/engine-check");
    kernels::build(&kernels::Args { out: folder.to_owned() })?;
    std::fs::copy("web/src/kernels_worker.js", folder.join("kernels_worker.js"))
        .context("web/src/kernels_worker.js")?;
    Ok(())
}

/// Builds the `tandem` binary in release mode and says where it is.
pub fn server() -> Result<PathBuf> {
    step("The server (the first time takes minutes)");
    run(command("cargo", &["build", "--release", "--package", "tandem-server", "--bin", "tandem"]))?;
    Ok(target_folder()?.join("release").join(format!("tandem{}", std::env::consts::EXE_SUFFIX)))
}

/// Cargo's target folder, wherever the environment puts it.
pub fn target_folder() -> Result<PathBuf> {
    let metadata =
        output("cargo", &["metadata", "--no-deps", "--format-version", "1"]).context("cargo metadata failed")?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let folder = metadata["target_directory"].as_str().context("cargo metadata names no target folder")?;
    Ok(folder.into())
}

/// Features of the engine worker, the same everywhere so that its dependencies are compiled once. web/index.html has them too.
const WORKER_FEATURES: &str = "engine";
/// Modules that run in workers and that the npm package carries: binary, features and options of wasm-opt as in
/// web/index.html.
const WORKERS: [(&str, &str, &[&str]); 2] = [
    ("worker", WORKER_FEATURES, &["-O3", "--one-caller-inline-max-function-size=60", "--strip-producers"]),
    ("policy_cpu", "policy-flex", &["-O1"]),
];

/// Files that trunk makes of [`WORKERS`], and [`workers`] too.
pub fn worker_files() -> impl Iterator<Item = String> {
    WORKERS.iter().flat_map(|(bin, ..)| [format!("{bin}.js"), format!("{bin}_bg.wasm")])
}

/// Builds one of the workers as trunk does, and says where it is.
fn module_wasm(bin: &str, features: &str) -> Result<PathBuf> {
    let mut cargo = vec!["build", "--release", "--target", "wasm32-unknown-unknown"];
    cargo.extend(["--package", "worker", "--bin", bin, "--features", features]);
    run(command("cargo", &cargo))?;
    Ok(target_folder()?.join(WASM).join(format!("{bin}.wasm")))
}

/// Builds [`WORKERS`] into a folder, as trunk does for the page.
pub fn workers(out: &Path) -> Result<()> {
    let tools = tools::ensure_wasm_tools()?;
    let folder = out.to_string_lossy();
    for (bin, features, options) in WORKERS {
        step(&format!("{bin}, as wasm"));
        let wasm = module_wasm(bin, features)?;
        let wasm = wasm.to_string_lossy();
        run(tools
            .program("wasm-bindgen", &["--target", "no-modules", "--no-typescript", "--out-dir", &folder, &wasm])?)?;
        let bound = out.join(format!("{bin}_bg.wasm"));
        let bound = bound.to_string_lossy();
        run(tools.program("wasm-opt", &[options, &[&bound, "-o", &bound]].concat())?)?;
    }
    Ok(())
}

/// Bytes of the page's own module, its script and its styles under brotli that a visitor may have to wait for.
const PAGE_LIMIT: u64 = 400_000;
/// Bytes of the engine worker with its script, tokenizers included, under brotli.
const ENGINE_LIMIT: u64 = 1_200_000;

/// Puts a brotli file beside each text and wasm file of dist/, which the server sends in its place: without them the first
/// visitor would wait for the compression. Prints the sizes.
pub fn compress() -> Result<()> {
    step("Compressing the page");
    let sizes = print_sizes(Path::new("dist"))?;
    // What is fetched before the engine is asked for: everything but the workers and what they fetch.
    let is_page = |name: &str| !["worker", "kernels", "policy_"].iter().any(|late| name.starts_with(late));
    within(&sizes, "before the engine is asked for", is_page, PAGE_LIMIT);
    within(
        &sizes,
        "the engine, tokenizers included",
        |name| ["worker.js", "worker_bg.wasm"].contains(&name),
        ENGINE_LIMIT,
    );
    Ok(())
}

/// Prints what some files weigh together, and says so where that is more than the limit.
fn within(sizes: &[(String, u64)], what: &str, counts: impl Fn(&str) -> bool, limit: u64) {
    let sum: u64 = sizes.iter().filter(|(name, _)| counts(name)).map(|(_, bytes)| bytes).sum();
    println!("{what:<52} {:>12} {sum:>12}", "");
    if sum > limit {
        eprintln!("  that is more than {limit} bytes");
    }
}

/// Compresses the text and wasm files of a folder, prints their sizes, and returns the compressed ones by name.
pub fn print_sizes(folder: &Path) -> Result<Vec<(String, u64)>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("{} is missing", folder.display()))?;
    let mut files: Vec<_> = entries.flatten().map(|e| e.path()).collect();
    files.retain(|file| file.extension().is_some_and(|ext| ["wasm", "js", "css", "html"].iter().any(|e| ext == *e)));
    files.sort();
    println!("{:<52} {:>12} {:>12}", "file", "bytes", "brotli");
    let mut sizes = Vec::new();
    for file in files {
        let compressed = std::fs::metadata(brotli(&file)?)?.len();
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        println!("{name:<52} {:>12} {compressed:>12}", std::fs::metadata(&file)?.len());
        sizes.push((name, compressed));
    }
    Ok(sizes)
}

/// Node has brotli built in, so that no further tool is needed. The window of 16 MiB is the largest that browsers take.
fn brotli(file: &Path) -> Result<PathBuf> {
    let script = "const z=require('zlib'),f=require('fs'),c=z.constants,[,from,to]=process.argv,b=f.readFileSync(from);\
                  const params={[c.BROTLI_PARAM_LGWIN]:24,[c.BROTLI_PARAM_SIZE_HINT]:b.length};\
                  f.writeFileSync(to,z.brotliCompressSync(b,{params}))";
    let mut compressed = file.as_os_str().to_owned();
    compressed.push(".br");
    let compressed = PathBuf::from(compressed);
    let modified = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    if modified(&compressed) < modified(file) {
        let arguments = ["-e", script, &file.to_string_lossy(), &compressed.to_string_lossy()];
        output("node", &arguments).with_context(|| format!("cannot compress {}", file.display()))?;
    }
    Ok(compressed)
}
