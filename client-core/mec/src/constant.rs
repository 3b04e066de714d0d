//! The best action that is the same in every slot and for every user: what a policy that looks at nothing can reach.
//!
//! With one received-power offset for all, the offset itself means nothing: the common scale is the loudest allowed one.
//! So there are two kinds, the same power in watts for all, and equal received power.

use super::oracle::powers_from_offsets;
use super::params::{MAX_USERS, Physics, db_to_ratio};
use super::slot::{UserDecision, UserSlot};

/// How loud everybody sends.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConstantPower {
    /// The same transmit power.
    Watts(f64),
    /// The same received power, the loudest that P_max allows to all.
    EqualReceived,
}

/// One α and one power for all users and slots.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct ConstantAction {
    /// Offloading ratio in [0, 1].
    pub alpha: f64,
    /// How loud everybody sends.
    pub power: ConstantPower,
}

impl ConstantAction {
    /// Decides a slot.
    ///
    /// # Panics
    /// If the slices differ in length or hold more than [`MAX_USERS`] users.
    pub fn decide(self, physics: &Physics, users: &[UserSlot], out: &mut [UserDecision]) {
        let count = users.len();
        assert!(count <= MAX_USERS && out.len() == count, "one entry a user in each slice");
        let mut power = [0.0; MAX_USERS];
        match self.power {
            ConstantPower::Watts(watts) => power[..count].fill(watts),
            ConstantPower::EqualReceived => {
                let gains = users.iter().map(|u| u.gain);
                powers_from_offsets(physics, gains, &[0.0; MAX_USERS][..count], &mut power[..count]);
            }
        }
        for (decision, power_w) in out.iter_mut().zip(power) {
            *decision = UserDecision { alpha: self.alpha, power_w };
        }
    }

    /// Searches the best action of each kind (the same watts, equal received power) by the mean reward that `judge` gives
    /// it: a grid over α, then ever smaller steps of α and of the power in dB.
    ///
    /// # Errors
    /// The first error of `judge`.
    pub fn best<E>(physics: &Physics, mut judge: impl FnMut(Self) -> Result<f64, E>) -> Result<[Self; 2], E> {
        let kinds = [ConstantPower::Watts(physics.p_max_w), ConstantPower::EqualReceived];
        let mut found = kinds.map(|power| Self { alpha: 0.0, power });
        for best in &mut found {
            let mut reward = f64::NEG_INFINITY;
            for step in 0..=20 {
                let next = Self { alpha: f64::from(step) / 20.0, ..*best };
                let judged = judge(next)?;
                if judged > reward {
                    (*best, reward) = (next, judged);
                }
            }
            let mut step = 0.025;
            while step > 5e-4 {
                let mut moved = false;
                for next in best.neighbours(step, physics.p_max_w) {
                    let judged = judge(next)?;
                    // Where power hardly matters, rounding should not make anybody quieter.
                    if judged > reward * (1.0 + 1e-5) {
                        (*best, reward, moved) = (next, judged, true);
                    }
                }
                if !moved {
                    step *= 0.5;
                }
            }
        }
        Ok(found)
    }

    /// A step of α up and down, and 200 times as many dB of power.
    fn neighbours(self, step: f64, p_max_w: f64) -> impl Iterator<Item = Self> {
        let alphas = [step, -step].map(|by| Self { alpha: (self.alpha + by).clamp(0.0, 1.0), ..self });
        let louder = move |db: f64| match self.power {
            ConstantPower::Watts(watts) => {
                Some(Self { power: ConstantPower::Watts((watts * db_to_ratio(db)).min(p_max_w)), ..self })
            }
            ConstantPower::EqualReceived => None,
        };
        alphas.into_iter().chain([200.0 * step, -200.0 * step].into_iter().filter_map(louder))
    }
}
