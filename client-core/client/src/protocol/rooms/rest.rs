//! Bodies of `/api/rooms…`.
//!
//! | address | what it does |
//! | --- | --- |
//! | `POST /api/rooms` | takes a [`NewRoom`], answers 201 with [`RoomMade`]; 503 when there are too many |
//! | `GET /api/rooms/{code}` | [`RoomInfo`]; 404 for a room that there is not |
//! | `DELETE /api/rooms/{code}` | closes the room for good, 204 |
//! | `GET /api/rooms/{code}/slots.csv` | a row a slot and device, with [`CSV_COLUMNS`] |
//! | `GET /api/rooms/{code}/slots.json` | [`RoomExport`], of which a page can play the room again |
//!
//! The last three need the presenter's secret: `Authorization: Bearer SECRET`; 403 without.

use serde::{Deserialize, Serialize};

use super::settings::RoomSettings;
use super::{Part, Presence};
use crate::protocol::world::Decider;

/// `POST /api/rooms`; what is left out has its default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NewRoom {
    /// Seed of the slots; `None`: one is drawn. Below 2^53, so that every program reads it alike.
    pub seed: Option<u64>,
    /// The settings to begin with.
    pub settings: RoomSettings,
}

/// The answer to `POST /api/rooms`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoomMade {
    /// What phones join with: six characters that are not taken for one another.
    pub code: String,
    /// What the presenter joins with; told this once.
    pub secret: String,
    /// Seed of the slots.
    pub seed: u64,
    /// The settings.
    pub settings: RoomSettings,
}

/// `GET /api/rooms/{code}`: what a page says before it joins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoomInfo {
    /// The room.
    pub code: String,
    /// Version of its messages.
    pub version: u32,
    /// Whether nobody new is let in.
    pub locked: bool,
    /// Members that have a seat.
    pub members: u32,
    /// Most members.
    pub most_members: u32,
    /// The last slot.
    pub slot: u64,
}

/// `GET /api/rooms/{code}/slots.json`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoomExport {
    /// [`ROOM_VERSION`](super::ROOM_VERSION).
    pub version: u32,
    /// The room.
    pub code: String,
    /// Seed of the slots.
    pub seed: u64,
    /// The settings when it was exported; those of a slot are in it.
    pub settings: RoomSettings,
    /// Radius of a cell when it was exported, metres.
    pub radius_m: f64,
    /// The slots that are kept, oldest first. A slot in which nobody took part is left out.
    pub slots: Vec<SlotRecord>,
}

/// A slot as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlotRecord {
    /// The slot.
    pub slot: u64,
    /// When, milliseconds since 1970.
    pub at_ms: u64,
    /// Who decided.
    pub decider: Decider,
    /// The cells in which somebody took part.
    pub cells: Vec<CellRecord>,
}

/// A cell of a slot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellRecord {
    /// Its number, from 1 on.
    pub cell: u32,
    /// Reward, eq. 47.
    pub reward: f64,
    /// Penalty Ω, eq. 48.
    pub penalty: f64,
    /// Its seats.
    pub mlus: Vec<MluRecord>,
}

/// A device in a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MluRecord {
    /// Number in the room.
    pub mlu: u32,
    /// How it takes part.
    pub part: Part,
    /// Whether it took part; what follows its place is 0 where it did not.
    pub presence: Presence,
    /// East of the server, metres.
    pub x_m: f64,
    /// North of the server, metres.
    pub y_m: f64,
    /// Channel gain h, eq. 17, linear.
    pub gain: f64,
    /// Task size, bits.
    pub size_bits: f64,
    /// α.
    pub alpha: f64,
    /// p, watts.
    pub power_w: f64,
    /// Rate, bit/s, eq. 19.
    pub rate_bps: f64,
    /// Eq. 14, seconds.
    pub local_s: f64,
    /// Eq. 20, seconds.
    pub uplink_s: f64,
    /// Eq. 22, seconds.
    pub server_s: f64,
    /// Eq. 29, seconds.
    pub latency_s: f64,
    /// Eq. 15, joules.
    pub local_j: f64,
    /// Eq. 21, joules.
    pub uplink_j: f64,
    /// Accuracy, eq. 28.
    pub accuracy: f64,
    /// Hallucination rate, eq. 28.
    pub hallucination: f64,
    /// Tokens a second that the device measured of itself; 0 where it did not say.
    pub tokens_per_s: f64,
}

/// The columns of `slots.csv`, in order.
pub const CSV_COLUMNS: [&str; 23] = [
    "slot",
    "at_ms",
    "decider",
    "cell",
    "mlu",
    "part",
    "presence",
    "x_m",
    "y_m",
    "gain",
    "size_bits",
    "alpha",
    "power_w",
    "rate_bps",
    "local_s",
    "uplink_s",
    "server_s",
    "latency_s",
    "local_j",
    "uplink_j",
    "accuracy",
    "hallucination",
    "tokens_per_s",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_request_is_a_room() {
        assert_eq!(serde_json::from_str::<NewRoom>("{}").expect("defaults"), NewRoom::default());
        assert!(serde_json::from_str::<NewRoom>(r#"{"sead":1}"#).is_err(), "a misspelt field is not passed over");
        let half: NewRoom =
            serde_json::from_str(r#"{"seed":7,"settings":{"period_s":0.5}}"#).expect("the rest is usual");
        assert_eq!((half.seed, half.settings.period_s, half.settings.cell_members), (Some(7), 0.5, 10));
    }
}
