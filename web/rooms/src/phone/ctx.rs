//! What drives the phone: the connection, questions one after the other, measurements with every slot.

use std::rc::Rc;

use client::protocol::rooms::up::{Answer, Join, Place, Telemetry};
use client::protocol::rooms::{ClientMessage, CloseReason, Part, ServerMessage};
use client::protocol::sampling::Sampling;
use client::protocol::worker::{Event, Origin};
use leptos::prelude::*;
use leptos::task::spawn_local;
use web::dom;
use web::server_only::{self, ServerEvent};
use web_sys::AbortController;

use super::answer::{Answering, Outcome, Question};
use super::engine::{Model, Said, Stage};
use super::meter::Meter;
use super::state::{Happening, State};
use crate::device::{self, Awake};
use crate::keep;
use crate::link::{Link, Speaker, Status};

/// Questions that may wait on the phone; the oldest go.
const MAX_WAITING: usize = 8;
/// Reports that are kept while there is no connection; the oldest go.
const MAX_UNSENT: usize = 32;
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
    /// How far the model is.
    pub stage: RwSignal<Stage>,
    model: StoredValue<Model, LocalStorage>,
    code: StoredValue<String>,
    link: StoredValue<Option<Link>, LocalStorage>,
    waiting: StoredValue<Vec<Question>>,
    unsent: StoredValue<Vec<Answer>>,
    abort: StoredValue<Option<AbortController>, LocalStorage>,
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
        spawn_local(async move { ctx.battery.set(device::battery().await) });
        ctx
    }

    fn code(self) -> String {
        self.code.get_value()
    }

    fn send(self, message: &ClientMessage) -> bool {
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

    /// Names this phone.
    pub fn name(self, name: String) {
        self.send(&ClientMessage::Name { name });
    }

    /// Stands here from now on, metres.
    pub fn place(self, [x_m, y_m]: [f64; 2]) {
        self.send(&ClientMessage::Place(Place { x_m, y_m }));
    }

    /// Asks a question, after those that wait.
    pub fn ask(self, question: Question) {
        if self.is_busy() {
            self.waiting.update_value(|waiting| {
                waiting.push(question);
                if waiting.len() > MAX_WAITING {
                    waiting.remove(0);
                }
            });
        } else {
            self.begin(question);
        }
    }

    fn is_busy(self) -> bool {
        self.answer.with_untracked(|answer| answer.as_ref().is_some_and(Answering::is_open))
    }

    /// Stops the present answer.
    pub fn stop(self) {
        self.model.with_value(Model::stop);
        if let Some(abort) = self.abort.try_update_value(Option::take).flatten() {
            abort.abort();
        }
        self.finish(Outcome::Stopped);
    }

    fn begin(self, question: Question) {
        if question.round.is_some() || self.nudge.get_untracked().is_some() {
            self.nudge.set(None);
        }
        let computes = self.state.with_untracked(State::part) == Part::Model
            && self.stage.with_untracked(|stage| *stage == Stage::Ready);
        let (alpha, power_share) = self.state.with_untracked(|state| match &state.decision {
            Some(own) => (own.outcome.alpha, own.outcome.power_w / own.power_max_w.max(f64::MIN_POSITIVE)),
            // Before the first slot.
            None => (0.5, 0.5),
        });
        let alpha = if computes { alpha } else { 1.0 };
        let text = question.text.clone();
        self.answer.set(Some(Answering::new(question, alpha, dom::now_ms())));
        if computes {
            self.model.with_value(|model| model.ask(text, alpha, power_share, Rc::new(move |said| self.hear(said))));
        } else {
            spawn_local(self.ask_server(text));
        }
    }

    fn hear(self, said: Said) {
        match said {
            Said::Text(origin, text) => self.token(origin, &text),
            Said::Notice(notice) => self.change(|answer| answer.notice = Some(notice)),
            Said::Failed(problem) => self.finish(Outcome::Failed(problem)),
            Said::Done(record) => {
                if record.server_lost {
                    self.change(|answer| {
                        answer.notice = Some("The server was lost; this phone went on alone.".to_owned());
                    });
                }
                self.finish(if record.stopped { Outcome::Stopped } else { Outcome::Whole });
            }
        }
    }

    async fn ask_server(self, question: String) {
        let Ok(abort) = AbortController::new() else { return };
        let signal = abort.signal();
        self.abort.set_value(Some(abort));
        let asked = server_only::answer(0, &[question], &[], &Sampling::default(), &signal, |event| {
            if let ServerEvent::Event(Event::Token { text, .. }) = event {
                self.token(Origin::Server, &text);
            }
        });
        match asked.await {
            Ok(()) => self.finish(Outcome::Whole),
            Err(_) if signal.aborted() => {}
            Err(problem) => self.finish(Outcome::Failed(format!("The server did not answer: {problem}."))),
        }
    }

    fn token(self, origin: Origin, text: &str) {
        self.meter.update_untracked(|meter| meter.token(origin == Origin::Device));
        self.change(|answer| answer.token(origin, text, dom::now_ms()));
    }

    fn change(self, change: impl FnOnce(&mut Answering)) {
        self.answer.update(|answer| {
            if let Some(answer) = answer.as_mut().filter(|answer| answer.is_open()) {
                change(answer);
            }
        });
    }

    fn finish(self, outcome: Outcome) {
        if !self.is_busy() {
            return;
        }
        self.change(|answer| answer.end(outcome, dom::now_ms()));
        let Some(answer) = self.answer.get_untracked() else { return };
        if let Some(report) = answer.report() {
            let (here, there) = (report.device_tokens, report.server_tokens);
            self.meter.update(|meter| meter.answered(report.latency_s, answer.ttft_s, here, there));
            self.report(report);
        } else if matches!(answer.outcome, Outcome::Failed(_)) && answer.question.round.is_some() {
            // A round's question is owed: it is asked again as soon as the room is back.
            return self.waiting.update_value(|waiting| waiting.insert(0, answer.question));
        }
        self.next();
    }

    fn next(self) {
        // A round that is over wants no answers any more.
        let open = self.state.with_untracked(|s| s.round.as_ref().filter(|round| round.open).map(|round| round.round));
        self.waiting.update_value(|waiting| waiting.retain(|one| one.round.is_none() || one.round == open));
        let next = self.waiting.try_update_value(|waiting| (!waiting.is_empty()).then(|| waiting.remove(0))).flatten();
        if let Some(next) = next {
            self.begin(next);
        }
    }

    fn report(self, report: Answer) {
        if !self.send(&ClientMessage::Answer(report.clone())) {
            self.unsent.update_value(|unsent| {
                unsent.push(report);
                if unsent.len() > MAX_UNSENT {
                    unsent.remove(0);
                }
            });
        }
    }

    /// Sends this slot's measurements, and whether the tab is seen.
    fn measure(self) {
        let part = self.state.with_untracked(State::part);
        let computes = part == Part::Model && self.stage.with_untracked(|stage| *stage == Stage::Ready);
        let measured = self.meter.try_update_untracked(|meter| meter.slot(dom::now_ms(), computes)).unwrap_or_default();
        let tier = self.model.with_value(|model| model.tier.get_untracked());
        let waiting = self.waiting.with_value(Vec::len) + usize::from(self.is_busy());
        self.send(&ClientMessage::Telemetry(Telemetry {
            queue: u32::try_from(waiting).ok(),
            tier: tier.map(|tier| tier.tier).filter(|_| part == Part::Model),
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
                device::vibrate(NUDGE_MS);
                match question {
                    Some(text) if self.state.with_untracked(State::part) != Part::LoadOnly => {
                        self.ask(Question { text, round: Some(round) });
                    }
                    // One that only places load has nothing to answer with.
                    Some(_) => {}
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
        match serde_json::from_str::<ServerMessage>(text) {
            Ok(message) => {
                let happening = self.state.try_update(|state| state.take(message)).flatten();
                if let Some(happening) = happening {
                    self.happened(happening);
                }
            }
            Err(error) => leptos::logging::warn!("the room said something that this page does not understand: {error}"),
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

/// How a way to take part is remembered.
fn part_name(part: Part) -> &'static str {
    match part {
        Part::Model => "model",
        Part::ServerOnly => "server-only",
        Part::LoadOnly => "load-only",
    }
}

fn kept_part(code: &str) -> Option<Part> {
    let name = dom::recall(&keep::key("part", code))?;
    [Part::Model, Part::ServerOnly, Part::LoadOnly].into_iter().find(|part| part_name(*part) == name)
}
