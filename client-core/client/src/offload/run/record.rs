//! What was measured of a run, put beside what the simulator had said of the slot.

use super::{Ask, SlotModel};
use crate::offload::openai::Decoded;
use crate::protocol::engine::Read;
use crate::protocol::worker::SlotRecord;

/// Measurements of a run; times are seconds on the run's clock.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    /// When the person pressed Enter.
    started_s: f64,
    /// When the split was known and the link began to carry.
    planned_s: f64,
    pub(super) device: Side,
    pub(super) server: Side,
    /// What the server timed itself.
    pub(super) server_decoded: Decoded,
    /// When the last piece had come up the link.
    pub(super) last_arrival_s: Option<f64>,
    /// Time until the server's replies began, in all.
    pub(super) reply_s: f64,
    /// How often an answer changed hands.
    handovers: usize,
    /// Time between the last token of one side and the first of the other there, in all.
    handover_s: f64,
    pub(super) server_lost: bool,
    pub(super) device_lost: bool,
}

/// Measurements of one side.
#[derive(Clone, Debug, Default)]
pub(super) struct Side {
    tokens: usize,
    first_s: Option<f64>,
    last_s: Option<f64>,
    gaps_s: f64,
    gaps: usize,
    /// Prompts that it read, where it told.
    pub(super) read: Option<Read>,
    /// Time of work that is done.
    busy_s: f64,
    /// Since when there is work that is not.
    busy_since_s: Option<f64>,
}

impl Side {
    /// A token was written.
    pub(super) fn token(&mut self, now_s: f64) {
        if let Some(last_s) = self.last_s {
            self.gaps_s += now_s - last_s;
            self.gaps += 1;
        }
        self.first_token(now_s);
    }

    /// The first token of a prompt was written: reading the prompt gave it, not decoding.
    pub(super) fn first_token(&mut self, now_s: f64) {
        self.tokens += 1;
        self.first_s.get_or_insert(now_s);
        self.last_s = Some(now_s);
    }

    /// Work on a prompt begins, perhaps beside others. The time until the next token is prefill or waiting, not decoding.
    pub(super) fn begin(&mut self, now_s: f64) {
        self.last_s = None;
        self.busy_since_s.get_or_insert(now_s);
    }

    /// Work on a prompt ends.
    pub(super) fn end(&mut self, now_s: f64) {
        if let Some(since_s) = self.busy_since_s.take() {
            self.busy_s += now_s - since_s;
        }
    }

    /// Work that was done outside of `begin` and `end`.
    pub(super) fn add(&mut self, seconds: f64) {
        self.busy_s += seconds;
    }

    /// Whether this side did anything.
    pub(super) fn is_used(&self) -> bool {
        self.tokens > 0 || self.busy_s > 0.0
    }

    fn tokens_per_s(&self) -> Option<f64> {
        (self.gaps > 0 && self.gaps_s > 0.0).then(|| self.gaps as f64 / self.gaps_s)
    }
}

impl Measured {
    pub(super) fn new(started_s: f64, planned_s: f64) -> Self {
        Self {
            started_s,
            planned_s,
            device: Side::default(),
            server: Side::default(),
            server_decoded: Decoded::default(),
            last_arrival_s: None,
            reply_s: 0.0,
            handovers: 0,
            handover_s: 0.0,
            server_lost: false,
            device_lost: false,
        }
    }

    /// An answer was gone on with by the other side, so long after the last token.
    pub(super) fn hand_over(&mut self, seconds: f64) {
        self.handovers += 1;
        self.handover_s += seconds;
    }

    pub(super) fn record(mut self, ask: &Ask, slot: &SlotModel, stopped: bool, now_s: f64) -> SlotRecord {
        let model = &slot.outcome;
        // A stopped side was dropped in the middle of its work.
        self.device.end(now_s);
        self.server.end(now_s);
        let tokens = self.device.tokens + self.server.tokens;
        let done_alpha = (tokens > 0).then(|| self.server.tokens as f64 / tokens as f64);
        let held_back_s = self.last_arrival_s.map(|arrival_s| arrival_s.min(now_s) - self.planned_s);
        let since_start = |time_s: Option<f64>| time_s.map(|time_s| time_s - self.started_s);
        SlotRecord {
            slot: slot.slot,
            prompts: ask.prompts.len(),
            size_bits: slot.size_bits,
            alpha: model.alpha,
            power_w: model.power_w,
            rate_bps: model.rate_bps,
            model_local_s: model.local_s,
            model_uplink_s: model.uplink_s,
            model_server_s: model.server_s,
            model_latency_s: model.latency_s,
            model_energy_j: model.local_j + model.uplink_j,
            model_accuracy: model.accuracy,
            model_hallucination: model.hallucination,
            measured_local_s: self.device.is_used().then_some(self.device.busy_s),
            measured_uplink_s: if ask.options.pacing { held_back_s } else { held_back_s.map(|_| self.reply_s) },
            measured_server_s: self.server.is_used().then_some(self.server.busy_s),
            measured_latency_s: now_s - self.started_s,
            device_ttft_s: since_start(self.device.first_s),
            server_ttft_s: since_start(self.server.first_s),
            device_tokens: self.device.tokens,
            server_tokens: self.server.tokens,
            device_tokens_per_s: self.device.tokens_per_s(),
            server_tokens_per_s: self.server_decoded.tokens_per_s(),
            done_alpha,
            handovers: self.handovers,
            handover_s: self.handover_s,
            device_read: self.device.read,
            server_read: self.server.read,
            stopped,
            server_lost: self.server_lost,
        }
    }
}
