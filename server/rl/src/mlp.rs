//! A multilayer perceptron with its gradient and its optimiser written out.
//!
//! Actor and critic of the on-policy algorithms take tens of thousands of gradient steps on minibatches of 64 rows. At that
//! size an autodiff graph and an optimiser that is a dozen tensor operations a parameter cost more than the matrix products,
//! so products are burn's and everything between them is one pass over a slice: bias and activation, their derivative, and
//! Adam. A finished actor becomes the burn module that page and server run by [`Mlp::actor`].

use burn::tensor::{Device, Tensor};
use policy::{Activation, Actor, ActorConfig};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

use super::nets::{host, matrix};

/// Adam's decay rates of the first and the second moment, and the ε that cleanrl takes for PPO.
const ADAM: (f32, f32, f32) = (0.9, 0.999, 1e-5);

/// tanh to 2e-7, in a form that compilers turn into vector code: the library's is ten times as slow.
pub fn tanh(x: f32) -> f32 {
    // tanh x = 1 − 2/(e^{2x} + 1); beyond ±9 it is ±1 in f32. e^y = 2^k·e^r with |r| ≤ ln 2 / 2 and Taylor's series.
    let y = 2.0 * x.clamp(-9.0, 9.0);
    // Adding 1.5·2²³ rounds to an integer and leaves it in the low bits.
    let shifted = y * std::f32::consts::LOG2_E + 12_582_912.0;
    let k = shifted - 12_582_912.0;
    let r = y - k * 0.693_145_75 - k * 1.428_606_8e-6;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    let series = 1.0
        + r * (1.0
            + r * (0.5
                + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0)))))));
    1.0 - 2.0 / (power * series + 1.0)
}

/// Adds the bias to every row and applies the activation.
fn activate(values: &mut [f32], bias: &[f32], activation: Option<Activation>) {
    for row in values.chunks_exact_mut(bias.len()) {
        match activation {
            None => row.iter_mut().zip(bias).for_each(|(y, b)| *y += b),
            Some(Activation::Tanh) => row.iter_mut().zip(bias).for_each(|(y, b)| *y = tanh(*y + b)),
            Some(Activation::Relu) => row.iter_mut().zip(bias).for_each(|(y, b)| *y = (*y + b).max(0.0)),
        }
    }
}

/// Activations of slices, and their derivatives.
pub trait Elementwise {
    /// Applies it in place.
    fn apply(self, values: &mut [f32]);

    /// Turns a loss's derivatives by the activation's outputs into those by its inputs.
    fn backward(self, derivatives: &mut [f32], outputs: &[f32]);
}

impl Elementwise for Activation {
    fn apply(self, values: &mut [f32]) {
        match self {
            Self::Tanh => values.iter_mut().for_each(|y| *y = tanh(*y)),
            Self::Relu => values.iter_mut().for_each(|y| *y = y.max(0.0)),
        }
    }

    fn backward(self, derivatives: &mut [f32], outputs: &[f32]) {
        let pairs = derivatives.iter_mut().zip(outputs);
        match self {
            Self::Tanh => pairs.for_each(|(d, y)| *d *= 1.0 - y * y),
            Self::Relu => pairs.for_each(|(d, y)| *d = if *y > 0.0 { *d } else { 0.0 }),
        }
    }
}

/// A `[rows, columns]` matrix with orthonormal rows or columns (whichever are fewer) times `gain`, row after row.
pub fn orthogonal(rows: usize, columns: usize, gain: f32, rng: &mut impl Rng) -> Vec<f32> {
    let (few, many) = (rows.min(columns), rows.max(columns));
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(few);
    while basis.len() < few {
        let mut fresh: Vec<f64> = (0..many).map(|_| StandardNormal.sample(rng)).collect();
        // Twice, so that rounding leaves nothing of the earlier ones.
        for _ in 0..2 {
            for old in &basis {
                let share: f64 = old.iter().zip(&fresh).map(|(a, b)| a * b).sum();
                fresh.iter_mut().zip(old).for_each(|(f, o)| *f -= share * o);
            }
        }
        let norm = fresh.iter().map(|f| f * f).sum::<f64>().sqrt();
        if norm > 1e-6 {
            basis.push(fresh.into_iter().map(|f| f / norm).collect());
        }
    }
    let entry = |r: usize, c: usize| if rows <= columns { basis[r][c] } else { basis[c][r] };
    (0..rows * columns).map(|i| gain * entry(i / columns, i % columns) as f32).collect()
}

/// Running means of a parameter's gradient and of its square.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Moments {
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Moments {
    fn new(count: usize) -> Self {
        Self { first: vec![0.0; count], second: vec![0.0; count] }
    }

    /// One step of Adam on `values`. `scale` multiplies the gradient; `corrections` are 1 − β^t of both moments.
    fn descend(&mut self, values: &mut [f32], gradient: &[f32], scale: f32, rate: f32, corrections: (f32, f32)) {
        let (beta_1, beta_2, epsilon) = ADAM;
        let (rate, second_scale) = (rate / corrections.0, 1.0 / corrections.1);
        let moments = self.first.iter_mut().zip(self.second.iter_mut());
        for ((value, gradient), (first, second)) in values.iter_mut().zip(gradient).zip(moments) {
            let g = gradient * scale;
            *first = beta_1 * *first + (1.0 - beta_1) * g;
            *second = beta_2 * *second + (1.0 - beta_2) * g * g;
            *value -= rate * *first / ((*second * second_scale).sqrt() + epsilon);
        }
    }
}

#[derive(Clone, Debug)]
struct Layer {
    /// `[inputs, outputs]`
    weight: Tensor<2>,
    /// `[outputs]`
    bias: Vec<f32>,
    weight_moments: Moments,
    bias_moments: Moments,
}

/// The network and its optimiser.
#[derive(Clone, Debug)]
pub struct Mlp {
    layers: Vec<Layer>,
    activation: Activation,
    steps: i32,
    device: Device,
}

/// Everything that an [`Mlp`] is, for a checkpoint: weights, biases and both moments of each, layer after layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MlpState {
    layers: Vec<(Vec<f32>, Vec<f32>, Moments, Moments)>,
    steps: i32,
}

/// What a forward pass has to remember for the backward one: the input of each layer, `[batch, inputs]`.
pub struct Tape(Vec<Tensor<2>>);

/// Gradients of a loss, weight and bias of each layer.
pub struct Gradients(Vec<(Vec<f32>, Vec<f32>)>);

impl Gradients {
    /// Euclidean norm over all parameters.
    pub fn norm(&self) -> f32 {
        let square = |values: &[f32]| values.iter().map(|g| g * g).sum::<f32>();
        self.0.iter().map(|(weight, bias)| square(weight) + square(bias)).sum::<f32>().sqrt()
    }

    /// Sum of all parameters' absolute values.
    #[cfg(test)]
    pub fn absolute_sum(&self) -> f64 {
        self.0.iter().flat_map(|(weight, bias)| weight.iter().chain(bias)).map(|g| f64::from(g.abs())).sum()
    }
}

impl Mlp {
    /// A network of the layers `[inputs, outputs]`, the last one linear: orthogonal weights with gain √2, the last one's
    /// with `head_gain`, and no biases.
    pub fn new(shapes: &[[usize; 2]], activation: Activation, head_gain: f32, rng: &mut impl Rng) -> Self {
        let device = Device::flex();
        let layer = |(i, [inputs, outputs]): (usize, &[usize; 2])| {
            let gain = if i + 1 == shapes.len() { head_gain } else { std::f32::consts::SQRT_2 };
            Layer {
                weight: matrix(orthogonal(*inputs, *outputs, gain, rng), *outputs, &device),
                bias: vec![0.0; *outputs],
                weight_moments: Moments::new(inputs * outputs),
                bias_moments: Moments::new(*outputs),
            }
        };
        let layers = shapes.iter().enumerate().map(layer).collect();
        Self { layers, activation, steps: 0, device }
    }

    /// `[batch, inputs]` → `[batch, outputs]`, row after row.
    pub fn forward(&self, input: Tensor<2>) -> Vec<f32> {
        self.run(input, |_| ())
    }

    /// [`Mlp::forward`] with what [`Mlp::backward`] needs.
    pub fn forward_taped(&self, input: Tensor<2>) -> (Vec<f32>, Tape) {
        let mut inputs = Vec::with_capacity(self.layers.len());
        let output = self.run(input, |x| inputs.push(x.clone()));
        (output, Tape(inputs))
    }

    fn run(&self, input: Tensor<2>, mut before_layer: impl FnMut(&Tensor<2>)) -> Vec<f32> {
        let mut x = input;
        for (i, layer) in self.layers.iter().enumerate() {
            before_layer(&x);
            let mut y = host(x.matmul(layer.weight.clone())); // [batch, outputs]
            let last = i + 1 == self.layers.len();
            activate(&mut y, &layer.bias, (!last).then_some(self.activation));
            if last {
                return y;
            }
            x = matrix(y, layer.bias.len(), &self.device);
        }
        host(x)
    }

    /// The gradient of a loss whose derivative by the outputs is `by_output`, `[batch, outputs]` row after row.
    pub fn backward(&self, tape: Tape, by_output: Vec<f32>) -> Gradients {
        self.walk_back(tape, by_output, true, false).0
    }

    /// [`Mlp::backward`], and the loss's derivative by the inputs, `[batch, inputs]` row after row.
    pub fn backward_through(&self, tape: Tape, by_output: Vec<f32>) -> (Gradients, Vec<f32>) {
        self.walk_back(tape, by_output, true, true)
    }

    /// A loss's derivative by the inputs alone, `[batch, inputs]` row after row, from the one by the outputs.
    pub fn by_input(&self, tape: Tape, by_output: Vec<f32>) -> Vec<f32> {
        self.walk_back(tape, by_output, false, true).1
    }

    fn walk_back(
        &self,
        tape: Tape,
        by_output: Vec<f32>,
        wants_weights: bool,
        wants_input: bool,
    ) -> (Gradients, Vec<f32>) {
        let Tape(mut inputs) = tape;
        let mut gradients = Vec::with_capacity(self.layers.len());
        let mut by_output = by_output;
        for (i, layer) in self.layers.iter().enumerate().rev() {
            let Some(input) = inputs.pop() else { break };
            let outputs = layer.bias.len();
            let mut by_bias = vec![0.0; outputs];
            if wants_weights {
                for row in by_output.chunks_exact(outputs) {
                    by_bias.iter_mut().zip(row).for_each(|(sum, d)| *sum += d);
                }
            }
            let d = matrix(by_output, outputs, &self.device); // [batch, outputs]
            if wants_weights {
                let by_weight = host(input.clone().transpose().matmul(d.clone())); // [inputs, outputs]
                gradients.push((by_weight, by_bias));
            }
            by_output = Vec::new();
            if i > 0 || wants_input {
                by_output = host(d.matmul(layer.weight.clone().transpose())); // [batch, inputs]
            }
            if i > 0 {
                // The input is the output of the layer before; the derivative of its activation follows from its value.
                self.activation.backward(&mut by_output, &host(input));
            }
        }
        gradients.reverse();
        (Gradients(gradients), by_output)
    }

    /// One step of Adam against the gradient, which is scaled down to a norm of at most `max_norm`. Returns whether the
    /// gradient was finite; if not, nothing is changed.
    #[must_use]
    pub fn descend(&mut self, gradients: &Gradients, rate: f64, max_norm: f32) -> bool {
        let norm = gradients.norm();
        if !norm.is_finite() {
            return false;
        }
        let scale = (max_norm / (norm + 1e-6)).min(1.0);
        self.steps = self.steps.saturating_add(1);
        let corrections = (1.0 - ADAM.0.powi(self.steps), 1.0 - ADAM.1.powi(self.steps));
        for (layer, (by_weight, by_bias)) in self.layers.iter_mut().zip(&gradients.0) {
            let outputs = layer.bias.len();
            // Taken out, so that the values are changed in place instead of in a copy.
            let mut weight = host(std::mem::replace(&mut layer.weight, Tensor::zeros([1, 1], &self.device)));
            layer.weight_moments.descend(&mut weight, by_weight, scale, rate as f32, corrections);
            layer.weight = matrix(weight, outputs, &self.device);
            layer.bias_moments.descend(&mut layer.bias, by_bias, scale, rate as f32, corrections);
        }
        true
    }

    /// The network as the policy that page and server run.
    pub fn actor(&self, config: &ActorConfig) -> Actor {
        Actor::from_values(config, self.values(), &self.device)
    }

    /// `(weight, bias)` of each layer, the weight in row-major order `[inputs, outputs]`.
    pub fn values(&self) -> Vec<(Vec<f32>, Vec<f32>)> {
        self.layers.iter().map(|layer| (host(layer.weight.clone()), layer.bias.clone())).collect()
    }

    /// Takes weights over, as of a network that has taken no step yet.
    ///
    /// # Errors
    /// When they are of a network of another shape, in words.
    pub fn begin_with(&mut self, values: Vec<(Vec<f32>, Vec<f32>)>) -> Result<(), String> {
        let layers = values.into_iter().map(|(weight, bias)| {
            let moments = (Moments::new(weight.len()), Moments::new(bias.len()));
            (weight, bias, moments.0, moments.1)
        });
        self.restore(MlpState { layers: layers.collect(), steps: 0 })
    }

    /// A copy for a checkpoint.
    pub fn state(&self) -> MlpState {
        let layer = |layer: &Layer| {
            (host(layer.weight.clone()), layer.bias.clone(), layer.weight_moments.clone(), layer.bias_moments.clone())
        };
        MlpState { layers: self.layers.iter().map(layer).collect(), steps: self.steps }
    }

    /// Takes a checkpoint over.
    ///
    /// # Errors
    /// When it is of a network of another shape, in words.
    pub fn restore(&mut self, state: MlpState) -> Result<(), String> {
        let found = state.layers.len();
        if found != self.layers.len() {
            return Err(format!("a network of {found} layers instead of {}", self.layers.len()));
        }
        for (i, (layer, (weight, bias, weight_moments, bias_moments))) in
            self.layers.iter_mut().zip(state.layers).enumerate()
        {
            let (outputs, count) = (layer.bias.len(), layer.weight.dims().iter().product::<usize>());
            let fits = |values: &[f32], moments: &Moments, count: usize| {
                values.len() == count && moments.first.len() == count && moments.second.len() == count
            };
            if !fits(&weight, &weight_moments, count) || !fits(&bias, &bias_moments, outputs) {
                return Err(format!("layer {i} has {} weights instead of {count}", weight.len()));
            }
            layer.weight = matrix(weight, outputs, &self.device);
            (layer.bias, layer.weight_moments, layer.bias_moments) = (bias, weight_moments, bias_moments);
        }
        self.steps = state.steps;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_xoshiro::Xoshiro256PlusPlus;

    fn normal(count: usize, rng: &mut Xoshiro256PlusPlus) -> Vec<f32> {
        (0..count).map(|_| StandardNormal.sample(rng)).collect()
    }

    #[test]
    fn tanh_is_the_librarys() {
        for i in -12_000..=12_000 {
            let x = i as f32 * 1e-3;
            assert!((tanh(x) - x.tanh()).abs() < 3e-7, "{x}: {} {}", tanh(x), x.tanh());
        }
        assert!(tanh(f32::NAN).is_nan());
        assert!(tanh(f32::INFINITY) > 1.0 - 1e-6 && tanh(f32::NEG_INFINITY) < -1.0 + 1e-6);
    }

    #[test]
    fn orthogonal_matrices_keep_lengths() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(3);
        for (r, c) in [(3, 7), (7, 3), (5, 5)] {
            let m = orthogonal(r, c, 2.0, &mut rng);
            // The Gram matrix of the fewer ones is 4 times the identity.
            let few = r.min(c);
            for i in 0..few {
                for j in 0..few {
                    let at = |k: usize, n: usize| if r <= c { m[k * c + n] } else { m[n * c + k] };
                    let dot: f32 = (0..r.max(c)).map(|n| at(i, n) * at(j, n)).sum();
                    assert!((dot - if i == j { 4.0 } else { 0.0 }).abs() < 1e-5, "{r}×{c}: {i} {j} {dot}");
                }
            }
        }
    }

    #[test]
    fn forward_is_the_actors_and_the_gradient_is_the_difference_quotient() {
        for activation in [Activation::Tanh, Activation::Relu] {
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(5);
            let config = ActorConfig { hidden: vec![6, 5], activation, ..ActorConfig::new(1) };
            let mut net = Mlp::new(&config.layers(), activation, 1.0, &mut rng);
            for layer in &mut net.layers {
                layer.bias = normal(layer.bias.len(), &mut rng);
            }
            let device = net.device.clone();
            let x = matrix(normal(4 * config.inputs(), &mut rng), config.inputs(), &device);
            let (output, tape) = net.forward_taped(x.clone());
            // The actor's parameters are softplus of the outputs, plus 1.
            let parameters = net.actor(&config).forward(x.clone());
            let (a, b) = (host(parameters.a), host(parameters.b));
            for (row, out) in output.chunks(4).enumerate() {
                let shape: Vec<f32> = out.iter().map(|raw| raw.exp().ln_1p() + 1.0).collect();
                let want = [a[2 * row], a[2 * row + 1], b[2 * row], b[2 * row + 1]];
                assert!(shape.iter().zip(want).all(|(s, w)| (s - w).abs() < 1e-5), "{shape:?} {want:?}");
            }
            // Loss: outputs times fixed coefficients.
            let c = normal(output.len(), &mut rng);
            let loss = |net: &Mlp| -> f64 {
                net.forward(x.clone()).iter().zip(&c).map(|(y, c)| f64::from(*y) * f64::from(*c)).sum()
            };
            let gradients = net.backward(tape, c.clone());
            let step = 1e-2;
            for (l, (by_weight, by_bias)) in gradients.0.iter().enumerate() {
                for (i, want) in by_weight.iter().chain(by_bias).enumerate() {
                    let moved = |by: f32| {
                        let mut net = net.clone();
                        let layer = &mut net.layers[l];
                        let (count, outputs) = (by_weight.len(), layer.bias.len());
                        if i < count {
                            let mut weight = host(layer.weight.clone());
                            weight[i] += by;
                            layer.weight = matrix(weight, outputs, &device);
                        } else {
                            layer.bias[i - count] += by;
                        }
                        loss(&net)
                    };
                    let got = (moved(step) - moved(-step)) / f64::from(2.0 * step);
                    // A rectifier's kink may lie within the step.
                    let slack = if activation == Activation::Relu { 0.15 } else { 5e-3 };
                    assert!(
                        (got - f64::from(*want)).abs() < slack * (1.0 + f64::from(want.abs())),
                        "{l} {i} {got} {want}"
                    );
                }
            }
        }
    }

    #[test]
    fn adam_descends_by_the_rate_and_a_restored_network_goes_on_alike() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(7);
        let mut net = Mlp::new(&[[3, 4], [4, 1]], Activation::Tanh, 1.0, &mut rng);
        let x = || matrix((0..6).map(|i| i as f32 * 0.3 - 0.7).collect(), 3, &Device::flex());
        let step = |net: &mut Mlp| {
            let (y, tape) = net.forward_taped(x());
            let gradients = net.backward(tape, y.iter().map(|y| y - 1.0).collect());
            assert!(net.descend(&gradients, 1e-2, 0.5));
            y
        };
        let before = net.state();
        step(&mut net);
        // Adam's first step is the rate in every coordinate whose gradient is not tiny.
        let moved = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let moved = moved(&net.state().layers[1].0, &before.layers[1].0);
        assert!((moved - 1e-2).abs() < 1e-4, "{moved}");
        let mut other = Mlp::new(&[[3, 4], [4, 1]], Activation::Tanh, 1.0, &mut rng);
        other.restore(net.state()).expect("same shape");
        for _ in 0..200 {
            assert_eq!(step(&mut net), step(&mut other));
        }
        assert_eq!(net.state(), other.state());
        assert!(step(&mut net).iter().all(|y| (y - 1.0).abs() < 0.05));
        let gradients = Gradients(vec![(vec![f32::NAN; 12], vec![0.0; 4]), (vec![0.0; 4], vec![0.0])]);
        let kept = net.state();
        assert!(!net.descend(&gradients, 1e-2, 0.5) && net.state() == kept);
        assert!(Mlp::new(&[[3, 5], [5, 1]], Activation::Tanh, 1.0, &mut rng).restore(kept).is_err());
    }
}
