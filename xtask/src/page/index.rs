//! What the page's documents declare, in the attributes that trunk reads, and what is made of them: the main page, which trunk
//! builds too, and the two of a room, which stand alone so that a phone waits for nothing that it does not need.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::html::{self, Element};
use super::module::{Module, Target};

/// The documents: where each is written, and what it is called in dist/. The first is the main page.
pub const DOCUMENTS: [(&str, &str); 3] =
    [("web/index.html", "index.html"), ("web/rooms/join.html", "join.html"), ("web/rooms/room.html", "room.html")];

/// A document's source.
pub struct Index {
    /// Its name in dist/.
    pub name: &'static str,
    source: &'static str,
    html: String,
    entries: Vec<(Element, Entry)>,
}

/// What an element asks for.
pub enum Entry {
    /// A script, with a hash in its name.
    Script(PathBuf),
    /// A style sheet, with a hash in its name.
    Style(PathBuf),
    /// A file as it is.
    File(PathBuf),
    /// A folder as it is.
    Folder(PathBuf),
    /// A WebAssembly module.
    Module(Module),
}

/// A file of the finished page that the index refers to.
pub struct Reference {
    /// Its name in dist/.
    pub file: String,
    /// `sha384-…`.
    pub integrity: String,
}

impl Index {
    /// Reads the main page.
    ///
    /// # Errors
    /// It asks for something that only trunk knows; nothing is left out in silence.
    pub fn read() -> Result<Self> {
        Self::of(DOCUMENTS[0])
    }

    /// Reads all documents, the main page first.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn all() -> Result<Vec<Self>> {
        DOCUMENTS.into_iter().map(Self::of).collect()
    }

    fn of((source, name): (&'static str, &'static str)) -> Result<Self> {
        let html = std::fs::read_to_string(source).with_context(|| format!("{source} cannot be read"))?;
        Self::parse(source, name, html)
    }

    fn parse(source: &'static str, name: &'static str, html: String) -> Result<Self> {
        // Paths in it are relative to it.
        let folder = Path::new(source).parent().unwrap_or(Path::new(""));
        let mut entries = Vec::new();
        for element in html::tags(&html, &["link", "script"]).with_context(|| source.to_owned())? {
            if element.get("data-trunk").is_some() {
                let entry = entry(&element, folder).with_context(|| source.to_owned())?;
                entries.push((element, entry));
            }
        }
        Ok(Self { name, source, html, entries })
    }

    /// What it asks for, in order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().map(|(_, entry)| entry)
    }

    /// All modules.
    pub fn modules(&self) -> impl Iterator<Item = &Module> {
        self.entries().filter_map(|entry| if let Entry::Module(module) = entry { Some(module) } else { None })
    }

    /// Whether it is made of a module that comes late, and comes with it.
    pub fn is_late(&self) -> bool {
        self.modules().any(|module| module.is_late && module.target == Target::Web)
    }

    /// The finished page. `references` has what every script, style and the main module's two files became, by the name that
    /// they have without a hash.
    pub fn render(&self, references: &BTreeMap<String, Reference>) -> Result<String> {
        let find = |name: &str| references.get(name).with_context(|| format!("{name} was not built"));
        let mut out = String::with_capacity(self.html.len() + 1024);
        let mut at = 0;
        let mut preloads = String::new();
        for (element, entry) in &self.entries {
            out += &self.html[at..element.span.start];
            at = element.span.end;
            match entry {
                Entry::Script(path) => {
                    let Reference { file, integrity } = find(&file_name(path)?)?;
                    let others: String = element
                        .attributes
                        .iter()
                        .filter(|(name, _)| !name.starts_with("data-") && name != "src")
                        .map(
                            |(name, value)| {
                                if value.is_empty() { format!(" {name}") } else { format!(" {name}=\"{value}\"") }
                            },
                        )
                        .collect();
                    out += &format!("<script src=\"/{file}\" integrity=\"{integrity}\"{others}></script>");
                }
                Entry::Style(path) => {
                    let Reference { file, integrity } = find(&file_name(path)?)?;
                    out += &format!("<link rel=\"stylesheet\" href=\"/{file}\" integrity=\"{integrity}\" />");
                }
                Entry::Module(module) if module.target == Target::Web => {
                    let (script, wasm) = (find(&module.script())?, find(&module.wasm())?);
                    out += &format!(
                        "<script type=\"module\">\nimport init from '/{}';\nawait init({{ module_or_path: '/{}' }});\n</script>",
                        script.file, wasm.file
                    );
                    preloads += &format!(
                        "<link rel=\"modulepreload\" href=\"/{}\" crossorigin=\"anonymous\" integrity=\"{}\" />\n    \
                         <link rel=\"preload\" href=\"/{}\" crossorigin=\"anonymous\" integrity=\"{}\" as=\"fetch\" \
                         type=\"application/wasm\" />\n  ",
                        script.file, script.integrity, wasm.file, wasm.integrity
                    );
                }
                // Workers are started by the page, copies are asked for by name.
                Entry::Module(_) | Entry::File(_) | Entry::Folder(_) => trim_line(&mut out),
            }
        }
        out += &self.html[at..];
        let head = out.find("</head>").with_context(|| format!("{} has no </head>", self.source))?;
        out.insert_str(head, &preloads);
        Ok(out)
    }
}

/// Takes back the indentation and line break in front of an element that goes.
fn trim_line(out: &mut String) {
    out.truncate(out.trim_end().len());
}

/// The last part of a path.
pub fn file_name(path: &Path) -> Result<String> {
    let name = path.file_name().with_context(|| format!("{} names no file", path.display()))?;
    Ok(name.to_string_lossy().into_owned())
}

fn entry(element: &Element, folder: &Path) -> Result<Entry> {
    let path = |name| element.need(name).map(|href| folder.join(href));
    if element.name == "script" {
        return Ok(Entry::Script(path("src")?));
    }
    Ok(match element.need("rel")? {
        "css" => Entry::Style(path("href")?),
        "copy-file" => Entry::File(path("href")?),
        "copy-dir" => Entry::Folder(path("href")?),
        "rust" => Entry::Module(module(element, &path("href")?)?),
        other => bail!("it asks for {other}, which xtask does not know; trunk does"),
    })
}

fn module(element: &Element, manifest: &Path) -> Result<Module> {
    /// What is read here, and by the caller.
    const KNOWN: [&str; 11] = [
        "data-trunk",
        "rel",
        "href",
        "data-bin",
        "data-type",
        "data-cargo-profile-release",
        "data-cargo-features",
        "data-wasm-opt",
        "data-wasm-opt-params",
        "data-late",
        "data-bindgen-target",
    ];
    if let Some((unknown, _)) = element.attributes.iter().find(|(name, _)| !KNOWN.contains(&name.as_str())) {
        bail!("it gives a module the attribute {unknown}, which xtask does not know; trunk does");
    }
    let text = std::fs::read_to_string(manifest).with_context(|| format!("{} cannot be read", manifest.display()))?;
    let package = text.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    let optimise = element.get("data-wasm-opt").filter(|level| *level != "0");
    let mut options: Vec<String> = optimise.iter().map(|level| format!("-O{level}")).collect();
    if optimise.is_some() {
        options.extend(element.get("data-wasm-opt-params").unwrap_or_default().split_whitespace().map(str::to_owned));
    }
    Ok(Module {
        name: element.need("data-bin")?.to_owned(),
        package: package.with_context(|| format!("{} names no package", manifest.display()))?.to_owned(),
        features: element.get("data-cargo-features").unwrap_or_default().to_owned(),
        profile: element.get("data-cargo-profile-release").unwrap_or("release").to_owned(),
        target: match (element.need("data-type")?, element.get("data-bindgen-target")) {
            ("main", None) => Target::Web,
            ("worker", None) => Target::NoModules,
            ("worker", Some("web")) => Target::Later,
            other => bail!("it has a module of type {other:?}"),
        },
        optimise: options,
        is_late: element.get("data-late").is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(name: &str) -> (String, Reference) {
        let (stem, ending) = name.rsplit_once('.').unwrap();
        (name.to_owned(), Reference { file: format!("{stem}-0.{ending}"), integrity: format!("sha384-{stem}") })
    }

    /// The page as it is: every module is known, and the finished page has no trace of the builder's attributes.
    #[test]
    fn the_page_is_understood() {
        std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).unwrap();
        let all = Index::all().unwrap();
        for index in &all[1..] {
            let main = index.modules().next().unwrap();
            assert_eq!((format!("{}.html", main.name), main.package.as_str()), (index.name.to_owned(), "rooms"));
            assert!(index.is_late() && !all[0].is_late());
            let missing = index.render(&BTreeMap::new()).unwrap_err().to_string();
            assert!(missing.contains("was not built"), "{missing}");
        }
        let index = &all[0];
        let modules: Vec<_> = index.modules().map(|m| (m.name.as_str(), m.package.as_str(), m.is_late)).collect();
        let expected = [
            ("web", "web", false),
            ("compact", "compact", true),
            ("markdown", "markdown", true),
            ("worker", "worker", false),
            ("policy_cpu", "worker", true),
            ("policy_gpu", "worker", true),
        ];
        assert_eq!(modules, expected);
        let mut references: BTreeMap<_, _> = ["web.js", "web_bg.wasm"].into_iter().map(reference).collect();
        for entry in index.entries() {
            if let Entry::Script(path) | Entry::Style(path) = entry {
                assert!(path.is_file(), "{}", path.display());
                references.extend([reference(&file_name(path).unwrap())]);
            }
        }
        let page = index.render(&references).unwrap();
        assert!(!page.contains("data-trunk") && !page.contains("data-bin"), "{page}");
        for wanted in [
            "<script src=\"/theme-0.js\" integrity=\"sha384-theme\"></script>",
            "<script src=\"/fallback-0.js\" integrity=\"sha384-fallback\" defer></script>",
            "<link rel=\"stylesheet\" href=\"/page-0.css\" integrity=\"sha384-page\" />",
            "<link rel=\"preload\" href=\"/web_bg-0.wasm\" crossorigin=\"anonymous\"",
            "import init from '/web-0.js';",
        ] {
            assert!(page.contains(wanted), "{wanted} is not in\n{page}");
        }
        references.remove("page.css");
        assert!(index.render(&references).unwrap_err().to_string().contains("page.css"));
    }

    #[test]
    fn what_only_trunk_knows_is_an_error() {
        for (html, what) in [
            ("<link data-trunk rel=\"sass\" href=\"x.scss\" />", "sass"),
            ("<link data-trunk rel=\"rust\" href=\"Cargo.toml\" data-reference-types />", "data-reference-types"),
            ("<link data-trunk rel=\"css\" />", "href"),
        ] {
            let error = format!("{:#}", Index::parse("web/x.html", "x.html", html.to_owned()).err().unwrap());
            assert!(error.starts_with("web/x.html"), "{error}");
            assert!(error.contains(what), "{error}");
        }
    }
}
