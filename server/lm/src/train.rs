//! The training loop: Muon for matrices, AdamW for the embedding and the norms, warm-up, plateau, linear decay.

use super::batch::{self, Batch, Doc, Mix, Words};
use super::corpus::Corpus;
use super::lora::Lora;
use super::model::{Llama, LlamaConfig, Rope, mask};
use super::tokenizer::TokenizerError;
use burn::optim::{AdamW, AdamWConfig, AdamWState, AdaptiveMomentumState, AdjustLrFn, Muon, MuonConfig, Optimizer};
use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use serde::{Deserialize, Serialize};

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
    /// Epochs after which the same documents come again; never where there is none. A teacher's words are kept for so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<u64>,
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
            pool: None,
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
    /// What the teacher said could not be had.
    #[error("the teacher: {0}")]
    Teacher(String),
    /// The weights could not be rounded.
    #[error("the quantiser in the loop: {0}")]
    Rounding(String),
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

/// What a teacher said at each scored position of a batch: its most likely tokens, by their log-probability at temperature τ.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Said {
    /// Tokens a position.
    pub k: usize,
    /// `[positions, k]` tokens.
    pub ids: Vec<i32>,
    /// `[positions, k]` log-probabilities at τ.
    pub log_p: Vec<f32>,
    /// `[positions]` probability at τ of all other tokens together.
    pub rest: Vec<f32>,
}

/// A teacher whose words were written down.
pub trait Recorded {
    /// What it said of the `batch` whose first document is number `first` of `docs`, an epoch's.
    ///
    /// # Errors
    /// [`TrainError::Teacher`].
    fn said(&mut self, docs: &[Doc], first: usize, batch: &Batch) -> Result<Said, TrainError>;
}

/// Distillation from a recorded teacher: L = (1-a)·CE + a·τ²·KL over its most likely tokens and all others as one.
pub struct Lesson<'a> {
    /// The teacher.
    pub teacher: Box<dyn Recorded + 'a>,
    /// Weight a of the soft part.
    pub alpha: f32,
    /// Temperature τ of both, which the record is taken at.
    pub temperature: f32,
}

/// What a quantiser makes of a matrix's rows of so many columns: values on its grid.
pub type Rounding<'a> = Box<dyn Fn(&[f32], usize) -> Result<Vec<f32>, TrainError> + 'a>;

/// The least probability that is taken for all other tokens together: single precision knows little of 1 − Σp below.
const LEAST_REST: f32 = 1e-6;

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
    /// Present when a student learns from a recorded teacher.
    pub lesson: Option<Lesson<'a>>,
    /// Present when matrices are rounded on their way through the model (straight-through): gradients are taken where the
    /// rounded weights are, and move the exact ones.
    pub rounding: Option<Rounding<'a>>,
    /// Present when only adapters learn and the weights are frozen. What is rounded then is what they are merged into.
    pub lora: Option<Lora>,
    corpus: &'a Corpus,
    words: &'a dyn Words,
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
    pub fn new(model: Llama, config: TrainConfig, corpus: &'a Corpus, words: &'a dyn Words, device: &Device) -> Self {
        let n = model.weights.len();
        let state = OptimState { velocity: vec![None; n], moments: vec![None; n] };
        Self::resume(model, state, Position::default(), config, corpus, words, device)
    }

    /// A run that goes on from a checkpoint's parts.
    pub fn resume(
        model: Llama,
        state: OptimState,
        position: Position,
        config: TrainConfig,
        corpus: &'a Corpus,
        words: &'a dyn Words,
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
            lesson: None,
            rounding: None,
            lora: None,
            corpus,
            words,
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

    /// The next batch, and which of the epoch's documents is its first.
    fn next_batch(&mut self) -> Result<(Batch, usize), TrainError> {
        for _ in 0..2 {
            let epoch = self.config.pool.map_or(self.position.epoch, |pool| self.position.epoch % pool.max(1));
            if self.docs_of != Some(epoch) {
                self.docs = batch::epoch(self.corpus, self.words, &self.config.mix, self.config.seed, epoch)?;
                self.docs_of = Some(epoch);
            }
            if let Some(rest) = self.docs.get(self.position.index..).filter(|r| !r.is_empty()) {
                let (batch, taken) = batch::pack(rest, self.config.rows, self.config.len);
                let first = self.position.index;
                self.position.index += taken;
                if !batch.pick.is_empty() {
                    return Ok((batch, first));
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
        let before = self.position;
        let (batch, first) = self.next_batch()?;
        // A batch that was not learned from is taken again when the run goes on.
        let again = |failed: TrainError, position: &mut Position| {
            *position = before;
            failed
        };
        let said = match &mut self.lesson {
            Some(lesson) => Some(lesson.teacher.said(&self.docs, first, &batch)),
            None => None,
        };
        let said = said.transpose().map_err(|failed| again(failed, &mut self.position))?;
        let clock = std::time::Instant::now();
        let tracked = self.tracked().map_err(|failed| again(failed, &mut self.position))?;
        let loss = self.loss(&tracked.model, &batch, said.as_ref());
        let value: f32 = loss.clone().inner().try_into_scalar().map_err(|e| TrainError::Device(format!("{e:?}")))?;
        if !value.is_finite() {
            return Err(TrainError::Diverged { step: self.position.step, loss: value });
        }
        let forward_s = clock.elapsed().as_secs_f32();
        let mut grads = loss.backward();
        let backward_s = clock.elapsed().as_secs_f32() - forward_s;
        let rate = self.config.schedule(self.position.step);
        for (leaf, tensor) in &tracked.leaves {
            let Some(grad) = tensor.grad_remove(&mut grads) else { continue };
            self.update(*leaf, grad, rate);
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

    /// Moves what the gradient was taken at; `rate` is the share of the peak rate.
    fn update(&mut self, leaf: Leaf, grad: Tensor<2>, rate: f64) {
        let time = self.position.step;
        match leaf {
            Leaf::Weight(i) => {
                let weight = self.model.weights[i].clone();
                let is_matrix = i > 0 && weight.dims()[0] > 1;
                self.model.weights[i] = if is_matrix {
                    self.matrix_step(i, weight, grad, rate * self.config.matrix_lr)
                } else {
                    let moments = &mut self.state.moments[i];
                    adamw_step(&self.adamw, moments, time, weight, grad, rate * self.config.embed_lr)
                };
            }
            Leaf::Adapter(i, half) => {
                let lr = rate * self.config.matrix_lr;
                let Some(pair) = self.lora.as_mut().and_then(|lora| lora.pairs.get_mut(i)?.as_mut()) else { return };
                let tensor = if half == 0 { &mut pair.a } else { &mut pair.b };
                *tensor = adamw_step(&self.adamw, &mut pair.moments[half], time, tensor.clone(), grad, lr);
            }
        }
    }

    /// The model as it answers: with what its adapters learned.
    pub fn merged(&self) -> Llama {
        self.lora.as_ref().map_or_else(|| self.model.clone(), |lora| lora.merged(&self.model))
    }

    /// What the loss is taken of, and the leaves that gradients are taken at: the weights, what a quantiser makes of the matrices,
    /// or adapters.
    fn tracked(&self) -> Result<Tracked, TrainError> {
        let Some(lora) = &self.lora else {
            let mut model = self.model.clone();
            for (i, weight) in model.weights.iter_mut().enumerate() {
                *weight = self.rounded(i, weight.clone())?;
            }
            let model = model.tracked();
            let leaves = model.weights.iter().enumerate().map(|(i, weight)| (Leaf::Weight(i), weight.clone()));
            return Ok(Tracked { leaves: leaves.collect(), model });
        };
        let (mut model, mut leaves) = (self.model.clone(), Vec::new());
        for (i, weight) in model.weights.iter_mut().enumerate() {
            let Some(pair) = lora.pair(i) else {
                *weight = self.rounded(i, weight.clone())?.autodiff();
                continue;
            };
            let half =
                |half: usize, tensor: &Tensor<2>| (Leaf::Adapter(i, half), tensor.clone().autodiff().require_grad());
            let (a, b) = (half(0, &pair.a), half(1, &pair.b));
            let exact = lora.add(weight.clone().autodiff(), a.1.clone(), b.1.clone());
            // Straight-through: the value is the rounded one, the gradient goes to the sum.
            let value = exact.clone().inner();
            let off = self.rounded(i, value.clone())? - value;
            *weight = exact + off.autodiff();
            leaves.extend([a, b]);
        }
        Ok(Tracked { model, leaves })
    }

    /// What the quantiser in the loop makes of a weight, where there is one and it is a matrix.
    fn rounded(&self, i: usize, weight: Tensor<2>) -> Result<Tensor<2>, TrainError> {
        let [rows, cols] = weight.dims();
        let Some(rounding) = self.rounding.as_ref().filter(|_| rows > 1) else { return Ok(weight) };
        round(rounding, i, weight, [rows, cols], &self.device)
    }

    fn loss(&self, model: &Llama, batch: &Batch, said: Option<&Said>) -> Tensor<1> {
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
        let ce = logp.clone().gather(1, targets).reshape([n]).neg();
        let per_token = match (&self.distil, &self.teacher_rope) {
            (Some(d), Some(rope)) => {
                let t_mask = mask(&batch.segments, batch.rows, batch.len, rep(&d.teacher.config), device);
                let t_hidden = d.teacher.hidden(tokens, &t_mask, rope).select(0, ints(&batch.pick));
                let t_logp = activation::log_softmax(d.teacher.logits(t_hidden).div_scalar(d.temperature), 1);
                let s_logp = activation::log_softmax(logits.div_scalar(d.temperature), 1);
                let kl = (t_logp.clone().exp() * (t_logp - s_logp)).sum_dim(1).reshape([n]);
                ce.mul_scalar(1.0 - d.alpha) + kl.mul_scalar(d.alpha * d.temperature * d.temperature)
            }
            _ => match (&self.lesson, said) {
                (Some(lesson), Some(said)) => {
                    let tau = lesson.temperature;
                    let soft = if tau == 1.0 { logp } else { activation::log_softmax(logits.div_scalar(tau), 1) };
                    let kl = said.divergence(soft, device);
                    ce.mul_scalar(1.0 - lesson.alpha) + kl.mul_scalar(lesson.alpha * tau * tau)
                }
                _ => ce,
            },
        };
        (per_token * weights).sum().div_scalar(total)
    }
}

/// What a gradient is taken at.
#[derive(Debug, Clone, Copy)]
enum Leaf {
    /// A weight of the model.
    Weight(usize),
    /// A (0) or B (1) of a weight's adapter.
    Adapter(usize, usize),
}

/// A model for one step.
struct Tracked {
    model: Llama,
    leaves: Vec<(Leaf, Tensor<2>)>,
}

/// One step of AdamW, whose moments are kept in a form that a checkpoint can hold.
fn adamw_step(
    adamw: &AdamW,
    moments: &mut Option<(Tensor<2>, Tensor<2>)>,
    time: usize,
    weight: Tensor<2>,
    grad: Tensor<2>,
    lr: f64,
) -> Tensor<2> {
    let state = moments.take().map(|(m1, m2)| AdamWState::new(AdaptiveMomentumState::new(time, m1, m2)));
    let (weight, state) = adamw.step(lr, weight, grad, state);
    *moments = state.map(|s| (s.momentum.moment_1, s.momentum.moment_2));
    weight
}

/// The weight at place `i` after `rounding` of its rows as files hold them: one for every output, and the embedding as it lies.
///
/// # Errors
/// The device fails, or a value cannot be rounded.
pub fn round(
    rounding: &Rounding<'_>,
    i: usize,
    weight: Tensor<2>,
    [rows, cols]: [usize; 2],
    device: &Device,
) -> Result<Tensor<2>, TrainError> {
    let turned = i > 0;
    let as_filed = if turned { weight.swap_dims(0, 1) } else { weight };
    let values: Vec<f32> = as_filed.try_into_vec_as::<f32>().map_err(|e| TrainError::Device(format!("{e:?}")))?;
    let (outputs, inputs) = if turned { (cols, rows) } else { (rows, cols) };
    let rounded = Tensor::from_data(TensorData::new(rounding(&values, inputs)?, [outputs, inputs]), device);
    Ok(if turned { rounded.swap_dims(0, 1) } else { rounded })
}

impl Said {
    /// KL(teacher ‖ student) `[positions]` over the recorded tokens and all others as one, from the student's
    /// log-probabilities `[positions, vocab]` at τ. Never more than over all tokens apart; the same where all are recorded.
    fn divergence(&self, student: Tensor<2>, device: &Device) -> Tensor<1> {
        let n = self.rest.len();
        let shape = [n, self.k];
        let singles = |v: &[f32], shape: [usize; 2]| Tensor::<2>::from_data(TensorData::new(v.to_vec(), shape), device);
        let ids = Tensor::<1, Int>::from_data(TensorData::new(self.ids.clone(), [self.ids.len()]), device);
        let own = student.gather(1, ids.reshape(shape));
        let teacher = singles(&self.log_p, shape);
        let kept = (teacher.clone().exp() * (teacher - own.clone())).sum_dim(1);
        let logs: Vec<f32> = self.rest.iter().map(|rest| rest.max(LEAST_REST).ln()).collect();
        let (rest, log_rest) = (singles(&self.rest, [n, 1]), singles(&logs, [n, 1]));
        let own_rest = own.exp().sum_dim(1).neg().add_scalar(1.0).clamp_min(LEAST_REST);
        (kept + rest * (log_rest - own_rest.log())).reshape([n])
    }
}
