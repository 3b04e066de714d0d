//! The engine worker's handle: starts it, talks to it, starts it again when it crashes.
//!
//! With `?record=1` each of its messages is also kept, with its time, in `window.__tandem_events`: that is what the
//! recorded run is made from.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use client::protocol::VERSION;
use client::protocol::worker::{Command, Event, ModelState};
use leptos::prelude::*;
use wasm_bindgen::prelude::*;
use web_sys::{ErrorEvent, MessageEvent, Worker};

use crate::ctx::Ctx;
use crate::dom;
use crate::state::{Kind, Phase};

/// How often a crashed worker is started again before the page gives up on it.
const RESTARTS: u32 = 3;
/// After so long without a word the page says that the engine is slow.
const SLOW_S: u64 = 30;

/// How often the page looks whether the worker has said anything. A browser that kills a worker does not always tell.
const LOOK_MS: u64 = 5_000;
/// Looks in a row without a word, the worker having been asked for one after the first, before it counts as dead. Looks
/// and not seconds: a tab that was frozen has not been waiting.
const PATIENCE: u32 = 6;
/// The same while a model is put into memory, which keeps the worker busy.
const LOADING_PATIENCE: u32 = 60;

/// Name of the list of recorded messages on `window`.
const RECORD: &str = "__tandem_events";

#[derive(Default)]
struct Inner {
    worker: RefCell<Option<Handle>>,
    restarts: Cell<u32>,
    watched: Cell<bool>,
    /// Whether the worker has said anything since the last look.
    heard: Cell<bool>,
    /// Looks in a row without a word.
    silent: Cell<u32>,
}

struct Handle {
    worker: Worker,
    // Dropped together with the worker they listen to.
    _on_message: Closure<dyn FnMut(MessageEvent)>,
    _on_error: Closure<dyn FnMut(web_sys::Event)>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.worker.set_onmessage(None);
        self.worker.set_onerror(None);
        self.worker.terminate();
    }
}

/// The worker, shared by all panels.
#[derive(Clone, Default)]
pub struct Engine(Rc<Inner>);

impl Engine {
    /// Starts the worker and greets it.
    pub fn start(&self, ctx: Ctx) {
        match spawn(ctx) {
            Ok(handle) => {
                *self.0.worker.borrow_mut() = Some(handle);
                self.0.silent.set(0);
                self.watch(ctx);
                let settings = ctx.settings.get_untracked();
                ctx.send(Command::Init {
                    version: VERSION,
                    base_url: dom::base_url(),
                    tier: settings.tier,
                    world: settings.world,
                });
                set_timeout(move || say_if_slow(ctx), std::time::Duration::from_secs(SLOW_S));
            }
            Err(error) => ctx.engine_lost(false, &dom::error_text(&error)),
        }
    }

    /// Sends a command, with the files that it speaks of; silently dropped while there is no worker (a new one gets the
    /// settings with its greeting).
    pub fn send(&self, command: &Command, files: &[web_sys::File]) -> Result<(), JsValue> {
        let borrowed = self.0.worker.borrow();
        let Some(handle) = borrowed.as_ref() else { return Ok(()) };
        let text = JsValue::from(serde_json::to_string(command).map_err(|error| error.to_string())?);
        if files.is_empty() {
            return handle.worker.post_message(&text);
        }
        let message = js_sys::Object::new();
        js_sys::Reflect::set(&message, &JsValue::from_str("command"), &text)?;
        js_sys::Reflect::set(&message, &JsValue::from_str("files"), &files.iter().collect::<js_sys::Array>())?;
        handle.worker.post_message(&message)
    }

    /// Looks after the worker for as long as the page lives.
    fn watch(&self, ctx: Ctx) {
        if self.0.watched.replace(true) {
            return;
        }
        let engine = self.clone();
        let look = move || engine.look(ctx);
        let _ = set_interval_with_handle(look, std::time::Duration::from_millis(LOOK_MS));
    }

    fn look(&self, ctx: Ctx) {
        let ready = ctx.state.with_untracked(|s| s.phase == Phase::Ready);
        if self.0.heard.replace(false) || !ready {
            return self.0.silent.set(0);
        }
        self.0.silent.set(self.0.silent.get() + 1);
        let loading =
            ctx.state.with_untracked(|s| matches!(s.model(), ModelState::Loading { .. } | ModelState::Testing { .. }));
        let patience = if loading { LOADING_PATIENCE } else { PATIENCE };
        if self.0.silent.get() >= patience {
            self.crashed(ctx, "it does not answer any more");
        } else {
            ctx.send(Command::Measure { ask: 0 });
        }
    }

    /// After a crash: a new worker, or none when it crashed too often.
    fn crashed(&self, ctx: Ctx, reason: &str) {
        let again = self.0.restarts.get() < RESTARTS && ctx.state.with_untracked(|s| s.phase == Phase::Ready);
        self.0.restarts.set(self.0.restarts.get() + 1);
        ctx.engine_lost(again, reason);
        let engine = self.clone();
        // Not inside of the worker's own callback, which is dropped with it.
        set_timeout(
            move || {
                engine.0.worker.borrow_mut().take();
                if again {
                    engine.start(ctx);
                }
            },
            std::time::Duration::from_millis(50),
        );
    }
}

fn spawn(ctx: Ctx) -> Result<Handle, JsValue> {
    let worker = Worker::new("./worker_boot.js")?;
    let record = record_list();
    let on_message = Closure::<dyn FnMut(MessageEvent)>::new(move |message: MessageEvent| {
        let data = message.data();
        ctx.engine.with_value(|engine| engine.0.heard.set(true));
        if let Some(reason) = boot_failure(&data) {
            ctx.engine.get_value().crashed(ctx, &reason);
            return;
        }
        let text = data.as_string().unwrap_or_default();
        match serde_json::from_str::<Event>(&text) {
            Ok(event) => {
                if let Some(list) = &record {
                    keep(list, &text);
                }
                ctx.receive(event);
            }
            Err(error) => {
                ctx.notify(
                    Kind::Problem,
                    format!("The engine said something that this page does not understand ({error})."),
                );
            }
        }
    });
    // A script that cannot be fetched comes as a plain event, one that throws as an `ErrorEvent` with a message.
    let on_error = Closure::<dyn FnMut(web_sys::Event)>::new(move |error: web_sys::Event| {
        error.prevent_default();
        let reason = error.dyn_ref::<ErrorEvent>().map(ErrorEvent::message).unwrap_or_default();
        ctx.engine.get_value().crashed(ctx, if reason.is_empty() { "its script could not be loaded" } else { &reason });
    });
    worker.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
    worker.set_onerror(Some(on_error.as_ref().unchecked_ref()));
    Ok(Handle { worker, _on_message: on_message, _on_error: on_error })
}

/// What `worker_boot.js` says when the WebAssembly does not start.
fn boot_failure(data: &JsValue) -> Option<String> {
    let field = |name: &str| js_sys::Reflect::get(data, &JsValue::from_str(name)).ok()?.as_string();
    (field("type")? == "boot-failed").then(|| field("message").unwrap_or_default())
}

fn say_if_slow(ctx: Ctx) {
    if ctx.state.with_untracked(|s| s.phase == Phase::Starting) {
        ctx.notify(Kind::Info, "The engine is slow to start; the server answers meanwhile.");
    }
}

fn record_list() -> Option<js_sys::Array> {
    let wanted = dom::query().contains("record=1") || dom::fragment().contains("record=1");
    let list = wanted.then(js_sys::Array::new)?;
    js_sys::Reflect::set(&window(), &JsValue::from_str(RECORD), &list).ok()?;
    Some(list)
}

/// Keeps a message as plain JSON data, as the recording's file has it.
fn keep(list: &js_sys::Array, text: &str) {
    if let Ok(entry) = js_sys::JSON::parse(&format!("{{\"t_ms\":{},\"event\":{text}}}", dom::now_ms())) {
        list.push(&entry);
    }
}
