//! What the world models learn from: the last slots of every environment, kept as stretches of one episode each, so that a
//! sequence never runs across a reset.

use std::collections::VecDeque;

use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

use super::rollout::Experience;

/// A stretch of one environment within one episode: n slots and the n + 1 observations around them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Segment {
    observations: Vec<f32>,
    actions: Vec<f32>,
    rewards: Vec<f32>,
    ended: bool,
}

/// The last slots of every environment, to draw sequences from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SequenceBuffer {
    stretches: VecDeque<Segment>,
    /// For each environment, which stretch (counted from the first one ever) its next slot goes to.
    open: Vec<Option<usize>>,
    forgotten: usize,
    capacity: usize,
}

/// A slot in a [`SequenceBuffer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    stretch: usize,
    slot: usize,
}

impl Place {
    /// So many slots later.
    pub fn later(self, slots: usize) -> Self {
        Self { slot: self.slot + slots, ..self }
    }
}

/// Sequences of equal length, slot after slot, within a slot sequence after sequence.
pub struct Sequences {
    /// `[(length + 1)·count, inputs]`
    pub observations: Vec<f32>,
    /// `[length·count, actions]`
    pub actions: Vec<f32>,
    /// `[length·count]`
    pub rewards: Vec<f32>,
    /// Sequences.
    pub count: usize,
    /// Slots of each.
    pub length: usize,
}

impl SequenceBuffer {
    /// An empty one for that many environments and about that many slots.
    pub fn new(envs: usize, capacity: usize) -> Self {
        Self { stretches: VecDeque::new(), open: vec![None; envs], forgotten: 0, capacity }
    }

    fn slots(&self) -> usize {
        self.stretches.iter().map(|s| s.rewards.len()).sum()
    }

    /// Remembers a rollout, with its rewards as they are to be learned, and forgets the oldest stretches beyond the
    /// capacity.
    pub fn add(&mut self, experience: &Experience, rewards: &[f32]) {
        let envs = self.open.len().max(1);
        let count = rewards.len().max(1);
        let (inputs, actions) = (experience.features.len() / count, experience.actions.len() / count);
        for (row, reward) in rewards.iter().enumerate() {
            let env = row % envs;
            let index = match self.open[env] {
                Some(index) if index >= self.forgotten => index,
                _ => {
                    let first = experience.features[row * inputs..(row + 1) * inputs].to_vec();
                    self.stretches.push_back(Segment { observations: first, ..Segment::default() });
                    self.forgotten + self.stretches.len() - 1
                }
            };
            let stretch = &mut self.stretches[index - self.forgotten];
            stretch.observations.extend_from_slice(&experience.next_features[row * inputs..(row + 1) * inputs]);
            stretch.actions.extend_from_slice(&experience.actions[row * actions..(row + 1) * actions]);
            stretch.rewards.push(*reward);
            stretch.ended = experience.truncated[row];
            self.open[env] = (!stretch.ended).then_some(index);
        }
        let mut slots = self.slots();
        while let Some(oldest) = self.stretches.front() {
            if slots - oldest.rewards.len() < self.capacity {
                break;
            }
            slots -= oldest.rewards.len();
            self.stretches.pop_front();
            self.forgotten += 1;
        }
    }

    /// Places drawn evenly from all those where so many slots follow; none if there is no such place.
    pub fn places(&self, count: usize, length: usize, rng: &mut Xoshiro256PlusPlus) -> Vec<Place> {
        let fitting = |s: &Segment| (s.rewards.len() + 1).saturating_sub(length);
        let all: usize = self.stretches.iter().map(fitting).sum();
        let count = if all == 0 { 0 } else { count };
        (0..count)
            .filter_map(|_| {
                let mut slot = rng.random_range(0..all);
                self.stretches.iter().enumerate().find_map(|(stretch, lived)| {
                    let here = fitting(lived);
                    if slot < here {
                        return Some(Place { stretch, slot });
                    }
                    slot -= here;
                    None
                })
            })
            .collect()
    }

    /// What was seen when a slot began.
    pub fn observation(&self, place: Place) -> &[f32] {
        let stretch = &self.stretches[place.stretch];
        let inputs = stretch.observations.len() / (stretch.rewards.len() + 1);
        &stretch.observations[place.slot * inputs..(place.slot + 1) * inputs]
    }

    /// What was done in a slot.
    pub fn action(&self, place: Place) -> &[f32] {
        let stretch = &self.stretches[place.stretch];
        let actions = stretch.actions.len() / stretch.rewards.len();
        &stretch.actions[place.slot * actions..(place.slot + 1) * actions]
    }

    /// What a slot gave.
    pub fn reward(&self, place: Place) -> f32 {
        self.stretches[place.stretch].rewards[place.slot]
    }

    /// Appends the last `count` observations when a slot began, the oldest first; before the stretch stands its first one.
    pub fn window(&self, place: Place, count: usize, out: &mut Vec<f32>) {
        for back in (0..count).rev() {
            out.extend_from_slice(self.observation(Place { slot: place.slot.saturating_sub(back), ..place }));
        }
    }

    /// Sequences drawn evenly from all places where one fits; none if there is no such place.
    pub fn draw(&self, count: usize, length: usize, rng: &mut Xoshiro256PlusPlus) -> Option<Sequences> {
        let drawn = self.places(count, length, rng);
        if drawn.is_empty() {
            return None;
        }
        let mut out = Sequences {
            observations: Vec::new(),
            actions: Vec::new(),
            rewards: Vec::new(),
            count: drawn.len(),
            length,
        };
        for slot in 0..=length {
            for start in &drawn {
                let place = start.later(slot);
                out.observations.extend_from_slice(self.observation(place));
                if slot < length {
                    out.actions.extend_from_slice(self.action(place));
                    out.rewards.push(self.reward(place));
                }
            }
        }
        Some(out)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use rand::SeedableRng;

    /// A made-up world: the observation shows the last action, the reward is the product of the last two, and an episode
    /// has ten slots. Goes on where the last call stopped.
    pub struct ToyWorld {
        last: Vec<f32>,
        slot: usize,
    }

    impl ToyWorld {
        pub fn new(envs: usize) -> Self {
            Self { last: vec![0.5; envs], slot: 0 }
        }

        pub fn live(&mut self, slots: usize, rng: &mut Xoshiro256PlusPlus) -> Experience {
            let mut out = Experience::default();
            for _ in 0..slots {
                self.slot += 1;
                let ended = self.slot.is_multiple_of(10);
                for last in &mut self.last {
                    let action: f32 = rng.random();
                    out.features.extend([*last, 1.0]);
                    out.actions.push(action);
                    out.rewards.push(reward(*last, action));
                    out.next_features.extend([action, 1.0]);
                    out.truncated.push(ended);
                    *last = if ended { 0.5 } else { action };
                }
            }
            out
        }
    }

    pub fn reward(last: f32, action: f32) -> f32 {
        4.0 * (action - 0.5) * (last - 0.5)
    }

    #[test]
    fn memory_keeps_episodes_apart_and_forgets_the_oldest() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        let (mut memory, mut made) = (SequenceBuffer::new(2, 40), ToyWorld::new(2));
        for _ in 0..5 {
            let rollout = made.live(15, &mut rng);
            memory.add(&rollout, &rollout.rewards);
            assert!(memory.slots() >= 30 && memory.slots() < 40 + 10, "{}", memory.slots());
            let sequences = memory.draw(50, 4, &mut rng).expect("sequences");
            assert_eq!(sequences.rewards.len(), 50 * 4);
            for row in 0..50 * 4 {
                // Slot by slot, what is seen next is the action, also after five rollouts that cut episodes in two.
                let (seen, next) = (sequences.observations[2 * row], sequences.observations[2 * (row + 50)]);
                assert_eq!(next, sequences.actions[row]);
                assert_eq!(sequences.rewards[row], reward(seen, next));
            }
        }
        assert!(memory.draw(1, 16, &mut rng).is_none());
    }
}
