//! One file on its way from the hub into the cache.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Response;
use reqwest::header::CONTENT_LENGTH;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Notify, OwnedSemaphorePermit, watch};

use super::evict::Lease;
use super::name::FileName;
use super::site::{Rest, header, words};
use super::{Hub, HubError, Opened, tag_path, with_ending};

/// Bytes that room is made for ahead of those that have come, at least and at most.
const LEAST_STEP: u64 = 64 << 10;
const MOST_STEP: u64 = 8 << 20;
/// What a download that nobody waits for brings at least, in the time of the hub's longest silence.
const LEAST_BYTES: u64 = 256 << 10;

/// How far a download is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many bytes are in the file.
    Written(u64),
    /// All of them, and the checksum agrees where the hub gave one.
    Whole,
    /// It ended before; why.
    Failed(String),
}

/// A download under way. Several clients read what it has written.
#[derive(Debug)]
pub struct Flight {
    part: PathBuf,
    bytes: u64,
    tag: String,
    sha256: Option<String>,
    progress: watch::Sender<Progress>,
    /// Clients that read it.
    readers: AtomicUsize,
    /// Bytes that there is room for.
    roomy: AtomicU64,
    begun: Instant,
    given_up: Notify,
    /// Taken by the task that reads it.
    response: Mutex<Option<(Response, tokio::fs::File)>>,
}

impl Flight {
    /// The file as a client reads it.
    pub(super) fn opened(self: &Arc<Self>, lease: Lease) -> Opened {
        let (path, tag) = (self.part.clone(), self.tag.clone());
        Opened { path, bytes: self.bytes, tag, flight: Some(Reader::new(Arc::clone(self))), lease }
    }

    /// Where it is written.
    pub(super) fn part(&self) -> &Path {
        &self.part
    }

    /// Bytes that there is room for and that are still to come.
    pub(super) fn expected(&self) -> u64 {
        match *self.progress.borrow() {
            Progress::Written(bytes) => self.roomy.load(Ordering::Relaxed).saturating_sub(bytes),
            Progress::Whole | Progress::Failed(_) => 0,
        }
    }

    /// Clients that read it.
    pub(super) fn readers(&self) -> usize {
        self.readers.load(Ordering::Relaxed)
    }

    /// How long it has been under way.
    pub(super) fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Bytes a second so far.
    pub(super) fn rate(&self) -> u64 {
        self.written() / self.begun.elapsed().as_secs().max(1)
    }

    fn written(&self) -> u64 {
        match *self.progress.borrow() {
            Progress::Written(bytes) => bytes,
            Progress::Whole | Progress::Failed(_) => self.bytes,
        }
    }

    /// Ends it; its place is needed.
    pub(super) fn give_up(&self) {
        self.given_up.notify_one();
    }

    /// Length of the file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How far it is, now and later.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }
}

/// A client of a download, for as long as it reads.
#[derive(Debug)]
pub struct Reader(Arc<Flight>);

impl Reader {
    fn new(flight: Arc<Flight>) -> Self {
        flight.readers.fetch_add(1, Ordering::Relaxed);
        Self(flight)
    }
}

impl Clone for Reader {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.0))
    }
}

impl Deref for Reader {
    type Target = Flight;

    fn deref(&self) -> &Flight {
        &self.0
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Asks the hub for a file and looks for room for it. Nothing of its body is read.
pub(super) async fn start(hub: &Hub, name: &FileName) -> Result<Flight, HubError> {
    let answer = hub.0.site.ask(&name.address(), Rest::default()).await?.granted(&name.to_string())?;
    let length = header(answer.response.headers(), CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok());
    let bytes: u64 = length.ok_or_else(|| HubError::Upstream("it does not say how large the file is".into()))?;
    let limit = hub.0.config.max_file_bytes;
    if bytes > limit {
        return Err(HubError::TooLarge { name: name.to_string(), bytes, limit });
    }
    hub.check_room(bytes)?;
    let (sha256, tag, response) = (answer.sha256(), answer.tag, answer.response);
    let path = hub.path(name);
    if let Some(folder) = path.parent() {
        tokio::fs::create_dir_all(folder).await?;
    }
    let part = with_ending(&path, ".part");
    let file = tokio::fs::File::create(&part).await?;
    Ok(Flight {
        part,
        bytes,
        sha256,
        tag,
        progress: watch::Sender::new(Progress::Written(0)),
        readers: AtomicUsize::new(0),
        roomy: AtomicU64::new(0),
        begun: Instant::now(),
        given_up: Notify::new(),
        response: Mutex::new(Some((response, file))),
    })
}

/// Reads a started download to its end, in the place that it was given.
pub(super) async fn run(hub: Hub, name: FileName, flight: Arc<Flight>, place: OwnedSemaphorePermit) {
    let taken = flight.response.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some((response, file)) = taken else { return };
    let result = tokio::select! {
        result = receive(&hub, &flight, response, file) => result,
        () = flight.given_up.notified() => Err("its place was needed for another file".to_owned()),
        () = crawls(&hub, &flight) => Err("it brings next to nothing, and nobody waits for it".to_owned()),
    };
    let result = match result {
        Ok(()) => keep(&hub, &name, &flight).await,
        Err(problem) => Err(problem),
    };
    if let Err(problem) = &result {
        tracing::warn!(%name, problem, "a file of the hub did not arrive");
        // The next one who asks starts anew; what is left behind would only take room.
        let _ = tokio::fs::remove_file(&flight.part).await;
    }
    hub.flights().remove(&name.to_string());
    drop(place);
    flight.progress.send_replace(result.map_or_else(Progress::Failed, |()| Progress::Whole));
}

/// Returns when nobody waits for the file and next to nothing comes.
async fn crawls(hub: &Hub, flight: &Flight) {
    let mut before = 0;
    loop {
        tokio::time::sleep(hub.0.config.silence).await;
        let written = flight.written();
        if flight.readers() == 0 && written.saturating_sub(before) < LEAST_BYTES && written < flight.bytes {
            return;
        }
        before = written;
    }
}

async fn receive(hub: &Hub, flight: &Flight, mut response: Response, mut file: tokio::fs::File) -> Result<(), String> {
    let mut hash = Sha256::new();
    let mut written = 0u64;
    while let Some(chunk) = response.chunk().await.map_err(|error| words(&error))? {
        let after = written + chunk.len() as u64;
        if after > flight.bytes {
            return Err("the hub sent more than it promised".to_owned());
        }
        let roomy = flight.roomy.load(Ordering::Relaxed);
        if after > roomy {
            // Ahead by a share of what has come: of a file that stays a promise, next to nothing.
            let ahead = (after / 8).clamp(LEAST_STEP, MOST_STEP);
            let more = after.saturating_add(ahead).min(flight.bytes);
            hub.make_room(more - roomy).map_err(|error| error.to_string())?;
            flight.roomy.store(more, Ordering::Relaxed);
        }
        written = after;
        if flight.sha256.is_some() {
            hash.update(&chunk);
        }
        file.write_all(&chunk).await.map_err(|error| of_disk(&error, flight.bytes - written))?;
        // What readers are told of has to be in the file.
        file.flush().await.map_err(|error| of_disk(&error, flight.bytes - written))?;
        flight.progress.send_replace(Progress::Written(written));
    }
    if written < flight.bytes {
        return Err("the hub sent less than it promised".to_owned());
    }
    let digest: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    match &flight.sha256 {
        Some(sha256) if *sha256 != digest => Err("the file's checksum is not the one that the hub names".to_owned()),
        // It gets its name only when a power cut would leave it whole.
        _ => file.sync_all().await.map_err(|error| error.to_string()),
    }
}

/// Why the disk does not take what has come, with so many bytes still to come.
fn of_disk(error: &std::io::Error, left: u64) -> String {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => format!(
            "this server's disk is full, with {left} bytes still to come; what had arrived was removed, and whoever asks once \
             there is room gets it anew"
        ),
        _ => error.to_string(),
    }
}

async fn keep(hub: &Hub, name: &FileName, flight: &Flight) -> Result<(), String> {
    let path = hub.path(name);
    let words = |error: std::io::Error| error.to_string();
    tokio::fs::write(tag_path(&path), &flight.tag).await.map_err(words)?;
    tokio::fs::rename(&flight.part, &path).await.map_err(words)
}
