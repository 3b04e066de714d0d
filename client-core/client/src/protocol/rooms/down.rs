//! What the server says.

use serde::{Deserialize, Serialize};

use super::settings::{CompareRequest, RoomSettings};
use super::up::{Answer, Telemetry};
use super::{Part, Presence, Role};
use crate::protocol::world::{Decider, DeviceOutcome};

/// Server → client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ServerMessage {
    /// Answer to the join.
    Welcome(Welcome),
    /// A phone's own decision of a slot; never dropped.
    Decision(Box<Decision>),
    /// A slot; a phone sees its own cell, a presenter all of them. The newest replaces one that has not been sent yet.
    Picture(Picture),
    /// All that there is to know: after the welcome, when asked for, and after pictures were dropped.
    Snapshot(Box<Snapshot>),
    /// To a phone: its seat, name or mute changed.
    Seat(Seat),
    /// To a presenter: a member joined or changed.
    Member(Member),
    /// To a presenter: a member's seat was given up, or it was removed.
    Gone {
        /// Which.
        mlu: u32,
    },
    /// To all: the room's settings changed.
    Settings(RoomSettings),
    /// To all: a round began or ended.
    Round(Round),
    /// To a presenter: an answer came in.
    Answered(Answered),
    /// To a presenter: a comparison began, got on by a turn, or ended.
    Compared(Comparison),
    /// To a presenter: a command could not be done.
    Refused {
        /// Why, and what to do.
        why: String,
    },
}

/// Answer to the join.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// The server's [`ROOM_VERSION`](super::ROOM_VERSION).
    pub version: u32,
    /// The room.
    pub code: String,
    /// As whom.
    pub role: Role,
    /// A phone's device token, to be kept: who joins with it is this MLU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// A phone's seat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seat: Option<Seat>,
    /// Whether the token was known.
    pub returned: bool,
}

/// A phone's seat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seat {
    /// Number in the room, from 1 on: "MLU 7".
    pub mlu: u32,
    /// Name; never empty.
    pub name: String,
    /// Cell, from 1 on.
    pub cell: u32,
    /// East of the server, metres.
    pub x_m: f64,
    /// North of the server, metres.
    pub y_m: f64,
    /// How it takes part.
    pub part: Part,
    /// Whether the presenter took it out of the slots.
    pub muted: bool,
}

/// What was decided for a phone in a slot, and what the model says it gives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The slot, from 0 on.
    pub slot: u64,
    /// The cell that it was decided in.
    pub cell: u32,
    /// Devices that took part in the cell, this one included.
    pub active: u32,
    /// Who decided.
    pub decider: Decider,
    /// Distance to the antenna, metres, eq. 16.
    pub distance_m: f64,
    /// Channel gain h, eq. 17, dB.
    pub gain_db: f64,
    /// Fading |h̃|², eq. 18, dB.
    pub fading_db: f64,
    /// Task size X, bits.
    pub size_bits: f64,
    /// α, p, rate, latency, energy, accuracy and hallucination of this device. Its `alpha` is 1 of a device that
    /// [takes part](Part::ServerOnly) without a model.
    pub outcome: DeviceOutcome,
    /// Largest power, watts.
    pub power_max_w: f64,
    /// The rate that it would have with this power if nobody else sent, bit/s.
    pub alone_bps: f64,
    /// Latency if it computed all itself, seconds.
    pub local_only_s: f64,
    /// Whether its own model alone would keep the limits of accuracy (30e) and hallucination (30f).
    pub local_is_good: bool,
    /// Cycles a second that the server had for this device's part, eq. 22; 0 where it sent nothing.
    pub server_hz: f64,
}

/// Why α and p are what they are, as far as the model's numbers say: what a sentence is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The device has no model.
    NoModel,
    /// All is computed here: the channel would take longer.
    LocalIsFaster,
    /// All is computed here, though the server was fast enough: others need the channel more.
    LeavesChannel,
    /// A share is sent because the own model alone would not be good enough.
    Quality,
    /// Sending is hindered most by what the others send.
    Crowded,
    /// Both sides are done at about the same time.
    Balanced,
}

impl Decision {
    /// Why α and p are what they are.
    #[must_use]
    pub fn why(&self, part: Part) -> Why {
        let out = &self.outcome;
        // What remote work would take if all of it were sent at this rate.
        let remote_s = self.size_bits / self.alone_bps.max(1.0);
        if part == Part::ServerOnly {
            Why::NoModel
        } else if out.alpha < 0.005 {
            if remote_s >= self.local_only_s { Why::LocalIsFaster } else { Why::LeavesChannel }
        } else if !self.local_is_good && out.uplink_s + out.server_s > 1.25 * out.local_s {
            Why::Quality
        } else if out.rate_bps < 0.5 * self.alone_bps {
            Why::Crowded
        } else {
            Why::Balanced
        }
    }

    /// The same as a sentence.
    #[must_use]
    pub fn sentence(&self, part: Part) -> String {
        let share = (100.0 * self.outcome.alpha).round();
        match self.why(part) {
            Why::NoModel => "This phone has no model, so the server answers everything.".to_owned(),
            Why::LocalIsFaster => "Nothing is sent: over this channel the server would take longer.".to_owned(),
            Why::LeavesChannel => "Nothing is sent: the channel is left to devices that need it more.".to_owned(),
            Why::Quality => {
                format!("{share} % goes to the server because the phone's own answer would not be good enough.")
            }
            Why::Crowded => {
                let others = self.active.saturating_sub(1);
                let who =
                    if others == 1 { "one other phone sends".to_owned() } else { format!("{others} others send") };
                format!("Only {share} % goes to the server: {who} on the same frequency.")
            }
            Why::Balanced => format!("With {share} % on the server both sides are done at about the same time."),
        }
    }
}

/// A slot as all see it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Picture {
    /// The slot.
    pub slot: u64,
    /// Who decided.
    pub decider: Decider,
    /// How long after its time the slot was decided, milliseconds.
    pub late_ms: f64,
    /// The cells: a phone's own, or all of them.
    pub cells: Vec<CellPicture>,
    /// The whole room in numbers.
    pub room: RoomNumbers,
}

/// One cell of a picture.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CellPicture {
    /// Its number, from 1 on.
    pub cell: u32,
    /// Its mean reward is that of eq. 47; `None` where nobody took part.
    pub reward: Option<f64>,
    /// Its seats, those that are away or muted too, by number.
    pub mlus: Vec<Dot>,
}

/// An MLU in a picture; on the wire an array of its fields in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "DotFields", into = "DotFields")]
pub struct Dot {
    /// Number in the room.
    pub mlu: u32,
    /// East of the server, metres.
    pub x_m: f64,
    /// North of the server, metres.
    pub y_m: f64,
    /// Whether it took part; the fields that follow are 0 where it did not.
    pub presence: Presence,
    /// α.
    pub alpha: f64,
    /// p, watts.
    pub power_w: f64,
    /// Uplink rate, bit/s, eq. 19.
    pub rate_bps: f64,
    /// Latency, seconds, eq. 29.
    pub latency_s: f64,
    /// Tokens a second that it writes itself, as measured.
    pub tokens_per_s: f64,
}

/// (number, x, y, presence, α, p, rate, latency, tokens/s)
type DotFields = (u32, f64, f64, Presence, f64, f64, f64, f64, f64);

impl From<DotFields> for Dot {
    fn from(fields: DotFields) -> Self {
        let (mlu, x_m, y_m, presence, alpha, power_w, rate_bps, latency_s, tokens_per_s) = fields;
        Self { mlu, x_m, y_m, presence, alpha, power_w, rate_bps, latency_s, tokens_per_s }
    }
}

impl From<Dot> for DotFields {
    fn from(dot: Dot) -> Self {
        let Dot { mlu, x_m, y_m, presence, alpha, power_w, rate_bps, latency_s, tokens_per_s } = dot;
        (mlu, x_m, y_m, presence, alpha, power_w, rate_bps, latency_s, tokens_per_s)
    }
}

/// The whole room in numbers. Modelled ones are over the devices that took part in the slot, and `None` where none did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RoomNumbers {
    /// Devices that took part.
    pub active: u32,
    /// Devices that are away.
    pub away: u32,
    /// Median latency, seconds, modelled.
    pub latency_median_s: Option<f64>,
    /// 95th percentile of latency, seconds, modelled.
    pub latency_p95_s: Option<f64>,
    /// Share of all bits that went to the server, ΣαX/ΣX.
    pub offloaded: Option<f64>,
    /// Energy of all devices, joules.
    pub energy_j: f64,
    /// Mean accuracy, eq. 28.
    pub accuracy: Option<f64>,
    /// Mean hallucination rate, eq. 28.
    pub hallucination: Option<f64>,
    /// Mean over the cells of the reward, eq. 47.
    pub reward: Option<f64>,
    /// Tokens a second that all phones together write, as they measured.
    pub phones_tokens_per_s: f64,
    /// Tokens a second that the server writes; `None` where it does not know (an engine upstream).
    pub server_tokens_per_s: Option<f64>,
    /// Requests that the server answers at present.
    pub server_active: u32,
    /// Requests that wait at the server.
    pub server_queue: u32,
    /// Answers so far that phones reported.
    pub answers: u64,
    /// Median latency of the last 100 of them, seconds, as measured.
    pub measured_latency_median_s: Option<f64>,
    /// Answers so far whose quality phones measured.
    pub qualities: u64,
    /// Of these, answers that the server wrote alone: what answers are compared with, so that they are right by definition.
    pub own_references: u64,
    /// Mean accuracy of all of them, eq. 28, as measured.
    pub measured_accuracy: Option<f64>,
    /// Mean hallucination rate of all of them, eq. 28, as measured.
    pub measured_hallucination: Option<f64>,
    /// Tokens so far that phones wrote, of the answers that they reported.
    pub device_tokens: u64,
    /// Tokens so far that the server wrote for them.
    pub server_tokens: u64,
}

/// All that there is to know.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Seed of the room's slots.
    pub seed: u64,
    /// The settings.
    pub settings: RoomSettings,
    /// Radius of a cell, metres.
    pub radius_m: f64,
    /// The last slot; a phone sees its own cell.
    pub picture: Picture,
    /// A phone's own last decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// A phone's own seat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seat: Option<Seat>,
    /// To a presenter: all that have a seat.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Member>,
    /// The round that runs, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round: Option<Round>,
    /// To a presenter: the answers of that round.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Answered>,
    /// To a presenter: the comparison that runs, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// Simulated phones.
    pub rehearsal: u32,
}

/// A member as presenters see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Number in the room.
    pub mlu: u32,
    /// Name; never empty. Presenters' screens show "MLU 7" of one that is muted.
    pub name: String,
    /// Cell, from 1 on.
    pub cell: u32,
    /// How it takes part.
    pub part: Part,
    /// Whether it takes part in the slots.
    pub presence: Presence,
    /// Whether it is one of the rehearsal's.
    pub simulated: bool,
    /// Its last measurements.
    pub telemetry: Telemetry,
    /// Slots in which it took part.
    pub slots: u64,
    /// Answers that it reported.
    pub answers: u64,
}

/// A round: every phone asks at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Its number, from 1 on.
    pub round: u32,
    /// What is asked; see [`Round::question_of`].
    pub questions: Vec<String>,
    /// Slot in which it began.
    pub slot: u64,
    /// Whether answers are still taken.
    pub open: bool,
    /// Time left when this was sent, seconds.
    pub seconds_left: f64,
    /// Phones that were active when it began, and are asked to answer.
    pub asked: u32,
    /// Phones that have answered.
    pub answered: u32,
    /// Tokens that the phones wrote in it.
    pub device_tokens: u64,
    /// Tokens that the server wrote in it.
    pub server_tokens: u64,
    /// Median of the measured latency, seconds.
    pub latency_median_s: Option<f64>,
    /// 95th percentile of the measured latency, seconds.
    pub latency_p95_s: Option<f64>,
}

impl Round {
    /// What an MLU asks; `None`: a question of its own.
    #[must_use]
    pub fn question_of(&self, mlu: u32) -> Option<&str> {
        let at = (mlu as usize).checked_rem(self.questions.len())?;
        self.questions.get(at).map(String::as_str)
    }
}

/// An answer that came in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// Whose.
    pub mlu: u32,
    /// The answer; its texts are empty of a member that is muted.
    pub answer: Answer,
}

/// How a comparison stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// What is compared.
    pub request: CompareRequest,
    /// Whether it runs.
    pub running: bool,
    /// Turns that each has had to its end.
    pub cycles: u32,
    /// What each gave, in the request's order.
    pub arms: Vec<Arm>,
}

/// What one way to decide gave in a comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Arm {
    /// Who decided.
    pub decider: Decider,
    /// Slots in which it decided.
    pub slots: u32,
    /// Mean reward of a cell and slot, eq. 47.
    pub reward: Option<f64>,
    /// Mean latency of a device, seconds, modelled.
    pub latency_s: Option<f64>,
    /// Its latency less the first arm's, seconds; over the cycles that all have finished. `None` for the first arm, and
    /// before two cycles.
    pub latency_less_s: Option<Interval>,
    /// Its reward less the first arm's.
    pub reward_less: Option<Interval>,
}

/// A mean with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The mean.
    pub mean: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_is_an_array() {
        let dot = Dot { mlu: 7, x_m: 1.5, presence: Presence::Away, alpha: 0.25, ..Dot::default() };
        let text = serde_json::to_string(&dot).expect("json");
        assert_eq!(text, r#"[7,1.5,0.0,"away",0.25,0.0,0.0,0.0,0.0]"#);
        assert_eq!(serde_json::from_str::<Dot>(&text).expect("a dot"), dot);
    }

    #[test]
    fn every_message_survives_the_wire() {
        let messages = [
            ServerMessage::Decision(Box::default()),
            ServerMessage::Picture(Picture { cells: vec![CellPicture::default()], ..Picture::default() }),
            ServerMessage::Snapshot(Box::default()),
            ServerMessage::Gone { mlu: 3 },
            ServerMessage::Round(Round::default()),
            ServerMessage::Refused { why: "no".to_owned() },
        ];
        for message in messages {
            let text = serde_json::to_string(&message).expect("json");
            assert_eq!(serde_json::from_str::<ServerMessage>(&text).expect("a message"), message, "{text}");
        }
    }

    #[test]
    fn a_round_gives_out_its_questions_in_turn() {
        let round = |questions: &[&str]| Round {
            questions: questions.iter().map(|q| (*q).to_owned()).collect(),
            ..Round::default()
        };
        assert_eq!(round(&[]).question_of(3), None);
        assert_eq!(round(&["a"]).question_of(3), Some("a"));
        assert_eq!(round(&["a", "b"]).question_of(3), Some("b"));
    }

    #[test]
    fn reasons_follow_the_numbers() {
        let decision = |change: fn(&mut Decision)| {
            let mut decision = Decision {
                active: 3,
                size_bits: 2e6,
                alone_bps: 2e7,
                local_only_s: 0.9,
                local_is_good: true,
                outcome: DeviceOutcome {
                    alpha: 0.5,
                    rate_bps: 1.5e7,
                    local_s: 0.45,
                    uplink_s: 0.3,
                    server_s: 0.1,
                    ..DeviceOutcome::default()
                },
                ..Decision::default()
            };
            change(&mut decision);
            decision
        };
        for (decision, part, why) in [
            (decision(|_| {}), Part::Model, Why::Balanced),
            (decision(|_| {}), Part::ServerOnly, Why::NoModel),
            (decision(|d| d.outcome.alpha = 0.0), Part::Model, Why::LeavesChannel),
            (decision(|d| (d.outcome.alpha, d.alone_bps) = (0.0, 1e6)), Part::Model, Why::LocalIsFaster),
            (decision(|d| d.outcome.rate_bps = 5e6), Part::LoadOnly, Why::Crowded),
            (decision(|d| (d.local_is_good, d.outcome.uplink_s) = (false, 0.9)), Part::Model, Why::Quality),
        ] {
            assert_eq!(decision.why(part), why);
            assert!(decision.sentence(part).ends_with('.'));
        }
    }
}
