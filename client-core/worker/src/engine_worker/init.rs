//! The greeting. The cell is shown first, since it needs nothing but the settings; everything else is asked for at once.

use std::rc::Rc;

use futures::future::{join, join3};
use wasm_bindgen_futures::spawn_local;

use super::{EngineWorker, tier};
use crate::fetch;
use crate::transport::Server;
use client::catalogue::Catalogue;
use client::cell::{Cell, MeasuredQuality};
use client::offload::run::within;
use client::protocol::VERSION;
use client::protocol::manifest::ModelManifest;
use client::protocol::worker::{Event, ServerHealth, TierChoice};
use client::protocol::world::WorldSettings;

/// The first view waits this long for the list of policies.
const PATIENCE_S: f64 = 0.3;
/// Version of the model manifest that this build reads.
const MANIFEST_VERSION: u32 = 1;

impl EngineWorker {
    pub(super) async fn init(self: &Rc<Self>, base_url: &str, choice: TierChoice, world: WorldSettings) {
        *self.server.borrow_mut() = Server::at(base_url);
        self.choice.set(choice);
        self.world.open(Cell::open(world, None));
        let greet = async {
            let (report, gpu) = tier::probe(choice, &self.clock).await;
            *self.tier.borrow_mut() = report;
            *self.gpu.borrow_mut() = gpu;
        };
        if self.server().is_none() {
            *self.health.borrow_mut() = ServerHealth {
                problem: Some("the page was started without one".to_owned()),
                ..ServerHealth::default()
            };
            greet.await;
            self.show_world();
            return self.ready();
        }
        // A slow server must not keep the cell from the page; a quick one spares it a view without the policy.
        let policies = async {
            let fetched = within(&self.clock, PATIENCE_S, self.fetch_policy_manifest()).await;
            self.show_world();
            if fetched.is_none() {
                self.fetch_policy_manifest().await;
                self.show_world();
            }
        };
        let server = async { join(self.look_at_server(), self.fetch_model_manifest()).await };
        join3(policies, greet, server).await;
        self.ready();
        self.report_models().await;
        let engine_worker = Rc::clone(self);
        spawn_local(async move { engine_worker.watch_server().await });
    }

    /// Tells the page what is there; again when the server comes up after it was away from the start.
    fn ready(&self) {
        self.emit(Event::Ready {
            version: VERSION,
            tier: self.tier.borrow().clone(),
            models: self.manifest.borrow().models.clone(),
            server: self.health.borrow().clone(),
        });
    }

    /// Asks for what could not be had while the server was away.
    pub(super) async fn server_returned(self: &Rc<Self>) {
        self.fetch_policy_manifest().await;
        if self.manifest.borrow().models.is_empty() {
            self.fetch_model_manifest().await;
            self.ready();
            self.report_models().await;
        }
        self.show_world();
    }

    async fn fetch_model_manifest(&self) {
        let url = self.server().url("models/manifest.json");
        // A server that is not there is reported by its health, not once more here.
        let Ok(text) = fetch::text(&url).await else { return };
        match serde_json::from_str::<ModelManifest>(&text) {
            Ok(mut manifest) if manifest.version == MANIFEST_VERSION => {
                self.world.set_measured(MeasuredQuality::from_manifest(&manifest));
                self.add_catalogue(&mut manifest).await;
                *self.manifest.borrow_mut() = manifest;
            }
            Ok(manifest) => self.notice(format!(
                "The server's list of models has version {}, this page reads {MANIFEST_VERSION}. Reload the page.",
                manifest.version
            )),
            Err(error) => self.notice(format!("The server's list of models cannot be read ({error}).")),
        }
    }

    /// Adds what the server's catalogue has for devices. A server without one offers what it ships with.
    async fn add_catalogue(&self, manifest: &mut ModelManifest) {
        let Ok(text) = fetch::text(&self.server().url("models/catalogue.json")).await else { return };
        match Catalogue::parse(text.as_bytes()) {
            Ok(catalogue) => catalogue.offer_to(manifest),
            Err(error) => self.notice(format!("The server's catalogue of models cannot be read ({error}).")),
        }
    }
}
