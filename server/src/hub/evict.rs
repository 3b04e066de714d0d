//! Making room in the cache: what was asked for longest ago goes first, never what is being read or written.
//!
//! When a file was asked for last is its time of modification, so that it outlives the server.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use super::tag_path;

/// What the names of half files and of notes beside files end in.
const NO_FILES: [&str; 3] = ["part", "download", "etag"];

/// Held while a file is read.
#[derive(Clone, Debug, Default)]
pub struct Lease(#[expect(dead_code, reason = "it counts by being held")] Arc<()>);

/// Who reads what.
#[derive(Debug, Default)]
pub(super) struct Leases(Mutex<HashMap<PathBuf, Weak<()>>>);

/// A whole file in the cache.
struct CachedFile {
    path: PathBuf,
    bytes: u64,
    asked: SystemTime,
}

impl Leases {
    /// Keeps a file from being removed for as long as the lease is held, and marks it as just asked for. The file need not
    /// be there.
    pub(super) fn take(&self, path: &Path) -> Lease {
        let mut leases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        leases.retain(|_, lease| lease.strong_count() > 0);
        let held = leases.get(path).and_then(Weak::upgrade).unwrap_or_default();
        leases.insert(path.to_owned(), Arc::downgrade(&held));
        // A folder that cannot be written to still gives what it has.
        if let Ok(file) = std::fs::File::options().append(true).open(path) {
            let _ = file.set_modified(SystemTime::now());
        }
        Lease(held)
    }

    /// Bytes of all files in `folder` that nobody reads.
    pub(super) fn idle_bytes(&self, folder: &Path) -> u64 {
        let leases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle(&leases, folder).iter().map(|file| file.bytes).sum()
    }

    /// Removes files from `folder` that nobody reads until `bytes` are freed, or none where so much cannot be. Whether it
    /// could.
    pub(super) fn free(&self, folder: &Path, bytes: u64) -> bool {
        // Held to the end: a file that is asked for now is asked for after it is gone.
        let leases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = idle(&leases, folder);
        kept.sort_by(|a, b| a.asked.cmp(&b.asked).then_with(|| a.path.cmp(&b.path)));
        let mut freed = 0u64;
        let going = kept.iter().take_while(|file| {
            let more = freed < bytes;
            freed += if more { file.bytes } else { 0 };
            more
        });
        let going: Vec<_> = going.collect();
        if freed < bytes {
            return false;
        }
        for file in going {
            tracing::info!(path = %file.path.display(), "removed from the hub's cache to make room");
            let _ = std::fs::remove_file(tag_path(&file.path));
            if std::fs::remove_file(&file.path).is_err() {
                return false;
            }
        }
        true
    }
}

fn idle(leases: &HashMap<PathBuf, Weak<()>>, folder: &Path) -> Vec<CachedFile> {
    let mut kept = Vec::new();
    collect(folder, &mut kept);
    kept.retain(|file| leases.get(&file.path).is_none_or(|lease| lease.strong_count() == 0));
    kept
}

/// All whole files; those that are being written have an ending of their own, or lie in a hidden folder.
fn collect(folder: &Path, into: &mut Vec<CachedFile>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(meta) = entry.metadata() else { continue };
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if meta.is_dir() {
            collect(&path, into);
        } else if !path.extension().is_some_and(|ending| NO_FILES.iter().any(|other| ending == *other)) {
            into.push(CachedFile { bytes: meta.len(), asked: meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), path });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_asked_for_longest_ago_goes_first_and_nothing_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join("org").join(name);
        std::fs::create_dir_all(path("")).unwrap();
        let day = |n: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(n * 86_400);
        for (name, n) in [
            ("a.gguf", 3),
            ("b.gguf", 1),
            ("c.gguf", 2),
            ("d.gguf.part", 0),
            ("b.gguf.etag", 0),
            ("e.gguf.download", 0),
        ] {
            std::fs::write(path(name), [0; 100]).unwrap();
            std::fs::File::options().append(true).open(path(name)).unwrap().set_modified(day(n)).unwrap();
        }
        let there = || ["a.gguf", "b.gguf", "c.gguf", "d.gguf.part", "b.gguf.etag"].map(|name| path(name).exists());
        let leases = Leases::default();
        let reading = leases.take(&path("c.gguf"));
        assert_eq!(leases.idle_bytes(folder.path()), 200);
        assert!(!leases.free(folder.path(), 201), "too much is in use, so nothing is removed");
        assert_eq!(there(), [true; 5]);
        assert!(leases.free(folder.path(), 1));
        assert_eq!(there(), [true, false, true, true, false], "the oldest one, with its tag");
        // Asked for just now, it is younger than the other one even when nobody reads it any more.
        drop(reading);
        assert!(leases.free(folder.path(), 100));
        assert_eq!(there(), [false, false, true, true, false]);
        assert!(leases.free(folder.path(), 100));
        assert_eq!(there(), [false, false, false, true, false]);
    }
}
