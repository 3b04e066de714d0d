//! Where the files of the catalogue's models lie, whether they are whole, and removing them.

use std::path::{Path, PathBuf};

use client::catalogue::CatalogueEntry;
use sha2::{Digest as _, Sha256};

use crate::hub::HubError;
use crate::hub::download::{Report, Stop, hash_into, part_path};
use crate::hub::name::FileName;
use crate::hub::tag_path;

/// Folder of models that are on no hub.
const ELSEWHERE: &str = "elsewhere";

/// The folder with the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    dir: PathBuf,
}

/// How much of a model is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing.
    Absent,
    /// So many bytes of it.
    Part(u64),
    /// All of it, so many bytes.
    Whole(u64),
}

/// What a look at every byte of a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verified {
    /// Its checksum is the one that is known.
    Sound,
    /// It is not.
    Damaged {
        /// SHA-256 of the file that is here.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// Nobody knows what it should be.
    Unknown {
        /// SHA-256 of the file that is here.
        found: String,
    },
}

impl Store {
    /// The store in this folder, which need not be there.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a model's file is in the folder: as on the hub, where it is on one.
    #[must_use]
    pub fn name(entry: &CatalogueEntry) -> String {
        let on_hub = entry.repository.as_ref().and_then(|repository| repository.split_once('/'));
        let (organisation, repository) = on_hub.unwrap_or((ELSEWHERE, &entry.id));
        match FileName::new(organisation, repository, &entry.file) {
            Some(name) => name.to_string(),
            // Names that the catalogue takes and the hub's cache does not are short and odd: their letters are safe all the same.
            None => format!("{ELSEWHERE}/{}/{}", entry.id, entry.file),
        }
    }

    /// Where a model's file lies, or will.
    #[must_use]
    pub fn place(&self, entry: &CatalogueEntry) -> PathBuf {
        self.dir.join(Self::name(entry))
    }

    /// How much of a model is here.
    #[must_use]
    pub fn state(&self, entry: &CatalogueEntry) -> State {
        let place = self.place(entry);
        let length =
            |path: &Path| std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|meta| meta.len());
        match (length(&place), length(&part_path(&place))) {
            (Some(bytes), _) => State::Whole(bytes),
            (None, Some(bytes @ 1..)) => State::Part(bytes),
            (None, _) => State::Absent,
        }
    }

    /// Reads every byte of a model's file.
    ///
    /// # Errors
    /// It is not here, cannot be read, or a person stopped it.
    pub fn verify(&self, entry: &CatalogueEntry, stop: &Stop, report: Report<'_>) -> Result<Verified, HubError> {
        let place = self.place(entry);
        let fail = |error: std::io::Error| HubError::Source { path: place.clone(), why: error.to_string() };
        let mut file = std::fs::File::open(&place).map_err(fail)?;
        let mut hash = Sha256::new();
        hash_into(&mut hash, &mut file, stop, report)?;
        let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        // Where the catalogue does not say it, what it was when it came is known.
        let noted = || std::fs::read_to_string(tag_path(&place)).ok().map(|tag| tag.trim().to_lowercase());
        let expected = entry.sha256.clone().or_else(|| noted().filter(|tag| tag.len() == 64));
        Ok(match expected {
            Some(expected) if expected == found => Verified::Sound,
            Some(expected) => Verified::Damaged { found, expected },
            None => Verified::Unknown { found },
        })
    }

    /// Removes a model's file, or what there is of it. Returns the bytes that were freed.
    ///
    /// # Errors
    /// What is there cannot be removed.
    pub fn remove(&self, entry: &CatalogueEntry) -> std::io::Result<u64> {
        let place = self.place(entry);
        let part = part_path(&place);
        let mut freed = 0;
        for path in [&place, &part] {
            match std::fs::metadata(path) {
                Ok(meta) => {
                    std::fs::remove_file(path)?;
                    freed += meta.len();
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            let _ = std::fs::remove_file(tag_path(path));
        }
        // Folders that are empty now; others stay.
        let folders = place.ancestors().skip(1).take_while(|folder| *folder != self.dir);
        for folder in folders {
            if std::fs::remove_dir(folder).is_err() {
                break;
            }
        }
        Ok(freed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str) -> CatalogueEntry {
        let catalogue = crate::catalogue::load(include_bytes!("../../../public/models/catalogue.json"), &[]).unwrap();
        catalogue.find(id).unwrap().clone()
    }

    #[test]
    fn files_lie_where_the_hubs_cache_has_them() {
        let entry = entry("smollm2");
        let (organisation, repository) = entry.repository.as_deref().unwrap().split_once('/').unwrap();
        let name = FileName::new(organisation, repository, &entry.file).unwrap();
        assert_eq!(Store::name(&entry), name.to_string());
        let elsewhere = CatalogueEntry { repository: None, url: Some("https://x/m.gguf".into()), ..entry };
        assert_eq!(Store::name(&elsewhere), "elsewhere/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf");
    }

    #[test]
    fn a_file_is_looked_at_byte_by_byte_and_removed_without_a_trace() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().to_owned());
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let known = CatalogueEntry { sha256: Some(sha256.into()), ..entry("smollm2") };
        let unknown = CatalogueEntry { sha256: None, ..known.clone() };
        let verify = |entry| store.verify(entry, &Stop::default(), &mut |_, _| {});
        assert!(verify(&known).unwrap_err().to_string().contains("SmolLM2"));
        assert_eq!(store.state(&known), State::Absent);
        let place = store.place(&known);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(&place, "abc").unwrap();
        assert_eq!((store.state(&known), verify(&known)), (State::Whole(3), Ok(Verified::Sound)));
        assert_eq!(verify(&unknown), Ok(Verified::Unknown { found: sha256.into() }));
        std::fs::write(&place, "abd").unwrap();
        assert!(matches!(verify(&known), Ok(Verified::Damaged { expected, .. }) if expected == sha256));
        std::fs::write(tag_path(&place), sha256).unwrap();
        assert!(matches!(verify(&unknown), Ok(Verified::Damaged { .. })), "it was another one when it came");
        std::fs::write(part_path(&place), "a").unwrap();
        assert_eq!(store.remove(&known).unwrap(), 4);
        assert_eq!((store.remove(&known).unwrap(), folder.path().read_dir().unwrap().count()), (0, 0));
    }
}
