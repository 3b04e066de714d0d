//! Many slots of one system at once, in `f32` and as structures of arrays, so that the compiler computes several of them
//! with every instruction. The equations are those of [`super::slot`] with the logarithm as a polynomial; rewards and
//! latencies agree with its `f64` to 1e-4 relative (see the tests).
//!
//! Slots lie in blocks of [`LANES`]: a block holds one array a quantity and user, so that what the inner loops touch has a
//! fixed length and lies side by side. The last block is padded.

use super::params::{MAX_USERS, Physics, ServerShare};
use super::slot::{UserDecision, UserSlot};

/// Slots in a block.
pub const LANES: usize = 32;

/// One number for each slot of a block.
type Lanes = [f32; LANES];

/// What the users bring into many slots.
#[derive(Clone, Debug)]
pub struct BatchSlots {
    users: usize,
    len: usize,
    /// Block after block, within it user after user.
    columns: Vec<SlotColumns>,
}

#[derive(Clone, Copy, Debug)]
struct SlotColumns {
    gain: Lanes,
    size_bits: Lanes,
    accuracy_local: Lanes,
    accuracy_server: Lanes,
    hallucination_local: Lanes,
    hallucination_server: Lanes,
}

/// What is decided in many slots.
#[derive(Clone, Debug)]
pub struct BatchDecisions {
    users: usize,
    columns: Vec<DecisionColumns>,
}

#[derive(Clone, Copy, Debug)]
struct DecisionColumns {
    alpha: Lanes,
    power_w: Lanes,
}

/// The sums over each slot's users, one entry a slot.
#[derive(Clone, Debug, Default)]
pub struct BatchTotals {
    /// Σ L_k of (29).
    pub latency_sum_s: Vec<f32>,
    /// Σ of both energies.
    pub energy_sum_j: Vec<f32>,
    /// Ω of (48).
    pub penalty: Vec<f32>,
    /// (47).
    pub reward: Vec<f32>,
}

impl BatchSlots {
    /// Takes the slots of many cells, each of the same number of users.
    ///
    /// # Panics
    /// If the numbers of users differ or are over [`MAX_USERS`].
    pub fn new<'a>(slots: impl ExactSizeIterator<Item = &'a [UserSlot]>) -> Self {
        let len = slots.len();
        let mut users = 0;
        let mut columns = Vec::new();
        // Whatever the padding computes is thrown away; it only must not be slow, as numbers near 0 can be.
        let padding = SlotColumns {
            gain: [1.0; LANES],
            size_bits: [1.0; LANES],
            accuracy_local: [1.0; LANES],
            accuracy_server: [1.0; LANES],
            hallucination_local: [0.0; LANES],
            hallucination_server: [0.0; LANES],
        };
        for (i, slot) in slots.enumerate() {
            if i == 0 {
                users = slot.len();
                assert!(users <= MAX_USERS, "at most {MAX_USERS} users");
                columns = vec![padding; len.div_ceil(LANES) * users];
            }
            assert_eq!(slot.len(), users, "the same number of users in every slot");
            for (column, user) in columns[i / LANES * users..].iter_mut().zip(slot) {
                let (lane, quality) = (i % LANES, &user.quality);
                column.gain[lane] = user.gain as f32;
                column.size_bits[lane] = user.size_bits as f32;
                column.accuracy_local[lane] = quality.accuracy_local as f32;
                column.accuracy_server[lane] = quality.accuracy_server as f32;
                column.hallucination_local[lane] = quality.hallucination_local as f32;
                column.hallucination_server[lane] = quality.hallucination_server as f32;
            }
        }
        Self { users, len, columns }
    }

    /// Slots.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no slot.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Decisions for these slots, all local at first.
    pub fn decisions(&self) -> BatchDecisions {
        let columns = vec![DecisionColumns { alpha: [0.0; LANES], power_w: [0.0; LANES] }; self.columns.len()];
        BatchDecisions { users: self.users, columns }
    }

    /// Evaluates every slot, (14)–(22), (28)–(29), (47)–(48), without a backlog.
    ///
    /// # Panics
    /// If the decisions were made for another number of slots or users.
    pub fn evaluate(&self, physics: &Physics, decisions: &BatchDecisions, out: &mut BatchTotals) {
        assert!(
            decisions.columns.len() == self.columns.len() && decisions.users == self.users,
            "decisions for as many slots and users"
        );
        let constants = Constants::new(physics, self.users);
        for column in [&mut out.latency_sum_s, &mut out.energy_sum_j, &mut out.penalty, &mut out.reward] {
            column.clear();
        }
        let users = self.users.max(1);
        let mut left = self.len;
        for (slots, decisions) in self.columns.chunks(users).zip(decisions.columns.chunks(users)) {
            let totals = constants.block(slots, decisions);
            let count = left.min(LANES);
            out.latency_sum_s.extend_from_slice(&totals.latency_sum_s[..count]);
            out.energy_sum_j.extend_from_slice(&totals.energy_sum_j[..count]);
            out.penalty.extend_from_slice(&totals.penalty[..count]);
            out.reward.extend_from_slice(&totals.reward[..count]);
            left -= count;
        }
    }
}

impl BatchDecisions {
    /// Sets what is decided in the `slot`-th slot.
    ///
    /// # Panics
    /// If there is no such slot.
    pub fn set(&mut self, slot: usize, decisions: &[UserDecision]) {
        for (column, decision) in self.columns[slot / LANES * self.users..].iter_mut().zip(decisions) {
            column.alpha[slot % LANES] = decision.alpha as f32;
            column.power_w[slot % LANES] = decision.power_w as f32;
        }
    }
}

/// What does not change from slot to slot.
struct Constants {
    noise_w: f32,
    bandwidth_hz: f32,
    rate_floor_bps: f32,
    local_s_per_bit: f32,
    local_j_per_bit: f32,
    server_s_per_bit: f32,
    by_load: bool,
    /// K·A_min, K·H_max, K·E_max of (48).
    a_min: f32,
    h_max: f32,
    e_max_j: f32,
    omega: f32,
}

/// A block's sums.
struct BlockTotals {
    latency_sum_s: Lanes,
    energy_sum_j: Lanes,
    penalty: Lanes,
    reward: Lanes,
}

impl Constants {
    fn new(physics: &Physics, users: usize) -> Self {
        let (params, count) = (&physics.params, users as f64);
        let joules = params.kappa_comp * params.device_hz * params.device_hz * params.cycles_per_bit;
        Self {
            noise_w: physics.noise_w as f32,
            bandwidth_hz: params.bandwidth_hz as f32,
            rate_floor_bps: params.rate_floor_bps as f32,
            local_s_per_bit: (params.cycles_per_bit / params.device_hz) as f32,
            local_j_per_bit: joules as f32,
            server_s_per_bit: (params.cycles_per_bit / physics.server_hz_each) as f32,
            by_load: params.server_share == ServerShare::Load,
            a_min: (count * params.a_min) as f32,
            h_max: (count * params.h_max) as f32,
            e_max_j: (count * params.e_max_j) as f32,
            omega: params.omega as f32,
        }
    }

    // By index: one lane of a dozen arrays at a time reads worse as a dozen zipped iterators.
    #[allow(clippy::needless_range_loop)]
    fn block(&self, slots: &[SlotColumns], decisions: &[DecisionColumns]) -> BlockTotals {
        let mut received_w: [Lanes; MAX_USERS] = [[0.0; LANES]; MAX_USERS];
        let mut work_bits: Lanes = [0.0; LANES];
        for ((received_w, slot), decision) in received_w.iter_mut().zip(slots).zip(decisions) {
            for i in 0..LANES {
                received_w[i] = decision.power_w[i] * slot.gain[i];
                work_bits[i] += decision.alpha[i] * slot.size_bits[i];
            }
        }
        let received_w = &received_w[..slots.len()];
        let [mut latency, mut energy, mut accuracy, mut hallucination]: [Lanes; 4] = [[0.0; LANES]; 4];
        for (k, (slot, decision)) in slots.iter().zip(decisions).enumerate() {
            // From the others one by one: total minus own would lose all digits of the smaller one.
            let mut noise_w: Lanes = [self.noise_w; LANES];
            for (_, other_w) in received_w.iter().enumerate().filter(|(l, _)| *l != k) {
                for i in 0..LANES {
                    noise_w[i] += other_w[i];
                }
            }
            for i in 0..LANES {
                let (alpha, bits) = (decision.alpha[i], slot.size_bits[i]);
                let rate_bps = self.bandwidth_hz * log2_1p(received_w[k][i] / noise_w[i]);
                let uplink_s = alpha * bits / rate_bps.max(self.rate_floor_bps);
                let queued_bits = if self.by_load { work_bits[i] } else { alpha * bits };
                let server_s = if alpha > 0.0 { queued_bits * self.server_s_per_bit } else { 0.0 };
                let local_bits = (1.0 - alpha) * bits;
                latency[i] += (local_bits * self.local_s_per_bit).max(uplink_s + server_s);
                energy[i] += local_bits * self.local_j_per_bit + decision.power_w[i] * uplink_s;
                accuracy[i] += alpha * slot.accuracy_server[i] + (1.0 - alpha) * slot.accuracy_local[i];
                hallucination[i] += alpha * slot.hallucination_server[i] + (1.0 - alpha) * slot.hallucination_local[i];
            }
        }
        let [mut penalty, mut reward]: [Lanes; 2] = [[0.0; LANES]; 2];
        for i in 0..LANES {
            let missing = (self.a_min - accuracy[i]).max(0.0);
            let excess = (hallucination[i] - self.h_max).max(0.0);
            penalty[i] = missing + excess + (energy[i] - self.e_max_j).max(0.0);
            reward[i] = 1.0 / (latency[i] + self.omega * penalty[i]);
        }
        BlockTotals { latency_sum_s: latency, energy_sum_j: energy, penalty, reward }
    }
}

/// log2(1 + x) for x ≥ 0, without a call or a branch, so that loops over it vectorise; about 2e-7 relative, small x too.
#[inline(always)]
fn log2_1p(x: f32) -> f32 {
    let y = 1.0 + x;
    // What the sum rounded off, which is all of a small x.
    let lost = x - (y - 1.0);
    // y = m·2^e with m in [√½, √2): shifting by √½'s bits makes the exponent field count from there.
    let shifted = y.to_bits().wrapping_sub(std::f32::consts::FRAC_1_SQRT_2.to_bits());
    let exponent = (shifted as i32) >> 23;
    let m = f32::from_bits(y.to_bits().wrapping_sub((exponent as u32) << 23));
    // ln m = 2·artanh(s), s = (m − 1)/(m + 1), |s| < 0.172.
    let s = (m - 1.0) / (m + 1.0);
    let s2 = s * s;
    let ln = 2.0 * s * (1.0 + s2 * (1.0 / 3.0 + s2 * (1.0 / 5.0 + s2 * (1.0 / 7.0 + s2 / 9.0))));
    exponent as f32 + (ln + lost / y) * std::f32::consts::LOG2_E
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::nth_seed;
    use crate::{MecParams, StaticPolicy, UserOutcome, World, evaluate};

    #[test]
    fn the_logarithm_is_exact_to_a_few_last_places() {
        for step in 0..400 {
            let x = 10f64.powf(-9.0 + 20.0 * f64::from(step) / 400.0);
            let x = f64::from(x as f32);
            let (got, want) = (f64::from(log2_1p(x as f32)), x.ln_1p() / std::f64::consts::LN_2);
            assert!((got / want - 1.0).abs() < 4e-7, "{x}: {got} instead of {want}");
        }
        assert_eq!(log2_1p(0.0), 0.0);
    }

    #[test]
    fn a_batch_agrees_with_single_slots() {
        for (users, share) in
            [(1, ServerShare::Full), (2, ServerShare::Full), (5, ServerShare::Equal), (10, ServerShare::Load)]
        {
            let params = MecParams { server_share: share, ..MecParams::with_users(users) };
            let mut worlds: Vec<World> = (0..75).map(|i| World::new(params, nth_seed(7, i))).collect();
            let physics = params.physics();
            let slots = BatchSlots::new(worlds.iter().map(World::slots));
            let mut decisions = slots.decisions();
            let policies = StaticPolicy::ALL;
            let decided: Vec<_> =
                worlds.iter_mut().enumerate().map(|(i, world)| world.decide(policies[i % policies.len()])).collect();
            for (i, decided) in decided.iter().enumerate() {
                decisions.set(i, decided);
            }
            let mut totals = BatchTotals::default();
            slots.evaluate(&physics, &decisions, &mut totals);
            assert_eq!((totals.reward.len(), slots.len()), (75, 75));
            let mut out = vec![UserOutcome::default(); users];
            for (i, (world, decided)) in worlds.iter().zip(&decided).enumerate() {
                let want = evaluate(&physics, world.slots(), 0.0, decided, &mut out);
                let near = |got: f32, want: f64| (f64::from(got) - want).abs() <= 1e-4 * want.abs();
                assert!(
                    near(totals.reward[i], want.reward)
                        && near(totals.latency_sum_s[i], want.latency_sum_s)
                        && near(totals.energy_sum_j[i], want.energy_sum_j)
                        && (f64::from(totals.penalty[i]) - want.penalty).abs() < 1e-5,
                    "K {users}, {share:?}, slot {i}: {} instead of {want:?}",
                    totals.reward[i]
                );
            }
        }
    }
}
