//! One of the policy's workers, from the engine worker's side: requests with numbers, and a limit on how long an answer may
//! take.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::rc::Rc;

use futures::channel::oneshot;
use wasm_bindgen::prelude::*;
use web_sys::{MessageEvent, Worker};

use super::Held;
use crate::clock::BrowserClock;
use crate::message::{describe, from_js, property, to_js};
use crate::policy_link::{Bytes, Reply, Request};
use client::offload::ports::Clock;
use client::offload::run::within;
use mec::{UserDecision, World};

/// The modules have up to megabytes to download; burn-wgpu has shaders to compile.
const START_LIMIT_S: f64 = 120.0;
/// The cell's view waits for the answer, but a first decision on burn-wgpu compiles shaders.
const REPLY_LIMIT_S: f64 = 20.0;

/// Which of the modules.
#[derive(Clone, Copy, Debug)]
pub(super) enum Module {
    /// burn flex.
    Cpu,
    /// burn-wgpu.
    Gpu,
}

impl Module {
    /// The script that starts it, beside this worker's.
    fn script(self) -> &'static str {
        match self {
            Self::Cpu => "./policy_boot.js#cpu",
            Self::Gpu => "./policy_boot.js#gpu",
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// The module works and says no: to the policy, or to deciding this slot with it.
    Refused(String),
    /// The module does not work.
    Broken(String),
}

impl Fault {
    /// Why, in words.
    pub(super) fn problem(self) -> String {
        match self {
            Self::Refused(problem) | Self::Broken(problem) => problem,
        }
    }
}

/// A decision for every device, and how many milliseconds it took in the module.
pub(super) type Decided = (Vec<UserDecision>, f64);

enum Answer {
    Up,
    Loaded(RangeInclusive<usize>),
    Decided(Decided),
}

/// What the callbacks share with whoever waits.
#[derive(Default)]
struct Connection {
    /// Who waits, by the number of the request.
    waiting: RefCell<BTreeMap<u32, oneshot::Sender<Result<Answer, Fault>>>>,
    /// Why the module does not work; nobody need wait for it any more.
    broken: RefCell<Option<String>>,
}

/// The number under which the module's first word is waited for.
const UP: u32 = 0;

/// A worker that runs the policy. Dropping it ends the worker.
pub(super) struct PolicyLink {
    worker: Worker,
    clock: BrowserClock,
    line: Rc<Connection>,
    calls: Cell<u32>,
    /// Number of the policy that the worker has; locked while it is used.
    loaded: futures::lock::Mutex<Option<u32>>,
    // Dropped together with the worker that calls them.
    _on_message: Closure<dyn FnMut(MessageEvent)>,
    _on_error: Closure<dyn FnMut(web_sys::Event)>,
}

impl Drop for PolicyLink {
    fn drop(&mut self) {
        self.worker.set_onmessage(None);
        self.worker.set_onerror(None);
        self.worker.terminate();
    }
}

impl PolicyLink {
    /// Starts the worker and waits until it listens.
    ///
    /// # Errors
    /// It does not start; says why in words.
    pub(super) async fn open(module: Module, clock: BrowserClock) -> Result<Self, String> {
        let (sender, up) = oneshot::channel();
        let link = Self::start(module, clock, sender)?;
        link.answer(UP, up, START_LIMIT_S).await.map(|_| link).map_err(|fault| match fault {
            // A worker that is up and will not be able to decide is of no more use than none.
            Fault::Refused(problem) | Fault::Broken(problem) => problem,
        })
    }

    fn start(module: Module, clock: BrowserClock, up: oneshot::Sender<Result<Answer, Fault>>) -> Result<Self, String> {
        let worker = Worker::new(module.script()).map_err(|error| describe(&error))?;
        let line = Rc::new(Connection::default());
        line.waiting.borrow_mut().insert(UP, up);
        let for_message = Rc::clone(&line);
        let on_message = Closure::<dyn FnMut(MessageEvent)>::new(move |message: MessageEvent| {
            let (call, answer) = match from_js::<Reply>(message.data()) {
                Ok(Reply::Up { problem: None }) => (UP, Ok(Answer::Up)),
                Ok(Reply::Up { problem: Some(problem) }) => (UP, Err(Fault::Broken(problem))),
                Ok(Reply::Loaded { call, users: [least, most] }) => (call, Ok(Answer::Loaded(least..=most))),
                Ok(Reply::Decided { call, decisions, millis }) => (call, Ok(Answer::Decided((decisions, millis)))),
                Ok(Reply::Failed { call, problem }) => (call, Err(Fault::Refused(problem))),
                Err(problem) => return web_sys::console::error_1(&problem.into()),
            };
            // Whoever asked may have stopped waiting.
            if let Some(sender) = for_message.waiting.borrow_mut().remove(&call) {
                let _ = sender.send(answer);
            }
        });
        let for_error = Rc::clone(&line);
        let on_error = Closure::<dyn FnMut(web_sys::Event)>::new(move |error: web_sys::Event| {
            error.prevent_default();
            // A script that is not there is reported by a plain event, which has no message.
            let said = property(&error, "message").and_then(|message| message.as_string());
            let problem = said.unwrap_or_else(|| "its script could not be loaded".to_owned());
            for sender in for_error.waiting.take().into_values() {
                let _ = sender.send(Err(Fault::Broken(problem.clone())));
            }
            *for_error.broken.borrow_mut() = Some(problem);
        });
        worker.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
        worker.set_onerror(Some(on_error.as_ref().unchecked_ref()));
        Ok(Self {
            worker,
            clock,
            line,
            calls: Cell::new(UP),
            loaded: futures::lock::Mutex::new(None),
            _on_message: on_message,
            _on_error: on_error,
        })
    }

    /// Gives the worker a policy, and says for how many devices it decides.
    ///
    /// # Errors
    /// The file is no policy, or the module does not work.
    pub(super) async fn load(&self, held: &Held) -> Result<RangeInclusive<usize>, Fault> {
        self.load_into(&mut *self.loaded.lock().await, held).await
    }

    /// Lets a policy decide the present slot.
    ///
    /// # Errors
    /// The policy cannot decide it, or the module does not work.
    pub(super) async fn decide(&self, held: &Held, world: &World) -> Result<Decided, Fault> {
        let mut loaded = self.loaded.lock().await;
        if *loaded != Some(held.number) {
            self.load_into(&mut loaded, held).await?;
        }
        let (params, seen) = (Box::new(*world.params()), world.observation());
        match self.request(|call| Request::Decide { call, params, seen }).await? {
            Answer::Decided(decided) => Ok(decided),
            Answer::Up | Answer::Loaded(_) => Err(Fault::Broken("its answer holds no decision".to_owned())),
        }
    }

    async fn load_into(&self, loaded: &mut Option<u32>, held: &Held) -> Result<RangeInclusive<usize>, Fault> {
        *loaded = None;
        let bytes = Bytes(held.bytes.clone());
        match self.request(|call| Request::Load { call, bytes }).await? {
            Answer::Loaded(users) => {
                *loaded = Some(held.number);
                Ok(users)
            }
            Answer::Up | Answer::Decided(_) => Err(Fault::Broken("it does not say what it loaded".to_owned())),
        }
    }

    async fn request(&self, make: impl FnOnce(u32) -> Request) -> Result<Answer, Fault> {
        if let Some(problem) = &*self.line.broken.borrow() {
            return Err(Fault::Broken(problem.clone()));
        }
        let call = self.calls.get().wrapping_add(1).max(UP + 1);
        self.calls.set(call);
        let (sender, receiver) = oneshot::channel();
        self.line.waiting.borrow_mut().insert(call, sender);
        let message = to_js(&make(call)).map_err(Fault::Broken)?;
        self.worker.post_message(&message).map_err(|error| Fault::Broken(describe(&error)))?;
        self.answer(call, receiver, REPLY_LIMIT_S).await
    }

    async fn answer(
        &self,
        call: u32,
        mut receiver: oneshot::Receiver<Result<Answer, Fault>>,
        limit_s: f64,
    ) -> Result<Answer, Fault> {
        let mut answer = within(&self.clock, limit_s, &mut receiver).await.map(Result::ok);
        if answer.is_none() {
            // The engine may have kept this thread so long that the answer lies in the queue behind the timer.
            self.clock.sleep(0.0).await;
            answer = receiver.try_recv().ok().flatten().map(Some);
        }
        self.line.waiting.borrow_mut().remove(&call);
        let broken = |problem: &str| {
            *self.line.broken.borrow_mut() = Some(problem.to_owned());
            Err(Fault::Broken(problem.to_owned()))
        };
        match answer {
            Some(Some(answer)) => answer,
            Some(None) => broken("it ended"),
            None => broken("it does not answer"),
        }
    }
}
