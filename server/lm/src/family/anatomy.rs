//! What a family's pictures show beside its numbers: what is left of the teacher in a cut file, and what scored how.

use serde::Serialize;

use crate::ecld::cut::Kind;
use crate::ecld::depth::{self, Scored};
use crate::ecld::file::{Archive, Stored, Teacher};
use crate::ecld::spec::{Model as _, Spec};
use crate::ecld::{EcldError, score};

/// What is left of the teacher, by the teacher's numbers, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Blocks.
    pub layers: Vec<usize>,
    /// Query heads of each block that is left, in the order of `layers`.
    pub heads: Vec<Vec<usize>>,
    /// FFN neurons of each block that is left, in the order of `layers`.
    pub neurons: Vec<Vec<usize>>,
}

/// Scores of the teacher's parts on the calibration set (eq. 1), for a heat map.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Importance {
    /// Calibration tokens.
    pub tokens: usize,
    /// `[layers]`: 1 − cosine of what goes into a block and what comes out.
    pub influence: Vec<f64>,
    /// `[layers]`: rise of the loss without the block, nats a token.
    pub loss_rise: Vec<Option<f64>>,
    /// `[layers][heads]`: norm of a head's output.
    pub heads: Vec<Vec<f64>>,
    /// `[layers][ffn]`: l2 of a neuron's activation by the norm of its down column, four significant digits.
    pub neurons: Vec<Vec<f64>>,
}

impl Kept {
    /// What is left of `teacher` in `cut`, which was cut from it and not trained since: whose gains and rows are the teacher's
    /// to the bit.
    ///
    /// # Errors
    /// A block, head or neuron of `cut` is none of the teacher's: it was trained, or cut from another model.
    pub fn of(teacher: &Archive, cut: &Archive) -> Result<Self, EcldError> {
        let (whole, rest) = (Spec::of(&teacher.plan), Spec::of(&cut.plan));
        let mut kept = Self::default();
        for layer in 0..rest.layers {
            let gains = bytes(cut, layer, "attn_norm")?;
            let from = kept.layers.last().map_or(0, |last| last + 1);
            let same = |old: &usize| bytes(teacher, *old, "attn_norm").is_ok_and(|other| other == gains);
            let old = (from..whole.layers).find(same).ok_or_else(|| stranger(cut, "block", layer))?;
            let units = |part: &str, own: usize, count: usize| -> Result<Vec<usize>, EcldError> {
                let (small, large) = (bytes(cut, layer, part)?, bytes(teacher, old, part)?);
                let unit = (large.len() / own.max(1)).max(1);
                let all: Vec<&[u8]> = large.chunks_exact(unit).collect();
                let mut places = Vec::new();
                for chunk in small.chunks_exact(unit) {
                    let from = places.last().map_or(0, |last| last + 1);
                    let place = (from..all.len()).find(|place| all.get(*place) == Some(&chunk));
                    places.push(place.ok_or_else(|| stranger(cut, part, places.len()))?);
                }
                match places.len() == count {
                    true => Ok(places),
                    false => Err(stranger(cut, part, places.len())),
                }
            };
            kept.heads.push(units("attn_q", whole.heads, rest.heads)?);
            kept.neurons.push(units("ffn_gate", whole.ffn, rest.ffn)?);
            kept.layers.push(old);
        }
        Ok(kept)
    }
}

fn stranger(cut: &Archive, what: &str, number: usize) -> EcldError {
    EcldError::file(&cut.path, format!("{what} {number} is none of the teacher's: it was trained, or cut from another"))
}

/// A block's tensor as it is stored.
fn bytes(archive: &Archive, layer: usize, part: &str) -> Result<Vec<u8>, EcldError> {
    let kind = match part {
        "attn_norm" => Kind::Norm,
        "attn_q" => Kind::Query,
        _ => Kind::Neuron,
    };
    let name = format!("blk.{layer}.{part}.weight");
    let found = |tensor: &&Stored| tensor.kind == kind && tensor.name == name;
    let tensor = archive.tensors.iter().find(found);
    let tensor = tensor.ok_or_else(|| EcldError::tensor(&archive.path, &name, "it is missing"))?;
    archive.row_bytes(tensor, 0..tensor.row_count())
}

impl Importance {
    /// Of `teacher` on `sequences`, in one pass and one more for every second block.
    ///
    /// # Errors
    /// The teacher cannot be read, or `tick` says stop.
    pub fn of(
        teacher: &Teacher,
        sequences: &[Scored],
        tick: &mut dyn FnMut(u64) -> Result<(), EcldError>,
    ) -> Result<Self, EcldError> {
        let tokens: Vec<Vec<u32>> = sequences.iter().map(|scored| scored.tokens.clone()).collect();
        let scores = score::scores(teacher, &tokens, score::Options::default(), tick)?;
        let layers: Vec<usize> = (0..teacher.spec().layers).collect();
        let rise = depth::rise(teacher, sequences, &[], &layers, tick)?;
        let short = |lists: Vec<Vec<f64>>| lists.into_iter().map(|list| list.into_iter().map(four_digits).collect());
        Ok(Self {
            tokens: tokens.iter().map(Vec::len).sum(),
            influence: scores.layer,
            loss_rise: rise.rise,
            heads: short(scores.head).collect(),
            neurons: short(scores.neuron).collect(),
        })
    }
}

/// Four significant digits: a picture shows no more.
fn four_digits(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let scale = 10f64.powi(3 - value.abs().log10().floor() as i32);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, want) in [(0.0, 0.0), (123_456.0, 123_500.0), (-0.001_234_56, -0.001_235), (9.999_96, 10.0)] {
            assert!((four_digits(value) - want).abs() < 1e-12, "{value}");
        }
        assert!(four_digits(f64::NAN).is_nan());
    }
}
