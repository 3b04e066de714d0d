//! Models: finding, download, load, delete.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use web_sys::Blob;

use super::EngineWorker;
use super::engine::{Loaded, load};
use crate::checkpoint::CheckpointFiles;
use crate::fetch::{self, Ask};
use crate::file::ModelFile;
use crate::message::property;
use crate::opfs::OpfsStore;
use crate::reading::ModelFiles;
use client::download::{
    DownloadError, FileStore, FileStoreError, StoredFile, Wanted, file_prefix, is_sha256, obtain, url_prefix,
};
use client::offers::Offers;
use client::offload::ports::Clock;
use client::offload::run::within;
use client::offload::signal::StopFlag;
use client::protocol::engine::{ModelSource, StoreAs};
use client::protocol::manifest::ModelEntry;
use client::protocol::worker::{Event, ModelState, Tier};

/// Progress is reported at most this often.
const REPORT_INTERVAL_S: f64 = 0.1;
/// Where it is remembered which server offered which models.
const OFFERS_FOLDER: &str = "offers";
const OFFERS_FILE: &str = "offers.json";
/// More than it ever has.
const MAX_OFFERS_BYTES: usize = 1 << 20;
/// How long a server may take to say what it has.
const LOOK_LIMIT_S: f64 = 20.0;

/// What is loaded, and what is on its way.
#[derive(Default)]
pub(super) struct Models {
    /// The engine; `None` also while an ask has it.
    engine: RefCell<Option<Loaded>>,
    /// The model that is in memory, wherever the engine is at the moment.
    held: RefCell<Option<Held>>,
    /// Raised by every load and delete: an engine that an ask brings back from before is dropped.
    epoch: Cell<u64>,
    loading: RefCell<Option<Loading>>,
    /// Name and vocabulary of the model in memory.
    words: RefCell<Option<(String, String)>>,
    /// Files that a person chose, by [`ModelSource::id`]. The browser keeps their content on the disk.
    chosen: RefCell<BTreeMap<String, Vec<Blob>>>,
}

/// A model on its way.
struct Loading {
    id: String,
    stop: StopFlag,
    /// Whether the page does so by itself.
    unasked: bool,
}

/// The model in memory.
#[derive(Clone)]
struct Held {
    id: String,
    /// What the page is told of it once it is not in memory any more.
    afterwards: ModelState,
}

impl Models {
    /// Takes the engine for an ask; it comes back by [`Models::put_back`].
    pub(super) fn take(&self) -> (Option<Loaded>, u64) {
        (self.engine.borrow_mut().take(), self.epoch.get())
    }

    /// Brings an engine back, unless it was replaced or deleted meanwhile.
    pub(super) fn put_back(&self, engine: Option<Loaded>, epoch: u64) {
        if epoch == self.epoch.get() {
            *self.engine.borrow_mut() = engine;
        }
    }

    /// Looks at the engine; `None` also while an ask has it.
    pub(super) fn look<T>(&self, read: impl FnOnce(&Loaded) -> T) -> Option<T> {
        self.engine.borrow().as_ref().map(read)
    }

    /// What the page is told of a model that is in memory; `None` also while an ask has it.
    fn in_memory(&self, id: &str) -> Option<ModelState> {
        let held = self.held.borrow().as_ref().is_some_and(|held| held.id == id);
        let memory_bytes = self.look(Loaded::memory_bytes).filter(|_| held)?;
        Some(ModelState::Ready { memory_bytes })
    }

    /// Puts another engine in place; returns what was held before.
    fn replace(&self, engine: Option<Loaded>, held: Option<Held>) -> Option<Held> {
        self.epoch.set(self.epoch.get() + 1);
        *self.words.borrow_mut() = engine.as_ref().map(Loaded::words);
        *self.engine.borrow_mut() = engine;
        self.held.replace(held)
    }

    /// Name and vocabulary of the model in memory.
    pub(super) fn words(&self) -> Option<(String, String)> {
        self.words.borrow().clone()
    }

    /// Remembers files that a person chose, if any came along.
    pub(super) fn choose(&self, source: &ModelSource, files: Vec<Blob>) {
        if !files.is_empty() {
            self.chosen.borrow_mut().insert(source.id(), files);
        }
    }

    fn files(&self, source: &ModelSource) -> Result<Vec<Blob>, String> {
        let files = self.chosen.borrow().get(&source.id()).cloned();
        files.ok_or_else(|| "the file is not here any more; choose it again".to_owned())
    }

    /// The file that a person chose.
    pub(super) fn chosen_file(&self, source: &ModelSource) -> Result<ModelFile, String> {
        let file = self.files(source)?.into_iter().next();
        file.map(ModelFile::Blob).ok_or_else(|| "no file came along".to_owned())
    }

    /// The checkpoint among the files that a person chose.
    pub(super) async fn chosen_files(
        &self,
        source: &ModelSource,
        store_as: StoreAs,
    ) -> Result<CheckpointFiles, String> {
        let name = |file: &Blob| property(file, "name").and_then(|name| name.as_string()).unwrap_or_default();
        let files = self.files(source)?.into_iter().map(|file| (name(&file), ModelFile::Blob(file))).collect();
        CheckpointFiles::among(files, store_as).await.map_err(|error| error.to_string())
    }
}

/// Which part of a download a file is.
#[derive(Clone, Copy)]
pub(super) struct Span {
    /// Bytes of the files before it.
    pub(super) before: u64,
    /// Bytes of all files.
    pub(super) total: u64,
}

/// What a server says of a file before it is fetched.
pub(super) struct Remote {
    pub(super) wanted: Wanted,
    /// The reply, its body unread; dropping it ends the request.
    pub(super) reply: fetch::Reply,
}

impl EngineWorker {
    pub(super) fn model_state(&self, id: &str, state: ModelState) {
        self.emit(Event::Model { id: id.to_owned(), state });
    }

    /// Tells the page of the model that is on its way.
    pub(super) fn loading_state(&self, state: ModelState) {
        if let Some(Loading { id, .. }) = &*self.models.loading.borrow() {
            self.model_state(id, state);
        }
    }

    pub(super) fn model_entry(&self, id: &str) -> Option<ModelEntry> {
        self.manifest.borrow().models.iter().find(|model| model.id == id).cloned()
    }

    /// Where the manifest's files are.
    pub(super) fn wanted(&self, entry: &ModelEntry) -> Result<Wanted, DownloadError> {
        Wanted::from_entry(&self.server().url("models/"), entry)
    }

    /// Asks the server of an address what is there.
    pub(super) async fn look_at_url(&self, url: &str, sha256: Option<&str>) -> Result<Remote, String> {
        let remote = self.look_if_there(url, sha256).await?;
        remote.ok_or_else(|| "the server answered 404: there is no such file".to_owned())
    }

    /// The same; `None` where the server says that there is no such file.
    pub(super) async fn look_if_there(&self, url: &str, sha256: Option<&str>) -> Result<Option<Remote>, String> {
        let absolute = self.absolute(url)?;
        let sha256 = match sha256.map(str::to_lowercase) {
            Some(text) if !is_sha256(&text) => return Err("the SHA-256 is not 64 hexadecimal digits".to_owned()),
            sha256 => sha256,
        };
        let ask = Ask { url: &absolute, ..Ask::default() };
        let unreachable = "the address cannot be read: it does not exist, its server is away, or it does not let other \
                           sites read it (CORS)";
        let reply = within(&self.clock, LOOK_LIMIT_S, fetch::send(ask)).await;
        let reply = reply.ok_or("the server does not answer")?.map_err(|_| unreachable.to_owned())?;
        if reply.status() == 404 {
            return Ok(None);
        }
        if !(200..=299).contains(&reply.status()) {
            return Err(match reply.status() {
                status @ (401 | 403) => {
                    format!("the server answered {status}: it does not give this file to everybody")
                }
                status => format!("the server answered {status}"),
            });
        }
        let length = reply.header("content-length").and_then(|length| length.trim().parse().ok());
        let bytes =
            length.ok_or("the server does not say how large the file is, so it cannot be resumed or checked")?;
        let version = reply.header("etag").or_else(|| reply.header("last-modified")).unwrap_or_default();
        Ok(Some(Remote { wanted: Wanted::from_url(&absolute, bytes, &version, sha256), reply }))
    }

    /// An address as it was given, relative ones by the server's.
    pub(super) fn absolute(&self, url: &str) -> Result<String, String> {
        let absolute = match url.split_once("://") {
            Some(("http" | "https", _)) => url.to_owned(),
            Some((scheme, _)) => return Err(format!("addresses begin with https://, not with {scheme}://")),
            None if self.server().is_none() => {
                return Err("the address is not complete, and there is no server".to_owned());
            }
            None => self.server().url(url.trim_start_matches('/')),
        };
        Ok(absolute)
    }

    /// Tells what is in the store of every model, and tidies up.
    pub(super) async fn report_models(&self) {
        let models = self.manifest.borrow().models.clone();
        let mut store = OpfsStore::default();
        for entry in &models {
            let state = stored_state(entry.bytes, store.stored(&entry.sha256).await);
            self.model_state(&entry.id, state);
        }
        if !models.is_empty() {
            // Versions that this server no longer offers go; what came from elsewhere stays until a person deletes it.
            let url = self.server().url("models/manifest.json");
            for file in withdrawn(&url, models.iter().map(|model| model.sha256.as_str())).await {
                // Tidying up is not worth an error.
                let _ = store.delete(&file).await;
            }
        }
    }

    pub(super) fn cancel_load(&self) {
        if let Some(loading) = &*self.models.loading.borrow() {
            loading.stop.stop();
        }
    }

    pub(super) async fn load_model(self: &Rc<Self>, source: &ModelSource, context: Option<u32>, unasked: bool) {
        let id = source.id();
        let failed = |message: &str| self.model_state(&id, ModelState::Failed { message: message.to_owned() });
        if self.tier.borrow().tier == Tier::ServerOnly {
            return failed("No engine runs in this tab, so there is nothing to load a model into: the server answers.");
        }
        // What the page loads by itself gives way to what a person wants; what that person wants does so only when told.
        let gives_way = |loading: &Loading| loading.unasked && !unasked && loading.id != id;
        if self.models.loading.borrow().as_ref().is_some_and(gives_way) {
            self.cancel_load();
            while self.models.loading.borrow().as_ref().is_some_and(gives_way) {
                self.clock.sleep(0.01).await;
            }
        }
        let stop = StopFlag::default();
        {
            let mut loading = self.models.loading.borrow_mut();
            match &mut *loading {
                Some(other) if other.id == id => {
                    other.unasked &= unasked;
                    return;
                }
                Some(other) => {
                    let message = format!("The model {} is being loaded; cancel that first.", other.id);
                    return self.emit(Event::Failed { ask: None, message });
                }
                None => *loading = Some(Loading { id: id.clone(), stop: stop.clone(), unasked }),
            }
        }
        let state = match self.obtain_and_load(source, context, &stop).await {
            Ok(state) => state,
            Err(LoadError::Download(DownloadError::Cancelled, Some(wanted))) => {
                stored_state(wanted.bytes, OpfsStore::default().stored(&wanted.name).await)
            }
            Err(LoadError::Download(DownloadError::Cancelled, None)) => ModelState::Absent,
            Err(LoadError::Stopped(state)) => state,
            Err(LoadError::Download(error, _)) => ModelState::Failed { message: sentence(&error.to_string()) },
            Err(LoadError::Other(problem)) => ModelState::Failed { message: sentence(&problem) },
        };
        self.models.loading.borrow_mut().take();
        self.model_state(&id, state);
        self.look_at_pair();
    }

    async fn obtain_and_load(
        self: &Rc<Self>,
        source: &ModelSource,
        context: Option<u32>,
        stop: &StopFlag,
    ) -> Result<ModelState, LoadError> {
        let id = source.id();
        let gguf = |(file, afterwards)| (ModelFiles::Gguf(file), afterwards);
        let (files, afterwards) = match source {
            ModelSource::File { .. } => gguf((self.models.chosen_file(source)?, ModelState::Absent)),
            ModelSource::Files { store_as, .. } => {
                let files = self.models.chosen_files(source, *store_as).await?;
                (ModelFiles::Checkpoint(Rc::new(files)), ModelState::Absent)
            }
            ModelSource::Folder { url, store_as } => {
                let (files, afterwards) = self.fetch_folder(&id, url, *store_as, stop).await?;
                (ModelFiles::Checkpoint(Rc::new(files)), afterwards)
            }
            ModelSource::Server { id } => {
                let entry = self.model_entry(id);
                let entry = entry.ok_or("the server does not offer this model (any more); reload the page")?;
                let wanted = self.wanted(&entry).map_err(|error| LoadError::Download(error, None))?;
                gguf(self.fetch_file(&id.clone(), wanted, None, stop).await?)
            }
            ModelSource::Url { url, sha256 } => {
                let wanted = match self.look_at_url(url, sha256.as_deref()).await {
                    Ok(Remote { wanted, .. }) => wanted,
                    // Without a connection, what was stored whole before is as good.
                    Err(problem) => self.stored_version(url, None).await.ok_or(problem)?,
                };
                gguf(self.fetch_file(&id, wanted, None, stop).await?)
            }
        };
        self.model_state(&id, ModelState::Loading { read: 0, total: 0 });
        // Lets the page draw that before the thread is busy.
        self.clock.sleep(0.0).await;
        let reported_s = Cell::new(self.clock.now_s());
        let progress = |read, total| {
            let now_s = self.clock.now_s();
            if now_s - reported_s.get() >= REPORT_INTERVAL_S {
                reported_s.set(now_s);
                self.model_state(&id, ModelState::Loading { read, total });
            }
        };
        let loaded = match load(self, &id, files, context, stop, &progress).await {
            Err(_) if stop.is_stopped() => return Ok(self.models.in_memory(&id).unwrap_or(afterwards)),
            Err(problem) => {
                // Its hash is looked at the next time: the store may have lost some of it.
                let name = match source {
                    ModelSource::Server { id } => self.model_entry(id).map(|entry| entry.sha256),
                    ModelSource::Url { sha256, .. } => sha256.clone(),
                    _ => None,
                };
                if let Some(name) = name {
                    OpfsStore::default().unmark(&name).await;
                }
                return Err(problem.into());
            }
            Ok(loaded) => loaded,
        };
        let memory_bytes = loaded.memory_bytes();
        let before = self.models.replace(Some(loaded), Some(Held { id: id.clone(), afterwards }));
        if let Some(before) = before.filter(|before| before.id != id) {
            self.model_state(&before.id, before.afterwards);
        }
        Ok(ModelState::Ready { memory_bytes })
    }

    /// Brings a file onto this device, `span` of the model's where it is not all; also says what becomes of it when its model
    /// leaves the memory.
    pub(super) async fn fetch_file(
        self: &Rc<Self>,
        id: &str,
        wanted: Wanted,
        span: Option<Span>,
        stop: &StopFlag,
    ) -> Result<(ModelFile, ModelState), LoadError> {
        let mut store = OpfsStore::default();
        let mut reported_s = f64::NEG_INFINITY;
        let Span { before, total } = span.unwrap_or(Span { before: 0, total: wanted.bytes });
        let mut progress = |received: u64| {
            let now_s = self.clock.now_s();
            // The last byte is followed by `Loading` at once, and a file from the store is no download at all.
            if now_s - reported_s >= REPORT_INTERVAL_S && received < wanted.bytes {
                reported_s = now_s;
                self.model_state(id, ModelState::Downloading { received: before + received, total });
            }
        };
        let obtained = obtain(&wanted, &self.server(), &mut store, &self.clock, stop, &mut progress).await;
        let StoredFile { memory, not_kept } =
            obtained.map_err(|error| LoadError::Download(error, Some(wanted.clone())))?;
        if let Some(reason) = &not_kept {
            self.notice(format!("The model is here, but only until this tab is closed: {reason}."));
        }
        match memory {
            Some(bytes) => Ok((ModelFile::Memory(Rc::new(bytes)), ModelState::Absent)),
            None => match store.file(&wanted.name).await {
                Ok(Some(file)) => Ok((ModelFile::Blob(file.into()), ModelState::Cached)),
                Ok(None) => Err(LoadError::Other("what was stored has been cleared; try again".to_owned())),
                Err(error) => Err(LoadError::Other(error.to_string())),
            },
        }
    }

    /// What is stored whole of the file at an address, in a folder if it is one of many, whose server is not there now.
    pub(super) async fn stored_version(&self, url: &str, folder: Option<&str>) -> Option<Wanted> {
        let url = self.absolute(url).ok()?;
        let store = OpfsStore::default();
        let prefix = folder.map_or_else(|| url_prefix(&url), |folder| file_prefix(folder, &url));
        for name in store.names().await {
            let bytes = name.strip_prefix(&prefix).and_then(|rest| rest.split('-').next()?.parse().ok());
            if let Some(bytes) = bytes
                && store.stored(&name).await == bytes
            {
                return Some(Wanted { url, bytes, name, sha256: None });
            }
        }
        None
    }

    pub(super) async fn delete_model(self: &Rc<Self>, id: &str) {
        let loading = self.models.loading.borrow().as_ref().is_some_and(|other| other.id == id);
        if loading {
            self.cancel_load();
            while self.models.loading.borrow().is_some() {
                self.clock.sleep(0.01).await;
            }
        }
        // What an ask holds at this moment answers that ask to its end and is dropped then.
        let held = self.models.held.borrow().as_ref().is_some_and(|held| held.id == id);
        if held {
            self.models.replace(None, None);
            self.look_at_pair();
        }
        self.models.chosen.borrow_mut().remove(id);
        let state = match self.remove_stored(id).await {
            Ok(()) => ModelState::Absent,
            Err(error) => {
                self.notice(format!("The stored model could not be deleted: {error}."));
                match self.model_entry(id) {
                    Some(entry) => stored_state(entry.bytes, OpfsStore::default().stored(&entry.sha256).await),
                    None => ModelState::Cached,
                }
            }
        };
        self.model_state(id, state);
    }

    async fn remove_stored(&self, id: &str) -> Result<(), FileStoreError> {
        let mut store = OpfsStore::default();
        if let Some(entry) = self.model_entry(id) {
            return store.delete(&entry.sha256).await;
        }
        // The files of a folder are kept once, however they are stored in memory.
        let folder = StoreAs::ALL.iter().find_map(|one| id.strip_suffix(one.name())?.strip_suffix('#'));
        let Ok(url) = self.absolute(folder.unwrap_or(id)) else { return Ok(()) };
        let prefix = url_prefix(&url);
        for name in store.names().await.into_iter().filter(|name| name.starts_with(&prefix)) {
            store.delete(&name).await?;
        }
        Ok(())
    }
}

/// Why a model is not loaded.
pub(super) enum LoadError {
    /// A person stopped it; what is here now.
    Stopped(ModelState),
    /// Of this file, where it is known.
    Download(DownloadError, Option<Wanted>),
    /// In words.
    Other(String),
}

impl From<String> for LoadError {
    fn from(problem: String) -> Self {
        Self::Other(problem)
    }
}

impl From<&str> for LoadError {
    fn from(problem: &str) -> Self {
        Self::Other(problem.to_owned())
    }
}

/// What a server's own list of models makes superfluous here; nothing where that cannot be remembered.
async fn withdrawn<'a>(url: &str, offered: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut store = OpfsStore::of(OFFERS_FOLDER);
    let known = store.read(OFFERS_FILE, 0, MAX_OFFERS_BYTES).await.ok();
    let mut offers: Offers = known.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let before = offers.clone();
    let withdrawn = offers.update(url, offered.into_iter().filter(|file| is_sha256(file)));
    if offers != before {
        let remember = async {
            let text = serde_json::to_vec(&offers).map_err(|error| FileStoreError::Unavailable(error.to_string()))?;
            store.begin(OFFERS_FILE, 0).await?;
            store.append(&text)?;
            store.end();
            Ok::<(), FileStoreError>(())
        };
        if remember.await.is_err() {
            return Vec::new();
        }
    }
    withdrawn
}

fn stored_state(bytes: u64, stored: u64) -> ModelState {
    match stored {
        0 => ModelState::Absent,
        received if received < bytes => ModelState::Partial { received, total: bytes },
        // A file that is too long is noticed, and fetched anew, when it is loaded.
        _ => ModelState::Cached,
    }
}

/// A clause as a sentence.
pub(super) fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_uppercase().chain(characters).chain(['.']).collect(),
        None => String::new(),
    }
}
