//! One file on its way from the hub into the cache.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, ETAG, HeaderMap, LOCATION};
use reqwest::{Response, StatusCode, Url};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Notify, OwnedSemaphorePermit, watch};

use super::evict::Lease;
use super::name::FileName;
use super::{Hub, HubError, Opened, tag_path, with_ending};

/// Most redirects that are followed.
const MAX_REDIRECTS: usize = 5;
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
    let config = &hub.0.config;
    let late = |_| HubError::Upstream("it does not answer in time".into());
    let (response, linked) = tokio::time::timeout(config.silence, ask(hub, name)).await.map_err(late)??;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            return Err(HubError::NotFound(name.to_string()));
        }
        status => return Err(HubError::Upstream(format!("it answered {status}"))),
    }
    let length = header(response.headers(), CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok());
    let bytes: u64 = length.ok_or_else(|| HubError::Upstream("it does not say how large the file is".into()))?;
    let limit = config.max_file_bytes;
    if bytes > limit {
        return Err(HubError::TooLarge { name: name.to_string(), bytes, limit });
    }
    hub.check_room(bytes)?;
    let tag = linked.or_else(|| header(response.headers(), ETAG.as_str())).unwrap_or_default();
    let tag: String = tag.trim_start_matches("W/").trim_matches('"').chars().filter(is_tag).take(128).collect();
    let is_sha256 = tag.len() == 64 && tag.bytes().all(|byte| byte.is_ascii_hexdigit());
    let path = hub.path(name);
    if let Some(folder) = path.parent() {
        tokio::fs::create_dir_all(folder).await?;
    }
    let part = with_ending(&path, ".part");
    let file = tokio::fs::File::create(&part).await?;
    Ok(Flight {
        part,
        bytes,
        sha256: is_sha256.then(|| tag.to_lowercase()),
        tag,
        progress: watch::Sender::new(Progress::Written(0)),
        readers: AtomicUsize::new(0),
        roomy: AtomicU64::new(0),
        begun: Instant::now(),
        given_up: Notify::new(),
        response: Mutex::new(Some((response, file))),
    })
}

/// The hub's answer, and the checksum that a redirect named.
async fn ask(hub: &Hub, name: &FileName) -> Result<(Response, Option<String>), HubError> {
    let config = &hub.0.config;
    let mut url = hub.0.base.join(&name.address()).map_err(|error| HubError::Config(error.to_string()))?;
    let mut linked = None;
    let mut redirects = 0;
    let response = loop {
        let mut request = hub.0.client.get(url.clone());
        if let Some(token) = config.token.as_ref().filter(|_| url.origin() == hub.0.base.origin()) {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let response = request.send().await.map_err(|error| HubError::Upstream(words(&error)))?;
        // Hubs that keep large files elsewhere name their checksum in the redirect only.
        linked = linked.or_else(|| header(response.headers(), "x-linked-etag"));
        if !response.status().is_redirection() {
            break response;
        }
        redirects += 1;
        let location = header(response.headers(), LOCATION.as_str());
        let next = location.and_then(|location| url.join(&location).ok());
        url = next.filter(|_| redirects <= MAX_REDIRECTS).ok_or_else(|| HubError::Upstream("it redirects".into()))?;
        if !allowed(hub, &url) {
            return Err(HubError::Redirect(url.host_str().unwrap_or_default().to_owned()));
        }
    };
    Ok((response, linked))
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
        file.write_all(&chunk).await.map_err(|error| error.to_string())?;
        // What readers are told of has to be in the file.
        file.flush().await.map_err(|error| error.to_string())?;
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

async fn keep(hub: &Hub, name: &FileName, flight: &Flight) -> Result<(), String> {
    let path = hub.path(name);
    let words = |error: std::io::Error| error.to_string();
    tokio::fs::write(tag_path(&path), &flight.tag).await.map_err(words)?;
    tokio::fs::rename(&flight.part, &path).await.map_err(words)
}

/// Whether the hub may send us there: not from an encrypted to an open connection, and to named hosts only.
fn allowed(hub: &Hub, url: &Url) -> bool {
    let base = &hub.0.base;
    let Some(host) = url.host_str() else { return false };
    let named = hub.0.config.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host));
    (url.scheme() == "https" || url.scheme() == base.scheme()) && (url.origin() == base.origin() || named)
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(|value| value.trim().to_owned())
}

fn is_tag(letter: &char) -> bool {
    letter.is_ascii_graphic() && *letter != '"'
}

/// What went wrong, without the address: it may hold a signature.
fn words(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        "it does not answer in time".to_owned()
    } else if error.is_connect() {
        "it cannot be reached".to_owned()
    } else {
        "the connection broke off".to_owned()
    }
}
