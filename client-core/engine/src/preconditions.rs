//! What every backend checks before it computes.

use super::backend::{Batch, MAX_ROWS, Span, Turn};
use super::config::ModelConfig;
use super::error::EngineError;

/// The checks that every backend makes before it makes a batch.
pub fn check_rows(rows: usize) -> Result<(), EngineError> {
    check_rows_up_to(rows, MAX_ROWS)
}

/// The same for one that takes more rows than all do.
pub fn check_rows_up_to(rows: usize, most: usize) -> Result<(), EngineError> {
    if (1..=most).contains(&rows) {
        return Ok(());
    }
    Err(EngineError::Unsupported(format!("between 1 and {most} sequences can be computed at once, not {rows}")))
}

/// The checks that a batch makes before it appends to several rows; that no row comes up twice is seen by who takes them.
pub fn check_spans(config: &ModelConfig, batch: &dyn Batch, spans: &[Span<'_>]) -> Result<(), EngineError> {
    if spans.is_empty() {
        return Err(EngineError::Inconsistent("nothing is to be appended".into()));
    }
    for span in spans {
        check_row(batch.rows(), span.row)?;
        check_input(config, batch.len(span.row), batch.capacity(), span.tokens)?;
    }
    Ok(())
}

/// The checks that every batch makes before it computes a step.
pub fn check_turns(config: &ModelConfig, batch: &dyn Batch, turns: &[Turn]) -> Result<(), EngineError> {
    for turn in turns {
        check_row(batch.rows(), turn.row)?;
        check_input(config, batch.len(turn.row), batch.capacity(), &[turn.token])?;
    }
    if turns.is_empty() || !turns.is_sorted_by(|a, b| a.row < b.row) {
        return Err(EngineError::Inconsistent("the rows of a step do not ascend".into()));
    }
    Ok(())
}

/// Whether there is such a row.
pub fn check_row(rows: usize, row: usize) -> Result<(), EngineError> {
    if row < rows { Ok(()) } else { Err(EngineError::Inconsistent(format!("there is no row {row}"))) }
}

/// The checks that every backend makes before it computes.
pub fn check_input(config: &ModelConfig, len: usize, capacity: usize, tokens: &[u32]) -> Result<(), EngineError> {
    if tokens.is_empty() {
        return Err(EngineError::EmptyPrompt);
    }
    if let Some(&id) = tokens.iter().find(|id| **id as usize >= config.vocab) {
        return Err(EngineError::TokenRange { id, vocab: config.vocab });
    }
    let total = len + tokens.len();
    if total > capacity {
        return Err(EngineError::PromptTooLong { tokens: total, context: capacity });
    }
    Ok(())
}
