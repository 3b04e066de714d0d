//! What the server told this phone, reduced from its messages.

use client::protocol::rooms::down::{Decision, Picture, RoomNumbers, Round, Seat, ServerMessage};
use client::protocol::rooms::{Part, Presence, RoomSettings};

use crate::draw;

/// The phone's view of its room.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Its seat; `None` before the welcome.
    pub seat: Option<Seat>,
    /// Radius of the cell, metres.
    pub radius_m: f64,
    /// Whether slots are made.
    pub paused: bool,
    /// Threshold γ of eq. 27, where answers are to be measured.
    pub threshold: Option<f64>,
    /// Its last decision.
    pub decision: Option<Decision>,
    /// The last slot of its cell.
    pub picture: Picture,
    /// The last round.
    pub round: Option<Round>,
}

/// What the page has to do about a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Happening {
    /// It is seated: this token is to be kept.
    Seated {
        /// The device token.
        token: Option<String>,
    },
    /// A slot was decided: measurements are due.
    Slot,
    /// A round has begun; the question that this phone asks, `None` for one of its own.
    Round {
        /// Its number.
        round: u32,
        /// What to ask.
        question: Option<String>,
    },
}

impl State {
    /// Takes a message in.
    pub fn take(&mut self, message: ServerMessage) -> Option<Happening> {
        match message {
            ServerMessage::Welcome(welcome) => {
                self.seat = welcome.seat;
                return Some(Happening::Seated { token: welcome.token });
            }
            ServerMessage::Snapshot(snapshot) => {
                self.radius_m = snapshot.radius_m;
                self.set(&snapshot.settings);
                self.picture = snapshot.picture;
                if snapshot.decision.is_some() {
                    self.decision = snapshot.decision;
                }
                if snapshot.seat.is_some() {
                    self.seat = snapshot.seat;
                }
                return snapshot.round.and_then(|round| self.round(round));
            }
            ServerMessage::Decision(decision) => {
                self.decision = Some(*decision);
                return Some(Happening::Slot);
            }
            ServerMessage::Picture(picture) => self.picture = picture,
            ServerMessage::Seat(seat) => self.seat = Some(seat),
            ServerMessage::Settings(settings) => {
                self.set(&settings);
                if let Some(radius_m) = settings.values.get("radius_m") {
                    self.radius_m = *radius_m;
                }
            }
            ServerMessage::Round(round) => return self.round(round),
            // For presenters.
            ServerMessage::Member(_)
            | ServerMessage::Gone { .. }
            | ServerMessage::Answered(_)
            | ServerMessage::Compared(_)
            | ServerMessage::Refused { .. } => {}
        }
        None
    }

    fn set(&mut self, settings: &RoomSettings) {
        self.paused = settings.paused;
        self.threshold = settings.measure.then_some(settings.gamma);
    }

    /// A round is news once: after a reconnect it comes again with the snapshot.
    fn round(&mut self, round: Round) -> Option<Happening> {
        let is_new = self.round.as_ref().is_none_or(|known| known.round != round.round);
        let question = self.seat.as_ref().and_then(|seat| round.question_of(seat.mlu)).map(str::to_owned);
        let begun = (is_new && round.open).then_some(Happening::Round { round: round.round, question });
        self.round = Some(round);
        begun
    }

    /// How it takes part.
    #[must_use]
    pub fn part(&self) -> Part {
        self.seat.as_ref().map(|seat| seat.part).unwrap_or_default()
    }

    /// The room in numbers.
    #[must_use]
    pub fn numbers(&self) -> &RoomNumbers {
        &self.picture.room
    }

    /// The cell as a drawing; `here` is where a finger holds this phone's dot.
    #[must_use]
    pub fn dots(&self, here: Option<[f64; 2]>) -> Vec<draw::Dot> {
        let own = self.seat.as_ref().map(|seat| seat.mlu);
        let cell = self.picture.cells.first();
        let mut dots: Vec<draw::Dot> = cell
            .into_iter()
            .flat_map(|cell| &cell.mlus)
            .map(|dot| {
                let is_own = own == Some(dot.mlu);
                draw::Dot {
                    number: dot.mlu,
                    name: String::new(),
                    at_m: here.filter(|_| is_own).unwrap_or([dot.x_m, dot.y_m]),
                    alpha: Some(dot.alpha),
                    rate_bps: dot.rate_bps,
                    is_away: dot.presence != Presence::Active,
                    is_own,
                    is_busy: false,
                }
            })
            .collect();
        // Seated since the last slot.
        if let Some(seat) = self.seat.as_ref().filter(|_| !dots.iter().any(|dot| dot.is_own)) {
            let at_m = here.unwrap_or([seat.x_m, seat.y_m]);
            dots.push(draw::Dot { number: seat.mlu, at_m, is_own: true, ..draw::Dot::default() });
        }
        dots
    }

    /// Where this phone stands, metres.
    #[must_use]
    pub fn place(&self) -> Option<[f64; 2]> {
        let seat = self.seat.as_ref()?;
        let cell = self.picture.cells.first();
        let dot = cell.and_then(|cell| cell.mlus.iter().find(|dot| dot.mlu == seat.mlu));
        Some(dot.map_or([seat.x_m, seat.y_m], |dot| [dot.x_m, dot.y_m]))
    }
}

#[cfg(test)]
mod tests {
    use client::protocol::rooms::Role;
    use client::protocol::rooms::down::{CellPicture, Dot, Snapshot, Welcome};

    use super::*;

    fn seat(mlu: u32) -> Seat {
        Seat { mlu, name: format!("MLU {mlu}"), cell: 1, x_m: 3.0, y_m: 4.0, part: Part::Model, muted: false }
    }

    fn welcome(mlu: u32) -> ServerMessage {
        ServerMessage::Welcome(Welcome {
            version: 1,
            code: "BCD234".to_owned(),
            role: Role::Phone,
            token: Some("t".to_owned()),
            seat: Some(seat(mlu)),
            returned: false,
        })
    }

    fn round(round: u32, questions: &[&str], open: bool) -> Round {
        Round { round, questions: questions.iter().map(|q| (*q).to_owned()).collect(), open, ..Round::default() }
    }

    #[test]
    fn a_phone_is_seated_before_anything_else() {
        let mut state = State::default();
        assert_eq!(state.take(welcome(7)), Some(Happening::Seated { token: Some("t".to_owned()) }));
        let dots = state.dots(None);
        assert_eq!((dots.len(), dots[0].number, dots[0].at_m, dots[0].is_own), (1, 7, [3.0, 4.0], true));
        assert_eq!(state.dots(Some([1.0, 1.0]))[0].at_m, [1.0, 1.0]);
        let mlus = vec![Dot { mlu: 7, x_m: 5.0, ..Dot::default() }, Dot { mlu: 8, ..Dot::default() }];
        let cells = vec![CellPicture { cell: 1, mlus, ..CellPicture::default() }];
        state.take(ServerMessage::Picture(Picture { cells, ..Picture::default() }));
        assert_eq!((state.dots(None).len(), state.place()), (2, Some([5.0, 0.0])));
    }

    #[test]
    fn a_round_is_news_once_and_each_phone_has_its_question() {
        let mut state = State::default();
        state.take(welcome(1));
        let first = round(1, &["a", "b"], true);
        let begun = Some(Happening::Round { round: 1, question: Some("b".to_owned()) });
        assert_eq!(state.take(ServerMessage::Round(first.clone())), begun);
        // As it goes on, again after a reconnect, and when it ends.
        assert_eq!(state.take(ServerMessage::Round(first.clone())), None);
        let again = Snapshot { round: Some(first), ..Snapshot::default() };
        assert_eq!(state.take(ServerMessage::Snapshot(Box::new(again))), None);
        assert_eq!(state.take(ServerMessage::Round(round(1, &["a", "b"], false))), None);
        // One that is over before this phone heard of it is no news either.
        assert_eq!(state.take(ServerMessage::Round(round(2, &[], false))), None);
        let own = Some(Happening::Round { round: 3, question: None });
        assert_eq!(state.take(ServerMessage::Round(round(3, &[], true))), own);
    }

    #[test]
    fn a_decision_asks_for_measurements() {
        let mut state = State::default();
        assert_eq!(state.take(ServerMessage::Decision(Box::default())), Some(Happening::Slot));
        // A snapshot without one does not take it away.
        state.take(ServerMessage::Snapshot(Box::default()));
        assert!(state.decision.is_some());
    }
}
