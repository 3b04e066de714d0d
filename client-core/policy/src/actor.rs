//! The network: hidden layers and a head that gives, for each action of each user, what its [`Head`] needs.
//!
//! Policy-gradient learners take Beta distributions: these live on [0, 1] like the actions do, so exploring never piles up
//! probability at the edges as a clipped Gaussian does. TD3 and DDPG learn the action itself, SAC a squashed Gaussian. All
//! three deploy without sampling, through [`Actor::action`].

use burn::module::{Module, Param};
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::activation::softplus;
use burn::tensor::{Device, Tensor, TensorData};

use super::activation::{Activation, squash};
use super::sees::Sees;
use super::spaces::ACTIONS_PER_USER;

/// What the outputs of the last layer mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Head {
    /// Both parameters of a Beta distribution, 1 + softplus each; the deployed action is its mean.
    #[default]
    Beta,
    /// The action x itself, squashed to (1 + tanh x)/2.
    Deterministic,
    /// Mean μ and ln σ of a Gaussian whose draws x become (1 + tanh x)/2; the deployed action is the one of μ.
    SquashedGaussian,
}

impl Head {
    /// Outputs an action.
    pub fn outputs(self) -> usize {
        match self {
            Self::Deterministic => 1,
            Self::Beta | Self::SquashedGaussian => 2,
        }
    }
}

/// Sizes of an [`Actor`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActorConfig {
    /// Users K.
    pub users: usize,
    /// What it sees.
    pub sees: Sees,
    /// Units of each hidden layer.
    pub hidden: Vec<usize>,
    /// Nonlinearity.
    pub activation: Activation,
    /// Meaning of the outputs.
    pub head: Head,
}

impl ActorConfig {
    /// The paper's 2×256 for K users, with Beta distributions.
    pub fn new(users: usize) -> Self {
        let (sees, hidden) = (Sees::Slot, vec![256, 256]);
        Self { users, sees, hidden, activation: Activation::Tanh, head: Head::Beta }
    }

    /// Network inputs.
    pub fn inputs(&self) -> usize {
        self.users * self.sees.features_per_user()
    }

    /// Actions; the network has [`Head::outputs`] outputs for each.
    pub fn actions(&self) -> usize {
        self.users * ACTIONS_PER_USER
    }

    /// Inputs and outputs of each layer, the head last: the shapes of the weights.
    pub fn layers(&self) -> Vec<[usize; 2]> {
        let mut sizes = vec![self.inputs()];
        sizes.extend(&self.hidden);
        sizes.push(self.head.outputs() * self.actions());
        sizes.windows(2).map(|pair| [pair[0], pair[1]]).collect()
    }

    fn actor(&self, layers: Vec<Linear>) -> Actor {
        Actor { layers, activation: self.activation, head: self.head }
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
        self.actor(shapes.iter().enumerate().map(layer).collect())
    }
}

/// The policy network.
#[derive(Module, Debug)]
pub struct Actor {
    /// Hidden layers and the head.
    pub layers: Vec<Linear>,
    #[module(skip)]
    activation: Activation,
    #[module(skip)]
    head: Head,
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

fn halves(x: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
    let [batch, outputs] = x.dims();
    let half = outputs / 2;
    (x.clone().slice([0..batch, 0..half]), x.slice([0..batch, half..outputs]))
}

impl Actor {
    /// Builds the network from `(weight, bias)` of each layer, weights in row-major order `[inputs, outputs]`.
    pub fn from_values(config: &ActorConfig, values: Vec<(Vec<f32>, Vec<f32>)>, device: &Device) -> Self {
        let layers = config.layers().into_iter().zip(values).map(|([inputs, outputs], (weight, bias))| Linear {
            weight: Param::from_data(TensorData::new(weight, [inputs, outputs]), device),
            bias: Some(Param::from_data(TensorData::new(bias, [outputs]), device)),
        });
        config.actor(layers.collect())
    }

    /// `[batch, inputs]` → `[batch, outputs]`, what the last layer gives.
    pub fn outputs(&self, features: Tensor<2>) -> Tensor<2> {
        let last = self.layers.len().saturating_sub(1);
        let mut x = features;
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x); // [batch, units]
            if i < last {
                x = self.activation.forward(x);
            }
        }
        x
    }

    /// `[batch, inputs]` → the actions' distributions, for a [`Head::Beta`].
    pub fn forward(&self, features: Tensor<2>) -> BetaParameters {
        let (a, b) = halves(softplus(self.outputs(features), 1.0).add_scalar(1.0));
        BetaParameters { a, b }
    }

    /// `[batch, inputs]` → mean and ln σ of the Gaussians before squashing, for a [`Head::SquashedGaussian`].
    pub fn gaussian(&self, features: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        halves(self.outputs(features))
    }

    /// `[batch, inputs]` → the action that a deployed policy takes, `[batch, actions]` in [0, 1], whatever the head.
    pub fn action(&self, features: Tensor<2>) -> Tensor<2> {
        match self.head {
            Head::Beta => self.forward(features).mean(),
            Head::Deterministic => squash(self.outputs(features)),
            Head::SquashedGaussian => squash(self.gaussian(features).0),
        }
    }
}
