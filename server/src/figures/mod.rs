//! The paper's figures of the control part, drawn from our own runs and policies, each with the numbers behind it.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`compact`] | Table I and Fig. 6 of compact models of our own teacher |
//! | [`learning`] | Fig. 8: reward over episodes, from the folders that training runs leave |
//! | [`sliders`] | a policy's share of the optimum over the range of one slider after the other |
//! | [`systems`] | Fig. 9 and 10: policies on fresh slots of systems of different K, sizes, and their quality |
//!
//! Deliberately absent: training (the runs are read as they are) and any judgement of the paper's claims.

use std::path::Path;

use serde::Serialize;

use rl::checkpoint::write_whole;
use rl::error::TrainError;

pub mod compact;
pub mod learning;
pub mod sliders;
pub mod systems;

/// A figure: a picture, and the same as data.
pub struct Figure {
    /// File name without extension, `fig9a`.
    pub stem: String,
    /// The picture.
    pub svg: String,
    /// What it was drawn from, and more of the same measurement.
    pub data: serde_json::Value,
}

impl Figure {
    pub(crate) fn new(stem: &str, svg: String, data: impl Serialize) -> Result<Self, TrainError> {
        let data = serde_json::to_value(data)
            .map_err(|e| TrainError::Damaged { path: format!("{stem}.json").into(), problem: e.to_string() })?;
        Ok(Self { stem: stem.to_owned(), svg, data })
    }

    /// Writes `STEM.svg` and `STEM.json` into a folder, which is made if it is not there.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write(&self, dir: &Path) -> Result<(), TrainError> {
        std::fs::create_dir_all(dir).map_err(|source| TrainError::File { path: dir.to_owned(), source })?;
        write_whole(&dir.join(format!("{}.svg", self.stem)), self.svg.as_bytes())?;
        write_whole(&dir.join(format!("{}.json", self.stem)), format!("{:#}\n", self.data).as_bytes())
    }
}

/// Mean of some independent measurements, with half the width of its 95 % interval by Student's t; 0 for fewer than two.
pub fn mean_and_half_width(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count.max(1.0);
    if values.len() < 2 {
        return (mean, 0.0);
    }
    let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (count - 1.0);
    (mean, student_975(values.len() - 1) * (variance / count).sqrt())
}

/// The 97.5 % quantile of Student's t, from a table up to 30 degrees of freedom, then by Cornish and Fisher's expansion.
fn student_975(freedom: usize) -> f64 {
    const TABLE: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
        2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
    ];
    let normal: f64 = 1.959_964;
    let first = (normal.powi(3) + normal) / 4.0;
    let second = (5.0 * normal.powi(5) + 16.0 * normal.powi(3) + 3.0 * normal) / 96.0;
    let expansion = |freedom: f64| normal + first / freedom + second / (freedom * freedom);
    TABLE.get(freedom.saturating_sub(1)).copied().unwrap_or(expansion(freedom as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_students() {
        // 1..5: mean 3, standard deviation 1.5811, over √5, times t(4).
        let (mean, half) = mean_and_half_width(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        assert!((mean - 3.0).abs() < 1e-12 && (half - 2.776 / 2.0_f64.sqrt()).abs() < 1e-6, "{mean} {half}");
        assert_eq!(mean_and_half_width(&[7.0]), (7.0, 0.0));
        // The table and the expansion meet.
        assert!((student_975(31) - 2.0395).abs() < 1e-3 && student_975(31) < student_975(30));
    }
}
