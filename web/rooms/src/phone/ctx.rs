//! What drives the phone: the connection, how it takes part, measurements with every slot.

use std::rc::Rc;

use client::protocol::rooms::up::{Answer, Join, Place, Telemetry};
use client::protocol::rooms::{ClientMessage, CloseReason, Part};
use leptos::prelude::*;
use leptos::task::spawn_local;
use wasm_bindgen::JsValue;
use web::dom;
use web_sys::AbortController;

use super::answer::{Answering, Question};
use super::engine::{Model, Stage};
use super::meter::Meter;
use super::read::{self, known_part, part_name};
use super::state::{Happening, State};
use crate::device::{self, Awake};
use crate::json::Json;
use crate::keep;
use crate::link::{Link, Speaker, Status};

/// How long the nudge of a round vibrates, ms.
const NUDGE_MS: u32 = 250;

/// Handle to everything; copied into closures.
#[derive(Clone, Copy)]
pub struct Ctx {
    /// What the server said.
    pub state: RwSignal<State>,
    /// What this phone measured.
    pub meter: RwSignal<Meter>,
    /// Where the connection stands.
    pub status: RwSignal<Status>,
    /// The present question, or the last one.
    pub answer: RwSignal<Option<Answering>>,
    /// Whether the person has said how to take part.
    pub has_chosen: RwSignal<bool>,
    /// A round that waits for this person's own question.
    pub nudge: RwSignal<Option<u32>>,
    /// Whether the screen is kept on.
    pub is_awake: RwSignal<bool>,
    /// Charge of the battery, 0 to 1.
    pub battery: RwSignal<Option<f64>>,
    gauge: StoredValue<Option<JsValue>, LocalStorage>,
    /// How far the model is.
    pub stage: RwSignal<Stage>,
    pub(super) model: StoredValue<Model, LocalStorage>,
    pub(super) code: StoredValue<String>,
    pub(super) link: StoredValue<Option<Link>, LocalStorage>,
    pub(super) waiting: StoredValue<Vec<Question>>,
    pub(super) unsent: StoredValue<Vec<Answer>>,
    pub(super) abort: StoredValue<Option<AbortController>, LocalStorage>,
}

impl Ctx {
    /// Joins a room.
    pub fn join(code: String) -> Self {
        let model = Model::new();
        let ctx = Self {
            state: RwSignal::new(State::default()),
            meter: RwSignal::new(Meter::default()),
            status: RwSignal::new(Status::Connecting),
            answer: RwSignal::new(None),
            has_chosen: RwSignal::new(kept_part(&code).is_some()),
            nudge: RwSignal::new(None),
            is_awake: RwSignal::new(false),
            battery: RwSignal::new(None),
            gauge: StoredValue::new_local(None),
            stage: model.stage,
            model: StoredValue::new_local(model),
            link: StoredValue::new_local(None),
            waiting: StoredValue::new(Vec::new()),
            unsent: StoredValue::new(Vec::new()),
            abort: StoredValue::new_local(None),
            code: StoredValue::new(code.clone()),
        };
        let link = Link::start(keep::socket_url(&code), keep::seed(), Rc::new(ctx));
        let status = link.status();
        ctx.link.set_value(Some(link));
        Effect::new(move |_| ctx.status.set(status.get()));
        let _ = window_event_listener_untyped("visibilitychange", move |_| ctx.measure());
        spawn_local(async move {
            ctx.gauge.set_value(device::battery().await);
            ctx.read_charge();
        });
        ctx
    }

    fn code(self) -> String {
        self.code.get_value()
    }

    pub(super) fn send(self, message: &ClientMessage) -> bool {
        let Ok(text) = serde_json::to_string(message) else { return false };
        self.link.with_value(|link| link.as_ref().is_some_and(|link| link.send(&text)))
    }

    /// Tries to connect now.
    pub fn hurry(self) {
        self.link.with_value(|link| link.iter().for_each(Link::hurry));
    }

    /// Leaves the room; the seat is free at once.
    pub fn leave(self) {
        self.send(&ClientMessage::Leave);
        self.link.with_value(|link| link.iter().for_each(|link| link.end("You left the room.")));
    }

    /// Takes part in this way from now on.
    pub fn take_part(self, part: Part) {
        dom::remember(&keep::key("part", &self.code()), part_name(part));
        self.has_chosen.set(true);
        self.send(&ClientMessage::Part { part });
        if part == Part::Model {
            self.start_model();
        }
    }

    fn start_model(self) {
        if self.stage.with_untracked(|stage| matches!(stage, Stage::Off | Stage::Failed(_))) {
            self.model.with_value(Model::start);
        }
    }

    /// What tells the present round from all others of this room, those before a restart of its slots among them.
    fn round_id(self) -> Option<String> {
        self.state.with_untracked(|s| s.round.as_ref().map(|round| format!("{} {}", round.round, round.slot)))
    }

    /// Remembers that the present round is answered.
    pub(super) fn keep_answered(self) {
        if let Some(id) = self.round_id() {
            dom::remember(&keep::key("round", &self.code()), &id);
        }
    }

    /// Names this phone.
    pub fn name(self, name: String) {
        self.send(&ClientMessage::Name { name });
    }

    /// Stands here from now on, metres.
    pub fn place(self, [x_m, y_m]: [f64; 2]) {
        self.send(&ClientMessage::Place(Place { x_m, y_m }));
    }

    fn read_charge(self) {
        let charge = self.gauge.with_value(|battery| battery.as_ref().and_then(device::charge));
        if charge != self.battery.get_untracked() {
            self.battery.set(charge);
        }
    }

    /// Sends this slot's measurements, and whether the tab is seen.
    fn measure(self) {
        let part = self.state.with_untracked(State::part);
        let computes = part == Part::Model && self.stage.with_untracked(|stage| *stage == Stage::Ready);
        let measured = self.meter.try_update_untracked(|meter| meter.slot(dom::now_ms(), computes)).unwrap_or_default();
        let tier = self.model.with_value(|model| model.tier.get_untracked());
        let waiting = self.waiting.with_value(Vec::len) + usize::from(self.is_busy());
        self.read_charge();
        self.send(&ClientMessage::Telemetry(Telemetry {
            queue: u32::try_from(waiting).ok(),
            tier: tier.filter(|_| part == Part::Model),
            visible: Some(!document().hidden()),
            battery: self.battery.get_untracked(),
            ..measured
        }));
    }

    fn happened(self, happening: Happening) {
        match happening {
            Happening::Seated { token } => {
                if let Some(token) = token {
                    dom::remember(&keep::key("token", &self.code()), &token);
                }
                if !self.is_awake.get_untracked() {
                    Awake::default().start(self.is_awake);
                }
                if kept_part(&self.code()) == Some(Part::Model) {
                    self.start_model();
                }
                for report in self.unsent.try_update_value(std::mem::take).unwrap_or_default() {
                    self.report(report);
                }
                self.measure();
                if !self.is_busy() {
                    self.next();
                }
            }
            Happening::Slot => self.measure(),
            Happening::Round { round, question } => {
                // One that only places load has nothing to answer with; one that was reloaded has answered already.
                let is_answered = dom::recall(&keep::key("round", &self.code())) == self.round_id();
                if self.state.with_untracked(State::part) == Part::LoadOnly || is_answered {
                    return;
                }
                device::vibrate(NUDGE_MS);
                match question {
                    Some(text) => self.ask(Question { text, round: Some(round) }),
                    None => self.nudge.set(Some(round)),
                }
            }
        }
    }
}

impl Speaker for Ctx {
    fn greeting(&self) -> String {
        let code = self.code();
        let join = Join::phone(dom::recall(&keep::key("token", &code)), None, kept_part(&code));
        serde_json::to_string(&ClientMessage::Join(join)).unwrap_or_default()
    }

    fn hear(&self, text: &str) {
        // What is not for phones, or of a later version, changes nothing.
        let Some(message) = Json::parse(text).and_then(|json| read::message(&json)) else { return };
        let happening = self.state.try_update(|state| state.take(message)).flatten();
        if let Some(happening) = happening {
            self.happened(happening);
        }
    }

    fn comes_back(&self, code: u16) -> bool {
        let reason = CloseReason::of_code(code);
        if reason.is_some_and(CloseReason::forgets_token) {
            keep::forget(&keep::key("token", &self.code()));
        }
        reason.is_none_or(CloseReason::comes_back)
    }

    fn expects_news(&self) -> bool {
        self.state.with_untracked(|state| !state.paused && state.seat.as_ref().is_some_and(|seat| !seat.muted))
    }
}

fn kept_part(code: &str) -> Option<Part> {
    known_part(&dom::recall(&keep::key("part", code))?)
}
