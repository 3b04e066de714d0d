//! A model hub's files, passed on to pages or fetched by command, and kept: pages may not read most hubs themselves, and a
//! classroom should fetch a file once.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`evict`] | making room for new ones |
//! | [`download`] | one file fetched by command: a cut download goes on where it was |
//! | [`fetch`] | one file on its way to pages: asked for, checked, written |
//! | [`name`] | which files may be asked for |
//! | [`site`] | how a hub, or another address, is asked |
//!
//! A file is `ORGANISATION/REPOSITORY/PATH` and is asked for as `ORGANISATION/REPOSITORY/resolve/main/PATH` under the hub's
//! base address. It is handed on while it arrives; several clients share one download, which goes on when they leave. What
//! is whole lies in the cache folder under its name, with its entity tag beside it. Redirects are followed to the allowed
//! hosts only.
//!
//! A hub is somebody else's program. One file that hangs holds up nobody who wants another; a download that nobody waits
//! for and that brings next to nothing gives its place to others; room is made as bytes arrive, not for what was promised.
//!
//! Deliberately absent: a hub that is asked by default (the operator names one), branches other than `main`, lists of
//! files, and looking for newer versions of what is in the cache: delete the file to fetch it again.

pub mod download;
pub mod evict;
pub mod fetch;
pub mod name;
pub mod site;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use evict::{Lease, Leases};
use fetch::{Flight, Reader};
use name::FileName;
use site::Site;

/// Files that are fetched at the same time.
const MAX_FLIGHTS: usize = 8;
/// A download that has brought less than this for so long gives its place to others, also where somebody waits for it.
const LEAST_RATE: u64 = 16 << 10;
const TRICKLE_TIME: Duration = Duration::from_secs(30);
/// Longest wait for the place of a download that is given up.
const PLACE_TIME: Duration = Duration::from_secs(2);

/// Which hub, and what of it.
#[derive(Clone, Debug)]
pub struct HubConfig {
    /// Base address.
    pub base: String,
    /// Hosts beside the base's own that the hub may redirect to; `*` for all.
    pub hosts: Vec<String>,
    /// Bearer token for the base's own host.
    pub token: Option<String>,
    /// Cache folder.
    pub dir: PathBuf,
    /// Largest file, bytes.
    pub max_file_bytes: u64,
    /// Largest cache, bytes; what was asked for longest ago makes room.
    pub max_cache_bytes: u64,
    /// Longest silence of the hub, and the time in which a download that nobody waits for has to bring something.
    pub silence: Duration,
}

/// Why a file is not handed on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HubError {
    /// The configuration makes no sense.
    #[error("{0}")]
    Config(String),
    /// There is no such file.
    #[error("the hub has no file {0}")]
    NotFound(String),
    /// The file is not for everybody.
    #[error(
        "{name} is not given to everybody (the hub answered {status}): accept its licence on the model's page there, and \
         give a token of yours, in HF_TOKEN or TANDEM_HUB_KEY"
    )]
    Refused {
        /// The file.
        name: String,
        /// 401 or 403.
        status: u16,
    },
    /// The hub has too much to do.
    #[error("the hub takes no more requests at present; try again in {retry_after_s} s")]
    Later {
        /// When to come back.
        retry_after_s: u64,
    },
    /// Too large for this server.
    #[error("{name} has {bytes} bytes, more than the {limit} that this server passes on")]
    TooLarge {
        /// The file.
        name: String,
        /// Its size.
        bytes: u64,
        /// What is allowed.
        limit: u64,
    },
    /// The cache is full of files that are being read or written, or smaller than the file.
    #[error("the cache of hub files has no room ({used} of {limit} bytes are in use); try again later")]
    Full {
        /// What is there.
        used: u64,
        /// What is allowed.
        limit: u64,
    },
    /// Too many downloads.
    #[error("{MAX_FLIGHTS} files are being fetched already; try again in a moment")]
    Busy,
    /// The hub wants to send us elsewhere.
    #[error("the hub redirects to {0}, which this server's owner has not allowed")]
    Redirect(String),
    /// The hub does not do its part.
    #[error("the hub cannot be used ({0})")]
    Upstream(String),
    /// The disk does not.
    #[error("the cache folder cannot be used ({0})")]
    Disk(String),
    /// A file that is to be copied cannot be read.
    #[error("{path}: {why}")]
    Source {
        /// Which file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The disk is full.
    #[error(
        "the disk is full, with {left} bytes of {name} still to come; what has arrived is kept, and the same command goes on \
         from there once there is room"
    )]
    DiskFull {
        /// The file.
        name: String,
        /// What is missing.
        left: u64,
    },
    /// It broke off again and again.
    #[error(
        "{name} broke off after {received} of {total} bytes ({why}); what has arrived is kept, and the same command goes on \
         from there"
    )]
    Cut {
        /// The file.
        name: String,
        /// What is here.
        received: u64,
        /// Its size.
        total: u64,
        /// What happened last.
        why: String,
    },
    /// The file is not the one that was wanted.
    #[error("{name} is not the file that was expected: {what}; {then}")]
    Differs {
        /// The file.
        name: String,
        /// In what.
        what: String,
        /// What has become of it and what to do.
        then: &'static str,
    },
    /// Somebody else fetches it.
    #[error("{0} is being fetched already, by another process")]
    Taken(String),
    /// A person stopped it.
    #[error("stopped; what has arrived is kept, and the same command goes on from there")]
    Stopped,
}

impl From<std::io::Error> for HubError {
    fn from(error: std::io::Error) -> Self {
        Self::Disk(error.to_string())
    }
}

/// A file that can be read: whole, or while it arrives.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Where its bytes are, or will be.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Its version, without quotes.
    pub tag: String,
    /// The download that writes it; `None` when it is whole.
    pub flight: Option<Reader>,
    /// To be held while it is read.
    pub lease: Lease,
}

/// The hub.
#[derive(Clone, Debug)]
pub struct Hub(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: HubConfig,
    site: Site,
    flights: Mutex<HashMap<String, Arc<Flight>>>,
    places: Arc<Semaphore>,
    /// By name: two clients that ask for the same file at once start one download.
    starting: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    leases: Leases,
}

impl Hub {
    /// Prepares the cache folder; nothing is asked yet.
    ///
    /// # Errors
    /// The base is no HTTP address, or the folder cannot be made.
    pub fn new(config: HubConfig) -> Result<Self, HubError> {
        let site = Site::new(&config.base, config.hosts.clone(), config.token.clone(), config.silence)?;
        std::fs::create_dir_all(&config.dir)?;
        // What a server that was killed left half done would take room for ever.
        remove_parts(&config.dir, &|_| true);
        let (flights, starting, leases) = (Mutex::default(), Mutex::default(), Leases::default());
        let places = Arc::new(Semaphore::new(MAX_FLIGHTS));
        Ok(Self(Arc::new(Inner { config, site, flights, places, starting, leases })))
    }

    /// The file of this name, from the cache or from the hub.
    ///
    /// # Errors
    /// [`HubError`].
    pub async fn open(&self, name: &FileName) -> Result<Opened, HubError> {
        if let Some(opened) = self.known(name).await? {
            return Ok(opened);
        }
        let gate = self.gate(name);
        let _one = gate.lock().await;
        if let Some(opened) = self.known(name).await? {
            return Ok(opened);
        }
        let place = self.place().await?;
        let flight = Arc::new(fetch::start(self, name).await?);
        self.flights().insert(name.to_string(), Arc::clone(&flight));
        let opened = flight.opened(self.0.leases.take(&self.path(name)));
        tokio::spawn(fetch::run(self.clone(), name.clone(), flight, place));
        Ok(opened)
    }

    /// What those who start the same download wait at.
    fn gate(&self, name: &FileName) -> Arc<tokio::sync::Mutex<()>> {
        let mut starting = self.0.starting.lock().unwrap_or_else(PoisonError::into_inner);
        starting.retain(|_, gate| gate.strong_count() > 0);
        let gate = starting.get(&name.to_string()).and_then(Weak::upgrade).unwrap_or_default();
        starting.insert(name.to_string(), Arc::downgrade(&gate));
        gate
    }

    /// A place for a download. Where there is none, the slowest of those that nobody waits for is given up, else the slowest that
    /// brings next to nothing.
    async fn place(&self) -> Result<OwnedSemaphorePermit, HubError> {
        let places = &self.0.places;
        if let Ok(place) = Arc::clone(places).try_acquire_owned() {
            return Ok(place);
        }
        let slowest = {
            let flights = self.flights();
            let slowest = |which: &dyn Fn(&Flight) -> bool| {
                flights.values().filter(|flight| which(flight)).min_by_key(|flight| flight.rate()).cloned()
            };
            slowest(&|flight| flight.readers() == 0)
                .or_else(|| slowest(&|flight| flight.age() >= TRICKLE_TIME && flight.rate() < LEAST_RATE))
        };
        slowest.ok_or(HubError::Busy)?.give_up();
        match tokio::time::timeout(PLACE_TIME, Arc::clone(places).acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(HubError::Busy),
        }
    }

    async fn known(&self, name: &FileName) -> Result<Option<Opened>, HubError> {
        let path = self.path(name);
        // Before anything is looked at, so that it cannot go in between.
        let lease = self.0.leases.take(&path);
        if let Some(flight) = self.flights().get(&name.to_string()) {
            return Ok(Some(flight.opened(lease)));
        }
        match tokio::fs::metadata(&path).await {
            Ok(meta) if meta.is_file() => {
                let tag = tokio::fs::read_to_string(tag_path(&path)).await.unwrap_or_default();
                Ok(Some(Opened { bytes: meta.len(), tag: tag.trim().to_owned(), path, flight: None, lease }))
            }
            Ok(_) => Err(HubError::NotFound(name.to_string())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn flights(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Flight>>> {
        self.0.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: &FileName) -> PathBuf {
        self.0.config.dir.join(name.to_string())
    }

    /// Bytes of everything in the cache, and of what room was made for and has not arrived.
    fn used(&self) -> u64 {
        let expected: u64 = self.flights().values().map(|flight| flight.expected()).sum();
        size_of(&self.0.config.dir).saturating_add(expected)
    }

    /// Whether there could be room for a file of `bytes`. Nothing is removed: so far it is only promised.
    ///
    /// # Errors
    /// [`HubError::Full`].
    fn check_room(&self, bytes: u64) -> Result<(), HubError> {
        // What is left of downloads that ended before this server began, or that could not be removed.
        let coming: Vec<PathBuf> = self.flights().values().map(|flight| flight.part().to_owned()).collect();
        remove_parts(&self.0.config.dir, &|part| !coming.iter().any(|one| one == part) && is_old(part));
        let (used, limit) = (self.used(), self.0.config.max_cache_bytes);
        let over = used.saturating_add(bytes).saturating_sub(limit);
        match bytes <= limit && (over == 0 || self.0.leases.idle_bytes(&self.0.config.dir) >= over) {
            true => Ok(()),
            false => Err(HubError::Full { used, limit }),
        }
    }

    /// Makes room for `bytes` more.
    ///
    /// # Errors
    /// [`HubError::Full`]; nothing was removed then.
    fn make_room(&self, bytes: u64) -> Result<(), HubError> {
        let (used, limit) = (self.used(), self.0.config.max_cache_bytes);
        let over = used.saturating_add(bytes).saturating_sub(limit);
        match over == 0 || self.0.leases.free(&self.0.config.dir, over) {
            true => Ok(()),
            false => Err(HubError::Full { used, limit }),
        }
    }
}

fn is_old(part: &Path) -> bool {
    let changed = std::fs::metadata(part).and_then(|meta| meta.modified());
    changed.is_ok_and(|changed| changed.elapsed().is_ok_and(|age| age > Duration::from_secs(60)))
}

/// Removes halves of files.
fn remove_parts(folder: &Path, goes: &dyn Fn(&Path) -> bool) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => remove_parts(&path, goes),
            Ok(kind) if kind.is_file() && path.extension().is_some_and(|ending| ending == "part") && goes(&path) => {
                if let Err(error) = std::fs::remove_file(&path) {
                    tracing::warn!(path = %path.display(), %error, "half a file in the hub's cache");
                }
            }
            _ => {}
        }
    }
}

/// Where a file's entity tag is kept.
pub(crate) fn tag_path(path: &Path) -> PathBuf {
    with_ending(path, ".etag")
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn size_of(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => size_of(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}
