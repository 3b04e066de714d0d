//! The device's side of a run.

use std::ops::ControlFlow;

use super::board::{Board, DeviceJob};
use crate::offload::ports::{Clock, LocalEngine, LocalError, LocalFinish};
use crate::protocol::worker::Origin;

/// Recoveries (onto another backend) that a run may need; an engine that fails more often is broken.
const MAX_RECOVERIES: usize = 2;

/// Answers the device's prompts until there are none left for it.
pub(super) async fn answer<E: LocalEngine, C: Clock>(board: &Board<'_>, engine: &mut E, clock: &C) {
    let mut recoveries = 0;
    while let Some(mut job) = board.next_device_job().await {
        loop {
            board.begin(Origin::Device, clock.now_s());
            let result = one(board, &job, engine, clock).await;
            board.end(Origin::Device, clock.now_s());
            let error = match result {
                Ok(LocalFinish::Stopped) => return,
                Ok(finish) => {
                    board.finish(job.prompt, finish == LocalFinish::Ended);
                    break;
                }
                Err(error) => error,
            };
            if error.prompt_only {
                board.device_failed(job.prompt, &error, clock.now_s());
                break;
            }
            recoveries += 1;
            let recovered = if recoveries > MAX_RECOVERIES { Err(error) } else { engine.recover(&error).await };
            match recovered {
                Ok(note) => board.notice(note),
                Err(error) => {
                    board.device_failed(job.prompt, &error, clock.now_s());
                    return;
                }
            }
            job = board.device_job(job.prompt);
        }
    }
}

async fn one<E: LocalEngine, C: Clock>(
    board: &Board<'_>,
    job: &DeviceJob,
    engine: &mut E,
    clock: &C,
) -> Result<LocalFinish, LocalError> {
    if job.max_tokens == 0 {
        return Ok(LocalFinish::Length);
    }
    let mut on_token = |text: &str| {
        if board.stop.is_stopped() {
            return ControlFlow::Break(());
        }
        board.token(job.prompt, Origin::Device, text, clock.now_s());
        ControlFlow::Continue(())
    };
    let prompt = &board.ask.prompts[job.prompt];
    engine.generate(prompt, &job.prefix, job.max_tokens, &board.ask.options, &mut on_token).await
}
