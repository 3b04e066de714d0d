//! What two distributions over the next token are apart, and what many of them come to.

use serde::Serialize;

/// ln p of every token.
#[derive(Debug, Clone)]
pub struct LogProbs(Vec<f64>);

/// ln Σ exp, without overflow.
fn log_sum_exp(logits: &[f32]) -> f64 {
    let top = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    top + logits.iter().map(|x| (f64::from(*x) - top).exp()).sum::<f64>().ln()
}

impl LogProbs {
    /// Of the softmax of `logits`.
    pub fn of(logits: &[f32]) -> Self {
        let total = log_sum_exp(logits);
        Self(logits.iter().map(|x| f64::from(*x) - total).collect())
    }

    fn top(&self) -> usize {
        let best = self.0.iter().enumerate().fold((0, f64::NEG_INFINITY), |best, (id, p)| match *p > best.1 {
            true => (id, *p),
            false => best,
        });
        best.0
    }
}

/// What a backend makes of one position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Position {
    /// Σ p · (ln p − ln q), nats: p is the reference's distribution, q the backend's.
    pub kl: f64,
    /// Whether both have the same likeliest token.
    pub same_top: bool,
    /// −ln of what the reference and the backend give the token that follows; none where none does.
    pub nll: Option<[f64; 2]>,
}

impl Position {
    /// Compares the logits of a backend, `[vocab]`, with the reference. `next` is the token that follows.
    pub fn of(reference: &LogProbs, logits: &[f32], next: Option<u32>) -> Self {
        let total = log_sum_exp(logits);
        let kl = reference.0.iter().zip(logits).map(|(p, x)| p.exp() * (p - (f64::from(*x) - total))).sum::<f64>();
        let nll = next.and_then(|next| {
            let (p, x) = (reference.0.get(next as usize)?, logits.get(next as usize)?);
            Some([-p, total - f64::from(*x)])
        });
        let same_top = engine::sampler::argmax(logits) as usize == reference.top();
        // Rounding can leave −1e−17.
        Self { kl: if kl < 0.0 { 0.0 } else { kl }, same_top, nll }
    }
}

/// What many positions come to.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// How many there are.
    pub positions: usize,
    /// Mean of KL, nats.
    pub kl_mean: f64,
    /// What 99 of 100 positions do not exceed (nearest rank), nats.
    pub kl_p99: f64,
    /// Share of positions with the reference's likeliest token.
    pub same_top: f64,
    /// e to the mean of −ln q of the tokens that follow: the backend's perplexity.
    pub perplexity: f64,
    /// The same of the reference, on the same tokens.
    pub reference_perplexity: f64,
    /// Per cent that the backend's is above it.
    pub above_percent: f64,
    /// One standard error of that, from position to position.
    pub above_percent_error: f64,
}

impl Summary {
    /// Of at least one position; `None` of none.
    pub fn of(positions: &[Position]) -> Option<Self> {
        let n = positions.len();
        let mut kl: Vec<f64> = positions.iter().map(|position| position.kl).collect();
        kl.sort_by(f64::total_cmp);
        let p99 = *kl.get((99 * n).div_ceil(100).checked_sub(1)?)?;
        let nll: Vec<[f64; 2]> = positions.iter().filter_map(|position| position.nll).collect();
        let known = nll.len().max(1) as f64;
        let mean = |of: &dyn Fn(&[f64; 2]) -> f64| nll.iter().map(of).sum::<f64>() / known;
        let (reference, found) = (mean(&|nll| nll[0]), mean(&|nll| nll[1]));
        let above = found - reference;
        let spread = mean(&|nll| (nll[1] - nll[0] - above).powi(2)).sqrt();
        Some(Self {
            positions: n,
            kl_mean: kl.iter().sum::<f64>() / n as f64,
            kl_p99: p99,
            same_top: positions.iter().filter(|position| position.same_top).count() as f64 / n as f64,
            perplexity: found.exp(),
            reference_perplexity: reference.exp(),
            above_percent: 100.0 * above.exp_m1(),
            above_percent_error: 100.0 * spread / known.sqrt(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_distances() {
        // p, q, KL(p ‖ q); logits may be shifted.
        for (p, q, expected) in [
            ([0.5f64, 0.25, 0.25], [0.5f64, 0.25, 0.25], 0.0),
            ([0.5, 0.25, 0.25], [0.25, 0.5, 0.25], 0.25 * 2f64.ln()),
            ([0.9, 0.05, 0.05], [1.0 / 3.0; 3], 3f64.ln() + 0.9 * 0.9f64.ln() + 0.1 * 0.05f64.ln()),
        ] {
            let logits = |of: [f64; 3], shift: f32| of.map(|p| p.ln() as f32 + shift);
            let position = Position::of(&LogProbs::of(&logits(p, 80.0)), &logits(q, -300.0), Some(0));
            assert!((position.kl - expected).abs() < 1e-4, "{p:?} {q:?} {}", position.kl);
            let [reference, found] = position.nll.unwrap();
            assert!((reference + p[0].ln()).abs() < 1e-4 && (found + q[0].ln()).abs() < 1e-4);
            assert_eq!(position.same_top, p[0] > 0.8 || p == q);
        }
        assert_eq!(Position::of(&LogProbs::of(&[0.0, 1.0]), &[0.0, 1.0], Some(2)).nll, None, "no such token");
        assert!(Position::of(&LogProbs::of(&[0.0, 1.0]), &[f32::NAN, 1.0], None).kl.is_nan(), "seen, not hidden");
    }

    #[test]
    fn summaries() {
        assert!(Summary::of(&[]).is_none());
        let at = |i: usize| Position {
            kl: i as f64,
            same_top: !i.is_multiple_of(4),
            nll: Some([1.0, 1.0 + 0.01 * (i % 2) as f64]),
        };
        let summary = Summary::of(&(1..=200).rev().map(at).collect::<Vec<_>>()).unwrap();
        assert_eq!((summary.positions, summary.kl_mean, summary.kl_p99, summary.same_top), (200, 100.5, 198.0, 0.75));
        assert!((summary.reference_perplexity - 1f64.exp()).abs() < 1e-12);
        assert!((summary.above_percent - 100.0 * 0.005f64.exp_m1()).abs() < 1e-9, "{}", summary.above_percent);
        assert!((summary.above_percent_error - 0.5 / 200f64.sqrt()).abs() < 1e-9, "{}", summary.above_percent_error);
        let one = Summary::of(&[Position { kl: 0.5, same_top: true, nll: None }]).unwrap();
        assert_eq!((one.kl_mean, one.kl_p99), (0.5, 0.5));
    }
}
