//! Decisions that look ahead, for [`Variant::Backlog`](super::Variant): there the server's time that this slot takes
//! delays the slots after it, and the best decision of a slot by itself ([`super::oracle`]) is no longer the best one.
//!
//! Slots touch each other through one number, the backlog, so a plan is a dynamic programme over it. For every slot and
//! every node of a grid of backlogs, a table holds what the slot costs (1/reward) and how much of the server's time it
//! takes, at several prices of that time; backwards over the tables go the values of the backlogs.
//! Carrying out a plan never trusts the tables: the decision of the present slot is searched anew at the true backlog and
//! judged by its true reward.
//!
//! Two planners, both with full knowledge of the present slot (its difficulty too):
//! - [`Clairvoyant`] knows the slots to come (model-predictive control over a receding horizon, the true future in place
//!   of a forecast). No policy can know that: what it reaches is an upper bound for all of them, up to the grid's and the
//!   search's precision. Nothing proves the bound; a policy above it would show that it is loose.
//! - [`Lookahead`] knows only how slots are distributed (they count as independent of the present one). A policy could do
//!   that: a strong reference, no bound.

use super::alpha::ServerLoad;
use super::oracle::{Start, at_start, priced_optimum};
use super::params::{MecParams, Physics};
use super::slot::{UserDecision, UserOutcome, UserSlot, evaluate};
use super::world::{World, nth_seed};

/// Prices of the server's time, as shares of F/f: up to 1 a balanced split gets dearer, from 1 on the device computes
/// cheaper and only missing quality keeps work on the server.
const PRICES: [f64; 8] = [0.0, 0.5, 0.98, 1.02, 1.5, 2.2, 4.0, 100.0];
/// Nodes of the backlog grid.
const NODES: usize = 65;
/// The grid ends at this many times the longest local computation, where nobody queues any more.
const GRID_TOP: f64 = 4.0;
/// Mixtures that are tried between the choices of neighbouring prices, in a plan and when it is carried out.
const MIXTURES_PLANNED: usize = 4;
const MIXTURES_TRIED: usize = 8;

/// What later slots are worth by the backlog that they find: the sum of their rewards, linear between the nodes of a grid
/// that is denser near 0.
#[derive(Clone, Debug)]
struct ValueFunction {
    top_s: f64,
    values: [f64; NODES],
}

impl ValueFunction {
    /// Nothing comes later.
    fn nothing(params: &MecParams) -> Self {
        let longest_s = params.cycles_per_bit * 1e6 * params.size_max_mbit / params.device_hz;
        Self { top_s: GRID_TOP * longest_s, values: [0.0; NODES] }
    }

    fn node_s(top_s: f64, node: usize) -> f64 {
        let share = node as f64 / (NODES - 1) as f64;
        top_s * share * share
    }

    /// The worth at a backlog; beyond the grid that of its end.
    fn at(&self, backlog_s: f64) -> f64 {
        let position = (NODES - 1) as f64 * (backlog_s / self.top_s).clamp(0.0, 1.0).sqrt();
        let node = (position as usize).min(NODES - 2);
        let (low, high) = (Self::node_s(self.top_s, node), Self::node_s(self.top_s, node + 1));
        let share = ((backlog_s - low) / (high - low)).clamp(0.0, 1.0);
        self.values[node] + share * (self.values[node + 1] - self.values[node])
    }

    /// What it is worth to meet one of the given slots (each with equal chance) and then what is worth `self`.
    fn before(&self, slot_s: f64, slots: &[SlotChoices]) -> Self {
        let mut values = [0.0; NODES];
        for (node, value) in values.iter_mut().enumerate() {
            let backlog_s = Self::node_s(self.top_s, node);
            let best = |slot: &SlotChoices| {
                let choices = &slot.choices[node];
                let mut best = f64::NEG_INFINITY;
                for pair in choices.windows(2) {
                    for part in 0..=MIXTURES_PLANNED {
                        let share = part as f64 / MIXTURES_PLANNED as f64;
                        let cost_s = pair[0].cost_s + share * (pair[1].cost_s - pair[0].cost_s);
                        let work_s = pair[0].work_s + share * (pair[1].work_s - pair[0].work_s);
                        best = best.max(1.0 / cost_s + self.at((backlog_s + work_s - slot_s).max(0.0)));
                    }
                }
                best
            };
            *value = slots.iter().map(best).sum::<f64>() / slots.len().max(1) as f64;
        }
        Self { top_s: self.top_s, values }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Choice {
    /// 1/reward of the slot.
    cost_s: f64,
    /// The server's time that it takes, at all of F.
    work_s: f64,
}

/// A slot with the best offsets without a backlog, by price: where the search at the true backlog begins.
#[derive(Clone, Debug)]
struct PricedSlot {
    users: Vec<UserSlot>,
    starts: [Start; PRICES.len()],
}

/// What can be had of a slot, for each node of the backlog grid and each price of the server's time.
#[derive(Clone, Debug)]
struct SlotChoices {
    slot: PricedSlot,
    choices: Vec<[Choice; PRICES.len()]>,
}

fn load(physics: &Physics, wait_s: f64, price: f64) -> ServerLoad {
    ServerLoad { wait_s, price: price * physics.params.server_hz / physics.params.device_hz }
}

impl SlotChoices {
    fn new(physics: &Physics, users: &[UserSlot]) -> Self {
        let top_s = ValueFunction::nothing(&physics.params).top_s;
        let slot = PricedSlot::new(physics, users);
        let choices = (0..NODES).map(|node| {
            let wait_s = ValueFunction::node_s(top_s, node);
            let mut choices = [Choice::default(); PRICES.len()];
            for ((choice, price), start) in choices.iter_mut().zip(PRICES).zip(&slot.starts) {
                let totals = at_start(physics, users, load(physics, wait_s, price), start);
                choice.cost_s = 1.0 / totals.reward;
                choice.work_s = totals.work_cycles / physics.params.server_hz;
            }
            choices
        });
        let choices = choices.collect();
        Self { slot, choices }
    }
}

impl PricedSlot {
    fn new(physics: &Physics, users: &[UserSlot]) -> Self {
        let mut starts = [Start::default(); PRICES.len()];
        let mut near = None;
        for (found, price) in starts.iter_mut().zip(PRICES) {
            *found = priced_optimum(physics, users, load(physics, 0.0, price), near.as_ref()).1;
            near = Some(*found);
        }
        Self { users: users.to_vec(), starts }
    }

    /// The decision with the largest reward plus worth of what comes later.
    fn decide(&self, physics: &Physics, backlog_s: f64, later: &ValueFunction) -> Vec<UserDecision> {
        let params = &physics.params;
        let searched = PRICES.iter().zip(&self.starts).map(|(price, start)| {
            priced_optimum(physics, &self.users, load(physics, backlog_s, *price), Some(start)).0.decisions
        });
        let searched: Vec<Vec<UserDecision>> = searched.collect();
        let mut outcomes = vec![UserOutcome::default(); self.users.len()];
        let (mut best, mut best_value) = (Vec::new(), f64::NEG_INFINITY);
        for pair in searched.windows(2) {
            for part in 0..=MIXTURES_TRIED {
                let share = part as f64 / MIXTURES_TRIED as f64;
                let mixed = pair[0].iter().zip(&pair[1]).map(|(a, b)| mix(*a, *b, share));
                let mixed: Vec<UserDecision> = mixed.collect();
                let totals = evaluate(physics, &self.users, backlog_s, &mixed, &mut outcomes);
                let after_s = backlog_s + totals.work_cycles / params.server_hz - params.slot_s;
                let value = totals.reward + later.at(after_s.max(0.0));
                if value > best_value {
                    (best, best_value) = (mixed, value);
                }
            }
        }
        best
    }
}

/// Between two decisions: ratios evenly, powers evenly in dB. A user silent in one keeps the other's power.
fn mix(a: UserDecision, b: UserDecision, share: f64) -> UserDecision {
    let power_w = if a.power_w > 0.0 && b.power_w > 0.0 {
        a.power_w * (b.power_w / a.power_w).powf(share)
    } else {
        a.power_w.max(b.power_w)
    };
    UserDecision { alpha: a.alpha + share * (b.alpha - a.alpha), power_w }
}

/// The planner that knows what comes.
#[derive(Clone, Debug)]
pub struct Clairvoyant {
    physics: Physics,
    slots: Vec<SlotChoices>,
}

impl Clairvoyant {
    /// Looks at the world's present slot and the `slots − 1` after it. What users bring does not depend on decisions.
    pub fn new(world: &World, slots: usize) -> Self {
        let mut world = world.clone();
        let mut ahead = Vec::with_capacity(slots);
        for _ in 0..slots {
            ahead.push(SlotChoices::new(world.physics(), world.slots()));
            world.step(&[]);
        }
        Self { physics: *world.physics(), slots: ahead }
    }

    /// Decides the `slot`-th of the known slots, planning over `horizon` slots with this one (1: this one alone). `None`
    /// past the last known slot.
    pub fn decide(&self, slot: usize, backlog_s: f64, horizon: usize) -> Option<Vec<UserDecision>> {
        let present = self.slots.get(slot)?;
        let mut later = ValueFunction::nothing(&self.physics.params);
        for known in self.slots[slot + 1..].iter().take(horizon.saturating_sub(1)).rev() {
            later = later.before(self.physics.params.slot_s, std::slice::from_ref(known));
        }
        Some(present.slot.decide(&self.physics, backlog_s, &later))
    }
}

/// The planner that knows how slots are distributed.
#[derive(Clone, Debug)]
pub struct Lookahead {
    physics: Physics,
    samples: Vec<SlotChoices>,
    later: ValueFunction,
}

impl Lookahead {
    /// Takes the slots to come to be any of `samples` slots of that system drawn from the seed. Sees no further than the
    /// present slot until [`Lookahead::set_horizon`].
    ///
    /// # Panics
    /// If the parameters ask for more users than a world can hold.
    pub fn new(params: MecParams, samples: usize, seed: u64) -> Self {
        let physics = params.physics();
        let samples = (0..samples).map(|i| {
            let world = World::new(params, nth_seed(seed, i as u64));
            SlotChoices::new(&physics, world.slots())
        });
        let samples: Vec<SlotChoices> = samples.collect();
        Self { physics, samples, later: ValueFunction::nothing(&params) }
    }

    /// Plans over so many slots from now on (1: the present one alone).
    pub fn set_horizon(&mut self, horizon: usize) {
        let params = &self.physics.params;
        self.later = ValueFunction::nothing(params);
        for _ in 1..horizon {
            self.later = self.later.before(params.slot_s, &self.samples);
        }
    }

    /// Decides the world's present slot.
    pub fn decide(&self, world: &World) -> Vec<UserDecision> {
        PricedSlot::new(&self.physics, world.slots()).decide(&self.physics, world.backlog_s(), &self.later)
    }
}
