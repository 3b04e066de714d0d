//! Model files: download, load, delete.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::Hub;
use super::engine::{Loaded, Origin, load};
use crate::download::{DownloadError, Obtained, Shelf, Wanted, obtain};
use crate::js::shelf::OpfsShelf;
use crate::offload::ports::Clock;
use crate::offload::signal::StopFlag;
use crate::protocol::manifest::ModelEntry;
use crate::protocol::worker::{Event, ModelState, Tier};

/// Progress is reported at most this often.
const REPORT_INTERVAL_S: f64 = 0.1;

/// What is loaded, and what is on its way.
#[derive(Default)]
pub(super) struct Models {
    /// The engine; `None` also while an ask has it.
    engine: RefCell<Option<Loaded>>,
    /// Id of the model that is in memory, wherever the engine is at the moment.
    held: RefCell<Option<String>>,
    /// Raised by every load and delete: an engine that an ask brings back from before is dropped.
    epoch: Cell<u64>,
    loading: RefCell<Option<(String, StopFlag)>>,
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

    fn replace(&self, engine: Option<Loaded>) {
        self.epoch.set(self.epoch.get() + 1);
        *self.held.borrow_mut() = engine.as_ref().map(|loaded| loaded.id().to_owned());
        *self.engine.borrow_mut() = engine;
    }
}

impl Hub {
    fn model_state(&self, id: &str, state: ModelState) {
        self.emit(Event::Model { id: id.to_owned(), state });
    }

    fn model_entry(&self, id: &str) -> Option<ModelEntry> {
        self.manifest.borrow().models.iter().find(|model| model.id == id).cloned()
    }

    /// Where the manifest's files are.
    fn wanted(&self, entry: &ModelEntry) -> Result<Wanted, DownloadError> {
        Wanted::from_entry(&self.server().url("models/"), entry)
    }

    /// Tells what is on the shelf of every model, and tidies up.
    pub(super) async fn report_models(&self) {
        let models = self.manifest.borrow().models.clone();
        let shelf = OpfsShelf::default();
        for entry in &models {
            let state = stored_state(entry, shelf.size(&entry.sha256).await);
            self.model_state(&entry.id, state);
        }
        if !models.is_empty() {
            shelf.retain(&models.iter().map(|model| model.sha256.as_str()).collect::<Vec<_>>()).await;
        }
    }

    pub(super) fn cancel_load(&self) {
        if let Some((_, stop)) = &*self.models.loading.borrow() {
            stop.stop();
        }
    }

    pub(super) async fn load_model(self: &Rc<Self>, id: &str) {
        let failed = |message: &str| self.model_state(id, ModelState::Failed { message: message.to_owned() });
        if self.tier.borrow().tier == Tier::ServerOnly {
            return failed("No engine runs in this tab, so there is nothing to load a model into: the server answers.");
        }
        let Some(entry) = self.model_entry(id) else {
            return failed("The server does not offer this model (any more). Reload the page.");
        };
        let stop = StopFlag::default();
        {
            let mut loading = self.models.loading.borrow_mut();
            match &*loading {
                Some((other, _)) if other == id => return,
                Some((other, _)) => {
                    let message = format!("The model {other} is being loaded; cancel that first.");
                    return self.emit(Event::Failed { ask: None, message });
                }
                None => *loading = Some((id.to_owned(), stop.clone())),
            }
        }
        let state = match self.obtain_and_load(&entry, &stop).await {
            Ok(state) => state,
            Err(DownloadError::Cancelled) => stored_state(&entry, OpfsShelf::default().size(&entry.sha256).await),
            Err(error) => ModelState::Failed { message: sentence(&error.to_string()) },
        };
        self.models.loading.borrow_mut().take();
        self.model_state(id, state);
    }

    async fn obtain_and_load(
        self: &Rc<Self>,
        entry: &ModelEntry,
        stop: &StopFlag,
    ) -> Result<ModelState, DownloadError> {
        let wanted = self.wanted(entry)?;
        let mut shelf = OpfsShelf::default();
        let mut reported_s = f64::NEG_INFINITY;
        let mut progress = |received: u64| {
            let now_s = self.clock.now_s();
            // The last byte is followed by `Loading` at once, and a file from the shelf is no download at all.
            if now_s - reported_s >= REPORT_INTERVAL_S && received < entry.bytes {
                reported_s = now_s;
                self.model_state(&entry.id, ModelState::Downloading { received, total: entry.bytes });
            }
        };
        let obtained = obtain(&wanted, &self.server(), &mut shelf, &self.clock, stop, &mut progress).await?;
        let Obtained { bytes, not_kept } = obtained;
        let bytes = Rc::new(bytes);
        if let Some(reason) = &not_kept {
            self.notice(format!("The model is here, but only until this tab is closed: {reason}."));
        }
        self.model_state(&entry.id, ModelState::Loading);
        // Lets the page draw that before the thread is busy.
        self.clock.sleep(0.0).await;
        let origin = match not_kept {
            None => Origin::Shelf { sha256: wanted.sha256, bytes: entry.bytes },
            Some(_) => Origin::Memory(Rc::clone(&bytes)),
        };
        Ok(match load(self, &bytes, origin).await {
            Ok(loaded) => {
                let memory_bytes = loaded.memory_bytes();
                self.models.replace(Some(loaded.with_id(&entry.id)));
                ModelState::Ready { memory_bytes }
            }
            Err(error) => ModelState::Failed { message: sentence(&error) },
        })
    }

    pub(super) async fn delete_model(self: &Rc<Self>, id: &str) {
        let loading = self.models.loading.borrow().as_ref().is_some_and(|(other, _)| other == id);
        if loading {
            self.cancel_load();
            while self.models.loading.borrow().is_some() {
                self.clock.sleep(0.01).await;
            }
        }
        // What an ask holds at this moment answers that ask to its end and is dropped then.
        let held = self.models.held.borrow().as_deref() == Some(id);
        if held {
            self.models.replace(None);
        }
        let Some(entry) = self.model_entry(id) else { return };
        let state = match OpfsShelf::default().delete(&entry.sha256).await {
            Ok(()) => ModelState::Absent,
            Err(error) => {
                self.notice(format!("The stored model could not be deleted: {error}."));
                stored_state(&entry, OpfsShelf::default().size(&entry.sha256).await)
            }
        };
        self.model_state(id, state);
    }
}

fn stored_state(entry: &ModelEntry, stored: u64) -> ModelState {
    match stored {
        0 => ModelState::Absent,
        received if received < entry.bytes => ModelState::Partial { received, total: entry.bytes },
        // A file that is too long is noticed, and fetched anew, when it is loaded.
        _ => ModelState::Cached,
    }
}

fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_uppercase().chain(characters).chain(['.']).collect(),
        None => String::new(),
    }
}
