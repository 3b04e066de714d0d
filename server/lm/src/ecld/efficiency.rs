//! Fig. 6: hallucination and accuracy joined with size and energy, as HRE and ARE.
//!
//! Each is a harmonic mean of three normalised metrics: hallucination (HRE) or accuracy (ARE), bytes, energy. What is to be
//! large becomes x / max(x). What is to be small becomes min(x) / x in the reading that is used here; the other one,
//! 1 − x / max(x), gives 0 to the worst row of any column.

use super::error::{EcldError, finite};

/// How what is to be small is normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// min(x) / x.
    Reciprocal,
    /// 1 − x / max(x).
    Complement,
}

/// One variant of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// Hallucination rate, 0 to 1. Where no sentence was wrong, put 1 / (2 · sentences): 0 would divide by nothing.
    pub hallucination: f64,
    /// Accuracy, in any unit.
    pub accuracy: f64,
    /// Size, in any unit.
    pub size: f64,
    /// Energy per query, in any unit.
    pub energy: f64,
}

/// HRE and ARE of every row, 0 to 1.
///
/// # Errors
/// A number is none or negative, or in the reciprocal form a hallucination rate, a size or an energy is 0.
pub fn hre_are(rows: &[Row], form: Form) -> Result<Vec<[f64; 2]>, EcldError> {
    let column = |name: &str, get: fn(&Row) -> f64| -> Result<Vec<f64>, EcldError> {
        let values: Vec<f64> = rows.iter().map(get).collect();
        finite(name, &values)?;
        if let Some(negative) = values.iter().find(|v| **v < 0.0) {
            return Err(EcldError::input(format!("{name} {negative} is below 0")));
        }
        Ok(values)
    };
    let small = |name: &str, get: fn(&Row) -> f64| -> Result<Vec<f64>, EcldError> {
        let values = column(name, get)?;
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(0.0, f64::max);
        if form == Form::Reciprocal && least <= 0.0 {
            return Err(EcldError::input(format!(
                "{name} 0 cannot be normalised by min/x; a hallucination rate of 0 is at most 1/(2 · sentences)"
            )));
        }
        Ok(values
            .iter()
            .map(|v| match form {
                Form::Reciprocal => least / v,
                Form::Complement if most > 0.0 => 1.0 - v / most,
                Form::Complement => 1.0,
            })
            .collect())
    };
    let hallucination = small("hallucination", |row| row.hallucination)?;
    let (size, energy) = (small("size", |row| row.size)?, small("energy", |row| row.energy)?);
    let accuracy = column("accuracy", |row| row.accuracy)?;
    let most = accuracy.iter().copied().fold(0.0, f64::max);
    let accuracy = accuracy.iter().map(|v| if most > 0.0 { v / most } else { 0.0 });
    let shared = size.iter().zip(&energy);
    Ok(hallucination
        .iter()
        .zip(accuracy)
        .zip(shared)
        .map(|((h, a), (s, e))| [harmonic([*h, *s, *e]), harmonic([a, *s, *e])])
        .collect())
}

/// The harmonic mean; 0 where one of them is.
fn harmonic(values: [f64; 3]) -> f64 {
    if values.iter().any(|v| *v <= 0.0) { 0.0 } else { 3.0 / values.iter().map(|v| 1.0 / v).sum::<f64>() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_row_of_every_column_has_one() {
        let row = |h, a, s, e| Row { hallucination: h, accuracy: a, size: s, energy: e };
        let rows = [row(0.5, 80.0, 10.0, 1.0), row(1.0, 40.0, 20.0, 2.0), row(0.5, 0.0, 10.0, 1.0)];
        let found = hre_are(&rows, Form::Reciprocal).unwrap();
        assert_eq!(found, [[1.0, 1.0], [0.5, 0.5], [1.0, 0.0]]);
        assert_eq!(hre_are(&rows, Form::Complement).unwrap()[1], [0.0, 0.0]);
        assert!(hre_are(&[row(0.0, 1.0, 1.0, 1.0)], Form::Reciprocal).is_err());
        assert!(hre_are(&[row(f64::NAN, 1.0, 1.0, 1.0)], Form::Complement).is_err());
        assert!(hre_are(&[row(-0.5, 1.0, 1.0, 1.0)], Form::Complement).is_err());
    }
}
