//! Looking after the server.

use std::rc::Rc;

use super::EngineWorker;
use crate::fetch::{self, Ask};
use client::offload::ports::Clock;
use client::offload::run::within;
use client::protocol::health::{Health, HealthStatus};
use client::protocol::worker::{Event, ServerHealth};

/// How often to look while somebody is there.
const INTERVAL_S: f64 = 5.0;
/// How often to look at a page that nobody has touched for [`IDLE_AFTER_S`].
const IDLE_INTERVAL_S: f64 = 60.0;
const IDLE_AFTER_S: f64 = 600.0;
/// How long an answer may take.
const LIMIT_S: f64 = 4.0;

impl EngineWorker {
    /// Looks at the server for as long as the worker lives.
    pub(super) async fn watch_server(self: &Rc<Self>) {
        let mut next_s = self.clock.now_s() + INTERVAL_S;
        loop {
            self.clock.sleep(INTERVAL_S).await;
            let now_s = self.clock.now_s();
            let idle = now_s - self.last_command_s.get() > IDLE_AFTER_S;
            if idle && now_s < next_s {
                continue;
            }
            next_s = now_s + IDLE_INTERVAL_S;
            self.check_server().await;
        }
    }

    /// Looks once, tells the page, and fetches what was missing when the server is back.
    pub(super) async fn check_server(self: &Rc<Self>) {
        if self.server().is_none() {
            return;
        }
        let was_up = self.health.borrow().up;
        self.look_at_server().await;
        let server = self.health.borrow().clone();
        let returned = server.up && !was_up;
        self.emit(Event::Server { server });
        self.look_at_pair();
        if returned {
            self.server_returned().await;
        }
    }

    /// Looks once.
    pub(super) async fn look_at_server(&self) {
        let url = self.server().url("health");
        let begun_s = self.clock.now_s();
        let looked = within(&self.clock, LIMIT_S, look(&url)).await;
        let rtt_ms = Some((self.clock.now_s() - begun_s) * 1e3);
        let last_model = self.health.borrow().model.clone();
        *self.health.borrow_mut() = match looked.unwrap_or_else(|| Err("it does not answer".to_owned())) {
            Ok(health) => {
                let up = health.status == HealthStatus::Ok;
                let problem = (!up).then(|| "it is shutting down".to_owned());
                let model = Some(health.model.name.clone());
                *self.server_model.borrow_mut() = Some(health.model);
                ServerHealth { up, model, rtt_ms, problem }
            }
            Err(problem) => ServerHealth { up: false, model: last_model, rtt_ms: None, problem: Some(problem) },
        };
    }
}

async fn look(url: &str) -> Result<Health, String> {
    // A server that drains says so with a status that is no success, and with the same body.
    let reply = fetch::send(Ask { url, ..Ask::default() }).await.map_err(|_| "it cannot be reached".to_owned())?;
    let status = reply.status();
    let text = reply.text().await?;
    serde_json::from_str(&text).map_err(|_| format!("what answers there ({status}) is no Tandem server"))
}
