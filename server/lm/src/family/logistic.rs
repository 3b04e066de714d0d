//! Logistic regression on a few features: small enough to be fitted by plain gradient descent, always to the same weights.

use serde::Serialize;

/// Steps of gradient descent; the loss is convex and the features have unit spread, so that they do.
const STEPS: usize = 4000;
/// Their length.
const RATE: f64 = 0.5;
/// Weight of ‖w‖²/2 in the mean loss: features that tell the same share what they say.
const RIDGE: f64 = 1e-3;

/// P(label) = 1 / (1 + exp(−(b + Σ w·(x − mean)/spread))).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Logistic {
    /// Of each feature, on what it was fitted on.
    pub mean: Vec<f64>,
    /// Standard deviation of each, 1 where it never changes.
    pub spread: Vec<f64>,
    /// Of the features in units of their spread.
    pub weights: Vec<f64>,
    /// b.
    pub bias: f64,
}

impl Logistic {
    /// Fitted to `rows` of features with a label each; of no rows it says ½.
    pub fn fit(rows: &[(Vec<f64>, bool)]) -> Self {
        let n = rows.len().max(1) as f64;
        let width = rows.first().map_or(0, |(row, _)| row.len());
        let of = |f: &dyn Fn(usize, f64) -> f64| -> Vec<f64> {
            let sum = |i| rows.iter().filter_map(|(row, _)| row.get(i)).map(|x| f(i, *x)).sum::<f64>() / n;
            (0..width).map(sum).collect()
        };
        let mean = of(&|_, x| x);
        let spread: Vec<f64> = of(&|i, x| (x - mean[i]).powi(2)).into_iter().map(f64::sqrt).collect();
        let spread = spread.into_iter().map(|s| if s > 1e-9 { s } else { 1.0 }).collect();
        let mut fitted = Self { mean, spread, weights: vec![0.0; width], bias: 0.0 };
        let rows: Vec<(Vec<f64>, f64)> =
            rows.iter().map(|(row, label)| (fitted.scaled(row), f64::from(u8::from(*label)))).collect();
        for _ in 0..STEPS {
            let mut slope = vec![0.0; width];
            let mut slope_bias = 0.0;
            for (row, label) in &rows {
                let off = fitted.of_scaled(row) - label;
                slope_bias += off;
                for (slope, x) in slope.iter_mut().zip(row) {
                    *slope += off * x;
                }
            }
            fitted.bias -= RATE * slope_bias / n;
            for (weight, slope) in fitted.weights.iter_mut().zip(slope) {
                *weight -= RATE * (slope / n + RIDGE * *weight);
            }
        }
        fitted
    }

    fn scaled(&self, row: &[f64]) -> Vec<f64> {
        row.iter().zip(&self.mean).zip(&self.spread).map(|((x, mean), spread)| (x - mean) / spread).collect()
    }

    fn of_scaled(&self, row: &[f64]) -> f64 {
        let z = self.bias + row.iter().zip(&self.weights).map(|(x, weight)| x * weight).sum::<f64>();
        1.0 / (1.0 + (-z).exp())
    }

    /// P(label) of a row of features.
    pub fn probability(&self, row: &[f64]) -> f64 {
        self.of_scaled(&self.scaled(row))
    }
}

/// The share of pairs of one with the label and one without of which the first has the greater score; ties count half. ½ says
/// nothing, 1 tells them apart; `None` where one sort is missing.
pub fn ranked_right(scores: &[(f64, bool)]) -> Option<f64> {
    let side = |wanted: bool| scores.iter().filter(move |(_, label)| *label == wanted).map(|(score, _)| *score);
    let (with, without) = (side(true).count(), side(false).count());
    let won: f64 = side(true)
        .map(|a| side(false).map(|b| f64::from(u8::from(a > b)) + 0.5 * f64::from(u8::from(a == b))).sum::<f64>())
        .sum();
    (with > 0 && without > 0).then(|| won / (with * without) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_odds_are_found() {
        // P = 0.2 at 0, 0.8 at 10: log-odds from −ln 4 to ln 4; the second feature never changes.
        let rows: Vec<(Vec<f64>, bool)> = (0..1000)
            .map(|i| (vec![if i % 2 == 0 { 0.0 } else { 10.0 }, 7.0], (i / 2) % 5 < if i % 2 == 0 { 1 } else { 4 }))
            .collect();
        let fitted = Logistic::fit(&rows);
        for (x, want) in [(0.0, 0.2), (5.0, 0.5), (10.0, 0.8)] {
            assert!((fitted.probability(&[x, 7.0]) - want).abs() < 0.005, "{x}: {}", fitted.probability(&[x, 7.0]));
        }
        assert_eq!(fitted, Logistic::fit(&rows));
        assert_eq!(Logistic::fit(&[]).probability(&[]), 0.5);
    }

    #[test]
    fn ranks() {
        for (scores, want) in [
            (vec![(0.1, false), (0.9, true)], Some(1.0)),
            (vec![(0.9, false), (0.1, true), (0.95, true)], Some(0.5)),
            (vec![(0.5, false), (0.5, true)], Some(0.5)),
            (vec![(0.5, true)], None),
        ] {
            assert_eq!(ranked_right(&scores), want);
        }
    }
}
