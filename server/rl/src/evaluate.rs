//! Any policy on fresh slots: reward, latency, energy, and how often the limits are broken.
//!
//! Where actions do not move the state, each slot comes from a world of its own, so slots are independent. A world first
//! lives through a few slots under the policy in question, so that the policy's observation (which tells of the last slot)
//! is its own doing. With a backlog whole episodes count, from their first slot on: what a decision does to later slots
//! is part of what it is worth, and a queue that grows takes many slots to show.

use mec::slot::LIMIT_SLACK;
use mec::world::nth_seed;
use mec::{
    Clairvoyant, ConstantAction, ConstantPower, Lookahead, MecParams, OracleEffort, SlotTotals, StaticPolicy,
    UserDecision, UserObservation, UserOutcome, UserSlot, Variant, World, bound, oracle,
};
use policy::world::{Belief, Outlook};
use policy::{Policy, PolicyError};
use rayon::prelude::*;
use serde::Serialize;

/// Slots that a world lives through before the one that counts.
const WARM_UP_SLOTS: usize = 3;

/// Who decides.
#[derive(Clone, Copy, Debug)]
pub enum Judged<'a> {
    /// The per-slot optimum with full knowledge.
    Optimum,
    /// The same of a search that takes ten times as long or more.
    Thorough,
    /// The best decision that a search finds by what can be known before the slot: the policy's own belief of its quality.
    Informed,
    /// What the policy for every world decides without its network: the best of its candidates that need none.
    Unlearned,
    /// A policy without learning.
    Static(StaticPolicy),
    /// The same action always and for all.
    Constant(ConstantAction),
    /// A trained policy; its mean action.
    Learned(&'a Policy),
    /// Plans with knowledge of the slots to come, one a world, over a horizon of so many slots.
    Clairvoyant(&'a [Clairvoyant], usize),
    /// Plans with knowledge of how slots are distributed.
    Lookahead(&'a Lookahead),
}

impl Judged<'_> {
    /// Name in tables. With a backlog the per-slot optimum is not the best that there is, and is called myopic.
    pub fn name(&self, variant: Variant) -> String {
        match self {
            Self::Optimum if variant == Variant::Backlog => "myopic-optimum".to_owned(),
            Self::Optimum => "optimum".to_owned(),
            Self::Thorough => "optimum, thorough".to_owned(),
            Self::Informed => "informed-optimum".to_owned(),
            Self::Unlearned => "candidates-alone".to_owned(),
            Self::Static(policy) => policy.name().to_owned(),
            Self::Constant(action) => match action.power {
                ConstantPower::Watts(_) => "best-constant-watts".to_owned(),
                ConstantPower::EqualReceived => "best-constant-received".to_owned(),
            },
            Self::Learned(policy) => format!("{} (policy)", policy.header().algo),
            Self::Clairvoyant(_, horizon) => format!("clairvoyant-h{horizon}"),
            Self::Lookahead(_) => "lookahead".to_owned(),
        }
    }
}

/// What a policy achieved, over all judged slots.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// Who decided.
    pub name: String,
    /// Slots.
    pub slots: usize,
    /// Mean of (47).
    pub reward: f64,
    /// Standard error of that mean, over worlds (slots of one episode are not independent).
    pub reward_se: f64,
    /// Mean latency of a user and slot, (29).
    pub latency_mean_s: f64,
    /// Standard error of that mean, over worlds.
    pub latency_se_s: f64,
    /// Median of the same.
    pub latency_median_s: f64,
    /// 95th percentile of the same.
    pub latency_p95_s: f64,
    /// Mean energy of a user and slot.
    pub energy_j: f64,
    /// Mean accuracy of a user and slot, (28).
    pub accuracy_mean: f64,
    /// Standard error of that mean, over worlds.
    pub accuracy_se: f64,
    /// Mean hallucination rate of a user and slot, (28).
    pub hallucination_mean: f64,
    /// Standard error of that mean, over worlds.
    pub hallucination_se: f64,
    /// Share of slots whose pooled accuracy is below the limit, first term of (48).
    pub slots_below_accuracy: f64,
    /// Share of slots whose pooled hallucination rate is over the limit, second term of (48).
    pub slots_over_hallucination: f64,
    /// Share of slots whose pooled energy is over the budget, third term of (48).
    pub slots_over_energy: f64,
    /// Share of users and slots below the accuracy limit, (30e).
    pub users_below_accuracy: f64,
    /// Share of users and slots over the hallucination limit, (30f).
    pub users_over_hallucination: f64,
    /// Share of users and slots over the energy budget, (30d).
    pub users_over_energy: f64,
}

/// One judged slot: what was seen, and what was decided.
#[derive(Clone, Debug)]
pub struct Sample {
    /// One entry a user.
    pub observation: Vec<UserObservation>,
    /// One entry a user.
    pub decision: Vec<UserDecision>,
}

/// Worlds to judge policies on; the same seed gives the same slots to every policy.
pub struct Bench {
    worlds: Vec<World>,
    /// Slots of each world before the ones that count.
    warm_up: usize,
    /// Slots of each world that count.
    counted: usize,
    variant: Variant,
}

impl Bench {
    /// At least `slots` slots: as many worlds, or with a backlog as many whole episodes as it takes.
    pub fn new(params: MecParams, slots: usize, seed: u64) -> Self {
        let variant = params.variant;
        let (warm_up, counted) =
            if variant == Variant::Backlog { (0, params.horizon.max(1)) } else { (WARM_UP_SLOTS, 1) };
        let worlds = 0..slots.div_ceil(counted);
        let worlds = worlds.map(|i| World::new(params, nth_seed(seed, i as u64))).collect();
        Self { worlds, warm_up, counted, variant }
    }

    /// Planners that know what comes, one a world, for [`Judged::Clairvoyant`].
    pub fn clairvoyants(&self) -> Vec<Clairvoyant> {
        self.worlds.par_iter().map(|world| Clairvoyant::new(world, self.warm_up + self.counted)).collect()
    }

    /// What users bring into each world's first counted slot, where that does not depend on decisions.
    pub fn free_slots(&self) -> Vec<Vec<UserSlot>> {
        let settled = self.worlds.iter().map(|world| {
            let mut world = world.clone();
            for _ in 0..self.warm_up {
                world.step(&[]);
            }
            world.slots().to_vec()
        });
        settled.collect()
    }

    /// The mean over the counted slots of a reward that no decision can pass, see [`bound`](mod@bound). `None` with a
    /// backlog, where decisions change the slots that come.
    pub fn reward_bound(&self) -> Option<f64> {
        let physics = self.worlds.first()?.physics();
        if self.variant == Variant::Backlog {
            return None;
        }
        let slots = self.free_slots();
        let sum: f64 = slots.par_iter().map(|users| bound::reward_bound(physics, users, 0.0)).sum();
        Some(sum / slots.len() as f64)
    }

    /// Judges a policy.
    ///
    /// # Errors
    /// When a learned policy is for another number of users, or its device fails.
    pub fn score(&self, judged: Judged<'_>) -> Result<Score, PolicyError> {
        Ok(self.score_and_keep(judged, 0)?.0)
    }

    /// [`Bench::score`], left as soon as `check` says so, which is asked between worlds and between batches of them.
    ///
    /// # Errors
    /// What `check` says, or as [`Bench::score`].
    pub fn score_unless<E: From<PolicyError> + Send>(
        &self,
        judged: Judged<'_>,
        check: impl Fn() -> Result<(), E> + Sync,
    ) -> Result<Score, E> {
        Ok(self.judge(judged, 0, &check)?.0)
    }

    /// Judges a policy and returns the first counted slot of the first `keep` worlds with what it decided there.
    ///
    /// # Errors
    /// When a learned policy is for another number of users, or its device fails.
    pub fn score_and_keep(&self, judged: Judged<'_>, keep: usize) -> Result<(Score, Vec<Sample>), PolicyError> {
        self.judge(judged, keep, &|| Ok(()))
    }

    fn judge<E: From<PolicyError> + Send>(
        &self,
        judged: Judged<'_>,
        keep: usize,
        check: &(impl Fn() -> Result<(), E> + Sync),
    ) -> Result<(Score, Vec<Sample>), E> {
        let mut worlds = self.worlds.clone();
        // Where decisions do not move the state, only a policy that looks back at its own decisions has to make them.
        let free_running = self.variant != Variant::Backlog && !matches!(judged, Judged::Learned(_));
        let mut tally = Tally::new(worlds.len());
        let mut samples = Vec::new();
        for slot in 0..self.warm_up + self.counted {
            check()?;
            let counts = slot >= self.warm_up;
            if free_running && !counts {
                worlds.iter_mut().for_each(|world| {
                    world.step(&[]);
                });
                continue;
            }
            let decisions = decide(judged, slot, &mut worlds, check)?;
            if slot == self.warm_up {
                let kept = worlds.iter().zip(&decisions).take(keep);
                samples = kept
                    .map(|(world, decision)| Sample { observation: world.observation(), decision: decision.clone() })
                    .collect();
            }
            for (index, (world, decision)) in worlds.iter_mut().zip(&decisions).enumerate() {
                let totals = world.step(decision);
                if counts {
                    tally.add(index, world.params(), &totals, world.last_outcomes());
                }
            }
        }
        Ok((tally.score(judged.name(self.variant), self.counted), samples))
    }
}

fn decide<E: From<PolicyError> + Send>(
    judged: Judged<'_>,
    slot: usize,
    worlds: &mut [World],
    check: &(impl Fn() -> Result<(), E> + Sync),
) -> Result<Vec<Vec<UserDecision>>, E> {
    let optimum = |world: &World, effort| world.optimum(effort).decisions;
    // These take long for every single world.
    let one_by_one = |decide: &(dyn Fn(usize, &World) -> Vec<UserDecision> + Sync)| {
        let decide = |(index, world): (usize, &World)| check().map(|()| decide(index, world));
        worlds.par_iter().enumerate().map(decide).collect::<Result<Vec<_>, E>>()
    };
    match judged {
        Judged::Optimum => one_by_one(&|_, world| optimum(world, OracleEffort::Usual)),
        Judged::Thorough => one_by_one(&|_, world| optimum(world, OracleEffort::Thorough)),
        Judged::Informed => one_by_one(&|_, world| informed(world)),
        Judged::Unlearned => Ok(worlds.iter().map(unlearned).collect()),
        // Past what the planner knows nothing can be planned, and the slot's own optimum is the best.
        Judged::Clairvoyant(planners, horizon) => one_by_one(&|index, world| {
            let planner = planners.get(index);
            let planned = planner.and_then(|planner| planner.decide(slot, world.backlog_s(), horizon));
            planned.unwrap_or_else(|| optimum(world, OracleEffort::Usual))
        }),
        Judged::Lookahead(planner) => one_by_one(&|_, world| planner.decide(world)),
        Judged::Static(policy) => Ok(worlds.iter_mut().map(|world| world.decide(policy)).collect()),
        Judged::Constant(action) => Ok(worlds
            .iter()
            .map(|world| {
                let mut out = vec![UserDecision::default(); world.slots().len()];
                action.decide(world.physics(), &world.seen_slots(), &mut out);
                out
            })
            .collect()),
        Judged::Learned(policy) => {
            let Some(first) = worlds.first() else { return Ok(Vec::new()) };
            let physics = *first.physics();
            let present = physics.params.users;
            policy.header().shape.check_users(present)?;
            let seen: Vec<UserObservation> = worlds.iter().flat_map(World::observation).collect();
            let mut decisions = Vec::with_capacity(worlds.len());
            for batch in seen.chunks(1024 * present) {
                check()?;
                let batch = futures::executor::block_on(policy.decide_many(&physics, present, batch))?;
                decisions.extend(batch.chunks(present).map(<[UserDecision]>::to_vec));
            }
            Ok(decisions)
        }
    }
}

/// Margins over the limits that the informed search tries, in standard deviations.
const INFORMED_MARGINS: [f64; 4] = [0.0, 0.6, 1.2, 2.0];

/// The optima for a quality that is worse than expected by several margins, of which the best by the belief.
fn informed(world: &World) -> Vec<UserDecision> {
    let physics = world.physics();
    let belief = Belief::new(physics, &world.observation());
    let count = belief.users().len();
    let found = INFORMED_MARGINS.map(|margin| {
        let users = belief.with_margin(margin);
        let decisions = oracle::optimum(physics, &users[..count], 0.0, OracleEffort::Usual).decisions;
        (belief.reward(physics, &decisions), decisions)
    });
    let best = found.into_iter().max_by(|a, b| a.0.total_cmp(&b.0));
    best.map(|(_, decisions)| decisions).unwrap_or_default()
}

fn unlearned(world: &World) -> Vec<UserDecision> {
    let physics = world.physics();
    let mut out = vec![UserDecision::default(); world.slots().len()];
    Outlook::new(physics, &world.observation()).decide(physics, std::iter::empty(), &mut out);
    out
}

/// A world's sums over its counted slots.
#[derive(Clone, Copy, Default)]
struct WorldSums {
    reward: f64,
    /// These three over users, too.
    latency_s: f64,
    accuracy: f64,
    hallucination: f64,
}

/// The sums behind a [`Score`].
struct Tally {
    worlds: Vec<WorldSums>,
    latencies_s: Vec<f64>,
    energy_j: f64,
    /// Slots whose pooled accuracy, hallucination rate, energy breaks its limit.
    pooled: [u64; 3],
    /// The same for single users.
    single: [u64; 3],
}

impl Tally {
    fn new(worlds: usize) -> Self {
        let worlds = vec![WorldSums::default(); worlds];
        Self { worlds, latencies_s: Vec::new(), energy_j: 0.0, pooled: [0; 3], single: [0; 3] }
    }

    fn add(&mut self, world: usize, params: &MecParams, totals: &SlotTotals, outcomes: &[UserOutcome]) {
        let sums = &mut self.worlds[world];
        sums.reward += totals.reward;
        let violations = totals.violations;
        let amounts = [violations.accuracy, violations.hallucination, violations.energy_j];
        for (count, amount) in self.pooled.iter_mut().zip(amounts) {
            *count += u64::from(amount > LIMIT_SLACK);
        }
        for user in outcomes {
            self.latencies_s.push(user.latency_s);
            self.energy_j += user.energy_j();
            sums.latency_s += user.latency_s;
            sums.accuracy += user.accuracy;
            sums.hallucination += user.hallucination;
            for (count, broken) in self.single.iter_mut().zip(user.breaks(params)) {
                *count += u64::from(broken);
            }
        }
    }

    /// Mean over worlds of what a world's sums are in `parts` parts, and its standard error.
    fn mean(&self, parts: f64, sum: fn(&WorldSums) -> f64) -> (f64, f64) {
        let worlds = self.worlds.len().max(1) as f64;
        let values = || self.worlds.iter().map(|sums| sum(sums) / parts);
        let mean = values().sum::<f64>() / worlds;
        let variance = values().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (worlds - 1.0).max(1.0);
        (mean, (variance / worlds).sqrt())
    }

    fn score(mut self, name: String, slots_per_world: usize) -> Score {
        self.latencies_s.sort_unstable_by(f64::total_cmp);
        let slots = self.worlds.len() * slots_per_world;
        let entries = self.latencies_s.len().max(1) as f64;
        let per_world = slots_per_world.max(1) as f64;
        let users_per_world = entries / self.worlds.len().max(1) as f64;
        let (reward, reward_se) = self.mean(per_world, |sums| sums.reward);
        let (latency_mean_s, latency_se_s) = self.mean(users_per_world, |sums| sums.latency_s);
        let (accuracy_mean, accuracy_se) = self.mean(users_per_world, |sums| sums.accuracy);
        let (hallucination_mean, hallucination_se) = self.mean(users_per_world, |sums| sums.hallucination);
        let quantile =
            |q: f64| self.latencies_s.get(((entries - 1.0) * q).round() as usize).copied().unwrap_or_default();
        let of_slots = |count: u64| count as f64 / slots.max(1) as f64;
        let of_users = |count: u64| count as f64 / entries;
        Score {
            name,
            slots,
            reward,
            reward_se,
            latency_mean_s,
            latency_se_s,
            latency_median_s: quantile(0.5),
            latency_p95_s: quantile(0.95),
            energy_j: self.energy_j / entries,
            accuracy_mean,
            accuracy_se,
            hallucination_mean,
            hallucination_se,
            slots_below_accuracy: of_slots(self.pooled[0]),
            slots_over_hallucination: of_slots(self.pooled[1]),
            slots_over_energy: of_slots(self.pooled[2]),
            users_below_accuracy: of_users(self.single[0]),
            users_over_hallucination: of_users(self.single[1]),
            users_over_energy: of_users(self.single[2]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_is_the_mean_over_what_worlds_give() {
        let params = MecParams::with_users(3);
        let score = Bench::new(params, 50, 4).score(Judged::Static(StaticPolicy::AlwaysLocal)).expect("score");
        let mut reward = 0.0;
        for i in 0..50 {
            let mut world = World::new(params, nth_seed(4, i));
            for _ in 0..WARM_UP_SLOTS {
                world.step(&[]);
            }
            reward += world.step(&[]).reward / 50.0;
        }
        assert!((score.reward - reward).abs() < 1e-12 && score.slots == 50, "{} {reward}", score.reward);
        assert!(score.latency_median_s <= score.latency_p95_s && score.users_over_energy == 0.0);
        // All local: everybody computes φX/f.
        assert!((0.45..=1.125).contains(&score.latency_mean_s));
    }

    #[test]
    fn with_a_backlog_whole_episodes_count() {
        let params = MecParams { horizon: 40, ..MecParams::with_users(2).with_variant(Variant::Backlog) };
        let bench = Bench::new(params, 100, 4);
        let offload = Judged::Static(StaticPolicy::AlwaysOffload);
        let (score, samples) = bench.score_and_keep(offload, 2).expect("score");
        assert_eq!((score.slots, samples.len()), (120, 2), "three episodes of 40");
        let mut worlds: Vec<World> = (0..3).map(|i| World::new(params, nth_seed(4, i))).collect();
        let mut reward = 0.0;
        for world in &mut worlds {
            while !world.is_truncated() {
                let decision = world.decide(StaticPolicy::AlwaysOffload);
                reward += world.step(&decision).reward / 120.0;
            }
        }
        assert!((score.reward - reward).abs() < 1e-12, "{} {reward}", score.reward);
        // The queue grows: late slots are far worse than early ones.
        assert!(worlds.iter().all(|world| world.backlog_s() > 1.0));
        assert!(score.latency_p95_s > 3.0 * worlds[0].params().slot_s);
    }
}
