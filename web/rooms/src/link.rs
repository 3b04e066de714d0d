//! The WebSocket to a room: opened again whenever it is lost, at once when the network or the person comes back.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use client::protocol::rooms::CloseReason;
use leptos::prelude::*;
use wasm_bindgen::prelude::*;
use web::dom;
use web_sys::{CloseEvent, MessageEvent, WebSocket};

use crate::backoff::Backoff;

/// A connection that says nothing for so long is dead; a room says something in every slot, and slots last 5 s at most.
const SILENCE_MS: f64 = 15_000.0;
/// Between two looks at it.
const LOOK: Duration = Duration::from_secs(3);

/// Where the connection stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Status {
    /// Being opened.
    Connecting,
    /// Open.
    Open,
    /// Lost; it is tried again by itself.
    Waiting {
        /// Failures in a row.
        failures: u32,
        /// When it is tried again, on the page's clock.
        until_ms: f64,
    },
    /// The server ended it for good.
    Ended {
        /// The WebSocket's close code.
        code: u16,
        /// What the server said.
        reason: String,
    },
}

impl Status {
    /// A word for it, which the page's tests and its styles read too.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Connecting => "connecting",
            Self::Waiting { .. } => "waiting",
            Self::Ended { .. } => "ended",
        }
    }
}

/// Why the server ended the connection, in its own words, or in ours of its close code.
pub fn why_ended(code: u16, reason: String) -> String {
    let known = CloseReason::of_code(code).map(|known| known.text().to_owned());
    known.filter(|_| reason.is_empty()).unwrap_or(reason)
}

/// Who speaks over the connection.
pub trait Speaker {
    /// The first message of a new connection.
    fn greeting(&self) -> String;
    /// A message came.
    fn hear(&self, text: &str);
    /// Whether to try again after a close with this code.
    fn comes_back(&self, code: u16) -> bool;
    /// Whether silence means that the connection is dead.
    fn expects_news(&self) -> bool;
}

struct Inner {
    url: String,
    speaker: Rc<dyn Speaker>,
    status: RwSignal<Status>,
    backoff: RefCell<Backoff>,
    open: RefCell<Option<Socket>>,
    retry: Cell<Option<TimeoutHandle>>,
    heard_ms: Cell<f64>,
}

struct Socket {
    socket: WebSocket,
    // Dropped together with the socket that they listen to.
    _on_open: Closure<dyn FnMut()>,
    _on_message: Closure<dyn FnMut(MessageEvent)>,
    _on_close: Closure<dyn FnMut(CloseEvent)>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.socket.set_onopen(None);
        self.socket.set_onmessage(None);
        self.socket.set_onclose(None);
        let _ = self.socket.close();
    }
}

/// The connection, for as long as the page lives.
#[derive(Clone)]
pub struct Link(Rc<Inner>);

impl Link {
    /// Opens it. `url` is `ws://` or `wss://`; the seed spreads this page's tries among those of others.
    pub fn start(url: String, seed: u64, speaker: Rc<dyn Speaker>) -> Self {
        let link = Self(Rc::new(Inner {
            url,
            speaker,
            status: RwSignal::new(Status::Connecting),
            backoff: RefCell::new(Backoff::new(seed)),
            open: RefCell::default(),
            retry: Cell::default(),
            heard_ms: Cell::default(),
        }));
        link.open();
        for event in ["online", "pageshow", "visibilitychange"] {
            let own = link.clone();
            // `visibilitychange` comes up from the document.
            let _ = window_event_listener_untyped(event, move |_| own.hurry());
        }
        let own = link.clone();
        let _ = set_interval_with_handle(move || own.look(), LOOK);
        link
    }

    /// Where it stands.
    pub fn status(&self) -> RwSignal<Status> {
        self.0.status
    }

    /// Sends a message; what cannot be sent now is dropped (`false`), since it would be old by the time that it could.
    pub fn send(&self, text: &str) -> bool {
        self.0.open.borrow().as_ref().is_some_and(|open| open.socket.send_with_str(text).is_ok())
    }

    /// Tries again now instead of waiting.
    pub fn hurry(&self) {
        let waits = self.0.status.with_untracked(|status| matches!(status, Status::Waiting { .. }));
        if waits && !document().hidden() {
            if let Some(retry) = self.0.retry.take() {
                retry.clear();
            }
            self.open();
        }
    }

    /// Closes it for good.
    pub fn end(&self, reason: &str) {
        self.0.status.set(Status::Ended { code: 1000, reason: reason.to_owned() });
        self.0.open.borrow_mut().take();
    }

    fn open(&self) {
        self.0.status.set(Status::Connecting);
        self.0.heard_ms.set(dom::now_ms());
        // An address that cannot be one is the page's own mistake; the try counts as any other that failed.
        match self.socket() {
            Ok(socket) => *self.0.open.borrow_mut() = Some(socket),
            Err(_) => self.lost(1006, String::new()),
        }
    }

    fn socket(&self) -> Result<Socket, JsValue> {
        let socket = early(&self.0.url).map_or_else(|| WebSocket::new(&self.0.url), Ok)?;
        let own = self.clone();
        let greet = move || {
            let greeting = own.0.speaker.greeting();
            own.send(&greeting);
        };
        if socket.ready_state() == WebSocket::OPEN {
            // Its event is over.
            set_timeout(greet.clone(), Duration::ZERO);
        }
        let on_open = Closure::<dyn FnMut()>::new(greet);
        let own = self.clone();
        let on_message = Closure::<dyn FnMut(MessageEvent)>::new(move |message: MessageEvent| {
            own.0.heard_ms.set(dom::now_ms());
            if own.0.status.with_untracked(|status| *status != Status::Open) {
                own.0.backoff.borrow_mut().reset();
                own.0.status.set(Status::Open);
            }
            if let Some(text) = message.data().as_string() {
                own.0.speaker.hear(&text);
            }
        });
        let own = self.clone();
        let on_close =
            Closure::<dyn FnMut(CloseEvent)>::new(move |close: CloseEvent| own.lost(close.code(), close.reason()));
        socket.set_onopen(Some(on_open.as_ref().unchecked_ref()));
        socket.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
        socket.set_onclose(Some(on_close.as_ref().unchecked_ref()));
        Ok(Socket { socket, _on_open: on_open, _on_message: on_message, _on_close: on_close })
    }

    fn lost(&self, code: u16, reason: String) {
        if self.0.status.with_untracked(|status| matches!(status, Status::Ended { .. })) {
            return;
        }
        // Not inside of the socket's own callback, which is dropped with it.
        let own = self.clone();
        set_timeout(
            move || drop(own.0.open.borrow_mut().take_if(|open| open.socket.ready_state() > 1)),
            Duration::ZERO,
        );
        if !self.0.speaker.comes_back(code) {
            return self.0.status.set(Status::Ended { code, reason });
        }
        let wait_ms = self.0.backoff.borrow_mut().next_ms();
        let failures = self.0.backoff.borrow().failures();
        self.0.status.set(Status::Waiting { failures, until_ms: dom::now_ms() + wait_ms });
        let own = self.clone();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "under ten seconds")]
        let wait = Duration::from_millis(wait_ms as u64);
        let retry = set_timeout_with_handle(
            move || {
                own.0.retry.take();
                own.open();
            },
            wait,
        );
        self.0.retry.set(retry.ok());
    }

    /// A phone that slept or changed its network may hold a connection that nobody closes.
    fn look(&self) {
        let is_open = self.0.status.with_untracked(|status| *status == Status::Open);
        if document().hidden() || (is_open && !self.0.speaker.expects_news()) {
            // Nothing is due, so that nothing is missed.
            return self.0.heard_ms.set(dom::now_ms());
        }
        let speaks = is_open || self.0.status.with_untracked(|status| *status == Status::Connecting);
        if speaks && dom::now_ms() - self.0.heard_ms.get() > SILENCE_MS {
            self.0.open.borrow_mut().take();
            self.lost(1006, String::new());
        }
    }
}

/// The connection that `start.js` opened while the module was on its way, if it is to this address and still lives. Once.
fn early(url: &str) -> Option<WebSocket> {
    let (window, name) = (window(), JsValue::from_str("tandemSocket"));
    let early: WebSocket = js_sys::Reflect::get(&window, &name).ok()?.dyn_into().ok()?;
    let _ = js_sys::Reflect::delete_property(&window, &name);
    if early.url() == url && early.ready_state() <= WebSocket::OPEN {
        return Some(early);
    }
    let _ = early.close();
    None
}
