//! A quick look at accuracy during training: a question counts when every token of its answer is the most likely one.
//!
//! Greedy decoding then writes exactly the answer, so this is a lower bound of eq. 23's accuracy (which asks for
//! containment only) at the price of one forward pass for a whole batch of questions.

use super::batch::{Doc, Words, pack};
use super::corpus::{Corpus, Fact, Hops};
use super::model::{Llama, Rope, mask};
use super::train::TrainError;
use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// Rows and tokens of a probe's batches.
const SHAPE: [usize; 2] = [32, 64];

/// The sampled questions, tokenised.
#[derive(Debug, Clone)]
pub struct Probe {
    single: Vec<Doc>,
    seen: Vec<Doc>,
    two: Vec<Doc>,
}

/// Shares of questions answered token by token as taught.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Exact {
    /// Single-hop, wordings of the training.
    pub seen: f64,
    /// Single-hop, held-out wordings.
    pub single_hop: f64,
    /// Two-hop, held-out pairs.
    pub two_hop: f64,
}

impl Probe {
    /// Samples `n` questions of each sort with `seed`.
    pub fn new(corpus: &Corpus, t: &dyn Words, n: usize, seed: u64) -> Result<Self, TrainError> {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut pick =
            |keep: &dyn Fn(&Fact) -> bool, words: &dyn Fn(&Fact) -> Vec<String>| -> Result<Vec<Doc>, TrainError> {
                let mut facts: Vec<&Fact> = corpus.facts.iter().filter(|f| keep(f)).collect();
                facts.shuffle(&mut rng);
                let mut docs = Vec::new();
                for fact in facts.into_iter().take(n) {
                    let words = words(fact);
                    let question = &words[rng.random_range(0..words.len())];
                    docs.push(Doc::question(t, question, &fact.answer)?);
                }
                Ok(docs)
            };
        Ok(Self {
            single: pick(&|f| f.hops == Hops::Single, &Fact::held_out_wordings)?,
            seen: pick(&|f| f.hops == Hops::Single, &Fact::training_wordings)?,
            two: pick(&|f| f.held_out, &Fact::held_out_wordings)?,
        })
    }

    /// Measures `model` (outside of autodiff).
    pub fn run(&self, model: &Llama, device: &Device) -> Result<Exact, TrainError> {
        let rope = Rope::new(&model.config, SHAPE[0], SHAPE[1], device);
        let share = |docs: &[Doc]| exact_share(model, docs, &rope, device);
        Ok(Exact { seen: share(&self.seen)?, single_hop: share(&self.single)?, two_hop: share(&self.two)? })
    }
}

fn exact_share(model: &Llama, docs: &[Doc], rope: &Rope, device: &Device) -> Result<f64, TrainError> {
    let (mut rest, mut right) = (docs, 0usize);
    while !rest.is_empty() {
        let (b, taken) = pack(rest, SHAPE[0], SHAPE[1]);
        let ints = |v: &[i32]| Tensor::<1, Int>::from_data(TensorData::new(v.to_vec(), [v.len()]), device);
        let m = mask(&b.segments, b.rows, b.len, model.config.heads / model.config.kv_heads, device);
        let hidden = model.hidden(ints(&b.tokens).reshape([b.rows, b.len]), &m, rope).select(0, ints(&b.pick));
        let best: Vec<i32> = model
            .logits(hidden)
            .argmax(1)
            .try_into_vec_as::<i32>()
            .map_err(|e| TrainError::Device(format!("{e:?}")))?;
        let mut ok = vec![true; taken];
        for ((doc, best), target) in b.doc.iter().zip(best).zip(&b.targets) {
            ok[*doc] &= best == *target;
        }
        right += ok.into_iter().filter(|o| *o).count();
        rest = &rest[taken..];
    }
    Ok(right as f64 / docs.len().max(1) as f64)
}
