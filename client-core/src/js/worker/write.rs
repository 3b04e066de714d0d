//! The model in memory by itself: writing and embedding, without cell, policy and server.

use std::ops::ControlFlow;
use std::rc::Rc;

use wasm_bindgen_futures::spawn_local;

use super::Hub;
use super::engine::{Loaded, Writing};
use super::models::sentence;
use crate::llm::{ChatMessage, EngineError, FinishReason, GenerationStats, SamplingOptions, TokenEvent};
use crate::offload::ports::{Clock, LocalEngine, LocalError};
use crate::offload::signal::StopFlag;
use crate::protocol::engine::{Finish, Input, WriteOptions, WriteRecord};
use crate::protocol::worker::Event;

/// Tasks that may wait for their turn; more are refused.
const MAX_WAITING: usize = 64;
/// Texts that one command may embed.
const MAX_TEXTS: usize = 256;
/// What is said when there is nothing to write with.
const NO_MODEL: &str = "no model is loaded; load one first";

impl Hub {
    pub(super) fn write(self: &Rc<Self>, ask: u64, input: Input, options: WriteOptions) {
        self.in_turn(ask, async move |hub, loaded, stop| {
            let record = hub.written(loaded, ask, &input, &options, &stop).await?;
            Ok(Event::Written { ask, record })
        });
    }

    pub(super) fn embed(self: &Rc<Self>, ask: u64, texts: Vec<String>) {
        self.in_turn(ask, async move |hub, loaded, stop| {
            if texts.is_empty() || texts.len() > MAX_TEXTS || texts.iter().any(|text| text.trim().is_empty()) {
                return Err(format!("between 1 and {MAX_TEXTS} texts can be embedded at once, none of them empty"));
            }
            let (mut vectors, mut tokens) = (Vec::with_capacity(texts.len()), 0);
            for text in &texts {
                if stop.is_stopped() {
                    return Err("it was stopped".to_owned());
                }
                let (count, vector) = hub.embedded(loaded, text).await?;
                tokens += count;
                vectors.push(vector);
                // Between two texts the page gets a word in.
                hub.clock.sleep(0.0).await;
            }
            Ok(Event::Embedded { ask, vectors, tokens })
        });
    }

    /// Runs a task that needs the engine when its turn comes, and tells the page how it ended.
    fn in_turn<F>(self: &Rc<Self>, ask: u64, task: F)
    where
        F: AsyncFnOnce(&Hub, &mut Loaded, StopFlag) -> Result<Event, String> + 'static,
    {
        let fail = |message: String| self.emit(Event::Failed { ask: Some(ask), message });
        if self.asks.borrow().len() > MAX_WAITING {
            return fail("Too much is waiting already. Stop something, or wait.".to_owned());
        }
        if self.asks.borrow().contains_key(&ask) {
            return fail(format!("The number {ask} is in use."));
        }
        let stop = StopFlag::default();
        self.asks.borrow_mut().insert(ask, stop.clone());
        let hub = Rc::clone(self);
        spawn_local(async move {
            let _turn = hub.turn.lock().await;
            let (mut loaded, epoch) = hub.models.take();
            let result = match loaded.as_mut() {
                Some(loaded) => task(&hub, loaded, stop).await,
                None => Err(NO_MODEL.to_owned()),
            };
            hub.models.put_back(loaded, epoch);
            hub.asks.borrow_mut().remove(&ask);
            let failed = |problem: String| Event::Failed { ask: Some(ask), message: sentence(&problem) };
            hub.emit(result.unwrap_or_else(failed));
        });
    }

    async fn written(
        &self,
        loaded: &mut Loaded,
        ask: u64,
        input: &Input,
        options: &WriteOptions,
        stop: &StopFlag,
    ) -> Result<WriteRecord, String> {
        let begun_s = self.clock.now_s();
        let mut text = String::new();
        let mut tokens = 0;
        let mut ttft_s = None;
        loop {
            let sampling = SamplingOptions {
                max_tokens: options.max_tokens.saturating_sub(tokens),
                temperature: options.temperature,
                top_k: options.top_k,
                top_p: options.top_p,
                repetition_penalty: options.repetition_penalty,
                seed: options.seed,
                stop: options.stop.clone(),
            };
            let before = text.clone();
            let mut on_token = |token: TokenEvent<'_>| {
                ttft_s.get_or_insert_with(|| self.clock.now_s() - begun_s);
                tokens += 1;
                text.push_str(token.text);
                if !token.text.is_empty() {
                    self.emit(Event::Text { ask, text: token.text.to_owned() });
                }
                if stop.is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let stopped_before = stop.is_stopped();
            let result = if stopped_before {
                Ok(None)
            } else {
                generate(loaded, input, &before, &sampling, &|| self.clock.now_s(), &mut on_token).await.map(Some)
            };
            match result {
                Ok(stats) => return Ok(record(stats, ttft_s, self.clock.now_s() - begun_s)),
                Err(error) => {
                    let error = LocalError::from(error);
                    if error.prompt_only {
                        return Err(error.message);
                    }
                    // A lost GPU: the CPU goes on where it was, or there is nothing left to try.
                    let recovered = Writing { hub: self, loaded }.recover(&error).await;
                    let message = recovered.map_err(|error| error.message)?;
                    self.emit(Event::Notice { ask: Some(ask), message });
                }
            }
        }
    }

    async fn embedded(&self, loaded: &mut Loaded, text: &str) -> Result<(usize, Vec<f32>), String> {
        loop {
            match loaded.engine().hidden_states(text).await {
                Ok((tokens, states)) => return Ok((tokens.len(), pooled(&states))),
                Err(error) => {
                    let error = LocalError::from(error);
                    if error.prompt_only {
                        return Err(error.message);
                    }
                    let recovered = Writing { hub: self, loaded }.recover(&error).await;
                    let message = recovered.map_err(|error| error.message)?;
                    self.notice(message);
                }
            }
        }
    }
}

/// Goes on with `input` behind what is `written` already.
async fn generate(
    loaded: &mut Loaded,
    input: &Input,
    written: &str,
    sampling: &SamplingOptions,
    clock: &dyn Fn() -> f64,
    on_token: &mut dyn FnMut(TokenEvent<'_>) -> ControlFlow<()>,
) -> Result<GenerationStats, EngineError> {
    let engine = loaded.engine();
    match input {
        Input::Text(text) => engine.complete(&format!("{text}{written}"), sampling, clock, on_token).await,
        Input::Chat(turns) => {
            let message = |turn: &crate::protocol::engine::Turn| ChatMessage {
                role: turn.role.clone(),
                content: turn.content.clone(),
            };
            let messages: Vec<_> = turns.iter().map(message).collect();
            engine.generate(&messages, written, sampling, clock, on_token).await
        }
    }
}

/// `stats` are those of the last piece where a lost GPU cut the answer in two; `None` for one that was stopped before its
/// turn came.
fn record(stats: Option<GenerationStats>, ttft_s: Option<f64>, total_s: f64) -> WriteRecord {
    let ttft_s = ttft_s.unwrap_or(total_s);
    let decode_s = total_s - ttft_s;
    match stats {
        None => {
            WriteRecord { prompt_tokens: 0, cached_tokens: 0, tokens: 0, ttft_s, decode_s, finish: Finish::Cancelled }
        }
        Some(stats) => WriteRecord {
            prompt_tokens: stats.prompt_tokens,
            cached_tokens: stats.cached_tokens,
            tokens: stats.generated_tokens,
            ttft_s,
            decode_s,
            finish: match stats.finish {
                FinishReason::Stop => Finish::Stop,
                FinishReason::Length => Finish::Length,
                FinishReason::Cancelled => Finish::Cancelled,
            },
        },
    }
}

/// The mean of the vectors, scaled to length 1; `[dim]`.
fn pooled(states: &[Vec<f32>]) -> Vec<f32> {
    let mut mean = vec![0.0f32; states.first().map_or(0, Vec::len)];
    for state in states {
        for (sum, value) in mean.iter_mut().zip(state) {
            *sum += value;
        }
    }
    let length = mean.iter().map(|value| value * value).sum::<f32>().sqrt();
    if length > 0.0 {
        for value in &mut mean {
            *value /= length;
        }
    }
    mean
}
