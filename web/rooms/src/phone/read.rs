//! The server's messages that a phone gets, read by hand (see [`crate::json`] for why); the test holds every field against the
//! types of the protocol.

use client::protocol::rooms::down::{
    CellPicture, Decision, Dot, Picture, RoomNumbers, Round, Seat, ServerMessage, Snapshot, Welcome,
};
use client::protocol::rooms::{Part, Presence, Role, RoomSettings};
use client::protocol::world::{Decider, DeviceOutcome};

use crate::json::Json;

/// A message; `None` for one that is not for phones.
#[must_use]
pub fn message(json: &Json) -> Option<ServerMessage> {
    Some(match json.text("type").as_str() {
        "welcome" => ServerMessage::Welcome(welcome(json)),
        "decision" => ServerMessage::Decision(Box::new(decision(json))),
        "picture" => ServerMessage::Picture(picture(json)),
        "snapshot" => ServerMessage::Snapshot(Box::new(snapshot(json))),
        "seat" => ServerMessage::Seat(seat(json)),
        "settings" => ServerMessage::Settings(settings(json)),
        "round" => ServerMessage::Round(round(json)),
        _ => return None,
    })
}

fn welcome(json: &Json) -> Welcome {
    Welcome {
        version: json.count("version"),
        code: json.text("code"),
        role: Role::Phone,
        token: json.get("token").known().map(|token| token.itself()),
        seat: json.get("seat").known().as_ref().map(seat),
        returned: json.flag("returned"),
    }
}

fn seat(json: &Json) -> Seat {
    Seat {
        mlu: json.count("mlu"),
        name: json.text("name"),
        cell: json.count("cell"),
        x_m: json.amount("x_m"),
        y_m: json.amount("y_m"),
        part: part(&json.text("part")),
        muted: json.flag("muted"),
    }
}

/// How a way to take part is written.
#[must_use]
pub fn part_name(part: Part) -> &'static str {
    match part {
        Part::Model => "model",
        Part::ServerOnly => "server-only",
        Part::LoadOnly => "load-only",
    }
}

fn part(name: &str) -> Part {
    known_part(name).unwrap_or_default()
}

/// The inverse of [`part_name`].
#[must_use]
pub fn known_part(name: &str) -> Option<Part> {
    [Part::Model, Part::ServerOnly, Part::LoadOnly].into_iter().find(|part| part_name(*part) == name)
}

fn decision(json: &Json) -> Decision {
    let out = json.get("outcome");
    Decision {
        slot: json.long("slot"),
        cell: json.count("cell"),
        active: json.count("active"),
        // The sentence on a phone does not name it.
        decider: Decider::Policy,
        distance_m: json.amount("distance_m"),
        gain_db: json.amount("gain_db"),
        fading_db: json.amount("fading_db"),
        size_bits: json.amount("size_bits"),
        outcome: DeviceOutcome {
            alpha: out.amount("alpha"),
            power_w: out.amount("power_w"),
            rate_bps: out.amount("rate_bps"),
            local_s: out.amount("local_s"),
            uplink_s: out.amount("uplink_s"),
            server_s: out.amount("server_s"),
            latency_s: out.amount("latency_s"),
            local_j: out.amount("local_j"),
            uplink_j: out.amount("uplink_j"),
            accuracy: out.amount("accuracy"),
            hallucination: out.amount("hallucination"),
        },
        power_max_w: json.amount("power_max_w"),
        alone_bps: json.amount("alone_bps"),
        local_only_s: json.amount("local_only_s"),
        local_is_good: json.flag("local_is_good"),
        server_hz: json.amount("server_hz"),
    }
}

/// The cell, and the two numbers of the room that a phone shows.
fn picture(json: &Json) -> Picture {
    let room = json.get("room");
    let cell = |cell: &Json| CellPicture {
        cell: cell.count("cell"),
        reward: None,
        mlus: cell.list("mlus").iter().map(dot).collect(),
    };
    Picture {
        slot: json.long("slot"),
        cells: json.list("cells").iter().map(cell).collect(),
        room: RoomNumbers {
            latency_median_s: room.number("latency_median_s"),
            measured_latency_median_s: room.number("measured_latency_median_s"),
            ..RoomNumbers::default()
        },
        ..Picture::default()
    }
}

/// An array of fields, by their places.
fn dot(json: &Json) -> Dot {
    Dot {
        mlu: json.count("0"),
        x_m: json.amount("1"),
        y_m: json.amount("2"),
        presence: match json.text("3").as_str() {
            "away" => Presence::Away,
            "muted" => Presence::Muted,
            _ => Presence::Active,
        },
        alpha: json.amount("4"),
        power_w: json.amount("5"),
        rate_bps: json.amount("6"),
        latency_s: json.amount("7"),
        tokens_per_s: json.amount("8"),
    }
}

/// Whether slots are made, how answers are measured, and how large a cell is.
fn settings(json: &Json) -> RoomSettings {
    let radius = json.get("values").number("radius_m");
    RoomSettings {
        paused: json.flag("paused"),
        measure: json.flag("measure"),
        gamma: json.amount("gamma"),
        values: radius.map(|radius_m| ("radius_m".to_owned(), radius_m)).into_iter().collect(),
        ..RoomSettings::default()
    }
}

fn snapshot(json: &Json) -> Snapshot {
    Snapshot {
        settings: settings(&json.get("settings")),
        radius_m: json.amount("radius_m"),
        picture: picture(&json.get("picture")),
        decision: json.get("decision").known().as_ref().map(decision),
        seat: json.get("seat").known().as_ref().map(seat),
        round: json.get("round").known().as_ref().map(round),
        ..Snapshot::default()
    }
}

fn round(json: &Json) -> Round {
    Round {
        round: json.count("round"),
        questions: json.list("questions").iter().map(Json::itself).collect(),
        slot: json.long("slot"),
        open: json.flag("open"),
        ..Round::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written by the protocol's own types is read back the same, field by field.
    #[test]
    fn messages_are_read_as_they_are_written() {
        let seat =
            Seat { mlu: 7, name: "Ada".to_owned(), cell: 2, x_m: 1.5, y_m: -2.5, part: Part::ServerOnly, muted: true };
        let outcome = DeviceOutcome {
            alpha: 0.25,
            power_w: 0.5,
            rate_bps: 1e6,
            local_s: 0.1,
            uplink_s: 0.2,
            server_s: 0.3,
            latency_s: 0.4,
            local_j: 0.5,
            uplink_j: 0.6,
            accuracy: 0.7,
            hallucination: 0.8,
        };
        let decision = Decision {
            slot: 9,
            cell: 2,
            active: 3,
            decider: Decider::Policy,
            distance_m: 5.0,
            gain_db: -60.0,
            fading_db: 1.0,
            size_bits: 2e6,
            outcome,
            power_max_w: 2.0,
            alone_bps: 3e6,
            local_only_s: 0.9,
            local_is_good: true,
            server_hz: 1e10,
        };
        let dots = [Presence::Active, Presence::Away, Presence::Muted].map(|presence| Dot {
            mlu: 1,
            x_m: 2.0,
            y_m: 3.0,
            presence,
            alpha: 0.5,
            power_w: 0.75,
            rate_bps: 6.0,
            latency_s: 7.0,
            tokens_per_s: 8.0,
        });
        let picture = Picture {
            slot: 9,
            cells: vec![CellPicture { cell: 2, reward: None, mlus: dots.to_vec() }],
            room: RoomNumbers {
                latency_median_s: Some(0.5),
                measured_latency_median_s: Some(1.5),
                ..RoomNumbers::default()
            },
            ..Picture::default()
        };
        let questions = vec!["a".to_owned(), "b".to_owned()];
        let round = Round { round: 4, questions, slot: 12, open: true, ..Round::default() };
        let values = [("radius_m".to_owned(), 30.0)].into();
        let settings = RoomSettings { paused: true, measure: true, gamma: 0.75, values, ..RoomSettings::default() };
        let welcome = Welcome {
            version: 1,
            code: "BCD234".to_owned(),
            role: Role::Phone,
            token: Some("t".to_owned()),
            seat: Some(seat.clone()),
            returned: true,
        };
        let snapshot = Snapshot {
            settings: settings.clone(),
            radius_m: 30.0,
            picture: picture.clone(),
            decision: Some(decision.clone()),
            seat: Some(seat.clone()),
            round: Some(round.clone()),
            ..Snapshot::default()
        };
        for written in [
            ServerMessage::Welcome(welcome.clone()),
            ServerMessage::Welcome(Welcome { token: None, seat: None, returned: false, ..welcome }),
            ServerMessage::Decision(Box::new(decision)),
            ServerMessage::Picture(picture),
            ServerMessage::Snapshot(Box::new(snapshot)),
            ServerMessage::Snapshot(Box::default()),
            ServerMessage::Seat(seat),
            ServerMessage::Settings(settings),
            ServerMessage::Round(round),
        ] {
            let text = serde_json::to_string(&written).expect("json");
            assert_eq!(message(&Json::parse(&text).expect("json")), Some(written), "{text}");
        }
        let others = serde_json::to_string(&ServerMessage::Gone { mlu: 1 }).expect("json");
        assert_eq!(message(&Json::parse(&others).expect("json")), None);
        for part in [Part::Model, Part::ServerOnly, Part::LoadOnly] {
            assert_eq!(serde_json::to_string(&part).expect("json"), format!("\"{}\"", part_name(part)));
        }
    }
}
