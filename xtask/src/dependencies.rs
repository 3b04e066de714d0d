//! Licences and sources of the dependencies, and doubles among those of which there has to be one.
//!
//! Not by cargo-deny, which checks the same: from cold it compiles a large tree of crates of its own, an advisory database and an
//! HTTP client among them, which is minutes of the forty that the whole test run may take on two cores. What it would be asked
//! here are four questions to `cargo metadata`; SPDX expressions are read by the crate that cargo-deny reads them with.
//!
//! Deliberately absent: advisories, which need a database from elsewhere and change without a change of ours.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use spdx::{Expression, ParseMode};

use crate::shell::step;

/// Systems that dependencies are looked at for.
const PLATFORMS: [&str; 3] = ["x86_64-unknown-linux-gnu", "aarch64-apple-darwin", "wasm32-unknown-unknown"];

/// Licences that need no more than their text and notice, or the source of the very files.
const LICENCES: [&str; 15] = [
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "NCSA",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Versions whose manifest names no licence, and the one that their licence file holds: looked at by a person.
const BY_FILE: [(&str, &str); 1] = [("cfg_block 0.1.1", "Apache-2.0")];

/// Crates of which a second version is a fault, and what it would be.
const SINGLE: [(&str, &str); 12] = [
    ("axum", "two sets of extractors"),
    ("burn", "two tensor types"),
    ("burn-tensor", "two tensor types"),
    ("candle-core", "two tensor types"),
    ("js-sys", "two sets of JS bindings in one page"),
    ("leptos", "two reactive systems in one page"),
    ("rustls", "two sets of TLS providers"),
    ("tokenizers", "two tokenizer types"),
    ("tokio", "two runtimes"),
    ("wasm-bindgen", "two sets of JS bindings in one page"),
    ("web-sys", "two sets of JS bindings in one page"),
    ("wgpu", "two GPU contexts"),
];

/// Crates that must not come in by a feature that somebody switches on.
const BANNED: [(&str, &str); 3] = [
    ("native-tls", "TLS goes through rustls, which needs no library of the system"),
    ("openssl-sys", "TLS goes through rustls, which needs no library of the system"),
    ("openblas-src", "the engine's kernels are ours"),
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
    workspace_members: Vec<String>,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    dependencies: Vec<String>,
}

/// Checks them all.
///
/// # Errors
/// Something is not as it should be; all of it is named.
pub fn check() -> Result<()> {
    step("Licences, sources and doubles of the dependencies");
    let mut problems = BTreeSet::new();
    let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for platform in PLATFORMS {
        let text = std::process::Command::new("cargo")
            .args(["metadata", "--locked", "--format-version", "1", "--filter-platform", platform])
            .output()
            .context("cargo metadata cannot be started")?;
        if !text.status.success() {
            bail!("cargo metadata failed:\n{}", String::from_utf8_lossy(&text.stderr));
        }
        let metadata = serde_json::from_slice(&text.stdout).context("cargo metadata cannot be read")?;
        problems.extend(problems_of(&metadata));
        for package in reachable(&metadata) {
            names.entry(package.name.clone()).or_default().insert(package.version.clone());
        }
    }
    if !problems.is_empty() {
        bail!("of the dependencies:\n  {}", problems.into_iter().collect::<Vec<_>>().join("\n  "));
    }
    let doubles: Vec<&str> = names.iter().filter(|(_, all)| all.len() > 1).map(|(name, _)| name.as_str()).collect();
    eprintln!("  {} crates; in more than one version: {}", names.len(), doubles.join(", "));
    Ok(())
}

/// What a build of the workspace can come to. `cargo metadata` lists more: what is locked for other systems.
fn reachable(metadata: &Metadata) -> Vec<&Package> {
    let nodes: BTreeMap<&str, &Node> = metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut next: VecDeque<&str> = metadata.workspace_members.iter().map(String::as_str).collect();
    while let Some(id) = next.pop_front() {
        if seen.insert(id)
            && let Some(node) = nodes.get(id)
        {
            next.extend(node.dependencies.iter().map(String::as_str));
        }
    }
    metadata.packages.iter().filter(|package| seen.contains(package.id.as_str())).collect()
}

fn problems_of(metadata: &Metadata) -> Vec<String> {
    let packages = reachable(metadata);
    let mut problems = Vec::new();
    let registries: BTreeSet<&str> = packages.iter().filter_map(|package| package.source.as_deref()).collect();
    if registries.len() > 1 || registries.iter().any(|source| !source.starts_with("registry+")) {
        problems.push(format!("they come from more than the one registry: {registries:?}"));
    }
    for package in packages.iter().filter(|package| package.source.is_some()) {
        let name = format!("{} {}", package.name, package.version);
        let by_file = BY_FILE.iter().find(|(known, _)| *known == name).map(|(_, licence)| *licence);
        match package.license.as_deref().or(by_file).map(is_allowed) {
            Some(Ok(true)) => {}
            Some(Ok(false)) => problems.push(format!("{name}: licence {:?}", package.license)),
            Some(Err(error)) => problems.push(format!("{name}: licence {:?}: {error}", package.license)),
            None => problems.push(format!("{name} names no licence")),
        }
    }
    for (name, reason) in SINGLE {
        let versions: BTreeSet<&str> =
            packages.iter().filter(|package| package.name == name).map(|package| package.version.as_str()).collect();
        if versions.len() > 1 {
            problems.push(format!("{name} is there as {versions:?}: {reason}"));
        }
    }
    for (name, reason) in BANNED {
        if packages.iter().any(|package| package.name == name) {
            problems.push(format!("{name} is there: {reason}"));
        }
    }
    problems
}

/// Whether an SPDX expression leaves a choice that is on the list. Exceptions only ever allow more.
fn is_allowed(expression: &str) -> Result<bool, spdx::ParseError> {
    // Old crates write `MIT/Apache-2.0`.
    let expression = Expression::parse_mode(expression, ParseMode::LAX)?;
    Ok(expression.evaluate(|required| required.license.id().is_some_and(|id| LICENCES.contains(&id.name))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(packages: &[(&str, &str, Option<&str>, &str)]) -> Metadata {
        let of = |(name, version, license, source): &(&str, &str, Option<&str>, &str)| Package {
            id: format!("{name} {version}"),
            name: (*name).to_owned(),
            version: (*version).to_owned(),
            license: license.map(str::to_owned),
            source: Some((*source).to_owned()),
        };
        let ours = Package {
            id: "ours".to_owned(),
            name: "ours".to_owned(),
            version: "0.1.0".to_owned(),
            license: None,
            source: None,
        };
        let dependencies = packages.iter().map(|(name, version, ..)| format!("{name} {version}")).collect();
        let unseen = of(&("unseen", "1.0.0", None, "git+somewhere"));
        Metadata {
            packages: packages.iter().map(of).chain([ours, unseen]).collect(),
            resolve: Resolve { nodes: vec![Node { id: "ours".to_owned(), dependencies }] },
            workspace_members: vec!["ours".to_owned()],
        }
    }

    #[test]
    fn licences() {
        for (expression, expected) in [
            ("MIT", true),
            ("MIT/Apache-2.0", true),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("GPL-3.0-only OR MIT", true),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
            ("MIT AND GPL-3.0-only", false),
            ("LGPL-2.1-or-later", false),
        ] {
            assert_eq!(is_allowed(expression).unwrap(), expected, "{expression}");
        }
        assert!(is_allowed("no licence at all").is_err());
    }

    /// Every kind of problem is named, and what no build comes to is none.
    #[test]
    fn problems_are_named() {
        let fine = [("serde", "1.0.0", Some("MIT"), "registry+a"), ("wgpu", "30.0.0", Some("MIT"), "registry+a")];
        assert_eq!(problems_of(&metadata(&fine)), [""; 0]);
        for (package, wanted) in [
            (("wgpu", "29.0.0", Some("MIT"), "registry+a"), "two GPU contexts"),
            (("native-tls", "0.2.0", Some("MIT"), "registry+a"), "rustls"),
            (("other", "1.0.0", Some("MIT"), "registry+b"), "more than the one registry"),
            (("other", "1.0.0", Some("GPL-3.0-only"), "registry+a"), "other 1.0.0: licence"),
            (("other", "1.0.0", None, "registry+a"), "names no licence"),
        ] {
            let found = problems_of(&metadata(&[fine[0], fine[1], package]));
            assert!(found.len() == 1 && found[0].contains(wanted), "{package:?}: {found:?}");
        }
        let git = problems_of(&metadata(&[("other", "1.0.0", Some("MIT"), "git+b")]));
        assert!(git.len() == 1, "{git:?}");
    }
}
