//! The training loop: Muon for matrices, AdamW for the embedding and the norms, warm-up, plateau, linear decay.

use super::batch::{self, Batch, Doc, Mix};
use super::corpus::Corpus;
use super::model::{Llama, LlamaConfig, Rope, mask};
use super::tokenizer::TokenizerError;
use burn::optim::{AdamW, AdamWConfig, AdamWState, AdaptiveMomentumState, AdjustLrFn, Muon, MuonConfig, Optimizer};
use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use serde::{Deserialize, Serialize};
use tokenizers::Tokenizer;

/// Every setting of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// Optimizer steps in all.
    pub steps: usize,
    /// Rows in a batch.
    pub rows: usize,
    /// Tokens in a row.
    pub len: usize,
    /// Peak learning rate of the matrices (scaled to match AdamW's update size).
    pub matrix_lr: f64,
    /// Peak learning rate of the embedding and the norms.
    pub embed_lr: f64,
    /// Steps of linear warm-up.
    pub warmup: usize,
    /// Share of the steps, at the end, in which the rate falls linearly to a fiftieth.
    pub decay: f64,
    /// Seed of the weights and of the order of the documents.
    pub seed: u64,
    /// What an epoch is made of.
    pub mix: Mix,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            steps: 3000,
            rows: 48,
            len: 64,
            matrix_lr: 0.006,
            embed_lr: 0.006,
            warmup: 60,
            decay: 0.6,
            seed: 1,
            mix: Mix::default(),
        }
    }
}

impl TrainConfig {
    /// The share of the peak rate at `step` (from 0).
    pub fn schedule(&self, step: usize) -> f64 {
        let warm = (step + 1) as f64 / self.warmup.max(1) as f64;
        let left = (self.steps.saturating_sub(step)) as f64 / (self.decay * self.steps as f64).max(1.0);
        warm.min(left).clamp(0.02, 1.0)
    }
}

/// Why training stopped.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The loss is no number any more.
    #[error("the loss became {loss} at step {step}: training stopped, the last checkpoint is kept; try a lower --lr")]
    Diverged {
        /// Step at which it happened.
        step: usize,
        /// The loss.
        loss: f32,
    },
    /// A text could not be tokenised.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// No document to train on.
    #[error("the corpus is empty")]
    Empty,
    /// The device gave no result back.
    #[error("the device failed: {0}")]
    Device(String),
}

/// Where in the stream of documents a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Position {
    /// Steps done.
    pub step: usize,
    /// Epoch.
    pub epoch: u64,
    /// Documents taken in this epoch.
    pub index: usize,
}

/// Optimizer state: a velocity for each matrix, two moments for the rest (whichever does not apply is `None`).
#[derive(Debug, Clone, Default)]
pub struct OptimState {
    /// Muon's momentum.
    pub velocity: Vec<Option<Tensor<2>>>,
    /// AdamW's first and second moment.
    pub moments: Vec<Option<(Tensor<2>, Tensor<2>)>>,
}

/// What a step reports.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct StepReport {
    /// Steps done.
    pub step: usize,
    /// Epoch.
    pub epoch: u64,
    /// Weighted mean cross-entropy in nats (or the distillation loss).
    pub loss: f32,
    /// Share of the peak learning rate.
    pub rate: f64,
    /// Tokens that are no padding.
    pub tokens: usize,
    /// Wall time of forward pass, backward pass and update.
    pub seconds: [f32; 3],
}

/// A plain teacher for distillation.
#[derive(Debug, Clone)]
pub struct Distil {
    /// Gives the soft targets; not trained.
    pub teacher: Llama,
    /// Weight a of the soft part: L = (1-a)·CE + a·KL(teacher‖student).
    pub alpha: f32,
    /// Temperature τ of both; KL is multiplied by τ².
    pub temperature: f32,
}

/// A run: model, optimizer, position in the data.
pub struct Trainer<'a> {
    /// Settings.
    pub config: TrainConfig,
    /// Weights, outside of autodiff.
    pub model: Llama,
    /// Optimizer state.
    pub state: OptimState,
    /// Where the run is.
    pub position: Position,
    /// Present when a student is distilled.
    pub distil: Option<Distil>,
    corpus: &'a Corpus,
    tokenizer: &'a Tokenizer,
    device: Device,
    rope: Rope,
    teacher_rope: Option<Rope>,
    docs: Vec<Doc>,
    docs_of: Option<u64>,
    muon: Muon,
    adamw: AdamW,
}

impl<'a> Trainer<'a> {
    /// A run that begins with these weights on `device` (without autodiff; the trainer adds it).
    pub fn new(
        model: Llama,
        config: TrainConfig,
        corpus: &'a Corpus,
        tokenizer: &'a Tokenizer,
        device: &Device,
    ) -> Self {
        let n = model.weights.len();
        let state = OptimState { velocity: vec![None; n], moments: vec![None; n] };
        Self::resume(model, state, Position::default(), config, corpus, tokenizer, device)
    }

    /// A run that goes on from a checkpoint's parts.
    pub fn resume(
        model: Llama,
        state: OptimState,
        position: Position,
        config: TrainConfig,
        corpus: &'a Corpus,
        tokenizer: &'a Tokenizer,
        device: &Device,
    ) -> Self {
        let rope = Rope::new(&model.config, config.rows, config.len, device);
        Self {
            rope,
            teacher_rope: None,
            config,
            model,
            state,
            position,
            distil: None,
            corpus,
            tokenizer,
            device: device.clone(),
            docs: Vec::new(),
            docs_of: None,
            muon: MuonConfig::new().with_adjust_lr_fn(AdjustLrFn::MatchRmsAdamW).build(),
            adamw: AdamWConfig::new().with_beta_2(0.95).with_epsilon(1e-8).with_weight_decay(0.0).build(),
        }
    }

    /// Learn from `teacher` too.
    pub fn with_teacher(mut self, distil: Distil) -> Self {
        self.teacher_rope = Some(Rope::new(&distil.teacher.config, self.config.rows, self.config.len, &self.device));
        self.distil = Some(distil);
        self
    }

    fn next_batch(&mut self) -> Result<Batch, TrainError> {
        for _ in 0..2 {
            if self.docs_of != Some(self.position.epoch) {
                let seed = self.config.seed;
                self.docs = batch::epoch(self.corpus, self.tokenizer, &self.config.mix, seed, self.position.epoch)?;
                self.docs_of = Some(self.position.epoch);
            }
            if let Some(rest) = self.docs.get(self.position.index..).filter(|r| !r.is_empty()) {
                let (batch, taken) = batch::pack(rest, self.config.rows, self.config.len);
                self.position.index += taken;
                if !batch.pick.is_empty() {
                    return Ok(batch);
                }
            }
            self.position.epoch += 1;
            self.position.index = 0;
        }
        Err(TrainError::Empty)
    }

    /// Seed of the corpus that it learns from.
    pub fn corpus_seed(&self) -> u64 {
        self.corpus.seed
    }

    /// One optimizer step. On an error the weights are as they were before.
    pub fn step(&mut self) -> Result<StepReport, TrainError> {
        let batch = self.next_batch()?;
        let clock = std::time::Instant::now();
        let tracked = self.model.tracked();
        let loss = self.loss(&tracked, &batch);
        let value: f32 = loss.clone().inner().try_into_scalar().map_err(|e| TrainError::Device(format!("{e:?}")))?;
        if !value.is_finite() {
            return Err(TrainError::Diverged { step: self.position.step, loss: value });
        }
        let forward_s = clock.elapsed().as_secs_f32();
        let mut grads = loss.backward();
        let backward_s = clock.elapsed().as_secs_f32() - forward_s;
        let rate = self.config.schedule(self.position.step);
        for (i, leaf) in tracked.weights.iter().enumerate() {
            let Some(grad) = leaf.grad_remove(&mut grads) else { continue };
            let weight = self.model.weights[i].clone();
            let is_matrix = i > 0 && weight.dims()[0] > 1;
            self.model.weights[i] = if is_matrix {
                self.matrix_step(i, weight, grad, rate * self.config.matrix_lr)
            } else {
                self.vector_step(i, weight, grad, rate * self.config.embed_lr)
            };
        }
        self.position.step += 1;
        let update_s = clock.elapsed().as_secs_f32() - forward_s - backward_s;
        Ok(StepReport {
            step: self.position.step,
            epoch: self.position.epoch,
            loss: value,
            rate,
            tokens: batch.used,
            seconds: [forward_s, backward_s, update_s],
        })
    }

    /// Muon with Nesterov momentum 0.95. The velocity is kept here, in a form that a checkpoint can hold; the update's
    /// scale does not matter to Muon, so handing it over as a first gradient is exact.
    fn matrix_step(&mut self, i: usize, weight: Tensor<2>, grad: Tensor<2>, lr: f64) -> Tensor<2> {
        let velocity = match self.state.velocity[i].take() {
            Some(v) => v.mul_scalar(0.95) + grad.clone(),
            None => grad.clone(),
        };
        let update = velocity.clone().mul_scalar(0.95) + grad;
        self.state.velocity[i] = Some(velocity);
        self.muon.step(lr, weight, update, None).0
    }

    fn vector_step(&mut self, i: usize, weight: Tensor<2>, grad: Tensor<2>, lr: f64) -> Tensor<2> {
        let time = self.position.step;
        let state =
            self.state.moments[i].take().map(|(m1, m2)| AdamWState::new(AdaptiveMomentumState::new(time, m1, m2)));
        let (weight, state) = self.adamw.step(lr, weight, grad, state);
        self.state.moments[i] = state.map(|s| (s.momentum.moment_1, s.momentum.moment_2));
        weight
    }

    fn loss(&self, model: &Llama, batch: &Batch) -> Tensor<1> {
        let device = &self.device;
        let n = batch.pick.len();
        let ints = |v: &[i32]| Tensor::<1, Int>::from_data(TensorData::new(v.to_vec(), [v.len()]), device);
        let tokens = ints(&batch.tokens).reshape([batch.rows, batch.len]);
        let rep = |c: &LlamaConfig| c.heads / c.kv_heads;
        let own_mask = mask(&batch.segments, batch.rows, batch.len, rep(&model.config), device);
        let hidden = model.hidden(tokens.clone(), &own_mask, &self.rope).select(0, ints(&batch.pick));
        let logits = model.logits(hidden);
        let weights = Tensor::<1>::from_data(TensorData::new(batch.weights.clone(), [n]), device);
        let total: f32 = batch.weights.iter().sum();
        let targets = ints(&batch.targets).reshape([n, 1]);
        let logp = activation::log_softmax(logits.clone(), 1);
        let ce = logp.gather(1, targets).reshape([n]).neg();
        let per_token = match (&self.distil, &self.teacher_rope) {
            (Some(d), Some(rope)) => {
                let t_mask = mask(&batch.segments, batch.rows, batch.len, rep(&d.teacher.config), device);
                let t_hidden = d.teacher.hidden(tokens, &t_mask, rope).select(0, ints(&batch.pick));
                let t_logp = activation::log_softmax(d.teacher.logits(t_hidden).div_scalar(d.temperature), 1);
                let s_logp = activation::log_softmax(logits.div_scalar(d.temperature), 1);
                let kl = (t_logp.clone().exp() * (t_logp - s_logp)).sum_dim(1).reshape([n]);
                ce.mul_scalar(1.0 - d.alpha) + kl.mul_scalar(d.alpha * d.temperature * d.temperature)
            }
            _ => ce,
        };
        (per_token * weights).sum().div_scalar(total)
    }
}
