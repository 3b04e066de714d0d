//! Models from elsewhere on this machine: the list of them, and their files.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`get`] | bringing a file here: from the hub, an address, another place on this machine, a Python package |
//! | [`own`] | a model file that is in no list, as an entry of one |
//! | [`pip`] | the last of these |
//! | [`store`] | where the files lie, whether they are whole, removing them |
//!
//! The list is `models/catalogue.json` of the folder `public`, and what a person's own files add to it
//! ([`client::catalogue`] has its form). The files lie in the cache of the [`hub`](crate::hub), under the same names: what a
//! command fetched, a server with `--hub` hands on, and the other way round.
//!
//! Deliberately absent: looking for newer versions, and searching a hub.

pub mod get;
pub mod own;
pub mod pip;
pub mod store;

use std::path::{Path, PathBuf};

use client::catalogue::{Catalogue, CatalogueEntry, CatalogueError};

use store::Store;

/// Where `public` has the list.
pub const FILE: &str = "models/catalogue.json";
/// The name of a person's own list in the data folder.
pub const OWN_FILE: &str = "catalogue.json";

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no catalogue, or does not go with the others.
    #[error("{path}: {source}")]
    Form {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: CatalogueError,
    },
}

/// The list that ships, given as its file's bytes, with what `files` add to it, the later over the earlier.
///
/// # Errors
/// [`ListError`], naming the file.
pub fn load(shipped: &[u8], files: &[PathBuf]) -> Result<Catalogue, ListError> {
    let form = |path: &Path| {
        let path = path.to_owned();
        move |source| ListError::Form { path, source }
    };
    let mut catalogue = Catalogue::parse(shipped).map_err(form(Path::new(FILE)))?;
    for path in files {
        let json = std::fs::read(path).map_err(|source| ListError::Read { path: path.clone(), source })?;
        let more = Catalogue::parse(&json).map_err(form(path))?;
        catalogue.extend(more).map_err(form(path))?;
    }
    Ok(catalogue)
}

/// What a person named a model by.
#[derive(Clone, Debug, PartialEq)]
pub enum Named {
    /// One that is part of the program.
    Shipped(CatalogueEntry),
    /// One of the list whose file is here.
    Stored(CatalogueEntry, PathBuf),
    /// A file or folder of their own.
    Path(PathBuf),
}

/// Why a name gives no model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// In the list, and not here.
    #[error("{name} is not on this machine yet{there}; fetch it first: tandem models fetch {id}")]
    NotFetched {
        /// As it was written.
        name: String,
        /// The model's id.
        id: String,
        /// How much of it is there.
        there: String,
    },
    /// In the list, and here, but of another size.
    #[error(
        "{id} is damaged: its file has {bytes} bytes and not {expected}; fetch it anew: tandem models remove {id}, then tandem \
         models fetch {id}"
    )]
    Damaged {
        /// The model's id.
        id: String,
        /// Bytes that are here.
        bytes: u64,
        /// Bytes that it should have.
        expected: u64,
    },
    /// Neither in the list nor a file.
    #[error(
        "{name}: there is no such file, and the catalogue has no such model (tandem models list shows what it has)"
    )]
    Unknown {
        /// As it was written.
        name: String,
    },
}

/// The model that `text` names: a name of the catalogue, or a path. A path has a slash in it or ends in `.gguf`, or is no name
/// of the catalogue.
///
/// # Errors
/// [`NameError`], with what to do.
pub fn resolve(text: &str, catalogue: &Catalogue, store: &Store) -> Result<Named, NameError> {
    let is_path = text.contains(['/', '\\']) || text.ends_with(".gguf");
    let Some(entry) = catalogue.find(text).filter(|_| !is_path) else {
        let path = PathBuf::from(text);
        return if path.exists() { Ok(Named::Path(path)) } else { Err(NameError::Unknown { name: text.to_owned() }) };
    };
    if entry.is_shipped() {
        return Ok(Named::Shipped(entry.clone()));
    }
    let there = match store.state(entry) {
        store::State::Whole(bytes) => {
            return match entry.bytes.filter(|expected| *expected != bytes) {
                Some(expected) => Err(NameError::Damaged { id: entry.id.clone(), bytes, expected }),
                None => Ok(Named::Stored(entry.clone(), store.place(entry))),
            };
        }
        store::State::Part(bytes) => format!(" ({} of it are)", indicatif::DecimalBytes(bytes)),
        store::State::Absent => String::new(),
    };
    Err(NameError::NotFetched { name: text.to_owned(), id: entry.id.clone(), there })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &[u8] = include_bytes!("../../../public/models/catalogue.json");

    #[test]
    fn a_persons_own_list_adds_to_the_one_that_ships() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.json");
        let json = r#"{"version": 1, "models": [{"id": "mine", "name": "Mine", "role": "server", "family": "Mine",
            "tokenizer": "mine", "parameters": 7, "quantisation": "Q8_0", "file": "mine.gguf",
            "url": "https://models.example/mine.gguf", "licence": {"id": "MIT", "asks": "Nothing.", "url": "https://x"},
            "context_length": 512, "cache_width": 64}]}"#;
        std::fs::write(&path, json).unwrap();
        let catalogue = load(SHIPPED, std::slice::from_ref(&path)).unwrap();
        assert!(catalogue.find("mine").is_some() && catalogue.find("smollm2").is_some());
        std::fs::write(&path, "{}").unwrap();
        let error = load(SHIPPED, std::slice::from_ref(&path)).unwrap_err().to_string();
        assert!(error.contains("own.json") && error.contains("missing field"), "{error}");
        let error = load(SHIPPED, &[folder.path().join("none.json")]).unwrap_err().to_string();
        assert!(error.contains("none.json"), "{error}");
    }

    #[test]
    fn names_become_models_or_say_how_to_get_them() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().join("hub"));
        let catalogue = load(SHIPPED, &[]).unwrap();
        let named = |text: &str| resolve(text, &catalogue, &store);
        assert!(matches!(named("full"), Ok(Named::Shipped(entry)) if entry.id == "full"));
        let error = named("SmolLM2").unwrap_err().to_string();
        assert!(error.contains("tandem models fetch smollm2-135m"), "{error}");
        let place = store.place(catalogue.find("smollm2").unwrap());
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(crate::hub::download::part_path(&place), [0; 2000]).unwrap();
        assert!(named("smollm2").unwrap_err().to_string().contains("2.00 kB of it are"));
        std::fs::write(&place, "x").unwrap();
        assert!(named("smollm2").unwrap_err().to_string().contains("1 bytes and not 98362432"));
        std::fs::File::options().write(true).open(&place).unwrap().set_len(98_362_432).unwrap();
        assert!(matches!(named("smollm2"), Ok(Named::Stored(_, path)) if path == place));
        let own = folder.path().join("m.gguf");
        std::fs::write(&own, "x").unwrap();
        assert_eq!(named(&own.to_string_lossy()), Ok(Named::Path(own)));
        for unknown in ["none", "full.gguf", "./full"] {
            let error = named(unknown).unwrap_err().to_string();
            assert!(error.contains("tandem models list"), "{unknown}: {error}");
        }
    }
}
