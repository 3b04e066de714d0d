//! What a quantiser leaves of weights, without a file: for trainings that round on their way.

use std::str::FromStr;

use engine::gguf::GgmlType;
use engine::quant;
use rayon::prelude::*;

use super::encode::{Fit, can_write, encode};
use super::error::EcldError;
use super::quantise::stored_as;
use super::uniform::{self, Effort};

/// A quantiser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// A block format, with searched scales.
    Type(GgmlType),
    /// The paper's: bits, and weights that share (a, Δ), which are found from one start.
    Uniform(u32, usize),
}

impl FromStr for Rounding {
    type Err = EcldError;

    /// `Q4_0` and so on, or `uniform-BITS-GROUP`.
    fn from_str(name: &str) -> Result<Self, EcldError> {
        use GgmlType::{Bf16, F16, Q4_0, Q4_1, Q4K, Q5_0, Q8_0};
        if let Some(rest) = name.strip_prefix("uniform-") {
            let parts = rest.split_once('-').and_then(|(bits, group)| Some((bits.parse().ok()?, group.parse().ok()?)));
            let (bits, group) = parts.unwrap_or((0, 0));
            return match (1..=8).contains(&bits) && group > 0 {
                true => Ok(Self::Uniform(bits, group)),
                false => Err(EcldError::input(format!("{name:?}: write uniform-BITS-GROUP, as uniform-2-64"))),
            };
        }
        let all = [F16, Bf16, Q4_0, Q4_1, Q5_0, Q8_0, Q4K];
        let found = all.into_iter().find(|dtype| dtype.name().eq_ignore_ascii_case(name) && can_write(*dtype));
        let names = all.map(GgmlType::name).join(", ");
        let found = found.ok_or_else(|| {
            EcldError::input(format!("no type {name} is written here: there are {names} and uniform-BITS-GROUP"))
        });
        found.map(Self::Type)
    }
}

impl Rounding {
    /// What is read back after `values`, rows of `cols`, were written. Rows that are no whole blocks become what a file would
    /// hold of them.
    ///
    /// # Errors
    /// A value is no number, or half precision cannot hold a scale.
    pub fn apply(self, values: &[f32], cols: usize) -> Result<Vec<f32>, EcldError> {
        match self {
            Self::Type(dtype) => {
                let dtype = stored_as(dtype, cols);
                let bytes = encode(dtype, values, Fit::Searched)?;
                let mut read = vec![0.0; values.len()];
                match quant::dequantize(dtype, &bytes, &mut read) {
                    true => Ok(read),
                    false => Err(EcldError::input(format!("{} cannot be read back", dtype.name()))),
                }
            }
            Self::Uniform(bits, group) => {
                let rows = values.par_chunks(cols.max(1)).map(|row| -> Result<Vec<f32>, EcldError> {
                    let wide: Vec<f64> = row.iter().map(|v| f64::from(*v)).collect();
                    let groups = uniform::rows([wide.as_slice()], bits, group, |weights, bits| {
                        uniform::minimised(weights, bits, Effort::Single)?.to_half()
                    })?;
                    let values = groups.iter().flat_map(|group| group.quantised.values.iter().map(|v| *v as f32));
                    Ok(values.collect())
                });
                let rows: Vec<Vec<f32>> = rows.collect::<Result<_, EcldError>>()?;
                Ok(rows.concat())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantisers_have_names() {
        assert_eq!("q4_0".parse::<Rounding>().unwrap(), Rounding::Type(GgmlType::Q4_0));
        assert_eq!("uniform-2-64".parse::<Rounding>().unwrap(), Rounding::Uniform(2, 64));
        for name in ["Q9", "uniform-0-64", "uniform-2", "uniform-2-0", ""] {
            assert!(name.parse::<Rounding>().unwrap_err().to_string().contains("uniform-"), "{name}");
        }
    }

    #[test]
    fn rounded_weights_are_near_and_few() {
        let values: Vec<f32> = (0..256).map(|i| (i as f32 * 0.37).sin()).collect();
        for (name, worst) in [("Q8_0", 0.005), ("Q4_0", 0.15), ("uniform-3-64", 0.3), ("uniform-2-32", 0.5)] {
            let found = name.parse::<Rounding>().unwrap().apply(&values, 64).unwrap();
            let off = values.iter().zip(&found).fold(0f32, |off, (a, b)| off.max((a - b).abs()));
            assert!(off < worst && off > 0.0, "{name}: {off}");
        }
        let two = Rounding::Uniform(2, 64).apply(&values, 64).unwrap();
        for row in two.chunks(64) {
            let mut levels: Vec<u32> = row.iter().map(|v| v.to_bits()).collect();
            levels.sort_unstable();
            levels.dedup();
            assert!(levels.len() <= 4, "{levels:?}");
        }
    }
}
