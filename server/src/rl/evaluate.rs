//! Any policy on fresh slots: reward, latency, energy, and how often the limits are broken.
//!
//! Each slot comes from a world of its own, so slots are independent. A world first lives through a few slots under the
//! policy in question, so that the policy's observation (which tells of the last slot) is its own doing.

use client_core::mec::world::nth_seed;
use client_core::mec::{MecParams, OracleEffort, StaticPolicy, UserDecision, UserObservation, Variant, World};
use client_core::policy::{Policy, PolicyError};
use rayon::prelude::*;
use serde::Serialize;

/// What a run leaves behind: its score, the worlds at its start, and who decided what in each.
type Run = (Score, Vec<World>, Vec<Vec<UserDecision>>);

/// Slots that a world lives through before the one that counts.
const WARM_UP_SLOTS: usize = 3;

/// Who decides.
#[derive(Clone, Copy, Debug)]
pub enum Judged<'a> {
    /// The per-slot optimum with full knowledge.
    Optimum,
    /// A policy without learning.
    Static(StaticPolicy),
    /// A trained policy; its mean action.
    Learned(&'a Policy),
}

impl Judged<'_> {
    /// Name in tables.
    pub fn name(&self) -> String {
        match self {
            Self::Optimum => "optimum".to_owned(),
            Self::Static(policy) => policy.name().to_owned(),
            Self::Learned(policy) => format!("{} (policy)", policy.header().algo),
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
    /// Standard error of that mean.
    pub reward_se: f64,
    /// Mean latency of a user and slot, (29).
    pub latency_mean_s: f64,
    /// Median of the same.
    pub latency_median_s: f64,
    /// 95th percentile of the same.
    pub latency_p95_s: f64,
    /// Mean energy of a user and slot.
    pub energy_j: f64,
    /// Mean accuracy of a user and slot, (28).
    pub accuracy_mean: f64,
    /// Mean hallucination rate of a user and slot, (28).
    pub hallucination_mean: f64,
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
}

impl Bench {
    /// `slots` worlds.
    pub fn new(params: MecParams, slots: usize, seed: u64) -> Self {
        Self { worlds: (0..slots).map(|i| World::new(params, nth_seed(seed, i as u64))).collect() }
    }

    /// Judges a policy.
    ///
    /// # Errors
    /// When a learned policy is for another number of users, or its device fails.
    pub fn score(&self, judged: Judged<'_>) -> Result<Score, PolicyError> {
        Ok(self.run(judged)?.0)
    }

    /// Judges a policy and returns the first `keep` slots with what it decided there.
    ///
    /// # Errors
    /// When a learned policy is for another number of users, or its device fails.
    pub fn score_and_keep(&self, judged: Judged<'_>, keep: usize) -> Result<(Score, Vec<Sample>), PolicyError> {
        let (score, worlds, decisions) = self.run(judged)?;
        let samples = worlds.iter().zip(decisions).take(keep);
        let samples = samples.map(|(world, decision)| Sample { observation: world.observation(), decision });
        Ok((score, samples.collect()))
    }

    fn run(&self, judged: Judged<'_>) -> Result<Run, PolicyError> {
        let mut worlds = self.worlds.clone();
        let variant = worlds.first().map_or(Variant::Paper, |world| world.params().variant);
        // Where decisions do not move the state, only a policy that looks back at its own decisions has to make them.
        let free_running = variant != Variant::Backlog && !matches!(judged, Judged::Learned(_));
        for _ in 0..WARM_UP_SLOTS {
            let decisions = if free_running { vec![Vec::new(); worlds.len()] } else { decide(judged, &mut worlds)? };
            for (world, decision) in worlds.iter_mut().zip(decisions) {
                world.step(&decision);
            }
        }
        let decisions = decide(judged, &mut worlds)?;
        let score = measure(judged.name(), &worlds, &decisions);
        Ok((score, worlds, decisions))
    }
}

fn decide(judged: Judged<'_>, worlds: &mut [World]) -> Result<Vec<Vec<UserDecision>>, PolicyError> {
    match judged {
        Judged::Optimum => Ok(worlds.par_iter().map(|world| world.optimum(OracleEffort::Usual).decisions).collect()),
        Judged::Static(policy) => Ok(worlds.iter_mut().map(|world| world.decide(policy)).collect()),
        Judged::Learned(policy) => {
            let Some(first) = worlds.first() else { return Ok(Vec::new()) };
            let physics = *first.physics();
            let (trained, present) = (policy.users(), physics.params.users);
            if trained != present {
                return Err(PolicyError::Users { trained, present });
            }
            let seen: Vec<UserObservation> = worlds.iter().flat_map(World::observation).collect();
            let mut decisions = Vec::with_capacity(worlds.len());
            for batch in seen.chunks(1024 * present) {
                let batch = futures::executor::block_on(policy.decide_many(&physics, batch))?;
                decisions.extend(batch.chunks(present).map(<[UserDecision]>::to_vec));
            }
            Ok(decisions)
        }
    }
}

fn measure(name: String, worlds: &[World], decisions: &[Vec<UserDecision>]) -> Score {
    let mut rewards = Vec::with_capacity(worlds.len());
    let mut latencies = Vec::new();
    let (mut energy, mut pooled, mut single) = (0.0, [0u64; 3], [0u64; 3]);
    let (mut accuracy, mut hallucination) = (0.0, 0.0);
    for (world, decision) in worlds.iter().zip(decisions) {
        let (totals, outcomes) = world.evaluate(decision);
        let params = world.params();
        rewards.push(totals.reward);
        let violations = totals.violations;
        for (count, amount) in
            pooled.iter_mut().zip([violations.accuracy, violations.hallucination, violations.energy_j])
        {
            *count += u64::from(amount > 1e-9);
        }
        for user in &outcomes {
            let joules = user.local_j + user.uplink_j;
            latencies.push(user.latency_s);
            energy += joules;
            accuracy += user.accuracy;
            hallucination += user.hallucination;
            let broken = [
                user.accuracy < params.a_min - 1e-9,
                user.hallucination > params.h_max + 1e-9,
                joules > params.e_max_j + 1e-9,
            ];
            for (count, broken) in single.iter_mut().zip(broken) {
                *count += u64::from(broken);
            }
        }
    }
    latencies.sort_unstable_by(f64::total_cmp);
    let slots = rewards.len().max(1) as f64;
    let entries = latencies.len().max(1) as f64;
    let mean = rewards.iter().sum::<f64>() / slots;
    let variance = rewards.iter().map(|r| (r - mean) * (r - mean)).sum::<f64>() / (slots - 1.0).max(1.0);
    let quantile = |q: f64| latencies.get(((entries - 1.0) * q).round() as usize).copied().unwrap_or(0.0);
    let share = |count: u64, of: f64| count as f64 / of;
    Score {
        name,
        slots: rewards.len(),
        reward: mean,
        reward_se: (variance / slots).sqrt(),
        latency_mean_s: latencies.iter().sum::<f64>() / entries,
        latency_median_s: quantile(0.5),
        latency_p95_s: quantile(0.95),
        energy_j: energy / entries,
        accuracy_mean: accuracy / entries,
        hallucination_mean: hallucination / entries,
        slots_below_accuracy: share(pooled[0], slots),
        slots_over_hallucination: share(pooled[1], slots),
        slots_over_energy: share(pooled[2], slots),
        users_below_accuracy: share(single[0], entries),
        users_over_hallucination: share(single[1], entries),
        users_over_energy: share(single[2], entries),
    }
}
