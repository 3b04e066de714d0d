//! All rooms of a server.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use client::protocol::rooms::rest::{NewRoom, RoomMade};
use client::protocol::rooms::{CloseReason, tidy_code};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::RoomsError;
use super::clock;
use super::deciders::Deciders;
use super::numbers::ServerNow;
use super::room::{Room, Shared, kept, now_ms};
use super::secrets;
use super::state::State;
use super::store::Store;

/// Most rooms.
pub const ROOMS: usize = 64;
/// A room in which nobody was for so long makes way for a new one where there are too many, milliseconds.
const UNUSED_MS: u64 = 3_600_000;
/// Seeds below this are read alike by every program.
pub(super) const SEEDS: u64 = 1 << 53;

/// What a server does with rooms.
pub struct RoomsConfig {
    /// Folder of the database.
    pub dir: PathBuf,
    /// The policy for any number of devices, a file's bytes; without it the closed form decides.
    pub policy: Option<Vec<u8>>,
    /// What the server does beside the rooms.
    pub server: Box<dyn Fn() -> ServerNow + Send + Sync>,
}

struct Inner {
    /// Why there are none; else what they share.
    shared: Result<Arc<Shared>, String>,
    rooms: Mutex<HashMap<String, Arc<Room>>>,
    down: watch::Sender<bool>,
}

/// All rooms of a server.
#[derive(Clone)]
pub struct Rooms(Arc<Inner>);

impl Rooms {
    /// Opens the folder; rooms of an earlier server go on. Wants a runtime, which keeps their time.
    ///
    /// # Errors
    /// The folder cannot be written, another server uses it, its database is damaged or of another version, or the policy
    /// cannot be used.
    pub fn open(config: RoomsConfig) -> Result<Self, RoomsError> {
        let deciders = config.policy.as_deref().map_or(Ok(Deciders::default()), Deciders::with_policy)?;
        let store = Store::open(&config.dir)?;
        let known = store.rooms()?;
        let shared = Arc::new(Shared { store: Mutex::new(Some(store)), deciders, server: config.server });
        let rooms = Self::with(Ok(Arc::clone(&shared)));
        let mut all = rooms.lock();
        for room in known {
            let room = Arc::new(Room::reopened(room, Arc::clone(&shared)));
            rooms.start(&mut all, room);
        }
        drop(all);
        Ok(rooms)
    }

    /// No rooms at all, and why.
    #[must_use]
    pub fn none(why: impl Into<String>) -> Self {
        Self::with(Err(why.into()))
    }

    fn with(shared: Result<Arc<Shared>, String>) -> Self {
        Self(Arc::new(Inner { shared, rooms: Mutex::default(), down: watch::Sender::new(false) }))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Room>>> {
        self.0.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shared(&self) -> Result<&Arc<Shared>, RoomsError> {
        self.0.shared.as_ref().map_err(|why| RoomsError::Off(why.clone()))
    }

    fn start(&self, all: &mut HashMap<String, Arc<Room>>, room: Arc<Room>) {
        all.insert(room.code().to_owned(), Arc::clone(&room));
        let (rooms, down) = (self.clone(), self.0.down.subscribe());
        Handle::current().spawn(async move {
            clock::run(Arc::clone(&room), down).await;
            if room.is_closed() {
                let _ = tokio::task::spawn_blocking(move || rooms.forget(&room)).await;
            }
        });
    }

    /// Removes a room that was closed, with all that was kept of it.
    fn forget(&self, room: &Room) {
        self.lock().remove(room.code());
        if let Ok(shared) = self.shared()
            && let Err(error) = shared.store(|store| store.delete(room.code()))
        {
            tracing::warn!(%error, room = room.code(), "a closed room cannot be removed");
        }
    }

    /// Makes a room. Writes to disk; wants a runtime.
    ///
    /// # Errors
    /// The request makes no sense, all rooms are in use, or the database fails.
    pub fn create(&self, request: NewRoom) -> Result<RoomMade, RoomsError> {
        let shared = self.shared()?;
        let NewRoom { seed, settings } = request;
        settings.check().map_err(|message| RoomsError::Field { param: "settings", message })?;
        let seed = seed.map_or_else(secrets::seed, Ok)?;
        if seed >= SEEDS {
            let message = "a seed has to be below 2^53, so that every program reads it alike.".to_owned();
            return Err(RoomsError::Field { param: "seed", message });
        }
        let mut all = self.lock();
        if all.len() >= ROOMS {
            self.make_way(&mut all)?;
        }
        let mut code = secrets::code()?;
        while all.contains_key(&code) || shared.store(|store| store.has(&code))? {
            code = secrets::code()?;
        }
        let secret = secrets::token()?;
        let state = State::new(code.clone(), seed, settings.clone());
        let (hash, used_ms) = (secrets::hash(&secret), now_ms());
        shared.store(|store| store.insert(&code, &hash, used_ms, &kept(&state)))?;
        self.start(&mut all, Arc::new(Room::new(state, hash, used_ms, Arc::clone(shared))));
        Ok(RoomMade { code, secret, seed, settings })
    }

    /// Closes the room that was unused for longest, if it was for long enough.
    fn make_way(&self, all: &mut HashMap<String, Arc<Room>>) -> Result<(), RoomsError> {
        let unused = all.values().map(|room| (room.used_ms(), room.code().to_owned())).min();
        let oldest = unused.filter(|(used_ms, _)| used_ms + UNUSED_MS < now_ms());
        let room = oldest.and_then(|(_, code)| all.remove(&code)).ok_or(RoomsError::TooMany(ROOMS))?;
        room.close(CloseReason::RoomClosed);
        Ok(())
    }

    /// The room of a code as people type it.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, code: &str) -> Result<Arc<Room>, RoomsError> {
        self.shared()?;
        let room = tidy_code(code).and_then(|code| self.lock().get(&code).cloned());
        room.filter(|room| !room.is_closed()).ok_or_else(|| RoomsError::Unknown(code.chars().take(16).collect()))
    }

    /// The same, for its presenter.
    ///
    /// # Errors
    /// There is none, or this is not its secret.
    pub fn get_with(&self, code: &str, secret: Option<&str>) -> Result<Arc<Room>, RoomsError> {
        let room = self.get(code)?;
        if secret.is_some_and(|secret| room.is_secret(secret)) { Ok(room) } else { Err(RoomsError::Forbidden) }
    }

    /// Connections in all rooms.
    #[must_use]
    pub fn connections(&self) -> usize {
        let all: Vec<Arc<Room>> = self.lock().values().cloned().collect();
        all.iter().map(|room| room.connections()).sum()
    }

    /// Tells everyone that the server goes down, and lets nobody in any more.
    pub fn begin_shutdown(&self) {
        self.0.down.send_replace(true);
        let all: Vec<Arc<Room>> = self.lock().values().cloned().collect();
        all.iter().for_each(|room| room.close(CloseReason::GoingDown));
    }

    /// Whether the server goes down.
    #[must_use]
    pub fn is_going_down(&self) -> bool {
        *self.0.down.borrow()
    }

    /// Waits until all connections are over and all is written, for at most so long, and closes the database.
    pub async fn finish_shutdown(&self, longest: Duration) {
        let end = Instant::now() + longest;
        // A clock that has written its last slot no longer listens.
        while (self.connections() > 0 || self.0.down.receiver_count() > 0) && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if let Ok(shared) = self.shared() {
            drop(shared.store.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}
