//! The distillation loss, eq. 8 to 11, as a pure function with its gradient.
//!
//! L = Σ w·[(1 − α)·CE + α·τ²·KL(teacher ‖ student)] / Σ w over the scored positions. Cross-entropy is taken at temperature 1,
//! the divergence at τ on both sides; without the factor τ² its gradient would shrink with 1/τ².

use super::error::{EcldError, finite};

/// How both losses are mixed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mix {
    /// α: the divergence's share, 0 to 1.
    pub alpha: f64,
    /// τ: the temperature.
    pub tau: f64,
    /// Whether the divergence is multiplied with τ².
    pub tau_squared: bool,
}

/// The loss and what it is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Loss {
    /// L.
    pub loss: f64,
    /// Mean cross-entropy, nats.
    pub ce: f64,
    /// Mean divergence at τ, nats, without τ².
    pub kl: f64,
    /// ∂L/∂(student's logits), a row a position.
    pub gradient: Vec<Vec<f64>>,
}

/// Log-probabilities of `logits` at temperature `tau`.
pub fn log_softmax(logits: &[f64], tau: f64) -> Vec<f64> {
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max) / tau;
    let total: f64 = logits.iter().map(|z| (z / tau - top).exp()).sum();
    let norm = top + total.ln();
    logits.iter().map(|z| z / tau - norm).collect()
}

/// Eq. 8. `student` and `teacher` hold a row of logits a position; a position without a target is not scored. `weights`
/// holds a weight a position, 1 where there are none.
///
/// # Errors
/// The lists do not belong together, a number is none, a target is outside the vocabulary, or nothing is scored.
pub fn loss(
    student: &[Vec<f64>],
    teacher: &[Vec<f64>],
    targets: &[Option<usize>],
    weights: Option<&[f64]>,
    mix: Mix,
) -> Result<Loss, EcldError> {
    let Mix { alpha, tau, tau_squared } = mix;
    if !(0.0..=1.0).contains(&alpha) || !tau.is_finite() || tau <= 0.0 {
        return Err(EcldError::input(format!("alpha {alpha} must be in [0, 1], tau {tau} above 0")));
    }
    let n = student.len();
    if teacher.len() != n || targets.len() != n || weights.is_some_and(|w| w.len() != n) {
        return Err(EcldError::input(format!(
            "{n} rows of the student, {} of the teacher, {} targets: there must be as many of each",
            teacher.len(),
            targets.len()
        )));
    }
    let weight = |position: usize| weights.map_or(1.0, |w| w.get(position).copied().unwrap_or(0.0));
    let scored: f64 = (0..n).filter(|t| targets.get(*t).copied().flatten().is_some()).map(weight).sum();
    if !(scored.is_finite() && scored > 0.0) {
        return Err(EcldError::input("no position is scored"));
    }
    let factor = if tau_squared { tau * tau } else { 1.0 };
    let (mut ce, mut kl) = (0.0, 0.0);
    let mut gradient = Vec::with_capacity(n);
    for (t, ((s, z), target)) in student.iter().zip(teacher).zip(targets).enumerate() {
        finite("the student's logits", s)?;
        finite("the teacher's logits", z)?;
        if s.len() != z.len() || s.is_empty() {
            return Err(EcldError::input(format!(
                "the student's vocabulary has {} tokens, the teacher's {}: distillation needs the same",
                s.len(),
                z.len()
            )));
        }
        let Some(target) = *target else {
            gradient.push(vec![0.0; s.len()]);
            continue;
        };
        let share = weight(t) / scored;
        let hard = log_softmax(s, 1.0);
        let own = hard.get(target);
        let own = own.ok_or_else(|| EcldError::input(format!("target {target} is outside {} tokens", s.len())))?;
        let (soft, wanted) = (log_softmax(s, tau), log_softmax(z, tau));
        ce -= share * own;
        kl += share * wanted.iter().zip(&soft).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
        let slope = |i: usize, hard: f64, soft: f64, wanted: f64| {
            let one = if i == target { 1.0 } else { 0.0 };
            share * ((1.0 - alpha) * (hard.exp() - one) + alpha * factor / tau * (soft.exp() - wanted.exp()))
        };
        let row = hard.iter().zip(&soft).zip(&wanted).enumerate();
        gradient.push(row.map(|(i, ((hard, soft), wanted))| slope(i, *hard, *soft, *wanted)).collect());
    }
    Ok(Loss { loss: (1.0 - alpha) * ce + alpha * factor * kl, ce, kl, gradient })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The gradient against differences of the loss itself.
    #[test]
    fn the_gradient_is_that_of_the_loss() {
        let student = vec![vec![0.3, -1.0, 2.0], vec![1.0, 0.5, -0.5], vec![0.0, 0.1, 0.2]];
        let teacher = vec![vec![1.3, -0.2, 0.0], vec![0.1, 0.7, 2.5], vec![3.0, 0.1, 0.2]];
        let (targets, weights) = ([Some(2), None, Some(0)], [1.0, 1.0, 0.5]);
        for mix in [Mix { alpha: 0.3, tau: 2.5, tau_squared: true }, Mix { alpha: 1.0, tau: 0.7, tau_squared: false }] {
            let at = |s: &[Vec<f64>]| loss(s, &teacher, &targets, Some(&weights), mix).unwrap();
            let found = at(&student);
            for t in 0..3 {
                for i in 0..3 {
                    let h = 1e-5;
                    let moved = |by: f64| {
                        let mut s = student.clone();
                        s[t][i] += by;
                        at(&s).loss
                    };
                    let slope = (moved(h) - moved(-h)) / (2.0 * h);
                    assert!((slope - found.gradient[t][i]).abs() < 1e-8, "{mix:?} {t} {i}");
                }
            }
        }
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let rows = vec![vec![0.0, 1.0]];
        let mix = Mix { alpha: 0.5, tau: 2.0, tau_squared: true };
        for (teacher, target, mix) in [
            (vec![], Some(0), mix),
            (vec![vec![0.0]], Some(0), mix),
            (rows.clone(), Some(2), mix),
            (rows.clone(), None, mix),
            (vec![vec![0.0, f64::NAN]], Some(0), mix),
            (rows.clone(), Some(0), Mix { alpha: 1.5, ..mix }),
            (rows.clone(), Some(0), Mix { tau: 0.0, ..mix }),
        ] {
            assert!(loss(&rows, &teacher, &[target], None, mix).is_err(), "{teacher:?} {target:?} {mix:?}");
        }
    }
}
