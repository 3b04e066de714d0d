//! The network: two hidden layers and, for each action of each user, the two parameters of a Beta distribution.
//!
//! A Beta distribution lives on [0, 1] like the actions do, so exploring never piles up probability at the edges as a
//! clipped Gaussian does. The deployed action is its mean.

use burn::module::{Module, Param};
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::activation::{relu, softplus, tanh};
use burn::tensor::{Device, Tensor, TensorData};

use super::spaces::{ACTIONS_PER_USER, FEATURES_PER_USER};

/// The nonlinearity between layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// Hyperbolic tangent.
    #[default]
    Tanh,
    /// Rectifier.
    Relu,
}

impl Activation {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Tanh, Self::Relu];

    /// The name used in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tanh => "tanh",
            Self::Relu => "relu",
        }
    }

    /// Applies it, element by element.
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Tanh => tanh(x),
            Self::Relu => relu(x),
        }
    }
}

/// Sizes of an [`Actor`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActorConfig {
    /// Users K.
    pub users: usize,
    /// Units of each hidden layer.
    pub hidden: Vec<usize>,
    /// Nonlinearity.
    pub activation: Activation,
}

impl ActorConfig {
    /// The paper's 2×256 for K users.
    pub fn new(users: usize) -> Self {
        Self { users, hidden: vec![256, 256], activation: Activation::Tanh }
    }

    /// Network inputs.
    pub fn inputs(&self) -> usize {
        self.users * FEATURES_PER_USER
    }

    /// Actions, half of the network's outputs.
    pub fn actions(&self) -> usize {
        self.users * ACTIONS_PER_USER
    }

    /// Inputs and outputs of each layer, the head last: the shapes of the weights.
    pub fn layers(&self) -> Vec<[usize; 2]> {
        let mut sizes = vec![self.inputs()];
        sizes.extend(&self.hidden);
        sizes.push(2 * self.actions());
        sizes.windows(2).map(|pair| [pair[0], pair[1]]).collect()
    }

    /// A fresh network: orthogonal weights (gain √2, the head 0.01, so that the first policy is the same everywhere),
    /// zero biases.
    pub fn init(&self, device: &Device) -> Actor {
        let shapes = self.layers();
        let last = shapes.len() - 1;
        let layer = |(i, [inputs, outputs]): (usize, &[usize; 2])| {
            let gain = if i == last { 0.01 } else { std::f64::consts::SQRT_2 };
            let config = LinearConfig::new(*inputs, *outputs).with_initializer(Initializer::Orthogonal { gain });
            let mut linear = config.init(device);
            linear.bias = Some(Param::from_tensor(Tensor::zeros([*outputs], device)));
            linear
        };
        Actor { layers: shapes.iter().enumerate().map(layer).collect(), activation: self.activation.name().to_owned() }
    }
}

/// The policy network.
#[derive(Module, Debug)]
pub struct Actor {
    /// Hidden layers and the head.
    pub layers: Vec<Linear>,
    #[module(skip)]
    activation: String,
}

/// Parameters of the actions' Beta distributions, both over 1 (unimodal) and of shape `[batch, actions]`.
#[derive(Clone, Debug)]
pub struct BetaParameters {
    /// First parameter: grows with actions near 1.
    pub a: Tensor<2>,
    /// Second parameter: grows with actions near 0.
    pub b: Tensor<2>,
}

impl BetaParameters {
    /// The mean action, `[batch, actions]`: what a deployed policy does.
    pub fn mean(self) -> Tensor<2> {
        let sum = self.a.clone() + self.b;
        self.a / sum
    }
}

impl Actor {
    /// Builds the network from `(weight, bias)` of each layer, weights in row-major order `[inputs, outputs]`.
    pub fn from_values(config: &ActorConfig, values: Vec<(Vec<f32>, Vec<f32>)>, device: &Device) -> Self {
        let layers = config.layers().into_iter().zip(values).map(|([inputs, outputs], (weight, bias))| Linear {
            weight: Param::from_data(TensorData::new(weight, [inputs, outputs]), device),
            bias: Some(Param::from_data(TensorData::new(bias, [outputs]), device)),
        });
        Self { layers: layers.collect(), activation: config.activation.name().to_owned() }
    }

    /// `[batch, inputs]` → the actions' distributions.
    pub fn forward(&self, features: Tensor<2>) -> BetaParameters {
        let activation = Activation::ALL.into_iter().find(|a| a.name() == self.activation).unwrap_or_default();
        let last = self.layers.len().saturating_sub(1);
        let mut x = features;
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x); // [batch, units]
            if i < last {
                x = activation.forward(x);
            }
        }
        let [batch, outputs] = x.dims();
        let actions = outputs / 2;
        let shape = softplus(x, 1.0).add_scalar(1.0);
        BetaParameters { a: shape.clone().slice([0..batch, 0..actions]), b: shape.slice([0..batch, actions..outputs]) }
    }
}
