//! The engine worker's events that a phone acts on, read by hand (see [`crate::json`] for why).

use client::protocol::rooms::up::MeasuredQuality;
use client::protocol::worker::{Origin, Tier};

use crate::json::Json;

/// What the worker said.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// It is up.
    Ready {
        /// Version of its messages.
        version: u32,
        /// Which engine runs.
        tier: Tier,
        /// Why this one.
        reason: String,
        /// Ids of the models that the server offers.
        models: Vec<String>,
    },
    /// Another engine runs from now on.
    Tier(Tier),
    /// A model changed state.
    Model {
        /// Which.
        id: String,
        /// Its state's name.
        state: String,
        /// How far it is, 0 to 1, where it is on its way.
        share: f64,
        /// What went wrong, where it did not work.
        message: String,
    },
    /// A token was written.
    Token {
        /// Which ask.
        ask: u64,
        /// By whom.
        origin: Origin,
        /// The text.
        text: String,
    },
    /// An ask is over.
    Done {
        /// Which ask.
        ask: u64,
        /// Whether a person stopped it.
        stopped: bool,
        /// Whether this device had to finish the server's part.
        server_lost: bool,
    },
    /// An ask's answer was compared with the full model's, eq. 28.
    Compared {
        /// Which ask.
        ask: u64,
        /// Accuracy and hallucination.
        quality: MeasuredQuality,
    },
    /// Something could not be done.
    Failed {
        /// Which ask, if any.
        ask: Option<u64>,
        /// What happened.
        message: String,
    },
    /// Something to know about an ask.
    Notice {
        /// Which ask.
        ask: u64,
        /// What.
        message: String,
    },
    /// Something that a phone does not act on.
    Other,
}

/// Reads an event; `None` for what is none.
#[must_use]
pub fn heard(text: &str) -> Option<Heard> {
    let json = Json::parse(text)?;
    let ask = json.long("ask");
    let message = json.text("message");
    Some(match json.text("type").as_str() {
        "" => return None,
        "ready" => Heard::Ready {
            version: json.count("version"),
            tier: tier(&json.get("tier")),
            reason: json.get("tier").text("reason"),
            models: json.list("models").iter().map(|model| model.text("id")).collect(),
        },
        "tier" => Heard::Tier(tier(&json.get("tier"))),
        "model" => {
            let state = json.get("state");
            let done = state.amount("received") + state.amount("read") + state.amount("over");
            Heard::Model {
                id: json.text("id"),
                state: state.text("state"),
                share: (done / state.amount("total").max(1.0)).clamp(0.0, 1.0),
                message: state.text("message"),
            }
        }
        "token" => {
            let origin = if json.text("origin") == "device" { Origin::Device } else { Origin::Server };
            Heard::Token { ask, origin, text: json.text("text") }
        }
        "done" => {
            let record = json.get("record");
            Heard::Done { ask, stopped: record.flag("stopped"), server_lost: record.flag("server_lost") }
        }
        "compared" => {
            let (accuracy, hallucination) = (json.amount("accuracy"), json.amount("hallucination"));
            Heard::Compared { ask, quality: MeasuredQuality { accuracy, hallucination } }
        }
        "failed" => Heard::Failed { ask: json.get("ask").known().map(|_| ask), message },
        "notice" if json.get("ask").known().is_some() => Heard::Notice { ask, message },
        _ => Heard::Other,
    })
}

fn tier(json: &Json) -> Tier {
    match json.text("tier").as_str() {
        "web-gpu" => Tier::WebGpu,
        "cpu" => Tier::Cpu,
        _ => Tier::ServerOnly,
    }
}

#[cfg(test)]
mod tests {
    use client::protocol::worker::{Event, ModelState, ServerHealth, TierReport};

    use super::*;

    /// What the worker writes with the protocol's own types is read here.
    #[test]
    fn events_are_read_as_they_are_written() {
        let tier = |tier| TierReport { tier, device: String::new(), reason: "why".to_owned(), desktop_class: false };
        let model = |state| Event::Model { id: "compact".to_owned(), state };
        let is = |state: &str, share, message: &str| Heard::Model {
            id: "compact".to_owned(),
            state: state.to_owned(),
            share,
            message: message.to_owned(),
        };
        let ready = |version| Event::Ready {
            version,
            tier: tier(Tier::Cpu),
            models: Vec::new(),
            server: ServerHealth::default(),
        };
        for (event, expected) in [
            (ready(5), Heard::Ready { version: 5, tier: Tier::Cpu, reason: "why".to_owned(), models: Vec::new() }),
            (Event::Tier { tier: tier(Tier::WebGpu) }, Heard::Tier(Tier::WebGpu)),
            (Event::Tier { tier: tier(Tier::ServerOnly) }, Heard::Tier(Tier::ServerOnly)),
            (model(ModelState::Downloading { received: 1, total: 4 }), is("downloading", 0.25, "")),
            (model(ModelState::Loading { read: 1, total: 2 }), is("loading", 0.5, "")),
            (model(ModelState::Testing { over: 3, total: 4 }), is("testing", 0.75, "")),
            (model(ModelState::Ready { memory_bytes: 9 }), is("ready", 0.0, "")),
            (
                Event::Compared { ask: 3, prompts: Vec::new(), accuracy: 0.75, hallucination: 0.25 },
                Heard::Compared { ask: 3, quality: MeasuredQuality { accuracy: 0.75, hallucination: 0.25 } },
            ),
            (model(ModelState::Failed { message: "no".to_owned() }), is("failed", 0.0, "no")),
            (model(ModelState::Partial { received: 1, total: 2 }), is("partial", 0.5, "")),
            (
                Event::Token { ask: 3, prompt: 0, origin: Origin::Device, text: "a".to_owned() },
                Heard::Token { ask: 3, origin: Origin::Device, text: "a".to_owned() },
            ),
            (
                Event::Failed { ask: None, message: "no".to_owned() },
                Heard::Failed { ask: None, message: "no".to_owned() },
            ),
            (
                Event::Failed { ask: Some(2), message: "no".to_owned() },
                Heard::Failed { ask: Some(2), message: "no".to_owned() },
            ),
            (
                Event::Notice { ask: Some(2), message: "so".to_owned() },
                Heard::Notice { ask: 2, message: "so".to_owned() },
            ),
            (Event::Notice { ask: None, message: "so".to_owned() }, Heard::Other),
            (Event::Pair { pair: None }, Heard::Other),
        ] {
            let text = serde_json::to_string(&event).expect("json");
            assert_eq!(heard(&text), Some(expected), "{text}");
        }
        let done = r#"{"type":"done","ask":2,"record":{"stopped":true,"server_lost":false}}"#;
        assert_eq!(heard(done), Some(Heard::Done { ask: 2, stopped: true, server_lost: false }));
        assert_eq!((heard("{}"), heard("{")), (None, None));
    }
}
