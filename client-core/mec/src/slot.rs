//! One slot as a pure function: what every user brings and decides → what every user gets, without allocation.

use super::cost::{self, Violations};
use super::params::{MAX_USERS, MecParams, Physics, ServerShare};
use super::qos::Quality;

/// What a user brings into a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct UserSlot {
    /// Channel gain h_k.
    pub gain: f64,
    /// Task size X_k.
    pub size_bits: f64,
    /// Quality of both models in this slot.
    pub quality: Quality,
}

/// What is decided for a user, (45).
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct UserDecision {
    /// Offloading ratio in [0, 1].
    pub alpha: f64,
    /// Transmit power in [0, P_max].
    pub power_w: f64,
}

impl UserDecision {
    /// The nearest allowed decision; NaN becomes 0.
    pub fn clamped(self, p_max_w: f64) -> Self {
        let fix = |v: f64, top: f64| if v.is_nan() { 0.0 } else { v.clamp(0.0, top) };
        Self { alpha: fix(self.alpha, 1.0), power_w: fix(self.power_w, p_max_w) }
    }
}

/// What a user gets out of a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct UserOutcome {
    /// Uplink rate r_k, (19).
    pub rate_bps: f64,
    /// Local computation, (14).
    pub local_s: f64,
    /// Transmission, (20).
    pub uplink_s: f64,
    /// Computation on the server, (22), with what is still queued there in the backlog variant.
    pub server_s: f64,
    /// L_k of (29).
    pub latency_s: f64,
    /// Energy of local computation, (15).
    pub local_j: f64,
    /// Energy of transmission, (21).
    pub uplink_j: f64,
    /// Effective accuracy, (28).
    pub accuracy: f64,
    /// Effective hallucination rate, (28).
    pub hallucination: f64,
    /// Cycles asked of the server.
    pub work_cycles: f64,
}

/// A difference to a limit below this is rounding, not a violation.
pub const LIMIT_SLACK: f64 = 1e-9;

impl UserOutcome {
    /// Both energies.
    pub fn energy_j(&self) -> f64 {
        self.local_j + self.uplink_j
    }

    /// Whether the user breaks its own limit on accuracy (30e), hallucination rate (30f), energy (30d).
    pub fn breaks(&self, params: &MecParams) -> [bool; 3] {
        [
            self.accuracy < params.a_min - LIMIT_SLACK,
            self.hallucination > params.h_max + LIMIT_SLACK,
            self.energy_j() > params.e_max_j + LIMIT_SLACK,
        ]
    }
}

/// The sums over a slot's users.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct SlotTotals {
    /// Σ L_k.
    pub latency_sum_s: f64,
    /// Σ of both energies.
    pub energy_sum_j: f64,
    /// The three terms of (48).
    pub violations: Violations,
    /// Ω of (48).
    pub penalty: f64,
    /// (47).
    pub reward: f64,
    /// Σ of the cycles asked of the server.
    pub work_cycles: f64,
}

/// Evaluates one slot, (14)–(22), (28)–(29), (47)–(48), into `outcomes`.
///
/// `backlog_s` is the time that the server still needs for earlier slots; it delays whoever offloads, and is 0 except in
/// the backlog variant. The three slices hold one entry a user.
///
/// # Panics
/// If the slices differ in length or hold more than [`MAX_USERS`] users.
pub fn evaluate(
    physics: &Physics,
    users: &[UserSlot],
    backlog_s: f64,
    decisions: &[UserDecision],
    outcomes: &mut [UserOutcome],
) -> SlotTotals {
    let count = users.len();
    assert!(
        count <= MAX_USERS && decisions.len() == count && outcomes.len() == count,
        "one entry a user in each slice"
    );
    let params = &physics.params;

    let mut received_w = [0.0; MAX_USERS];
    let mut work_sum = 0.0;
    for ((received, user), decision) in received_w.iter_mut().zip(users).zip(decisions) {
        *received = decision.power_w * user.gain;
        work_sum += cost::server_work_cycles(params, decision.alpha, user.size_bits);
    }
    let received_w = &received_w[..count];

    let (mut latency_sum_s, mut energy_sum_j, mut accuracy_sum, mut hallucination_sum) = (0.0, 0.0, 0.0, 0.0);
    for (k, ((user, decision), out)) in users.iter().zip(decisions).zip(outcomes.iter_mut()).enumerate() {
        let UserDecision { alpha, power_w } = *decision;
        let mut interference_w = 0.0;
        for (l, received) in received_w.iter().enumerate() {
            if l != k {
                interference_w += received;
            }
        }
        let rate_bps = cost::rate_bps(physics, received_w[k], interference_w);
        let work_cycles = cost::server_work_cycles(params, alpha, user.size_bits);
        let uplink_s = cost::uplink_latency_s(alpha, user.size_bits, rate_bps);
        let server_s = if work_cycles > 0.0 {
            let compute_s = match params.server_share {
                ServerShare::Full | ServerShare::Equal => work_cycles / physics.server_hz_each,
                // A share of F in proportion to the work: everybody waits for the sum.
                ServerShare::Load => work_sum / physics.server_hz_each,
            };
            compute_s + backlog_s
        } else {
            0.0
        };
        let local_s = cost::local_latency_s(params, alpha, user.size_bits);
        *out = UserOutcome {
            rate_bps,
            local_s,
            uplink_s,
            server_s,
            latency_s: cost::latency_s(local_s, uplink_s, server_s),
            local_j: cost::local_energy_j(params, alpha, user.size_bits),
            uplink_j: power_w * uplink_s, // (21)
            accuracy: user.quality.accuracy(alpha),
            hallucination: user.quality.hallucination(alpha),
            work_cycles,
        };
        latency_sum_s += out.latency_s;
        energy_sum_j += out.local_j + out.uplink_j;
        accuracy_sum += out.accuracy;
        hallucination_sum += out.hallucination;
    }
    let violations = Violations::pooled(params, count, accuracy_sum, hallucination_sum, energy_sum_j);
    let penalty = violations.total();
    let reward = cost::reward(params, latency_sum_s, penalty);
    SlotTotals { latency_sum_s, energy_sum_j, violations, penalty, reward, work_cycles: work_sum }
}
