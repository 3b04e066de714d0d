//! Files and folders that appear under their name only when they are whole: written beside it under another name, flushed to
//! the disk, renamed. What is given up, by an error or by Ctrl-C, is removed.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::ecld::error::EcldError;

/// What the name has at its end until the file is whole.
const ENDING: &str = ".part";

fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ENDING);
    PathBuf::from(name)
}

/// The folder's list of names reaches the disk too. Some systems do not open folders; there it is done anyway.
fn sync_folder(path: &Path) {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}

/// A file that is being written.
#[derive(Debug)]
pub struct PartFile {
    path: PathBuf,
    part: PathBuf,
    file: Option<BufWriter<File>>,
}

impl PartFile {
    /// Begins a file that will be called `path`.
    ///
    /// # Errors
    /// [`EcldError::Io`].
    pub fn create(path: &Path) -> Result<Self, EcldError> {
        let part = part_of(path);
        let file = File::create(&part).map_err(EcldError::io(&part))?;
        Ok(Self { path: path.to_owned(), part, file: Some(BufWriter::with_capacity(1 << 20, file)) })
    }

    /// What it will be called.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`EcldError::Io`], a full disk among them.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), EcldError> {
        let closed = || EcldError::file(&self.path, "it is closed already");
        let file = self.file.as_mut().ok_or_else(closed)?;
        file.write_all(bytes).map_err(EcldError::io(&self.part))
    }

    /// The file is whole: it gets its name.
    ///
    /// # Errors
    /// [`EcldError::Io`].
    pub fn commit(mut self) -> Result<(), EcldError> {
        if let Some(file) = self.file.take() {
            let synced = file.into_inner().map_err(std::io::IntoInnerError::into_error).and_then(|f| f.sync_all());
            if let Err(source) = synced {
                let _ = fs::remove_file(&self.part);
                return Err(EcldError::Io { file: self.part.clone(), source });
            }
        }
        fs::rename(&self.part, &self.path).map_err(|source| {
            let _ = fs::remove_file(&self.part);
            EcldError::Io { file: self.path.clone(), source }
        })?;
        sync_folder(&self.path);
        Ok(())
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            let _ = fs::remove_file(&self.part);
        }
    }
}

/// Writes a small file so.
///
/// # Errors
/// [`EcldError::Io`].
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), EcldError> {
    let mut file = PartFile::create(path)?;
    file.write(bytes)?;
    file.commit()
}

/// A folder that is being filled.
#[derive(Debug)]
pub struct PartFolder {
    path: PathBuf,
    part: PathBuf,
    whole: bool,
}

impl PartFolder {
    /// Begins a folder that will be called `path`.
    ///
    /// # Errors
    /// There is something of that name, or [`EcldError::Io`].
    pub fn create(path: &Path) -> Result<Self, EcldError> {
        if path.exists() {
            return Err(EcldError::file(path, "it is there already; remove it, or choose another name"));
        }
        let part = part_of(path);
        if part.exists() {
            // Left over from a run that was killed.
            fs::remove_dir_all(&part).map_err(EcldError::io(&part))?;
        }
        fs::create_dir_all(&part).map_err(EcldError::io(&part))?;
        Ok(Self { path: path.to_owned(), part, whole: false })
    }

    /// Where files of it are written until it is whole.
    pub fn inside(&self, name: &str) -> PathBuf {
        self.part.join(name)
    }

    /// The folder is whole: it gets its name.
    ///
    /// # Errors
    /// [`EcldError::Io`].
    pub fn commit(mut self) -> Result<(), EcldError> {
        fs::rename(&self.part, &self.path).map_err(EcldError::io(&self.path))?;
        self.whole = true;
        sync_folder(&self.path);
        Ok(())
    }
}

impl Drop for PartFolder {
    fn drop(&mut self) {
        if !self.whole {
            let _ = fs::remove_dir_all(&self.part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_half_has_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        let mut file = PartFile::create(&path).unwrap();
        file.write(b"half").unwrap();
        drop(file);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        write_atomically(&path, b"whole").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");

        let path = dir.path().join("folder");
        let folder = PartFolder::create(&path).unwrap();
        fs::write(folder.inside("a"), "a").unwrap();
        drop(folder);
        assert!(!path.exists() && fs::read_dir(dir.path()).unwrap().count() == 1);
        let folder = PartFolder::create(&path).unwrap();
        fs::write(folder.inside("a"), "a").unwrap();
        folder.commit().unwrap();
        assert_eq!(fs::read(path.join("a")).unwrap(), b"a");
        assert!(PartFolder::create(&path).unwrap_err().to_string().contains("already"));
        assert!(PartFile::create(&dir.path().join("no/such/file")).is_err());
    }
}
