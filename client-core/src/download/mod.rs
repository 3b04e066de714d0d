//! Getting a model file onto this device: resumable, verified, kept when there is room.
//!
//! A file is known by its SHA-256, also on the shelf: another version of a model can never be mixed into it. What has
//! arrived of a cut or cancelled download stays on the shelf, and the next try asks the server for the rest with a range
//! request. A server that sends the whole file all the same is simply started over with. Nothing is handed out before its
//! hash agrees.
//!
//! A shelf that is full or not there is no failure: the file is then held in memory, and the caller says so.
//!
//! Deliberately absent: fetch and file systems ([`Source`] and [`Shelf`] are passed in, so that all of this is tested
//! natively), and unpacking: a GGUF file does not compress.

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::LocalBoxStream;
use sha2::{Digest, Sha256};

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
/// Bytes that are hashed between two looks at the event loop.
const HASH_SLICE: usize = 4 << 20;

/// A file that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where it is.
    pub url: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256 in lower-case hex; also its name on the shelf.
    pub sha256: String,
}

impl Wanted {
    /// The file of a manifest's entry; `base_url` is where the manifest lies and ends in a slash.
    ///
    /// # Errors
    /// An entry that names no file below `base_url`, or has no sound hash.
    pub fn from_entry(base_url: &str, entry: &ModelEntry) -> Result<Self, DownloadError> {
        let sound_hash =
            entry.sha256.len() == 64 && entry.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let sound_name = !entry.file.is_empty()
            && entry.file.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b))
            && !entry.file.starts_with('/')
            && !entry.file.split('/').any(|part| part == "..");
        if !(sound_hash && sound_name) {
            return Err(DownloadError::BadEntry(entry.id.clone()));
        }
        Ok(Self { url: format!("{base_url}{}", entry.file), bytes: entry.bytes, sha256: entry.sha256.clone() })
    }
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
pub trait Shelf {
    /// What is there of a file, complete or not; `None` for nothing.
    async fn read(&mut self, name: &str) -> Result<Option<Vec<u8>>, ShelfError>;
    /// Opens a file for writing behind its first `keep` bytes; what was behind them is gone.
    async fn begin(&mut self, name: &str, keep: u64) -> Result<(), ShelfError>;
    /// Writes at the end of the open file.
    fn append(&mut self, bytes: &[u8]) -> Result<(), ShelfError>;
    /// Closes the open file, if any.
    fn end(&mut self);
    /// Removes a file; one that is not there is removed already.
    async fn delete(&mut self, name: &str) -> Result<(), ShelfError>;
}

/// Why a shelf did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShelfError {
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
    /// The bytes are not those that the manifest promises.
    #[error(
        "the model file is not the one that the server's manifest describes; reload the page, or tell the server's owner"
    )]
    Mismatch,
    /// Not enough memory for the file.
    #[error("this tab has no memory left for a model of {0} bytes; close other tabs, or let the server answer")]
    Memory(u64),
    /// The manifest's entry makes no sense.
    #[error("the server's entry for the model `{0}` is damaged; tell the server's owner")]
    BadEntry(String),
}

/// A file whose hash agrees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obtained {
    /// All of it.
    pub bytes: Vec<u8>,
    /// Why it is not on the shelf; `None` when it is.
    pub not_kept: Option<ShelfError>,
}

/// Gets a file from the shelf, or what is missing of it from the source. `progress` is told how many bytes are here.
///
/// # Errors
/// [`DownloadError`]; after [`DownloadError::Cancelled`] and [`DownloadError::Cut`] the shelf keeps what has arrived.
pub async fn obtain<S: Source, H: Shelf, C: Clock>(
    wanted: &Wanted,
    source: &S,
    shelf: &mut H,
    clock: &C,
    stop: &StopFlag,
    progress: &mut dyn FnMut(u64),
) -> Result<Obtained, DownloadError> {
    let mut file = Arriving::new(wanted)?;
    match shelf.read(&wanted.sha256).await {
        Ok(Some(bytes)) if bytes.len() as u64 <= wanted.bytes => file.take(bytes, clock).await,
        Ok(_) => {}
        Err(error) => file.not_kept = Some(error),
    }
    let mut first_from = file.bytes.len();
    progress(file.bytes.len() as u64);
    loop {
        let result = fetch(wanted, source, shelf, clock, stop, &mut file, progress).await;
        shelf.end();
        result?;
        if file.agrees() {
            return Ok(Obtained { bytes: file.bytes, not_kept: file.not_kept });
        }
        // The damage may lie in what was on the shelf before: once more from the start, and no further.
        let _ = shelf.delete(&wanted.sha256).await;
        if first_from == 0 {
            return Err(DownloadError::Mismatch);
        }
        first_from = 0;
        file.restart();
    }
}

/// Fetches until the file has its full length.
async fn fetch<S: Source, H: Shelf, C: Clock>(
    wanted: &Wanted,
    source: &S,
    shelf: &mut H,
    clock: &C,
    stop: &StopFlag,
    file: &mut Arriving,
    progress: &mut dyn FnMut(u64),
) -> Result<(), DownloadError> {
    let mut barren = 0;
    while (file.bytes.len() as u64) < wanted.bytes {
        let before = file.bytes.len();
        let one_try = unless_stopped(stop, one_try(wanted, source, shelf, clock, file, progress)).await;
        let problem = match one_try.ok_or(DownloadError::Cancelled)? {
            Ok(()) => continue,
            Err(Trouble::Final(error)) => return Err(error),
            Err(Trouble::Cut(problem)) => problem,
        };
        shelf.end();
        barren = if file.bytes.len() > before { 0 } else { barren + 1 };
        if barren >= MAX_BARREN_TRIES {
            return Err(DownloadError::Cut(problem));
        }
        let pause_s = FIRST_PAUSE_S * f64::from(1 << barren.min(5));
        unless_stopped(stop, clock.sleep(pause_s)).await.ok_or(DownloadError::Cancelled)?;
    }
    Ok(())
}

enum Trouble {
    Cut(String),
    Final(DownloadError),
}

impl From<SourceError> for Trouble {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Cut(problem) => Self::Cut(problem),
            // A server that is restarting or busy says so with these.
            SourceError::Status(status @ (408 | 429 | 500..)) => Self::Cut(SourceError::Status(status).to_string()),
            SourceError::Status(_) => Self::Final(DownloadError::Refused(error)),
        }
    }
}

async fn one_try<S: Source, H: Shelf, C: Clock>(
    wanted: &Wanted,
    source: &S,
    shelf: &mut H,
    clock: &C,
    file: &mut Arriving,
    progress: &mut dyn FnMut(u64),
) -> Result<(), Trouble> {
    let silent = || Trouble::Cut(format!("nothing came for {SILENCE_LIMIT_S} seconds"));
    let from = file.bytes.len() as u64;
    let opened = within(clock, SILENCE_LIMIT_S, source.open(&wanted.url, from)).await.ok_or_else(silent)??;
    if opened.begins_at != from {
        file.restart();
        if opened.begins_at != 0 {
            return Err(Trouble::Cut("the server sent another part than it was asked for".to_owned()));
        }
    }
    if file.not_kept.is_none() {
        file.not_kept = shelf.begin(&wanted.sha256, file.bytes.len() as u64).await.err();
    }
    let mut body = opened.body;
    while let Some(chunk) = within(clock, SILENCE_LIMIT_S, body.next()).await.ok_or_else(silent)? {
        let chunk = chunk?;
        if (file.bytes.len() + chunk.len()) as u64 > wanted.bytes {
            shelf.end();
            let _ = shelf.delete(&wanted.sha256).await;
            return Err(Trouble::Final(DownloadError::Mismatch));
        }
        file.append(&chunk);
        if file.not_kept.is_none()
            && let Err(error) = shelf.append(&chunk)
        {
            // A part that cannot grow is of no use and takes room.
            file.not_kept = Some(error);
            shelf.end();
            let _ = shelf.delete(&wanted.sha256).await;
        }
        progress(file.bytes.len() as u64);
    }
    if (file.bytes.len() as u64) < wanted.bytes {
        return Err(Trouble::Cut("the connection ended early".to_owned()));
    }
    Ok(())
}

/// A file on its way, hashed as it arrives.
struct Arriving {
    bytes: Vec<u8>,
    hash: Sha256,
    sha256: String,
    not_kept: Option<ShelfError>,
}

impl Arriving {
    fn new(wanted: &Wanted) -> Result<Self, DownloadError> {
        let mut bytes = Vec::new();
        // The size comes from outside: a manifest that promises too much must not bring the tab down.
        usize::try_from(wanted.bytes)
            .ok()
            .and_then(|size| bytes.try_reserve_exact(size).ok())
            .ok_or(DownloadError::Memory(wanted.bytes))?;
        Ok(Self { bytes, hash: Sha256::new(), sha256: wanted.sha256.clone(), not_kept: None })
    }

    async fn take<C: Clock>(&mut self, stored: Vec<u8>, clock: &C) {
        for slice in stored.chunks(HASH_SLICE) {
            self.append(slice);
            clock.sleep(0.0).await;
        }
    }

    fn append(&mut self, chunk: &[u8]) {
        self.hash.update(chunk);
        self.bytes.extend_from_slice(chunk);
    }

    fn restart(&mut self) {
        self.bytes.clear();
        self.hash = Sha256::new();
    }

    fn agrees(&self) -> bool {
        let digest = self.hash.clone().finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>() == self.sha256
    }
}
