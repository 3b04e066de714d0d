//! Beta distributions with both parameters over 1, for actions in [0, 1]: sampling, log-probability, entropy, and their
//! derivatives by the actor's outputs.
//!
//! ln Γ and its derivatives are Stirling's series at `x + 3`, brought back by the recurrence. For `x ≥ 1` their errors are
//! under 1e-7, below what f32 resolves.

use rand::Rng;
use rand_distr::{Beta, Distribution};

/// Actions stay this far from 0 and 1, where the density is 0 and its logarithm is not finite.
const EDGE: f32 = 1e-5;

/// ln Γ(x), ψ(x) and ψ'(x) for x ≥ 1; ψ is the derivative of ln Γ.
pub fn gammas(x: f64) -> (f64, f64, f64) {
    let (below, middle) = (1.0 / x, 1.0 / (x + 1.0));
    let above = 1.0 / (x + 2.0);
    let z = x + 3.0;
    let (inverse, ln_z) = (1.0 / z, z.ln());
    let square = inverse * inverse;
    let ln_product = (x * (x + 1.0) * (x + 2.0)).ln();
    // 1/(12z) − 1/(360z³) + 1/(1260z⁵), and its first two derivatives
    let series = inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square / 1260.0));
    let ln_gamma = (z - 0.5) * ln_z - z + 0.5 * std::f64::consts::TAU.ln() + series - ln_product;
    let series = square * (1.0 / 12.0 - square * (1.0 / 120.0 - square / 252.0));
    let digamma = ln_z - 0.5 * inverse - series - (below + middle + above);
    let series = square * inverse * (1.0 / 6.0 - square * (1.0 / 30.0 - square / 42.0));
    let trigamma = inverse + 0.5 * square + series + (below * below + middle * middle + above * above);
    (ln_gamma, digamma, trigamma)
}

/// The actor's output → a parameter of the distribution, and its derivative: softplus + 1, as in `client_core`'s `Actor`.
fn parameter(raw: f32) -> (f64, f64) {
    let raw = f64::from(raw);
    let power = (-raw.abs()).exp();
    let sigmoid = if raw >= 0.0 { 1.0 / (1.0 + power) } else { power / (1.0 + power) };
    (1.0 + raw.max(0.0) + power.ln_1p(), sigmoid)
}

/// The distribution of one action, from the two outputs of the actor that belong to it.
#[derive(Clone, Copy, Debug)]
pub struct ActionBeta {
    a: f64,
    b: f64,
    a_by_raw: f64,
    b_by_raw: f64,
}

/// What a gradient step needs of one action: values, and derivatives by the two outputs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms {
    /// ln π(x).
    pub log_prob: f64,
    /// Its derivatives.
    pub log_prob_by_raw: (f64, f64),
    /// Entropy of the distribution.
    pub entropy: f64,
    /// Its derivatives.
    pub entropy_by_raw: (f64, f64),
}

impl ActionBeta {
    /// From the outputs for the first and the second parameter.
    pub fn new(raw_a: f32, raw_b: f32) -> Self {
        let ((a, a_by_raw), (b, b_by_raw)) = (parameter(raw_a), parameter(raw_b));
        Self { a, b, a_by_raw, b_by_raw }
    }

    /// ln π(x).
    pub fn log_prob(&self, x: f32) -> f64 {
        let x = f64::from(x);
        let ln_beta = gammas(self.a).0 + gammas(self.b).0 - gammas(self.a + self.b).0;
        (self.a - 1.0) * x.ln() + (self.b - 1.0) * (1.0 - x).ln() - ln_beta
    }

    /// All that a gradient step needs, for the action `x`.
    pub fn terms(&self, x: f32) -> Terms {
        let Self { a, b, a_by_raw, b_by_raw } = *self;
        let x = f64::from(x);
        let (ln_x, ln_rest) = (x.ln(), (1.0 - x).ln());
        let (of_a, of_b, of_sum) = (gammas(a), gammas(b), gammas(a + b));
        let ln_beta = of_a.0 + of_b.0 - of_sum.0;
        let excess = a + b - 2.0;
        Terms {
            log_prob: (a - 1.0) * ln_x + (b - 1.0) * ln_rest - ln_beta,
            log_prob_by_raw: ((ln_x - of_a.1 + of_sum.1) * a_by_raw, (ln_rest - of_b.1 + of_sum.1) * b_by_raw),
            entropy: ln_beta - (a - 1.0) * of_a.1 - (b - 1.0) * of_b.1 + excess * of_sum.1,
            entropy_by_raw: (
                (excess * of_sum.2 - (a - 1.0) * of_a.2) * a_by_raw,
                (excess * of_sum.2 - (b - 1.0) * of_b.2) * b_by_raw,
            ),
        }
    }

    /// An action, kept off the edges. Parameters that are not finite give 1/2; the learner notices them in its loss.
    pub fn sample(&self, rng: &mut impl Rng) -> f32 {
        let drawn = Beta::new(self.a, self.b).map_or(0.5, |beta| beta.sample(rng)) as f32;
        if drawn.is_finite() { drawn.clamp(EDGE, 1.0 - EDGE) } else { 0.5 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_xoshiro::Xoshiro256PlusPlus;

    /// The output that gives a parameter over 1.
    fn raw(parameter: f64) -> f32 {
        ((parameter - 1.0).exp() - 1.0).ln() as f32
    }

    #[test]
    fn gamma_functions_agree_with_known_values() {
        // At 1, 1.5, 2, 5, 30: ln of 1, √π/2, 1, 24, 29!; −γ and its recurrence; π²/6 and its recurrence.
        let known = [
            (1.0, 0.0, -0.577_215_664_9, 1.644_934_066_8),
            (1.5, -0.120_782_237_6, 0.036_489_974_0, 0.934_802_200_5),
            (2.0, 0.0, 0.422_784_335_1, 0.644_934_066_8),
            (5.0, 3.178_053_830_3, 1.506_117_668_4, 0.221_322_955_7),
            (30.0, 71.257_038_967_2, 3.384_438_141_3, 0.033_895_061_0),
        ];
        for (x, ln_gamma, digamma, trigamma) in known {
            let got = gammas(x);
            for (got, want) in [(got.0, ln_gamma), (got.1, digamma), (got.2, trigamma)] {
                assert!((got - want).abs() < 1e-6, "at {x}: {got} instead of {want}");
            }
        }
    }

    #[test]
    fn density_integrates_to_one_and_entropy_is_its_mean_logarithm() {
        for (a, b) in [(1.000_1, 1.000_1), (1.3, 4.0), (20.0, 12.0)] {
            let beta = ActionBeta::new(raw(a), raw(b));
            let (mut mass, mut mean_log) = (0.0, 0.0);
            let cells = 20_000;
            for i in 0..cells {
                let log = beta.log_prob((i as f32 + 0.5) / cells as f32);
                mass += log.exp() / f64::from(cells);
                mean_log += log * log.exp() / f64::from(cells);
            }
            let entropy = beta.terms(0.5).entropy;
            assert!((mass - 1.0).abs() < 1e-3 && (entropy + mean_log).abs() < 2e-3, "{a} {b}: {mass} {entropy}");
        }
    }

    #[test]
    fn derivatives_are_difference_quotients() {
        for (raw_a, raw_b, x) in [(-3.0, 1.0, 0.02), (0.0, 0.0, 0.7), (4.0, 9.0, 0.4), (2.0, -6.0, 0.99)] {
            let terms = ActionBeta::new(raw_a, raw_b).terms(x);
            assert!((terms.log_prob - ActionBeta::new(raw_a, raw_b).log_prob(x)).abs() < 1e-12);
            let step = 1.0 / 64.0;
            let difference = |by_a: f32, by_b: f32, of: fn(&Terms) -> f64| {
                let at = |sign: f32| of(&ActionBeta::new(raw_a + sign * by_a, raw_b + sign * by_b).terms(x));
                (at(1.0) - at(-1.0)) / f64::from(2.0 * step)
            };
            let pairs = [
                (terms.log_prob_by_raw.0, difference(step, 0.0, |t| t.log_prob)),
                (terms.log_prob_by_raw.1, difference(0.0, step, |t| t.log_prob)),
                (terms.entropy_by_raw.0, difference(step, 0.0, |t| t.entropy)),
                (terms.entropy_by_raw.1, difference(0.0, step, |t| t.entropy)),
            ];
            for (got, want) in pairs {
                assert!((got - want).abs() < 1e-4 * (1.0 + want.abs()), "{raw_a} {raw_b} {x}: {got} instead of {want}");
            }
        }
    }

    #[test]
    fn samples_have_the_mean_and_stay_inside() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        let beta = ActionBeta::new(raw(2.0), raw(6.0));
        let draws: Vec<f32> = (0..20_000).map(|_| beta.sample(&mut rng)).collect();
        let mean = draws.iter().sum::<f32>() / draws.len() as f32;
        assert!((mean - 0.25).abs() < 5e-3 && draws.iter().all(|x| *x > 0.0 && *x < 1.0));
        assert_eq!(ActionBeta::new(f32::NAN, 1.0).sample(&mut rng), 0.5);
    }
}
