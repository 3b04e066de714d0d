//! What a phone and a presenter say.

use serde::{Deserialize, Serialize};

use super::settings::{CompareRequest, RoomSettings};
use super::{Part, Role};
use crate::protocol::tier::Tier;

/// Client → server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ClientMessage {
    /// The first message.
    Join(Join),
    /// A phone's measurements of the slot.
    Telemetry(Telemetry),
    /// A phone was dragged.
    Place(Place),
    /// A phone takes part in another way.
    Part {
        /// In which.
        part: Part,
    },
    /// A phone's owner names it.
    Name {
        /// Its name; cleaned and cut by the server.
        name: String,
    },
    /// A phone has answered a question.
    Answer(Answer),
    /// A phone has compared its last answer with the full model's, where the room asks for that.
    Quality(MeasuredQuality),
    /// The client has lost the thread; a snapshot follows.
    Resync,
    /// The phone's owner leaves: the seat is free at once. It may come back with its token.
    Leave,
    /// A presenter's command.
    Command(Command),
}

/// The first message of a connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Join {
    /// [`ROOM_VERSION`](super::ROOM_VERSION).
    pub version: u32,
    /// Who joins.
    pub role: Role,
    /// A phone's token of an earlier welcome; `None` for a new device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The room's secret, of a presenter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// A new phone's name; `None` or empty: "MLU 7".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How a phone takes part; `None`: as before, or load only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
}

impl Join {
    /// A phone that joins, anew or with its token.
    #[must_use]
    pub fn phone(token: Option<String>, name: Option<String>, part: Option<Part>) -> Self {
        Self { version: super::ROOM_VERSION, role: Role::Phone, token, secret: None, name, part }
    }

    /// A presenter.
    #[must_use]
    pub fn presenter(secret: String) -> Self {
        let version = super::ROOM_VERSION;
        Self { version, role: Role::Presenter, token: None, secret: Some(secret), name: None, part: None }
    }
}

/// What a phone measured; each field `None` where it does not know. Values that make no sense count as unknown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Telemetry {
    /// Tokens a second that the phone's own model writes at present; 0 while it rests.
    pub tokens_per_s: Option<f64>,
    /// Tokens a second of the server's part, as the phone receives them.
    pub server_tokens_per_s: Option<f64>,
    /// Time to the first token of the last question, seconds.
    pub ttft_s: Option<f64>,
    /// Questions that wait on the phone.
    pub queue: Option<u32>,
    /// Which engine runs.
    pub tier: Option<Tier>,
    /// Whether the tab is visible; `Some(false)` makes the member away until it says `Some(true)`.
    pub visible: Option<bool>,
    /// Charge of the battery, 0 to 1.
    pub battery: Option<f64>,
}

/// A place in the cell.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// East of the server, metres. Places outside the cell are drawn onto its edge.
    pub x_m: f64,
    /// North of the server, metres.
    pub y_m: f64,
}

/// An answer that a phone has received or written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// The round that it belongs to; `None` for a question of the phone's own.
    pub round: Option<u32>,
    /// What was asked; cut.
    pub question: String,
    /// What was answered; cut.
    pub text: String,
    /// Tokens that the phone wrote.
    pub device_tokens: u32,
    /// Tokens that the server wrote.
    pub server_tokens: u32,
    /// Time from the question to the last token, seconds.
    pub latency_s: f64,
    /// Time to the first token, seconds.
    pub ttft_s: f64,
}

/// Eq. 28 of a phone's last answer, as measured; what is out of range is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MeasuredQuality {
    /// Cosine similarity to the full model's answer, −1 to 1.
    pub accuracy: f64,
    /// Share of tokens below the threshold γ, 0 to 1.
    pub hallucination: f64,
}

/// What a presenter commands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Command {
    /// Sets the room, whole: sliders, period, decider, lock. Takes effect in the next slot.
    Settings(RoomSettings),
    /// Names a member.
    Rename {
        /// Which.
        mlu: u32,
        /// Its name.
        name: String,
    },
    /// Takes a member out of the slots, or lets it in again.
    Mute {
        /// Which.
        mlu: u32,
        /// Whether it is out.
        muted: bool,
    },
    /// Removes a member for good: its token is worth nothing any more.
    Remove {
        /// Which.
        mlu: u32,
    },
    /// Moves a member to another cell; the number after the last one opens a new cell.
    Move {
        /// Which.
        mlu: u32,
        /// To which cell, from 1 on.
        cell: u32,
    },
    /// Every phone asks now.
    StartRound {
        /// What: one question for all, or several, of which MLU k asks the one after the k-th (in turn). Empty: each asks its
        /// own.
        questions: Vec<String>,
        /// How long answers are taken, seconds, 5 to 600.
        seconds: u32,
    },
    /// Ends the round now.
    EndRound,
    /// Starts a comparison; one that runs is given up.
    Compare(CompareRequest),
    /// Ends the comparison; what it found stays in the snapshot until the next.
    EndCompare,
    /// Fills the room with so many simulated phones in all; 0 takes them away.
    Rehearse {
        /// How many.
        phones: u32,
    },
    /// Begins anew: slot 0 of this seed, counters at zero, the slots so far are forgotten. Members stay.
    Restart {
        /// The seed.
        seed: u64,
    },
    /// Closes the room for good.
    Close,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::rooms::ROOM_VERSION;

    /// The exact texts: a change of them needs another version.
    #[test]
    fn messages_are_written_as_version_2_has_them() {
        assert_eq!(ROOM_VERSION, 2);
        for (message, text) in [
            (
                ClientMessage::Join(Join::phone(None, Some("Ada".to_owned()), Some(Part::ServerOnly))),
                r#"{"type":"join","version":2,"role":"phone","name":"Ada","part":"server-only"}"#,
            ),
            (
                ClientMessage::Join(Join::presenter("s".to_owned())),
                r#"{"type":"join","version":2,"role":"presenter","secret":"s"}"#,
            ),
            (ClientMessage::Resync, r#"{"type":"resync"}"#),
            (
                ClientMessage::Quality(MeasuredQuality { accuracy: 0.5, hallucination: 0.25 }),
                r#"{"type":"quality","accuracy":0.5,"hallucination":0.25}"#,
            ),
            (ClientMessage::Place(Place { x_m: 1.5, y_m: -2.0 }), r#"{"type":"place","x_m":1.5,"y_m":-2.0}"#),
            (
                ClientMessage::Command(Command::Move { mlu: 7, cell: 2 }),
                r#"{"type":"command","do":"move","mlu":7,"cell":2}"#,
            ),
            (ClientMessage::Command(Command::EndRound), r#"{"type":"command","do":"end-round"}"#),
        ] {
            assert_eq!(serde_json::to_string(&message).expect("json"), text);
            assert_eq!(serde_json::from_str::<ClientMessage>(text).expect(text), message);
        }
        let telemetry: ClientMessage = serde_json::from_str(r#"{"type":"telemetry","tier":"cpu"}"#).expect("defaults");
        let expected = Telemetry { tier: Some(Tier::Cpu), ..Telemetry::default() };
        assert_eq!(telemetry, ClientMessage::Telemetry(expected));
    }
}
