//! What a presenter sets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::protocol::similarity::default_threshold;
use crate::protocol::world::Decider;

/// Slot periods that a room may have, seconds.
pub const PERIOD_S: [f64; 2] = [0.2, 5.0];
/// Most members of a cell where the presenter asks for no other number.
pub const CELL_MEMBERS: usize = 10;
/// Most members that a cell can be given: what the shipped policy decides for.
pub const MOST_CELL_MEMBERS: usize = mec::MAX_USERS;
/// Times for which a seat may be kept, seconds.
pub const AWAY_S: [f64; 2] = [1.0, 3600.0];
/// Longest part of a comparison, slots.
pub const TURN_SLOTS: u32 = 1000;

/// All that decides a room's slots beside its seed and its members' moves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoomSettings {
    /// Time from one slot to the next, seconds, within [`PERIOD_S`].
    pub period_s: f64,
    /// Most members of a cell, 1 to [`MOST_CELL_MEMBERS`]; each cell has its own frequency.
    pub cell_members: usize,
    /// Who decides, while no comparison does.
    pub decider: Decider,
    /// α of [`Decider::Manual`], 0 to 1.
    pub manual_alpha: f64,
    /// Share of the highest power of [`Decider::Manual`], 0 to 1.
    pub manual_power: f64,
    /// Simulator settings by the key of `mec::settings` (`bandwidth_hz`, `noise_dbm`, `server_hz`, `size_min_mbit`,
    /// `size_max_mbit`, …); a missing key means its default. `users` and `slot_s` are the room's own.
    pub values: BTreeMap<String, f64>,
    /// Whether phones measure the quality of their answers (eq. 26–28). The server then answers each question once more, as a
    /// whole and by itself, to compare with.
    pub measure: bool,
    /// Threshold γ of eq. 27 for that, 0 to 1.
    pub gamma: f64,
    /// Time for which the seat of a member that is away is kept, seconds, within [`AWAY_S`].
    pub away_s: f64,
    /// Whether nobody new is let in. Those who are known come back all the same.
    pub locked: bool,
    /// Whether no slots are made at present.
    pub paused: bool,
}

impl Default for RoomSettings {
    fn default() -> Self {
        Self {
            period_s: 1.0,
            cell_members: CELL_MEMBERS,
            decider: Decider::Policy,
            manual_alpha: 0.5,
            manual_power: 0.5,
            values: BTreeMap::new(),
            measure: false,
            gamma: default_threshold(),
            away_s: 60.0,
            locked: false,
            paused: false,
        }
    }
}

impl RoomSettings {
    /// What is wrong with them, in words.
    ///
    /// # Errors
    /// The first value that is out of its range, with the range.
    pub fn check(&self) -> Result<(), String> {
        let within = |name: &str, value: f64, [least, most]: [f64; 2]| {
            // Written so that a NaN is refused too.
            let fits = value >= least && value <= most;
            if fits { Ok(()) } else { Err(format!("{name} has to be between {least} and {most}, not {value}.")) }
        };
        within("The slot period", self.period_s, PERIOD_S)?;
        within("The number of a cell's members", self.cell_members as f64, [1.0, MOST_CELL_MEMBERS as f64])?;
        within("α", self.manual_alpha, [0.0, 1.0])?;
        within("The share of the highest power", self.manual_power, [0.0, 1.0])?;
        within("γ", self.gamma, [0.0, 1.0])?;
        within("The time for which a seat is kept", self.away_s, AWAY_S)?;
        self.params().map(|_| ())
    }

    /// The simulator's parameters of a cell, without its number of users.
    ///
    /// # Errors
    /// A key that is no setting, or a value out of range; in words.
    pub fn params(&self) -> Result<mec::MecParams, String> {
        let mut params = mec::MecParams::DEFAULT;
        for (key, &value) in &self.values {
            if matches!(key.as_str(), "users" | "slot_s") {
                return Err(format!("`{key}` is the room's own and cannot be set."));
            }
            params.set(key, value).map_err(|error| error.to_string())?;
        }
        params.slot_s = self.period_s;
        Ok(params)
    }
}

/// A comparison of ways to decide: each in turn for `turn_slots` slots, again and again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompareRequest {
    /// Who decides in turn; the first is the one that the others are compared with. Two to six, each once, no
    /// [`Decider::Manual`].
    pub deciders: Vec<Decider>,
    /// Slots of a turn, 1 to [`TURN_SLOTS`].
    pub turn_slots: u32,
}

impl CompareRequest {
    /// What is wrong with it, in words.
    ///
    /// # Errors
    /// Too few deciders, one twice, or a turn that is too long.
    pub fn check(&self) -> Result<(), String> {
        let twice = self.deciders.iter().enumerate().any(|(i, one)| self.deciders[i + 1..].contains(one));
        if !(2..=6).contains(&self.deciders.len()) || twice || self.deciders.contains(&Decider::Manual) {
            return Err("A comparison takes two to six ways to decide, each once, and none by hand.".to_owned());
        }
        if !(1..=TURN_SLOTS).contains(&self.turn_slots) {
            return Err(format!("A turn takes 1 to {TURN_SLOTS} slots, not {}.", self.turn_slots));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_refused_in_words() {
        let usual = RoomSettings::default;
        assert_eq!(usual().check(), Ok(()));
        assert_eq!(RoomSettings { cell_members: 32, ..usual() }.check(), Ok(()));
        let value = |key: &str, value: f64| RoomSettings { values: [(key.to_owned(), value)].into(), ..usual() };
        for (wrong, says) in [
            (RoomSettings { period_s: 0.1, ..usual() }, "between 0.2 and 5"),
            (RoomSettings { period_s: f64::NAN, ..usual() }, "slot period"),
            (RoomSettings { cell_members: 33, ..usual() }, "between 1 and 32"),
            (RoomSettings { cell_members: 0, ..usual() }, "between 1 and 32"),
            (RoomSettings { gamma: 1.5, ..usual() }, "γ"),
            (RoomSettings { away_s: 0.0, ..usual() }, "seat"),
            (value("users", 3.0), "room's own"),
            (value("bandwidth_hz", -1.0), "Bandwidth"),
            (value("nonsense", 1.0), "nonsense"),
        ] {
            let error = wrong.check().expect_err(says);
            assert!(error.contains(says), "{error}");
        }
        assert!(value("bandwidth_hz", 5e6).check().is_ok());
    }

    #[test]
    fn a_comparison_needs_two_that_differ() {
        let of = |deciders: &[Decider], turn_slots| CompareRequest { deciders: deciders.to_vec(), turn_slots }.check();
        assert!(of(&[Decider::Policy, Decider::AlwaysLocal], 10).is_ok());
        for (deciders, turn_slots) in [
            (&[Decider::Policy][..], 10),
            (&[Decider::Policy, Decider::Policy], 10),
            (&[Decider::Policy, Decider::Manual], 10),
            (&[Decider::Policy, Decider::Oracle], 0),
            (&[Decider::Policy, Decider::Oracle], TURN_SLOTS + 1),
        ] {
            assert!(of(deciders, turn_slots).is_err(), "{deciders:?} {turn_slots}");
        }
    }
}
