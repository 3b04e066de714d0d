//! What the page knows, reduced from the worker's events. Pure: time is passed in, and what has to be sent is returned.

use std::collections::{BTreeMap, VecDeque};

use client::protocol::VERSION;
use client::protocol::engine::{ModelSource, StoreAs, Verdict};
use client::protocol::manifest::ModelEntry;
use client::protocol::worker::{AskMode, Command, Event, ModelState, Pair, ServerHealth, Tier, TierReport};
use client::protocol::world::{Calibration, PolicyBackend, WorldView};

use crate::run::{Compared, Run, Status};

/// Id of the model that runs in the tab unless a person chooses another one.
pub const COMPACT: &str = "compact";
/// Where it comes from.
#[must_use]
pub fn compact_source() -> ModelSource {
    ModelSource::Server { id: COMPACT.to_owned() }
}

/// Up to so many bytes a model is fetched without being asked for: less than this page takes itself. Files of a server that
/// trained its own may be larger.
pub const SMALL_BYTES: u64 = 2_000_000;

/// Rows that the log keeps; the oldest go first.
pub const LOG_CAPACITY: usize = 1_000;
/// Notices on the screen; the oldest go first.
pub const NOTICE_CAPACITY: usize = 4;

/// Whether the engine worker is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Being fetched and started.
    #[default]
    Starting,
    /// Answers commands.
    Ready,
    /// Does not run here; why, in plain words.
    Absent(String),
}

/// Weight of a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Good to know.
    Info,
    /// Something did not work.
    Problem,
}

/// Something that a person should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Unique on this page.
    pub id: u64,
    /// Weight.
    pub kind: Kind,
    /// What happened and what to do.
    pub text: String,
}

/// A row of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogRow {
    /// Which ask.
    pub ask: u64,
    /// Seed of the world it happened in.
    pub seed: Option<u64>,
    /// Modelled and measured.
    pub record: client::protocol::worker::SlotRecord,
    /// Measured quality, once compared.
    pub compared: Option<Compared>,
}

/// What has to happen because of an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send this to the worker.
    Send(Command),
    /// The worker is of another version than the page: one of them is stale.
    Reload,
    /// A policy for this number of devices was put in place: let it decide.
    Decide(usize),
    /// Both sides were measured: make the world like them.
    Calibrate(Calibration),
}

/// Who answers a burst.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// The worker, in this mode.
    Worker(AskMode),
    /// The page itself asks the server.
    Page,
    /// Nobody; why, and what to do.
    Refuse(String),
}

/// All of it.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// The worker.
    pub phase: Phase,
    /// What this tab can run.
    pub tier: Option<TierReport>,
    /// The server; `None` until heard of.
    pub server: Option<ServerHealth>,
    /// What the server offers.
    pub models: Vec<ModelEntry>,
    /// State of each model in this tab.
    pub model_states: BTreeMap<String, ModelState>,
    /// The models of this tab and of the server, while both are there.
    pub pair: Option<Pair>,
    /// Why even a small model waits to be asked for, in plain words: a connection that is paid for by what goes over it, or a
    /// person who deleted it. `None` where it does not.
    pub waits: Option<&'static str>,
    /// Whether the model was loaded without being asked for.
    pub unasked: bool,
    /// The model that was being loaded when the worker was lost: it waits to be asked for.
    broke: Option<String>,
    /// The model that a person chose, loaded or not.
    pub source: ModelSource,
    /// How often one was chosen: the same name may mean another file.
    pub choice: u32,
    /// How a person wants checkpoints to be stored.
    store_as: StoreAs,
    /// The context that a person chose for it, tokens; `None` for its own.
    pub context: Option<u32>,
    /// What it will take, or why that cannot be said; `None` while nobody has looked.
    pub verdict: Option<Result<Verdict, String>>,
    /// The ask that looks.
    inspecting: Option<u64>,
    /// The ask that measures both sides.
    pub calibrating: Option<u64>,
    /// The present slot.
    pub view: Option<WorldView>,
    /// Which policy code decides.
    pub backend: Option<PolicyBackend>,
    /// Why the other one does not.
    pub backend_note: Option<String>,
    /// How often the worker said which one decides; a switch that was refused is set back with the next word.
    pub backend_told: u32,
    /// Policies that a person put in place of the shipped ones, by the number of devices that they decide for.
    pub policies: BTreeMap<usize, String>,
    /// The latest burst.
    pub run: Option<Run>,
    /// Finished ones, oldest first.
    pub log: VecDeque<LogRow>,
    /// Newest last.
    pub notices: VecDeque<Notice>,
    last_id: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            phase: Phase::default(),
            tier: None,
            server: None,
            models: Vec::new(),
            model_states: BTreeMap::new(),
            pair: None,
            waits: None,
            unasked: false,
            broke: None,
            source: compact_source(),
            choice: 0,
            store_as: StoreAs::default(),
            context: None,
            verdict: None,
            inspecting: None,
            calibrating: None,
            view: None,
            backend: None,
            backend_note: None,
            backend_told: 0,
            policies: BTreeMap::new(),
            run: None,
            log: VecDeque::new(),
            notices: VecDeque::new(),
            last_id: 0,
        }
    }
}

impl State {
    /// A page on which a small model waits to be asked for, for this reason, or does not.
    #[must_use]
    pub fn waiting(waits: Option<&'static str>) -> Self {
        Self { waits, ..Self::default() }
    }

    /// A number that no ask and no notice has had.
    pub fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Shows a notice; the same text again only moves up.
    pub fn notify(&mut self, kind: Kind, text: impl Into<String>) {
        let text = text.into();
        self.notices.retain(|n| n.text != text);
        if self.notices.len() == NOTICE_CAPACITY {
            self.notices.pop_front();
        }
        let id = self.next_id();
        self.notices.push_back(Notice { id, kind, text });
    }

    /// Takes a notice away.
    pub fn dismiss(&mut self, id: u64) {
        self.notices.retain(|n| n.id != id);
    }

    /// State of the chosen model.
    #[must_use]
    pub fn model(&self) -> &ModelState {
        self.model_states.get(&self.source.id()).unwrap_or(&ModelState::Absent)
    }

    /// Manifest entry of the chosen model, where the server offers it.
    #[must_use]
    pub fn entry(&self) -> Option<&ModelEntry> {
        let ModelSource::Server { id } = &self.source else { return None };
        self.models.iter().find(|m| m.id == *id)
    }

    /// Why the chosen model is loaded without being asked for; `None` where it is not.
    #[must_use]
    pub fn by_itself(&self) -> Option<&'static str> {
        let entry = self.entry()?;
        match entry.preferred {
            true => Some("this server is set up for it"),
            false => (entry.bytes <= SMALL_BYTES).then_some("it is small"),
        }
    }

    /// Whether a shipped model answers, which knows the Atlas alone: the server's, while it is there, else this tab's.
    #[must_use]
    pub fn asks_atlas(&self) -> bool {
        let answers = self.server.as_ref().filter(|server| server.up).and_then(|server| server.model.as_deref());
        answers.map_or(self.source == compact_source(), |name| name.starts_with("Atlas"))
    }

    /// Size of the chosen model's file, where it is known.
    #[must_use]
    pub fn model_bytes(&self) -> Option<u64> {
        let inspected = || self.verdict.as_ref()?.as_ref().ok().map(|verdict| verdict.file_bytes);
        self.entry().map(|entry| entry.bytes).or_else(inspected)
    }

    /// Name of the chosen model.
    #[must_use]
    pub fn model_name(&self) -> String {
        match (self.entry(), &self.source) {
            (Some(entry), _) => entry.name.clone(),
            (None, source) if *source == compact_source() => "Compact model".to_owned(),
            (None, source) => crate::source::name(source).to_owned(),
        }
    }

    /// Chooses a model; what is in memory stays until the new one is loaded.
    pub fn choose(&mut self, mut source: ModelSource) {
        if let Some(store_as) = source.store_as_mut() {
            *store_as = self.store_as;
        }
        self.source = source;
        self.choice += 1;
        self.verdict = None;
    }

    /// Chooses how checkpoints are stored, the present one among them.
    pub fn store(&mut self, store_as: Option<StoreAs>) {
        self.store_as = store_as.unwrap_or_default();
        self.choose(self.source.clone());
    }

    /// Asks what the chosen model will take.
    pub fn inspect(&mut self) -> Command {
        let ask = self.next_id();
        self.inspecting = Some(ask);
        Command::Inspect { ask, source: self.source.clone(), context: self.context }
    }

    /// Asks for the chosen model to be loaded, as a person wants it or without being asked.
    #[must_use]
    pub fn load(&self, unasked: bool) -> Command {
        Command::LoadModel { source: self.source.clone(), context: self.context, unasked }
    }

    /// Asks for both sides to be measured with these questions.
    pub fn calibrate(&mut self, prompts: Vec<String>) -> Command {
        let ask = self.next_id();
        self.calibrating = Some(ask);
        Command::Calibrate { ask, prompts }
    }

    /// Whether a model of this tab's can answer.
    #[must_use]
    pub fn device_ready(&self) -> bool {
        self.phase == Phase::Ready
            && self.tier.as_ref().is_some_and(|t| t.tier != Tier::ServerOnly)
            && self.model_states.values().any(|state| matches!(state, ModelState::Ready { .. }))
    }

    /// Whether a burst is being answered.
    #[must_use]
    pub fn busy(&self) -> bool {
        self.run.as_ref().is_some_and(Run::active)
    }

    /// Who would answer now. A person who wants the device alone is never served by the server behind their back.
    #[must_use]
    pub fn route(&self, wanted: AskMode) -> Route {
        match (self.device_ready(), wanted) {
            (true, mode) => Route::Worker(mode),
            (false, AskMode::LocalOnly) => Route::Refuse(match self.tier.as_ref().map(|t| t.tier) {
                Some(Tier::ServerOnly) => {
                    "This tab cannot run the compact model. Choose “Split” or “Server” to have the server answer."
                        .into()
                }
                _ => "The compact model is not loaded. Load it first, or let the server answer.".into(),
            }),
            (false, _) if self.phase == Phase::Ready => Route::Worker(AskMode::ServerOnly),
            (false, _) => Route::Page,
        }
    }

    /// Starts a burst and gives it its number.
    pub fn begin(&mut self, questions: &[String], mode: AskMode, now_ms: f64) -> u64 {
        let ask = self.next_id();
        self.run = Some(Run::new(ask, questions, mode, now_ms));
        ask
    }

    /// Goes on with an answer that was cut; returns the ask's number, the question, and what there is of the answer.
    pub fn go_on(&mut self, index: usize, mode: AskMode, now_ms: f64) -> Option<(u64, String, String)> {
        let ask = self.next_id();
        let (question, begun) = self.run.as_mut()?.go_on(index, ask, mode, now_ms)?;
        Some((ask, question, begun))
    }

    /// Whether the burn-wgpu policy should be loaded now: a desktop-class GPU, nothing else going on, and nobody has said
    /// no to it yet.
    #[must_use]
    pub fn wants_gpu_policy(&self) -> bool {
        self.phase == Phase::Ready
            && self.tier.as_ref().is_some_and(|t| t.desktop_class && t.tier == Tier::WebGpu)
            && self.backend != Some(PolicyBackend::BurnWgpu)
            && self.backend_note.is_none()
            && !self.busy()
            && !self.model().is_coming()
    }

    /// The worker died. What was written stays.
    pub fn worker_lost(&mut self, again: bool, reason: &str) {
        let mut loading = self.model_states.iter().filter(|(_, state)| matches!(state, ModelState::Loading { .. }));
        self.broke = loading.next().map(|(id, _)| id.clone());
        let text = if again {
            let loading =
                if self.broke.is_some() { " A model was being loaded: load it again if you wish." } else { "" };
            format!(
                "The engine stopped and is being started again; nothing you typed is lost.{loading} The cause: {reason}"
            )
        } else {
            format!("This tab cannot run the engine, so the server answers everything. The cause: {reason}")
        };
        self.phase = if again { Phase::Starting } else { Phase::Absent(reason.to_owned()) };
        self.model_states.clear();
        self.pair = None;
        self.verdict = None;
        self.calibrating = None;
        self.backend = None;
        self.backend_note = None;
        self.policies.clear();
        if let Some(run) = self.run.as_mut().filter(|run| run.active()) {
            run.status = Status::Failed("The engine stopped in the middle of this answer. Ask again.".into());
        }
        self.notify(Kind::Problem, text);
    }

    /// Takes in an event of the worker.
    pub fn apply(&mut self, event: Event, now_ms: f64) -> Vec<Effect> {
        if let Event::Calibrated { ask, .. } | Event::Failed { ask: Some(ask), .. } = event
            && self.calibrating == Some(ask)
        {
            self.calibrating = None;
        }
        let in_run = self.run.as_mut().is_some_and(|run| run.apply(&event, now_ms));
        match event {
            Event::Ready { version, .. } if version != VERSION => return vec![Effect::Reload],
            Event::Ready { tier, models, server, .. } => {
                self.phase = Phase::Ready;
                self.tier = Some(tier);
                self.models = models;
                self.server = Some(server);
                // Until a person chooses, it is the one that the server's owner chose.
                if let Some(entry) = self.models.iter().find(|entry| entry.preferred && self.choice == 0) {
                    self.source = ModelSource::Server { id: entry.id.clone() };
                }
                // Said before or after `Ready`, a model that is already here is put to use.
                return self.load_by_itself(&self.source.id());
            }
            Event::Server { server } => {
                let was_up = self.server.as_ref().is_some_and(|s| s.up);
                if was_up && !server.up {
                    let cause = server.problem.clone().unwrap_or_else(|| "it does not answer".into());
                    let what = if self.device_ready() {
                        "The device answers alone."
                    } else {
                        "Asking works again when it is back."
                    };
                    self.notify(Kind::Problem, format!("The server is gone: {cause}. {what}"));
                } else if !was_up && server.up && self.server.is_some() {
                    self.notify(Kind::Info, "The server is back.");
                }
                self.server = Some(server);
            }
            Event::Tier { tier } => {
                // The rest of what it says of itself is in the header.
                if self.tier.as_ref().is_none_or(|before| before.tier != tier.tier) {
                    self.notify(Kind::Info, tier.reason.clone());
                }
                self.tier = Some(tier);
            }
            Event::World { view } => self.view = Some(view),
            Event::Model { id, state } => {
                if let ModelState::Failed { message } = &state {
                    self.notify(Kind::Problem, message.clone());
                }
                // Only the first word about a model starts it: after a person deleted it, it stays deleted.
                let first = self.model_states.insert(id.clone(), state).is_none();
                if first && self.phase == Phase::Ready {
                    return self.load_by_itself(&id);
                }
            }
            Event::Inspected { ask, verdict } => {
                if self.inspecting == Some(ask) {
                    self.verdict = Some(Ok(verdict));
                }
            }
            Event::Failed { ask: Some(ask), message } if self.inspecting == Some(ask) => {
                self.verdict = Some(Err(message));
            }
            Event::Calibrated { measured, .. } => return vec![Effect::Calibrate(measured)],
            Event::Pair { pair } => self.pair = pair,
            Event::PolicyBackend { backend, note } => {
                if let Some(note) = &note {
                    self.notify(Kind::Info, note.clone());
                }
                self.backend = Some(backend);
                self.backend_note = note;
                self.backend_told = self.backend_told.wrapping_add(1);
            }
            Event::Policy { users, name: Some(name) } => {
                self.notify(Kind::Info, format!("“{name}” decides in the playground, for K = {users}."));
                self.policies.insert(users, name);
                return vec![Effect::Decide(users)];
            }
            Event::Policy { users, name: None } => {
                self.policies.remove(&users);
            }
            Event::Notice { message, .. } => self.notify(Kind::Info, message),
            // The failure of the run on the screen is shown there.
            Event::Failed { message, .. } if !in_run => self.notify(Kind::Problem, message),
            Event::Done { ask, record } => {
                if self.log.len() == LOG_CAPACITY {
                    self.log.pop_front();
                }
                let seed = self.view.as_ref().map(|v| v.seed);
                self.log.push_back(LogRow { ask, seed, record, compared: None });
            }
            Event::Compared { ask, accuracy, hallucination, .. } => {
                if let Some(row) = self.log.iter_mut().rev().find(|row| row.ask == ask) {
                    row.compared = Some(Compared { accuracy, hallucination });
                }
            }
            // What this page never asks for is of no interest to it.
            Event::Failed { .. }
            | Event::Plan { .. }
            | Event::Token { .. }
            | Event::PromptDone { .. }
            | Event::Text { .. }
            | Event::Written { .. }
            | Event::Embedded { .. }
            | Event::Memory { .. }
            // A chat hears these.
            | Event::Context { .. } => {}
        }
        Vec::new()
    }

    /// The chosen model of the server's list is loaded by itself where it is on this device, or so small that nobody has to be
    /// asked, or what the server's owner wants.
    fn load_by_itself(&mut self, id: &str) -> Vec<Effect> {
        let usable = self.tier.as_ref().is_some_and(|t| t.tier != Tier::ServerOnly);
        let wanted = match self.model_states.get(id) {
            Some(ModelState::Cached) => true,
            Some(ModelState::Absent | ModelState::Partial { .. }) => self.waits.is_none() && self.by_itself().is_some(),
            _ => false,
        };
        // One that takes the worker with it would do so again and again.
        let broke = self.broke.as_deref() == Some(id);
        if broke || !usable || !wanted || !matches!(&self.source, ModelSource::Server { id: own } if own == id) {
            return Vec::new();
        }
        self.unasked = true;
        vec![Effect::Send(self.load(true))]
    }
}

#[cfg(test)]
mod tests;
