//! Rate, latency, energy, penalty and reward, one function an equation.

use super::params::{MecParams, Physics};

/// (14): time to compute the local part.
pub fn local_latency_s(params: &MecParams, alpha: f64, size_bits: f64) -> f64 {
    (1.0 - alpha) * params.cycles_per_bit * size_bits / params.device_hz
}

/// (15): energy to compute the local part.
pub fn local_energy_j(params: &MecParams, alpha: f64, size_bits: f64) -> f64 {
    params.kappa_comp * params.device_hz * params.device_hz * (1.0 - alpha) * params.cycles_per_bit * size_bits
}

/// (19): uplink rate from received powers, never below the floor.
///
/// `interference_w` is the sum over the *other* users. Computing it as total minus own would lose eight digits at the
/// 80 dB of this system.
pub fn rate_bps(physics: &Physics, received_w: f64, interference_w: f64) -> f64 {
    let sinr = received_w / (interference_w + physics.noise_w);
    (physics.params.bandwidth_hz * (1.0 + sinr).log2()).max(physics.params.rate_floor_bps)
}

/// (20): time to send the offloaded part.
pub fn uplink_latency_s(alpha: f64, size_bits: f64, rate_bps: f64) -> f64 {
    alpha * size_bits / rate_bps
}

/// The cycles that the server has to spend on a user, the numerator of (22).
pub fn server_work_cycles(params: &MecParams, alpha: f64, size_bits: f64) -> f64 {
    alpha * params.cycles_per_bit * size_bits
}

/// (29): local and offloaded parts run side by side.
pub fn latency_s(local_s: f64, uplink_s: f64, server_s: f64) -> f64 {
    local_s.max(uplink_s + server_s)
}

/// The three terms of (48), each pooled over the users.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Violations {
    /// Missing accuracy, summed over users.
    pub accuracy: f64,
    /// Hallucination rate too many, summed over users.
    pub hallucination: f64,
    /// Energy over the pooled budget, in joules.
    pub energy_j: f64,
}

impl Violations {
    /// (48) from the sums over the users.
    pub fn pooled(params: &MecParams, users: usize, accuracy: f64, hallucination: f64, energy_j: f64) -> Self {
        let count = users as f64;
        Self {
            accuracy: (count * params.a_min - accuracy).max(0.0),
            hallucination: (hallucination - count * params.h_max).max(0.0),
            energy_j: (energy_j - count * params.e_max_j).max(0.0),
        }
    }

    /// Ω of (48).
    pub fn total(&self) -> f64 {
        self.accuracy + self.hallucination + self.energy_j
    }
}

/// (47): the reward of a slot.
pub fn reward(params: &MecParams, latency_sum_s: f64, penalty: f64) -> f64 {
    1.0 / (latency_sum_s + params.omega * penalty)
}
