//! The policy files, and what the policy decides with them.
//!
//! | module | what it does |
//! | --- | --- |
//! | `backends` | starting, leaving and comparing the two modules that compute decisions |
//! | `link` | one of these modules: a worker with requests and answers |
//!
//! Deliberately absent: the network. It is in the modules, so that the engine worker does without burn.

mod backends;
mod link;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::rc::Rc;

use sha2::{Digest, Sha256};
use wasm_bindgen_futures::spawn_local;

use super::EngineWorker;
use crate::fetch;
use backends::Backends;
use client::cell::PolicyDecision;
use client::protocol::worker::Event;
use client::protocol::world::{DecisionView, PolicyBackend};
use link::{Decided, Fault};
use mec::World;
use policy::PolicyManifest;

/// A policy of the usual shape takes 0.3 MB; this is far beyond any that would still be quick.
const MAX_FILE_BYTES: usize = 32 << 20;

/// Policies and who computes them.
#[derive(Default)]
pub(super) struct Policies {
    manifest: RefCell<PolicyManifest>,
    /// By the id in the manifest.
    files: RefCell<BTreeMap<String, File>>,
    /// Policies from elsewhere, which come before the shipped ones.
    chosen: RefCell<BTreeMap<usize, Rc<Held>>>,
    /// Files that were read, to tell them apart.
    held: Cell<u32>,
    backends: Backends,
}

/// A policy of the manifest.
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
}

impl EngineWorker {
    /// Fetches the list of policies; a server that is away is asked again when it is back. The module that decides is fetched
    /// meanwhile.
    pub(super) async fn fetch_policy_manifest(self: &Rc<Self>) {
        let known = {
            let manifest = self.policies.manifest.borrow();
            !(manifest.policies.is_empty() && manifest.sets.is_empty())
        };
        if known {
            return;
        }
        self.open_cpu();
        let Ok(text) = fetch::text(&self.server().url("policies/manifest.json")).await else { return };
        match PolicyManifest::parse(&text) {
            Ok(manifest) => *self.policies.manifest.borrow_mut() = manifest,
            Err(error) => self.notice(format!("The server's list of policies cannot be used: {error}.")),
        }
    }

    /// What the policy decides about the present slot; `None` while there is none for this number of devices (its file
    /// is fetched then, and the world shown again) and while no module decides.
    pub(super) async fn policy_decision(self: &Rc<Self>, world: &World) -> Option<PolicyDecision> {
        let held = self.held(world.slots().len())?;
        let gpu = self.policies.backends.gpu.borrow().clone();
        if let Some(gpu) = gpu {
            match gpu.decide(&held, world).await {
                Ok(decided) => return Some(decision(&held, PolicyBackend::BurnWgpu, decided)),
                Err(fault) => self.leave_gpu(&fault.problem()),
            }
        }
        let cpu = self.cpu_link()?;
        match self.decide_on_cpu(&cpu, &held, world).await {
            Ok(decided) => Some(decision(&held, PolicyBackend::Flex, decided)),
            // Said where the module was closed.
            Err(Fault::Broken(_)) => None,
            Err(Fault::Refused(problem)) => {
                let users = world.slots().len();
                if self.policies.chosen.borrow_mut().remove(&users).is_some() {
                    self.notice(format!("The policy “{}” cannot decide ({problem}); the shipped one does.", held.id));
                    self.emit(Event::Policy { users, name: None });
                } else {
                    self.policies.files.borrow_mut().insert(held.id.clone(), File::Missing);
                    self.notice(format!("The policy cannot decide ({problem}); the closed form does."));
                }
                None
            }
        }
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
        match self.fetch_and_try(path, &name).await {
            Ok((held, numbers)) => {
                for users in numbers {
                    self.policies.chosen.borrow_mut().insert(users, Rc::clone(&held));
                    self.emit(Event::Policy { users, name: Some(name.clone()) });
                }
                self.show_world();
            }
            Err(problem) => self.emit(failed(problem)),
        }
    }

    async fn fetch_and_try(
        self: &Rc<Self>,
        path: &str,
        name: &str,
    ) -> Result<(Rc<Held>, RangeInclusive<usize>), String> {
        let bytes = fetch::bytes(&self.server().url(path), MAX_FILE_BYTES).await?;
        let held = Rc::new(self.hold(name.to_owned(), bytes));
        let numbers = self.try_policy(&held).await?;
        Ok((held, numbers))
    }

    /// Decides with the shipped policy again.
    pub(super) fn drop_policy(self: &Rc<Self>, users: usize) {
        self.policies.chosen.borrow_mut().remove(&users);
        self.emit(Event::Policy { users, name: None });
        self.show_world();
    }

    fn hold(&self, id: String, bytes: Vec<u8>) -> Held {
        let number = self.policies.held.get() + 1;
        self.policies.held.set(number);
        Held { id, number, bytes }
    }

    fn held(self: &Rc<Self>, users: usize) -> Option<Rc<Held>> {
        if let Some(chosen) = self.policies.chosen.borrow().get(&users) {
            return Some(Rc::clone(chosen));
        }
        let (id, file, sha256) = {
            let manifest = self.policies.manifest.borrow();
            let best = manifest.best_for(users)?;
            (best.id.to_owned(), best.file.to_owned(), best.sha256.to_owned())
        };
        match self.policies.files.borrow().get(&id) {
            Some(File::Ready(held)) => return Some(Rc::clone(held)),
            Some(File::Fetching | File::Missing) => return None,
            None => {}
        }
        self.policies.files.borrow_mut().insert(id.clone(), File::Fetching);
        let engine_worker = Rc::clone(self);
        spawn_local(async move {
            let file = engine_worker.fetch_policy(&id, &file, &sha256).await;
            if let Err(problem) = &file {
                engine_worker.notice(format!("The policy {id} cannot be used ({problem}); the closed form decides."));
            }
            let file = file.map_or(File::Missing, |held| File::Ready(Rc::new(held)));
            engine_worker.policies.files.borrow_mut().insert(id, file);
            engine_worker.show_world();
        });
        None
    }

    async fn fetch_policy(&self, id: &str, file: &str, expected_sha256: &str) -> Result<Held, String> {
        if !is_plain_path(file) {
            return Err("its entry in the manifest is damaged".to_owned());
        }
        let url = self.server().url(&format!("policies/{file}"));
        let bytes = fetch::bytes(&url, MAX_FILE_BYTES).await?;
        let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        if sha256 != expected_sha256 {
            return Err("the file is not the one that the manifest describes".to_owned());
        }
        Ok(self.hold(id.to_owned(), bytes))
    }
}

/// Whether a path leads to somewhere below the server's address.
fn is_plain_path(path: &str) -> bool {
    !path.contains("..") && !path.contains(':') && !path.starts_with('/')
}

fn decision(held: &Held, backend: PolicyBackend, (decisions, millis): Decided) -> PolicyDecision {
    PolicyDecision { decisions, view: DecisionView { backend, millis, policy: held.id.clone() } }
}
