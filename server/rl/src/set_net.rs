//! The network for any number of users under training: `client_core`'s `SetActor` with its gradient written out, and the
//! critic that has the same form.
//!
//! Slots with different numbers of users go through it in one pass: the users of all slots are the rows of the matrix
//! products, and only pooling knows where one slot ends and the next begins.

use burn::tensor::Device;
use policy::Activation;
use policy::set::layers;
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::mlp::{Elementwise, Gradients, Mlp, MlpState, Tape};
use super::nets::matrix;

/// Encoder, pooling, head; and the optimisers of both.
#[derive(Clone, Debug)]
pub struct SetNet {
    encoder: Mlp,
    head: Mlp,
    inputs: usize,
    /// Numbers in a user's code.
    code: usize,
    activation: Activation,
    device: Device,
}

/// All that a [`SetNet`] is, for a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetNetState {
    encoder: MlpState,
    head: MlpState,
}

/// What a forward pass has to remember for the backward one.
pub struct SetTape {
    encoder: Tape,
    head: Tape,
    /// `[rows, code]`
    codes: Vec<f32>,
    /// Row that has a slot's maximum, `[slots, code]`.
    largest: Vec<u32>,
}

/// Gradients of a loss.
pub struct SetGradients {
    encoder: Gradients,
    head: Gradients,
}

impl SetNet {
    /// Orthogonal weights with gain √2, the last layer's with `head_gain`; no biases.
    pub fn new(
        inputs: usize,
        encoder: &[usize],
        head: &[usize],
        outputs: usize,
        activation: Activation,
        head_gain: f32,
        rng: &mut impl Rng,
    ) -> Self {
        let code = encoder.last().copied().unwrap_or(inputs);
        Self {
            encoder: Mlp::new(&layers(inputs, encoder, None), activation, std::f32::consts::SQRT_2, rng),
            head: Mlp::new(&layers(3 * code, head, Some(outputs)), activation, head_gain, rng),
            inputs,
            code,
            activation,
            device: Device::flex(),
        }
    }

    /// `[rows, inputs]` → `[rows, outputs]`. `users` holds the number of users of each slot; their sum is the rows.
    pub fn forward(&self, input: Vec<f32>, users: &[usize]) -> Vec<f32> {
        let mut codes = self.encoder.forward(matrix(input, self.inputs, &self.device));
        self.activation.apply(&mut codes);
        self.head.forward(matrix(self.join(&codes, users).0, 3 * self.code, &self.device))
    }

    /// [`SetNet::forward`] with what [`SetNet::backward`] needs.
    pub fn forward_taped(&self, input: Vec<f32>, users: &[usize]) -> (Vec<f32>, SetTape) {
        let (mut codes, encoder) = self.encoder.forward_taped(matrix(input, self.inputs, &self.device));
        self.activation.apply(&mut codes);
        let (joined, largest) = self.join(&codes, users);
        let (output, head) = self.head.forward_taped(matrix(joined, 3 * self.code, &self.device));
        (output, SetTape { encoder, head, codes, largest })
    }

    /// Each user's code beside mean and maximum of its slot's codes, `[rows, 3·code]`, and whose the maximum is.
    fn join(&self, codes: &[f32], users: &[usize]) -> (Vec<f32>, Vec<u32>) {
        let width = self.code;
        let mut joined = Vec::with_capacity(3 * codes.len());
        let mut largest = Vec::with_capacity(users.len() * width);
        let mut first = 0;
        for count in users {
            let slot = &codes[first * width..(first + count) * width];
            let mut mean = vec![0.0; width];
            let mut most = vec![f32::NEG_INFINITY; width];
            let mut whose = vec![0; width];
            for (k, code) in slot.chunks_exact(width).enumerate() {
                let row = (first + k) as u32;
                for (i, value) in code.iter().enumerate() {
                    mean[i] += value / *count as f32;
                    if *value > most[i] {
                        (most[i], whose[i]) = (*value, row);
                    }
                }
            }
            for code in slot.chunks_exact(width) {
                joined.extend_from_slice(code);
                joined.extend_from_slice(&mean);
                joined.extend_from_slice(&most);
            }
            largest.extend(whose);
            first += count;
        }
        (joined, largest)
    }

    /// A loss's derivative by the codes from the one by what [`SetNet::join`] made of them.
    fn part(&self, by_joined: &[f32], tape_codes: &[f32], largest: &[u32], users: &[usize]) -> Vec<f32> {
        let width = self.code;
        let mut by_codes = vec![0.0; tape_codes.len()];
        let mut first = 0;
        for (count, whose) in users.iter().zip(largest.chunks_exact(width)) {
            let rows = &by_joined[3 * first * width..3 * (first + count) * width];
            let (mut by_mean, mut by_most) = (vec![0.0; width], vec![0.0; width]);
            for row in rows.chunks_exact(3 * width) {
                by_mean.iter_mut().zip(&row[width..2 * width]).for_each(|(sum, d)| *sum += d);
                by_most.iter_mut().zip(&row[2 * width..]).for_each(|(sum, d)| *sum += d);
            }
            let slot = &mut by_codes[first * width..(first + count) * width];
            for (out, row) in slot.chunks_exact_mut(width).zip(rows.chunks_exact(3 * width)) {
                for (i, out) in out.iter_mut().enumerate() {
                    *out = row[i] + by_mean[i] / *count as f32;
                }
            }
            for (i, (row, d)) in whose.iter().zip(by_most).enumerate() {
                by_codes[*row as usize * width + i] += d;
            }
            first += count;
        }
        self.activation.backward(&mut by_codes, tape_codes);
        by_codes
    }

    /// The gradient of a loss whose derivative by the outputs is `by_output`, `[rows, outputs]`.
    pub fn backward(&self, tape: SetTape, users: &[usize], by_output: Vec<f32>) -> SetGradients {
        let (head, by_joined) = self.head.backward_through(tape.head, by_output);
        let by_codes = self.part(&by_joined, &tape.codes, &tape.largest, users);
        SetGradients { encoder: self.encoder.backward(tape.encoder, by_codes), head }
    }

    /// A loss's derivative by the inputs, `[rows, inputs]`, from the one by the outputs.
    pub fn by_input(&self, tape: SetTape, users: &[usize], by_output: Vec<f32>) -> Vec<f32> {
        let by_joined = self.head.by_input(tape.head, by_output);
        let by_codes = self.part(&by_joined, &tape.codes, &tape.largest, users);
        self.encoder.by_input(tape.encoder, by_codes)
    }

    /// One step of Adam against the gradient, scaled down to a norm of at most `max_norm` in encoder and head each. Returns
    /// whether the gradient was finite; if not, nothing is changed.
    #[must_use]
    pub fn descend(&mut self, gradients: &SetGradients, rate: f64, max_norm: f32) -> bool {
        // Both or neither.
        let finite = gradients.encoder.norm().is_finite() && gradients.head.norm().is_finite();
        finite
            && self.encoder.descend(&gradients.encoder, rate, max_norm)
            && self.head.descend(&gradients.head, rate, max_norm)
    }

    /// `(weight, bias)` of each layer of encoder and head.
    pub fn values(&self) -> [Vec<(Vec<f32>, Vec<f32>)>; 2] {
        [self.encoder.values(), self.head.values()]
    }

    /// Takes the weights of encoder and head over, as of a network that has taken no step yet.
    ///
    /// # Errors
    /// When they are of a network of another shape, in words.
    pub fn begin_with(&mut self, [encoder, head]: [Vec<(Vec<f32>, Vec<f32>)>; 2]) -> Result<(), String> {
        self.encoder.begin_with(encoder)?;
        self.head.begin_with(head)
    }

    /// A copy for a checkpoint.
    pub fn state(&self) -> SetNetState {
        SetNetState { encoder: self.encoder.state(), head: self.head.state() }
    }

    /// Takes a checkpoint over.
    ///
    /// # Errors
    /// When it is of a network of another shape, in words.
    pub fn restore(&mut self, state: SetNetState) -> Result<(), String> {
        self.encoder.restore(state.encoder)?;
        self.head.restore(state.head)
    }
}

#[cfg(test)]
mod tests {
    use super::super::nets::host;
    use super::*;
    use policy::set::SET_FEATURES_PER_USER;
    use policy::{ACTIONS_PER_USER, SetActor, SetConfig};
    use rand::SeedableRng;
    use rand_distr::{Distribution, StandardNormal};
    use rand_xoshiro::Xoshiro256PlusPlus;

    const USERS: [usize; 4] = [3, 1, 4, 2];

    fn normal(count: usize, rng: &mut Xoshiro256PlusPlus) -> Vec<f32> {
        (0..count).map(|_| StandardNormal.sample(rng)).collect()
    }

    #[test]
    fn slots_of_any_number_of_users_give_what_the_deployed_network_gives() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(3);
        let config = SetConfig { most_users: 10, encoder: vec![7, 6], head: vec![5], activation: Activation::Relu };
        let (inputs, outputs) = (SET_FEATURES_PER_USER, ACTIONS_PER_USER);
        let net = SetNet::new(inputs, &config.encoder, &config.head, outputs, config.activation, 1.0, &mut rng);
        let x = normal(10 * inputs, &mut rng);
        let got = net.forward(x.clone(), &USERS);
        let [encoder, head] = net.values();
        let actor = SetActor::from_values(&config, encoder, head, &Device::flex());
        let mut first = 0;
        for users in USERS {
            let rows = &x[first * inputs..(first + users) * inputs];
            let want = host(actor.action(matrix(rows.to_vec(), inputs, &Device::flex()), users));
            for (got, want) in got[first * outputs..].iter().zip(&want) {
                assert!(((1.0 + got.tanh()) / 2.0 - want).abs() < 1e-5, "{got} {want}");
            }
            first += users;
        }
    }

    #[test]
    fn the_gradients_are_the_difference_quotients() {
        for activation in [Activation::Tanh, Activation::Relu] {
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(5);
            let mut net = SetNet::new(3, &[6, 5], &[4], 2, activation, 1.0, &mut rng);
            let x = normal(10 * 3, &mut rng);
            let c = normal(10 * 2, &mut rng);
            let loss = |net: &SetNet, x: &[f32]| -> f64 {
                let y = net.forward(x.to_vec(), &USERS);
                y.iter().zip(&c).map(|(y, c)| f64::from(*y) * f64::from(*c)).sum()
            };
            let step = 1e-2;
            let (_, tape) = net.forward_taped(x.clone(), &USERS);
            let by_input = net.by_input(tape, &USERS, c.clone());
            for (i, want) in by_input.iter().enumerate() {
                let moved = |by: f32| {
                    let mut x = x.clone();
                    x[i] += by;
                    loss(&net, &x)
                };
                let got = (moved(step) - moved(-step)) / f64::from(2.0 * step);
                assert!((got - f64::from(*want)).abs() < 0.05 * (1.0 + got.abs()), "{i}: {got} {want}");
            }
            // A short step down the gradient lowers the loss by its square times the rate; Adam's first one by its sum.
            let (_, tape) = net.forward_taped(x.clone(), &USERS);
            let gradients = net.backward(tape, &USERS, c.clone());
            let before = loss(&net, &x);
            let sum: f64 = [&gradients.encoder, &gradients.head].iter().map(|g| g.absolute_sum()).sum();
            assert!(net.descend(&gradients, 1e-4, f32::INFINITY));
            let fell = before - loss(&net, &x);
            assert!((fell / (1e-4 * sum) - 1.0).abs() < 0.1, "{fell} {}", 1e-4 * sum);
        }
    }
}
