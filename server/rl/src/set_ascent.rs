//! The policy for every world ([`policy::world`]): gradient ascent of the reward itself, in random worlds; readable from top
//! to bottom.
//!
//! Nothing has to be explored and no critic learned: what a decision is worth in a slot is written down in (14)–(29), (47)
//! and (48), and what is believed of its hidden quality is known exactly. A gradient step draws slots of fresh random worlds,
//! lets the network propose, completes each proposal and takes difference quotients of the logarithm of its believed reward
//! by what the network said: logarithms, so that a world in which rewards are thousandths counts as much as one in which they
//! are tens. The steps of the quotients are wide enough to see over the kinks of (29) and (48).
//!
//! The network's proposals compete, and only those that are as good as the best one learn from a slot (in proportion to
//! `exp(sharpness·ln reward)`): so they part the worlds among themselves, as the reward has a hill for nearly every set of
//! users who send.

use burn::nn::Linear;
use burn::tensor::Device;
use mec::world::nth_seed;
use mec::{MecParams, Physics, UserDecision, World};
use policy::world::{Outlook, PROPOSAL_OUTPUTS, Proposal, WORLD_FEATURES_PER_USER, features};
use policy::{Activation, Network, NetworkShape, WorldConfig, file};
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::checkpoint::{read_state, write_state};
use super::error::TrainError;
use super::hyper::{activation, hyper_parameters, layers, learning_rate, optional_layers, over_zero, whole, within};
use super::mlp::tanh;
use super::nets::host;
use super::off_policy::{Means, Random};
use super::run::BEGIN_FILE;
use super::session::{Job, Session, Update};
use super::set_net::{SetNet, SetNetState};
use super::stop::Ending;
use super::worlds::{Worlds, random_world};

hyper_parameters! {
    /// Hyper-parameters.
    pub struct SetAscentConfig => {
        /// Learning rate at the start; it falls linearly to 0.
        rate: f64 = 1e-3 => learning_rate();
        /// Slots of a gradient step.
        batch: usize = 256 => whole(1, 8192), "slots";
        /// Largest norm of the gradients of encoder and head.
        max_grad_norm: f32 = 1.0 => over_zero(1000.0);
        /// Proposals of the network in each slot.
        proposals: usize = 4 => whole(1, 16);
        /// How much better a proposal has to be to learn alone: e times as much for 1/sharpness more reward.
        sharpness: f64 = 20.0 => over_zero(1e4);
        /// Units of the layers of the encoder.
        encoder: Vec<usize> = vec![96, 64] => layers(), "units";
        /// Units of the hidden layers of the head.
        head: Vec<usize> = vec![96, 64] => optional_layers(), "units";
        /// Nonlinearity.
        activation: Activation = Activation::Relu => activation();
        /// Share of the slots that are in the run's own system, where worlds are random: a fresh one for every slot.
        own_share: f64 = 0.2 => within(0.0, 1.0);
        /// Gradient steps between two reports.
        report_steps: usize = 100 => whole(1, 100_000), "steps";
    }
}

impl SetAscentConfig {
    /// Shape of the policy network.
    pub fn shape(&self, most_users: usize) -> WorldConfig {
        WorldConfig {
            most_users,
            encoder: self.encoder.clone(),
            head: self.head.clone(),
            activation: self.activation,
            proposals: self.proposals,
        }
    }
}

/// Steps of the difference quotients by a user's offset and by what is the cell's: lean, softness, margin.
const OFFSET_STEP: f64 = 0.05;
const CELL_STEPS: [f64; 3] = [0.05, 0.15, 0.1];
/// No slot pulls harder than this at one output.
const MOST_PULL: f64 = 3.0;
/// Proposals that count less than this learn nothing.
const LEAST_PART: f64 = 0.03;
/// Random worlds that a policy is weighed in to find the best one of a run.
const TRIAL_WORLDS: u64 = 600;

/// A slot to learn from.
struct Slot {
    physics: Physics,
    outlook: Outlook,
}

impl Slot {
    fn new(world: &World) -> Self {
        let physics = *world.physics();
        Self { outlook: Outlook::new(&physics, &world.observation()), physics }
    }

    fn users(&self) -> usize {
        self.outlook.belief().users().len()
    }

    /// `[users, WORLD_FEATURES_PER_USER]`
    fn features(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.users() * WORLD_FEATURES_PER_USER];
        features(&self.physics, &self.outlook, &mut out);
        out
    }

    fn log_reward(&self, proposal: &Proposal) -> f64 {
        self.outlook.reward(&self.physics, proposal).max(1e-300).ln()
    }

    /// Derivatives by the outputs, `[users, width]`, of the mean logarithm of the proposals' rewards, each weighed by how
    /// good it is; and the logarithm of the best one's over the closed form's.
    fn ascent(&self, outputs: &[f32], width: usize, sharpness: f64) -> (Vec<f32>, f64) {
        let users = self.users();
        let proposals: Vec<Proposal> =
            (0..width / PROPOSAL_OUTPUTS).map(|index| Proposal::read(outputs, width, index)).collect();
        let values: Vec<f64> = proposals.iter().map(|proposal| self.log_reward(proposal)).collect();
        let best = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let parts: Vec<f64> = values.iter().map(|value| (sharpness * (value - best)).exp()).collect();
        let whole: f64 = parts.iter().sum();
        let mut by_output = vec![0.0; users * width];
        for (index, (proposal, part)) in proposals.iter().zip(&parts).enumerate() {
            let part = part / whole;
            if part < LEAST_PART {
                continue;
            }
            let quotient = |step: f64, moved: &dyn Fn(&mut Proposal, f64)| {
                let at = |by: f64| {
                    let mut proposal = *proposal;
                    moved(&mut proposal, by);
                    self.log_reward(&proposal)
                };
                (part * ((at(step) - at(-step)) / (2.0 * step)).clamp(-MOST_PULL, MOST_PULL)) as f32
            };
            let at = PROPOSAL_OUTPUTS * index;
            if users > 1 {
                for k in 0..users {
                    by_output[k * width + at] = quotient(OFFSET_STEP, &|proposal, by| proposal.offset[k] += by);
                }
            }
            let of_cell = [
                if users > 1 { quotient(CELL_STEPS[0], &|proposal, by| proposal.lean += by) } else { 0.0 },
                quotient(CELL_STEPS[1], &|proposal, by| proposal.soft += by),
                quotient(CELL_STEPS[2], &|proposal, by| proposal.margin += by),
            ];
            for row in by_output.chunks_exact_mut(width) {
                for (out, d) in row[at + 1..].iter_mut().zip(of_cell) {
                    *out = d / users as f32;
                }
            }
        }
        (by_output, best - self.outlook.closed_reward().max(1e-300).ln())
    }
}

/// A batch of slots as the network takes them.
struct Batch {
    slots: Vec<Slot>,
    /// Users of each slot.
    users: Vec<usize>,
    /// `[rows, WORLD_FEATURES_PER_USER]`
    features: Vec<f32>,
}

impl Batch {
    fn new(worlds: impl ParallelIterator<Item = World>) -> Self {
        let both = worlds.map(|world| {
            let slot = Slot::new(&world);
            let features = slot.features();
            (slot, features)
        });
        let (slots, features): (Vec<Slot>, Vec<Vec<f32>>) = both.unzip();
        Self { users: slots.iter().map(Slot::users).collect(), slots, features: features.concat() }
    }

    /// Parts of `[rows, width]`, one a slot.
    fn by_slot<'a>(&'a self, rows: &'a [f32], width: usize) -> Vec<(&'a Slot, &'a [f32])> {
        let mut rest = rows;
        let part = |slot: &'a Slot| {
            let (own, others) = rest.split_at(slot.users() * width);
            rest = others;
            (slot, own)
        };
        self.slots.iter().map(part).collect()
    }
}

/// A gradient step at a rate. Returns whether the gradient was finite.
fn learn(net: &mut SetNet, batch: &Batch, config: &SetAscentConfig, rate: f64, means: &mut Means) -> bool {
    let width = PROPOSAL_OUTPUTS * config.proposals;
    let (raw, tape) = net.forward_taped(batch.features.clone(), &batch.users);
    let centred: Vec<f32> = raw.iter().map(|x| tanh(*x)).collect();
    let outputs: Vec<f32> = centred.iter().map(|z| 0.5 * (1.0 + z)).collect();
    let found: Vec<(Vec<f32>, f64)> = batch
        .by_slot(&outputs, width)
        .into_par_iter()
        .map(|(slot, outputs)| slot.ascent(outputs, width, config.sharpness))
        .collect();
    let count = batch.slots.len() as f32;
    // What a slot is ahead of the closed form is bounded, so that no single world decides what the mean is.
    means.add("gain_over_closed_form", found.iter().map(|(_, gain)| gain.clamp(-1.0, 1.0) as f32).sum::<f32>() / count);
    let by_output = found.iter().flat_map(|(d, _)| d);
    let by_raw: Vec<f32> = by_output.zip(&centred).map(|(d, z)| -d * (1.0 - z * z) / count).collect();
    let gradients = net.backward(tape, &batch.users, by_raw);
    net.descend(&gradients, rate, config.max_grad_norm)
}

/// The mean logarithm of what the policy's decisions are worth over the closed form, each at most 1 in size.
fn merit(net: &SetNet, trials: &Batch, width: usize) -> f64 {
    let raw = net.forward(trials.features.clone(), &trials.users);
    let outputs: Vec<f32> = raw.iter().map(|x| 0.5 * (1.0 + tanh(*x))).collect();
    let gains = trials.by_slot(&outputs, width).into_par_iter().map(|(slot, outputs)| {
        let proposals = (0..width / PROPOSAL_OUTPUTS).map(|index| Proposal::read(outputs, width, index));
        let mut out = vec![UserDecision::default(); slot.users()];
        let reward = slot.outlook.decide(&slot.physics, proposals, &mut out);
        (reward / slot.outlook.closed_reward()).ln().clamp(-1.0, 1.0)
    });
    // Summed in their order, so that the sum is the same on any number of threads.
    gains.collect::<Vec<f64>>().iter().sum::<f64>() / trials.slots.len().max(1) as f64
}

/// Takes a policy's weights over. It may be for fewer users: nothing in its network counts them.
fn begin_with(net: &mut SetNet, bytes: &[u8], wanted: &WorldConfig) -> Result<(), String> {
    let (header, network) = file::from_bytes(bytes, &Device::flex()).map_err(|error| error.to_string())?;
    let (NetworkShape::World(shape), Network::World(actor)) = (header.shape, network) else {
        return Err("it is not a policy that is told its world".to_owned());
    };
    if (WorldConfig { most_users: wanted.most_users, ..shape.clone() }) != *wanted {
        return Err(format!("its network is {shape:?}, the run's {wanted:?}"));
    }
    let values = |layers: &[Linear]| -> Vec<(Vec<f32>, Vec<f32>)> {
        let bias = |layer: &Linear| layer.bias.as_ref().map_or(Vec::new(), |bias| host(bias.val()));
        layers.iter().map(|layer| (host(layer.weight.val()), bias(layer))).collect()
    };
    net.begin_with([values(&actor.encoder), values(&actor.head)])
}

/// What the loop remembers in a checkpoint.
#[derive(Serialize, Deserialize)]
struct LoopState {
    random: Random,
    /// Slots drawn.
    drawn: u64,
    net: SetNetState,
}

/// Trains on every number of users from 1 to the configured one, into a run folder, from its checkpoint if it has one.
///
/// # Errors
/// See [`crate::train`].
pub fn train(job: Job<'_>, config: &SetAscentConfig) -> Result<Ending, TrainError> {
    let Job { settings, run, stop, .. } = &job;
    let (settings, stop) = (*settings, *stop);
    let most_users = settings.mec.users;
    let shape = config.shape(most_users);
    let width = shape.outputs();
    // Streams of their own for weights, worlds and trials.
    let stream = |n: u64| nth_seed(settings.seed, n);
    let (inputs, rate) = (WORLD_FEATURES_PER_USER, config.rate);
    let mut weights = Random::seed_from_u64(stream(0));
    // Proposals that all begin alike would learn alike.
    let mut net = SetNet::new(inputs, &config.encoder, &config.head, width, config.activation, 0.3, &mut weights);
    let (mut random, mut drawn) = (Random::seed_from_u64(stream(1)), 0);
    if run.progress.update > 0 {
        let path = run.checkpoint_file("loop.cbor");
        let state: LoopState = read_state(&path)?;
        net.restore(state.net).map_err(|problem| TrainError::damaged(&path, problem))?;
        (random, drawn) = (state.random, state.drawn);
    } else if let Some(bytes) = run.begins_with()? {
        let problem = begin_with(&mut net, &bytes, &shape).err();
        problem.map_or(Ok(()), |problem| Err(TrainError::damaged(&run.dir().join(BEGIN_FILE), problem)))?;
    }
    let own = |users: usize, seed: u64| World::new(MecParams { users, ..settings.mec }, seed);
    let trials = Batch::new((0..TRIAL_WORLDS).into_par_iter().map(|index| match settings.worlds {
        Worlds::Random => random_world(1..=most_users, stream(2), index),
        Worlds::Fixed => own(1 + index as usize % most_users, nth_seed(stream(2), index)),
    }));
    let mut session = Session::open(job, shape.clone().into(), (config.report_steps * config.batch) as u64)?;
    while session.progress.update < session.updates {
        let guard = stop.guard(session.progress.update);
        let mut means = Means::default();
        let left = 1.0 - session.progress.update as f64 / session.updates.max(1) as f64;
        for _ in 0..config.report_steps {
            guard.check()?;
            let slots: Vec<(u64, bool, usize)> = (drawn..drawn + config.batch as u64)
                .map(|index| {
                    let is_own = settings.worlds == Worlds::Fixed || random.random_bool(config.own_share);
                    (index, is_own, random.random_range(1..=most_users))
                })
                .collect();
            drawn += config.batch as u64;
            let batch = Batch::new(slots.into_par_iter().map(|(index, is_own, users)| {
                let seed = stream(3);
                if is_own { own(users, nth_seed(seed, index)) } else { random_world(1..=most_users, seed, index) }
            }));
            guard.check()?;
            guard.finite(learn(&mut net, &batch, config, rate * left, &mut means), "gradient")?;
        }
        let merit = merit(&net, &trials, width);
        session.merit = Some(merit);
        let mut losses = means.named();
        losses.insert("losses/trial_gain_over_closed_form".to_owned(), merit);
        let [encoder, head] = net.values();
        let network = Network::World(shape.actor([encoder, head], &Device::flex()));
        let next = session.finish_update(Update {
            network: &network,
            steps: (config.report_steps * config.batch) as u64,
            mean_reward: merit.exp(),
            learning_rate: rate * left,
            losses,
        })?;
        if next.checkpoint {
            let state = LoopState { random: random.clone(), drawn, net: net.state() };
            session.checkpoint(|folder| write_state(&folder.join("loop.cbor"), &state))?;
        }
        if next.stopped {
            return Ok(Ending::Stopped);
        }
    }
    Ok(Ending::Finished)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_begins_with_the_weights_of_a_policy_for_fewer_users() {
        let config = SetAscentConfig { encoder: vec![12, 9], head: vec![8], ..SetAscentConfig::default() };
        let width = PROPOSAL_OUTPUTS * config.proposals;
        let net = |seed| {
            let (encoder, head) = (&config.encoder, &config.head);
            let mut random = Random::seed_from_u64(seed);
            SetNet::new(WORLD_FEATURES_PER_USER, encoder, head, width, config.activation, 0.3, &mut random)
        };
        let (taught, mut fresh) = (net(1), net(2));
        let (few, many) = (config.shape(3), config.shape(5));
        let header = policy::PolicyHeader {
            shape: few.clone().into(),
            action_map: policy::ActionMap::default(),
            algo: "set-ascent".to_owned(),
            seed: 1,
            steps: 0,
        };
        let network = Network::World(few.actor(taught.values(), &Device::flex()));
        let bytes = file::to_bytes(&header, &network).expect("a file");
        let input: Vec<f32> = (0..5 * WORLD_FEATURES_PER_USER).map(|i| (i as f32 * 0.7).sin()).collect();
        assert_ne!(fresh.forward(input.clone(), &[5]), taught.forward(input.clone(), &[5]));
        begin_with(&mut fresh, &bytes, &many).expect("the same network");
        assert_eq!(fresh.forward(input.clone(), &[5]), taught.forward(input, &[5]));
        let other = WorldConfig { head: vec![7], ..many };
        for (bytes, wanted, said) in [(&bytes[..], &other, "the run's"), (b"nonsense", &few, "")] {
            let problem = begin_with(&mut fresh, bytes, wanted).expect_err("refused");
            assert!(problem.contains(said), "{problem}");
        }
    }

    #[test]
    fn the_difference_quotients_climb() {
        let config = SetAscentConfig { encoder: vec![24], head: vec![24], batch: 64, ..SetAscentConfig::default() };
        let width = PROPOSAL_OUTPUTS * config.proposals;
        let mut random = Random::seed_from_u64(2);
        let (encoder, head) = (&config.encoder, &config.head);
        let mut net = SetNet::new(WORLD_FEATURES_PER_USER, encoder, head, width, config.activation, 0.3, &mut random);
        let batch = Batch::new((0..64u64).into_par_iter().map(|index| random_world(1..=4, 7, index)));
        let decided = merit(&net, &batch, width);
        // Of the proposals as they are; a decision also has the search about the best one.
        let mut step = || {
            let mut means = Means::default();
            assert!(learn(&mut net, &batch, &config, 3e-3, &mut means));
            means.named()["losses/gain_over_closed_form"]
        };
        let before = step();
        for _ in 0..58 {
            step();
        }
        let after = step();
        assert!(after > before + 0.005, "{before} {after}");
        let better = merit(&net, &batch, width);
        assert!(better > decided, "{decided} {better}");
    }
}
