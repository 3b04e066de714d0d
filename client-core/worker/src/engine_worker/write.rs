//! The model in memory by itself: writing and embedding, without cell, policy and server.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::rc::Rc;

use wasm_bindgen_futures::spawn_local;

use super::EngineWorker;
use super::engine::{Loaded, Writing};
use super::models::sentence;
use client::offload::local::{engine_options, row_tokens};
use client::offload::ports::{Clock, LocalEngine, LocalError};
use client::offload::signal::StopFlag;
use client::protocol::engine::{Finish, Input, WriteRecord};
use client::protocol::sampling::Sampling;
use client::protocol::worker::Event;
use engine::backend::MAX_ROWS;
use engine::event_loop::next_task;
use engine::together::{Ended, Text, Texts};
use engine::{ChatMessage, Engine, EngineError, FinishReason, Prompt, SamplingOptions, Together, TokenEvent};

/// Tasks that may wait for their turn; more are refused.
const MAX_WAITING: usize = 64;
/// Texts that one command may embed.
const MAX_TEXTS: usize = 256;
/// What is said when there is nothing to write with.
const NO_MODEL: &str = "no model is loaded; load one first";

/// A text that is to be written, and how far it has come.
pub(super) struct Draft {
    ask: u64,
    input: Input,
    options: Sampling,
    stop: StopFlag,
    begun_s: f64,
    text: String,
    tokens: usize,
    /// Tokens of the input, once it was read in a row of several.
    prompt_tokens: Option<usize>,
    ttft_s: Option<f64>,
}

impl EngineWorker {
    /// Writes a text when its turn comes, together with the others that wait then.
    pub(super) fn write(self: &Rc<Self>, ask: u64, input: Input, options: Sampling) {
        if let Err(problem) = options.check() {
            return self.emit(Event::Failed { ask: Some(ask), message: sentence(&problem) });
        }
        let Some(stop) = self.admitted(ask) else { return };
        let begun_s = self.clock.now_s();
        let (text, tokens, prompt_tokens, ttft_s) = (String::new(), 0, None, None);
        let draft = Draft { ask, input, options, stop, begun_s, text, tokens, prompt_tokens, ttft_s };
        self.drafts.borrow_mut().push_back(draft);
        let engine_worker = Rc::clone(self);
        spawn_local(async move {
            let _turn = engine_worker.turn.lock().await;
            // Others that were asked for in the same breath are messages that have not been heard yet.
            next_task().await;
            let drafts = engine_worker.drafts.take();
            if !drafts.is_empty() {
                engine_worker.write_all(drafts).await;
            }
        });
    }

    pub(super) fn embed(self: &Rc<Self>, ask: u64, texts: Vec<String>) {
        let Some(stop) = self.admitted(ask) else { return };
        let engine_worker = Rc::clone(self);
        spawn_local(async move {
            let _turn = engine_worker.turn.lock().await;
            let (mut loaded, epoch) = engine_worker.models.take();
            let result = match loaded.as_mut() {
                Some(loaded) => engine_worker.embed_all(loaded, &texts, &stop).await,
                None => Err(NO_MODEL.to_owned()),
            };
            engine_worker.models.put_back(loaded, epoch);
            engine_worker.end(ask, result.map(|(vectors, tokens)| Event::Embedded { ask, vectors, tokens }));
        });
    }

    /// Takes a task in, or tells the page why not.
    fn admitted(&self, ask: u64) -> Option<StopFlag> {
        let refusal = if self.asks.borrow().len() > MAX_WAITING {
            "Too much is waiting already. Stop something, or wait.".to_owned()
        } else if self.asks.borrow().contains_key(&ask) {
            format!("The number {ask} is in use.")
        } else {
            return Some(self.begin(ask));
        };
        self.emit(Event::Failed { ask: Some(ask), message: refusal });
        None
    }

    /// Tells the page how a task ended.
    fn end(&self, ask: u64, result: Result<Event, String>) {
        self.asks.borrow_mut().remove(&ask);
        let failed = |problem: String| Event::Failed { ask: Some(ask), message: sentence(&problem) };
        self.emit(result.unwrap_or_else(failed));
    }

    /// Several at the same time where the engine can, what is left one by one.
    async fn write_all(&self, mut drafts: VecDeque<Draft>) {
        let (mut loaded, epoch) = self.models.take();
        if let Some(loaded) = loaded.as_mut()
            && drafts.len() > 1
        {
            drafts = self.write_together(loaded, drafts).await;
        }
        for mut draft in drafts {
            let result = match loaded.as_mut() {
                Some(loaded) => self.write_alone(loaded, &mut draft).await,
                None => Err(NO_MODEL.to_owned()),
            };
            self.end(draft.ask, result.map(|record| Event::Written { ask: draft.ask, record }));
        }
        self.models.put_back(loaded, epoch);
    }

    /// Returns what has to be written alone: all of it where rows are not to be had, what is too long for one, what fills
    /// one and is not at its end, and what is unfinished after a fault, which comes up again there and is dealt with.
    async fn write_together(&self, loaded: &mut Loaded, mut drafts: VecDeque<Draft>) -> VecDeque<Draft> {
        let engine = &*loaded.engine();
        let rows = drafts.len().min(MAX_ROWS);
        let Ok(mut together) = engine.together(rows, Together::row_of(engine.info().context, rows)).await else {
            return drafts;
        };
        let capacity = together.capacity();
        let mut draft_texts =
            DraftTexts { engine_worker: self, engine, waiting: &mut drafts, capacity, begun: Vec::new() };
        let fault = together.write(&mut draft_texts).await.err();
        let mut left: VecDeque<_> = draft_texts.begun.into_iter().flatten().collect();
        left.append(&mut drafts);
        if let Some(fault) = fault {
            web_sys::console::warn_1(&format!("texts are written one by one: {fault}").into());
        }
        left
    }

    async fn write_alone(&self, loaded: &mut Loaded, draft: &mut Draft) -> Result<WriteRecord, String> {
        loop {
            if draft.stop.is_stopped() {
                return Ok(draft.record(self.clock.now_s(), Finish::Cancelled));
            }
            let (sampling, earlier) = (draft.sampling(usize::MAX), draft.tokens);
            let clock = || self.clock.now_s();
            let engine = loaded.engine();
            let stats = match draft.prompt(engine) {
                Ok(prompt) => {
                    let mut on_token = |token: TokenEvent<'_>| draft.take(self, &token);
                    engine.complete(&prompt, &sampling, &clock, &mut on_token).await
                }
                Err(error) => Err(error),
            };
            match stats {
                Ok(stats) => {
                    return Ok(WriteRecord {
                        prompt_tokens: draft.prompt_tokens.unwrap_or(stats.prompt_tokens),
                        cached_tokens: stats.cached_tokens,
                        tokens: earlier + stats.generated_tokens,
                        ..draft.record(self.clock.now_s(), stats.finish.into())
                    });
                }
                Err(error) => {
                    let error = LocalError::from(error);
                    if error.prompt_only {
                        return Err(error.message);
                    }
                    // A lost GPU: the CPU goes on where it was, or there is nothing left to try.
                    let recovered = Writing { engine_worker: self, loaded }.recover(&error).await;
                    let message = recovered.map_err(|error| error.message)?;
                    self.emit(Event::Notice { ask: Some(draft.ask), message });
                }
            }
        }
    }

    /// The vectors, and how many tokens the texts have together.
    async fn embed_all(
        &self,
        loaded: &mut Loaded,
        texts: &[String],
        stop: &StopFlag,
    ) -> Result<(Vec<Vec<f32>>, usize), String> {
        if texts.is_empty() || texts.len() > MAX_TEXTS || texts.iter().any(|text| text.trim().is_empty()) {
            return Err(format!("between 1 and {MAX_TEXTS} texts can be embedded at once, none of them empty"));
        }
        let (mut vectors, mut tokens) = (Vec::with_capacity(texts.len()), 0);
        for text in texts {
            if stop.is_stopped() {
                return Err("it was stopped".to_owned());
            }
            let (count, vector) = self.embedded(loaded, text).await?;
            tokens += count;
            vectors.push(vector);
            // Yields between two texts, so that queued messages of the page are handled.
            self.clock.sleep(0.0).await;
        }
        Ok((vectors, tokens))
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
                    let recovered = Writing { engine_worker: self, loaded }.recover(&error).await;
                    let message = recovered.map_err(|error| error.message)?;
                    self.notice(message);
                }
            }
        }
    }
}

impl Draft {
    /// What the model is to go on after.
    fn prompt(&self, engine: &Engine) -> Result<Prompt, EngineError> {
        match &self.input {
            Input::Text(text) => Ok(format!("{text}{}", self.text).into()),
            Input::Chat(turns) => engine.prompt(&turns.iter().map(ChatMessage::from).collect::<Vec<_>>(), &self.text),
        }
    }

    /// The engine's options for what is left to write, at most `most_tokens` of it now.
    fn sampling(&self, most_tokens: usize) -> SamplingOptions {
        engine_options(&self.options, self.left().min(most_tokens))
    }

    /// Tokens that may still be written.
    fn left(&self) -> usize {
        self.options.max_tokens.saturating_sub(self.tokens)
    }

    /// Takes a token and tells the page; breaks where the text was stopped.
    fn take(&mut self, engine_worker: &EngineWorker, token: &TokenEvent<'_>) -> ControlFlow<()> {
        self.ttft_s.get_or_insert_with(|| engine_worker.clock.now_s() - self.begun_s);
        self.tokens += 1;
        self.text.push_str(token.text);
        if !token.text.is_empty() {
            engine_worker.emit(Event::Text { ask: self.ask, text: token.text.to_owned() });
        }
        if self.stop.is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// What is known without the engine's own numbers.
    fn record(&self, now_s: f64, finish: Finish) -> WriteRecord {
        let total_s = now_s - self.begun_s;
        let ttft_s = self.ttft_s.unwrap_or(total_s);
        WriteRecord { tokens: self.tokens, ttft_s, decode_s: total_s - ttft_s, finish, ..WriteRecord::default() }
    }
}

/// Drafts as texts for the rows of a [`Together`].
struct DraftTexts<'a> {
    engine_worker: &'a EngineWorker,
    engine: &'a Engine,
    waiting: &'a mut VecDeque<Draft>,
    /// Tokens of a row.
    capacity: usize,
    /// Each until it is over.
    begun: Vec<Option<Draft>>,
}

impl DraftTexts<'_> {
    fn end(&self, draft: &Draft, record: WriteRecord) {
        self.engine_worker.end(draft.ask, Ok(Event::Written { ask: draft.ask, record }));
    }
}

impl Texts for DraftTexts<'_> {
    fn next(&mut self) -> Option<Text> {
        loop {
            let draft = self.waiting.pop_front()?;
            if draft.stop.is_stopped() {
                self.end(&draft, draft.record(self.engine_worker.clock.now_s(), Finish::Cancelled));
                continue;
            }
            match draft.prompt(self.engine) {
                Ok(prompt) => {
                    let most_tokens = row_tokens(self.engine, &prompt, draft.left(), &draft.options, self.capacity);
                    let options = draft.sampling(most_tokens);
                    let text = Text { id: self.begun.len(), prompt, options };
                    self.begun.push(Some(draft));
                    return Some(text);
                }
                Err(error) => self.engine_worker.end(draft.ask, Err(error.to_string())),
            }
        }
    }

    fn begun(&mut self, id: usize, prompt_tokens: usize) {
        if let Some(draft) = &mut self.begun[id] {
            draft.prompt_tokens = Some(prompt_tokens);
        }
    }

    fn token(&mut self, id: usize, token: TokenEvent<'_>) -> ControlFlow<()> {
        match &mut self.begun[id] {
            Some(draft) => draft.take(self.engine_worker, &token),
            None => ControlFlow::Break(()),
        }
    }

    fn over(&mut self, id: usize, result: Result<Ended, EngineError>) {
        // What a row cannot take is left, and tried alone; so is what has filled one.
        let (Ok(Ended { finish, tokens, .. }), Some(draft)) = (result, &mut self.begun[id]) else { return };
        draft.tokens = tokens;
        if finish == FinishReason::Length && draft.left() > 0 {
            return;
        }
        if let Some(draft) = self.begun[id].take() {
            let record = draft.record(self.engine_worker.clock.now_s(), finish.into());
            let record = WriteRecord { prompt_tokens: draft.prompt_tokens.unwrap_or(0), tokens, ..record };
            self.end(&draft, record);
        }
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
