//! The full model in this process: what the API asks becomes sequences for the [`Scheduler`], whose events are the answers.
//!
//! Prompts are made here, not on the scheduler's thread: a template or a long text that takes its time holds up nobody's
//! answer. Where the kernels do not take a model, candle computes it, one sequence after the other in each pass.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use client::protocol::health::HostKind;
use engine::backend::Batch;
use engine::one_by_one::OneByOne;
use engine::template::Stop;
use engine::{ChatTokenizer, Engine, EngineError, SamplingOptions};
use futures::executor::block_on;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::queue::Reservation;
use super::scheduler::{Ask, Scheduler, Wish};
use super::{
    Embedder, Generation, GenerationStream, Host, HostError, Load, ModelCard, Passage, Progress, Prompt, Sampling,
    TokenEmbeddings,
};

/// Prompts that are made at the same time.
const PREPARED_AT_ONCE: usize = 2;
/// Longest time that a chat template may run: others wait for its place. Those in use take milliseconds.
const LONGEST_TEMPLATE: Duration = Duration::from_secs(5);

/// How much a model here may do at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalConfig {
    /// Sequences that are computed together, at least one.
    pub slots: usize,
    /// Requests that wait behind them.
    pub queue: usize,
    /// Memory for the beginnings of conversations that are over.
    pub prefix_bytes: usize,
}

/// The loaded model.
#[derive(Debug)]
pub struct LocalHost {
    card: ModelCard,
    /// Tokens that a sequence holds.
    context: usize,
    /// Width of a hidden state.
    dim: usize,
    vocabulary: String,
    words: ChatTokenizer,
    preparing: Arc<Semaphore>,
    scheduler: Scheduler,
}

impl LocalHost {
    /// Starts the thread that computes.
    ///
    /// # Errors
    /// [`HostError::Engine`] when there is no memory for so many sequences or the system refuses a thread.
    pub fn start(engine: Engine, card: ModelCard, config: LocalConfig) -> Result<Self, HostError> {
        let info = engine.info();
        let (words, backend) = engine.into_parts();
        let slots = config.slots.max(1);
        let batch: Box<dyn Batch> = match block_on(backend.batch(slots, info.context)) {
            Err(EngineError::NotOffered { .. }) => Box::new(OneByOne::new(backend, slots)?),
            batch => batch?,
        };
        let scheduler = Scheduler::start(batch, words.tokenizer.clone(), config.queue, config.prefix_bytes)
            .map_err(|error| HostError::Engine(error.to_string()))?;
        Ok(Self {
            card,
            context: info.context,
            dim: info.dim,
            vocabulary: words.tokenizer.fingerprint(),
            words,
            preparing: Arc::new(Semaphore::new(PREPARED_AT_ONCE)),
            scheduler,
        })
    }

    /// A place in the queue, and the prompt's tokens, which fit. `tokens` is given what says whether the client has left:
    /// then nobody waits for this any more.
    async fn prepare(
        &self,
        field: &'static str,
        tokens: impl FnOnce(ChatTokenizer, Stop) -> Result<Vec<u32>, HostError> + Send + 'static,
    ) -> Result<(Reservation<Ask>, Vec<u32>), HostError> {
        let place = self.scheduler.queue().reserve()?;
        let permit = Arc::clone(&self.preparing).acquire_owned().await.map_err(|_| HostError::ShuttingDown)?;
        let words = self.words.clone();
        let here = Arc::new(());
        let client = Arc::downgrade(&here);
        let made = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            tokens(words, Arc::new(move || client.strong_count() == 0))
        });
        let broken = |error| HostError::Engine(format!("the prompt could not be read: {error}"));
        let tokens = made.await.map_err(broken)??;
        drop(here);
        if tokens.is_empty() {
            return Err(EngineError::EmptyPrompt.into());
        }
        if tokens.len() > self.context {
            return Err(HostError::PromptTooLong { tokens: tokens.len(), context: self.context });
        }
        let known = self.words.tokenizer.vocab_size();
        if let Some(id) = tokens.iter().find(|id| **id as usize >= known) {
            return Err(HostError::Field { field, why: format!("there is no token {id}; the model has {known}") });
        }
        Ok((place, tokens))
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
        self.scheduler.load()
    }

    fn progress(&self) -> Option<Progress> {
        Some(self.scheduler.progress())
    }

    async fn generate(&self, generation: Generation) -> Result<GenerationStream, HostError> {
        let Generation { prompt, sampling, counted: _, cache_salt } = generation;
        let is_chat = matches!(prompt, Prompt::Chat { .. });
        let options = options_of(sampling);
        let known = self.words.tokenizer.vocab_size();
        let named = [
            ("logit_bias", options.logit_bias.iter().map(|(id, _)| *id).find(|id| *id as usize >= known)),
            ("stop_token_ids", options.stop_tokens.iter().copied().find(|id| *id as usize >= known)),
        ];
        if let Some((field, id)) = named.into_iter().find_map(|(field, id)| Some((field, id?))) {
            return Err(HostError::Field { field, why: format!("there is no token {id}; the model has {known}") });
        }
        // Room for every token that the context can hold: a slow client never holds up the others.
        let (events, stream) = mpsc::channel(options.max_tokens.min(self.context) + 2);
        let (place, tokens) =
            self.prepare("prompt", move |words, left| in_time(words, prompt, left, LONGEST_TEMPLATE)).await?;
        place.submit(Ask { tokens, salt: cache_salt, wish: Wish::Write { options, is_chat, events } })?;
        Ok(stream)
    }
}

#[async_trait]
impl Embedder for LocalHost {
    fn id(&self) -> String {
        self.card.id.clone()
    }

    async fn embed(&self, passage: Passage) -> Result<TokenEmbeddings, HostError> {
        let tokens = move |words: ChatTokenizer, left: Stop| match passage {
            Passage::Text(text) => Ok(words.tokenizer.encode_whole_until(&text, &*left)?),
            Passage::Tokens(ids) => Ok(ids),
        };
        let (place, ids) = self.prepare("input", tokens).await?;
        let (answer, result) = oneshot::channel();
        place.submit(Ask { tokens: ids.clone(), salt: None, wish: Wish::Embed { answer } })?;
        let flat = result.await.unwrap_or_else(|_| Err(HostError::Engine("the computation has failed".into())))?;
        let tokenizer = &self.words.tokenizer;
        // The token that begins every text says nothing of this one.
        let bos = tokenizer.bos();
        let embeddings = TokenEmbeddings {
            tokens: ids.iter().map(|id| tokenizer.token_text(*id)).collect(),
            vectors: flat.chunks_exact(self.dim).map(<[f32]>::to_vec).collect(),
            special: ids.iter().enumerate().map(|(at, id)| at == 0 && Some(*id) == bos).collect(),
        };
        embeddings.checked()
    }
}

/// Embeds with the same model that answers, behind a trait object of its own.
#[must_use]
pub fn as_embedder(host: &Arc<LocalHost>) -> Arc<dyn Embedder> {
    Arc::<LocalHost>::clone(host)
}

/// The tokens of a prompt, unless its client has `left` or its template runs for longer than `longest`.
fn in_time(words: ChatTokenizer, prompt: Prompt, left: Stop, longest: Duration) -> Result<Vec<u32>, HostError> {
    let (begun, late) = (Instant::now(), Arc::new(OnceLock::new()));
    let template: Stop = {
        let (left, late) = (Arc::clone(&left), Arc::clone(&late));
        Arc::new(move || {
            if begun.elapsed() > longest {
                late.get_or_init(|| ());
            }
            late.get().is_some() || left()
        })
    };
    let made = tokens_of(words, prompt, template, &*left);
    if late.get().is_none() {
        return Ok(made?);
    }
    Err(HostError::Invalid(format!(
        "the model's chat template ran for {longest:?} on this conversation and was given up; send a shorter one, or a text \
         to /v1/completions"
    )))
}

/// The tokens of a prompt. A chat template is given up when `template` says so, and whatever it is, when the client has `left`.
fn tokens_of(
    mut words: ChatTokenizer,
    prompt: Prompt,
    template: Stop,
    left: &(dyn Fn() -> bool + Sync),
) -> Result<Vec<u32>, EngineError> {
    let prompt = match prompt {
        Prompt::Chat { messages, assistant_prefix } => {
            // A clock before 1970 is as good as none.
            if let Ok(since_1970) = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
                words.template.set_now(since_1970.as_secs() as i64);
            }
            words.template.stop_when(Some(template));
            words.prompt(&messages, &assistant_prefix)?
        }
        Prompt::Text(text) => text.into(),
        Prompt::Controlled(text) => engine::Prompt::with_control_tokens(&text),
        Prompt::Tokens(ids) => engine::Prompt::of_tokens(ids),
    };
    prompt.tokens_until(&words.tokenizer, left)
}

fn options_of(sampling: Sampling) -> SamplingOptions {
    SamplingOptions {
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
    }
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
    use super::*;
    use crate::host::testing::{card, engine, engine_with};
    use crate::host::{FinishReason, GenerationEvent, Message};

    fn ask(text: &str, max_tokens: Option<usize>) -> Generation {
        let sampling = Sampling { max_tokens, temperature: Some(0.0), seed: Some(0), ..Sampling::default() };
        Generation { prompt: Prompt::Text(text.into()), sampling, counted: true, cache_salt: None }
    }

    fn start(engine: Engine, slots: usize, queue: usize) -> LocalHost {
        LocalHost::start(engine, card(), LocalConfig { slots, queue, prefix_bytes: 1 << 20 }).unwrap()
    }

    #[test]
    fn templates_see_the_day() {
        let (words, _) = engine_with(512, "{{ strftime_now('%Y') }}").into_parts();
        let messages = vec![Message { role: "user".into(), content: "a".into() }];
        let prompt = Prompt::Chat { messages, assistant_prefix: String::new() };
        let tokens = tokens_of(words.clone(), prompt, Arc::new(|| false), &|| false).unwrap();
        let year: u32 = words.tokenizer.decode(&tokens).unwrap().trim_start_matches("<s>").parse().unwrap();
        assert!(year >= 2025, "the server's clock: {year}");
    }

    #[test]
    fn a_template_is_given_up_when_the_client_has_left_or_it_takes_too_long() {
        let (words, _) = engine_with(512, "{% for i in range(100) %}{{ i }}{% endfor %}").into_parts();
        let messages = vec![Message { role: "user".into(), content: "a".into() }];
        let prompt = Prompt::Chat { messages, assistant_prefix: String::new() };
        let tokens = |left: bool, longest| in_time(words.clone(), prompt.clone(), Arc::new(move || left), longest);
        let (long, none) = (Duration::from_secs(3600), Duration::ZERO);
        assert!(tokens(false, long).is_ok());
        let given_up = tokens(false, none);
        assert!(matches!(&given_up, Err(HostError::Invalid(why)) if why.contains("template")), "{given_up:?}");
        let given_up = tokens(true, long);
        assert!(matches!(given_up, Err(HostError::Engine(_))), "{given_up:?}");
    }

    /// A prompt of a megabyte is given up in the middle: it is asked again and again whether its client is still there.
    #[test]
    fn tokens_of_a_long_text_are_given_up_when_the_client_has_left() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let (words, _) = engine_with(512, "{{ messages[0].content }}").into_parts();
        let text = "hello ".repeat(200_000);
        let messages = vec![Message { role: "user".into(), content: text.clone() }];
        let chat = Prompt::Chat { messages, assistant_prefix: String::new() };
        for prompt in [Prompt::Text(text.clone()), Prompt::Controlled(text), chat] {
            let asked = Arc::new(AtomicUsize::new(0));
            let left: Stop = {
                let asked = Arc::clone(&asked);
                Arc::new(move || asked.fetch_add(1, Ordering::Relaxed) >= 20)
            };
            let made = in_time(words.clone(), prompt, left, Duration::from_secs(3600));
            assert!(made.is_err() && asked.load(Ordering::Relaxed) > 20, "{asked:?}");
        }
    }

    /// Who goes away while the prompt is made frees both its place in the queue and the place that makes prompts.
    #[tokio::test]
    async fn a_client_that_leaves_while_its_prompt_is_made_frees_all_places() {
        let host = start(engine(512), 1, 1);
        let (noticed, was_noticed) = oneshot::channel();
        let preparing = host.prepare("prompt", move |_, left| {
            while !left() {
                std::thread::sleep(Duration::from_millis(1));
            }
            let _ = noticed.send(());
            Err(HostError::ShuttingDown)
        });
        {
            tokio::pin!(preparing);
            let begun = tokio::time::timeout(Duration::from_millis(20), &mut preparing).await;
            assert!(begun.is_err(), "it waits for the prompt");
            assert_eq!(host.load().waiting, 1);
        }
        assert_eq!(host.load().waiting, 0);
        was_noticed.await.unwrap();
        until("the place is free", || host.preparing.available_permits() == PREPARED_AT_ONCE).await;
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
    async fn every_row_writes_the_same_answer() {
        let host = start(engine(512), 3, 8);
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

    /// What a conversation goes on with is what was computed for the turn before, and only the rest is computed.
    #[tokio::test]
    async fn the_next_turn_reads_only_what_is_new() {
        let host = start(engine(512), 2, 8);
        // Long enough to be worth keeping.
        let question = "hello".repeat(2 * crate::host::prefix::FEWEST / 5 + 1);
        let (answer, pieces, last) = collect(&host, ask(&question, Some(5))).await;
        let GenerationEvent::Done(first) = last else { panic!("{last:?}") };
        assert_eq!((first.cached_tokens, pieces), (Some(0), 5));
        let (_, _, last) = collect(&host, ask(&format!("{question}{answer}more"), Some(3))).await;
        let GenerationEvent::Done(second) = last else { panic!("{last:?}") };
        // The question at least; of the answer what is the same tokens again, but its last one, which was chosen and never computed.
        let known = first.prompt_tokens..first.prompt_tokens + pieces;
        let cached = second.cached_tokens.expect("it is counted");
        assert!(known.contains(&cached) && cached < second.prompt_tokens, "{cached} of {}", second.prompt_tokens);
        // Somebody else's words are not shared but for a beginning that is the same.
        let (_, _, last) = collect(&host, ask("xyz", Some(1))).await;
        assert!(matches!(last, GenerationEvent::Done(other) if other.cached_tokens <= Some(1)), "{last:?}");
    }

    #[tokio::test]
    async fn the_context_ends_an_answer_without_a_limit() {
        let host = start(engine(40), 1, 0);
        let (_, pieces, last) = collect(&host, ask("hello", None)).await;
        assert!(matches!(last, GenerationEvent::Done(summary) if summary.completion_tokens == pieces), "{last:?}");
        // Nobody may wait here, and the slot is freed a moment after the last event.
        until("the slot is free", || host.load().active == 0).await;
        let error = host.generate(ask(&"x".repeat(50), None)).await.unwrap_err();
        assert_eq!(error, HostError::PromptTooLong { tokens: 51, context: 40 });
    }

    #[tokio::test]
    async fn a_client_that_leaves_frees_its_slot_and_a_full_queue_refuses() {
        // Uncancelled, a context of this length would take many minutes to fill.
        let host = start(engine(100_000), 1, 1);
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

    /// Else they would count as nothing, or as the token that a program of another vocabulary means.
    #[tokio::test]
    async fn tokens_that_there_are_not_are_refused_by_the_fields_name() {
        let host = start(engine(64), 1, 2);
        let with = |change: &dyn Fn(&mut Sampling)| {
            let mut generation = ask("a", Some(1));
            change(&mut generation.sampling);
            generation
        };
        for id in [257, u32::MAX] {
            for (field, generation) in [
                ("logit_bias", with(&|sampling| sampling.logit_bias = [(3, 1.0), (id, -1.0)].into())),
                ("stop_token_ids", with(&|sampling| sampling.stop_tokens = vec![3, id])),
            ] {
                let error = host.generate(generation).await.unwrap_err();
                assert!(
                    matches!(&error, HostError::Field { field: told, why } if *told == field && why.contains(&id.to_string())),
                    "{field} {id}: {error}"
                );
            }
        }
        let last = with(&|sampling| {
            (sampling.logit_bias, sampling.stop_tokens) = ([(256, -1.0)].into(), vec![256]);
        });
        assert!(host.generate(last).await.is_ok());
        let tokens = Generation { prompt: Prompt::Tokens(vec![1, 257]), ..ask("", Some(1)) };
        let error = host.generate(tokens).await.unwrap_err();
        assert!(matches!(&error, HostError::Field { field: "prompt", why } if why.contains("257")), "{error}");
    }

    #[tokio::test]
    async fn embeds_with_the_model_itself() {
        let host = Arc::new(start(engine(512), 1, 4));
        let embedder = as_embedder(&host);
        let hello = embedder.embed("hello".into()).await.unwrap();
        assert_eq!(hello.special, [true, false, false, false, false, false]);
        assert_eq!((hello.tokens[1].as_str(), hello.vectors[1].len()), ("h", 32));
        // Left to right: what comes later does not change what came before.
        let help = embedder.embed("help!".into()).await.unwrap();
        assert_eq!(help.vectors[..4], hello.vectors[..4]);
        assert_ne!(help.vectors[4], hello.vectors[4]);
        let error = embedder.embed("x".repeat(600).into()).await.unwrap_err();
        assert!(matches!(error, HostError::PromptTooLong { tokens: 601, .. }), "{error}");
        // The same as tokens, which are taken as they are.
        let ids = host.words.tokenizer.encode_whole("hello").unwrap();
        assert_eq!(embedder.embed(Passage::Tokens(ids.clone())).await.unwrap(), hello);
        let bare = embedder.embed(Passage::Tokens(ids[1..].to_vec())).await.unwrap();
        assert_eq!((bare.tokens.len(), bare.special), (5, vec![false; 5]));
        let error = embedder.embed(Passage::Tokens(vec![1, 257])).await.unwrap_err();
        assert!(matches!(&error, HostError::Field { field: "input", why } if why.contains("257")), "{error}");
    }
}
