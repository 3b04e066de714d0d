//! The room as the server told it, and a little of its past.

use std::collections::{BTreeMap, VecDeque};

use client::protocol::rooms::down::{Answered, Comparison, Member, Picture, Round, ServerMessage};
use client::protocol::rooms::{Presence, RoomSettings};
use client::protocol::world::Decider;

use crate::draw::Dot;

/// Slots that the curve shows.
pub const HISTORY: usize = 180;
/// Answers that are kept of a round.
const MAX_ANSWERS: usize = 500;

/// One slot of the curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Past {
    /// The slot.
    pub slot: u64,
    /// Who decided.
    pub decider: Decider,
    /// Median latency, seconds.
    pub median_s: Option<f64>,
    /// 95th percentile of latency, seconds.
    pub p95_s: Option<f64>,
}

/// A cell to be drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Tile {
    /// Its number, from 1 on.
    pub cell: u32,
    /// Reward of eq. 47.
    pub reward: Option<f64>,
    /// Its MLUs.
    pub dots: Vec<Dot>,
}

/// The room.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Whether the server has told anything yet.
    pub is_known: bool,
    /// Seed of the slots.
    pub seed: u64,
    /// The settings in force.
    pub settings: RoomSettings,
    /// Radius of a cell, metres.
    pub radius_m: f64,
    /// The last slot.
    pub picture: Picture,
    /// All that have a seat, by number.
    pub members: BTreeMap<u32, Member>,
    /// The round that runs, or the last one.
    pub round: Option<Round>,
    /// Its answers, newest first.
    pub answers: VecDeque<Answered>,
    /// The comparison that runs, or the last one.
    pub comparison: Option<Comparison>,
    /// Simulated phones.
    pub rehearsal: u32,
    /// The last slots.
    pub past: VecDeque<Past>,
    /// Why the last command could not be done.
    pub refused: Option<String>,
}

impl State {
    /// Takes a message in.
    pub fn take(&mut self, message: ServerMessage) {
        match message {
            ServerMessage::Snapshot(snapshot) => {
                self.is_known = true;
                self.seed = snapshot.seed;
                self.settings = snapshot.settings;
                self.radius_m = snapshot.radius_m;
                self.members = snapshot.members.into_iter().map(|member| (member.mlu, member)).collect();
                self.round = snapshot.round;
                self.answers = snapshot.answers.into_iter().rev().take(MAX_ANSWERS).collect();
                self.comparison = snapshot.comparison;
                self.rehearsal = snapshot.rehearsal;
                self.picture(snapshot.picture);
            }
            ServerMessage::Picture(picture) => self.picture(picture),
            ServerMessage::Member(member) => drop(self.members.insert(member.mlu, member)),
            ServerMessage::Gone { mlu } => drop(self.members.remove(&mlu)),
            ServerMessage::Settings(settings) => {
                if let Some(radius_m) = settings.values.get("radius_m") {
                    self.radius_m = *radius_m;
                }
                self.settings = settings;
            }
            ServerMessage::Round(round) => {
                if self.round.as_ref().is_none_or(|known| known.round != round.round) {
                    self.answers.clear();
                }
                self.round = Some(round);
            }
            ServerMessage::Answered(answered) => {
                self.answers.push_front(answered);
                self.answers.truncate(MAX_ANSWERS);
            }
            ServerMessage::Compared(comparison) => self.comparison = Some(comparison),
            ServerMessage::Refused { why } => self.refused = Some(why),
            // For phones.
            ServerMessage::Welcome(_) | ServerMessage::Decision(_) | ServerMessage::Seat(_) => {}
        }
    }

    /// Takes a slot in.
    pub fn picture(&mut self, picture: Picture) {
        // After a restart the slots begin anew, and a replay goes back: so does the curve.
        if self.past.back().is_some_and(|last| last.slot > picture.slot) {
            self.past.retain(|past| past.slot < picture.slot);
        }
        if self.past.back().is_none_or(|last| last.slot != picture.slot) && picture.room.active > 0 {
            self.past.push_back(Past {
                slot: picture.slot,
                decider: picture.decider,
                median_s: picture.room.latency_median_s,
                p95_s: picture.room.latency_p95_s,
            });
            if self.past.len() > HISTORY {
                self.past.pop_front();
            }
        }
        self.picture = picture;
    }

    /// Whether an MLU has been asked in the present round and has not answered.
    fn owes(&self, mlu: u32) -> bool {
        // Simulated ones are not asked.
        let is_asked = self.members.get(&mlu).is_none_or(|member| !member.simulated);
        is_asked
            && self.round.as_ref().is_some_and(|round| {
                let mine = |answered: &&Answered| answered.mlu == mlu && answered.answer.round == Some(round.round);
                round.open && !self.answers.iter().any(|answered| mine(&answered))
            })
    }

    /// The name that an MLU has given itself; empty where that is its number, or none of its own.
    #[must_use]
    pub fn name(&self, mlu: u32) -> &str {
        let named = self.members.get(&mlu).filter(|member| !member.simulated);
        let name = named.map_or("", |member| member.name.as_str());
        if name == format!("MLU {mlu}") { "" } else { name }
    }

    /// What to call an MLU.
    #[must_use]
    pub fn title(&self, mlu: u32) -> String {
        let name = self.name(mlu);
        if name.is_empty() { format!("MLU {mlu}") } else { name.to_owned() }
    }

    /// The cells to draw.
    #[must_use]
    pub fn tiles(&self) -> Vec<Tile> {
        self.picture
            .cells
            .iter()
            .map(|cell| Tile {
                cell: cell.cell,
                reward: cell.reward,
                dots: cell
                    .mlus
                    .iter()
                    .map(|dot| {
                        let is_away = dot.presence != Presence::Active;
                        Dot {
                            number: dot.mlu,
                            name: self.name(dot.mlu).to_owned(),
                            at_m: [dot.x_m, dot.y_m],
                            alpha: Some(dot.alpha),
                            rate_bps: dot.rate_bps,
                            is_away,
                            is_own: false,
                            is_busy: !is_away && self.owes(dot.mlu),
                        }
                    })
                    .collect(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use client::protocol::rooms::Part;
    use client::protocol::rooms::down::{CellPicture, Dot as WireDot, RoomNumbers, Snapshot};
    use client::protocol::rooms::up::{Answer, Telemetry};

    use super::*;

    fn picture(slot: u64) -> Picture {
        let mlus = vec![
            WireDot { mlu: 1, ..WireDot::default() },
            WireDot { mlu: 2, presence: Presence::Away, ..WireDot::default() },
        ];
        let cells = vec![CellPicture { cell: 1, mlus, ..CellPicture::default() }];
        let room = RoomNumbers { active: 1, latency_median_s: Some(0.5), ..RoomNumbers::default() };
        Picture { slot, cells, room, ..Picture::default() }
    }

    fn member(mlu: u32, name: &str) -> Member {
        Member {
            mlu,
            name: name.to_owned(),
            cell: 1,
            part: Part::Model,
            presence: Presence::Active,
            simulated: false,
            telemetry: Telemetry::default(),
            slots: 0,
            answers: 0,
        }
    }

    #[test]
    fn members_come_change_and_go() {
        let mut state = State::default();
        let members = vec![member(1, "MLU 1"), member(2, "Ada")];
        state.take(ServerMessage::Snapshot(Box::new(Snapshot { members, ..Snapshot::default() })));
        assert!(state.is_known);
        assert_eq!((state.name(1), state.name(2), state.title(1)), ("", "Ada", "MLU 1".to_owned()));
        state.take(ServerMessage::Member(member(1, "Grace")));
        state.take(ServerMessage::Gone { mlu: 2 });
        assert_eq!(state.members.values().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["Grace"]);
    }

    #[test]
    fn the_curve_has_each_slot_once_and_begins_anew_with_the_slots() {
        let mut state = State::default();
        for slot in [3, 3, 4, 5] {
            state.picture(picture(slot));
        }
        let slots = |state: &State| state.past.iter().map(|past| past.slot).collect::<Vec<_>>();
        assert_eq!(slots(&state), [3, 4, 5]);
        state.picture(picture(4));
        assert_eq!(slots(&state), [3, 4]);
        state.picture(picture(0));
        assert_eq!(slots(&state), [0]);
        (1..1000).for_each(|slot| state.picture(picture(slot)));
        assert_eq!((state.past.len(), state.past.back().map(|past| past.slot)), (HISTORY, Some(999)));
    }

    #[test]
    fn whoever_has_not_answered_yet_is_seen() {
        let mut state = State::default();
        state.picture(picture(1));
        let busy = |state: &State| state.tiles()[0].dots.iter().map(|dot| dot.is_busy).collect::<Vec<_>>();
        assert_eq!(busy(&state), [false, false]);
        state.take(ServerMessage::Round(Round { round: 1, open: true, ..Round::default() }));
        assert_eq!(busy(&state), [true, false], "one that is away is not waited for");
        let answer = Answer { round: Some(1), ..Answer::default() };
        state.take(ServerMessage::Answered(Answered { mlu: 1, answer }));
        assert_eq!(busy(&state), [false, false]);
        state.take(ServerMessage::Round(Round { round: 2, open: true, ..Round::default() }));
        assert_eq!((state.answers.len(), busy(&state)), (0, vec![true, false]));
        state.take(ServerMessage::Member(Member { simulated: true, ..member(1, "Simulated 1") }));
        assert_eq!((busy(&state), state.name(1)), (vec![false, false], ""), "a simulated phone is not asked");
    }
}
