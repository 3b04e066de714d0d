//! One network for any number of users: what it gives a user depends on that user and on the others as a set, not on their
//! order or number, so users can join and leave under way.
//!
//! Every user goes through the same encoder; mean and maximum of the codes over the cell's users are what a user learns of
//! the others; and the same head decides for each user from its own code and those two (Zaheer et al. 2017, "Deep sets",
//! section 3.1). About 21,000 parameters for up to [`SetConfig::most_users`] users.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor, TensorData};

use super::activation::{Activation, squash};
use super::spaces::{self, ACTIONS_PER_USER, FEATURES_PER_USER};
use mec::UserObservation;
use mec::params::{Physics, ratio_to_db};

/// Network inputs a user: the [`FEATURES_PER_USER`] of the other policies, the gain over the smallest one in the cell (of
/// which equal received power is made), and the number of users.
pub const SET_FEATURES_PER_USER: usize = FEATURES_PER_USER + 2;

/// Gains over the smallest one, in dB: centre and width over the default cell.
const RELATIVE_GAIN_DB: (f64, f64) = (5.0, 5.0);
/// The number of users enters as its logarithm; centre and width over 1 to 10.
const LN_USERS: (f64, f64) = (1.5, 0.75);

/// Sizes of a [`SetActor`].
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SetConfig {
    /// Largest number of users; it decides for any from 1 on.
    pub most_users: usize,
    /// Units of the encoder's layers, each with the activation behind it.
    pub encoder: Vec<usize>,
    /// Units of the head's hidden layers.
    pub head: Vec<usize>,
    /// Nonlinearity.
    pub activation: Activation,
}

impl SetConfig {
    /// Inputs and outputs of each layer of the encoder.
    pub fn encoder_layers(&self) -> Vec<[usize; 2]> {
        layers(SET_FEATURES_PER_USER, &self.encoder, None)
    }

    /// Inputs and outputs of each layer of the head, whose inputs are a user's code, the mean and the maximum of all codes.
    pub fn head_layers(&self) -> Vec<[usize; 2]> {
        let code = self.encoder.last().copied().unwrap_or(SET_FEATURES_PER_USER);
        layers(3 * code, &self.head, Some(ACTIONS_PER_USER))
    }
}

/// Inputs and outputs of each of a row of layers.
pub fn layers(inputs: usize, hidden: &[usize], outputs: Option<usize>) -> Vec<[usize; 2]> {
    let sizes: Vec<usize> = std::iter::once(inputs).chain(hidden.iter().copied()).chain(outputs).collect();
    sizes.windows(2).map(|pair| [pair[0], pair[1]]).collect()
}

/// The policy network for any number of users.
#[derive(Module, Debug)]
pub struct SetActor {
    /// From a user's features to its code.
    pub encoder: Vec<Linear>,
    /// From a user's code and what was pooled to its actions.
    pub head: Vec<Linear>,
    #[module(skip)]
    activation: Activation,
}

/// `(weight, bias)` of a layer, the weight in row-major order `[inputs, outputs]`.
pub type LayerValues = (Vec<f32>, Vec<f32>);

fn linears(shapes: Vec<[usize; 2]>, values: Vec<LayerValues>, device: &Device) -> Vec<Linear> {
    let layers = shapes.into_iter().zip(values).map(|([inputs, outputs], (weight, bias))| Linear {
        weight: Param::from_data(TensorData::new(weight, [inputs, outputs]), device),
        bias: Some(Param::from_data(TensorData::new(bias, [outputs]), device)),
    });
    layers.collect()
}

impl SetActor {
    /// Builds the network from its layers' values.
    pub fn from_values(config: &SetConfig, encoder: Vec<LayerValues>, head: Vec<LayerValues>, device: &Device) -> Self {
        let shapes = [config.encoder_layers(), config.head_layers()];
        Self::from_layers(shapes, config.activation, [encoder, head], device)
    }

    /// Builds a network of other inputs and outputs from the shapes `[inputs, outputs]` and values of encoder and head.
    pub fn from_layers(
        [encoder_shapes, head_shapes]: [Vec<[usize; 2]>; 2],
        activation: Activation,
        [encoder, head]: [Vec<LayerValues>; 2],
        device: &Device,
    ) -> Self {
        let (encoder, head) = (linears(encoder_shapes, encoder, device), linears(head_shapes, head, device));
        Self { encoder, head, activation }
    }

    /// Outputs in [0, 1] of slots that all have `users` users: `[slots · users, inputs]`, user after user,
    /// → `[slots · users, outputs]`. A [`SetConfig`]'s outputs are the users' actions.
    pub fn action(&self, features: Tensor<2>, users: usize) -> Tensor<2> {
        let mut code = features;
        for layer in &self.encoder {
            code = self.activation.forward(layer.forward(code)); // [slots·users, code]
        }
        let [rows, width] = code.dims();
        let slots = rows / users.max(1);
        let by_slot = code.clone().reshape([slots, users, width]);
        let spread = |pooled: Tensor<3>| pooled.expand([slots, users, width]).reshape([rows, width]);
        let (mean, most) = (spread(by_slot.clone().mean_dim(1)), spread(by_slot.max_dim(1)));
        let mut x = Tensor::cat(vec![code, mean, most], 1); // [slots·users, 3·code]
        let last = self.head.len().saturating_sub(1);
        for (i, layer) in self.head.iter().enumerate() {
            x = layer.forward(x);
            if i < last {
                x = self.activation.forward(x);
            }
        }
        squash(x)
    }
}

/// Writes the network's input for one slot, [`SET_FEATURES_PER_USER`] numbers a user, user after user.
///
/// # Panics
/// If `out` is not `seen.len() · SET_FEATURES_PER_USER` long.
pub fn features(physics: &Physics, seen: &[UserObservation], out: &mut [f32]) {
    assert_eq!(out.len(), seen.len() * SET_FEATURES_PER_USER, "{SET_FEATURES_PER_USER} features a user");
    let least = seen.iter().map(|user| user.gain).fold(f64::INFINITY, f64::min);
    let count = spaces::feature((seen.len() as f64).ln(), LN_USERS);
    for (user, out) in seen.iter().zip(out.chunks_exact_mut(SET_FEATURES_PER_USER)) {
        let (own, of_cell) = out.split_at_mut(FEATURES_PER_USER);
        spaces::features(physics, std::slice::from_ref(user), own);
        of_cell[0] = spaces::feature(ratio_to_db(user.gain / least), RELATIVE_GAIN_DB);
        of_cell[1] = count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mec::{MecParams, World};

    #[test]
    fn features_of_the_cell_are_about_one_for_any_number_of_users() {
        for users in 1..=10 {
            for seed in 0..20 {
                let world = World::new(MecParams::with_users(users), seed);
                let mut out = vec![0.0; users * SET_FEATURES_PER_USER];
                features(world.physics(), &world.observation(), &mut out);
                let relative: Vec<f32> = out.chunks(SET_FEATURES_PER_USER).map(|user| user[7]).collect();
                let count = out[8];
                assert!(relative.iter().all(|db| (-1.0..4.0).contains(db)) && relative.contains(&-1.0), "{relative:?}");
                assert!((-2.01..1.1).contains(&count), "{count}");
                assert!(out.chunks(SET_FEATURES_PER_USER).all(|user| user[8] == count));
            }
        }
    }
}
