//! Ways to decide in turn, each for some slots, again and again.
//!
//! A slot's channel is like the last one's, so single slots are no independent samples. What is compared is the mean of a
//! whole turn with that of the first arm's turn in the same cycle; the interval is Student's over the cycles.

use client::protocol::rooms::down::{Arm, Comparison, Interval};
use client::protocol::rooms::settings::CompareRequest;
use client::protocol::world::Decider;
use serde::{Deserialize, Serialize};

/// What a slot gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gain {
    /// Mean reward of a cell.
    pub reward: f64,
    /// Mean latency of a device, seconds.
    pub latency_s: f64,
}

/// Mean and spread of numbers that come one by one (Welford).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Running {
    count: u32,
    mean: f64,
    squares: f64,
}

impl Running {
    fn add(&mut self, value: f64) {
        self.count += 1;
        let off = value - self.mean;
        self.mean += off / f64::from(self.count);
        self.squares += off * (value - self.mean);
    }

    fn mean(&self) -> Option<f64> {
        (self.count > 0).then_some(self.mean)
    }

    /// The 95 % interval of the mean.
    fn interval(&self) -> Option<Interval> {
        let freedom = self.count.checked_sub(1).filter(|freedom| *freedom > 0)?;
        let error = (self.squares / f64::from(freedom) / f64::from(self.count)).sqrt();
        let reach = student_975(freedom) * error;
        Some(Interval { mean: self.mean, low: self.mean - reach, high: self.mean + reach })
    }
}

/// The 97.5 % point of Student's distribution: a table up to 10 degrees of freedom, then its expansion about the normal's
/// (Abramowitz and Stegun, 26.7.5), right to three digits.
fn student_975(freedom: u32) -> f64 {
    const FIRST: [f64; 10] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
    let (z, n): (f64, f64) = (1.959_964, f64::from(freedom));
    let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
    let third = (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / 384.0;
    let expanded = z + (z.powi(3) + z) / (4.0 * n) + second / (n * n) + third / n.powi(3);
    FIRST.get(freedom as usize - 1).copied().unwrap_or(expanded)
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct ArmState {
    reward: Running,
    latency: Running,
    reward_less: Running,
    latency_less: Running,
}

/// A comparison under way, or what is left of one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compare {
    request: CompareRequest,
    running: bool,
    /// Which arm decides.
    turn: usize,
    slots: u32,
    /// What the turn gave so far.
    reward: Running,
    latency: Running,
    /// What the turns of this cycle gave, so far.
    cycle: Vec<Gain>,
    cycles: u32,
    arms: Vec<ArmState>,
}

impl Compare {
    /// Begins with the first arm. The request was checked.
    #[must_use]
    pub fn new(request: CompareRequest) -> Self {
        let arms = vec![ArmState::default(); request.deciders.len()];
        let (reward, latency) = Default::default();
        Self { request, running: true, turn: 0, slots: 0, reward, latency, cycle: Vec::new(), cycles: 0, arms }
    }

    /// Who decides the next slot; `None` when it is over.
    #[must_use]
    pub fn decider(&self) -> Option<Decider> {
        self.request.deciders.get(self.turn).copied().filter(|_| self.running)
    }

    /// Ends it.
    pub fn end(&mut self) {
        self.running = false;
    }

    /// Takes a slot in; `true` when a turn ended with it.
    pub fn note(&mut self, gain: Gain) -> bool {
        let Some(arm) = self.arms.get_mut(self.turn).filter(|_| self.running) else { return false };
        arm.reward.add(gain.reward);
        arm.latency.add(gain.latency_s);
        self.reward.add(gain.reward);
        self.latency.add(gain.latency_s);
        self.slots += 1;
        if self.slots < self.request.turn_slots {
            return false;
        }
        self.cycle.push(Gain { reward: self.reward.mean, latency_s: self.latency.mean });
        (self.reward, self.latency, self.slots) = Default::default();
        self.turn += 1;
        if self.turn == self.arms.len() {
            self.turn = 0;
            self.cycles += 1;
            let cycle = std::mem::take(&mut self.cycle);
            if let Some(first) = cycle.first() {
                for (arm, gain) in self.arms.iter_mut().zip(&cycle).skip(1) {
                    arm.reward_less.add(gain.reward - first.reward);
                    arm.latency_less.add(gain.latency_s - first.latency_s);
                }
            }
        }
        true
    }

    /// How it stands.
    #[must_use]
    pub fn view(&self) -> Comparison {
        let arms = self.request.deciders.iter().zip(&self.arms).map(|(decider, arm)| Arm {
            decider: *decider,
            slots: arm.reward.count,
            reward: arm.reward.mean(),
            latency_s: arm.latency.mean(),
            latency_less_s: arm.latency_less.interval(),
            reward_less: arm.reward_less.interval(),
        });
        Comparison { request: self.request.clone(), running: self.running, cycles: self.cycles, arms: arms.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn students_points_are_those_of_the_tables() {
        for (freedom, point) in
            [(1, 12.706), (2, 4.303), (10, 2.228), (11, 2.201), (20, 2.086), (60, 2.000), (1000, 1.962)]
        {
            assert!((student_975(freedom) - point).abs() < 2e-3, "{freedom}: {}", student_975(freedom));
        }
    }

    #[test]
    fn turns_alternate_and_differences_are_taken_within_a_cycle() {
        let request = CompareRequest { deciders: vec![Decider::Policy, Decider::AlwaysLocal], turn_slots: 3 };
        let mut compare = Compare::new(request);
        let mut order = Vec::new();
        // Everything drifts by 10 a cycle; local is 1, 2, 3, 4 slower in the four cycles.
        for cycle in 0..4 {
            for slot in 0..6 {
                let decider = compare.decider().unwrap();
                order.push(decider);
                let slower = if decider == Decider::AlwaysLocal { f64::from(cycle) + 1.0 } else { 0.0 };
                let latency_s = 10.0 * f64::from(cycle) + slower;
                let ended = compare.note(Gain { reward: -latency_s, latency_s });
                assert_eq!(ended, slot % 3 == 2);
            }
        }
        assert_eq!(
            order[..7],
            [[Decider::Policy; 3].as_slice(), &[Decider::AlwaysLocal; 3], &[Decider::Policy]].concat()
        );
        let view = compare.view();
        assert_eq!((view.cycles, view.arms[0].slots, view.arms[1].slots), (4, 12, 12));
        assert_eq!(view.arms[0].latency_less_s, None);
        let less = view.arms[1].latency_less_s.unwrap();
        // 1, 2, 3, 4: mean 2.5, deviation 1.291, t(3) = 3.182.
        let reach = 3.182 * 1.290_994 / 2.0;
        assert!((less.mean - 2.5).abs() < 1e-9 && (less.high - 2.5 - reach).abs() < 1e-3, "{less:?}");
        assert!((view.arms[1].reward_less.unwrap().mean + 2.5).abs() < 1e-9);
        compare.end();
        assert_eq!(compare.decider(), None);
        assert!(!compare.note(Gain::default()));
        let kept: Compare = serde_json::from_str(&serde_json::to_string(&compare).unwrap()).unwrap();
        assert_eq!(kept.view().cycles, 4);
    }
}
