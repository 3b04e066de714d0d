//! Whether trunk makes the page that xtask makes: the same files, and an index that refers to the same ones in the same
//! way, hashes aside. Checked only where trunk is installed: it is a tool of those who work on the page.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::{DIST, dist, html};
use crate::shell::{run, step, target_folder};
use crate::tools;

/// Builds the page with trunk and compares it with dist/, or says that it did not.
pub fn check() -> Result<()> {
    let Some(trunk) = tools::find_trunk()? else {
        eprintln!(
            "  SKIPPED: whether trunk makes the same page (trunk is not installed; `cargo xtask setup` does that)"
        );
        return Ok(());
    };
    step("Trunk makes the same page");
    let out = target_folder()?.join("trunk-dist");
    let folder = out.to_string_lossy();
    run(trunk.trunk(&["build", "--release", "--offline", "--skip-version-check", "--dist", &folder])?)?;
    compare(Path::new(DIST), &out)
}

fn compare(ours: &Path, trunks: &Path) -> Result<()> {
    let mut differences = Vec::new();
    let mut differ = |what: &str, ours: &BTreeSet<String>, trunks: &BTreeSet<String>| {
        differences.extend(ours.difference(trunks).map(|it| format!("{what} of xtask's page alone: {it}")));
        differences.extend(trunks.difference(ours).map(|it| format!("{what} of trunk's page alone: {it}")));
    };
    differ("file", &names(ours)?, &names(trunks)?);
    differ("reference", &references(ours)?, &references(trunks)?);
    if !differences.is_empty() {
        bail!("xtask and trunk make different pages of web/index.html:\n{}", differences.join("\n"));
    }
    Ok(())
}

/// Files without the hashes in their names; not what only xtask's page has, a room's pages among it: trunk builds one document.
fn names(folder: &Path) -> Result<BTreeSet<String>> {
    let files = dist::files(folder)?;
    let is_alone = |file: &str| {
        file.ends_with(".br")
            || file == dist::LIST
            || ["join", "room", "start"].iter().any(|name| file.starts_with(name))
    };
    Ok(files.iter().filter(|file| !is_alone(file)).map(|file| plain(file)).collect())
}

/// What the index refers to, with the attributes that matter: how a file is loaded, when, and whether it is verified.
fn references(folder: &Path) -> Result<BTreeSet<String>> {
    let file = folder.join("index.html");
    let text = std::fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))?;
    let mut found = BTreeSet::new();
    for element in html::tags(&text, &["link", "script"])? {
        let mut parts: Vec<String> = vec![element.name.clone()];
        for (name, value) in &element.attributes {
            parts.push(match name.as_str() {
                "integrity" => name.clone(),
                _ if value.is_empty() => name.clone(),
                _ => format!("{name}={}", plain(value)),
            });
        }
        parts.sort();
        found.insert(parts.join(" "));
        // The script that starts the page names its files in quotes.
        if element.name == "script" && element.get("src").is_none() {
            let body = &text[element.span];
            found.extend(
                body.split(['\'', '"', '`'])
                    .filter(|part| part.starts_with('/'))
                    .map(|part| format!("starts {}", plain(part))),
            );
        }
    }
    Ok(found)
}

/// A name without a hash: 8 to 16 hexadecimal digits after a dash.
fn plain(name: &str) -> String {
    let Some((stem, rest)) = name.rsplit_once('-') else { return name.to_owned() };
    let digits = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
    let ends = rest[digits..].starts_with(['.', '_']);
    if (8..=16).contains(&digits) && ends { format!("{stem}{}", &rest[digits..]) } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_do_not_count() {
        for (name, expected) in [
            ("web-0123456789abcdef_bg.wasm", "web_bg.wasm"),
            ("/page-123456789abcdef.css", "/page.css"),
            ("kernels-simd-threads.wasm", "kernels-simd-threads.wasm"),
            ("worker.js", "worker.js"),
            ("a-deadbeef", "a-deadbeef"),
        ] {
            assert_eq!(plain(name), expected);
        }
    }

    #[test]
    fn what_differs_is_named() {
        let (ours, trunks) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let write = |folder: &tempfile::TempDir, name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).unwrap();
        };
        let index = |hash: &str, script: &str| {
            format!(
                "<link rel=\"stylesheet\" href=\"/page-{hash}.css\" integrity=\"sha384-{hash}\">\
                 <script type=\"module\">import init from '/web-{hash}.js';{script}</script>"
            )
        };
        write(&ours, "index.html", &index("0123456789abcdef", "await init('/web-0123456789abcdef_bg.wasm')"));
        write(&ours, "page-0123456789abcdef.css", "");
        write(&ours, "page-0123456789abcdef.css.br", "");
        write(&ours, "assets.json", "{}");
        write(&ours, "join.html", "");
        write(
            &trunks,
            "index.html",
            &index("fedcba987654321", "\nconst wasm = await init(\"/web-fedcba987654321_bg.wasm\");"),
        );
        write(&trunks, "page-fedcba987654321.css", "");
        compare(ours.path(), trunks.path()).unwrap();
        write(&trunks, "more.js", "");
        write(
            &trunks,
            "index.html",
            &index("fedcba987654321", "await init('/other.wasm')").replace(" integrity", " media"),
        );
        let error = compare(ours.path(), trunks.path()).unwrap_err().to_string();
        for wanted in ["file of trunk's page alone: more.js", "starts /other.wasm", "starts /web_bg.wasm", "integrity"]
        {
            assert!(error.contains(wanted), "{wanted} is not in {error}");
        }
    }
}
