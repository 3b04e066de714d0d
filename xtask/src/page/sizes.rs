//! What the page weighs, and its compressed copies.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};

use super::{DIST, dist};
use crate::shell::{output, step};

/// Bytes of the page's own module, its script and its styles under brotli that a visitor may have to wait for.
const PAGE_LIMIT: u64 = 400_000;
/// The same for the page that a phone joins a room with; a hall shares one access point.
const JOIN_LIMIT: u64 = 150_000;
/// Bytes of the engine worker with its script, tokenizers included, under brotli.
const ENGINE_LIMIT: u64 = 1_200_000;

/// Puts a brotli file beside each text and wasm file of dist/, which the server sends in its place: without them the first
/// visitor would wait for the compression. Prints the sizes.
pub fn compress() -> Result<()> {
    step("Compressing the page");
    let sizes = print(Path::new(DIST))?;
    // What is fetched before the engine is asked for: everything but the workers and what they fetch, and a room's pages.
    let begins = |name: &str, beginnings: &[&str]| beginnings.iter().any(|beginning| name.starts_with(beginning));
    let is_page =
        |name: &str| !begins(name, &["worker", "kernels", "policy_", "compact", "markdown", "join", "room", "start"]);
    within(&sizes, "before the engine is asked for", is_page, PAGE_LIMIT);
    let is_join = |name: &str| begins(name, &["join", "rooms-", "tokens-", "page-", "theme-", "start-"]);
    within(&sizes, "joining a room, before a model is asked for", is_join, JOIN_LIMIT);
    let is_engine = |name: &str| ["worker.js", "worker_bg.wasm"].contains(&name);
    within(&sizes, "the engine, tokenizers included", is_engine, ENGINE_LIMIT);
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
pub fn print(folder: &Path) -> Result<Vec<(String, u64)>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("{} is missing", folder.display()))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| {
        file.extension().is_some_and(|ending| ["wasm", "js", "css", "html"].iter().any(|it| ending == *it))
    });
    files.sort();
    compress_all(&files)?;
    println!("{:<52} {:>12} {:>12}", "file", "bytes", "brotli");
    let mut sizes = Vec::new();
    for file in files {
        let compressed = std::fs::metadata(dist::compressed(&file))?.len();
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        println!("{name:<52} {:>12} {compressed:>12}", std::fs::metadata(&file)?.len());
        sizes.push((name, compressed));
    }
    Ok(sizes)
}

/// The copies of all files, on all cores: each file takes one of them for up to half a minute.
fn compress_all(files: &[PathBuf]) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let take = || files.get(next.fetch_add(1, Ordering::Relaxed));
    std::thread::scope(|scope| {
        let work = || -> Result<()> {
            while let Some(file) = take() {
                brotli(file)?;
            }
            Ok(())
        };
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a compression ended early")))
    })
}

/// Node has brotli built in, so that no further tool is needed. The window of 16 MiB is the largest that browsers take. The
/// copy is made beside its place: a server that finds half of it would send half of it.
fn brotli(file: &Path) -> Result<()> {
    let script = "const z=require('zlib'),f=require('fs'),c=z.constants,[,from,to]=process.argv,b=f.readFileSync(from);\
                  const params={[c.BROTLI_PARAM_LGWIN]:24,[c.BROTLI_PARAM_SIZE_HINT]:b.length};\
                  f.writeFileSync(to+'.new',z.brotliCompressSync(b,{params}));f.renameSync(to+'.new',to)";
    let compressed = dist::compressed(file);
    let modified = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    if modified(&compressed) < modified(file) {
        let arguments = ["-e", script, &file.to_string_lossy(), &compressed.to_string_lossy()];
        output("node", &arguments).with_context(|| format!("cannot compress {}", file.display()))?;
    }
    Ok(())
}
