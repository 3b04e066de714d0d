//! Stage I's importance scores (eq. 1), from activations on a calibration set, one forward pass.
//!
//! | score | of | made of |
//! | --- | --- | --- |
//! | layer | blocks | 1 − mean over all tokens of cos(block in, block out): block influence |
//! | neuron | FFN neurons | act(gate)·up; by default times the norm of the neuron's down column |
//! | head, group | query heads, KV groups | ‖head output‖₂ before attention's way back |
//! | embed | channels of the residual stream | all 2L + 1 RMSNorm outputs, gain included |
//!
//! What is collected a token is aggregated within each sequence, then over the sequences ([`Aggregate`]). Sequences have no
//! padding. The rise of the loss, the better score of blocks, is in [`depth`](super::depth).

use std::ops::Range;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::error::EcldError;
use super::forward::{Pass, Tap, rms_norm};
use super::real::Real;
use super::spec::{Model, Spec, check_sequences};

/// From many numbers to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregate {
    /// Mean of the absolute values (Minitron's within a sequence).
    MeanAbs,
    /// Mean.
    Mean,
    /// Root of the sum of squares (Minitron's over sequences).
    L2,
    /// Root of the mean of squares.
    Rms,
    /// Variance, of the population.
    Var,
    /// Sum.
    Sum,
    /// Greatest.
    Max,
}

impl Aggregate {
    /// All of them, with the names that files and the command line have for them.
    pub const ALL: [(&'static str, Self); 7] = [
        ("mean_abs", Self::MeanAbs),
        ("mean", Self::Mean),
        ("l2", Self::L2),
        ("rms", Self::Rms),
        ("var", Self::Var),
        ("sum", Self::Sum),
        ("max", Self::Max),
    ];

    /// By its name.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn named(name: &str) -> Result<Self, EcldError> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, aggregate)| *aggregate);
        found.ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|(name, _)| *name).collect();
            EcldError::input(format!("no aggregation is called {name:?}; there are {}", names.join(", ")))
        })
    }

    /// Of a list.
    pub fn of(self, values: &[f64]) -> f64 {
        let mut sums = Running::new(1);
        for value in values {
            sums.add(std::iter::once(*value));
        }
        sums.finish(self).first().copied().unwrap_or(0.0)
    }
}

/// What every aggregation of a list of numbers needs, number by number.
#[derive(Debug, Clone)]
struct Running {
    n: f64,
    abs: Vec<f64>,
    squares: Vec<f64>,
    max: Vec<f64>,
    /// Welford's mean and sum of squared distances from it.
    mean: Vec<f64>,
    spread: Vec<f64>,
}

impl Running {
    fn new(width: usize) -> Self {
        let zeros = vec![0.0; width];
        Self {
            n: 0.0,
            abs: zeros.clone(),
            squares: zeros.clone(),
            max: vec![f64::NEG_INFINITY; width],
            mean: zeros.clone(),
            spread: zeros,
        }
    }

    fn add(&mut self, values: impl Iterator<Item = f64>) {
        self.n += 1.0;
        for (i, value) in values.take(self.abs.len()).enumerate() {
            self.abs[i] += value.abs();
            self.squares[i] += value * value;
            self.max[i] = self.max[i].max(value);
            let off = value - self.mean[i];
            self.mean[i] += off / self.n;
            self.spread[i] += off * (value - self.mean[i]);
        }
    }

    fn add_rows<R: Real>(&mut self, rows: &[R]) {
        for row in rows.chunks_exact(self.abs.len().max(1)) {
            self.add(row.iter().map(|v| v.wide()));
        }
    }

    fn finish(&self, how: Aggregate) -> Vec<f64> {
        let n = self.n.max(1.0);
        let each = |list: &[f64], f: &dyn Fn(f64) -> f64| list.iter().map(|v| f(*v)).collect();
        match how {
            Aggregate::MeanAbs => each(&self.abs, &|v| v / n),
            Aggregate::Mean => each(&self.mean, &|v| v),
            Aggregate::Sum => each(&self.mean, &|v| v * n),
            Aggregate::L2 => each(&self.squares, &f64::sqrt),
            Aggregate::Rms => each(&self.squares, &|v| (v / n).sqrt()),
            Aggregate::Var => each(&self.spread, &|v| v / n),
            Aggregate::Max => each(&self.max, &|v| v),
        }
    }
}

/// How scores are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Within a sequence.
    pub seq: Aggregate,
    /// Over the sequences.
    pub batch: Aggregate,
    /// From a group's heads to the group.
    pub group: Aggregate,
    /// Whether a neuron's score is multiplied with the norm of its down column.
    pub times_down: bool,
}

impl Default for Options {
    /// l2 of the activation × ‖down column‖: never far off on the models that were tried, where every plain score ruins one.
    fn default() -> Self {
        Self { seq: Aggregate::L2, batch: Aggregate::L2, group: Aggregate::Sum, times_down: true }
    }
}

/// All scores but the rise of the loss.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// `[layers]`.
    pub layer: Vec<f64>,
    /// `[layers][ffn]`.
    pub neuron: Vec<Vec<f64>>,
    /// `[layers][heads]`.
    pub head: Vec<Vec<f64>>,
    /// `[layers][kv_heads]`.
    pub group: Vec<Vec<f64>>,
    /// `[dim]`.
    pub embed: Vec<f64>,
}

/// Of `values` `[n, width]`: aggregated within each sequence by `seq`, ready to be aggregated over them.
fn within<R: Real>(values: &[R], width: usize, rows: &[Range<usize>], seq: Aggregate) -> Running {
    let of_one = |rows: &Range<usize>| {
        let mut one = Running::new(width);
        one.add_rows(values.get(rows.start * width..rows.end * width).unwrap_or_default());
        one.finish(seq)
    };
    let all: Vec<Vec<f64>> = rows.par_iter().map(of_one).collect();
    let mut over = Running::new(width);
    for one in all {
        over.add(one.into_iter());
    }
    over
}

/// What one block shows, aggregated within the sequences.
struct Collect<'a> {
    spec: &'a Spec,
    rows: &'a [Range<usize>],
    seq: Aggregate,
    neurons: Running,
    heads: Running,
    norms: Vec<Running>,
}

impl<R: Real> Tap<R> for Collect<'_> {
    fn normed(&mut self, normed: &[R]) {
        self.norms.push(within(normed, self.spec.dim, self.rows, self.seq));
    }

    fn heads(&mut self, heads: &[R]) {
        let norms: Vec<f64> = heads.par_chunks_exact(self.spec.head_dim).map(|head| squares(head).sqrt()).collect();
        self.heads = within(&norms, self.spec.heads, self.rows, self.seq);
    }

    fn neurons(&mut self, neurons: &[R]) {
        self.neurons = within(neurons, self.spec.ffn, self.rows, self.seq);
    }
}

fn squares<R: Real>(x: &[R]) -> f64 {
    x.iter().map(|v| v.wide() * v.wide()).sum()
}

/// Cosine of the angle between both; 0 where one of them is nothing.
fn cosine<R: Real>(x: &[R], y: &[R]) -> f64 {
    let product: f64 = x.iter().zip(y).map(|(x, y)| x.wide() * y.wide()).sum();
    let norms = (squares(x) * squares(y)).sqrt();
    if norms > 0.0 { product / norms } else { 0.0 }
}

/// All scores of `model` on `sequences`, in one pass. `tick` hears of every block's work, million floating-point operations,
/// and may stop it.
///
/// # Errors
/// The sequences are empty or do not fit the model, the model cannot be read, or `tick` says stop.
pub fn scores<R: Real>(
    model: &dyn Model<R>,
    sequences: &[Vec<u32>],
    options: Options,
    tick: &mut dyn FnMut(u64) -> Result<(), EcldError>,
) -> Result<Scores, EcldError> {
    let spec = model.spec();
    check_sequences(spec, sequences.iter().map(Vec::as_slice))?;
    let mut x = model.embed(&sequences.concat())?;
    let pass = Pass::new(spec, sequences.iter().map(Vec::len));
    let (rows, seq) = (pass.rows(), options.seq);
    let mut scores = Scores { embed: vec![0.0; spec.dim], ..Scores::default() };
    let add_norm = |embed: &mut [f64], over: &Running| {
        for (sum, value) in embed.iter_mut().zip(over.finish(options.batch)) {
            *sum += value;
        }
    };
    for layer in 0..spec.layers {
        let weights = model.block(layer)?;
        let before = x.clone();
        let (neurons, heads) = (Running::new(spec.ffn), Running::new(spec.heads));
        let mut seen = Collect { spec, rows, seq, neurons, heads, norms: Vec::new() };
        pass.block(&weights, &mut x, &mut seen);
        let turned = before.par_chunks_exact(spec.dim).zip(x.par_chunks_exact(spec.dim));
        let cosines: Vec<f64> = turned.map(|(before, after)| cosine(before, after)).collect();
        scores.layer.push(1.0 - cosines.iter().sum::<f64>() / cosines.len() as f64);
        let mut of_neurons = seen.neurons.finish(options.batch);
        if options.times_down {
            let columns = columns(&weights.down, spec.ffn);
            for (score, squares) in of_neurons.iter_mut().zip(columns) {
                *score *= squares.sqrt();
            }
        }
        scores.neuron.push(of_neurons);
        let of_heads = seen.heads.finish(options.batch);
        scores.group.push(of_heads.chunks(spec.rep().max(1)).map(|group| options.group.of(group)).collect());
        scores.head.push(of_heads);
        for norm in &seen.norms {
            add_norm(&mut scores.embed, norm);
        }
        tick(spec.block_work(pass.tokens()))?;
    }
    let normed = rms_norm(&x, &model.output_norm()?, spec.rms_eps);
    add_norm(&mut scores.embed, &within(&normed, spec.dim, rows, seq));
    Ok(scores)
}

/// The sum of squares of every column of `values` `[rows, cols]`.
fn columns<R: Real>(values: &[R], cols: usize) -> Vec<f64> {
    let mut all = vec![0.0; cols];
    for row in values.chunks_exact(cols.max(1)) {
        for (sum, value) in all.iter_mut().zip(row) {
            *sum += value.wide() * value.wide();
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aggregations() {
        let values = [3.0, -4.0];
        for (name, want) in [
            ("mean_abs", 3.5),
            ("mean", -0.5),
            ("l2", 5.0),
            ("rms", 12.5f64.sqrt()),
            ("var", 12.25),
            ("sum", -1.0),
            ("max", 3.0),
        ] {
            assert!((Aggregate::named(name).unwrap().of(&values) - want).abs() < 1e-12, "{name}");
        }
        assert!(Aggregate::named("median").unwrap_err().to_string().contains("mean_abs"));
    }
}
