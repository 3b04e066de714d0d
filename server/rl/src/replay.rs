//! What off-policy algorithms learn from: the transitions of the past, sampled uniformly (Mnih et al. 2015; Lillicrap et al.
//! 2016).
//!
//! The system never ends by itself: an episode's end is a time limit, after which the next state still has its value. So a
//! transition carries no mark of an end, and its next state is the one before the reset.

use std::collections::HashMap;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::error::TrainError;
use super::hyper::{hyper_parameters, over_zero, whole};
use super::nets::{column, rows};
use super::rollout::Experience;

hyper_parameters! {
    /// Hyper-parameters of collecting and replaying, the same for every off-policy algorithm.
    pub struct ReplayConfig, fits ReplayConfig::holds_a_batch => {
        /// Transitions that are kept; the oldest go first.
        capacity: usize = 1_000_000 => whole(1, 1_000_000), "transitions";
        /// Transitions of a gradient step.
        batch: usize = 256 => whole(1, 16_384), "transitions";
        /// Environment steps with uniformly drawn actions, before anything is learned.
        warm_up: u64 = 1000 => whole(0, 1_000_000_000), "steps";
        /// Gradient steps an environment step (update-to-data ratio); 0.5 is one every other step.
        updates_per_step: f64 = 1.0 => over_zero(1000.0);
        /// Steps of every environment between two lines of the log: an episode of the default system.
        report_steps: usize = 200 => whole(1, 3200), "steps";
    }
}

impl ReplayConfig {
    fn holds_a_batch(&self) -> Result<(), String> {
        if self.capacity >= self.batch {
            return Ok(());
        }
        Err(format!("replay.capacity must hold a batch of {}, but is {}", self.batch, self.capacity))
    }
}

/// Sampled transitions, without gradients.
pub struct Batch {
    /// States, `[batch, inputs]`.
    pub features: Tensor<2>,
    /// Actions in [0, 1], `[batch, actions]`.
    pub actions: Tensor<2>,
    /// Rewards, `[batch]`.
    pub rewards: Tensor<1>,
    /// States after the actions, `[batch, inputs]`.
    pub next_features: Tensor<2>,
}

/// A ring of transitions, one array for each of their parts. A row takes `4·(2·inputs + actions + 1)` bytes, in memory and
/// in a checkpoint alike.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplayBuffer {
    capacity: usize,
    inputs: usize,
    actions: usize,
    /// Row that is written next.
    next: usize,
    /// `[rows, inputs]`
    features: Vec<f32>,
    /// `[rows, actions]`
    taken: Vec<f32>,
    /// `[rows]`
    rewards: Vec<f32>,
    /// `[rows, inputs]`
    next_features: Vec<f32>,
}

/// Writes a row: over an old one, or behind the last.
fn put(values: &mut Vec<f32>, row: usize, fresh: &[f32]) {
    let at = row * fresh.len();
    match values.get_mut(at..at + fresh.len()) {
        Some(old) => old.copy_from_slice(fresh),
        None => values.extend_from_slice(fresh),
    }
}

impl ReplayBuffer {
    /// An empty buffer. Memory is taken as it fills.
    pub fn new(capacity: usize, inputs: usize, actions: usize) -> Self {
        Self {
            capacity,
            inputs,
            actions,
            next: 0,
            features: Vec::new(),
            taken: Vec::new(),
            rewards: Vec::new(),
            next_features: Vec::new(),
        }
    }

    /// Transitions that are there.
    pub fn len(&self) -> usize {
        self.rewards.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rewards.is_empty()
    }

    /// Rewards that are there, in no particular order.
    pub fn rewards(&self) -> &[f32] {
        &self.rewards
    }

    /// Adds all transitions of a stretch of experience.
    pub fn push(&mut self, experience: &Experience) {
        let states = experience.features.chunks(self.inputs).zip(experience.next_features.chunks(self.inputs));
        let actions = experience.actions.chunks(self.actions).zip(&experience.rewards);
        for ((features, next_features), (actions, reward)) in states.zip(actions) {
            let row = self.next;
            put(&mut self.features, row, features);
            put(&mut self.taken, row, actions);
            put(&mut self.rewards, row, &[*reward]);
            put(&mut self.next_features, row, next_features);
            self.next = (row + 1) % self.capacity;
        }
    }

    /// Draws `count` transitions, each uniformly and with replacement. The buffer must not be empty.
    pub fn sample(&self, count: usize, device: &Device, rng: &mut Xoshiro256PlusPlus) -> Batch {
        let chosen: Vec<usize> = (0..count).map(|_| rng.random_range(0..self.len())).collect();
        let pick = |values: &[f32], width: usize| -> Vec<f32> {
            let mut out = Vec::with_capacity(count * width);
            for row in &chosen {
                out.extend_from_slice(&values[row * width..(row + 1) * width]);
            }
            out
        };
        Batch {
            features: rows(&pick(&self.features, self.inputs), self.inputs, device),
            actions: rows(&pick(&self.taken, self.actions), self.actions, device),
            rewards: column(&pick(&self.rewards, 1), device),
            next_features: rows(&pick(&self.next_features, self.inputs), self.inputs, device),
        }
    }

    /// Writes the rows that are there, as safetensors.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), TrainError> {
        let damaged =
            |e: safetensors::SafeTensorError| TrainError::Damaged { path: path.to_owned(), problem: e.to_string() };
        let parts = [
            ("features", self.inputs, &self.features),
            ("actions", self.actions, &self.taken),
            ("rewards", 1, &self.rewards),
            ("next_features", self.inputs, &self.next_features),
        ];
        let parts = parts.map(|(name, width, values)| {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            (name, [values.len() / width, width], bytes)
        });
        let mut views = Vec::new();
        for (name, shape, bytes) in &parts {
            views.push((*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).map_err(damaged)?));
        }
        let next = HashMap::from([(NEXT_KEY.to_owned(), self.next.to_string())]);
        let bytes = safetensors::serialize(views, Some(next)).map_err(damaged)?;
        std::fs::write(path, bytes).map_err(|source| TrainError::File { path: path.to_owned(), source })
    }

    /// Reads what [`ReplayBuffer::save`] wrote, for a buffer of the same sizes.
    ///
    /// # Errors
    /// When the file cannot be read, or is of other sizes.
    pub fn load(path: &Path, capacity: usize, inputs: usize, actions: usize) -> Result<Self, TrainError> {
        let damaged = |problem: String| TrainError::Damaged { path: path.to_owned(), problem };
        let bytes = std::fs::read(path).map_err(|source| TrainError::File { path: path.to_owned(), source })?;
        let broken = |e: safetensors::SafeTensorError| damaged(e.to_string());
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(broken)?;
        let next = metadata.metadata().as_ref().and_then(|m| m.get(NEXT_KEY)?.parse().ok());
        let next: usize = next.ok_or_else(|| damaged(format!("its header has no `{NEXT_KEY}`")))?;
        let file = SafeTensors::deserialize(&bytes).map_err(broken)?;
        let count = file.tensor("rewards").map_err(broken)?.shape().first().copied().unwrap_or(0);
        let read = |name: &str, width: usize| -> Result<Vec<f32>, TrainError> {
            let view = file.tensor(name).map_err(broken)?;
            if view.dtype() != Dtype::F32 || view.shape() != [count, width] {
                let found = (view.dtype(), view.shape());
                return Err(damaged(format!("{name} should be F32 [{count}, {width}], but is {found:?}")));
            }
            let (quads, _) = view.data().as_chunks::<4>();
            Ok(quads.iter().map(|quad| f32::from_le_bytes(*quad)).collect())
        };
        // Where a full ring goes on, or right behind what is there.
        if count > capacity || (next != count % capacity && count < capacity) || next >= capacity {
            return Err(damaged(format!("{count} rows, the next at {next}, do not fit a capacity of {capacity}")));
        }
        Ok(Self {
            capacity,
            inputs,
            actions,
            next,
            features: read("features", inputs)?,
            taken: read("actions", actions)?,
            rewards: read("rewards", 1)?,
            next_features: read("next_features", inputs)?,
        })
    }
}

const NEXT_KEY: &str = "next";

#[cfg(test)]
mod tests {
    use super::super::nets::host;
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use std::collections::BTreeSet;

    const INPUTS: usize = 3;
    const ACTIONS: usize = 2;

    /// Transition number n, recognisable in each of its parts.
    fn stretch(numbers: std::ops::Range<usize>) -> Experience {
        let mut out = Experience::default();
        for n in numbers.map(|n| n as f32) {
            out.features.extend([n, n + 0.25, -n]);
            out.actions.extend([n, n + 0.5]);
            out.rewards.push(n);
            out.next_features.extend([n + 1.0, n + 1.25, -n - 1.0]);
            out.truncated.push(false);
        }
        out
    }

    fn numbers(buffer: &ReplayBuffer) -> BTreeSet<usize> {
        buffer.rewards().iter().map(|r| *r as usize).collect()
    }

    proptest! {
        #[test]
        fn the_newest_transitions_are_kept_whole_and_sampled_whole(
            capacity in 1usize..40,
            stretches in prop::collection::vec(0usize..30, 1..8),
            seed: u64,
        ) {
            let mut buffer = ReplayBuffer::new(capacity, INPUTS, ACTIONS);
            let mut count = 0;
            for length in stretches {
                buffer.push(&stretch(count..count + length));
                count += length;
                prop_assert_eq!(buffer.len(), count.min(capacity));
                prop_assert_eq!(numbers(&buffer), (count.saturating_sub(capacity)..count).collect::<BTreeSet<_>>());
            }
            if count == 0 {
                return Ok(());
            }
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
            let batch = buffer.sample(64, &Device::flex(), &mut rng);
            let (rewards, actions) = (host(batch.rewards), host(batch.actions));
            let (features, next) = (host(batch.features), host(batch.next_features));
            for (row, n) in rewards.iter().enumerate() {
                prop_assert!(numbers(&buffer).contains(&(*n as usize)));
                prop_assert_eq!(&features[row * INPUTS..(row + 1) * INPUTS], [*n, n + 0.25, -n]);
                prop_assert_eq!(&actions[row * ACTIONS..(row + 1) * ACTIONS], [*n, n + 0.5]);
                prop_assert_eq!(&next[row * INPUTS..(row + 1) * INPUTS], [n + 1.0, n + 1.25, -n - 1.0]);
            }

            let dir = tempfile::tempdir().expect("folder");
            let path = dir.path().join("replay");
            buffer.save(&path).expect("saved");
            let mut loaded = ReplayBuffer::load(&path, capacity, INPUTS, ACTIONS).expect("loaded");
            prop_assert_eq!(&loaded, &buffer);
            for buffer in [&mut buffer, &mut loaded] {
                buffer.push(&stretch(count..count + 5));
            }
            prop_assert_eq!(loaded, buffer);
            prop_assert!(ReplayBuffer::load(&path, capacity, INPUTS + 1, ACTIONS).is_err());
        }
    }

    #[test]
    fn every_transition_is_drawn_equally_often() {
        let mut buffer = ReplayBuffer::new(8, INPUTS, ACTIONS);
        buffer.push(&stretch(0..11));
        let batch = buffer.sample(16_000, &Device::flex(), &mut Xoshiro256PlusPlus::seed_from_u64(1));
        let mut counts = [0; 11];
        for n in host(batch.rewards) {
            counts[n as usize] += 1;
        }
        assert_eq!(counts[..3], [0; 3]);
        // 2,000 each, with a deviation of 42.
        assert!(counts[3..].iter().all(|count: &i32| (count - 2000).abs() < 200), "{counts:?}");
    }
}
