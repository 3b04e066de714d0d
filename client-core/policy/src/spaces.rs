//! What the networks for given systems see and what their outputs mean (`world` has its own).
//!
//! A user's features are those of eq. (46), from the last slot, and the size and gain of this one, each shifted and scaled
//! to about ±1 over the simulator's default ranges. A user's actions are two numbers in [0, 1]: the first is α itself, the
//! second is turned into a power by an [`ActionMap`].

use mec::oracle::powers_from_offsets;
use mec::params::{MAX_USERS, Physics, ratio_to_db};
use mec::{UserDecision, UserObservation};

/// Version of this file's meaning; a policy trained for another version is refused.
pub const SPACES_VERSION: u32 = 1;
/// Network inputs a user: α, p, accuracy, hallucination, latency of the last slot; size and gain of this one.
pub const FEATURES_PER_USER: usize = 7;
/// Network decisions a user: α, and a number that the action map turns into p.
pub const ACTIONS_PER_USER: usize = 2;

/// Sliders can move the system far out of the training range; a feature stops here, so that the network is never asked
/// about the wholly absurd.
pub const FEATURE_LIMIT: f32 = 5.0;
/// Centre and width of accuracy: A_min, and a bit under the gap between device and server.
const ACCURACY: (f64, f64) = (0.6, 0.1);
/// Centre and width of the hallucination rate: H_max, and a bit under the gap between device and server.
const HALLUCINATION: (f64, f64) = (0.78, 0.1);
/// Latency enters as its logarithm, since a starved uplink takes a hundred times the usual: centre 0.3 s.
const LATENCY_CENTRE_S: f64 = 0.3;
/// Middle and half width of the task sizes.
const SIZE_BITS: (f64, f64) = (1.75e6, 0.75e6);
/// Gain enters in dB: its middle over the cell at the default geometry, and about two standard deviations.
const GAIN_DB: (f64, f64) = (-54.0, 5.0);

/// How the second action becomes a transmit power.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ActionMap {
    /// The action is an offset of −10 to +10 dB from equal received power; the loudest allowed common scale is taken.
    /// Noise being far below the signals, only ratios of received power matter, and the best ones lie near 1: this map
    /// makes the whole range worth exploring.
    #[default]
    #[serde(rename = "received-10db")]
    EqualReceived,
    /// The action times P_max, as the paper has it.
    #[serde(rename = "linear-watts")]
    LinearWatts,
}

impl ActionMap {
    /// Half the range of [`ActionMap::EqualReceived`].
    pub const SPAN_DB: f64 = 10.0;

    /// The name used in files and flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::EqualReceived => "received-10db",
            Self::LinearWatts => "linear-watts",
        }
    }

    /// Decisions from actions in [0, 1]. `actions` holds [`ACTIONS_PER_USER`] numbers a user, user after user.
    ///
    /// # Panics
    /// If the slices' lengths do not belong to the same number of users, at most [`MAX_USERS`].
    pub fn decisions(self, physics: &Physics, seen: &[UserObservation], actions: &[f32], out: &mut [UserDecision]) {
        let count = seen.len();
        assert!(count <= MAX_USERS && out.len() == count && actions.len() == count * ACTIONS_PER_USER);
        let mut power = [0.0; MAX_USERS];
        let level = |k: usize| f64::from(actions[k * ACTIONS_PER_USER + 1]).clamp(0.0, 1.0);
        match self {
            Self::EqualReceived => {
                let mut offsets = [0.0; MAX_USERS];
                for (k, offset) in offsets.iter_mut().enumerate().take(count) {
                    *offset = Self::SPAN_DB * (2.0 * level(k) - 1.0);
                }
                powers_from_offsets(physics, seen.iter().map(|o| o.gain), &offsets[..count], &mut power[..count]);
            }
            Self::LinearWatts => {
                for (k, watts) in power.iter_mut().enumerate().take(count) {
                    *watts = level(k) * physics.p_max_w;
                }
            }
        }
        for (k, decision) in out.iter_mut().enumerate() {
            let alpha = f64::from(actions[k * ACTIONS_PER_USER]);
            *decision = UserDecision { alpha, power_w: power[k] }.clamped(physics.p_max_w);
        }
    }
}

/// Writes the network's input for one slot, [`FEATURES_PER_USER`] numbers a user, user after user.
///
/// # Panics
/// If `out` is not `seen.len() · FEATURES_PER_USER` long.
pub fn features(physics: &Physics, seen: &[UserObservation], out: &mut [f32]) {
    assert_eq!(out.len(), seen.len() * FEATURES_PER_USER, "{FEATURES_PER_USER} features a user");
    for (user, out) in seen.iter().zip(out.chunks_exact_mut(FEATURES_PER_USER)) {
        let values = [
            2.0 * user.alpha - 1.0,
            2.0 * user.power_w / physics.p_max_w - 1.0,
            centred(user.accuracy, ACCURACY),
            centred(user.hallucination, HALLUCINATION),
            (user.latency_s / LATENCY_CENTRE_S).max(1e-3).ln(),
            centred(user.size_bits, SIZE_BITS),
            centred(ratio_to_db(user.gain), GAIN_DB),
        ];
        for (out, value) in out.iter_mut().zip(values) {
            *out = limited(value);
        }
    }
}

fn centred(value: f64, (centre, width): (f64, f64)) -> f64 {
    (value - centre) / width
}

fn limited(value: f64) -> f32 {
    let value = value as f32;
    if value.is_nan() { 0.0 } else { value.clamp(-FEATURE_LIMIT, FEATURE_LIMIT) }
}

/// A value as a network takes it: less its centre, over its width, and not far out.
pub(super) fn feature(value: f64, centre_and_width: (f64, f64)) -> f32 {
    limited(centred(value, centre_and_width))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mec::{MecParams, World};

    #[test]
    fn features_are_about_one_over_the_default_ranges() {
        let (mut sum, mut squares, mut count) = ([0.0; 7], [0.0; 7], 0.0);
        for seed in 0..200 {
            let mut world = World::new(MecParams::with_users(2), seed);
            for step in 0..10 {
                let mut out = [0.0; 14];
                features(world.physics(), &world.observation(), &mut out);
                for user in out.chunks(7) {
                    count += 1.0;
                    for (i, v) in user.iter().enumerate() {
                        sum[i] += f64::from(*v);
                        squares[i] += f64::from(v * v);
                    }
                }
                let share = f64::from(step) / 10.0;
                world.step(&[UserDecision { alpha: share, power_w: 2.0 * share }; 2]);
            }
        }
        for i in 0..7 {
            let mean = sum[i] / count;
            let deviation = (squares[i] / count - mean * mean).sqrt();
            assert!(mean.abs() < 1.2 && (0.2..2.0).contains(&deviation), "feature {i}: {mean} ± {deviation}");
        }
    }

    #[test]
    fn the_middle_action_is_equal_received_power_and_all_actions_are_allowed() {
        let world = World::new(MecParams::with_users(3), 4);
        let seen = world.observation();
        let received = |actions: &[f32]| {
            let mut out = [UserDecision::default(); 3];
            ActionMap::EqualReceived.decisions(world.physics(), &seen, actions, &mut out);
            assert!(out.iter().all(|d| d.power_w > 0.0 && d.power_w <= world.physics().p_max_w));
            [0, 1, 2].map(|k| out[k].power_w * seen[k].gain)
        };
        let equal = received(&[0.5; 6]);
        assert!((equal[0] / equal[1] - 1.0).abs() < 1e-9 && (equal[0] / equal[2] - 1.0).abs() < 1e-9);
        let spread = received(&[0.0, 1.0, 0.0, 0.0, 0.0, 0.5]);
        assert!((spread[0] / spread[1] - 100.0).abs() < 1e-6 && (spread[0] / spread[2] - 10.0).abs() < 1e-6);
    }

    #[test]
    fn nonsense_from_the_network_gives_an_allowed_decision() {
        let world = World::new(MecParams::with_users(1), 4);
        for map in [ActionMap::EqualReceived, ActionMap::LinearWatts] {
            for value in [f32::NAN, f32::INFINITY, -3.0, 7.0] {
                let mut out = [UserDecision::default()];
                map.decisions(world.physics(), &world.observation(), &[value; 2], &mut out);
                let fine = (0.0..=1.0).contains(&out[0].alpha) && (0.0..=2.0).contains(&out[0].power_w);
                assert!(fine, "{map:?} {value}: {out:?}");
            }
        }
    }
}
