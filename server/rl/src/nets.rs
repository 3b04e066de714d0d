//! Networks and tensors that the algorithms have in common. The policy itself is `client_core`'s `Actor`.

use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::nn::Linear;
use burn::optim::ModuleOptimizer;
use burn::store::RecordError;
use burn::tensor::{Device, Tensor, TensorData};
use policy::Activation;
use rand::RngExt;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::error::TrainError;

/// Host values as `[rows, width]`.
pub fn rows(values: &[f32], width: usize, device: &Device) -> Tensor<2> {
    matrix(values.to_vec(), width, device)
}

/// [`rows`] without a copy.
pub fn matrix(values: Vec<f32>, width: usize, device: &Device) -> Tensor<2> {
    let count = values.len() / width.max(1);
    Tensor::from_data(TensorData::new(values, [count, width]), device)
}

/// Host values as `[rows]`.
pub fn column(values: &[f32], device: &Device) -> Tensor<1> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
}

/// A tensor's values, row-major.
pub fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec_as().unwrap_or_default()
}

/// A network with one output: the value V_φ(s) of a state, or Q_φ(s, a) of a state and an action.
#[derive(Module, Debug)]
pub struct Critic {
    layers: Vec<Linear>,
}

impl Critic {
    /// Weights by [`fan_in`].
    pub fn fan_in(inputs: usize, hidden: &[usize], device: &Device, rng: &mut Xoshiro256PlusPlus) -> Self {
        let shapes = shapes(inputs, hidden, 1);
        let values = fan_in(&shapes, None, rng);
        let layers = shapes.iter().zip(values).map(|([inputs, outputs], (weight, bias))| Linear {
            weight: Param::from_data(TensorData::new(weight, [*inputs, *outputs]), device),
            bias: Some(Param::from_data(TensorData::new(bias, [*outputs]), device)),
        });
        Self { layers: layers.collect() }
    }

    /// `[batch, inputs]` → `[batch]`
    pub fn forward(&self, input: Tensor<2>, activation: Activation) -> Tensor<1> {
        let last = self.layers.len() - 1;
        let mut x = input;
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x); // [batch, units]
            if i < last {
                x = activation.forward(x);
            }
        }
        x.squeeze_dim(1)
    }

    /// Q(s, a): `[batch, inputs]` and `[batch, actions]` → `[batch]`
    pub fn of_action(&self, features: Tensor<2>, actions: Tensor<2>, activation: Activation) -> Tensor<1> {
        // Centred like the features: the networks start from inputs around 0.
        let actions = actions.mul_scalar(2.0).sub_scalar(1.0);
        self.forward(Tensor::cat(vec![features, actions], 1), activation)
    }
}

/// Two critics of the same task: the lower of their values is no overestimate that noise has picked (Fujimoto et al. 2018,
/// section 4.2).
#[derive(Module, Debug)]
pub struct TwinCritic {
    first: Critic,
    second: Critic,
}

impl TwinCritic {
    /// Both by [`Critic::fan_in`].
    pub fn fan_in(inputs: usize, hidden: &[usize], device: &Device, rng: &mut Xoshiro256PlusPlus) -> Self {
        let mut critic = || Critic::fan_in(inputs, hidden, device, rng);
        Self { first: critic(), second: critic() }
    }

    /// Both Q(s, a), `[batch]` each.
    pub fn both(&self, features: Tensor<2>, actions: Tensor<2>, activation: Activation) -> (Tensor<1>, Tensor<1>) {
        let first = self.first.of_action(features.clone(), actions.clone(), activation);
        (first, self.second.of_action(features, actions, activation))
    }

    /// The lower Q(s, a), `[batch]`.
    pub fn lower(&self, features: Tensor<2>, actions: Tensor<2>, activation: Activation) -> Tensor<1> {
        let (first, second) = self.both(features, actions, activation);
        first.min_pair(second)
    }

    /// The first critic alone, its parameters fixed: what TD3's actor climbs.
    pub fn first_fixed(&self) -> Critic {
        self.first.clone().no_grad()
    }
}

/// Mean squared error.
pub fn mse(value: Tensor<1>, target: Tensor<1>) -> Tensor<1> {
    let error = value - target;
    (error.clone() * error).mean()
}

fn shapes(inputs: usize, hidden: &[usize], outputs: usize) -> Vec<[usize; 2]> {
    let mut sizes = vec![inputs];
    sizes.extend(hidden);
    sizes.push(outputs);
    sizes.windows(2).map(|pair| [pair[0], pair[1]]).collect()
}

/// `(weight, bias)` of each layer, uniform within ±1/√inputs (Lillicrap et al. 2016, section 7), the last layer within
/// ±`last` if given.
pub fn fan_in(shapes: &[[usize; 2]], last: Option<f32>, rng: &mut Xoshiro256PlusPlus) -> Vec<(Vec<f32>, Vec<f32>)> {
    let layer = |(i, [inputs, outputs]): (usize, &[usize; 2])| {
        let usual = 1.0 / (*inputs as f32).sqrt();
        let bound = if i + 1 == shapes.len() { last.unwrap_or(usual) } else { usual };
        let mut draw = |count: usize| (0..count).map(|_| bound * (2.0 * rng.random::<f32>() - 1.0)).collect();
        (draw(inputs * outputs), draw(*outputs))
    };
    shapes.iter().enumerate().map(layer).collect()
}

fn damaged(path: &Path) -> impl FnOnce(RecordError) -> TrainError + '_ {
    |e| TrainError::Damaged { path: path.to_owned(), problem: e.to_string() }
}

/// Writes a network's parameters with their identities, by which an optimiser's state finds them again.
///
/// # Errors
/// When the file cannot be written.
pub fn save_module<M: Module>(module: &M, path: &Path) -> Result<(), TrainError> {
    module.clone().into_record().save(path).map_err(damaged(path))
}

/// Puts what [`save_module`] wrote into a network of the same shape.
///
/// # Errors
/// When the file cannot be read or is of another shape.
pub fn load_module<M: Module>(module: M, path: &Path) -> Result<M, TrainError> {
    module.try_load_file(path).map_err(damaged(path))
}

/// Writes an optimiser's state.
///
/// # Errors
/// When the file cannot be written.
pub fn save_optimiser(optimiser: &ModuleOptimizer, path: &Path) -> Result<(), TrainError> {
    optimiser.save(path).map_err(damaged(path))
}

/// Puts what [`save_optimiser`] wrote into a fresh optimiser.
///
/// # Errors
/// When the file cannot be read.
pub fn load_optimiser(optimiser: ModuleOptimizer, path: &Path) -> Result<ModuleOptimizer, TrainError> {
    optimiser.load(path).map_err(damaged(path))
}

/// Polyak averaging: `target ← (1 − τ)·target + τ·online`, parameter by parameter. Both without gradients and of the same
/// shape.
pub fn polyak<M: Module>(target: M, online: &M, tau: f32) -> M {
    struct Collect(Vec<Tensor<1>>);
    impl ModuleVisitor for Collect {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let values = param.val();
            let count = values.shape().num_elements();
            self.0.push(values.reshape([count]));
        }
    }
    struct Blend(std::vec::IntoIter<Tensor<1>>, f32);
    impl ModuleMapper for Blend {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let Some(online) = self.0.next() else { return param };
            let tau = self.1;
            param.map(|target| {
                let shape = target.dims();
                target.mul_scalar(1.0 - tau) + online.reshape(shape).mul_scalar(tau)
            })
        }
    }
    let mut collect = Collect(Vec::new());
    online.visit(&mut collect);
    target.map(&mut Blend(collect.0.into_iter(), tau))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn polyak_moves_every_parameter_by_its_share() {
        let device = Device::flex();
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        let (target, online) = (Critic::fan_in(3, &[4], &device, &mut rng), Critic::fan_in(3, &[4], &device, &mut rng));
        let values = |net: &Critic| -> Vec<f32> {
            let layer = |l: &Linear| [host(l.weight.val()), host(l.bias.as_ref().expect("bias").val())].concat();
            net.layers.iter().flat_map(layer).collect()
        };
        let (from, to) = (values(&target), values(&online));
        assert_eq!(from.len(), 3 * 4 + 4 + 4 + 1);
        for tau in [0.0, 0.005, 0.3, 1.0] {
            let moved = values(&polyak(target.clone(), &online, tau));
            for ((moved, from), to) in moved.iter().zip(&from).zip(&to) {
                let want = (1.0 - tau) * from + tau * to;
                assert!((moved - want).abs() < 1e-6, "τ = {tau}: {moved} instead of {want}");
            }
        }
        // Repeated, the distance shrinks by 1 − τ a time.
        let mut net = target;
        for _ in 0..20 {
            net = polyak(net, &online, 0.1);
        }
        let share = 0.9f32.powi(20);
        for ((net, from), to) in values(&net).iter().zip(&from).zip(&to) {
            assert!((net - to - share * (from - to)).abs() < 1e-5);
        }
        assert_eq!(values(&online), to);
    }
}
