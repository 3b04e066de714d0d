//! The networks of the recurrent state-space model, (34): what each is and how a slot passes through them. How they learn, and
//! what they are asked, is in [`world_model`](super::world_model).

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::activation::{relu, sigmoid, softplus, tanh};
use burn::tensor::{Device, Tensor};
use rand_distr::{Distribution, StandardNormal};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::nets::{fan_in, matrix};

/// The Gaussians' deviation never falls below this: a divergence between two needles is no signal.
const LEAST_DEVIATION: f64 = 0.1;

/// Two layers: `[·, inputs]` → rectified `[·, hidden]` → `[·, outputs]`.
#[derive(Module, Debug)]
struct TwoLayers {
    hidden: Linear,
    out: Linear,
}

impl TwoLayers {
    fn new(inputs: usize, hidden: usize, outputs: usize, device: &Device, rng: &mut Xoshiro256PlusPlus) -> Self {
        Self { hidden: linear(inputs, hidden, device, rng), out: linear(hidden, outputs, device, rng) }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.out.forward(relu(self.hidden.forward(x)))
    }
}

fn linear(inputs: usize, outputs: usize, device: &Device, rng: &mut Xoshiro256PlusPlus) -> Linear {
    let mut values = fan_in(&[[inputs, outputs]], None, rng);
    let (weight, bias) = values.pop().unwrap_or_default();
    Linear {
        weight: Param::from_tensor(matrix(weight, outputs, device)),
        bias: Some(Param::from_tensor(Tensor::from_floats(bias.as_slice(), device))),
    }
}

/// A diagonal Gaussian, `[batch, stochastic]` each.
#[derive(Clone)]
pub struct Gaussian {
    /// `[batch, stochastic]`
    pub mean: Tensor<2>,
    /// `[batch, stochastic]`
    pub deviation: Tensor<2>,
}

impl Gaussian {
    fn of(outputs: Tensor<2>) -> Self {
        let [batch, width] = outputs.dims();
        let half = width / 2;
        let mean = outputs.clone().slice([0..batch, 0..half]);
        let deviation = softplus(outputs.slice([0..batch, half..width]), 1.0).add_scalar(LEAST_DEVIATION);
        Self { mean, deviation }
    }

    /// A draw from each.
    pub fn sample(&self, rng: &mut Xoshiro256PlusPlus) -> Tensor<2> {
        let [batch, width] = self.mean.dims();
        let noise: Vec<f32> = (0..batch * width).map(|_| StandardNormal.sample(rng)).collect();
        self.mean.clone() + self.deviation.clone() * matrix(noise, width, &self.mean.device())
    }

    /// KL(self ‖ other) of each row, `[batch]`.
    pub fn divergence(&self, other: &Self) -> Tensor<1> {
        let ratio = self.deviation.clone() / other.deviation.clone();
        let shift = (self.mean.clone() - other.mean.clone()) / other.deviation.clone();
        let parts = ratio.clone() * ratio.clone() + shift.clone() * shift - ratio.log().mul_scalar(2.0);
        parts.sub_scalar(1.0).sum_dim(1).squeeze_dim::<1>(1).mul_scalar(0.5)
    }
}

/// What the decoders read off a state.
pub struct Decoded {
    /// ô, `[batch, inputs]`
    pub observation: Tensor<2>,
    /// r̂, `[batch, 1]`
    pub reward: Tensor<2>,
    /// Log-odds that the episode ends, `[batch, 1]`.
    pub end: Tensor<2>,
}

/// Units of the networks.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Of h.
    pub deterministic: usize,
    /// Of z.
    pub stochastic: usize,
    /// Of the hidden layers.
    pub hidden: usize,
}

/// The networks of (34).
#[derive(Module, Debug)]
pub struct Rssm {
    encoder: Linear,
    gru_input: Linear,
    gru_hidden: Linear,
    posterior: TwoLayers,
    prior: TwoLayers,
    decoder: TwoLayers,
}

impl Rssm {
    /// Fresh networks for rows of `inputs` features and `actions` actions.
    pub fn new(sizes: Sizes, inputs: usize, actions: usize, device: &Device, rng: &mut Xoshiro256PlusPlus) -> Self {
        let Sizes { deterministic, stochastic, hidden } = sizes;
        Self {
            encoder: linear(inputs, hidden, device, rng),
            gru_input: linear(stochastic + actions, 3 * deterministic, device, rng),
            gru_hidden: linear(deterministic, 3 * deterministic, device, rng),
            posterior: TwoLayers::new(deterministic + hidden, hidden, 2 * stochastic, device, rng),
            prior: TwoLayers::new(deterministic, hidden, 2 * stochastic, device, rng),
            decoder: TwoLayers::new(deterministic + stochastic, hidden, inputs + 2, device, rng),
        }
    }

    /// f_θ of (34): h, z and a, `[batch, ·]` each → the next h.
    pub fn advance(&self, h: Tensor<2>, z: Tensor<2>, action: Tensor<2>) -> Tensor<2> {
        let [batch, units] = h.dims();
        // Centred like the observations.
        let action = action.mul_scalar(2.0).sub_scalar(1.0);
        let x = self.gru_input.forward(Tensor::cat(vec![z, action], 1)); // [batch, 3·units]
        let y = self.gru_hidden.forward(h.clone());
        let part = |t: &Tensor<2>, from: usize, to: usize| t.clone().slice([0..batch, from * units..to * units]);
        let gates = sigmoid(part(&x, 0, 2) + part(&y, 0, 2));
        let (keep, reset) = (part(&gates, 0, 1), part(&gates, 1, 2));
        let candidate = tanh(part(&x, 2, 3) + reset * part(&y, 2, 3));
        candidate.clone() + keep * (h - candidate)
    }

    /// `[batch, inputs]` → `[batch, hidden]`
    pub fn encode(&self, observation: Tensor<2>) -> Tensor<2> {
        relu(self.encoder.forward(observation))
    }

    /// z after the observation: `[batch, deterministic]`, `[batch, hidden]` → `[batch, stochastic]` each.
    pub fn posterior(&self, h: Tensor<2>, encoded: Tensor<2>) -> Gaussian {
        Gaussian::of(self.posterior.forward(Tensor::cat(vec![h, encoded], 1)))
    }

    /// z before the observation: `[batch, deterministic]` → `[batch, stochastic]` each.
    pub fn prior(&self, h: Tensor<2>) -> Gaussian {
        Gaussian::of(self.prior.forward(h))
    }

    /// `[batch, deterministic]`, `[batch, stochastic]` → what they show.
    pub fn decode(&self, h: Tensor<2>, z: Tensor<2>) -> Decoded {
        let out = self.decoder.forward(Tensor::cat(vec![h, z], 1));
        let [batch, width] = out.dims();
        let inputs = width - 2;
        Decoded {
            observation: out.clone().slice([0..batch, 0..inputs]),
            reward: out.clone().slice([0..batch, inputs..inputs + 1]),
            end: out.slice([0..batch, inputs + 1..width]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nets::{host, rows};

    #[test]
    fn divergence_is_that_of_gaussians() {
        let device = Device::flex();
        let gaussian = |mean: &[f32], deviation: &[f32]| Gaussian {
            mean: rows(mean, 2, &device),
            deviation: rows(deviation, 2, &device),
        };
        let (p, q) = (gaussian(&[0.0, 1.0], &[1.0, 2.0]), gaussian(&[0.5, 1.0], &[2.0, 2.0]));
        // ln(σq/σp) + (σp² + Δ²)/(2σq²) − 1/2, for the first part; the second is the same in both.
        let want = 2.0f32.ln() + (1.0 + 0.25) / 8.0 - 0.5;
        assert!((host(p.divergence(&q))[0] - want).abs() < 1e-6);
        assert!(host(p.divergence(&p))[0].abs() < 1e-6);
    }
}
