//! Means, deviations and shares of explained variance, with what they are where there is next to nothing to take them of.

use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;

/// A deviation below this share of the mean's size is rounding, and says nothing of how values spread.
const LEAST_SPREAD: f32 = 1e-5;
/// Rewards that deviate by less than this share of their mean are not scaled up by it: a first rollout of one cell and a few
/// steps says too little of how rewards spread, and critics would have to learn values of a thousand deviations.
const LEAST_REWARD_SPREAD: f32 = 1e-2;

/// Mean and standard deviation.
pub fn mean_and_deviation(values: &[f32]) -> (f32, f32) {
    let count = values.len().max(1) as f32;
    let mean = values.iter().sum::<f32>() / count;
    let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / count;
    (mean, variance.sqrt())
}

/// The deviation, if it is more than a share of the mean: a single value has none, and neither have equal ones.
fn spread(values: &[f32], least: f32) -> Option<f32> {
    let (mean, deviation) = mean_and_deviation(values);
    (deviation > least * mean.abs()).then_some(deviation)
}

/// What rewards are multiplied by so that they deviate by 1; 1 where they hardly deviate. They differ tenfold from K = 1
/// to K = 5; critics, and the entropy that SAC weighs against them, should not have to.
pub fn reward_scale(rewards: &[f32]) -> f32 {
    spread(rewards, LEAST_REWARD_SPREAD).map_or(1.0, |deviation| 1.0 / deviation)
}

/// Shifts and scales to mean 0 and deviation 1. A single value stays what it is (as in stable-baselines3): there is no batch
/// to be compared with. Values that are all equal become 0.
pub fn normalise(values: &mut [f32]) {
    if values.len() < 2 {
        return;
    }
    if spread(values, LEAST_SPREAD).is_none() {
        values.fill(0.0);
        return;
    }
    let (mean, deviation) = mean_and_deviation(values);
    values.iter_mut().for_each(|v| *v = (*v - mean) / (deviation + 1e-8));
}

/// 1 − Var(target − value) / Var(target); `None` where the target does not vary (cleanrl logs NaN there).
pub fn explained_variance(target: &[f32], values: &[f32]) -> Option<f64> {
    spread(target, LEAST_SPREAD)?;
    let residual: Vec<f32> = target.iter().zip(values).map(|(t, v)| t - v).collect();
    let variance = |values: &[f32]| f64::from(mean_and_deviation(values).1).powi(2);
    Some(1.0 - variance(&residual) / variance(target).max(1e-12))
}

/// Share of the variance that a prediction explains, R² = 1 − Σ(prediction − truth)² / Σ(truth − mean)², over columns of
/// `width`, each with its own mean; `None` where the truth does not vary.
pub fn r_squared(truth: &[f32], prediction: &[f32], width: usize) -> Option<f64> {
    let count = (truth.len() / width.max(1)).max(1) as f64;
    let mut means = vec![0.0; width];
    for row in truth.chunks_exact(width.max(1)) {
        means.iter_mut().zip(row).for_each(|(m, v)| *m += f64::from(*v) / count);
    }
    let (mut missed, mut spread) = (0.0, 0.0);
    for (truth, prediction) in truth.chunks_exact(width.max(1)).zip(prediction.chunks_exact(width.max(1))) {
        for ((t, p), mean) in truth.iter().zip(prediction).zip(&means) {
            missed += f64::from(t - p).powi(2);
            spread += (f64::from(*t) - mean).powi(2);
        }
    }
    (spread > 1e-12).then(|| 1.0 - missed / spread)
}

/// A pass over `count` rows in random order, in parts of equal size (or one apart) and of at most `most` rows.
pub fn minibatches(count: usize, most: usize, rng: &mut Xoshiro256PlusPlus) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(rng);
    let parts = count.div_ceil(most.max(1)).max(1);
    (0..parts).map(|i| order[i * count / parts..(i + 1) * count / parts].to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn what_does_not_vary_is_not_divided_by() {
        let equal = [2.3f32; 7];
        for rewards in [&[][..], &[0.7], &[0.0, 0.0], &equal, &[1e-30, 1e-30]] {
            assert_eq!(reward_scale(rewards), 1.0, "{rewards:?}");
            assert_eq!(explained_variance(rewards, &vec![5.0; rewards.len()]), None);
            assert_eq!(r_squared(rewards, &vec![5.0; rewards.len()], 1), None);
        }
        assert_eq!(reward_scale(&[2.0, 2.001]), 1.0, "two slots that happen to be alike");
        assert_eq!(reward_scale(&[1.0, 3.0]), 1.0);
        assert_eq!(reward_scale(&[1.0, 5.0]), 0.5);
        let (mut alone, mut alike, mut several) = ([3.0f32], equal, [1.0f32, 3.0]);
        normalise(&mut alone);
        normalise(&mut alike);
        normalise(&mut several);
        assert_eq!((alone, alike), ([3.0], [0.0; 7]));
        assert!((several[0] + 1.0).abs() < 1e-6 && (several[1] - 1.0).abs() < 1e-6);
        normalise(&mut []);
    }

    #[test]
    fn explained_variance_is_1_where_all_is_explained_and_0_where_nothing_is() {
        let truth = [1.0, 2.0, 4.0];
        for of in [|t: &[f32], p: &[f32]| explained_variance(t, p), |t: &[f32], p: &[f32]| r_squared(t, p, 1)] {
            assert_eq!(of(&truth, &truth), Some(1.0));
            assert!(of(&truth, &[7.0 / 3.0; 3]).is_some_and(|share| share.abs() < 1e-6));
        }
    }

    #[test]
    fn minibatches_are_even_and_cover_every_row_once() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        for (count, most, sizes) in [(200, 64, vec![50; 4]), (7, 3, vec![2, 2, 3]), (5, 64, vec![5])] {
            let parts = minibatches(count, most, &mut rng);
            assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), sizes);
            let mut all: Vec<usize> = parts.concat();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..count));
        }
    }
}
