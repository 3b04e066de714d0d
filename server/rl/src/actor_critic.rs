//! Actor and critic of the on-policy algorithms: what they learn from, their losses, (32)–(33), (38), (41)–(42), and a
//! gradient step of both.
//!
//! The networks share nothing but the minibatch, so that each takes its step on a thread of its own where rayon has two; the
//! result is the same on one.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use mec::MAX_USERS;
use policy::ActorConfig;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::beta::ActionBeta;
use super::error::TrainError;
use super::mlp::{Mlp, Tape};
use super::nets::matrix;
use super::stop::UpdateGuard;

/// Work of a forward pass at a time: some tenths of a second, so that a run can be stopped between two.
const PASS_FLOP: usize = 4_000_000_000;

/// What a gradient step minimises.
#[derive(Clone, Copy, Debug)]
pub struct Objective {
    /// Clip range ε of (32).
    pub clip: f32,
    /// Weight β_ent of the entropy, (42).
    pub entropy: f32,
    /// Largest norm of the gradient of a network.
    pub max_grad_norm: f32,
}

/// Rows to learn from, one entry (or `inputs`, `actions` entries) each.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// States, `inputs` a row.
    pub features: Vec<f32>,
    /// Actions in [0, 1], `actions` a row.
    pub actions: Vec<f32>,
    /// Log-probability of the action when it was taken.
    pub old_log_prob: Vec<f32>,
    /// Advantages.
    pub advantage: Vec<f32>,
    /// The critic's targets.
    pub target: Vec<f32>,
}

impl Batch {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.target.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.target.is_empty()
    }

    /// Appends rows.
    pub fn extend(&mut self, more: Self) {
        self.features.extend(more.features);
        self.actions.extend(more.actions);
        self.old_log_prob.extend(more.old_log_prob);
        self.advantage.extend(more.advantage);
        self.target.extend(more.target);
    }

    /// Some of the rows.
    pub fn select(&self, chosen: &[usize]) -> Self {
        let pick = |values: &[f32]| -> Vec<f32> {
            let width = values.len() / self.len().max(1);
            chosen.iter().flat_map(|row| &values[row * width..(row + 1) * width]).copied().collect()
        };
        Self {
            features: pick(&self.features),
            actions: pick(&self.actions),
            old_log_prob: pick(&self.old_log_prob),
            advantage: pick(&self.advantage),
            target: pick(&self.target),
        }
    }
}

/// Rows that a world model imagined, and how they enter the loss.
#[derive(Clone, Debug)]
pub struct Imagined {
    /// The rows.
    pub batch: Batch,
    /// η of (41).
    pub weight: f32,
    /// By the clipped surrogate (32); else by the plain logarithm of (41), which ignores `old_log_prob`.
    pub clipped: bool,
    /// Whether the critic learns from them too.
    pub critic: bool,
}

impl Imagined {
    /// Some of the rows, entering alike.
    pub fn select(&self, chosen: &[usize]) -> Self {
        Self { batch: self.batch.select(chosen), ..*self }
    }
}

/// Sums over minibatches of what is logged.
#[derive(Default)]
pub struct Losses {
    value: f64,
    policy: f64,
    imagined: f64,
    entropy: f64,
    old_kl: f64,
    kl: f64,
    clipped: f64,
    count: f64,
}

impl Losses {
    /// Means, under cleanrl's keys: the critic's mean squared error, the clipped surrogate, the policy's entropy, the means
    /// of −ln ρ and of ρ − 1 − ln ρ, the share of ratios outside the clip range; and
    /// 1 − Var(target − value) / Var(target) from before the update, unless the target does not vary.
    pub fn named(&self, explained_variance: Option<f64>) -> BTreeMap<String, f64> {
        let means = [
            ("losses/value_loss", self.value),
            ("losses/policy_loss", self.policy),
            ("losses/entropy", self.entropy),
            ("losses/old_approx_kl", self.old_kl),
            ("losses/approx_kl", self.kl),
            ("losses/clipfrac", self.clipped),
        ];
        let mut out: BTreeMap<_, _> =
            means.into_iter().map(|(name, sum)| (name.to_owned(), sum / self.count)).collect();
        out.extend(explained_variance.map(|share| ("losses/explained_variance".to_owned(), share)));
        out
    }

    /// Mean of the imagination loss (41).
    pub fn imagination(&self) -> f64 {
        self.imagined / self.count
    }
}

/// The clipped surrogate of one row, (32), and its derivative by the log-probability; both to be ascended.
fn surrogate(log_ratio: f64, advantage: f64, clip: f64) -> (f64, f64) {
    let ratio = log_ratio.exp(); // (31)
    let (free, clipped) = (ratio * advantage, ratio.clamp(1.0 - clip, 1.0 + clip) * advantage);
    if free <= clipped { (free, free) } else { (clipped, 0.0) }
}

/// The actor's loss on a minibatch, its three terms, and what the backward pass needs.
struct ActorLoss {
    policy: f64,
    imagined: f64,
    entropy: f64,
    tape: Tape,
    /// `[batch, 2·actions]`
    by_raw: Vec<f32>,
}

/// The critic's loss on a minibatch, and what the backward pass needs.
struct CriticLoss {
    value: f64,
    tape: Tape,
    /// `[batch, 1]`
    by_value: Vec<f32>,
}

/// Actor and critic with their optimisers.
pub struct ActorCritic {
    /// π_θ: outputs the raw parameters of the actions' distributions, first ones first.
    pub actor: Mlp,
    /// V_φ.
    pub critic: Mlp,
    /// Sizes of the actor.
    pub shape: ActorConfig,
    device: Device,
}

impl ActorCritic {
    /// Fresh networks.
    pub fn new(shape: ActorConfig, rng: &mut Xoshiro256PlusPlus) -> Self {
        let activation = shape.activation;
        let actor_layers = shape.layers();
        let mut critic_layers = actor_layers.clone();
        if let Some([_, outputs]) = critic_layers.last_mut() {
            *outputs = 1;
        }
        Self {
            actor: Mlp::new(&actor_layers, activation, 0.01, rng),
            critic: Mlp::new(&critic_layers, activation, 1.0, rng),
            shape,
            device: Device::flex(),
        }
    }

    /// The distributions of one row's actions from the actor's output for it.
    fn distributions(raw: &[f32]) -> impl Iterator<Item = ActionBeta> + '_ {
        let (first, second) = raw.split_at(raw.len() / 2);
        first.iter().zip(second).map(|(a, b)| ActionBeta::new(*a, *b))
    }

    /// Actions drawn for states, a row a state.
    pub fn act(&self, features: Vec<f32>, rng: &mut Xoshiro256PlusPlus) -> Vec<f32> {
        let raw = self.actor.forward(matrix(features, self.shape.inputs(), &self.device));
        let per_row = raw.chunks_exact(2 * self.shape.actions());
        per_row.flat_map(Self::distributions).map(|beta| beta.sample(rng)).collect()
    }

    /// Rows of states, as many at a time as [`PASS_FLOP`] allows: `[·, inputs]`.
    fn passes<'a>(
        &self,
        features: &'a [f32],
        guard: UpdateGuard<'a>,
    ) -> impl Iterator<Item = Result<Tensor<2>, TrainError>> {
        let weights: usize = self.shape.layers().iter().map(|[inputs, outputs]| inputs * outputs).sum();
        let rows = (PASS_FLOP / (2 * weights.max(1))).max(1);
        let (inputs, device) = (self.shape.inputs(), self.device.clone());
        features.chunks(rows * inputs).map(move |rows| {
            guard.check()?;
            Ok(matrix(rows.to_vec(), inputs, &device))
        })
    }

    /// ln π_θ(a|s) of each row.
    ///
    /// # Errors
    /// When the run is to stop.
    pub fn log_probs(&self, features: &[f32], actions: &[f32], guard: UpdateGuard<'_>) -> Result<Vec<f32>, TrainError> {
        let mut raw = Vec::new();
        for states in self.passes(features, guard) {
            raw.extend(self.actor.forward(states?));
        }
        let per_row = raw.chunks_exact(2 * self.shape.actions()).zip(actions.chunks_exact(self.shape.actions()));
        let log_prob = |(raw, actions): (&[f32], &[f32])| {
            Self::distributions(raw).zip(actions).map(|(beta, x)| beta.log_prob(*x)).sum::<f64>() as f32
        };
        Ok(per_row.map(log_prob).collect())
    }

    /// V_φ(s) of each row.
    ///
    /// # Errors
    /// When the run is to stop.
    pub fn values(&self, features: &[f32], guard: UpdateGuard<'_>) -> Result<Vec<f32>, TrainError> {
        let mut values = Vec::new();
        for states in self.passes(features, guard) {
            values.extend(self.critic.forward(states?));
        }
        Ok(values)
    }

    /// One gradient step of both networks on a minibatch. Returns whether losses and gradients were finite.
    #[must_use]
    pub fn step(
        &mut self,
        objective: &Objective,
        real: &Batch,
        imagined: Option<&Imagined>,
        rate: f64,
        sums: &mut Losses,
    ) -> bool {
        let mut features = real.features.clone();
        if let Some(imagined) = imagined {
            features.extend_from_slice(&imagined.batch.features);
        }
        let states = matrix(features, self.shape.inputs(), &self.device); // [batch, inputs]
        let (of_actor, of_critic) = rayon::join(
            || self.actor_loss(objective, states.clone(), real, imagined, sums),
            || self.critic_loss(states.clone(), real, imagined),
        );
        if !(of_actor.policy + of_actor.imagined + of_actor.entropy + of_critic.value).is_finite() {
            return false;
        }
        sums.policy += of_actor.policy;
        sums.imagined += of_actor.imagined;
        sums.entropy += of_actor.entropy;
        sums.value += of_critic.value;
        sums.count += 1.0;
        let Self { actor, critic, .. } = self;
        let gradients = rayon::join(
            || actor.backward(of_actor.tape, of_actor.by_raw),
            || critic.backward(of_critic.tape, of_critic.by_value),
        );
        let descended = rayon::join(
            || actor.descend(&gradients.0, rate, objective.max_grad_norm),
            || critic.descend(&gradients.1, rate, objective.max_grad_norm),
        );
        descended.0 && descended.1
    }

    /// (38), (41) and (42).
    fn actor_loss(
        &self,
        objective: &Objective,
        states: Tensor<2>,
        real: &Batch,
        imagined: Option<&Imagined>,
        sums: &mut Losses,
    ) -> ActorLoss {
        let actions = self.shape.actions();
        let real_count = real.len().max(1) as f64;
        let clip = f64::from(objective.clip);
        let (raw, tape) = self.actor.forward_taped(states); // [batch, 2·actions]
        let mut by_raw = vec![0.0; raw.len()];
        let (mut policy_loss, mut imagined_loss, mut entropy) = (0.0, 0.0, 0.0);
        for (row, (raw, by_raw)) in raw.chunks_exact(2 * actions).zip(by_raw.chunks_exact_mut(2 * actions)).enumerate()
        {
            let (source, at, extra) = match imagined {
                Some(imagined) if row >= real.len() => (&imagined.batch, row - real.len(), Some(imagined)),
                _ => (real, row, None),
            };
            let taken = &source.actions[at * actions..(at + 1) * actions];
            let mut terms = [Default::default(); MAX_USERS * 2];
            let terms = &mut terms[..actions];
            for ((term, beta), x) in terms.iter_mut().zip(Self::distributions(raw)).zip(taken) {
                *term = beta.terms(*x);
            }
            let log_prob: f64 = terms.iter().map(|t| t.log_prob).sum();
            let (advantage, old) = (f64::from(source.advantage[at]), f64::from(source.old_log_prob[at]));
            // Derivatives of the loss by ln π and by the entropy.
            let (by_log_prob, by_entropy) = match extra {
                None => {
                    let log_ratio = log_prob - old;
                    let (value, slope) = surrogate(log_ratio, advantage, clip);
                    let ratio = log_ratio.exp();
                    policy_loss -= value / real_count;
                    entropy += terms.iter().map(|t| t.entropy).sum::<f64>() / real_count;
                    sums.old_kl -= log_ratio / real_count;
                    sums.kl += (ratio - 1.0 - log_ratio) / real_count;
                    sums.clipped += f64::from(u8::from((ratio - 1.0).abs() > clip)) / real_count;
                    (-slope / real_count, -f64::from(objective.entropy) / real_count)
                }
                Some(extra) => {
                    let share = f64::from(extra.weight) / extra.batch.len().max(1) as f64;
                    let (value, slope) = if extra.clipped {
                        surrogate(log_prob - old, advantage, clip)
                    } else {
                        (advantage * log_prob, advantage)
                    };
                    imagined_loss -= share * value;
                    (-share * slope, 0.0)
                }
            };
            let (first, second) = by_raw.split_at_mut(actions);
            for ((term, a), b) in terms.iter().zip(first).zip(second) {
                *a = (by_log_prob * term.log_prob_by_raw.0 + by_entropy * term.entropy_by_raw.0) as f32;
                *b = (by_log_prob * term.log_prob_by_raw.1 + by_entropy * term.entropy_by_raw.1) as f32;
            }
        }
        ActorLoss { policy: policy_loss, imagined: imagined_loss, entropy, tape, by_raw }
    }

    /// (33) or (37).
    fn critic_loss(&self, states: Tensor<2>, real: &Batch, imagined: Option<&Imagined>) -> CriticLoss {
        let mut target = real.target.clone();
        let states = match imagined {
            Some(imagined) if imagined.critic => {
                target.extend_from_slice(&imagined.batch.target);
                states
            }
            Some(_) => matrix(real.features.clone(), self.shape.inputs(), &self.device),
            None => states,
        };
        let (values, tape) = self.critic.forward_taped(states); // [batch, 1]
        let count = target.len().max(1) as f32;
        let errors: Vec<f32> = values.iter().zip(&target).map(|(v, y)| v - y).collect();
        let value = errors.iter().map(|e| f64::from(e * e)).sum::<f64>() / f64::from(count);
        CriticLoss { value, tape, by_value: errors.iter().map(|e| 2.0 * e / count).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::{mean_and_deviation, minibatches, normalise};
    use crate::stop::Stop;
    use rand::SeedableRng;

    const OBJECTIVE: Objective = Objective { clip: 0.2, entropy: 0.001, max_grad_norm: 0.5 };

    fn fresh(hidden: &[usize], users: usize, rng: &mut Xoshiro256PlusPlus) -> ActorCritic {
        ActorCritic::new(ActorConfig { hidden: hidden.to_vec(), ..ActorConfig::new(users) }, rng)
    }

    fn values(agent: &ActorCritic, features: &[f32]) -> Vec<f32> {
        agent.values(features, Stop::default().guard(0)).expect("values")
    }

    fn log_probs(agent: &ActorCritic, batch: &Batch) -> Vec<f32> {
        agent.log_probs(&batch.features, &batch.actions, Stop::default().guard(0)).expect("log-probabilities")
    }

    #[test]
    fn the_surrogate_stops_where_the_ratio_has_moved_far_enough() {
        // (ratio, advantage) → value, slope with ε = 0.2
        for (ratio, advantage, value, slope) in [
            (1.0, 2.0, 2.0, 2.0),
            (1.1, 2.0, 2.2, 2.2),
            (1.5, 2.0, 2.4, 0.0),
            (0.5, 2.0, 1.0, 1.0),
            (1.5, -2.0, -3.0, -3.0),
            (0.5, -2.0, -1.6, 0.0),
        ] {
            let got = surrogate(f64::ln(ratio), advantage, 0.2);
            assert!((got.0 - value).abs() < 1e-12 && (got.1 - slope).abs() < 1e-12, "{ratio} {advantage}: {got:?}");
        }
    }

    /// Rows of a made-up problem: the best action is a linear function of the state.
    fn bandit(agent: &ActorCritic, count: usize, rng: &mut Xoshiro256PlusPlus) -> (Batch, f32) {
        use rand::RngExt;
        let (inputs, actions) = (agent.shape.inputs(), agent.shape.actions());
        let features: Vec<f32> = (0..count * inputs).map(|_| 2.0 * rng.random::<f32>() - 1.0).collect();
        let taken = agent.act(features.clone(), rng);
        let miss = |(state, action): (&[f32], &[f32])| {
            let best = |i: usize| 0.5 + 0.3 * state[i];
            -action.iter().enumerate().map(|(i, a)| (a - best(i)).powi(2)).sum::<f32>()
        };
        let rewards: Vec<f32> = features.chunks(inputs).zip(taken.chunks(actions)).map(miss).collect();
        let mean = mean_and_deviation(&rewards).0;
        let mut advantage: Vec<f32> = rewards.iter().zip(values(agent, &features)).map(|(r, v)| r - v).collect();
        normalise(&mut advantage);
        let mut batch = Batch { features, actions: taken, old_log_prob: Vec::new(), advantage, target: rewards };
        batch.old_log_prob = log_probs(agent, &batch);
        (batch, mean)
    }

    #[test]
    fn the_networks_learn_a_bandit_that_depends_on_the_state() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(2);
        let mut agent = fresh(&[32, 32], 1, &mut rng);
        let mut rewards = Vec::new();
        for _ in 0..60 {
            let (batch, reward) = bandit(&agent, 256, &mut rng);
            rewards.push(reward);
            let mut sums = Losses::default();
            for _ in 0..4 {
                for rows in minibatches(batch.len(), 64, &mut rng) {
                    assert!(agent.step(&OBJECTIVE, &batch.select(&rows), None, 3e-3, &mut sums));
                }
            }
        }
        // Always the middle would miss by 2·(0.3²/3) = 0.06 on average.
        let (first, last) = (rewards[0], *rewards.last().expect("a reward"));
        assert!(first < -0.15 && last > -0.03, "{first} {last}");
    }

    #[test]
    fn imagined_rows_pull_the_actor_and_leave_the_critic_alone_unless_asked() {
        let objective = Objective { entropy: 0.0, ..OBJECTIVE };
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(3);
        let fresh = fresh(&[8], 1, &mut rng);
        let (mut real, _) = bandit(&fresh, 16, &mut rng);
        real.advantage.fill(0.0);
        real.target = values(&fresh, &real.features);
        let (dream, _) = bandit(&fresh, 16, &mut rng);
        for (clipped, critic) in [(false, false), (true, true)] {
            let mut agent = ActorCritic {
                actor: fresh.actor.clone(),
                critic: fresh.critic.clone(),
                shape: fresh.shape.clone(),
                device: Device::flex(),
            };
            let imagined = Imagined { batch: dream.clone(), weight: 0.3, clipped, critic };
            let score = |agent: &ActorCritic| -> f32 {
                let now = log_probs(agent, &dream);
                now.iter().zip(&dream.advantage).map(|(l, a)| l * a).sum()
            };
            let before = score(&agent);
            assert!(agent.step(&objective, &real, Some(&imagined), 1e-3, &mut Losses::default()));
            assert!(score(&agent) > before, "{clipped} {critic}");
            let pairs = values(&agent, &dream.features).into_iter().zip(values(&fresh, &dream.features));
            let moved = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(if critic { moved > 1e-3 } else { moved < 1e-5 }, "{critic}: {moved}");
        }
    }

    #[test]
    fn a_step_is_the_same_on_any_number_of_threads() {
        let learned = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("pool");
            pool.install(|| {
                let mut rng = Xoshiro256PlusPlus::seed_from_u64(4);
                let mut agent = fresh(&[16, 16], 2, &mut rng);
                let (batch, _) = bandit(&agent, 64, &mut rng);
                let mut sums = Losses::default();
                for _ in 0..20 {
                    assert!(agent.step(&OBJECTIVE, &batch, None, 1e-3, &mut sums));
                }
                (agent.actor.state(), agent.critic.state(), sums.named(None))
            })
        };
        assert_eq!(learned(1), learned(2));
    }
}
