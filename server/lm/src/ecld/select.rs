//! From scores to what stays (eq. 2, 4 and 6): the best by ratio, or all above a threshold. Of equals the lower index stays.

use super::error::{EcldError, finite};

/// How many of `n` stay when the share `ratio` goes: the nearest multiple of `multiple`, half up, at least one of them, and
/// never more than there are.
///
/// # Errors
/// The ratio is not in [0, 1), or the multiple is 0.
pub fn count(n: usize, ratio: f64, multiple: usize) -> Result<usize, EcldError> {
    if !(0.0..1.0).contains(&ratio) {
        return Err(EcldError::input(format!("the ratio {ratio} leaves nothing, or is none; it must be in [0, 1)")));
    }
    if multiple == 0 {
        return Err(EcldError::input("sizes cannot be multiples of 0"));
    }
    let kept = (n as f64 * (1.0 - ratio) / multiple as f64 + 0.5).floor() as usize;
    Ok(kept.saturating_mul(multiple).clamp(multiple.min(n), n))
}

/// The `kept` best, in order of their index.
///
/// # Errors
/// A score is no number, or there are none.
pub fn best(scores: &[f64], kept: usize) -> Result<Vec<usize>, EcldError> {
    finite("the list of scores", scores)?;
    if scores.is_empty() {
        return Err(EcldError::input("there are no scores to choose by"));
    }
    let score = |index: &usize| scores.get(*index).copied().unwrap_or(f64::NEG_INFINITY);
    let mut order: Vec<usize> = (0..scores.len()).collect();
    // Stable: equals stay in order of their index.
    order.sort_by(|left, right| score(right).total_cmp(&score(left)));
    order.truncate(kept.max(1));
    order.sort_unstable();
    Ok(order)
}

/// What stays when the share `ratio` goes.
///
/// # Errors
/// As [`count`] and [`best`].
pub fn by_ratio(scores: &[f64], ratio: f64, multiple: usize) -> Result<Vec<usize>, EcldError> {
    best(scores, count(scores.len(), ratio, multiple)?)
}

/// All scores of at least `theta`, which is in units of their mean where it is `relative`; where there is none, the best.
///
/// # Errors
/// A score or the threshold is no number, or there are no scores.
pub fn by_threshold(scores: &[f64], theta: f64, relative: bool) -> Result<Vec<usize>, EcldError> {
    let top = best(scores, 1)?;
    finite("the threshold", &[theta])?;
    let mean = scores.iter().sum::<f64>() / scores.len() as f64;
    let least = if relative { theta * mean } else { theta };
    let kept: Vec<usize> = scores.iter().enumerate().filter(|(_, s)| **s >= least).map(|(i, _)| i).collect();
    Ok(if kept.is_empty() { top } else { kept })
}

/// Whether all scores are one: then indices decide, which whoever asked should know.
pub fn all_equal(scores: &[f64]) -> bool {
    scores.len() > 1 && scores.windows(2).all(|pair| pair[0] == pair[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_the_nearest_multiples() {
        for (n, ratio, multiple, kept) in [
            (24, 0.1, 1, 22),
            (3, 0.34, 1, 2),
            (10, 0.65, 1, 4),
            (1536, 0.3, 32, 1088),
            (704, 0.5, 256, 256),
            (704, 0.0, 256, 704),
            (10, 0.99, 1, 1),
            (10, 0.99, 4, 4),
            (3, 0.9, 8, 3),
        ] {
            assert_eq!(count(n, ratio, multiple).unwrap(), kept, "{n} {ratio} {multiple}");
        }
        for (ratio, multiple) in [(1.0, 1), (-0.1, 1), (f64::NAN, 1), (0.5, 0)] {
            assert!(count(10, ratio, multiple).is_err(), "{ratio} {multiple}");
        }
    }

    #[test]
    fn the_lower_index_of_equals_stays() {
        assert_eq!(by_ratio(&[1.0, 2.0, 1.0, 2.0, 0.0], 0.4, 1).unwrap(), [0, 1, 3]);
        assert_eq!(by_threshold(&[0.5, 1.0, 1.5], 1.0, true).unwrap(), [1, 2]);
        assert_eq!(by_threshold(&[0.5, 3.0, 3.0], 9.0, false).unwrap(), [1]);
        assert!(by_ratio(&[1.0, f64::NAN], 0.5, 1).is_err() && by_threshold(&[], 1.0, true).is_err());
        assert!(all_equal(&[2.0, 2.0]) && !all_equal(&[2.0, 2.1]));
    }
}
