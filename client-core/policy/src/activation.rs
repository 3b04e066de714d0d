//! What is applied to networks' numbers one by one.

use burn::tensor::Tensor;
use burn::tensor::activation::{relu, tanh};

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
    /// Applies it, element by element.
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Tanh => tanh(x),
            Self::Relu => relu(x),
        }
    }
}

/// Unbounded numbers into [0, 1].
pub fn squash(x: Tensor<2>) -> Tensor<2> {
    tanh(x).add_scalar(1.0).mul_scalar(0.5)
}
