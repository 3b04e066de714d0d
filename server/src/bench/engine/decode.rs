//! What is timed: a prompt, tokens one after the other, tokens of several sequences together.

use engine::EngineError;
use engine::backend::{Backend, Draw, MAX_ROWS, Output, OutputKind, Turn};
use engine::sampler::{SamplerParams, argmax};
use futures::executor::block_on;

use super::report::BenchError;

/// Steps that are under way at once, as in the engine.
const STEPS_AHEAD: usize = 2;

/// Brings the sequence to `prompt` and waits until it is there.
pub(super) fn prefill(backend: &mut dyn Backend, prompt: &[u32]) -> Result<(), BenchError> {
    backend.truncate(0);
    match block_on(backend.forward(prompt, OutputKind::Argmax))? {
        Output::Token(_) => Ok(()),
        _ => Err(BenchError::NoArgmax),
    }
}

/// Decodes greedily, as the engine does: with steps under way ahead of the token that is waited for, where the backend
/// can. Returns the number of steps.
pub(super) fn decode(backend: &mut dyn Backend, tokens: usize) -> Result<usize, BenchError> {
    let greedy = SamplerParams { temperature: 0.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0, seed: 0 };
    match backend.begin_choosing(&greedy, &[]) {
        Ok(()) => {
            for step in 0..tokens + STEPS_AHEAD {
                if step < tokens {
                    backend.queue(Draw::default())?;
                }
                if step >= STEPS_AHEAD {
                    block_on(backend.next_choice())?;
                }
            }
        }
        Err(EngineError::NotOffered { .. }) => {
            let mut id = 0;
            for _ in 0..tokens {
                id = match block_on(backend.forward(&[id], OutputKind::Argmax))? {
                    Output::Token(id) => id,
                    _ => return Err(BenchError::NoArgmax),
                };
            }
        }
        Err(error) => return Err(error.into()),
    }
    Ok(tokens)
}

/// Tokens a second of [`MAX_ROWS`] sequences behind the same prompt, each a greedy token longer with every pass.
pub(super) fn together(
    backend: &dyn Backend,
    prompt: &[u32],
    tokens: usize,
    clock: &dyn Fn() -> f64,
) -> Result<Option<f64>, BenchError> {
    let mut batch = match block_on(backend.batch(MAX_ROWS, prompt.len() + tokens)) {
        Err(EngineError::NotOffered { .. }) => return Ok(None),
        batch => batch?,
    };
    let greedy = SamplerParams { temperature: 0.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0, seed: 0 };
    let mut last = [0; MAX_ROWS];
    let mut on_device = true;
    for row in 0..MAX_ROWS {
        on_device = match batch.begin_choosing(row, &greedy, &[]) {
            Err(EngineError::NotOffered { .. }) => false,
            begun => begun.map(|()| true)?,
        };
        block_on(batch.forward(row, prompt, OutputKind::Nothing))?;
    }
    let mut timed = 0;
    let mut before = clock();
    for step in 0..tokens {
        let turns: Vec<Turn> = (0..).zip(last).map(|(row, token)| Turn { row, token, draw: Draw::default() }).collect();
        let next = if on_device {
            block_on(batch.step_choosing(&turns))?
        } else {
            block_on(batch.step(&turns))?.iter().map(|logits| argmax(logits)).collect()
        };
        last.iter_mut().zip(next).for_each(|(last, next)| *last = next);
        if step == 0 && tokens > 1 {
            // The first warms up.
            before = clock();
        } else {
            timed += MAX_ROWS;
        }
    }
    Ok(Some(timed as f64 / (clock() - before)))
}
