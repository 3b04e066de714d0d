//! The folder of the finished page. A server may be reading it, so every file is replaced in one step, and what has not
//! changed is left alone with its compressed copies.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha384};

use super::index::Reference;
use super::module::hex;

/// The list of what is there, for whoever serves it.
pub const LIST: &str = "assets.json";

/// `assets.json`.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assets {
    /// Files by their names without a hash.
    pub files: BTreeMap<String, Asset>,
}

/// A file of the page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asset {
    /// Where it is, in the page's folder.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// `sha384-…`, as the attribute `integrity` has it.
    pub integrity: String,
    /// Whether the name holds a hash of the content, so that the file may be cached for ever.
    pub immutable: bool,
}

/// The folder, while it is written.
pub struct Dist {
    folder: PathBuf,
    assets: Assets,
    /// What was written with a hash in its name.
    pub references: BTreeMap<String, Reference>,
    changed: bool,
    whole: bool,
}

impl Dist {
    /// Begins a page: what is not put by the time of [`finish`](Self::finish) goes.
    pub fn begin(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self {
            folder: folder.to_owned(),
            assets: Assets::default(),
            references: BTreeMap::new(),
            changed: false,
            whole: true,
        })
    }

    /// Goes on with a page that is there.
    pub fn open(folder: &Path) -> Result<Self> {
        let list = folder.join(LIST);
        let text = fs::read(&list).with_context(|| format!("{} is missing; build the page first", list.display()))?;
        let assets: Assets =
            serde_json::from_slice(&text).with_context(|| format!("{} is not xtask's", list.display()))?;
        let hashed = assets.files.iter().filter(|(_, asset)| asset.immutable);
        let reference = |asset: &Asset| Reference { file: asset.file.clone(), integrity: asset.integrity.clone() };
        let references = hashed.map(|(name, asset)| (name.clone(), reference(asset))).collect();
        Ok(Self { assets, references, whole: false, ..Self::begin(folder)? })
    }

    /// A file under its own name.
    pub fn put(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.write(name, name.to_owned(), bytes, false).map(drop)
    }

    /// A file with a hash of its content in its name: `page.css` becomes `page-0123456789abcdef.css`, `web_bg.wasm`
    /// `web-0123456789abcdef_bg.wasm`, as the server expects of files that never change.
    pub fn put_hashed(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let hash = hex(&Sha384::digest(bytes)[..8]);
        let split = name.find("_bg.").or_else(|| name.rfind('.')).unwrap_or(name.len());
        let (stem, ending) = name.split_at(split);
        let asset = self.write(name, format!("{stem}-{hash}{ending}"), bytes, true)?;
        let reference = Reference { file: asset.file, integrity: asset.integrity };
        self.references.insert(name.to_owned(), reference);
        Ok(())
    }

    /// Leaves files of an earlier page, by their names without a hash, where they are if nothing else has changed: later
    /// modules speak with earlier ones. Says whether all of them are there.
    pub fn keep_where_nothing_changed(&mut self, earlier: Option<&Self>, names: &[String]) -> bool {
        let Some(earlier) = earlier.filter(|_| !self.changed) else { return false };
        names.iter().fold(true, |all, name| {
            let there = earlier.assets.files.get(name).filter(|asset| self.folder.join(&asset.file).is_file());
            self.assets.files.extend(there.map(|asset| (name.clone(), asset.clone())));
            all && there.is_some()
        })
    }

    fn write(&mut self, name: &str, file: String, bytes: &[u8], immutable: bool) -> Result<Asset> {
        let path = self.folder.join(&file);
        let is_there = fs::metadata(&path).is_ok_and(|known| known.len() == bytes.len() as u64)
            && fs::read(&path).is_ok_and(|known| known == bytes);
        if !is_there {
            self.changed = true;
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
            }
            remove(&compressed(&path))?;
            replace(&path, bytes)?;
        }
        let integrity = format!("sha384-{}", STANDARD.encode(Sha384::digest(bytes)));
        let asset = Asset { file, bytes: bytes.len() as u64, integrity, immutable };
        self.assets.files.insert(name.to_owned(), asset.clone());
        Ok(asset)
    }

    /// Writes the list, and takes away what is not on it.
    pub fn finish(self) -> Result<()> {
        if self.whole {
            let known: BTreeSet<&str> = self.assets.files.values().map(|asset| asset.file.as_str()).collect();
            for file in files(&self.folder)? {
                if file != LIST && !known.contains(file.strip_suffix(".br").unwrap_or(&file)) {
                    remove(&self.folder.join(file))?;
                }
            }
        }
        replace(&self.folder.join(LIST), &serde_json::to_vec_pretty(&self.assets)?)
    }
}

/// Where the compressed copy of a file is.
pub fn compressed(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".br");
    name.into()
}

/// Names of all files in a folder and the folders in it, with slashes, in order.
pub fn files(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?.into_iter().map(|inner| format!("{name}/{inner}")));
        } else {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}

/// Writes a file beside its place and moves it there.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    fs::write(&new, bytes).with_context(|| format!("{} cannot be written", new.display()))?;
    fs::rename(&new, path).with_context(|| format!("{} cannot be replaced", path.display()))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} cannot be removed", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_holds_what_was_put_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let page = |style: &[u8], all_kept: bool| {
            let before = Dist::open(path).ok();
            let mut dist = Dist::begin(path).unwrap();
            dist.put("worker.js", b"worker").unwrap();
            dist.put("icons/a.svg", b"<svg/>").unwrap();
            dist.put_hashed("page.css", style).unwrap();
            dist.put_hashed("web_bg.wasm", b"wasm").unwrap();
            let kept =
                dist.keep_where_nothing_changed(before.as_ref(), &["late_bg.wasm".to_owned(), "late.html".to_owned()]);
            assert_eq!(kept, all_kept);
            let file = dist.references["page.css"].file.clone();
            dist.finish().unwrap();
            file
        };
        let first = page(b"a{}", false);
        assert_eq!(first.len(), "page-0123456789abcdef.css".len());
        let wasm = files(path).unwrap().into_iter().find(|file| file.ends_with("_bg.wasm")).unwrap();
        assert_eq!(wasm.len(), "web-0123456789abcdef_bg.wasm".len());

        // Later modules are added and listed, and stay while nothing changes, as compressed copies do.
        let mut later = Dist::open(path).unwrap();
        assert_eq!(later.references["page.css"].file, first);
        later.put("late_bg.wasm", b"late").unwrap();
        later.finish().unwrap();
        assert_eq!(page(b"a{}", false), first);
        let mut later = Dist::open(path).unwrap();
        later.put_hashed("late_bg.wasm", b"late").unwrap();
        later.put("late.html", b"late").unwrap();
        later.finish().unwrap();
        fs::write(path.join("worker.js.br"), "br").unwrap();
        fs::write(path.join(format!("{first}.br")), "br").unwrap();
        assert_eq!(page(b"a{}", true), first);
        let there = files(path).unwrap();
        let late = Dist::open(path).unwrap().references["late_bg.wasm"].file.clone();
        let expected = ["late.html", &late, "worker.js.br", "assets.json"];
        assert!(expected.iter().all(|file| there.iter().any(|it| it == file)), "{there:?}");

        // Another style: its copy, the old one and the later module go; the rest stays.
        let second = page(b"b{}", false);
        let mut expected = ["assets.json", "icons/a.svg", "worker.js", "worker.js.br", &second, &wasm];
        expected.sort_unstable();
        assert_eq!(files(path).unwrap(), expected);
        let list: Assets = serde_json::from_slice(&fs::read(path.join(LIST)).unwrap()).unwrap();
        let style = &list.files["page.css"];
        assert_eq!((style.file.as_str(), style.bytes, style.immutable), (second.as_str(), 3, true));
        assert!(style.integrity.starts_with("sha384-") && !list.files["worker.js"].immutable);

        // A copy of what was there before would be sent in its place.
        let mut dist = Dist::open(path).unwrap();
        dist.put("worker.js", b"another").unwrap();
        dist.finish().unwrap();
        assert!(!path.join("worker.js.br").exists());
    }

    #[test]
    fn a_page_that_is_not_there_cannot_be_added_to() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Dist::open(folder.path()).err().unwrap().to_string().contains("build the page first"));
    }
}
