//! Messages between the page (main thread) and the engine worker.
//!
//! The page sends [`Command`]s, the worker answers with [`Event`]s. Neither waits for the other: every long task reports
//! progress as events and ends on its own cancel command.
//!
//! A message is one text: the JSON of a command or of an event. A command whose [`ModelSource`] is files that a person
//! chose travels as `{ command, files }`, with a list of `File`s (of `Blob`s for a single one) beside the text.
//!
//! The answers that only pages without this crate ask for are written here and read in JavaScript: the marked fields come
//! out empty in Rust, which keeps their readers out of the page's module.

use serde::{Deserialize, Serialize};

use super::engine::{ContextUse, Finish, Input, MemoryReport, ModelSource, Read, Turn, Verdict, WriteRecord};
use super::manifest::ModelEntry;
use super::sampling::Sampling;
use super::similarity::default_threshold;
pub use super::tier::{Tier, TierChoice, TierReport};
use super::world::{Calibration, PolicyBackend, WorldSettings, WorldView};

/// Page → worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Command {
    /// First message: probe the device, fetch manifests and the policy, open the world. Answered by [`Event::Ready`].
    Init {
        /// [`super::VERSION`] of the page.
        version: u32,
        /// Absolute URL of the server, with a slash at the end; empty for none.
        base_url: String,
        /// Tier to use instead of the best one.
        tier: TierChoice,
        /// The world to start with.
        world: WorldSettings,
    },
    /// Look at a model's header and at this device, and say what loading it would take. Answered by [`Event::Inspected`], or
    /// by [`Event::Failed`] with the same number.
    Inspect {
        /// Chosen by the page, of the same numbers as asks.
        ask: u64,
        /// Which model.
        source: ModelSource,
        /// Tokens of context; `None` for the model's own.
        context: Option<u32>,
    },
    /// Download (or take from the cache), verify and load a model. Reports [`Event::Model`].
    LoadModel {
        /// Which model.
        source: ModelSource,
        /// Tokens of context; `None` for the model's own.
        context: Option<u32>,
        /// Whether the page does so by itself: it gives way to a model that a person wants.
        #[serde(default)]
        unasked: bool,
    },
    /// Stop the download under way; what has arrived is kept for the next try.
    CancelLoad,
    /// Remove a model from the cache and from memory.
    DeleteModel {
        /// [`ModelSource::id`].
        id: String,
    },
    /// Change the world; answered by [`Event::World`].
    SetWorld {
        /// All settings, not a difference.
        world: WorldSettings,
    },
    /// Go on by one slot; answered by [`Event::World`].
    NextSlot,
    /// Start again from the seed; answered by [`Event::World`].
    ResetWorld,
    /// Load the burn-wgpu policy module, or stop using it. Answered by [`Event::PolicyBackend`].
    UsePolicyBackend {
        /// Which one.
        backend: PolicyBackend,
    },
    /// Decide with a policy from elsewhere for the number of devices that it was trained for, in place of the shipped
    /// one. Answered by [`Event::Policy`].
    UsePolicy {
        /// Path on the server, without a slash at the beginning.
        path: String,
        /// What the policy is called from now on.
        name: String,
    },
    /// Decide with the shipped policy again. Answered by [`Event::Policy`].
    DropPolicy {
        /// For this number of devices.
        users: usize,
    },
    /// Answer a burst of prompts in the present slot.
    Ask {
        /// Chosen by the page; every event of this ask carries it.
        ask: u64,
        /// What to answer; none empty.
        prompts: Vec<String>,
        /// What of each answer is written already and to be gone on with, in the order of the prompts; what is missing is
        /// empty.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        begun: Vec<String>,
        /// How.
        options: AskOptions,
    },
    /// Say what a question of a conversation would take of the context. Answered by [`Event::Context`], or by
    /// [`Event::Failed`] with the same number.
    Count {
        /// Chosen by the page, of the same numbers as asks.
        ask: u64,
        /// The question; may be empty.
        prompt: String,
        /// How it would be asked.
        options: AskOptions,
    },
    /// Answer a burst for the sake of measuring both sides. Answered by [`Event::Calibrated`], or by [`Event::Failed`] with
    /// the same number.
    Calibrate {
        /// Chosen by the page, of the same numbers as asks.
        ask: u64,
        /// What to answer; none empty.
        prompts: Vec<String>,
    },
    /// Let the model in memory write, without cell, policy and server. [`Event::Text`] brings the text, then
    /// [`Event::Written`] or [`Event::Failed`] ends it.
    Write {
        /// Chosen by the page, of the same numbers as asks.
        ask: u64,
        /// What to continue.
        input: Input,
        /// How.
        #[serde(default)]
        options: Sampling,
    },
    /// Embed texts with the model in memory. Answered by [`Event::Embedded`].
    Embed {
        /// Chosen by the page, of the same numbers as asks.
        ask: u64,
        /// What to embed; none empty.
        texts: Vec<String>,
    },
    /// Say what the engine occupies. Answered by [`Event::Memory`].
    Measure {
        /// Chosen by the page, of the same numbers as asks.
        ask: u64,
    },
    /// Stop an ask within one token, on both sides.
    Stop {
        /// Which one.
        ask: u64,
    },
}

/// Where the answer may be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AskMode {
    /// By α.
    #[default]
    Split,
    /// On this device alone.
    LocalOnly,
    /// On the server alone.
    ServerOnly,
}

/// How to answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AskOptions {
    /// Where.
    pub mode: AskMode,
    /// How long and how freely.
    pub sampling: Sampling,
    /// Hold the uplink back to the simulated rate.
    pub pacing: bool,
    /// After the answers, ask the server for its own answer to what was made locally and compare (eq. 26–27).
    pub compare: bool,
    /// Threshold γ of eq. 27 for that, in −1..=1.
    pub threshold: f64,
    /// What was said before, by a person and by the models in turn: each prompt is the next thing that the person says. Where
    /// it does not fit into the context any more, the worker leaves the oldest exchanges out ([`Event::Context`]).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Turn>,
}

impl Default for AskOptions {
    fn default() -> Self {
        Self {
            mode: AskMode::Split,
            sampling: Sampling::default(),
            pacing: true,
            compare: true,
            threshold: default_threshold(),
            earlier: Vec::new(),
        }
    }
}

/// Who wrote a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The compact model, in this tab.
    Device,
    /// The full model, on the server.
    Server,
}

/// Worker → page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Event {
    /// The worker is up.
    Ready {
        /// [`super::VERSION`] of the worker.
        version: u32,
        /// What this tab can run.
        tier: TierReport,
        /// Models that the server offers (empty when it did not answer).
        models: Vec<ModelEntry>,
        /// Whether the server answered.
        server: ServerHealth,
    },
    /// The server came, went or changed.
    Server {
        /// Its state.
        server: ServerHealth,
    },
    /// The tier changed (device lost, fallback).
    Tier {
        /// What runs now.
        tier: TierReport,
    },
    /// The world changed.
    World {
        /// All of it.
        view: WorldView,
    },
    /// The answer to [`Command::Calibrate`].
    Calibrated {
        /// Which ask.
        ask: u64,
        /// What was measured.
        measured: Calibration,
    },
    /// The answer to [`Command::Inspect`].
    Inspected {
        /// Which ask.
        ask: u64,
        /// What loading would take.
        verdict: Verdict,
    },
    /// Text of a [`Command::Write`].
    Text {
        /// Which ask.
        ask: u64,
        /// New text, whole UTF-8 characters.
        text: String,
    },
    /// A [`Command::Write`] is over.
    Written {
        /// Which ask.
        ask: u64,
        /// What it took.
        #[serde(skip_deserializing)]
        record: WriteRecord,
    },
    /// The answer to [`Command::Embed`].
    Embedded {
        /// Which ask.
        ask: u64,
        /// One vector a text: the mean of the final hidden states over all tokens, scaled to length 1; `[dim]`.
        #[serde(skip_deserializing)]
        vectors: Vec<Vec<f32>>,
        /// Tokens of all texts.
        tokens: usize,
    },
    /// The answer to [`Command::Measure`].
    Memory {
        /// Which ask.
        ask: u64,
        /// What is occupied.
        #[serde(skip_deserializing)]
        memory: MemoryReport,
    },
    /// What the model of this tab and that of the server have to do with each other; told when one of them changes.
    Pair {
        /// `None` while one of them is not there.
        pair: Option<Pair>,
    },
    /// A model changed state.
    Model {
        /// [`ModelSource::id`].
        id: String,
        /// Its state.
        state: ModelState,
    },
    /// Which policy backend decides from now on.
    PolicyBackend {
        /// The one in use.
        backend: PolicyBackend,
        /// Why the other one is not, in plain words.
        note: Option<String>,
    },
    /// Another policy decides from now on.
    Policy {
        /// For this number of devices.
        users: usize,
        /// Its name; `None` for the shipped one.
        name: Option<String>,
    },
    /// The answer to [`Command::Count`]; also told of an ask that goes on with a conversation, before it is split.
    Context {
        /// Which ask.
        ask: u64,
        /// What it takes; `None` where no model of this tab is loaded whose tokenizer could count.
        used: Option<ContextUse>,
    },
    /// An ask was split; nothing is written yet.
    Plan {
        /// Which ask.
        ask: u64,
        /// Offloading ratio in force (0 or 1 when only one side answers).
        alpha: f64,
        /// Transmit power.
        power_w: f64,
        /// One entry a prompt, in the order of the ask.
        prompts: Vec<PromptPlan>,
        /// Modelled uplink time that pacing will make felt.
        uplink_s: f64,
    },
    /// Text was written.
    Token {
        /// Which ask.
        ask: u64,
        /// Index of the prompt.
        prompt: usize,
        /// Who wrote it.
        origin: Origin,
        /// New text, whole UTF-8 characters.
        text: String,
    },
    /// One prompt is answered.
    PromptDone {
        /// Which ask.
        ask: u64,
        /// Index of the prompt.
        prompt: usize,
        /// Why its answer ends there.
        #[serde(default)]
        finish: Finish,
    },
    /// Something that a person should know; the work goes on.
    Notice {
        /// Which ask, if any.
        ask: Option<u64>,
        /// What happened and what to do, in plain words.
        message: String,
    },
    /// An ask is over; the world has moved on by a slot.
    Done {
        /// Which ask.
        ask: u64,
        /// Modelled and measured, side by side.
        record: SlotRecord,
    },
    /// The comparison of an ask arrived (after [`Event::Done`]).
    Compared {
        /// Which ask.
        ask: u64,
        /// Eq. 26 and 27 by prompt; `None` where the server wrote all of it.
        prompts: Vec<Option<PromptQuality>>,
        /// Effective accuracy, eq. 28, with A^MEC = 1.
        accuracy: f64,
        /// Effective hallucination, eq. 28, with H^MEC = 0.
        hallucination: f64,
    },
    /// A command could not be carried out.
    Failed {
        /// Which ask, if any.
        ask: Option<u64>,
        /// What happened and what to do, in plain words.
        message: String,
    },
}

/// Share of one prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PromptPlan {
    /// Part of the task, in bits.
    pub bits: f64,
    /// Entropy of the compact model's first token, in nats; `None` where no compact model is loaded, or where nothing
    /// depends on it (a single prompt, or a ratio of 0 or 1).
    pub entropy: Option<f32>,
    /// Share of this prompt's answer that the server is to write, 0..=1; between them for the one on the boundary. Who
    /// writes how much of it in the end depends on how long all answers turn out to be.
    pub server_share: f64,
}

/// State of the server as seen from here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServerHealth {
    /// Whether the last request was answered.
    pub up: bool,
    /// Name of the full model.
    pub model: Option<String>,
    /// Round trip of the last `/health`.
    pub rtt_ms: Option<f64>,
    /// What went wrong, in plain words.
    pub problem: Option<String>,
}

/// The two models that answer together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// Whether they may share an answer.
    pub fit: Fit,
    /// Which they are and what that means, in plain words.
    pub message: String,
    /// Id of a model in the manifest that belongs to the server's.
    pub offer: Option<String>,
}

/// Whether two models may share an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fit {
    /// They cut text into the same tokens.
    Same,
    /// They do not, or are of different families.
    Different,
    /// The server does not say enough of its model.
    Unknown,
}

/// State of a model in this tab.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum ModelState {
    /// Not here.
    Absent,
    /// In part here: a cut or cancelled download that can go on.
    Partial {
        /// Bytes that are here.
        received: u64,
        /// Bytes in all.
        total: u64,
    },
    /// On this device, not in memory.
    Cached,
    /// Arriving.
    Downloading {
        /// Bytes so far.
        received: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Being checked and put into GPU or wasm memory.
    Loading {
        /// Bytes of its weights that have been read so far.
        read: u64,
        /// Bytes of all of them; 0 while that is not known yet.
        total: u64,
    },
    /// On its way into GPU memory, and waits while the kernels that it needs are tested on this GPU.
    Testing {
        /// Trials that are over.
        over: u64,
        /// All of them.
        total: u64,
    },
    /// Ready to answer.
    Ready {
        /// How much GPU or wasm memory the weights take.
        memory_bytes: u64,
    },
    /// Did not work.
    Failed {
        /// What happened and what to do.
        message: String,
    },
}

impl ModelState {
    /// Whether it is being downloaded or put into memory.
    #[must_use]
    pub fn is_coming(&self) -> bool {
        matches!(self, Self::Downloading { .. } | Self::Loading { .. } | Self::Testing { .. })
    }
}

/// One slot, modelled and measured: a row of the log and of the CSV file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlotRecord {
    /// Slot number.
    pub slot: u64,
    /// Number of prompts.
    pub prompts: usize,
    /// Task size X.
    pub size_bits: f64,
    /// Offloading ratio α.
    pub alpha: f64,
    /// Transmit power p.
    pub power_w: f64,
    /// Uplink rate, eq. 19.
    pub rate_bps: f64,
    /// Eq. 14.
    pub model_local_s: f64,
    /// Eq. 20.
    pub model_uplink_s: f64,
    /// Eq. 22.
    pub model_server_s: f64,
    /// Eq. 29.
    pub model_latency_s: f64,
    /// Eq. 15 + 21.
    pub model_energy_j: f64,
    /// Eq. 28.
    pub model_accuracy: f64,
    /// Eq. 28.
    pub model_hallucination: f64,
    /// Time that the device computed; `None` where it did nothing.
    pub measured_local_s: Option<f64>,
    /// Time that the uplink was held back or took.
    pub measured_uplink_s: Option<f64>,
    /// Time from the request to the server's last token.
    pub measured_server_s: Option<f64>,
    /// Time from Enter to the last token.
    pub measured_latency_s: f64,
    /// Time from Enter to the first token of the device's own.
    pub device_ttft_s: Option<f64>,
    /// Time from Enter to the first token of the server's.
    pub server_ttft_s: Option<f64>,
    /// Tokens written here.
    pub device_tokens: usize,
    /// Tokens written there.
    pub server_tokens: usize,
    /// Decode rate here; `None` with fewer than two tokens.
    pub device_tokens_per_s: Option<f64>,
    /// Decode rate there, by the server's own clock; `None` from servers that do not tell.
    pub server_tokens_per_s: Option<f64>,
    /// Share of all tokens that the server wrote, which is to come out at α; `None` where nothing was written.
    #[serde(default)]
    pub done_alpha: Option<f64>,
    /// How often an answer changed hands.
    #[serde(default)]
    pub handovers: usize,
    /// Time between the last token of one side and the first of the other in such an answer, in all.
    #[serde(default)]
    pub handover_s: f64,
    /// What this device read of prompts; `None` where it read nothing.
    #[serde(default)]
    pub device_read: Option<Read>,
    /// What the server read of prompts, as far as it told; `None` from servers that do not.
    #[serde(default)]
    pub server_read: Option<Read>,
    /// Whether a person stopped it.
    pub stopped: bool,
    /// Whether the device had to finish the server's part.
    pub server_lost: bool,
}

/// Eq. 26 and 27 of one prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PromptQuality {
    /// The full model's answer to the same prompt.
    pub reference: String,
    /// Eq. 26.
    pub accuracy: f64,
    /// Eq. 27.
    pub hallucination: f64,
}
