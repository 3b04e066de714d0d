//! Getting a model file onto this device: resumable, verified, kept when there is room.
//!
//! A file is known by its SHA-256 where that is known, else by its address and version, also in the store: another version
//! of a model can never be mixed into it. What has arrived of a cut or cancelled download stays in the store, and the next
//! try asks the server for the rest with a range request. A server that sends the whole file all the same is simply
//! started over with. Nothing is handed out before its hash agrees; that is looked at once, when the last byte has come: a
//! stored file that nobody has written since is not read again for it, which takes seconds for half a gigabyte.
//!
//! The bytes go to the store as they arrive and are not held in memory. A store that is full, not there, or emptied under
//! way is no failure for a file of up to [`MOST_IN_MEMORY`]: it is then held in memory, and the caller says so. A larger
//! one is refused, before it starts where that can be told.
//!
//! Deliberately absent: fetch and file systems ([`Source`] and [`FileStore`] are passed in, so that all of this is tested
//! natively), and unpacking: a GGUF file does not compress.

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::LocalBoxStream;
use sha2::{Digest, Sha256};

use crate::bytes::size;
use crate::offload::ports::Clock;
use crate::offload::run::{unless_stopped, within};
use crate::offload::signal::StopFlag;
use crate::protocol::manifest::ModelEntry;

#[cfg(test)]
mod tests;

/// A source that sends nothing for this long counts as cut.
const SILENCE_LIMIT_S: f64 = 20.0;
/// Tries that may in a row bring nothing new.
const MAX_BARREN_TRIES: u32 = 4;
/// Wait before the second try; doubled each time.
const FIRST_PAUSE_S: f64 = 0.5;
/// Largest file that is held in memory when the store does not take it. The worker's memory ends at 4 GiB, and a model's
/// pieces, vocabulary and cache have to lie beside its file.
pub const MOST_IN_MEMORY: u64 = 1 << 30;
/// Bytes that are hashed between two looks at the event loop.
const HASH_SLICE: usize = 4 << 20;

/// A file that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where it is.
    pub url: String,
    /// Its size.
    pub bytes: u64,
    /// Its name in the store; no two versions share one.
    pub name: String,
    /// Its SHA-256 in lower-case hex; `None` where nobody tells.
    pub sha256: Option<String>,
}

impl Wanted {
    /// The file of a manifest's entry, at an address of its own or below `base_url`, which is where the manifest lies and ends in a
    /// slash.
    ///
    /// # Errors
    /// An entry that names no such file, or has no sound hash.
    pub fn from_entry(base_url: &str, entry: &ModelEntry) -> Result<Self, DownloadError> {
        let elsewhere = entry.file.strip_prefix("https://");
        let name = elsewhere.unwrap_or(&entry.file);
        let sound_name = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b))
            && !name.starts_with('/')
            && !name.split('/').any(|part| part == "..");
        if !(is_sha256(&entry.sha256) && sound_name) {
            return Err(DownloadError::BadEntry(entry.id.clone()));
        }
        let sha256 = entry.sha256.clone();
        let base_url = if elsewhere.is_some() { "" } else { base_url };
        let url = format!("{base_url}{}", entry.file);
        Ok(Self { url, bytes: entry.bytes, name: sha256.clone(), sha256: Some(sha256) })
    }

    /// A file at an address of which its server says that it has `bytes` bytes and is of this `version` (an entity tag or a
    /// date; empty where it says nothing).
    #[must_use]
    pub fn from_url(url: &str, bytes: u64, version: &str, sha256: Option<String>) -> Self {
        let name = match &sha256 {
            Some(sha256) => sha256.clone(),
            None => format!("{}{bytes}-{}", url_prefix(url), short_hash(version)),
        };
        Self { url: url.to_owned(), bytes, name, sha256 }
    }

    /// The same file where it turns out to have `bytes`: servers that compress tell the length of what they send.
    #[must_use]
    pub fn of_length(self, bytes: u64) -> Self {
        let mut parts: Vec<&str> = self.name.split('-').collect();
        let told = bytes.to_string();
        if let [.., length, _] = parts.as_mut_slice()
            && self.sha256.is_none()
        {
            *length = &told;
        }
        Self { name: parts.join("-"), bytes, ..self }
    }

    /// The same file as one of a folder's, by which it is found and removed.
    #[must_use]
    pub fn in_folder(self, folder: &str) -> Self {
        let version = self.name.strip_prefix(&url_prefix(&self.url)).unwrap_or(&self.name);
        Self { name: format!("{}{version}", file_prefix(folder, &self.url)), ..self }
    }
}

/// What the store's names of all versions of a file at this address begin with, and those of all files in a folder at it.
/// Never the beginning of a SHA-256.
#[must_use]
pub fn url_prefix(url: &str) -> String {
    format!("url-{}-", short_hash(url))
}

/// The same of the file at `url` in the folder at `folder`.
#[must_use]
pub fn file_prefix(folder: &str, url: &str) -> String {
    format!("{}{}-", url_prefix(folder), short_hash(url))
}

/// Whether this is a SHA-256 in lower-case hex.
#[must_use]
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn short_hash(text: &str) -> String {
    hex(&Sha256::digest(text)).chars().take(16).collect()
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where bytes come from.
#[async_trait(?Send)]
pub trait Source {
    /// Opens `url` from byte `from` on. Dropping future or stream cancels the request.
    async fn open(&self, url: &str, from: u64) -> Result<Opened, SourceError>;
}

/// An opened source.
pub struct Opened {
    /// Where the bytes really begin: `from`, or 0 where the server does not do ranges.
    pub begins_at: u64,
    /// The bytes.
    pub body: LocalBoxStream<'static, Result<Vec<u8>, SourceError>>,
}

/// Why a source gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// No connection, or it broke off: worth another try.
    #[error("{0}")]
    Cut(String),
    /// The server said no: another try would hear the same.
    #[error("the server answered {0}")]
    Status(u16),
}

/// Where files are kept on this device.
#[async_trait(?Send)]
pub trait FileStore {
    /// Bytes that it would still take, as far as it tells.
    async fn room(&mut self) -> Option<u64>;
    /// How much is there of a file, complete or not; `None` for nothing.
    async fn size(&mut self, name: &str) -> Result<Option<u64>, FileStoreError>;
    /// `len` bytes of a file from byte `from` on; fewer where it ends.
    async fn read(&mut self, name: &str, from: u64, len: usize) -> Result<Vec<u8>, FileStoreError>;
    /// Opens a file for writing behind its first `keep` bytes; what was behind them is gone.
    async fn begin(&mut self, name: &str, keep: u64) -> Result<(), FileStoreError>;
    /// Writes at the end of the open file.
    fn append(&mut self, bytes: &[u8]) -> Result<(), FileStoreError>;
    /// Closes the open file, if any.
    fn end(&mut self);
    /// Removes a file; one that is not there is removed already.
    async fn delete(&mut self, name: &str) -> Result<(), FileStoreError>;
    /// Remembers of a file that its hash agrees, as it is now. What cannot be remembered is looked at again the next time.
    async fn mark_verified(&mut self, name: &str);
    /// Whether a file is as it was when that was remembered.
    async fn is_verified(&mut self, name: &str) -> bool;
}

/// Why a store did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileStoreError {
    /// No room.
    #[error("the browser gives this page no more room to store files")]
    Full,
    /// No such thing in this browser, or in use by another tab.
    #[error("files cannot be stored here ({0})")]
    Unavailable(String),
}

/// Why there is no file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DownloadError {
    /// The person cancelled.
    #[error("the download was cancelled")]
    Cancelled,
    /// Cut too often.
    #[error("the download was cut ({0}); what has arrived is kept, try again to go on")]
    Cut(String),
    /// The server has no such file.
    #[error("the model file could not be fetched: {0}")]
    Refused(SourceError),
    /// The bytes are not those that were promised.
    #[error(
        "the model file is not the one that the server promises (its size or checksum differs); reload the page, or \
         tell the server's owner"
    )]
    Mismatch,
    /// It can neither be stored nor held in memory.
    #[error(
        "a model file of {} can only be loaded from storage, and {why}; free storage on this device, choose a smaller model \
         or another quantisation of it, or drop the file onto the page: it is then read where it lies",
        size(*.bytes)
    )]
    NoRoom {
        /// Its size.
        bytes: u64,
        /// Why it is not stored.
        why: FileStoreError,
    },
    /// Not enough memory for the file.
    #[error("this tab has no memory left for a model of {0} bytes; close other tabs, or let the server answer")]
    Memory(u64),
    /// The manifest's entry makes no sense.
    #[error("the server's entry for the model `{0}` is damaged; tell the server's owner")]
    BadEntry(String),
}

/// A file whose hash agrees, as far as it was known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// All of it, where it is not in the store.
    pub memory: Option<Vec<u8>>,
    /// Why it is not in the store; `None` when it is.
    pub not_kept: Option<FileStoreError>,
}

/// Gets a file into the store, or what is missing of it from the source. `progress` is told how many bytes are here.
///
/// # Errors
/// [`DownloadError`]; after [`DownloadError::Cancelled`] and [`DownloadError::Cut`] the store keeps what has arrived.
pub async fn obtain<S: Source, H: FileStore, C: Clock>(
    wanted: &Wanted,
    source: &S,
    store: &mut H,
    clock: &C,
    stop: &StopFlag,
    progress: &mut dyn FnMut(u64),
) -> Result<StoredFile, DownloadError> {
    let mut file = PartialFile::new(wanted);
    match store.size(&wanted.name).await {
        Ok(Some(size))
            if size == wanted.bytes && (wanted.sha256.is_none() || store.is_verified(&wanted.name).await) =>
        {
            progress(size);
            return Ok(StoredFile { memory: None, not_kept: None });
        }
        Ok(Some(size)) if size <= wanted.bytes => file.take(size, store, clock).await,
        Ok(_) => {}
        Err(error) => file.hold_in_memory(Vec::new(), error)?,
    }
    let missing = wanted.bytes - file.received;
    let room = if missing > MOST_IN_MEMORY { store.room().await } else { None };
    if room.is_some_and(|room| room < missing) {
        return Err(DownloadError::NoRoom { bytes: wanted.bytes, why: FileStoreError::Full });
    }
    let mut first_from = file.received;
    progress(file.received);
    loop {
        let result = fetch(source, store, clock, stop, &mut file, progress).await;
        store.end();
        result?;
        // A browser may have emptied its storage meanwhile, or have taken less than it said, without a word to the writer.
        if file.memory.is_none() {
            let stored = store.size(&wanted.name).await;
            if stored != Ok(Some(wanted.bytes)) {
                let why = match stored {
                    Ok(Some(stored)) => format!("the browser kept only {stored} of {} bytes", wanted.bytes),
                    _ => "what was stored has been cleared".to_owned(),
                };
                let _ = store.delete(&wanted.name).await;
                file.restart();
                file.hold_in_memory(Vec::new(), FileStoreError::Unavailable(why))?;
                continue;
            }
        }
        if file.agrees() {
            if file.memory.is_none() && wanted.sha256.is_some() {
                store.mark_verified(&wanted.name).await;
            }
            return Ok(StoredFile { memory: file.memory, not_kept: file.not_kept });
        }
        // The damage may lie in what was in the store before: once more from the start, and no further.
        let _ = store.delete(&wanted.name).await;
        if first_from == 0 {
            return Err(DownloadError::Mismatch);
        }
        first_from = 0;
        file.restart();
    }
}

/// Fetches until the file has its full length.
async fn fetch<S: Source, H: FileStore, C: Clock>(
    source: &S,
    store: &mut H,
    clock: &C,
    stop: &StopFlag,
    file: &mut PartialFile<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<(), DownloadError> {
    let mut barren = 0;
    while file.received < file.wanted.bytes {
        let before = file.received;
        let one_try = unless_stopped(stop, one_try(source, store, clock, file, progress)).await;
        let problem = match one_try.ok_or(DownloadError::Cancelled)? {
            Ok(()) => continue,
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Cut(problem)) => problem,
        };
        store.end();
        barren = if file.received > before { 0 } else { barren + 1 };
        if barren >= MAX_BARREN_TRIES {
            return Err(DownloadError::Cut(problem));
        }
        let pause_s = FIRST_PAUSE_S * f64::from(1 << barren.min(5));
        unless_stopped(stop, clock.sleep(pause_s)).await.ok_or(DownloadError::Cancelled)?;
    }
    Ok(())
}

enum Failure {
    Cut(String),
    Final(DownloadError),
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Cut(problem) => Self::Cut(problem),
            // A server that is restarting or busy says so with these.
            SourceError::Status(status @ (408 | 429 | 500..)) => Self::Cut(SourceError::Status(status).to_string()),
            SourceError::Status(_) => Self::Final(DownloadError::Refused(error)),
        }
    }
}

impl From<DownloadError> for Failure {
    fn from(error: DownloadError) -> Self {
        Self::Final(error)
    }
}

async fn one_try<S: Source, H: FileStore, C: Clock>(
    source: &S,
    store: &mut H,
    clock: &C,
    file: &mut PartialFile<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<(), Failure> {
    let silent = || Failure::Cut(format!("nothing came for {SILENCE_LIMIT_S} seconds"));
    let wanted = file.wanted;
    let from = file.received;
    let opened = within(clock, SILENCE_LIMIT_S, source.open(&wanted.url, from)).await.ok_or_else(silent)??;
    if opened.begins_at != from {
        file.restart();
        if opened.begins_at != 0 {
            return Err(Failure::Cut("the server sent another part than it was asked for".to_owned()));
        }
    }
    if file.memory.is_none()
        && let Err(error) = store.begin(&wanted.name, file.received).await
    {
        file.leave_store(store, error).await?;
    }
    let mut body = opened.body;
    while let Some(chunk) = within(clock, SILENCE_LIMIT_S, body.next()).await.ok_or_else(silent)? {
        let chunk = chunk?;
        if file.received + chunk.len() as u64 > wanted.bytes {
            store.end();
            let _ = store.delete(&wanted.name).await;
            return Err(Failure::Final(DownloadError::Mismatch));
        }
        if file.memory.is_none()
            && let Err(error) = store.append(&chunk)
        {
            file.leave_store(store, error).await?;
        }
        file.append(&chunk);
        progress(file.received);
    }
    if file.received < wanted.bytes {
        return Err(Failure::Cut("the connection ended early".to_owned()));
    }
    Ok(())
}

/// A file on its way, hashed as it arrives.
struct PartialFile<'w> {
    wanted: &'w Wanted,
    received: u64,
    hash: Sha256,
    /// What has arrived, where the store does not have it.
    memory: Option<Vec<u8>>,
    not_kept: Option<FileStoreError>,
}

impl<'w> PartialFile<'w> {
    fn new(wanted: &'w Wanted) -> Self {
        Self { wanted, received: 0, hash: Sha256::new(), memory: None, not_kept: None }
    }

    /// Takes in what the store has: its length, and its part of the hash.
    async fn take<H: FileStore, C: Clock>(&mut self, size: u64, store: &mut H, clock: &C) {
        while self.received < size {
            match store.read(&self.wanted.name, self.received, HASH_SLICE).await {
                Ok(slice) if !slice.is_empty() => self.append(&slice),
                // Another tab is writing it, or it is gone: as if it had not been there.
                _ => return self.restart(),
            }
            clock.sleep(0.0).await;
        }
    }

    fn append(&mut self, chunk: &[u8]) {
        if self.wanted.sha256.is_some() {
            self.hash.update(chunk);
        }
        self.received += chunk.len() as u64;
        if let Some(memory) = &mut self.memory {
            memory.extend_from_slice(chunk);
        }
    }

    fn restart(&mut self) {
        self.received = 0;
        self.hash = Sha256::new();
        if let Some(memory) = &mut self.memory {
            memory.clear();
        }
    }

    /// Refuses a file that is too large for memory.
    fn may_be_held(&self, why: &FileStoreError) -> Result<(), DownloadError> {
        let bytes = self.wanted.bytes;
        if bytes > MOST_IN_MEMORY { Err(DownloadError::NoRoom { bytes, why: why.clone() }) } else { Ok(()) }
    }

    /// From now on in memory, where `part` is what has arrived before.
    fn hold_in_memory(&mut self, mut part: Vec<u8>, why: FileStoreError) -> Result<(), DownloadError> {
        self.may_be_held(&why)?;
        // The size comes from outside: a server that promises too much must not bring the tab down.
        usize::try_from(self.wanted.bytes)
            .ok()
            .and_then(|size| part.try_reserve_exact(size.saturating_sub(part.len())).ok())
            .ok_or(DownloadError::Memory(self.wanted.bytes))?;
        self.not_kept = Some(why);
        self.memory = Some(part);
        Ok(())
    }

    /// The store does not take any more: what it has comes back, and is removed there. A part that cannot grow is of no use
    /// and takes room. Of a file that is too large for memory the part stays: with more room, a next try goes on.
    async fn leave_store<H: FileStore>(&mut self, store: &mut H, why: FileStoreError) -> Result<(), Failure> {
        store.end();
        self.may_be_held(&why)?;
        let length = usize::try_from(self.received).map_err(|_| DownloadError::Memory(self.wanted.bytes))?;
        let part = if length == 0 { Ok(Vec::new()) } else { store.read(&self.wanted.name, 0, length).await };
        let removable = !matches!(why, FileStoreError::Unavailable(_));
        if removable {
            let _ = store.delete(&self.wanted.name).await;
        }
        match part {
            Ok(part) if part.len() == length => Ok(self.hold_in_memory(part, why)?),
            _ => {
                self.restart();
                self.hold_in_memory(Vec::new(), why)?;
                Err(Failure::Cut("what was stored is gone".to_owned()))
            }
        }
    }

    fn agrees(&self) -> bool {
        self.wanted.sha256.as_ref().is_none_or(|sha256| hex(&self.hash.clone().finalize()) == *sha256)
    }
}
