//! One generation with its measurements, cut off when the server goes down.

use std::time::Instant;

use tokio::sync::watch;

use crate::host::{Generation, GenerationEvent, GenerationStream, HostError};
use crate::http::metrics::Metrics;
use crate::http::{App, Phase};

/// The events of one generation. Dropping it cancels the generation, and counts it as cancelled if it had not ended.
#[derive(Debug)]
pub struct Tracked {
    events: GenerationStream,
    phase: watch::Receiver<Phase>,
    metrics: Metrics,
    started: Instant,
    pieces: usize,
    ended: bool,
}

impl Tracked {
    /// Hands the work to the host.
    ///
    /// # Errors
    /// When the host does not take it.
    pub async fn start(app: &App, generation: Generation) -> Result<Self, HostError> {
        let started = Instant::now();
        let events = app.host().generate(generation).await?;
        let metrics = app.metrics().clone();
        Ok(Self { events, phase: app.phase(), metrics, started, pieces: 0, ended: false })
    }

    /// The next event; the last one is `Done` or `Failed`, and `None` comes after it.
    pub async fn next(&mut self) -> Option<GenerationEvent> {
        if self.ended {
            return None;
        }
        let event = tokio::select! {
            // The word that ends an answer wins over the end of the server.
            biased;
            event = self.events.recv() => event.unwrap_or_else(|| {
                GenerationEvent::Failed(HostError::Engine("it stopped in the middle of the answer".into()))
            }),
            () = async { drop(self.phase.wait_for(|phase| *phase == Phase::Cut).await) } => {
                GenerationEvent::Failed(HostError::ShuttingDown)
            }
        };
        match &event {
            GenerationEvent::Text(_) | GenerationEvent::Scored(..) | GenerationEvent::Reasoning(_) => {
                if self.pieces == 0 {
                    self.metrics.first_token(self.started.elapsed());
                }
                self.pieces += 1;
            }
            GenerationEvent::Done(summary) => {
                self.ended = true;
                self.metrics.completed(self.started.elapsed(), summary.prompt_tokens, summary.completion_tokens);
            }
            GenerationEvent::Failed(_) => self.ended = true,
        }
        Some(event)
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        if !self.ended {
            self.metrics.cancelled(self.pieces);
        }
    }
}
