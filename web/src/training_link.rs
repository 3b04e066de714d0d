//! What connects the training view with the server: asks for the list again and again, follows the metrics of the shown
//! runs, and carries out what a person wants. It lives as long as the view is open.

use std::collections::BTreeMap;
use std::time::Duration;

use client::offload::sse::{SseEvent, SseParser};
use client::protocol::runs::{END_EVENT, HyperParameters, MetricsLine, RESET_EVENT, RunList, RunView};
use leptos::prelude::*;
use leptos::task::spawn_local;
use web_sys::AbortController;

use crate::api::{self, Ask};
use crate::ctx::Ctx;
use crate::state::Kind;
use crate::training::{MOST_SHOWN, run_name};

/// How often the list is asked for while runs learn, and while none does.
const POLL_ACTIVE: Duration = Duration::from_millis(1000);
const POLL_IDLE: Duration = Duration::from_millis(4000);
/// Lines of metrics are drawn together, at most so often: a tiny run logs hundreds a second.
const DRAW_EVERY: Duration = Duration::from_millis(200);

/// Something to do with a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// End it with a checkpoint.
    Stop,
    /// Go on with it.
    Resume,
    /// Remove it with its files.
    Delete,
}

/// The link; copied into closures.
#[derive(Clone, Copy)]
pub struct Link {
    ctx: Ctx,
    /// What changed last, for screen readers.
    pub news: RwSignal<String>,
    /// Whether a new run was asked for and the server has not answered yet.
    pub asking: RwSignal<bool>,
    open: StoredValue<bool>,
    streams: StoredValue<BTreeMap<i64, AbortController>, LocalStorage>,
    /// Runs whose metrics were read to their end, with how often they had been resumed.
    complete: StoredValue<BTreeMap<i64, u32>>,
    /// Events that are not drawn yet.
    pending: StoredValue<Vec<(i64, SseEvent)>>,
}

/// Most pages of the list that are asked for: more runs than a server keeps.
const MOST_PAGES: usize = 32;

/// The list of runs, page by page.
async fn all_runs() -> Result<RunList, String> {
    let mut list = api::json::<RunList>(Ask { path: "api/runs", ..Ask::default() }).await?;
    for _ in 0..MOST_PAGES {
        let Some(before) = list.next.take() else { break };
        let path = format!("api/runs?before={before}");
        let mut more = api::json::<RunList>(Ask { path: &path, ..Ask::default() }).await?;
        list.runs.append(&mut more.runs);
        list.next = more.next;
    }
    Ok(list)
}

impl Link {
    /// Opens the link; it closes with the present owner.
    pub fn open(ctx: Ctx) -> Self {
        let link = Self {
            ctx,
            news: RwSignal::new(String::new()),
            asking: RwSignal::new(false),
            open: StoredValue::new(true),
            streams: StoredValue::new_local(BTreeMap::new()),
            complete: StoredValue::new(BTreeMap::new()),
            pending: StoredValue::new(Vec::new()),
        };
        // What was read before the view was closed is read again from its end on.
        link.poll();
        on_cleanup(move || {
            link.open.set_value(false);
            link.streams.update_value(|streams| {
                for abort in std::mem::take(streams).into_values() {
                    abort.abort();
                }
            });
        });
        link
    }

    /// Whether the view is still there: its signals are gone with it.
    fn is_open(self) -> bool {
        self.open.try_get_value().unwrap_or(false)
    }

    fn poll(self) {
        spawn_local(async move {
            let heard = all_runs().await;
            if !self.is_open() {
                return;
            }
            let is_declared = self.ctx.training.with_untracked(|training| !training.declared.is_empty());
            if heard.is_ok() && !is_declared {
                // Before the list, so that the form comes with its fields; asked for again with the next list if it fails.
                let path = "api/runs/hyper-parameters";
                let declared = api::json::<HyperParameters>(Ask { path, ..Ask::default() }).await;
                if !self.is_open() {
                    return;
                }
                if let Ok(declared) = declared {
                    self.ctx.training.update(|training| training.declared = declared);
                }
            }
            match heard {
                Ok(list) => self.learn(|training| training.take_list(list)),
                Err(problem) => self.ctx.training.update(|training| training.problem = Some(problem)),
            }
            self.follow_shown();
            let active = self.ctx.training.with_untracked(|training| {
                training.list.as_ref().is_some_and(|list| list.runs.iter().any(|run| run.state.is_active()))
            });
            set_timeout(
                move || {
                    if self.is_open() {
                        self.poll();
                    }
                },
                if active { POLL_ACTIVE } else { POLL_IDLE },
            );
        });
    }

    /// Takes in news and says them.
    fn learn(self, take: impl FnOnce(&mut crate::training::Training) -> Vec<String>) {
        let mut news = Vec::new();
        self.ctx.training.update(|training| news = take(training));
        if !news.is_empty() {
            self.news.set(news.join(" "));
        }
    }

    /// Shows or hides a run's curves.
    pub fn toggle(self, id: i64) {
        let mut fits = true;
        self.ctx.training.update(|training| fits = training.toggle(id));
        if !fits {
            self.ctx.notify(Kind::Info, format!("{MOST_SHOWN} runs can be compared; hide one first."));
        }
        self.follow_shown();
    }

    /// Opens the streams of the shown runs that have more to tell, and closes those of the others.
    fn follow_shown(self) {
        // What was read counts before it is asked for again.
        self.draw();
        let wanted: Vec<i64> = self.ctx.training.with_untracked(|training| {
            let runs = training.shown.iter().filter_map(|id| training.run(*id));
            let has_more = |run: &&RunView| {
                let read = self.complete.with_value(|complete| complete.get(&run.id).copied());
                run.state.is_active() || read != Some(run.resumes)
            };
            runs.filter(has_more).map(|run| run.id).collect()
        });
        let shown = self.ctx.training.with_untracked(|training| training.shown.clone());
        self.streams.update_value(|streams| {
            for (_, abort) in streams.extract_if(.., |id, _| !shown.contains(id)) {
                abort.abort();
            }
        });
        for id in wanted {
            if self.streams.with_value(|streams| streams.contains_key(&id)) {
                continue;
            }
            let Ok(abort) = AbortController::new() else { return };
            let signal = abort.signal();
            self.streams.update_value(|streams| drop(streams.insert(id, abort)));
            spawn_local(async move {
                // A stream that breaks off is opened again with the next list.
                let _ = self.stream(id, &signal).await;
                if self.is_open() && !signal.aborted() {
                    self.streams.update_value(|streams| drop(streams.remove(&id)));
                }
            });
        }
    }

    async fn stream(self, id: i64, signal: &web_sys::AbortSignal) -> Result<(), String> {
        let last = self.ctx.training.with_untracked(|training| training.curves.get(&id).map(|c| c.last_id.clone()));
        let path = format!("api/runs/{id}/metrics");
        let last = last.unwrap_or_default();
        let ask = Ask { path: &path, last_event_id: &last, signal: Some(signal), ..Ask::default() };
        let response = api::send(ask).await?;
        let mut parser = SseParser::default();
        api::read(response, |bytes| {
            let events = parser.push(bytes).map_err(|error| error.to_string())?;
            if !self.is_open() || signal.aborted() {
                return Ok(false);
            }
            self.keep(events.into_iter().map(|event| (id, event)));
            Ok(true)
        })
        .await
    }

    fn keep(self, events: impl Iterator<Item = (i64, SseEvent)>) {
        let was_empty = self.pending.with_value(Vec::is_empty);
        self.pending.update_value(|pending| pending.extend(events));
        if was_empty && self.pending.with_value(|pending| !pending.is_empty()) {
            set_timeout(
                move || {
                    if self.is_open() {
                        self.draw();
                    }
                },
                DRAW_EVERY,
            );
        }
    }

    fn draw(self) {
        let mut events = Vec::new();
        self.pending.update_value(|pending| events = std::mem::take(pending));
        if events.is_empty() {
            return;
        }
        self.learn(|training| {
            let mut news = Vec::new();
            for (id, event) in events {
                match event.event.as_str() {
                    RESET_EVENT => drop(training.curves.remove(&id)),
                    END_EVENT => {
                        if let Ok(run) = serde_json::from_str::<RunView>(&event.data) {
                            self.complete.update_value(|complete| _ = complete.insert(id, run.resumes));
                            news.extend(training.take_run(run));
                        }
                    }
                    _ => {
                        if let Ok(line) = serde_json::from_str::<MetricsLine>(&event.data) {
                            training.curves.entry(id).or_default().push(line, &event.id);
                        }
                    }
                }
            }
            news
        });
    }

    /// Asks for the run that the form describes.
    pub fn create(self) {
        if self.asking.get_untracked() {
            return;
        }
        let request = self.ctx.training.with_untracked(|training| training.form.request.clone());
        let Ok(body) = serde_json::to_string(&request) else { return };
        self.asking.set(true);
        spawn_local(async move {
            let answer = api::json::<RunView>(Ask { path: "api/runs", json: Some(&body), ..Ask::default() }).await;
            if !self.is_open() {
                return;
            }
            self.asking.set(false);
            match answer {
                Ok(run) => {
                    let (id, said) = (run.id, format!("{}: {}.", run_name(&run), run.state.name()));
                    self.ctx.training.update(|training| {
                        training.take_run(run);
                        if training.shown.len() >= MOST_SHOWN {
                            training.shown.pop_first();
                        }
                        training.shown.insert(id);
                    });
                    self.news.set(said);
                    self.follow_shown();
                }
                Err(problem) => self.ctx.notify(Kind::Problem, format!("The run was not started: {problem}")),
            }
        });
    }

    /// Does something with a run.
    pub fn act(self, id: i64, action: Action) {
        spawn_local(async move {
            let done = match action {
                Action::Stop => self.change(&format!("api/runs/{id}/stop")).await.map(Some),
                Action::Resume => self.change(&format!("api/runs/{id}/resume")).await.map(Some),
                Action::Delete => {
                    let path = format!("api/runs/{id}");
                    api::send(Ask { method: "DELETE", path: &path, ..Ask::default() }).await.map(|_| None)
                }
            };
            if !self.is_open() {
                return;
            }
            match done {
                Ok(Some(run)) => self.learn(|training| training.take_run(run)),
                Ok(None) => self.learn(|training| {
                    let Some(mut list) = training.list.clone() else { return Vec::new() };
                    list.runs.retain(|run| run.id != id);
                    training.take_list(list);
                    vec![format!("Run {id} was deleted.")]
                }),
                Err(problem) => self.ctx.notify(Kind::Problem, format!("Run {id}: {problem}")),
            }
            self.follow_shown();
        });
    }

    async fn change(self, path: &str) -> Result<RunView, String> {
        api::json(Ask { path, json: Some("{}"), ..Ask::default() }).await
    }
}
