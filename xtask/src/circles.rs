//! `cargo xtask circles`: fails when modules of a crate import each other in a circle.
//!
//! Arrows between the files of a crate are its `use crate::…`, `super::…`, `self::…` and child-module paths. What does not
//! count: tests, comments, `mod` declarations, and a parent that re-exports (`pub use`) what its children hold, which is how a
//! folder shows its face. Circles that are accepted stand in [`ACCEPTED`], each with its reason; one that is no longer there is
//! named, to be taken from the list.
//!
//! Deliberately absent: a full parser. Paths are read off the tokens, so a path that a macro makes is not seen.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::shell::{command, step};

mod accepted;
mod source;

use accepted::{ACCEPTED, Accepted};
use source::{Source, read};

/// An arrow from each module to those that it imports; the root is the empty name.
type Arrows = BTreeMap<String, BTreeSet<String>>;

/// Looks at every crate of the workspace.
///
/// # Errors
/// A file cannot be read, or there is a circle that is not accepted.
pub fn check() -> Result<()> {
    step("Import circles");
    let (mut found, mut modules, mut problems) = (BTreeSet::new(), 0, Vec::new());
    for (name, root) in roots()? {
        let arrows = arrows(&root)?;
        modules += arrows.len();
        for circle in circles(&arrows) {
            let accepts = |known: &Accepted| known.root == name && circle.iter().all(|module| known.holds(module));
            let accepted = ACCEPTED.iter().position(accepts);
            match accepted {
                Some(index) => drop(found.insert(index)),
                None => problems.push(format!("{name}: {}", described(&arrows, &circle))),
            }
        }
    }
    if !problems.is_empty() {
        bail!("modules import each other in circles:\n  {}", problems.join("\n  "));
    }
    println!("  {modules} modules, {} accepted circles", found.len());
    for (index, known) in ACCEPTED.iter().enumerate() {
        let names = known.modules.join(", ");
        if found.contains(&index) {
            println!("    {}: {names} ({})", known.root, known.reason);
        } else {
            println!("    {}: {names}: no circle any more; take it from xtask/src/circles/accepted.rs", known.root);
        }
    }
    Ok(())
}

/// The root files of the workspace's libraries and programs, by `PACKAGE` or, for a program beside a library, `PACKAGE/PROGRAM`.
fn roots() -> Result<BTreeMap<String, PathBuf>> {
    let output =
        command("cargo", &["metadata", "--no-deps", "--format-version", "1"]).output().context("cargo metadata")?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).context("what cargo metadata says")?;
    let mut roots = BTreeMap::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let mut targets: Vec<_> = package["targets"].as_array().into_iter().flatten().collect();
        // Libraries first: a program of the same name does not take their place.
        targets.sort_by_key(|target| target["kind"][0] == "bin");
        for target in targets {
            let kind = target["kind"][0].as_str().unwrap_or_default();
            let path = PathBuf::from(target["src_path"].as_str().unwrap_or_default());
            match kind {
                "lib" | "cdylib" | "rlib" => drop(roots.insert(name.to_owned(), path)),
                "bin" if roots.contains_key(name) => {
                    let program = target["name"].as_str().unwrap_or_default();
                    roots.insert(format!("{name}/{program}"), path);
                }
                "bin" => drop(roots.insert(name.to_owned(), path)),
                _ => {}
            }
        }
    }
    Ok(roots)
}

/// The files of a crate as modules, by their paths without `crate::`.
fn sources(root: &Path) -> Result<BTreeMap<String, Source>> {
    let mut all = BTreeMap::new();
    let mut open = vec![(String::new(), root.to_owned())];
    while let Some((module, path)) = open.pop() {
        let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
        let source = read(&text);
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let is_folder = module.is_empty() || path.file_name().is_some_and(|name| name == "mod.rs");
        let folder = if is_folder { folder } else { path.with_extension("") };
        for child in &source.children {
            let candidates = [folder.join(format!("{child}.rs")), folder.join(child).join("mod.rs")];
            // A module with a path of its own is passed over.
            if let Some(file) = candidates.into_iter().find(|file| file.is_file()) {
                open.push((join(&module, child), file));
            }
        }
        all.insert(module, source);
    }
    Ok(all)
}

fn join(module: &str, name: &str) -> String {
    if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") }
}

fn arrows(root: &Path) -> Result<Arrows> {
    Ok(resolve(&sources(root)?))
}

/// The arrows between modules from the paths in them.
fn resolve(sources: &BTreeMap<String, Source>) -> Arrows {
    let mut arrows = Arrows::new();
    for (module, source) in sources {
        let from = arrows.entry(module.clone()).or_default();
        for path in &source.paths {
            let mut at: Vec<&str> = module.split("::").filter(|name| !name.is_empty()).collect();
            let mut names = path.names.iter().map(String::as_str).peekable();
            match names.peek() {
                Some(&"crate") => at.clear(),
                Some(&"self" | &"super") => {}
                // Another crate, an item, or a child.
                Some(first) if !source.children.contains(*first) => continue,
                _ => {}
            }
            while let Some(&("crate" | "self" | "super")) = names.peek() {
                if names.next() == Some("super") {
                    at.pop();
                }
            }
            // As deep as there are files; what comes behind is an item of the last.
            for name in names {
                at.push(name);
                if !sources.contains_key(&at.join("::")) {
                    at.pop();
                    break;
                }
            }
            let target = at.join("::");
            let is_inside = module.is_empty() || target.starts_with(&format!("{module}::"));
            if target == *module || (path.is_reexport && is_inside) {
                continue;
            }
            from.insert(target);
        }
    }
    arrows
}

/// Strongly connected components of more than one module, by Tarjan's algorithm.
fn circles(arrows: &Arrows) -> Vec<BTreeSet<String>> {
    /// Order of discovery, lowest reachable, on the stack.
    #[derive(Default)]
    struct Search<'a> {
        order: BTreeMap<&'a str, usize>,
        low: BTreeMap<&'a str, usize>,
        stack: Vec<&'a str>,
        found: Vec<BTreeSet<String>>,
    }
    fn visit<'a>(search: &mut Search<'a>, arrows: &'a Arrows, module: &'a str) {
        let number = search.order.len();
        search.order.insert(module, number);
        search.low.insert(module, number);
        search.stack.push(module);
        for target in arrows.get(module).into_iter().flatten() {
            let reached = if !search.order.contains_key(target.as_str()) {
                visit(search, arrows, target);
                search.low[target.as_str()]
            } else if search.stack.contains(&target.as_str()) {
                search.order[target.as_str()]
            } else {
                continue;
            };
            let low = search.low[module].min(reached);
            search.low.insert(module, low);
        }
        if search.low[module] == number {
            let begins = search.stack.iter().position(|name| *name == module).unwrap_or_default();
            let members: BTreeSet<String> = search.stack.drain(begins..).map(str::to_owned).collect();
            if members.len() > 1 {
                search.found.push(members);
            }
        }
    }
    let mut search = Search::default();
    for module in arrows.keys() {
        if !search.order.contains_key(module.as_str()) {
            visit(&mut search, arrows, module);
        }
    }
    search.found
}

/// A circle's modules with their arrows among themselves.
fn described(arrows: &Arrows, circle: &BTreeSet<String>) -> String {
    let shown = |module: &str| if module.is_empty() { "(root)".to_owned() } else { module.to_owned() };
    let each = circle.iter().map(|module| {
        let targets: Vec<_> = arrows[module].intersection(circle).map(|target| shown(target)).collect();
        format!("{} → {}", shown(module), targets.join(", "))
    });
    each.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crate_of(files: &[(&str, &str)]) -> BTreeMap<String, Source> {
        files.iter().map(|(module, text)| ((*module).to_owned(), read(text))).collect()
    }

    fn found(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        circles(&resolve(&crate_of(files))).into_iter().map(|circle| circle.into_iter().collect()).collect()
    }

    #[test]
    fn circles_are_found_however_they_are_written() {
        for (a, b) in [
            ("use crate::b::Item;", "use super::a::{self, Other};"),
            ("use crate::{b::{Item, More}, c};", "fn f() { crate::a::go() }"),
            ("fn f(x: super::b::Item) {}", "use super::{c, a};"),
        ] {
            assert_eq!(found(&[("", "mod a; mod b; mod c;"), ("a", a), ("b", b), ("c", "")]), [["a", "b"]], "{a} {b}");
        }
        let long = [
            ("", ""),
            ("a", "use crate::b;"),
            ("b", "use crate::c::d::E;"),
            ("c", ""),
            ("c::d", "use super::super::a;"),
        ];
        assert_eq!(found(&long), [["a", "b", "c::d"]]);
    }

    #[test]
    fn what_is_no_circle_is_not_called_one() {
        for (a, b) in [
            ("use crate::b::Item;", ""),
            ("use crate::b::Item;", "#[cfg(test)] mod tests { use crate::a; use super::*; }"),
            (
                "use crate::b::Item;",
                "// use crate::a;\n/* crate::a */ const X: &str = \"crate::a\"; const C: char = '\"';",
            ),
            ("use crate::b::Item;", "/// [`crate::a`]\nstruct X<'a>(&'a str);"),
            ("use std::b;", "use a::go;"),
        ] {
            assert!(found(&[("", "mod a; mod b;"), ("a", a), ("b", b)]).is_empty(), "{a} {b}");
        }
        // A folder's face shows what its files hold; using it is another matter.
        let face = |root| found(&[("", root), ("a", "use super::Shared;")]);
        assert!(face("mod a; pub use a::Item; struct Shared;").is_empty());
        assert_eq!(face("mod a; use a::Item; struct Shared;"), [["", "a"]]);
        assert_eq!(face("mod a; fn f() { a::go() } struct Shared;"), [["", "a"]]);
    }
}
