//! A [`Batch`] of a backend that computes one sequence at a time: every row is a fork of it, and a pass computes one row after
//! the other. Nothing is gained in speed; whoever drives a batch drives this, too.

use async_trait::async_trait;

use super::backend::{Backend, Batch, Output, OutputKind, Span, Turn};
use super::error::EngineError;
use super::preconditions::check_turns;
use super::sampler::SamplerParams;

/// See the module.
pub struct OneByOne {
    rows: Vec<Box<dyn Backend>>,
}

impl std::fmt::Debug for OneByOne {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OneByOne").field("rows", &self.rows.len()).finish_non_exhaustive()
    }
}

impl OneByOne {
    /// So many rows (at least one) over the weights of `backend`.
    ///
    /// # Errors
    /// There is no memory for their caches.
    pub fn new(backend: Box<dyn Backend>, rows: usize) -> Result<Self, EngineError> {
        let mut all = (1..rows).map(|_| backend.fork()).collect::<Result<Vec<_>, _>>()?;
        all.push(backend);
        Ok(Self { rows: all })
    }

    fn row(&mut self, row: usize) -> Result<&mut Box<dyn Backend>, EngineError> {
        self.rows.get_mut(row).ok_or_else(|| EngineError::Inconsistent(format!("there is no row {row}")))
    }
}

#[async_trait(?Send)]
impl Batch for OneByOne {
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn capacity(&self) -> usize {
        self.rows.first().map_or(0, |row| row.capacity())
    }

    fn len(&self, row: usize) -> usize {
        self.rows.get(row).map_or(0, |row| row.len())
    }

    fn truncate(&mut self, row: usize, len: usize) {
        if let Some(row) = self.rows.get_mut(row) {
            row.truncate(len);
        }
    }

    async fn forward(&mut self, row: usize, tokens: &[u32], want: OutputKind) -> Result<Output, EngineError> {
        self.row(row)?.forward(tokens, want).await
    }

    fn begin_choosing(&mut self, _: usize, _: &SamplerParams, _: &[u32]) -> Result<(), EngineError> {
        Err(not_chosen_here())
    }

    async fn step(&mut self, turns: &[Turn]) -> Result<Vec<Vec<f32>>, EngineError> {
        let config = self.row(0)?.config().clone();
        check_turns(&config, self, turns)?;
        let spans: Vec<_> = turns
            .iter()
            .map(|turn| Span { row: turn.row, tokens: std::slice::from_ref(&turn.token), logits: true })
            .collect();
        self.append(&spans, &|| false).await
    }

    async fn step_choosing(&mut self, _: &[Turn]) -> Result<Vec<u32>, EngineError> {
        Err(not_chosen_here())
    }
}

fn not_chosen_here() -> EngineError {
    EngineError::NotOffered { backend: "one by one", what: "choosing on the device" }
}
