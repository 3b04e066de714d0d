//! A model file on disk, read in pieces.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "natively a program opens its model by path; in a browser this module does not exist"
)]

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use super::error::EngineError;
use super::files::ReadAt;
use super::gguf::Gguf;

/// Bytes that are read of a file whose header is looked for; twice as many if they do not do.
const FIRST_HEAD: u64 = 1 << 20;
/// No header is longer.
const LONGEST_HEAD: u64 = 256 << 20;

/// An open file.
#[derive(Debug)]
pub struct DiskFile {
    path: PathBuf,
    file: Mutex<File>,
    size: u64,
}

impl DiskFile {
    /// Opens it.
    ///
    /// # Errors
    /// [`EngineError::File`] with the file's name and what the system says.
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        let fail = |error| cannot_read(path, &error);
        // A pipe would be waited for, and a device has no end.
        if !std::fs::metadata(path).map_err(fail)?.is_file() {
            return Err(fail(std::io::Error::other("it is not a plain file")));
        }
        let file = File::open(path).map_err(fail)?;
        let size = file.metadata().map_err(fail)?.len();
        Ok(Self { path: path.to_owned(), file: Mutex::new(file), size })
    }

    /// Bytes that it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its beginning, as far as the header of a GGUF file needs it; where that cannot be read, a part that shows why.
    ///
    /// # Errors
    /// [`EngineError::File`].
    pub fn head(&self) -> Result<Vec<u8>, EngineError> {
        let mut len = FIRST_HEAD;
        loop {
            let head = self.piece(0, len.min(self.size))?;
            match Gguf::parse_header(&head, self.size) {
                Err(error) if error.wants_more() && len < self.size && len < LONGEST_HEAD => len *= 2,
                _ => return Ok(head),
            }
        }
    }

    /// All of it.
    ///
    /// # Errors
    /// [`EngineError::File`].
    pub fn all(&self) -> Result<Vec<u8>, EngineError> {
        self.piece(0, self.size)
    }

    fn piece(&self, start: u64, len: u64) -> Result<Vec<u8>, EngineError> {
        let inside = start.checked_add(len).is_some_and(|end| end <= self.size);
        let len = usize::try_from(len).ok().filter(|_| inside);
        let len = len.ok_or_else(|| EngineError::Inconsistent("the model file ends too early".into()))?;
        let mut bytes = Vec::with_capacity(len);
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let read =
            file.seek(SeekFrom::Start(start)).and_then(|_| (&mut *file).take(len as u64).read_to_end(&mut bytes));
        match read.map_err(|error| cannot_read(&self.path, &error))? == len {
            true => Ok(bytes),
            false => Err(cannot_read(&self.path, &std::io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

fn cannot_read(path: &Path, error: &std::io::Error) -> EngineError {
    EngineError::File(format!("{} cannot be read: {error}", path.display()))
}

#[async_trait(?Send)]
impl ReadAt for DiskFile {
    async fn read(&self, file: usize, start: u64, len: usize) -> Result<Vec<u8>, EngineError> {
        match file {
            0 => self.piece(start, len as u64),
            _ => Err(EngineError::Inconsistent(format!("there is no file number {file}"))),
        }
    }
}
