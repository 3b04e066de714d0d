//! Beta distributions with both parameters over 1, for actions in [0, 1].
//!
//! burn has no gamma function, so ln Γ and its derivative are built from differentiable operations: Stirling's series at
//! `x + 3`, brought back by the recurrence. For `x ≥ 1` its error is under 1e-7, below what f32 resolves.

use burn::tensor::Tensor;
use client_core::policy::actor::BetaParameters;
use rand::Rng;
use rand_distr::{Beta, Distribution};

/// Actions stay this far from 0 and 1, where the density is 0 and its logarithm is not finite.
const EDGE: f32 = 1e-5;

/// ln Γ(x), element by element, for x ≥ 1.
pub fn ln_gamma<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let product = x.clone() * x.clone().add_scalar(1.0) * x.clone().add_scalar(2.0);
    let z = x.add_scalar(3.0);
    let inverse = z.clone().recip();
    let square = inverse.clone() * inverse.clone();
    // 1/(12z) − 1/(360z³) + 1/(1260z⁵)
    let series = square.clone().mul_scalar(1.0 / 1260.0).sub_scalar(1.0 / 360.0) * square;
    let series = series.add_scalar(1.0 / 12.0) * inverse;
    let half_ln_tau = 0.5 * std::f64::consts::TAU.ln();
    z.clone().sub_scalar(0.5) * z.clone().log() - z + series.add_scalar(half_ln_tau) - product.log()
}

/// ψ(x), the derivative of ln Γ, element by element, for x ≥ 1.
pub fn digamma<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let shifts = x.clone().recip() + x.clone().add_scalar(1.0).recip() + x.clone().add_scalar(2.0).recip();
    let z = x.add_scalar(3.0);
    let inverse = z.clone().recip();
    let square = inverse.clone() * inverse.clone();
    // ln z − 1/(2z) − 1/(12z²) + 1/(120z⁴) − 1/(252z⁶)
    let series = square.clone().mul_scalar(-1.0 / 252.0).add_scalar(1.0 / 120.0) * square.clone();
    let series = series.sub_scalar(1.0 / 12.0) * square;
    z.log() - inverse.mul_scalar(0.5) + series - shifts
}

/// ln of the Beta function.
fn ln_beta(a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    ln_gamma(a.clone()) + ln_gamma(b.clone()) - ln_gamma(a + b)
}

/// Log-probability of whole actions, `[batch]`: the sum over an action's independent parts.
pub fn log_prob(parameters: &BetaParameters, actions: &Tensor<2>) -> Tensor<1> {
    let (a, b) = (parameters.a.clone(), parameters.b.clone());
    let x = actions.clone();
    let density =
        a.clone().sub_scalar(1.0) * x.clone().log() + b.clone().sub_scalar(1.0) * x.neg().add_scalar(1.0).log();
    (density - ln_beta(a, b)).sum_dim(1).squeeze_dim(1)
}

/// Entropy of whole actions, `[batch]`.
pub fn entropy(parameters: &BetaParameters) -> Tensor<1> {
    let (a, b) = (parameters.a.clone(), parameters.b.clone());
    let sum = a.clone() + b.clone();
    let parts =
        ln_beta(a.clone(), b.clone()) - a.clone().sub_scalar(1.0) * digamma(a) - b.clone().sub_scalar(1.0) * digamma(b)
            + sum.clone().sub_scalar(2.0) * digamma(sum);
    parts.sum_dim(1).squeeze_dim(1)
}

/// One action from Beta(a, b), kept off the edges. Parameters that are not finite give 1/2; the learner notices them in
/// its loss.
pub fn sample(a: f32, b: f32, rng: &mut impl Rng) -> f32 {
    let drawn = Beta::new(a, b).map_or(0.5, |beta| beta.sample(rng));
    if drawn.is_finite() { drawn.clamp(EDGE, 1.0 - EDGE) } else { 0.5 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use rand::SeedableRng;
    use rand_xoshiro::Xoshiro256PlusPlus;

    fn row(values: &[f32]) -> Tensor<2> {
        Tensor::<1>::from_floats(values, &Device::flex()).reshape([1, values.len()])
    }

    #[test]
    fn gamma_functions_agree_with_known_values() {
        // ln Γ and ψ at 1, 1.5, 2, 5, 30: ln of 1, √π/2, 1, 24, 29!; −γ and its recurrence.
        let x = [1.0, 1.5, 2.0, 5.0, 30.0];
        let ln_gammas = [0.0, -0.120_782_24, 0.0, 3.178_053_8, 71.257_04];
        let digammas = [-0.577_215_7, 0.036_489_974, 0.422_784_34, 1.506_117_7, 3.384_438];
        let got = ln_gamma(row(&x)).try_into_vec_as::<f32>().expect("values");
        for (got, want) in got.iter().zip(ln_gammas) {
            assert!((got - want).abs() < 1e-6 * want.abs().max(2.0), "{got} {want}");
        }
        let got = digamma(row(&x)).try_into_vec_as::<f32>().expect("values");
        for (got, want) in got.iter().zip(digammas) {
            assert!((got - want).abs() < 2e-6, "{got} {want}");
        }
    }

    #[test]
    fn density_integrates_to_one_and_entropy_is_its_mean_logarithm() {
        for (a, b) in [(1.0, 1.0), (1.3, 4.0), (20.0, 12.0)] {
            let parameters = || BetaParameters { a: row(&[a]), b: row(&[b]) };
            let (mut mass, mut mean_log) = (0.0, 0.0);
            let cells = 2000;
            for i in 0..cells {
                let x = (i as f32 + 0.5) / cells as f32;
                let log = log_prob(&parameters(), &row(&[x])).into_scalar::<f32>();
                mass += log.exp() / cells as f32;
                mean_log += log * log.exp() / cells as f32;
            }
            let entropy = entropy(&parameters()).into_scalar::<f32>();
            assert!((mass - 1.0).abs() < 1e-3 && (entropy + mean_log).abs() < 2e-3, "{a} {b}: {mass} {entropy}");
        }
    }

    #[test]
    fn samples_have_the_mean_and_stay_inside() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        let draws: Vec<f32> = (0..20_000).map(|_| sample(2.0, 6.0, &mut rng)).collect();
        let mean = draws.iter().sum::<f32>() / draws.len() as f32;
        assert!((mean - 0.25).abs() < 5e-3 && draws.iter().all(|x| *x > 0.0 && *x < 1.0));
        assert_eq!(sample(f32::NAN, 1.0, &mut rng), 0.5);
    }
}
