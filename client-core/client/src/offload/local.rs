//! The LLM engine as the device's side of a run.

use std::ops::ControlFlow;

use async_trait::async_trait;

use super::ports::{Job, Jobs, LocalEngine, LocalError, Written, answer_one};
use crate::protocol::engine::{Read, Turn};
use crate::protocol::sampling::Sampling;
use crate::protocol::worker::AskOptions;
use engine::backend::MAX_ROWS;
use engine::together::{Ended, Text, Texts};
use engine::{ChatMessage, Engine, EngineError, FinishReason, Prompt, SamplingOptions, Together, TokenEvent};

/// An engine for the time of an ask, with a clock in seconds. It cannot recover by itself: only who loaded the model knows
/// where to get it again.
pub struct EnginePort<'a> {
    /// The loaded model.
    pub engine: &'a mut Engine,
    /// Seconds since some fixed moment.
    pub clock: &'a dyn Fn() -> f64,
}

impl From<EngineError> for LocalError {
    fn from(error: EngineError) -> Self {
        if error.concerns_prompt() { Self::of_prompt(error) } else { Self::new(error) }
    }
}

/// The engine's options for these, with a limit of the caller's.
#[must_use]
pub fn engine_options(sampling: &Sampling, max_tokens: usize) -> SamplingOptions {
    SamplingOptions {
        max_tokens,
        temperature: sampling.temperature,
        top_k: sampling.top_k,
        top_p: sampling.top_p,
        repetition_penalty: sampling.repetition_penalty,
        seed: sampling.seed,
        stop: sampling.stop.clone(),
        ..SamplingOptions::default()
    }
}

/// Most tokens to write in a row of `capacity` tokens where `left` may still be written after `prompt`. An answer without a
/// limit of its own takes half of a row, so that a prompt fits beside it, and is gone on with alone where it is longer. One
/// with a limit that does not fit is not begun in a row: it is the same from its first token to its last.
#[must_use]
pub fn row_tokens(engine: &Engine, prompt: &Prompt, left: usize, sampling: &Sampling, capacity: usize) -> usize {
    if sampling.limit().is_some() {
        return left;
    }
    let prompt_tokens = prompt.tokens(engine.tokenizer()).map_or(0, |tokens| tokens.len());
    if prompt_tokens.saturating_add(left) <= capacity { left } else { left.min((capacity / 2).max(1)) }
}

/// Jobs as texts for the rows of a [`Together`].
struct Burst<'a> {
    engine: &'a Engine,
    jobs: &'a mut dyn Jobs,
    options: &'a AskOptions,
    /// Tokens of a row.
    capacity: usize,
    begun: Vec<Begun>,
    /// What a row does not hold; the engine's own context may.
    long: Vec<Job>,
}

/// A job in a row.
struct Begun {
    /// As it was, and what has been written of it since.
    job: Job,
    /// Whether its prompt was read.
    read: bool,
}

impl Texts for Burst<'_> {
    fn next(&mut self) -> Option<Text> {
        loop {
            let job = self.jobs.next()?;
            match self.engine.prompt(&messages(&self.options.earlier, &job.text), &job.prefix) {
                Ok(prompt) => {
                    let sampling = &self.options.sampling;
                    let most_tokens = row_tokens(self.engine, &prompt, job.max_tokens, sampling, self.capacity);
                    let options = engine_options(sampling, most_tokens);
                    let text = Text { id: self.begun.len(), prompt, options };
                    self.begun.push(Begun { job, read: false });
                    return Some(text);
                }
                Err(error) => self.jobs.done(job.prompt, Err(error.into())),
            }
        }
    }

    fn begun(&mut self, id: usize, prompt_tokens: usize) {
        self.begun[id].read = true;
        // A row begins empty.
        self.jobs.read(Read { tokens: prompt_tokens, cached: 0 });
    }

    fn token(&mut self, id: usize, token: TokenEvent<'_>) -> ControlFlow<()> {
        let job = &mut self.begun[id].job;
        job.prefix.push_str(token.text);
        job.max_tokens = job.max_tokens.saturating_sub(1);
        self.jobs.token(job.prompt, token.text)
    }

    fn over(&mut self, id: usize, result: Result<Ended, EngineError>) {
        let Begun { job, read } = &self.begun[id];
        match result {
            Err(EngineError::PromptTooLong { .. }) if !read => self.long.push(job.clone()),
            // The row was full, and not the answer at its limit.
            Ok(Ended { finish: FinishReason::Length, .. }) if job.max_tokens > 0 => self.long.push(job.clone()),
            result => self.jobs.done(job.prompt, result.map(|ended| ended.finish.into()).map_err(LocalError::from)),
        }
    }
}

/// A conversation and the next thing that a person says in it, for the engine.
#[must_use]
pub fn messages(earlier: &[Turn], prompt: &str) -> Vec<ChatMessage> {
    earlier.iter().chain([&Turn::user(prompt)]).map(ChatMessage::from).collect()
}

#[async_trait(?Send)]
impl LocalEngine for EnginePort<'_> {
    async fn entropy(&mut self, earlier: &[Turn], prompt: &str) -> Result<f32, LocalError> {
        Ok(self.engine.first_token_entropy(&messages(earlier, prompt)).await?)
    }

    async fn generate(
        &mut self,
        prompt: &str,
        prefix: &str,
        max_tokens: usize,
        options: &AskOptions,
        on_token: &mut dyn for<'t> FnMut(&'t str) -> ControlFlow<()>,
    ) -> Result<Written, LocalError> {
        let mut forward = |token: TokenEvent<'_>| on_token(token.text);
        let sampling = engine_options(&options.sampling, max_tokens);
        let stats = self
            .engine
            .generate(&messages(&options.earlier, prompt), prefix, &sampling, self.clock, &mut forward)
            .await?;
        let read = Read { tokens: stats.prompt_tokens, cached: stats.cached_tokens };
        Ok(Written { finish: stats.finish.into(), read })
    }

    /// Several that wait are answered together where the backend can; one by itself has the engine's own cache.
    async fn answer_all(&mut self, jobs: &mut dyn Jobs, options: &AskOptions) -> Result<(), LocalError> {
        while jobs.waiting() > 1 {
            let rows = jobs.waiting().min(MAX_ROWS);
            match self.engine.together(rows, Together::row_of(self.engine.info().context, rows)).await {
                Ok(mut together) => {
                    let engine = &*self.engine;
                    let (capacity, begun, long) = (together.capacity(), Vec::new(), Vec::new());
                    let mut burst = Burst { engine, jobs: &mut *jobs, options, capacity, begun, long };
                    together.write(&mut burst).await?;
                    for job in burst.long {
                        answer_one(self, jobs, &job, options).await?;
                    }
                }
                Err(error @ EngineError::DeviceLost(_)) => return Err(error.into()),
                // Not offered, or no memory for more caches: one after the other takes longer, and works.
                Err(_) => break,
            }
        }
        while let Some(job) = jobs.next() {
            answer_one(self, jobs, &job, options).await?;
        }
        Ok(())
    }

    async fn recover(&mut self, error: &LocalError) -> Result<String, LocalError> {
        Err(error.clone())
    }
}

#[cfg(all(test, feature = "engine"))]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::*;
    use crate::offload::fakes::{FakeClock, FakeServer, Step};
    use crate::offload::length::AnswerLength;
    use crate::offload::ports::Clock;
    use crate::offload::run::{Ask, SlotModel, run};
    use crate::offload::signal::StopFlag;
    use crate::protocol::engine::Finish;
    use crate::protocol::sampling::MOST_TOKENS;
    use crate::protocol::worker::{AskMode, Event, Origin};
    use crate::protocol::world::DeviceOutcome;
    use engine::gguf::GgmlType;
    use engine::synthetic::{self, Storage};
    use engine::testing::{model_file, trained};

    const TEMPLATE: &str = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}<|assistant|>";
    const CONTEXT: usize = 96;

    fn engine() -> Engine {
        let (mut tokens, merges, _) = trained(320);
        tokens.extend(["<|user|>", "<|assistant|>", "<|end|>"].map(str::to_owned));
        let mut config = synthetic::config([tokens.len(), 64, 2, 4, 2, 96]);
        config.context = CONTEXT;
        let storage = Storage { blocks: GgmlType::Q4_0, embedding: GgmlType::Q8_0, untied: false };
        let weights = synthetic::weights(config, storage, 5).expect("weights");
        Engine::from_gguf_cpu(&model_file(&weights, &tokens, &merges, 3, TEMPLATE)).expect("a model")
    }

    fn asked(prompts: &[&str], mode: AskMode, max_tokens: usize) -> Ask {
        let sampling = Sampling { max_tokens, ..Sampling::default() };
        let options = AskOptions { mode, sampling, pacing: false, ..AskOptions::default() };
        Ask { id: 1, prompts: prompts.iter().map(|&prompt| prompt.to_owned()).collect(), begun: Vec::new(), options }
    }

    /// Plays an ask; returns the texts by prompt and who wrote the pieces of each.
    fn play(engine: &mut Engine, server: &FakeServer, prompts: &[&str], alpha: f64) -> Vec<(String, Vec<Origin>)> {
        let clock = server.clock.clone();
        let seconds = || clock.now_s();
        let mut port = EnginePort { engine, clock: &seconds };
        let ask = asked(prompts, AskMode::Split, 12);
        let outcome = DeviceOutcome { alpha, ..DeviceOutcome::default() };
        let slot = SlotModel { slot: 0, size_bits: 1e6, outcome };
        let pieces = RefCell::new(vec![(String::new(), Vec::new()); prompts.len()]);
        let emit = |event| {
            if let Event::Token { prompt, origin, text, .. } = event {
                let (whole, origins) = &mut pieces.borrow_mut()[prompt];
                whole.push_str(&text);
                origins.push(origin);
            }
        };
        let (mut length, stop) = (AnswerLength::default(), StopFlag::default());
        let done = clock.block_on(run(&ask, &slot, 0.0, Some(&mut port), server, &clock, &mut length, &stop, &emit));
        let record = done.record.expect("it was answered");
        assert_eq!((record.stopped, record.prompts), (false, prompts.len()));
        pieces.into_inner()
    }

    #[test]
    fn a_real_engine_goes_on_where_the_server_ended() {
        let mut engine = engine();
        let server = FakeServer::new(&FakeClock::default());
        let (alone, origins) = play(&mut engine, &server, &["What is helium?"], 0.0).remove(0);
        assert!(!alone.is_empty() && origins.iter().all(|&origin| origin == Origin::Device));

        let (shared, origins) = play(&mut engine, &server, &["What is helium?"], 0.5).remove(0);
        assert!(shared.starts_with("s0 s1 s2 ") && shared.len() > 9, "{shared:?}");
        assert_eq!(origins[..4], [Origin::Server, Origin::Server, Origin::Server, Origin::Device]);
        // What it writes there is what it writes after that very text.
        let options = AskOptions::default();
        let mut text = String::new();
        let mut port = EnginePort { engine: &mut engine, clock: &|| 0.0 };
        let mut keep = |piece: &str| {
            text.push_str(piece);
            ControlFlow::Continue(())
        };
        pollster::block_on(port.generate("What is helium?", "s0 s1 s2 ", 9, &options, &mut keep)).expect("an answer");
        assert_eq!(shared, format!("s0 s1 s2 {text}"));
    }

    /// A burst that stays on the device: every answer is what it is alone, and they are written at the same time.
    #[test]
    fn a_burst_is_answered_together() {
        let mut engine = engine();
        let server = FakeServer::new(&FakeClock::default());
        // The second is longer than a row would be with four in a context of this size.
        let long = "What is the capital? ".repeat(3);
        let prompts = ["What is helium?", &long, "Where is it?", "Who was that?", "And why?", "What is the capital?"];
        let alone = prompts.map(|prompt| play(&mut engine, &server, &[prompt], 0.0).remove(0).0);
        let order = RefCell::new(Vec::new());
        let clock = server.clock.clone();
        let mut port = EnginePort { engine: &mut engine, clock: &|| 0.0 };
        let ask = asked(&prompts, AskMode::LocalOnly, 12);
        let slot = SlotModel { slot: 0, size_bits: 1e6, outcome: DeviceOutcome::default() };
        let emit = |event| {
            if let Event::Token { prompt, .. } = event {
                order.borrow_mut().push(prompt);
            }
        };
        let (mut length, stop) = (AnswerLength::default(), StopFlag::default());
        let work = run(&ask, &slot, 0.0, Some(&mut port), &server, &clock, &mut length, &stop, &emit);
        let done = clock.block_on(work);
        assert_eq!(done.answers.iter().map(|answer| answer.text.clone()).collect::<Vec<_>>(), alone);
        let order = order.into_inner();
        let first_ended = order.iter().rposition(|&prompt| prompt == order[0]).expect("it was told");
        let begun: std::collections::BTreeSet<usize> = order[..first_ended].iter().copied().collect();
        assert!(begun.len() >= MAX_ROWS, "{order:?}");
    }

    #[test]
    fn only_an_open_ended_answer_is_bounded_by_its_row() {
        let engine = engine();
        let prompt = engine.prompt(&messages(&[], "What is helium?"), "").expect("a prompt");
        let open = Sampling::default();
        let limited = Sampling { max_tokens: 500, ..Sampling::default() };
        for (left, sampling, tokens) in [
            (MOST_TOKENS, &open, CONTEXT / 2),
            (MOST_TOKENS - 7, &open, CONTEXT / 2),
            (3, &open, 3),
            (500, &limited, 500),
            (3, &limited, 3),
        ] {
            assert_eq!(
                row_tokens(&engine, &prompt, left, sampling, CONTEXT),
                tokens,
                "{left} of {}",
                sampling.max_tokens
            );
        }
        assert_eq!(row_tokens(&engine, &prompt, MOST_TOKENS, &open, 1), 1);
    }

    /// An answer with a limit is what it is alone; one without ends with the model or with the context, not with its row.
    #[test]
    fn no_answer_ends_where_its_row_does() {
        let mut engine = engine();
        let server = FakeServer::new(&FakeClock::default());
        let prompts = ["What is helium?", "Where is it?"];
        let clock = server.clock.clone();
        let mut write = |prompts: &[&str], limit: usize| {
            let finishes = RefCell::new(BTreeMap::new());
            let emit = |event| {
                if let Event::PromptDone { prompt, finish, .. } = event {
                    finishes.borrow_mut().insert(prompt, finish);
                }
            };
            let ask = asked(prompts, AskMode::LocalOnly, limit);
            let slot = SlotModel { slot: 0, size_bits: 1e6, outcome: DeviceOutcome::default() };
            let (mut length, stop) = (AnswerLength::default(), StopFlag::default());
            let mut port = EnginePort { engine: &mut engine, clock: &|| 0.0 };
            let work = run(&ask, &slot, 0.0, Some(&mut port), &server, &clock, &mut length, &stop, &emit);
            let done = clock.block_on(work);
            (done.answers, finishes.into_inner())
        };
        let limit = CONTEXT / 2 + 9;
        let (together, finishes) = write(&prompts, limit);
        for (n, prompt) in prompts.iter().enumerate() {
            let (alone, how) = write(&[*prompt], limit);
            assert_eq!((&together[n].text, finishes[&n]), (&alone[0].text, how[&0]), "{prompt}");
        }
        let (together, finishes) = write(&prompts, MOST_TOKENS);
        for (n, answer) in together.iter().enumerate() {
            assert!(finishes[&n] == Finish::Stop || answer.device_tokens > CONTEXT / 2, "{answer:?}");
        }
    }

    #[test]
    fn the_least_certain_prompt_is_offloaded() {
        let mut engine = engine();
        let prompts = ["What is helium?", "What is the capital?"];
        let mut port = EnginePort { engine: &mut engine, clock: &|| 0.0 };
        let entropies = prompts.map(|prompt| pollster::block_on(port.entropy(&[], prompt)).expect("an entropy"));
        assert!(entropies.iter().all(|entropy| *entropy > 0.0) && entropies[0] != entropies[1], "{entropies:?}");
        let harder = usize::from(entropies[1] > entropies[0]);
        let server = FakeServer::new(&FakeClock::default());
        let answers = play(&mut engine, &server, &prompts, 0.5);
        assert!(answers[harder].1.iter().all(|&origin| origin == Origin::Server));
        // The other is the device's to begin; who ends it is a matter of α.
        assert_eq!(answers[1 - harder].1[0], Origin::Device);
    }

    #[test]
    fn a_prompt_too_long_for_the_device_goes_to_the_server() {
        let long = "What is the capital? ".repeat(CONTEXT);
        let server = FakeServer::new(&FakeClock::default());
        let answers = play(&mut engine(), &server, &[&long, "What is helium?"], 0.0);
        assert_eq!(answers[0].0, "s0 s1 s2 s3 s4 ");
        assert!(answers[1].1.iter().all(|&origin| origin == Origin::Device) && !answers[1].0.is_empty());
    }

    #[test]
    fn a_killed_server_is_finished_for_by_a_real_engine() {
        let mut server = FakeServer::new(&FakeClock::default());
        server.scripts.push(("What is helium?", vec![Step::Tokens(2), Step::Cut]));
        let (text, origins) = play(&mut engine(), &server, &["What is helium?"], 1.0).remove(0);
        assert!(text.starts_with("s0 s1 ") && origins.contains(&Origin::Device), "{text:?}");
    }
}
