//! The engine worker: it takes [`Command`]s from the page and posts [`Event`]s.
//!
//! | module | what it does |
//! | --- | --- |
//! | `init` | the greeting: what can run here, what the server has |
//! | `tier` | choosing WebGPU, the CPU, or nothing |
//! | `self_test` | the GPU's self-test, kept from visit to visit |
//! | `models` | finding, download, load, delete |
//! | `folder` | a checkpoint's files in a folder of some server |
//! | `inspect` | what a model would take, and what the engine does take |
//! | `engine` | the loaded model as a [`LocalEngine`](client::offload::ports::LocalEngine), from GPU to CPU when the GPU is lost |
//! | `asks` | answering, stopping, comparing |
//! | `talk` | what of a conversation fits into the context |
//! | `write` | the model by itself: writing, embedding |
//! | `world` | the simulated cell: changes one after the other, views out |
//! | `policies` | the policy files, and the two modules that decide with them |
//! | `health` | looking after the server |
//! | `pair` | whether this tab's model and the server's belong together |
//!
//! One thread, many tasks: a command starts a task and returns at once. A task never holds a `RefCell` across an await. The
//! engine gives way between tokens, so that a command that arrives while it writes is seen before the next token.

mod asks;
mod engine;
mod folder;
mod health;
mod init;
mod inspect;
mod models;
mod pair;
mod policies;
mod self_test;
mod talk;
mod tier;
mod world;
mod write;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::spawn_local;
use web_sys::{Blob, DedicatedWorkerGlobalScope, MessageEvent};

use super::clock::BrowserClock;
use super::kernels::Kernels;
use super::message::command_of;
use super::transport::Server;
use ::engine::gpu::{GpuContext, SelfTestReport};
use client::offload::length::AnswerLength;
use client::offload::ports::Clock;
use client::protocol::health::HealthModel;
use client::protocol::manifest::ModelManifest;
use client::protocol::worker::{Command, Event, Pair, ServerHealth, Tier, TierChoice, TierReport};

/// Entry point of `worker.wasm`.
pub fn start() {
    console_error_panic_hook::set_once();
    let scope: DedicatedWorkerGlobalScope = js_sys::global().unchecked_into();
    let engine_worker = Rc::new(EngineWorker::new(scope.clone()));
    let on_message =
        Closure::<dyn FnMut(MessageEvent)>::new(move |message: MessageEvent| match command_of(&message.data()) {
            Ok((command, files)) => engine_worker.handle(command, files),
            Err(error) => {
                let message = format!("The page and its engine are of different versions ({error}). Reload the page.");
                engine_worker.emit(Event::Failed { ask: None, message });
            }
        });
    scope.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
    // It lives as long as the worker.
    on_message.forget();
}

/// Everything that the worker's tasks share.
struct EngineWorker {
    scope: DedicatedWorkerGlobalScope,
    clock: BrowserClock,
    server: RefCell<Server>,
    health: RefCell<ServerHealth>,
    /// The model of the server, as it last said.
    server_model: RefCell<Option<HealthModel>>,
    /// What the page was last told of the two models.
    pair: RefCell<Option<Pair>>,
    manifest: RefCell<ModelManifest>,
    choice: Cell<TierChoice>,
    tier: RefCell<TierReport>,
    gpu: RefCell<Option<GpuContext>>,
    /// What is known of the GPU's kernels.
    tested: RefCell<Option<SelfTestReport>>,
    /// The kernels' module, once it was needed.
    kernels: futures::lock::Mutex<Option<Rc<Kernels>>>,
    models: models::Models,
    asks: RefCell<BTreeMap<u64, asks::Asked>>,
    /// Texts that wait to be written.
    drafts: RefCell<VecDeque<write::Draft>>,
    /// Asks are answered one after the other.
    turn: futures::lock::Mutex<()>,
    /// How long the answers of a pair of models are.
    lengths: RefCell<Vec<([String; 2], AnswerLength)>>,
    world: world::CellQueue,
    policies: policies::Policies,
    /// When the page last wanted something.
    last_command_s: Cell<f64>,
}

impl EngineWorker {
    fn new(scope: DedicatedWorkerGlobalScope) -> Self {
        let unknown = TierReport {
            tier: Tier::ServerOnly,
            device: String::new(),
            reason: "Not looked at yet.".to_owned(),
            desktop_class: false,
        };
        Self {
            scope,
            clock: BrowserClock::default(),
            server: RefCell::default(),
            health: RefCell::default(),
            server_model: RefCell::default(),
            pair: RefCell::default(),
            manifest: RefCell::default(),
            choice: Cell::default(),
            tier: RefCell::new(unknown),
            gpu: RefCell::default(),
            tested: RefCell::default(),
            kernels: futures::lock::Mutex::default(),
            models: models::Models::default(),
            asks: RefCell::default(),
            drafts: RefCell::default(),
            turn: futures::lock::Mutex::new(()),
            lengths: RefCell::default(),
            world: world::CellQueue::default(),
            policies: policies::Policies::default(),
            last_command_s: Cell::default(),
        }
    }

    fn handle(self: &Rc<Self>, command: Command, files: Vec<Blob>) {
        // A page that only listens for a sign of life wants nothing.
        if !matches!(command, Command::Measure { .. }) {
            self.last_command_s.set(self.clock.now_s());
        }
        let engine_worker = Rc::clone(self);
        match command {
            Command::Init { version: _, base_url, tier, world } => {
                spawn_local(async move { engine_worker.init(&base_url, tier, world).await });
            }
            Command::Inspect { ask, source, context } => {
                self.models.choose(&source, files);
                spawn_local(async move { engine_worker.inspect(ask, &source, context).await });
            }
            Command::LoadModel { source, context, unasked } => {
                self.models.choose(&source, files);
                spawn_local(async move { engine_worker.load_model(&source, context, unasked).await });
            }
            Command::Write { ask, input, options } => self.write(ask, input, options),
            Command::Embed { ask, texts } => self.embed(ask, texts),
            Command::Measure { ask } => spawn_local(async move { engine_worker.measure(ask).await }),
            Command::CancelLoad => self.cancel_load(),
            Command::DeleteModel { id } => spawn_local(async move { engine_worker.delete_model(&id).await }),
            Command::SetWorld { world } => self.change_world(world::Change::Set(Box::new(world))),
            Command::NextSlot => self.change_world(world::Change::Next),
            Command::ResetWorld => self.change_world(world::Change::Reset),
            Command::UsePolicyBackend { backend } => {
                spawn_local(async move { engine_worker.use_policy_backend(backend).await });
            }
            Command::UsePolicy { path, name } => {
                spawn_local(async move { engine_worker.use_policy(&path, name).await });
            }
            Command::DropPolicy { users } => self.drop_policy(users),
            Command::Ask { ask, prompts, begun, options } => self.ask(ask, prompts, begun, options),
            Command::Count { ask, prompt, options } => {
                spawn_local(async move { engine_worker.count(ask, &prompt, &options).await });
            }
            Command::Calibrate { ask, prompts } => self.calibrate(ask, prompts),
            Command::Stop { ask } => {
                if let Some(asked) = self.asks.borrow().get(&ask) {
                    asked.stop.stop();
                }
            }
        }
    }

    fn emit(&self, event: Event) {
        match serde_json::to_string(&event) {
            // A page that is gone cannot be told.
            Ok(message) => drop(self.scope.post_message(&message.into())),
            Err(error) => web_sys::console::error_1(&format!("an event could not be sent: {error}").into()),
        }
    }

    fn notice(&self, message: impl Into<String>) {
        self.emit(Event::Notice { ask: None, message: message.into() });
    }

    fn server(&self) -> Server {
        self.server.borrow().clone()
    }
}
