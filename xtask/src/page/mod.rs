//! The page in dist/, from web/index.html: what `trunk build --release` makes of the same file, without trunk, which takes
//! minutes to compile for the few things that are asked of it here. Beside it the two pages of a room, from web/rooms.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`html`] | the elements of a document that a builder replaces |
//! | [`index`] | what they ask for, and the finished document |
//! | [`module`] | WebAssembly modules, for page, npm package and browser tests |
//! | [`dist`] | the folder: what changed is written, what is left over goes, `assets.json` lists what is there |
//! | [`sizes`] | compressed copies, and what they may weigh |
//! | [`same`] | whether trunk makes the same page |
//!
//! Deliberately absent: watching and serving while somebody works on the page; trunk does that, see the README.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

use crate::kernels;
use crate::shell::{self, step, target_folder};
use crate::tools;

pub mod dist;
pub mod html;
pub mod index;
pub mod module;
pub mod same;
pub mod sizes;

use dist::Dist;
use index::{Entry, Index, file_name};
use module::{Module, Target};

/// Where the page lies.
pub const DIST: &str = "dist";

/// No newer syntax than the page's own scripts use: they have a word for browsers that cannot run its WebAssembly.
const SYNTAX: &str = "--target=es2020";

/// What stands in for a document that is still being built.
const SOON: &str = "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\" /><meta name=\"viewport\" \
     content=\"width=device-width, initial-scale=1\" /><meta name=\"color-scheme\" content=\"light dark\" />\
     <meta http-equiv=\"refresh\" content=\"5\" /><title>Tandem</title></head>\n<body><p>This page is still being built \
     behind the running server; it appears by itself, within a few minutes.</p></body>\n</html>\n";

/// Which part of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All that a first visit needs.
    First,
    /// The modules that a page can do without at first, and the documents that are made of such.
    Late,
}

/// Builds a part of the page into dist/. [`Part::Late`] adds to what [`Part::First`] has made.
pub fn build(part: Part) -> Result<()> {
    let documents = Index::all()?;
    let all = documents.iter().flat_map(Index::modules);
    let modules: Vec<&Module> = all.filter(|module| module.is_late == (part == Part::Late)).collect();
    match part {
        Part::First => {
            compile(&modules)?;
            first(&documents, &modules)
        }
        Part::Late => late(&documents, &modules),
    }
}

/// Compiles modules, and the CPU kernels beside them.
pub fn compile(modules: &[&Module]) -> Result<()> {
    shell::share_cores()?;
    shell::lanes(vec![
        ("kernels", Box::new(|| kernels::built().map(drop))),
        ("page", Box::new(|| module::build(modules))),
    ])
}

/// Builds all of it.
pub fn build_all() -> Result<()> {
    build(Part::First)?;
    build(Part::Late)
}

fn first(documents: &[Index], modules: &[&Module]) -> Result<()> {
    let tools = tools::ensure_page_tools()?;
    step("The page");
    let before = Dist::open(Path::new(DIST)).ok();
    let mut dist = Dist::begin(Path::new(DIST))?;
    for entry in documents.iter().flat_map(Index::entries) {
        match entry {
            Entry::Script(path) | Entry::Style(path) => {
                let minified = target_folder()?.join("minified").join(file_name(path)?);
                tools.minify(path, &minified, &[SYNTAX])?;
                dist.put_hashed(&file_name(path)?, &read(&minified)?)?;
            }
            Entry::File(path) => dist.put(&file_name(path)?, &read(path)?)?,
            Entry::Folder(path) => {
                let name = file_name(path)?;
                let entries = std::fs::read_dir(path).with_context(|| format!("{} cannot be read", path.display()))?;
                for entry in entries {
                    let file = entry?.path();
                    dist.put(&format!("{name}/{}", file_name(&file)?), &read(&file)?)?;
                }
            }
            Entry::Module(_) => {}
        }
    }
    put_modules(&mut dist, modules)?;
    for (file, bytes) in kernels::built()? {
        dist.put(&file, &bytes)?;
    }
    for document in documents.iter().filter(|document| !document.is_late()) {
        let page = document.render(&dist.references)?;
        dist.put(document.name, page.as_bytes())?;
    }
    let all = documents.iter().flat_map(Index::modules);
    let mut late: Vec<String> = all.filter(|module| module.is_late).flat_map(Module::files).collect();
    let late_documents = || documents.iter().filter(|document| document.is_late()).map(|document| document.name);
    late.extend(late_documents().map(str::to_owned));
    if !dist.keep_where_nothing_changed(before.as_ref(), &late) {
        for document in late_documents() {
            dist.put(document, SOON.as_bytes())?;
        }
    }
    dist.finish()
}

/// Each module is put there as soon as it is built: an open page waits for it.
fn late(documents: &[Index], modules: &[&Module]) -> Result<()> {
    let turn = Mutex::new(());
    module::build_each(modules, &|built| {
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut dist = Dist::open(Path::new(DIST))?;
        put_modules(&mut dist, built)?;
        let is_built = |document: &Index| document.modules().all(|module| built.contains(&module));
        for document in documents.iter().filter(|document| document.is_late() && is_built(document)) {
            let page = document.render(&dist.references)?;
            dist.put(document.name, page.as_bytes())?;
        }
        dist.finish()
    })
}

/// A module's script before the module: a page takes the module for there once its WebAssembly is.
fn put_modules(dist: &mut Dist, modules: &[&Module]) -> Result<()> {
    for module in modules {
        for file in module.files() {
            let bytes = read(&module.folder()?.join(&file))?;
            match module.target {
                Target::Web => dist.put_hashed(&file, &bytes)?,
                Target::NoModules | Target::Later => dist.put(&file, &bytes)?,
            }
        }
    }
    Ok(())
}

/// A file's bytes, or which one cannot be read.
fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
}
