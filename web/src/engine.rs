//! The engine worker's handle: starts it, talks to it, starts it again when it crashes. What it hears goes to a [`Listener`].
//!
//! With `?record=1` each of its messages is also kept, with its time, in `window.__tandem_events`: that is what the
//! recorded run is made from.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use client::protocol::worker::Command;
use leptos::prelude::*;
use wasm_bindgen::prelude::*;
use web_sys::{ErrorEvent, MessageEvent, Worker};

use crate::dom;

/// How often a crashed worker is started again before the page gives up on it.
const RESTARTS: u32 = 3;
/// A crash that is so long ago does not count any more.
const FORGIVEN_MS: f64 = 600_000.0;
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

/// Who hears what the worker says, and knows what it should be told.
pub trait Listener {
    /// The first command to a worker that was just started.
    fn greeting(&self) -> Command;
    /// It said something: the JSON of an event.
    ///
    /// # Errors
    /// This page does not understand it.
    fn hear(&self, text: &str) -> Result<(), String>;
    /// It said something that this page does not understand.
    fn misunderstood(&self, problem: String);
    /// It was started a while ago.
    fn waited(&self);
    /// Whether it answers commands; one that is still being started is not expected to.
    fn is_up(&self) -> bool;
    /// Whether a model is put into memory, which keeps it busy.
    fn is_loading(&self) -> bool;
    /// It died, and is started again or not.
    fn lost(&self, again: bool, reason: &str);
}

#[derive(Default)]
struct Inner {
    listener: RefCell<Option<Rc<dyn Listener>>>,
    worker: RefCell<Option<Handle>>,
    restarts: Cell<u32>,
    /// When it was lost last.
    crashed_ms: Cell<f64>,
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
    pub fn start(&self, listener: Rc<dyn Listener>) {
        *self.0.listener.borrow_mut() = Some(Rc::clone(&listener));
        match self.spawn() {
            Ok(handle) => {
                *self.0.worker.borrow_mut() = Some(handle);
                self.0.silent.set(0);
                self.watch();
                if let Err(error) = self.send(&listener.greeting(), &[]) {
                    listener.lost(false, &dom::error_text(&error));
                }
                set_timeout(move || listener.waited(), std::time::Duration::from_secs(SLOW_S));
            }
            Err(error) => listener.lost(false, &dom::error_text(&error)),
        }
    }

    /// Ends the worker; nobody is told.
    pub fn stop(&self) {
        self.0.listener.borrow_mut().take();
        self.0.worker.borrow_mut().take();
    }

    fn listener(&self) -> Option<Rc<dyn Listener>> {
        self.0.listener.borrow().clone()
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
    fn watch(&self) {
        if self.0.watched.replace(true) {
            return;
        }
        let engine = self.clone();
        let look = move || engine.look();
        let _ = set_interval_with_handle(look, std::time::Duration::from_millis(LOOK_MS));
    }

    fn look(&self) {
        let Some(listener) = self.listener() else { return };
        if self.0.heard.replace(false) || !listener.is_up() {
            return self.0.silent.set(0);
        }
        self.0.silent.set(self.0.silent.get() + 1);
        let patience = if listener.is_loading() { LOADING_PATIENCE } else { PATIENCE };
        if self.0.silent.get() >= patience {
            self.crashed("it does not answer any more");
        } else {
            // One that cannot be told is silent too, and dead soon.
            let _ = self.send(&Command::Measure { ask: 0 }, &[]);
        }
    }

    /// After a crash: a new worker, or none when it crashed too often.
    fn crashed(&self, reason: &str) {
        let Some(listener) = self.listener() else { return };
        let now_ms = dom::now_ms();
        if now_ms - self.0.crashed_ms.replace(now_ms) > FORGIVEN_MS {
            self.0.restarts.set(0);
        }
        let again = self.0.restarts.get() < RESTARTS && listener.is_up();
        self.0.restarts.set(self.0.restarts.get() + 1);
        listener.lost(again, reason);
        let engine = self.clone();
        // Not inside of the worker's own callback, which is dropped with it.
        set_timeout(
            move || {
                engine.0.worker.borrow_mut().take();
                if again {
                    engine.start(listener);
                }
            },
            std::time::Duration::from_millis(50),
        );
    }

    fn spawn(&self) -> Result<Handle, JsValue> {
        let worker = Worker::new("./worker_boot.js")?;
        let record = record_list();
        let engine = self.clone();
        let on_message = Closure::<dyn FnMut(MessageEvent)>::new(move |message: MessageEvent| {
            let data = message.data();
            engine.0.heard.set(true);
            if let Some(reason) = boot_failure(&data) {
                return engine.crashed(&reason);
            }
            let Some(listener) = engine.listener() else { return };
            let text = data.as_string().unwrap_or_default();
            match listener.hear(&text) {
                Ok(()) => {
                    if let Some(list) = &record {
                        keep(list, &text);
                    }
                }
                Err(problem) => listener.misunderstood(problem),
            }
        });
        let engine = self.clone();
        // A script that cannot be fetched comes as a plain event, one that throws as an `ErrorEvent` with a message.
        let on_error = Closure::<dyn FnMut(web_sys::Event)>::new(move |error: web_sys::Event| {
            error.prevent_default();
            let reason = error.dyn_ref::<ErrorEvent>().map(ErrorEvent::message).unwrap_or_default();
            engine.crashed(if reason.is_empty() { "its script could not be loaded" } else { &reason });
        });
        worker.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
        worker.set_onerror(Some(on_error.as_ref().unchecked_ref()));
        Ok(Handle { worker, _on_message: on_message, _on_error: on_error })
    }
}

/// What `worker_boot.js` says when the WebAssembly does not start.
fn boot_failure(data: &JsValue) -> Option<String> {
    let field = |name: &str| js_sys::Reflect::get(data, &JsValue::from_str(name)).ok()?.as_string();
    (field("type")? == "boot-failed").then(|| field("message").unwrap_or_default())
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
