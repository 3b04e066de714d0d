//! What drives the presenter's screen: the connection, the settings as they are dragged, commands, replays.

use std::rc::Rc;
use std::time::Duration;

use client::protocol::rooms::down::RoomNumbers;
use client::protocol::rooms::rest::RoomExport;
use client::protocol::rooms::up::{Command, Join};
use client::protocol::rooms::{ClientMessage, CloseReason, RoomSettings, ServerMessage};
use leptos::prelude::*;

use super::replay;
use super::state::State;
use crate::keep;
use crate::link::{Link, Speaker, Status};

/// Dragged sliders are sent so often at most; a room takes them up with its next slot anyway.
const SETTLE: Duration = Duration::from_millis(100);

/// What lies over the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlay {
    /// Nothing.
    #[default]
    None,
    /// The QR code.
    Qr,
    /// The members.
    People,
}

/// A file that is played again.
#[derive(Clone, Debug)]
pub struct Replay {
    /// What is played.
    pub export: std::sync::Arc<RoomExport>,
    /// Which of its slots is shown.
    pub at: usize,
    /// Whether it goes on by itself.
    pub plays: bool,
}

/// Handle to everything; copied into closures.
#[derive(Clone, Copy)]
pub struct Ctx {
    /// The room.
    pub state: RwSignal<State>,
    /// Where the connection stands.
    pub status: RwSignal<Status>,
    /// What lies over the screen.
    pub overlay: RwSignal<Overlay>,
    /// The file that is played in place of a room.
    pub replay: RwSignal<Option<Replay>>,
    /// A word about what a person just did.
    pub notice: RwSignal<Option<String>>,
    /// The room's code; empty in a replay.
    pub code: StoredValue<String>,
    secret: StoredValue<String>,
    link: StoredValue<Option<Link>, LocalStorage>,
    settling: StoredValue<bool>,
}

impl Ctx {
    fn new(code: &str, secret: &str) -> Self {
        Self {
            state: RwSignal::new(State::default()),
            status: RwSignal::new(Status::Connecting),
            overlay: RwSignal::new(Overlay::None),
            replay: RwSignal::new(None),
            notice: RwSignal::new(None),
            code: StoredValue::new(code.to_owned()),
            secret: StoredValue::new(secret.to_owned()),
            link: StoredValue::new_local(None),
            settling: StoredValue::new(false),
        }
    }

    /// Watches and steers a room.
    pub fn present(code: &str, secret: &str) -> Self {
        let ctx = Self::new(code, secret);
        let link = Link::start(keep::socket_url(code), keep::seed(), Rc::new(ctx));
        let status = link.status();
        ctx.link.set_value(Some(link));
        Effect::new(move |_| ctx.status.set(status.get()));
        ctx
    }

    /// Plays a file.
    pub fn play(export: RoomExport) -> Self {
        let ctx = Self::new("", "");
        ctx.state.update(|state| {
            state.is_known = true;
            state.seed = export.seed;
            state.settings = export.settings.clone();
            state.radius_m = export.radius_m;
        });
        ctx.status.set(Status::Open);
        ctx.replay.set(Some(Replay { export: std::sync::Arc::new(export), at: 0, plays: true }));
        ctx.show(0);
        ctx
    }

    /// Shows a slot of the file.
    pub fn show(self, at: usize) {
        let Some(picture) = self.replay.with_untracked(|replay| {
            replay.as_ref().and_then(|replay| replay.export.slots.get(at)).map(replay::picture)
        }) else {
            return;
        };
        self.replay.update(|replay| {
            if let Some(replay) = replay {
                replay.at = at;
            }
        });
        self.state.update(|state| state.picture(picture));
    }

    /// Whether a file is played.
    pub fn is_replay(self) -> bool {
        self.replay.with(Option::is_some)
    }

    /// The presenter's secret.
    pub fn secret(self) -> String {
        self.secret.get_value()
    }

    fn send(self, message: &ClientMessage) -> bool {
        let Ok(text) = serde_json::to_string(message) else { return false };
        self.link.with_value(|link| link.as_ref().is_some_and(|link| link.send(&text)))
    }

    /// Sends a command.
    pub fn command(self, command: Command) {
        self.state.update(|state| state.refused = None);
        if !self.send(&ClientMessage::Command(command)) {
            self.notice.set(Some("There is no connection to the room; try again when it is back.".to_owned()));
        }
    }

    /// Tries to connect now.
    pub fn hurry(self) {
        self.link.with_value(|link| link.iter().for_each(Link::hurry));
    }

    /// Changes the settings; what is dragged quickly is sent together.
    pub fn set(self, change: impl FnOnce(&mut RoomSettings)) {
        self.state.update(|state| change(&mut state.settings));
        if !self.settling.get_value() {
            self.settling.set_value(true);
            set_timeout(
                move || {
                    self.settling.set_value(false);
                    self.command(Command::Settings(self.state.with_untracked(|state| state.settings.clone())));
                },
                SETTLE,
            );
        }
    }

    /// Opens or closes what lies over the screen.
    pub fn toggle(self, overlay: Overlay) {
        self.overlay.update(|open| *open = if *open == overlay { Overlay::None } else { overlay });
    }

    /// A number of the room.
    pub fn number<T>(self, read: impl Fn(&RoomNumbers) -> T) -> T {
        self.state.with(|state| read(&state.picture.room))
    }
}

impl Speaker for Ctx {
    fn greeting(&self) -> String {
        serde_json::to_string(&ClientMessage::Join(Join::presenter(self.secret()))).unwrap_or_default()
    }

    fn hear(&self, text: &str) {
        match serde_json::from_str::<ServerMessage>(text) {
            // An echo of what is being dragged would pull the slider back.
            Ok(ServerMessage::Settings(_)) if self.settling.get_value() => {}
            Ok(message) => self.state.update(|state| state.take(message)),
            Err(error) => leptos::logging::warn!("the room said something that this page does not understand: {error}"),
        }
    }

    fn comes_back(&self, code: u16) -> bool {
        let reason = CloseReason::of_code(code);
        if matches!(reason, Some(CloseReason::NoRoom | CloseReason::RoomClosed)) {
            keep::forget_room(&self.code.get_value());
        }
        reason.is_none_or(CloseReason::comes_back)
    }

    fn expects_news(&self) -> bool {
        self.state.with_untracked(|state| !state.settings.paused)
    }
}
