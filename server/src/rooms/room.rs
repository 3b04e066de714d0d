//! One room: its sockets and its state behind one lock.
//!
//! Whatever holds the lock computes or copies; the disk is touched outside of it, but for a newcomer, who is written before
//! anybody hears of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use client::protocol::rooms::down::{Picture, ServerMessage, Welcome};
use client::protocol::rooms::rest::RoomInfo;
use client::protocol::rooms::up::Join;
use client::protocol::rooms::{CloseReason, ROOM_VERSION, Role, RoomSettings};
use tokio::sync::Notify;

use super::deciders::Deciders;
use super::finish::Around;
use super::limits::Bucket;
use super::member::{Identity, Member, Progress};
use super::numbers::ServerNow;
use super::outbox::{Outbox, Space};
use super::radio::Radio;
use super::secrets::{self, Hash};
use super::snapshot::{of_cell, snapshot};
use super::state::{Effect, MEMBERS, State};
use super::store::{Change, Kept, KeptAnswer, KeptRoom, Store, StoreError, pack};
use super::view::seat_view;

/// Presenters that may look at a room at once: a desk, a projector, and some to spare.
const PRESENTERS: usize = 8;

/// What all rooms of a server share.
pub struct Shared {
    /// `None` once the server has closed it. Locked after a room, never before.
    pub store: Mutex<Option<Store>>,
    /// Who decides.
    pub deciders: Deciders,
    /// What the server does beside the rooms.
    pub server: Box<dyn Fn() -> ServerNow + Send + Sync>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

impl Shared {
    /// Works with the open store.
    ///
    /// # Errors
    /// It is closed, or the work fails.
    pub fn store<T>(&self, work: impl FnOnce(&mut Store) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        work(store.as_mut().ok_or(StoreError::Closed)?)
    }
}

#[derive(Debug)]
struct Inner {
    state: State,
    phones: HashMap<u32, (u64, Arc<Outbox>)>,
    presenters: Vec<(u64, Arc<Outbox>)>,
    buckets: HashMap<u32, Bucket>,
    next_connection: u64,
    /// Up to when time has passed for the state.
    passed: Instant,
    used_ms: u64,
    /// Whether something has to be written.
    dirty: bool,
    forget_past: bool,
}

/// One room.
#[derive(Debug)]
pub struct Room {
    code: String,
    secret: Hash,
    shared: Arc<Shared>,
    inner: Mutex<Inner>,
    born: Instant,
    closed: AtomicBool,
    /// Told when the room is closed, or somebody comes in where nobody was.
    pub(super) woken: Notify,
}

/// A place in a room, for a connection.
#[derive(Debug)]
pub struct Joined {
    /// The connection's number.
    pub connection: u64,
    /// The member; `None` of a presenter.
    pub mlu: Option<u32>,
    /// What is to be sent.
    pub outbox: Arc<Outbox>,
}

/// Milliseconds since 1970.
#[must_use]
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn text(message: &ServerMessage) -> Arc<str> {
    // Plain data always becomes JSON.
    serde_json::to_string(message).unwrap_or_default().into()
}

impl Room {
    /// A new room, written already.
    #[must_use]
    pub fn new(state: State, secret: Hash, used_ms: u64, shared: Arc<Shared>) -> Self {
        let code = state.code.clone();
        let inner = Inner {
            state,
            phones: HashMap::new(),
            presenters: Vec::new(),
            buckets: HashMap::new(),
            next_connection: 0,
            passed: Instant::now(),
            used_ms,
            dirty: false,
            forget_past: false,
        };
        let (closed, woken) = (AtomicBool::new(false), Notify::new());
        Self { code, secret, shared, inner: Mutex::new(inner), born: Instant::now(), closed, woken }
    }

    /// A room that an earlier server has kept: all are away at first.
    #[must_use]
    pub fn reopened(kept: KeptRoom, shared: Arc<Shared>) -> Self {
        let (secret, used_ms) = (kept.secret, kept.used_ms);
        Self::new(restored(kept), secret, used_ms, shared)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its code.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// Whether this is the presenter's secret.
    #[must_use]
    pub fn is_secret(&self, secret: &str) -> bool {
        secrets::hash(secret) == self.secret
    }

    /// Whether it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Connections at present.
    #[must_use]
    pub fn connections(&self) -> usize {
        let inner = self.lock();
        inner.phones.len() + inner.presenters.len()
    }

    /// When somebody was last connected, milliseconds since 1970.
    #[must_use]
    pub fn used_ms(&self) -> u64 {
        if self.connections() > 0 { now_ms() } else { self.lock().used_ms }
    }

    /// What a page says before it joins.
    #[must_use]
    pub fn info(&self) -> RoomInfo {
        let inner = self.lock();
        RoomInfo {
            code: self.code.clone(),
            version: ROOM_VERSION,
            locked: inner.state.settings.locked,
            members: inner.state.seated().count() as u32,
            most_members: MEMBERS as u32,
            slot: inner.state.slot,
        }
    }

    /// Seed, settings and radius of a cell in metres.
    #[must_use]
    pub fn about(&self) -> (u64, RoomSettings, f64) {
        let inner = self.lock();
        (inner.state.seed, inner.state.settings.clone(), inner.state.params.radius_m)
    }

    /// At most `limit` slots from slot `from` on, as they were packed. Reads from disk.
    ///
    /// # Errors
    /// The database fails.
    pub fn kept_slots(&self, from: u64, limit: usize) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        self.shared.store(|store| store.slots(&self.code, from, limit))
    }

    /// Lets somebody in. Writes a newcomer to disk.
    ///
    /// # Errors
    /// Why not.
    pub fn join(&self, join: Join) -> Result<Joined, CloseReason> {
        let joined = match join.role {
            Role::Presenter => self.join_presenter(join.secret.as_deref().unwrap_or("")),
            Role::Phone => self.join_phone(join),
        };
        if joined.is_ok() && self.connections() == 1 {
            self.woken.notify_one();
        }
        if self.is_closed() { Err(CloseReason::RoomClosed) } else { joined }
    }

    fn join_presenter(&self, secret: &str) -> Result<Joined, CloseReason> {
        if !self.is_secret(secret) {
            return Err(CloseReason::Forbidden);
        }
        let mut inner = self.lock();
        // Whoever has the secret is let in: a link that was opened and forgotten must not keep the presenter out.
        while inner.presenters.len() >= PRESENTERS {
            let (_, oldest) = inner.presenters.remove(0);
            oldest.close(CloseReason::Replaced);
        }
        let (connection, outbox) = inner.connection(Space::PRESENTER);
        inner.presenters.push((connection, Arc::clone(&outbox)));
        let (code, version) = (self.code.clone(), ROOM_VERSION);
        let welcome = Welcome { version, code, role: Role::Presenter, token: None, seat: None, returned: false };
        outbox.send(text(&ServerMessage::Welcome(welcome)));
        outbox.send(text(&ServerMessage::Snapshot(Box::new(snapshot(&inner.state, None)))));
        Ok(Joined { connection, mlu: None, outbox })
    }

    fn join_phone(&self, join: Join) -> Result<Joined, CloseReason> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let (mlu, token, returned) = match join.token {
            Some(token) => {
                let known = inner.state.by_token(&secrets::hash(&token)).ok_or(CloseReason::UnknownToken)?;
                let mlu = known.identity.mlu;
                inner.state.come_back(mlu, join.part)?;
                (mlu, token, true)
            }
            None => {
                if inner.state.settings.locked {
                    return Err(CloseReason::Locked);
                }
                let token = secrets::token().map_err(|_| CloseReason::ServerError)?;
                let (name, part) = (join.name.unwrap_or_default(), join.part.unwrap_or_default());
                let mlu = inner.state.admit(Some(secrets::hash(&token)), &name, part)?;
                self.write_newcomer(&mut inner.state, mlu)?;
                (mlu, token, false)
            }
        };
        if let Some(member) = inner.state.members.get_mut(&mlu) {
            member.connected = true;
        }
        inner.dirty = true;
        let (connection, outbox) = inner.connection(Space::PHONE);
        if let Some((_, before)) = inner.phones.insert(mlu, (connection, Arc::clone(&outbox))) {
            before.close(CloseReason::Replaced);
        }
        let seat = inner.state.members.get(&mlu).and_then(seat_view);
        let (code, version, token) = (self.code.clone(), ROOM_VERSION, Some(token));
        let welcome = Welcome { version, code, role: Role::Phone, token, seat, returned };
        outbox.send(text(&ServerMessage::Welcome(welcome)));
        outbox.send(text(&ServerMessage::Snapshot(Box::new(snapshot(&inner.state, Some(mlu))))));
        let news = inner.state.tell_presenters(mlu);
        inner.deliver(news);
        Ok(Joined { connection, mlu: Some(mlu), outbox })
    }

    fn write_newcomer(&self, state: &mut State, mlu: u32) -> Result<(), CloseReason> {
        let Some(member) = state.members.get(&mlu) else { return Err(CloseReason::ServerError) };
        let written = self.shared.store(|store| store.save_member(&self.code, &member.identity));
        written.map_err(|error| {
            tracing::warn!(%error, room = self.code, "a newcomer cannot be written");
            state.members.remove(&mlu);
            state.changed.remove(&mlu);
            CloseReason::ServerError
        })
    }

    /// A connection is over.
    pub fn leave(&self, joined: &Joined) {
        let mut inner = self.lock();
        inner.used_ms = now_ms();
        match joined.mlu {
            Some(mlu) => {
                // Another connection of the same device may have taken its place.
                if inner.phones.get(&mlu).is_some_and(|(connection, _)| *connection == joined.connection) {
                    inner.phones.remove(&mlu);
                    let news = inner.state.lose(mlu);
                    inner.deliver(news);
                }
            }
            None => inner.presenters.retain(|(connection, _)| *connection != joined.connection),
        }
        inner.dirty = true;
    }

    /// Whether a member may send one more message.
    #[must_use]
    pub fn may_send(&self, mlu: u32) -> bool {
        let now_s = self.born.elapsed().as_secs_f64();
        self.lock().buckets.entry(mlu).or_insert_with(|| Bucket::full(now_s)).take(now_s)
    }

    /// Makes a move, and tells whoever it concerns.
    pub fn make(&self, make: impl FnOnce(&mut State) -> Vec<Effect>) {
        let mut inner = self.lock();
        let effects = make(&mut inner.state);
        inner.dirty = true;
        let closes = inner.deliver(effects);
        drop(inner);
        if closes {
            self.close(CloseReason::RoomClosed);
        }
    }

    /// Sends a snapshot to one connection.
    pub fn resync(&self, joined: &Joined) {
        let inner = self.lock();
        joined.outbox.send(text(&ServerMessage::Snapshot(Box::new(snapshot(&inner.state, joined.mlu)))));
    }

    /// Ends all connections. The room itself is over when it was closed by its presenter.
    pub fn close(&self, reason: CloseReason) {
        if reason == CloseReason::RoomClosed {
            self.closed.store(true, Ordering::Release);
            self.woken.notify_one();
        }
        let inner = self.lock();
        for (_, outbox) in inner.phones.values().chain(&inner.presenters) {
            outbox.close(reason);
        }
    }

    /// Makes the slot that was due, if there is anybody to make it for, and writes what changed. Returns the time to the next
    /// one. Computes, and writes to disk.
    pub fn tick(&self, due: Instant) -> Duration {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let elapsed = inner.passed.elapsed();
        inner.passed += elapsed;
        let effects = inner.state.pass(elapsed.as_secs_f64());
        inner.dirty |= !effects.is_empty();
        inner.deliver(effects);
        let is_watched = !inner.phones.is_empty() || !inner.presenters.is_empty();
        let settings = &inner.state.settings;
        let period = Duration::from_secs_f64(if is_watched { settings.period_s } else { 1.0 });
        let record = if is_watched && !settings.paused {
            let plan = inner.state.begin();
            drop(guard);
            let decided = plan.decide_unless(&self.shared.deciders, &|| self.is_closed());
            let server = (self.shared.server)();
            guard = self.lock();
            let late_ms = (Instant::now().saturating_duration_since(due)).as_secs_f64() * 1e3;
            let around = Around { at_ms: now_ms(), late_ms, server };
            let (effects, record) = guard.state.finish(&decided, around);
            guard.dirty = true;
            guard.deliver(effects);
            guard.show_slot();
            record
        } else {
            None
        };
        let change = guard.change();
        drop(guard);
        if let Some(change) = change {
            self.write(
                &change,
                record
                    .as_ref()
                    .map(|record| (record.slot, record.cells.iter().map(|c| c.mlus.len()).sum(), pack(record))),
            );
        }
        period
    }

    /// Writes what changed since the last slot, if anything did.
    pub fn flush(&self) {
        let change = self.lock().change();
        if let Some(change) = change {
            self.write(&change, None);
        }
    }

    fn write(&self, written: &Written, slot: Option<(u64, usize, Result<Vec<u8>, StoreError>)>) {
        let slot = slot.and_then(|(slot, rows, packed)| match packed {
            Ok(packed) => Some((slot, rows, packed)),
            Err(error) => {
                tracing::warn!(%error, slot, "a slot cannot be kept");
                None
            }
        });
        let Written { used_ms, state, members, answers, forget_past } = written;
        let (code, forget_past) = (self.code.as_str(), *forget_past);
        let change = Change { code, used_ms: *used_ms, state, members, answers, forget_past, slot };
        match self.shared.store(|store| store.save(&change)) {
            Ok(()) | Err(StoreError::Closed) => {}
            Err(error) => {
                tracing::warn!(%error, room = self.code, "what changed cannot be written; it is tried again");
                let mut inner = self.lock();
                inner.dirty = true;
                inner.forget_past |= forget_past;
                inner.state.changed.extend(members.iter().map(|(mlu, _)| *mlu));
                let round = inner.state.round.as_ref().map(|round| round.number);
                inner.state.unwritten.extend(answers.iter().filter(|it| Some(it.round) == round).map(|it| it.mlu));
            }
        }
    }
}

/// What is to be written.
struct Written {
    used_ms: u64,
    state: String,
    members: Vec<(u32, Option<Identity>)>,
    answers: Vec<KeptAnswer>,
    forget_past: bool,
}

impl Inner {
    fn connection(&mut self, space: Space) -> (u64, Arc<Outbox>) {
        self.next_connection += 1;
        (self.next_connection, Arc::new(Outbox::new(space)))
    }

    /// Tells what is to be told; `true` when the room ends.
    fn deliver(&mut self, effects: Vec<Effect>) -> bool {
        let mut closes = false;
        for effect in effects {
            match effect {
                Effect::To(mlu, message) => {
                    if let Some((_, outbox)) = self.phones.get(&mlu) {
                        outbox.send(text(&message));
                    }
                }
                Effect::Presenters(message) => {
                    if self.presenters.is_empty() {
                        continue;
                    }
                    let message = text(&message);
                    self.presenters.iter().for_each(|(_, outbox)| outbox.send(Arc::clone(&message)));
                }
                Effect::All(message) => {
                    let message = text(&message);
                    self.outboxes().for_each(|outbox| outbox.send(Arc::clone(&message)));
                }
                Effect::Cut(mlu, reason) => {
                    if let Some((_, outbox)) = self.phones.remove(&mlu) {
                        outbox.close(reason);
                    }
                }
                Effect::Restarted => {
                    self.forget_past = true;
                    for (mlu, (_, outbox)) in &self.phones {
                        outbox.send(text(&ServerMessage::Snapshot(Box::new(snapshot(&self.state, Some(*mlu))))));
                    }
                    let all = text(&ServerMessage::Snapshot(Box::new(snapshot(&self.state, None))));
                    self.presenters.iter().for_each(|(_, outbox)| outbox.send(Arc::clone(&all)));
                }
                Effect::Close => closes = true,
            }
        }
        closes
    }

    fn outboxes(&self) -> impl Iterator<Item = &Arc<Outbox>> {
        self.phones.values().chain(&self.presenters).map(|(_, outbox)| outbox)
    }

    /// Sends the last slot: everyone's own decision, and the picture.
    fn show_slot(&self) {
        let state = &self.state;
        let mut pictures: HashMap<u32, Arc<str>> = HashMap::new();
        for (mlu, (_, outbox)) in &self.phones {
            if let Some(decision) = state.decisions.get(mlu) {
                outbox.send(text(&ServerMessage::Decision(Box::new(decision.clone()))));
            }
            if outbox.wants_snapshot() {
                outbox.show(text(&ServerMessage::Snapshot(Box::new(snapshot(state, Some(*mlu))))));
                continue;
            }
            let Some(cell) = state.members.get(mlu).and_then(|member| member.identity.cell) else { continue };
            let own = || text(&ServerMessage::Picture(of_cell(&state.picture, cell)));
            outbox.show(Arc::clone(pictures.entry(cell).or_insert_with(own)));
        }
        if self.presenters.is_empty() {
            return;
        }
        let all = text(&ServerMessage::Picture(state.picture.clone()));
        for (_, outbox) in &self.presenters {
            if outbox.wants_snapshot() {
                outbox.show(text(&ServerMessage::Snapshot(Box::new(snapshot(state, None)))));
            } else {
                outbox.show(Arc::clone(&all));
            }
        }
    }

    /// What changed since it was last written.
    fn change(&mut self) -> Option<Written> {
        if !std::mem::take(&mut self.dirty) {
            return None;
        }
        if !self.phones.is_empty() || !self.presenters.is_empty() {
            self.used_ms = now_ms();
        }
        let state = &mut self.state;
        let changed = std::mem::take(&mut state.changed);
        let members = changed.into_iter().map(|mlu| (mlu, state.members.get(&mlu).map(|one| one.identity.clone())));
        let members = members.collect();
        let unwritten = std::mem::take(&mut state.unwritten);
        let answers = state.round.iter().flat_map(|round| {
            let known = unwritten.iter().filter_map(|mlu| round.answers.get_key_value(mlu));
            known.map(|(mlu, answer)| KeptAnswer { round: round.number, mlu: *mlu, answer: answer.clone() })
        });
        let answers = answers.collect();
        let forget_past = std::mem::take(&mut self.forget_past);
        Some(Written { used_ms: self.used_ms, state: kept(state), members, answers, forget_past })
    }
}

/// The state that was kept: all are away, but for simulated ones.
#[must_use]
pub fn restored(kept: KeptRoom) -> State {
    let KeptRoom { code, kept, members, .. } = kept;
    let Kept { seed, settings, slot, next_mlu, mut progress, round, compare, totals } = kept;
    let picture = Picture { slot: slot.saturating_sub(1), ..Picture::default() };
    let mut state = State { slot, next_mlu, round, compare, totals, picture, ..State::new(code, seed, settings) };
    // Files of before had them with the rest.
    state.unwritten = state.round.iter().flat_map(|round| round.answers.keys().copied()).collect();
    for identity in members {
        let mlu = identity.mlu;
        // One that came after the last slot was written.
        let newcomer = || Progress::new(Radio::draw(&state.params, seed, mlu, slot));
        let own = progress.remove(&mlu).unwrap_or_else(newcomer);
        state.next_mlu = state.next_mlu.max(mlu.saturating_add(1));
        state.members.insert(mlu, Member::new(identity, own));
    }
    state
}

/// [`Kept`] of a state, as JSON.
#[must_use]
pub fn kept(state: &State) -> String {
    let kept = Kept {
        seed: state.seed,
        settings: state.settings.clone(),
        slot: state.slot,
        next_mlu: state.next_mlu,
        progress: state.members.iter().map(|(mlu, member)| (*mlu, member.progress)).collect(),
        round: state.round.clone(),
        compare: state.compare.clone(),
        totals: state.totals.clone(),
    };
    serde_json::to_string(&kept).unwrap_or_default()
}
