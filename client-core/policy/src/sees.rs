//! What a network for one number of users is told.

use super::spaces::{self, FEATURES_PER_USER};
use super::world::{self, Outlook, WORLD_FEATURES_PER_USER};
use mec::{Physics, UserObservation};

/// What a network for one number of users sees of a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sees {
    /// The state of (46), each number in a unit of its own; the system itself is not in it.
    #[default]
    Slot,
    /// The same and the system, as the policy for every world sees them: [`world::features`].
    World,
}

impl Sees {
    /// Network inputs a user.
    pub fn features_per_user(self) -> usize {
        match self {
            Self::Slot => FEATURES_PER_USER,
            Self::World => WORLD_FEATURES_PER_USER,
        }
    }

    /// Writes the network's input for one slot, user after user.
    ///
    /// # Panics
    /// If `out` is not as long as that.
    pub fn features(self, physics: &Physics, seen: &[UserObservation], out: &mut [f32]) {
        match self {
            Self::Slot => spaces::features(physics, seen, out),
            Self::World => world::features(physics, &Outlook::new(physics, seen), out),
        }
    }
}
