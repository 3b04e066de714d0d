//! Open files, read by range.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use engine::EngineError;
use engine::files::ReadAt;

use crate::ecld::error::EcldError;

/// Refuses a pipe, which would be waited for, and a device, which has no end.
///
/// # Errors
/// [`EcldError::Io`] or [`EcldError::File`].
pub fn check_plain(path: &Path) -> Result<(), EcldError> {
    match std::fs::metadata(path).map_err(EcldError::io(path))?.is_file() {
        true => Ok(()),
        false => Err(EcldError::file(path, "it is not a plain file")),
    }
}

/// The files of one model.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Vec<Opened>>);

#[derive(Debug)]
struct Opened {
    path: PathBuf,
    file: Mutex<File>,
    size: u64,
}

impl Disk {
    /// Opens them.
    ///
    /// # Errors
    /// [`EcldError::Io`].
    pub fn open(paths: &[PathBuf]) -> Result<Self, EcldError> {
        let open = |path: &PathBuf| -> Result<Opened, EcldError> {
            check_plain(path)?;
            let file = File::open(path).map_err(EcldError::io(path))?;
            let size = file.metadata().map_err(EcldError::io(path))?.len();
            Ok(Opened { path: path.clone(), file: Mutex::new(file), size })
        };
        Ok(Self(Arc::new(paths.iter().map(open).collect::<Result<_, _>>()?)))
    }

    fn opened(&self, file: usize) -> Result<&Opened, EcldError> {
        self.0.get(file).ok_or_else(|| EcldError::input(format!("there is no file number {file}")))
    }

    /// The path of a file.
    pub fn path(&self, file: usize) -> &Path {
        self.0.get(file).map_or(Path::new(""), |opened| &opened.path)
    }

    /// Bytes of a file.
    pub fn size(&self, file: usize) -> u64 {
        self.0.get(file).map_or(0, |opened| opened.size)
    }

    /// `len` bytes from `start` on.
    ///
    /// # Errors
    /// They are not all there, or cannot be read.
    pub fn piece(&self, file: usize, start: u64, len: usize) -> Result<Vec<u8>, EcldError> {
        let opened = self.opened(file)?;
        if start.checked_add(len as u64).is_none_or(|end| end > opened.size) {
            return Err(EcldError::file(&opened.path, "it ends too early: the download was probably cut short"));
        }
        let mut bytes = vec![0; len];
        let mut handle = opened.file.lock().unwrap_or_else(PoisonError::into_inner);
        let read = handle.seek(SeekFrom::Start(start)).and_then(|_| handle.read_exact(&mut bytes));
        read.map_err(EcldError::io(&opened.path))?;
        Ok(bytes)
    }
}

#[async_trait(?Send)]
impl ReadAt for Disk {
    async fn read(&self, file: usize, start: u64, len: usize) -> Result<Vec<u8>, EngineError> {
        self.piece(file, start, len).map_err(|error| EngineError::File(error.to_string()))
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn devices_are_refused_before_anything_is_read() {
        let error = Disk::open(&[PathBuf::from("/dev/zero")]).unwrap_err().to_string();
        assert!(error.contains("/dev/zero") && error.contains("not a plain file"), "{error}");
    }
}
