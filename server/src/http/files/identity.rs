//! Which version of a file this is: by its content.
//!
//! Length and time of change do not tell: two files can have the same, and a build can write both within one tick of the
//! file system's clock. So files are hashed. What was hashed is remembered by path, inode, length and times, and believed
//! where the file had been at rest for a while, as git does with its index.
//!
//! Deliberately absent: hashing of what is larger than [`MAX_HASHED`]. A model of gigabytes is told by inode, length and
//! times; reading it for every change would take longer than sending it.

use std::collections::HashMap;
use std::fs::Metadata;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

/// Largest file whose content is read to tell its version.
pub const MAX_HASHED: u64 = 64 << 20;
/// A file that changed more recently could change again without its times showing it.
const AT_REST: Duration = Duration::from_secs(2);
/// Most files that are remembered.
const MAX_KNOWN: usize = 4096;

/// What the file system says of a file's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Length in bytes.
    pub len: u64,
    modified: Option<SystemTime>,
    /// Changes with every write and cannot be set: device, inode, and the time of change in ns.
    changed: (u64, u64, i128),
}

impl Stamp {
    /// Of a file.
    #[must_use]
    pub fn of(meta: &Metadata) -> Self {
        #[cfg(unix)]
        let changed = {
            use std::os::unix::fs::MetadataExt as _;
            (meta.dev(), meta.ino(), i128::from(meta.ctime()) * 1_000_000_000 + i128::from(meta.ctime_nsec()))
        };
        #[cfg(not(unix))]
        let changed = (0, 0, 0);
        Self { len: meta.len(), modified: meta.modified().ok(), changed }
    }

    /// Whether a change from now on would show.
    fn is_at_rest(&self) -> bool {
        let since = |time: SystemTime| SystemTime::now().duration_since(time).unwrap_or_default();
        let changed = u64::try_from(self.changed.2).map(|ns| SystemTime::UNIX_EPOCH + Duration::from_nanos(ns));
        self.modified.is_some_and(|time| since(time) > AT_REST) && changed.is_ok_and(|time| since(time) > AT_REST)
    }
}

/// The tag of some content.
#[must_use]
pub fn of_content(bytes: &[u8]) -> String {
    short(&Sha256::digest(bytes))
}

fn short(digest: &[u8]) -> String {
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Files whose version is known.
#[derive(Debug, Default)]
pub struct Identities(Mutex<HashMap<PathBuf, (Stamp, String)>>);

impl Identities {
    /// The tag of a file's present version.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn tag(&self, path: &Path, stamp: Stamp) -> std::io::Result<String> {
        if let Some((known, tag)) = self.known().get(path)
            && *known == stamp
        {
            return Ok(tag.clone());
        }
        if stamp.len > MAX_HASHED {
            return Ok(short(&Sha256::digest(format!("{stamp:?}"))));
        }
        let file = path.to_owned();
        let hash = move || -> std::io::Result<(Stamp, String)> {
            let mut file = std::fs::File::open(file)?;
            let before = Stamp::of(&file.metadata()?);
            let (mut hash, mut piece) = (Sha256::new(), vec![0; 64 << 10]);
            loop {
                match file.read(&mut piece)? {
                    0 => break,
                    read => hash.update(piece.get(..read).unwrap_or_default()),
                }
            }
            Ok((before, short(&hash.finalize())))
        };
        let (stamp, tag) = tokio::task::spawn_blocking(hash).await.map_err(std::io::Error::other)??;
        let mut known = self.known();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        if stamp.is_at_rest() {
            known.insert(path.to_owned(), (stamp, tag.clone()));
        }
        Ok(tag)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, (Stamp, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_of_one_length_and_time_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let day = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400);
        let identities = Identities::default();
        let mut tags = Vec::new();
        for (name, text) in [("a.js", "let a;"), ("b.js", "let b;"), ("a.js", "let c;")] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::File::options().append(true).open(&path).unwrap().set_modified(day).unwrap();
            let tag = identities.tag(&path, Stamp::of(&std::fs::metadata(&path).unwrap())).await.unwrap();
            assert_eq!(tag, of_content(text.as_bytes()));
            tags.push(tag);
        }
        tags.sort_unstable();
        tags.dedup();
        assert_eq!(tags.len(), 3);
    }
}
