//! SQLite files in a folder, each used by one server at a time: the lock is exclusive, so that a second server does not take
//! what the first one works on for abandoned.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};
use thiserror::Error;

use crate::disk::{private_file, private_folder};

/// What a file is.
#[derive(Clone, Copy, Debug)]
pub struct Database {
    /// Its name in the folder.
    pub file: &'static str,
    /// Its tables, as SQL that makes those that are not there: a table is added without a new version.
    pub schema: &'static str,
    /// Version of the tables, kept in the file's `user_version`; not 0, which a new file has.
    pub version: i64,
    /// SQLite's `synchronous`: whether a power cut may take what was written last.
    pub synchronous: &'static str,
    /// The option of the command line that names another folder.
    pub flag: &'static str,
}

/// Why a file cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Folder or file cannot be made.
    #[error("{path}: {source}")]
    Folder {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Somebody else has it open.
    #[error("{path} is in use by another tandem; stop that one, or name another folder with {flag}")]
    InUse {
        /// Which file.
        path: PathBuf,
        /// The option that names a folder.
        flag: &'static str,
    },
    /// Made by another version of this program.
    #[error(
        "{path} is of version {found}, but this program reads version {wanted}; name another folder with {flag}, or take the \
         program that made it"
    )]
    Version {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// This program's.
        wanted: i64,
        /// The option that names a folder.
        flag: &'static str,
    },
    /// It is no database, or no longer.
    #[error("{path} is damaged: {source}; name another folder with {flag}, or move the file away")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
        /// The option that names a folder.
        flag: &'static str,
    },
    /// SQLite failed.
    #[error("{path} cannot be used: {source}")]
    Sqlite {
        /// Which file.
        path: PathBuf,
        /// What it said.
        source: rusqlite::Error,
    },
}

impl Database {
    /// Opens or makes the file in a folder, for this process alone.
    ///
    /// # Errors
    /// The folder cannot be written, the file is in use, damaged or of another version.
    pub fn open(&self, dir: &Path) -> Result<Connection, OpenError> {
        let Self { file, schema, version, flag, .. } = *self;
        let path = dir.join(file);
        private_folder(dir).map_err(|source| OpenError::Folder { path: dir.to_owned(), source })?;
        private_file(&path).map_err(|source| OpenError::Folder { path: path.clone(), source })?;
        let explain = |source: rusqlite::Error| {
            let path = path.clone();
            match source.sqlite_error_code() {
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::InUse { path, flag },
                Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => OpenError::Damaged { path, source, flag },
                _ => OpenError::Sqlite { path, source },
            }
        };
        let db = Connection::open(&path).map_err(explain)?;
        match self.prepare(&db).map_err(explain)? {
            0 => {
                db.execute_batch(schema).map_err(explain)?;
                db.pragma_update(None, "user_version", version).map_err(explain)?;
            }
            found if found == version => db.execute_batch(schema).map_err(explain)?,
            found => return Err(OpenError::Version { path, found, wanted: version, flag }),
        }
        Ok(db)
    }

    /// Takes the lock; returns the version of the tables that are there.
    fn prepare(&self, db: &Connection) -> rusqlite::Result<i64> {
        // Nobody gives an exclusive lock back: waiting for it makes no sense.
        db.busy_timeout(Duration::ZERO)?;
        db.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", self.synchronous)?;
        // An exclusive lock is taken by the first write.
        db.execute_batch("BEGIN IMMEDIATE; COMMIT")?;
        db.pragma_query_value(None, "user_version", |row| row.get(0))
    }
}

/// SQLite's integers are signed.
#[must_use]
pub fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATABASE: Database = Database {
        file: "things.sqlite",
        schema: "CREATE TABLE IF NOT EXISTS things (id INTEGER PRIMARY KEY) STRICT",
        version: 3,
        synchronous: "NORMAL",
        flag: "--things",
    };

    #[test]
    fn a_file_that_cannot_be_used_is_explained() {
        let folder = tempfile::tempdir().unwrap();
        let db = DATABASE.open(folder.path()).unwrap();
        let says = |wanted: &str| {
            let error = DATABASE.open(folder.path()).err().unwrap().to_string();
            assert!(error.contains(wanted) && error.contains("--things"), "{error}");
        };
        says("in use by another tandem");
        db.pragma_update(None, "user_version", 99).unwrap();
        drop(db);
        says("is of version 99, but this program reads version 3");
        let garbage = "this is no database, but it is long enough to be one ".repeat(100);
        std::fs::write(folder.path().join(DATABASE.file), garbage).unwrap();
        says("damaged");
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(matches!(DATABASE.open(&file), Err(OpenError::Folder { .. })));
    }

    #[test]
    fn what_was_written_is_there_again_and_integers_end_where_sqlites_do() {
        let folder = tempfile::tempdir().unwrap();
        let db = DATABASE.open(folder.path()).unwrap();
        db.execute("INSERT INTO things (id) VALUES (?1)", [integer(7)]).unwrap();
        drop(db);
        let db = DATABASE.open(folder.path()).unwrap();
        assert_eq!(db.query_row("SELECT id FROM things", [], |row| row.get::<_, i64>(0)).unwrap(), 7);
        assert_eq!((integer(0), integer(u64::MAX)), (0, i64::MAX));
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_reads_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let (dir, path) = (folder.path().join("own"), folder.path().join("own").join(DATABASE.file));
        let rights = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let db = DATABASE.open(&dir).unwrap();
        db.execute("INSERT INTO things (id) VALUES (1)", []).unwrap();
        assert_eq!((rights(&dir), rights(&path)), (0o700, 0o600));
        let log = dir.join(format!("{}-wal", DATABASE.file));
        assert!(!log.exists() || rights(&log) == 0o600);
        drop(db);
        // One that an earlier version made.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let _db = DATABASE.open(&dir).unwrap();
        assert_eq!(rights(&path), 0o600);
    }
}
