//! The policy files and the two backends that they run on. burn flex decides from the first second; burn-wgpu is a worker of
//! its own, started when the page asks for it and left again at the first fault.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use burn::tensor::Device;
use futures::channel::oneshot;
use sha2::{Digest, Sha256};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::spawn_local;
use web_sys::{MessageEvent, Worker};

use super::Hub;
use crate::cell::PolicyDecision;
use crate::js::fetch;
use crate::js::message::{describe, from_js, property, to_js};
use crate::js::policy_link::{Bytes, Reply, Request};
use crate::mec::{UserDecision, World};
use crate::offload::ports::Clock;
use crate::offload::run::within;
use crate::policy::{GoldenCase, Policy, PolicyEntry, PolicyManifest};
use crate::protocol::worker::Event;
use crate::protocol::world::{DecisionView, PolicyBackend};

/// Trunk's loader of the burn-wgpu module, beside this worker's.
const GPU_WORKER: &str = "./policy_gpu_loader.js";
/// A policy of the usual shape takes 0.3 MB; this is far beyond any that would still be quick.
const MAX_FILE_BYTES: usize = 32 << 20;
/// The module has megabytes to download and shaders to compile.
const START_LIMIT_S: f64 = 120.0;
/// The first decision compiles shaders.
const REPLY_LIMIT_S: f64 = 20.0;
/// Backends may differ by this much, in α and in watts; more means that the GPU computes nonsense.
const MAX_DIFFERENCE: f64 = 1e-3;

/// Policies and who computes them.
#[derive(Default)]
pub(super) struct PolicyDesk {
    manifest: RefCell<PolicyManifest>,
    files: RefCell<BTreeMap<usize, File>>,
    /// Policies from elsewhere, which come before the shipped ones.
    chosen: RefCell<BTreeMap<usize, Rc<Held>>>,
    /// Files that were read, to tell them apart.
    held: Cell<u32>,
    gpu: RefCell<Option<Rc<GpuLink>>>,
    /// Raised with every switch, so that a slow start that nobody wants any more is noticed.
    switches: Cell<u32>,
}

/// The policy for a number of devices.
enum File {
    Fetching,
    /// Not to be had; said once.
    Missing,
    Ready(Rc<Held>),
}

struct Held {
    id: String,
    /// Different for every file that was read: another one may bear the same name.
    number: u32,
    bytes: Vec<u8>,
    flex: Policy,
}

impl Hub {
    /// Fetches the list of policies; a server that is away is asked again when it is back.
    pub(super) async fn fetch_policy_manifest(&self) {
        if !self.policies.manifest.borrow().policies.is_empty() {
            return;
        }
        let Ok(text) = fetch::text(&self.server().url("policies/manifest.json")).await else { return };
        match PolicyManifest::parse(&text) {
            Ok(manifest) => *self.policies.manifest.borrow_mut() = manifest,
            Err(error) => self.notice(format!("The server's list of policies cannot be used: {error}.")),
        }
    }

    /// What the policy decides about the present slot; `None` while there is none for this number of devices (its file
    /// is fetched then, and the world shown again).
    pub(super) async fn policy_decision(self: &Rc<Self>, world: &World) -> Option<PolicyDecision> {
        let held = self.held(world.slots().len())?;
        let link = self.policies.gpu.borrow().clone();
        if let Some(link) = link {
            match link.decide(self, &held, world).await {
                Ok((decisions, millis)) => return Some(decision(&held, PolicyBackend::BurnWgpu, decisions, millis)),
                Err(problem) => self.leave_gpu(&problem),
            }
        }
        match self.decide_flex(&held, world).await {
            Ok((decisions, millis)) => Some(decision(&held, PolicyBackend::Flex, decisions, millis)),
            Err(problem) => {
                let users = world.slots().len();
                if self.policies.chosen.borrow_mut().remove(&users).is_some() {
                    self.notice(format!("The policy “{}” cannot decide ({problem}); the shipped one does.", held.id));
                    self.emit(Event::Policy { users, name: None });
                } else {
                    self.policies.files.borrow_mut().insert(users, File::Missing);
                    self.notice(format!("The policy cannot decide ({problem}); the closed form does."));
                }
                None
            }
        }
    }

    async fn decide_flex(&self, held: &Held, world: &World) -> Result<(Vec<UserDecision>, f64), String> {
        let begun_s = self.clock.now_s();
        let decisions = held.flex.decide(world.physics(), &world.observation()).await;
        Ok((decisions.map_err(|error| error.to_string())?, (self.clock.now_s() - begun_s) * 1e3))
    }

    /// Fetches a policy from elsewhere on the server and decides with it from now on.
    pub(super) async fn use_policy(self: &Rc<Self>, path: &str, name: String) {
        let failed = |problem: String| Event::Failed {
            ask: None,
            message: format!("The policy “{name}” cannot be used: {problem}. The one before still decides."),
        };
        if !is_plain_path(path) {
            return self.emit(failed("its address is damaged".to_owned()));
        }
        let fetched = fetch::bytes(&self.server().url(path), MAX_FILE_BYTES).await;
        match fetched.and_then(|bytes| self.hold(name.clone(), bytes)) {
            Ok(held) => {
                let users = held.flex.users();
                self.policies.chosen.borrow_mut().insert(users, Rc::new(held));
                self.emit(Event::Policy { users, name: Some(name) });
                self.show_world();
            }
            Err(problem) => self.emit(failed(problem)),
        }
    }

    /// Decides with the shipped policy again.
    pub(super) fn drop_policy(self: &Rc<Self>, users: usize) {
        self.policies.chosen.borrow_mut().remove(&users);
        self.emit(Event::Policy { users, name: None });
        self.show_world();
    }

    fn hold(&self, id: String, bytes: Vec<u8>) -> Result<Held, String> {
        let flex = Policy::load(&bytes, &Device::flex()).map_err(|error| error.to_string())?;
        let number = self.policies.held.get() + 1;
        self.policies.held.set(number);
        Ok(Held { id, number, bytes, flex })
    }

    fn held(self: &Rc<Self>, users: usize) -> Option<Rc<Held>> {
        if let Some(chosen) = self.policies.chosen.borrow().get(&users) {
            return Some(Rc::clone(chosen));
        }
        match self.policies.files.borrow().get(&users) {
            Some(File::Ready(held)) => return Some(Rc::clone(held)),
            Some(File::Fetching | File::Missing) => return None,
            None => {}
        }
        let entry = self.policies.manifest.borrow().for_users(users).cloned()?;
        self.policies.files.borrow_mut().insert(users, File::Fetching);
        let hub = Rc::clone(self);
        spawn_local(async move {
            let file = hub.fetch_policy(&entry).await;
            if let Err(problem) = &file {
                hub.notice(format!("The policy {} cannot be used ({problem}); the closed form decides.", entry.id));
            }
            let file = file.map_or(File::Missing, |held| File::Ready(Rc::new(held)));
            hub.policies.files.borrow_mut().insert(users, file);
            hub.show_world();
        });
        None
    }

    async fn fetch_policy(&self, entry: &PolicyEntry) -> Result<Held, String> {
        if !is_plain_path(&entry.file) {
            return Err("its entry in the manifest is damaged".to_owned());
        }
        let url = self.server().url(&format!("policies/{}", entry.file));
        let bytes = fetch::bytes(&url, MAX_FILE_BYTES).await?;
        let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        if sha256 != entry.sha256 {
            return Err("the file is not the one that the manifest describes".to_owned());
        }
        self.hold(entry.id.clone(), bytes)
    }

    /// Switches the backend and says which one decides from now on.
    pub(super) async fn use_policy_backend(self: &Rc<Self>, backend: PolicyBackend) {
        let switch = self.policies.switches.get() + 1;
        self.policies.switches.set(switch);
        let wants_gpu = backend == PolicyBackend::BurnWgpu;
        if !wants_gpu {
            self.policies.gpu.borrow_mut().take();
        } else if self.policies.gpu.borrow().is_none() {
            let started = self.start_gpu().await;
            if self.policies.switches.get() != switch {
                return;
            }
            match started {
                Ok(link) => *self.policies.gpu.borrow_mut() = Some(link),
                Err(problem) => return self.leave_gpu(&problem),
            }
        }
        self.emit(Event::PolicyBackend { backend, note: None });
        self.show_world();
    }

    /// Back to flex, with the reason.
    fn leave_gpu(self: &Rc<Self>, problem: &str) {
        self.policies.gpu.borrow_mut().take();
        let note = Some(format!("burn-wgpu does not decide here: {problem}. burn flex on the CPU does."));
        self.emit(Event::PolicyBackend { backend: PolicyBackend::Flex, note });
    }

    /// Starts the module and sees that it decides as flex does.
    async fn start_gpu(self: &Rc<Self>) -> Result<Rc<GpuLink>, String> {
        let link = Rc::new(GpuLink::start()?);
        within(&self.clock, START_LIMIT_S, link.up()).await.ok_or("its module does not start")??;
        let Some(world) = self.world.world() else { return Ok(link) };
        let Some(held) = self.held(world.slots().len()) else { return Ok(link) };
        let (gpu, _) = link.decide(self, &held, &world).await?;
        let (flex, _) = self.decide_flex(&held, &world).await?;
        let expected = GoldenCase { policy: String::new(), observation: Vec::new(), decision: flex };
        match expected.difference(&gpu) {
            difference if difference <= MAX_DIFFERENCE => Ok(link),
            difference => Err(format!("it decides otherwise than the CPU, by {difference:.2e}")),
        }
    }
}

/// Whether a path leads to somewhere below the server's address.
fn is_plain_path(path: &str) -> bool {
    !path.contains("..") && !path.contains(':') && !path.starts_with('/')
}

fn decision(held: &Held, backend: PolicyBackend, decisions: Vec<UserDecision>, millis: f64) -> PolicyDecision {
    PolicyDecision { decisions, view: DecisionView { backend, millis, policy: held.id.clone() } }
}

type Answer = Result<Option<(Vec<UserDecision>, f64)>, String>;
type Waiting = Rc<RefCell<BTreeMap<u32, oneshot::Sender<Answer>>>>;

/// The number under which the module's first word is waited for.
const UP: u32 = 0;

/// The worker that runs the policy on burn-wgpu. Dropping it ends the worker.
struct GpuLink {
    worker: Worker,
    waiting: Waiting,
    up: RefCell<Option<oneshot::Receiver<Answer>>>,
    calls: Cell<u32>,
    /// Number of the policy that the worker has; locked while it is used.
    loaded: futures::lock::Mutex<Option<u32>>,
    // Dropped together with the worker that calls them.
    _on_message: Closure<dyn FnMut(MessageEvent)>,
    _on_error: Closure<dyn FnMut(web_sys::Event)>,
}

impl Drop for GpuLink {
    fn drop(&mut self) {
        self.worker.set_onmessage(None);
        self.worker.set_onerror(None);
        self.worker.terminate();
    }
}

impl GpuLink {
    fn start() -> Result<Self, String> {
        let worker = Worker::new(GPU_WORKER).map_err(|error| describe(&error))?;
        let waiting: Waiting = Rc::default();
        let (sender, up) = oneshot::channel();
        waiting.borrow_mut().insert(UP, sender);
        let for_message = Rc::clone(&waiting);
        let on_message = Closure::<dyn FnMut(MessageEvent)>::new(move |message: MessageEvent| {
            let (call, answer) = match from_js::<Reply>(message.data()) {
                Ok(Reply::Up { problem: None }) => (UP, Ok(None)),
                Ok(Reply::Up { problem: Some(problem) }) => (UP, Err(problem)),
                Ok(Reply::Loaded { call }) => (call, Ok(None)),
                Ok(Reply::Decided { call, decisions, millis }) => (call, Ok(Some((decisions, millis)))),
                Ok(Reply::Failed { call, problem }) => (call, Err(problem)),
                Err(problem) => return web_sys::console::error_1(&problem.into()),
            };
            // Whoever asked may have stopped waiting.
            if let Some(sender) = for_message.borrow_mut().remove(&call) {
                let _ = sender.send(answer);
            }
        });
        let for_error = Rc::clone(&waiting);
        let on_error = Closure::<dyn FnMut(web_sys::Event)>::new(move |error: web_sys::Event| {
            error.prevent_default();
            // A script that is not there is reported by a plain event, which has no message.
            let said = property(&error, "message").and_then(|message| message.as_string());
            let problem = said.unwrap_or_else(|| "its module could not be loaded".to_owned());
            for (_, sender) in std::mem::take(&mut *for_error.borrow_mut()) {
                let _ = sender.send(Err(problem.clone()));
            }
        });
        worker.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
        worker.set_onerror(Some(on_error.as_ref().unchecked_ref()));
        Ok(Self {
            worker,
            waiting,
            up: RefCell::new(Some(up)),
            calls: Cell::new(UP),
            loaded: futures::lock::Mutex::new(None),
            _on_message: on_message,
            _on_error: on_error,
        })
    }

    async fn up(&self) -> Result<(), String> {
        let up = self.up.borrow_mut().take();
        match up {
            Some(up) => up.await.map_err(|_| "its module ended".to_owned())?.map(drop),
            None => Ok(()),
        }
    }

    async fn decide(&self, hub: &Hub, held: &Held, world: &World) -> Result<(Vec<UserDecision>, f64), String> {
        let mut loaded = self.loaded.lock().await;
        if *loaded != Some(held.number) {
            *loaded = None;
            let bytes = Bytes(held.bytes.clone());
            self.request(hub, |call| Request::Load { call, bytes }).await?;
            *loaded = Some(held.number);
        }
        let (params, seen) = (Box::new(*world.params()), world.observation());
        let answer = self.request(hub, |call| Request::Decide { call, params, seen }).await?;
        answer.ok_or_else(|| "its answer holds no decision".to_owned())
    }

    async fn request(&self, hub: &Hub, make: impl FnOnce(u32) -> Request) -> Answer {
        let call = self.calls.get().wrapping_add(1).max(UP + 1);
        self.calls.set(call);
        let (sender, receiver) = oneshot::channel();
        self.waiting.borrow_mut().insert(call, sender);
        self.worker.post_message(&to_js(&make(call))?).map_err(|error| describe(&error))?;
        let answer = within(&hub.clock, REPLY_LIMIT_S, receiver).await;
        self.waiting.borrow_mut().remove(&call);
        answer.ok_or("it does not answer")?.map_err(|_| "its module ended".to_owned())?
    }
}
