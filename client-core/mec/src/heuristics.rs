//! The policies that need no learning.

use rand::{Rng, RngExt};

use super::alpha::{ServerLoad, best_alphas};
use super::cost;
use super::oracle::powers_from_offsets;
use super::params::{MAX_USERS, Physics, ServerShare};
use super::qos::Quality;
use super::slot::{UserDecision, UserSlot};

/// What the closed form knows of the slot's quality.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QosKnowledge {
    /// The difficulty of this very slot: an upper bound that no policy in the loop can have.
    Exact,
    /// Only the lines at difficulty 0.
    Mean,
}

/// A policy without memory or training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StaticPolicy {
    /// α = 0.
    AlwaysLocal,
    /// α = 1 at P_max.
    AlwaysOffload,
    /// α and p uniform.
    Random,
    /// Equal received power and the exact ratios for the rates that it gives.
    ClosedForm(QosKnowledge),
}

impl StaticPolicy {
    /// All, in the order in which they are shown.
    pub const ALL: [Self; 4] =
        [Self::AlwaysLocal, Self::AlwaysOffload, Self::Random, Self::ClosedForm(QosKnowledge::Mean)];

    /// The name used in files and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::AlwaysLocal => "always-local",
            Self::AlwaysOffload => "always-offload",
            Self::Random => "random",
            Self::ClosedForm(QosKnowledge::Mean) => "closed-form",
            Self::ClosedForm(QosKnowledge::Exact) => "closed-form-exact-qos",
        }
    }

    /// Decides a slot. `rng` is touched by [`StaticPolicy::Random`] alone.
    ///
    /// # Panics
    /// If the slices differ in length or hold more than [`MAX_USERS`] users.
    pub fn decide(self, physics: &Physics, users: &[UserSlot], rng: &mut impl Rng, out: &mut [UserDecision]) {
        match self {
            Self::AlwaysLocal => out.fill(UserDecision::default()),
            Self::AlwaysOffload => out.fill(UserDecision { alpha: 1.0, power_w: physics.p_max_w }),
            Self::Random => {
                for decision in out.iter_mut() {
                    *decision = UserDecision { alpha: rng.random(), power_w: physics.p_max_w * rng.random::<f64>() };
                }
            }
            Self::ClosedForm(knowledge) => closed_form(physics, users, knowledge, out),
        }
    }
}

/// Equal received power, `p_k = P_max·min(h)/h_k`, and for the rates that it gives the ratios that balance local and
/// remote latency, `α = a/(a+c)`, with missing quality bought where it is cheapest.
///
/// # Panics
/// If the slices differ in length or hold more than [`MAX_USERS`] users.
pub fn closed_form(physics: &Physics, users: &[UserSlot], knowledge: QosKnowledge, out: &mut [UserDecision]) {
    let count = users.len();
    assert!(count <= MAX_USERS && out.len() == count, "one entry a user in each slice");
    let mut seen = [UserSlot::default(); MAX_USERS];
    for (seen, user) in seen.iter_mut().zip(users) {
        let quality = match knowledge {
            QosKnowledge::Exact => user.quality,
            QosKnowledge::Mean => Quality::at_difficulty(&physics.params, 0.0),
        };
        *seen = UserSlot { quality, ..*user };
    }
    let seen = &seen[..count];
    let mut power = [0.0; MAX_USERS];
    powers_from_offsets(physics, seen.iter().map(|u| u.gain), &[0.0; MAX_USERS][..count], &mut power[..count]);
    let mut rates = [0.0; MAX_USERS];
    for (k, rate) in rates.iter_mut().enumerate().take(count) {
        let heard = |l: usize| power[l] * seen[l].gain;
        let interference = (0..count).filter(|l| *l != k).map(heard).sum();
        *rate = cost::rate_bps(physics, heard(k), interference);
    }
    let mut shared = *physics;
    if physics.params.server_share == ServerShare::Load {
        shared.server_hz_each /= count.max(1) as f64;
    }
    let mut alpha = [0.0; MAX_USERS];
    best_alphas(&shared, seen, &rates[..count], ServerLoad::default(), &mut alpha[..count]);
    for (k, decision) in out.iter_mut().enumerate() {
        *decision = UserDecision { alpha: alpha[k], power_w: power[k] };
    }
}
