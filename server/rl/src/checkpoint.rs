//! Files that are there completely or not at all, and the parts of a checkpoint.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::TrainError;

/// Version of the checkpoints' files.
pub const CHECKPOINT_VERSION: u32 = 1;

/// Writes a part of a checkpoint, as CBOR: unlike JSON it gives every number back bit for bit.
///
/// # Errors
/// When it cannot be written.
pub fn write_state<T: Serialize>(path: &Path, state: &T) -> Result<(), TrainError> {
    let mut bytes = Vec::new();
    ciborium::into_writer(&(CHECKPOINT_VERSION, state), &mut bytes).map_err(|e| TrainError::damaged(path, e))?;
    fs::write(path, bytes).map_err(TrainError::at(path))
}

/// Reads what [`write_state`] wrote.
///
/// # Errors
/// When it cannot be read, or is of another version or another kind.
pub fn read_state<T: DeserializeOwned>(path: &Path) -> Result<T, TrainError> {
    let bytes = fs::read(path).map_err(TrainError::at(path))?;
    // The version first, so that another version is called that and not broken.
    let (version, state): (u32, ciborium::Value) =
        ciborium::from_reader(bytes.as_slice()).map_err(|e| TrainError::damaged(path, e))?;
    if version != CHECKPOINT_VERSION {
        let problem = format!("it is of checkpoint version {version}, this build reads {CHECKPOINT_VERSION}");
        return Err(TrainError::damaged(path, problem));
    }
    state.deserialized().map_err(|e| TrainError::damaged(path, e))
}

/// Writes a file so that it is there completely or not at all.
///
/// # Errors
/// When it cannot be written.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let beside = path.with_extension("part");
    // Without the sync, a power cut would leave an empty file under the final name.
    let written = File::create(&beside).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    if let Err(error) = written {
        // Half a file helps nobody, least of all on a full disk.
        let _ = fs::remove_file(&beside);
        return Err(TrainError::at(&beside)(error));
    }
    fs::rename(&beside, path).map_err(TrainError::at(path))
}

/// Sees to it that what a folder holds survives a power cut: its files' content, and their names.
///
/// # Errors
/// When one cannot be read.
pub fn sync_folder(folder: &Path) -> Result<(), TrainError> {
    for entry in fs::read_dir(folder).map_err(TrainError::at(folder))? {
        let path = entry.map_err(TrainError::at(folder))?.path();
        File::open(&path).and_then(|file| file.sync_all()).map_err(TrainError::at(&path))?;
    }
    sync_names(folder);
    Ok(())
}

/// Sees to it that the names in a folder survive a power cut, where the system lets a folder be opened.
pub fn sync_names(folder: &Path) {
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_another_version_or_kind_is_refused() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("numbers");
        write_state(&path, &(2, 0.1 + 0.2)).expect("written");
        assert_eq!(read_state::<(u64, f64)>(&path).expect("read"), (2, 0.1 + 0.2));
        let mut foreign = Vec::new();
        ciborium::into_writer(&(CHECKPOINT_VERSION + 1, 0), &mut foreign).expect("bytes");
        for (bytes, said) in [(foreign.as_slice(), "version 2"), (&[0x82, 0x01], "damaged"), (&[], "damaged")] {
            fs::write(&path, bytes).expect("written");
            let error = read_state::<(u64, f64)>(&path).expect_err("refused").to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
