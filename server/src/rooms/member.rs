//! A member: who it is, where it sits, whether it takes part, and what it has done so far.

use client::protocol::rooms::up::Telemetry;
use client::protocol::rooms::{Part, Presence};
use mec::{UserDecision, UserObservation, UserOutcome, UserSlot};
use serde::{Deserialize, Serialize};

use super::radio::{Radio, bits};
use super::secrets::Hash;

/// What is kept of a member when it changes, before anybody is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Number in the room, from 1 on; never used again.
    pub mlu: u32,
    /// Of its token; `None` for a simulated one.
    pub token: Option<Hash>,
    /// As shown; never empty.
    pub name: String,
    /// How it takes part.
    pub part: Part,
    /// Taken out of the slots by the presenter.
    pub muted: bool,
    /// Removed by the presenter; kept so that its token stays worth nothing.
    pub removed: bool,
    /// Its cell; `None` when its seat was given up.
    pub cell: Option<u32>,
}

impl Identity {
    /// Whether it is one of the rehearsal's.
    #[must_use]
    pub fn simulated(&self) -> bool {
        self.token.is_none()
    }
}

/// What a policy sees of the last slot, eq. 46.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Last {
    #[serde(with = "bits")]
    alpha: f64,
    #[serde(with = "bits")]
    power_w: f64,
    #[serde(with = "bits")]
    accuracy: f64,
    #[serde(with = "bits")]
    hallucination: f64,
    #[serde(with = "bits")]
    latency_s: f64,
}

impl Last {
    /// A decision and what it gave.
    #[must_use]
    pub fn of(decision: UserDecision, outcome: &UserOutcome) -> Self {
        let UserOutcome { accuracy, hallucination, latency_s, .. } = *outcome;
        Self { alpha: decision.alpha, power_w: decision.power_w, accuracy, hallucination, latency_s }
    }

    /// With this slot's size and gain.
    #[must_use]
    pub fn observation(self, user: &UserSlot) -> UserObservation {
        let Self { alpha, power_w, accuracy, hallucination, latency_s } = self;
        UserObservation {
            alpha,
            power_w,
            accuracy,
            hallucination,
            latency_s,
            size_bits: user.size_bits,
            gain: user.gain,
        }
    }
}

/// What is kept of a member with every slot.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Place, channel, task.
    pub radio: Radio,
    /// The last slot that it took part in; `None` for a newcomer.
    pub last: Option<Last>,
    /// Slots in which it took part.
    pub slots: u64,
    /// Answers that it reported.
    pub answers: u64,
    /// Whether the server wrote the last of them alone.
    #[serde(default)]
    pub servers_alone: bool,
    /// How many answers it had reported when it last told the quality of one.
    #[serde(default)]
    pub qualities: u64,
    /// Whether it had taken part before the room began anew.
    #[serde(default)]
    pub before: bool,
}

impl Progress {
    /// Of somebody who has just come.
    #[must_use]
    pub fn new(radio: Radio) -> Self {
        Self { radio, last: None, slots: 0, answers: 0, servers_alone: false, qualities: 0, before: false }
    }

    /// The same when the room begins anew, with what is counted from there on.
    #[must_use]
    pub fn anew(self, radio: Radio) -> Self {
        Self { before: self.has_taken_part(), ..Self::new(radio) }
    }

    /// Whether it has ever taken part in a slot.
    #[must_use]
    pub fn has_taken_part(&self) -> bool {
        self.slots > 0 || self.before
    }
}

/// A member.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Who it is.
    pub identity: Identity,
    /// How far it has come.
    pub progress: Progress,
    /// Whether it has a connection; a simulated one always has.
    pub connected: bool,
    /// Whether its page is visible.
    pub visible: bool,
    /// For how long it has been away.
    pub away_for_s: f64,
    /// Its last measurements.
    pub telemetry: Telemetry,
}

impl Member {
    /// A member that has just come, or that a restarted server remembers.
    #[must_use]
    pub fn new(identity: Identity, progress: Progress) -> Self {
        let connected = identity.simulated();
        Self { identity, progress, connected, visible: true, away_for_s: 0.0, telemetry: Telemetry::default() }
    }

    /// Whether it takes part in the slots; `None` without a seat.
    #[must_use]
    pub fn presence(&self) -> Option<Presence> {
        self.identity.cell?;
        Some(if self.identity.muted {
            Presence::Muted
        } else if self.connected && self.visible {
            Presence::Active
        } else {
            Presence::Away
        })
    }

    /// Whether it takes part in the next slot.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.presence() == Some(Presence::Active)
    }

    /// Its own speed, tokens a second; 0 where it did not say.
    #[must_use]
    pub fn tokens_per_s(&self) -> f64 {
        self.telemetry.tokens_per_s.unwrap_or(0.0)
    }
}

/// The name of a member that has none.
#[must_use]
pub fn usual_name(mlu: u32) -> String {
    format!("MLU {mlu}")
}

/// Measurements without those that make no sense.
#[must_use]
pub fn sensible(told: Telemetry) -> Telemetry {
    let within = |value: Option<f64>, most: f64| value.filter(|value| (0.0..=most).contains(value));
    Telemetry {
        tokens_per_s: within(told.tokens_per_s, 1e5),
        server_tokens_per_s: within(told.server_tokens_per_s, 1e5),
        ttft_s: within(told.ttft_s, 1e4),
        battery: within(told.battery, 1.0),
        queue: told.queue.filter(|waiting| *waiting <= 10_000),
        ..told
    }
}
