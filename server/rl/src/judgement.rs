//! Everybody on the same fresh slots: the optimum, the policies without learning, constant actions, plans, a trained policy.

use mec::world::nth_seed;
use mec::{ConstantAction, MecParams, QosKnowledge, StaticPolicy, Variant};
use policy::{Policy, PolicyError};

use super::evaluate::{Bench, Judged, Sample, Score};
use super::references::{self, HorizonReward};
use super::ship::{self, Scores};

/// The policies without learning, in the order of [`Judgement::scores`].
const STATICS: [StaticPolicy; 5] = [
    StaticPolicy::ClosedForm(QosKnowledge::Mean),
    StaticPolicy::ClosedForm(QosKnowledge::Exact),
    StaticPolicy::AlwaysLocal,
    StaticPolicy::AlwaysOffload,
    StaticPolicy::Random,
];

/// Everybody's scores with one number of users.
#[derive(Debug)]
pub struct Judgement {
    /// The system.
    pub params: MecParams,
    /// Best first: the table's shares are of its first line.
    pub scores: Vec<Score>,
    /// Where the trained policy stands among them, the optimum and the policies without learning being before it.
    pub learned: Option<usize>,
    /// What the trained policy decided.
    pub samples: Vec<Sample>,
    /// The best constant actions.
    pub constants: [ConstantAction; 2],
    /// With a backlog: the plans' mean rewards by horizon, the clairvoyant's last.
    pub horizons: Vec<(&'static str, Vec<HorizonReward>)>,
    /// A mean reward that no decisions can pass.
    pub bound: Option<f64>,
}

impl Judgement {
    /// What goes into the manifest, where there is a trained policy.
    #[must_use]
    pub fn shipped_scores(&self, seed: u64) -> Option<Scores<'_>> {
        let [optimum, closed_form, _, always_local, always_offload, random, ..] = self.scores.as_slice() else {
            return None;
        };
        let policy = self.scores.get(self.learned?)?;
        let users = self.params.users;
        Some(Scores { users, policy, optimum, closed_form, always_local, always_offload, random, seed })
    }
}

/// Judges the optimum, the policies without learning and, where there is one, a trained one on `draws` fresh slots;
/// with `thorough` also what a longer search for the optimum finds.
///
/// # Errors
/// The trained policy is for other numbers of users.
pub fn judge(
    params: MecParams,
    draws: usize,
    seed: u64,
    policy: Option<&Policy>,
    thorough: bool,
) -> Result<Judgement, PolicyError> {
    let bench = Bench::new(params, draws, seed);
    let mut scores = vec![bench.score(Judged::Optimum)?];
    for policy in STATICS {
        scores.push(bench.score(Judged::Static(policy))?);
    }
    let (mut learned, mut samples) = (None, Vec::new());
    if let Some(policy) = policy {
        let score;
        let keep = ship::GOLDEN_CASES.div_ceil(policy.users().count());
        (score, samples) = bench.score_and_keep(Judged::Learned(policy), keep)?;
        learned = Some(scores.len());
        scores.push(score);
    }
    if thorough {
        scores.push(bench.score(Judged::Thorough)?);
    }
    let constants = references::best_constants(params, nth_seed(seed, u64::MAX))?;
    for action in constants {
        scores.push(bench.score(Judged::Constant(action))?);
    }
    let mut horizons = Vec::new();
    if params.variant == Variant::Backlog {
        let lookahead_seed = nth_seed(seed, u64::MAX - 1);
        let plans = [
            ("clairvoyant", references::clairvoyant(&bench, &params)?),
            ("lookahead", references::lookahead(&bench, &params, lookahead_seed)?),
        ];
        for (name, planned) in plans.into_iter().rev() {
            horizons.push((name, planned.horizons));
            scores.insert(0, planned.score);
        }
    }
    Ok(Judgement { params, scores, learned, samples, constants, horizons, bound: bench.reward_bound() })
}
