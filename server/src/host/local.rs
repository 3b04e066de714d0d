//! The full model in this process: decode threads over a bounded queue.
//!
//! Every thread has its own sequence (KV cache) over shared weights. Requests of one conversation may meet different
//! threads; a cache that does not fit is simply filled anew, which a model of this size does in milliseconds.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use async_trait::async_trait;
use client::protocol::health::HostKind;
use engine::{self, Engine, EngineError, SamplingOptions, TokenEvent};
use futures::executor::block_on;
use tokio::sync::{mpsc, oneshot};

use super::pool::Pool;
use super::{
    Embedder, FinishReason, Generation, GenerationEvent, GenerationStream, Host, HostError, Load, ModelCard, Prompt,
    Summary, TokenEmbeddings, scores,
};

/// The loaded model with its threads.
#[derive(Debug)]
pub struct LocalHost {
    card: ModelCard,
    context: usize,
    vocabulary: String,
    pool: Pool<Job>,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a queue holds a few hundred of them")]
enum Job {
    Generate { generation: Generation, events: mpsc::Sender<GenerationEvent> },
    Embed { text: String, answer: oneshot::Sender<Result<TokenEmbeddings, HostError>> },
}

impl LocalHost {
    /// Starts `slots` decode threads (at least one) with at most `queue` requests waiting.
    ///
    /// # Errors
    /// [`HostError::Engine`] when there is no memory for so many sequences or the system refuses a thread.
    pub fn start(engine: Engine, card: ModelCard, slots: usize, queue: usize) -> Result<Self, HostError> {
        let context = engine.info().context;
        let vocabulary = engine.tokenizer().fingerprint();
        let mut engines = Vec::with_capacity(slots.max(1));
        for _ in 1..slots {
            engines.push(engine.fork()?);
        }
        engines.push(engine);
        let workers: Vec<_> = engines.into_iter().map(|mut engine| move |job| run(&mut engine, job)).collect();
        let pool = Pool::start("decode", workers, queue).map_err(|error| HostError::Engine(error.to_string()))?;
        Ok(Self { card, context, vocabulary, pool })
    }
}

impl super::pool::Job for Job {
    fn is_abandoned(&self) -> bool {
        match self {
            Self::Generate { events, .. } => events.is_closed(),
            Self::Embed { answer, .. } => answer.is_closed(),
        }
    }
}

#[async_trait]
impl Host for LocalHost {
    fn kind(&self) -> HostKind {
        HostKind::Local
    }

    async fn model(&self) -> ModelCard {
        self.card.clone()
    }

    fn vocabulary(&self) -> Option<String> {
        Some(self.vocabulary.clone())
    }

    fn load(&self) -> Load {
        self.pool.load()
    }

    async fn generate(&self, generation: Generation) -> Result<GenerationStream, HostError> {
        // Room for every token that the context can hold: a slow client never holds up a decode thread.
        let room = generation.sampling.max_tokens.unwrap_or(usize::MAX).min(self.context) + 2;
        let (events, stream) = mpsc::channel(room);
        self.pool.submit(Job::Generate { generation, events })?;
        Ok(stream)
    }
}

#[async_trait]
impl Embedder for LocalHost {
    fn id(&self) -> String {
        self.card.id.clone()
    }

    async fn embed(&self, text: String) -> Result<TokenEmbeddings, HostError> {
        let (answer, result) = oneshot::channel();
        self.pool.submit(Job::Embed { text, answer })?;
        result.await.unwrap_or_else(|_| Err(HostError::Engine("a decode thread has failed".into())))
    }
}

/// Embeds with the same threads that answer, behind a trait object of its own.
#[must_use]
pub fn as_embedder(host: &Arc<LocalHost>) -> Arc<dyn Embedder> {
    Arc::<LocalHost>::clone(host)
}

fn run(engine: &mut Engine, job: Job) {
    match job {
        Job::Generate { generation, events } => {
            // Whoever waited too long has left.
            if events.is_closed() {
                return;
            }
            // A prompt is given up within a layer's time when its client leaves.
            let client = events.clone();
            engine.stop_when(Some(Arc::new(move || client.is_closed())));
            let answer = generate(engine, generation, &events);
            engine.stop_when(None);
            let last = match answer {
                Ok(Some(summary)) => GenerationEvent::Done(summary),
                Ok(None) | Err(EngineError::Stopped) => return,
                Err(error) => GenerationEvent::Failed(error.into()),
            };
            // Fails only when nobody listens any more.
            let _ = events.try_send(last);
        }
        Job::Embed { text, answer } => {
            if !answer.is_closed() {
                let _ = answer.send(embed(engine, &text).map_err(Into::into));
            }
        }
    }
}

/// `None` when the client left in the middle.
fn generate(
    engine: &mut Engine,
    generation: Generation,
    events: &mpsc::Sender<GenerationEvent>,
) -> Result<Option<Summary>, EngineError> {
    let sampling = generation.sampling;
    let options = SamplingOptions {
        // The engine itself stops where the context ends.
        max_tokens: sampling.max_tokens.unwrap_or(usize::MAX),
        temperature: sampling.temperature.unwrap_or(1.0) as f32,
        top_k: sampling.top_k,
        top_p: sampling.top_p.unwrap_or(1.0) as f32,
        repetition_penalty: sampling.repetition_penalty.unwrap_or(1.0) as f32,
        min_p: sampling.min_p.unwrap_or(0.0) as f32,
        presence_penalty: sampling.presence_penalty.unwrap_or(0.0) as f32,
        frequency_penalty: sampling.frequency_penalty.unwrap_or(0.0) as f32,
        logit_bias: sampling.logit_bias.iter().map(|(id, bias)| (*id, *bias as f32)).collect(),
        top_logprobs: sampling.logprobs,
        seed: sampling.seed_or_any(),
        stop: sampling.stop,
        stop_tokens: sampling.stop_tokens,
        ignore_eos: sampling.ignore_eos,
    };
    // A clock before 1970 is as good as none.
    if let Ok(since_1970) = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        engine.set_now(since_1970.as_secs() as i64);
    }
    let started = Instant::now();
    let clock = || started.elapsed().as_secs_f64();
    let (tokenizer, is_chat) = (engine.tokenizer().clone(), matches!(generation.prompt, Prompt::Chat { .. }));
    let mut written = 0;
    let mut on_token = |token: TokenEvent<'_>| {
        let text = token.text.to_owned();
        let event = match token.logprobs {
            Some(scores) => {
                let scores = scores::of_token(&tokenizer, is_chat, token.id, written, scores);
                GenerationEvent::Scored(text, scores)
            }
            None => GenerationEvent::Text(text),
        };
        written += token.text.chars().count();
        match events.try_send(event) {
            Ok(()) => ControlFlow::Continue(()),
            // The client is gone (there is room for every token): the next one is not computed.
            Err(_) => ControlFlow::Break(()),
        }
    };
    let stats = match generation.prompt {
        Prompt::Chat { messages, assistant_prefix } => {
            block_on(engine.generate(&messages, &assistant_prefix, &options, &clock, &mut on_token))?
        }
        Prompt::Text(text) => block_on(engine.complete(&text, &options, &clock, &mut on_token))?,
        Prompt::Controlled(text) => {
            let prompt = engine::Prompt::with_control_tokens(&text);
            block_on(engine.complete(prompt, &options, &clock, &mut on_token))?
        }
        Prompt::Tokens(ids) => {
            let known = engine.tokenizer().vocab_size();
            if let Some(id) = ids.iter().find(|id| **id as usize >= known) {
                return Err(EngineError::Tokenizer(format!("there is no token {id}; the model has {known}")));
            }
            block_on(engine.complete(engine::Prompt::of_tokens(ids), &options, &clock, &mut on_token))?
        }
    };
    let finish = match stats.finish {
        engine::FinishReason::Stop => FinishReason::Stop,
        engine::FinishReason::Length => FinishReason::Length,
        engine::FinishReason::Cancelled => return Ok(None),
    };
    Ok(Some(Summary {
        finish,
        prompt_tokens: stats.prompt_tokens,
        completion_tokens: stats.generated_tokens,
        prefill_s: Some(stats.prefill_s),
        decode_s: Some(stats.decode_s),
    }))
}

fn embed(engine: &mut Engine, text: &str) -> Result<TokenEmbeddings, EngineError> {
    let (tokens, vectors) = block_on(engine.hidden_states(text))?;
    // The token that begins every text says nothing of this one.
    let bos = engine.tokenizer().bos().map(|id| engine.tokenizer().token_text(id));
    let special = tokens.iter().enumerate().map(|(index, text)| index == 0 && Some(text) == bos.as_ref()).collect();
    Ok(TokenEmbeddings { tokens, vectors, special })
}

impl From<EngineError> for HostError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::PromptTooLong { tokens, context } => Self::PromptTooLong { tokens, context },
            EngineError::EmptyPrompt | EngineError::Template(_) | EngineError::Tokenizer(_) => {
                Self::Invalid(error.to_string())
            }
            _ => Self::Engine(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::host::testing::{card, engine, engine_with};
    use crate::host::{Message, Sampling};

    fn ask(text: &str, max_tokens: Option<usize>) -> Generation {
        let sampling = Sampling { max_tokens, temperature: Some(0.0), seed: Some(0), ..Sampling::default() };
        Generation { prompt: Prompt::Text(text.into()), sampling, counted: true }
    }

    #[test]
    fn templates_see_the_day() {
        let mut engine = engine_with(512, "{{ strftime_now('%Y') }}");
        let year = |engine: &Engine| engine.render(&[], "").unwrap().parse::<u32>().unwrap();
        assert_eq!(year(&engine), 2024, "what a template sees that nobody has told");
        engine.set_now(0);
        assert_eq!(year(&engine), 1970);
        let (events, _kept) = mpsc::channel(8);
        generate(&mut engine, ask("a", Some(1)), &events).unwrap();
        assert!(year(&engine) >= 2025, "the server's clock");
    }

    async fn collect(host: &LocalHost, generation: Generation) -> (String, usize, GenerationEvent) {
        let mut stream = host.generate(generation).await.unwrap();
        let (mut text, mut pieces) = (String::new(), 0);
        while let Some(event) = stream.recv().await {
            match event {
                GenerationEvent::Text(piece) => {
                    text += &piece;
                    pieces += 1;
                }
                last => return (text, pieces, last),
            }
        }
        panic!("no last event");
    }

    async fn until(what: &str, done: impl Fn() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < Duration::from_secs(10), "gave up waiting until {what}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn every_slot_writes_the_same_answer() {
        let host = LocalHost::start(engine(512), card(), 3, 8).unwrap();
        let answers = futures::future::join_all((0..6).map(|_| collect(&host, ask("hello", Some(5))))).await;
        for (text, pieces, last) in &answers {
            assert_eq!((text, *pieces), (&answers[0].0, 5));
            let GenerationEvent::Done(summary) = last else { panic!("{last:?}") };
            // Five letters and <s>.
            assert_eq!((summary.prompt_tokens, summary.completion_tokens), (6, 5));
            assert_eq!(summary.finish, FinishReason::Length);
            assert!(summary.prefill_s.unwrap() > 0.0 && summary.decode_s.unwrap() > 0.0);
        }
        let messages = vec![Message { role: "user".into(), content: "hel".into() }];
        let chat = Prompt::Chat { messages, assistant_prefix: "lo".into() };
        let (_, _, last) = collect(&host, Generation { prompt: chat, ..ask("", Some(1)) }).await;
        // The template's "hel:" and the prefix.
        assert!(matches!(last, GenerationEvent::Done(summary) if summary.prompt_tokens == 7), "{last:?}");
    }

    #[tokio::test]
    async fn the_context_ends_an_answer_without_a_limit() {
        let host = LocalHost::start(engine(40), card(), 1, 0).unwrap();
        let (_, pieces, last) = collect(&host, ask("hello", None)).await;
        assert!(matches!(last, GenerationEvent::Done(summary) if summary.completion_tokens == pieces), "{last:?}");
        // Nobody may wait here, and the slot is freed a moment after the last event.
        until("the slot is free", || host.load().active == 0).await;
        let (_, _, last) = collect(&host, ask(&"x".repeat(50), None)).await;
        let expect = HostError::PromptTooLong { tokens: 51, context: 40 };
        assert!(matches!(&last, GenerationEvent::Failed(error) if *error == expect), "{last:?}");
    }

    #[tokio::test]
    async fn a_client_that_leaves_frees_its_slot_and_a_full_queue_refuses() {
        // Uncancelled, a context of this length would take many minutes to fill.
        let host = LocalHost::start(engine(100_000), card(), 1, 1).unwrap();
        let mut first = host.generate(ask("a", None)).await.unwrap();
        assert!(matches!(first.recv().await, Some(GenerationEvent::Text(_))));
        let mut second = host.generate(ask("b", Some(1))).await.unwrap();
        assert_eq!(host.load(), Load { slots: 1, active: 1, waiting: 1, capacity: 1 });
        assert!(matches!(host.generate(ask("c", Some(1))).await, Err(HostError::Busy { waiting: 1, .. })));
        drop(first);
        assert!(matches!(second.recv().await, Some(GenerationEvent::Text(_))));
        assert!(matches!(second.recv().await, Some(GenerationEvent::Done(_))));
        until("the slot is free", || host.load().active == 0).await;
        // Whoever leaves the queue is not computed for.
        let first = host.generate(ask("a", None)).await.unwrap();
        drop(host.generate(ask("b", None)).await);
        drop(first);
        until("both are gone", || host.load() == Load { slots: 1, active: 0, waiting: 0, capacity: 1 }).await;
    }

    #[tokio::test]
    async fn embeds_with_the_model_itself() {
        let host = Arc::new(LocalHost::start(engine(512), card(), 1, 4).unwrap());
        let embedder = as_embedder(&host);
        let hello = embedder.embed("hello".into()).await.unwrap();
        assert_eq!(hello.special, [true, false, false, false, false, false]);
        assert_eq!((hello.tokens[1].as_str(), hello.vectors[1].len()), ("h", 32));
        // Left to right: what comes later does not change what came before.
        let help = embedder.embed("help!".into()).await.unwrap();
        assert_eq!(help.vectors[..4], hello.vectors[..4]);
        assert_ne!(help.vectors[4], hello.vectors[4]);
        let error = embedder.embed("x".repeat(600)).await.unwrap_err();
        assert!(matches!(error, HostError::PromptTooLong { tokens: 601, .. }), "{error}");
    }
}
