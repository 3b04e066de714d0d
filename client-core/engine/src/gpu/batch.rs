//! Several sequences over one model's weights, a token each in one pass.

use std::sync::Arc;

use async_trait::async_trait;

use super::context::GpuContext;
use super::model::GpuModel;
use super::readback::Readback;
use super::sequence::{Ending, Feed, SequenceParams, Sequences};
use super::source::PLACES;
use super::{CHUNK, DRAW, Reading, output_in, sequence_params, singles, token_in};
use crate::backend::{Batch, Counters, Output, OutputKind, Turn};
use crate::error::EngineError;
use crate::preconditions::{check_input, check_row, check_turns};
use crate::sampler::SamplerParams;

/// Bytes of a column's list of candidates.
const LIST_BYTES: usize = 8 * PLACES;

/// See the module.
#[derive(Debug)]
pub struct GpuBatch {
    gpu: GpuContext,
    model: Arc<GpuModel>,
    sequences: Sequences,
    readback: Readback,
    lens: Vec<usize>,
    /// How each row's tokens are chosen, once a caller has said it.
    choosing: Vec<Option<SamplerParams>>,
    counters: Counters,
}

impl GpuBatch {
    pub(super) fn new(
        gpu: GpuContext,
        model: Arc<GpuModel>,
        rows: usize,
        capacity: usize,
    ) -> Result<Self, EngineError> {
        let sequences = Sequences::new(&gpu, &model, rows, capacity)?;
        gpu.check()?;
        let (lens, choosing) = (vec![0; rows], vec![None; rows]);
        Ok(Self { gpu, model, sequences, readback: Readback::default(), lens, choosing, counters: Counters::default() })
    }

    /// Encodes and submits one call and waits for the first `bytes` of its result.
    async fn call(
        &mut self,
        feed: Feed<'_>,
        sequences: &[SequenceParams],
        ending: Ending,
        bytes: u64,
    ) -> Result<Vec<u8>, EngineError> {
        let staging = (bytes > 0).then(|| self.readback.staging(&self.gpu, bytes));
        let target = staging.as_ref().map(|staging| (staging, bytes));
        let (dispatches, submission) = self.sequences.submit(&self.gpu, &self.model, feed, sequences, ending, target);
        self.counters.dispatches += dispatches;
        self.counters.submits += 1;
        match staging {
            None => Ok(Vec::new()),
            Some(staging) => {
                self.readback.begin(staging, bytes, submission);
                self.readback.next(&self.gpu).await
            }
        }
    }

    /// A step's call, whose columns' results have `column_bytes` each. Rows grow only when it has succeeded.
    async fn turn(
        &mut self,
        turns: &[Turn],
        sequences: &[SequenceParams],
        ending: Ending,
        column_bytes: usize,
    ) -> Result<Vec<u8>, EngineError> {
        let tokens: Vec<u32> = turns.iter().map(|turn| turn.token).collect();
        let bytes = self.call(Feed::Each(&tokens), sequences, ending, (turns.len() * column_bytes) as u64).await?;
        for turn in turns {
            if let Some(len) = self.lens.get_mut(turn.row) {
                *len += 1;
            }
        }
        Ok(bytes)
    }

    fn check(&mut self, turns: &[Turn]) -> Result<(), EngineError> {
        self.gpu.check()?;
        // A step whose future was dropped has left its result behind.
        self.readback.clear();
        check_turns(&self.model.config, self, turns)
    }
}

/// What the trait's methods do. Each of those proves everything that it calls anew, that wgpu's types may go to another thread
/// above all, which takes the compiler a quarter of a minute a method; here it is proved once.
impl GpuBatch {
    async fn extend(&mut self, row: usize, tokens: &[u32], want: OutputKind) -> Result<Output, EngineError> {
        self.gpu.check()?;
        check_row(self.rows(), row)?;
        let before = self.len(row);
        check_input(&self.model.config, before, self.capacity(), tokens)?;
        if matches!(want, OutputKind::Hidden | OutputKind::AllLogits) {
            return Err(EngineError::NotOffered { backend: "webgpu", what: "this for a row of several" });
        }
        self.readback.clear();
        let vocab = self.model.config.vocab;
        let choosing = self.choosing.get(row).copied().flatten();
        let chunks = tokens.len().div_ceil(CHUNK);
        let mut output = Output::Nothing;
        for (i, chunk) in tokens.chunks(CHUNK).enumerate() {
            let want = if i + 1 == chunks { want } else { OutputKind::Nothing };
            let Reading { ending, bytes } = Reading::new(want, chunk.len(), choosing.as_ref(), vocab);
            let params = sequence_params(want, choosing.as_ref(), before + i * CHUNK, row);
            let bytes = self.call(Feed::Chunk(chunk), &[params], ending, bytes).await?;
            if want != OutputKind::Nothing {
                output = output_in(want, &bytes, vocab)?;
            }
        }
        if let Some(len) = self.lens.get_mut(row) {
            *len = before + tokens.len();
        }
        Ok(output)
    }

    async fn step_logits(&mut self, turns: &[Turn]) -> Result<Vec<Vec<f32>>, EngineError> {
        self.check(turns)?;
        let sequences: Vec<SequenceParams> =
            turns.iter().map(|turn| sequence_params(OutputKind::Logits, None, self.len(turn.row), turn.row)).collect();
        let column_bytes = 4 * self.model.config.vocab;
        let bytes = self.turn(turns, &sequences, Ending::Logits, column_bytes).await?;
        Ok(bytes.chunks_exact(column_bytes).map(singles).collect())
    }

    async fn step_tokens(&mut self, turns: &[Turn]) -> Result<Vec<u32>, EngineError> {
        self.check(turns)?;
        let mut sequences = Vec::with_capacity(turns.len());
        let mut draws = false;
        for Turn { row, draw, .. } in turns {
            let Some(params) = self.choosing.get(*row).and_then(Option::as_ref) else {
                return Err(EngineError::Inconsistent(format!("how row {row} chooses was not said")));
            };
            draws |= !params.is_greedy();
            sequences.push(sequence_params(OutputKind::Choice(*draw), Some(params), self.len(*row), *row));
        }
        if draws {
            // Among those that draw, a row that takes the likeliest draws from one candidate.
            let greedy = sequences.iter_mut().filter(|params| params.mode != DRAW);
            greedy.for_each(|params| *params = SequenceParams { mode: DRAW, top_k: 1, draw: 0.0, ..*params });
        }
        let ending = if draws { Ending::Sorted } else { Ending::Peak };
        let bytes = self.turn(turns, &sequences, ending, LIST_BYTES).await?;
        bytes.chunks_exact(LIST_BYTES).map(|list| token_in(list, self.model.config.vocab)).collect()
    }
}

#[async_trait(?Send)]
impl Batch for GpuBatch {
    fn rows(&self) -> usize {
        self.lens.len()
    }

    fn capacity(&self) -> usize {
        self.sequences.capacity
    }

    fn len(&self, row: usize) -> usize {
        self.lens.get(row).copied().unwrap_or(0)
    }

    fn truncate(&mut self, row: usize, len: usize) {
        if let Some(held) = self.lens.get_mut(row) {
            *held = len.min(*held);
        }
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    async fn forward(&mut self, row: usize, tokens: &[u32], want: OutputKind) -> Result<Output, EngineError> {
        self.extend(row, tokens, want).await
    }

    fn begin_choosing(&mut self, row: usize, params: &SamplerParams, seen: &[u32]) -> Result<(), EngineError> {
        self.gpu.check()?;
        check_row(self.rows(), row)?;
        self.sequences.set_seen(&self.gpu, self.model.config.vocab, row, seen);
        if let Some(choosing) = self.choosing.get_mut(row) {
            *choosing = Some(*params);
        }
        Ok(())
    }

    async fn step(&mut self, turns: &[Turn]) -> Result<Vec<Vec<f32>>, EngineError> {
        self.step_logits(turns).await
    }

    async fn step_choosing(&mut self, turns: &[Turn]) -> Result<Vec<u32>, EngineError> {
        self.step_tokens(turns).await
    }
}
