//! Several answers at the same time from one model, against the same answers computed alone: the shipped models, held exactly
//! and as they are stored.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use engine::backend::{Backend as _, Batch, Output, OutputKind, Snapshot, Span, Turn};
use engine::cpu::{CpuBackend, Form};
use engine::gguf::Gguf;
use engine::one_by_one::OneByOne;
use engine::sampler::SamplerParams;
use engine::weights::ModelWeights;
use engine::{ChatTokenizer, Engine, EngineError, SamplingOptions};
use futures::executor::block_on;
use tandem::host::local::{LocalConfig, LocalHost};
use tandem::host::scheduler::{Ask, Scheduler, Wish};
use tandem::host::{
    FinishReason, Generation, GenerationEvent, Host as _, HostError, Message, ModelCard, Prompt, Sampling, Summary,
};
use tokio::sync::mpsc;

const QUESTIONS: [&str; 6] = [
    "What is the capital of Kenya?",
    "Which currency is used in Japan?",
    "Say something of helium.",
    "Where does the Danube rise, and through which countries does it flow until it reaches the sea?",
    "?",
    "What is the capital of Peru? And of Chile?",
];

/// One of the shipped models.
fn parts(name: &str, form: Form) -> (ChatTokenizer, CpuBackend, Engine) {
    let path = format!("{}/../public/models/{name}.gguf", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(path).unwrap();
    let gguf = Gguf::parse(&bytes).unwrap();
    let words = ChatTokenizer::from_gguf(&gguf).unwrap();
    let weights = ModelWeights::from_gguf(&gguf).unwrap();
    let backend = || CpuBackend::with_form(&weights, form).unwrap();
    let engine =
        Engine::from_parts(words.tokenizer.clone(), words.template.clone(), &weights, Box::new(backend())).unwrap();
    (words, backend(), engine)
}

fn host(engine: Engine, slots: usize, prefix_bytes: usize) -> LocalHost {
    let card = ModelCard { id: "m".into(), name: "M".into(), context_length: None, parameters: None };
    LocalHost::start(engine, card, LocalConfig { slots, queue: 64, prefix_bytes }).unwrap()
}

fn chat(question: &str, sampling: Sampling) -> Generation {
    let messages = vec![Message { role: "user".into(), content: question.into() }];
    let prompt = Prompt::Chat { messages, assistant_prefix: String::new() };
    Generation { prompt, sampling, counted: true, cache_salt: None }
}

fn greedy(max_tokens: usize) -> Sampling {
    Sampling { max_tokens: Some(max_tokens), temperature: Some(0.0), ..Sampling::default() }
}

async fn collect(host: &LocalHost, generation: Generation) -> (String, Summary) {
    let mut stream = host.generate(generation).await.unwrap();
    let mut text = String::new();
    loop {
        match stream.recv().await.expect("an end") {
            GenerationEvent::Text(piece) => text += &piece,
            GenerationEvent::Done(summary) => return (text, summary),
            other => panic!("{other:?}"),
        }
    }
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(10), "gave up waiting until {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// As the engine answers by itself, one after the other, with nothing kept from one to the next.
fn alone(engine: &mut Engine, question: &str, options: &SamplingOptions) -> String {
    engine.reset();
    let mut text = String::new();
    let messages = [Message { role: "user".into(), content: question.into() }];
    block_on(engine.generate(&messages, "", options, &|| 0.0, &mut |token| {
        text += token.text;
        std::ops::ControlFlow::Continue(())
    }))
    .unwrap();
    text
}

#[tokio::test]
async fn answers_are_those_that_the_model_gives_alone() {
    for (name, form) in [("full", Form::Singles), ("full", Form::Stored), ("compact", Form::Stored)] {
        let (_, _, mut engine) = parts(name, form);
        for (temperature, seed) in [(0.0f32, 0u64), (1.3, 7)] {
            let options = SamplingOptions { max_tokens: 24, temperature, seed, ..SamplingOptions::default() };
            let expect: Vec<String> = QUESTIONS.iter().map(|question| alone(&mut engine, question, &options)).collect();
            assert!(temperature == 0.0 || expect[0] != expect[5], "{expect:?}");
            // Fewer slots than questions, and more of them.
            for slots in [1, 3, 12] {
                let (_, _, engine) = parts(name, form);
                let host = host(engine, slots, 1 << 20);
                let sampling =
                    Sampling { temperature: Some(temperature.into()), seed: Some(seed.into()), ..greedy(24) };
                // Twice each: the second time much is there already.
                let all =
                    QUESTIONS.iter().chain(&QUESTIONS).map(|question| collect(&host, chat(question, sampling.clone())));
                let found = futures::future::join_all(all).await;
                for ((text, _), expect) in found.iter().zip(expect.iter().chain(&expect)) {
                    assert_eq!(text, expect, "{name} {form:?}, {slots} slots, temperature {temperature}");
                }
            }
        }
    }
}

#[tokio::test]
async fn conversations_that_begin_alike_are_computed_once() {
    let (_, _, engine) = parts("full", Form::Singles);
    let words = engine.tokenizer().clone();
    let host = host(engine, 4, 1 << 24);
    let system =
        "The Atlas knows countries, capitals, currencies, rivers and elements, and answers in one sentence. ".repeat(4);
    let ask = |end: &str, salt: Option<&str>| Generation {
        prompt: Prompt::Text(format!("{system}{end}")),
        sampling: greedy(8),
        counted: true,
        cache_salt: salt.map(str::to_owned),
    };
    let shared = words.encode_text(&system).unwrap().len();
    assert!(shared > 80, "{shared}");
    let reused = || host.progress().unwrap().prefix_tokens as usize;
    let (first, summary) = collect(&host, ask("What is the capital of Kenya?", None)).await;
    assert_eq!(reused(), 0);
    // The same again: all but the last token of the prompt is there.
    assert_eq!(collect(&host, ask("What is the capital of Kenya?", None)).await.0, first);
    assert_eq!(reused(), summary.prompt_tokens - 1);
    // The next turn of it.
    let before = reused();
    let next = format!("What is the capital of Kenya?{first} And?");
    collect(&host, ask(&next, None)).await;
    assert!(reused() - before >= summary.prompt_tokens - 3, "{} {before}", reused());
    // Somebody else with the same beginning; texts may be cut otherwise where they part.
    let before = reused();
    collect(&host, ask("Say something of helium.", None)).await;
    assert!((shared - 2..=shared + 1).contains(&(reused() - before)), "{} {before} {shared}", reused());
    // Whoever brings a salt finds what was computed with it, and nothing else.
    for (salt, is_new) in [("a", true), ("b", true), ("a", false)] {
        let before = reused();
        let (text, _) = collect(&host, ask("What is the capital of Kenya?", Some(salt))).await;
        assert_eq!((text == first, reused() == before), (true, is_new), "{salt}");
    }
    let progress = host.progress().unwrap();
    assert_eq!((progress.prefix_lookups, progress.prefix_hits), (7, 4));
    assert!(progress.prefix_bytes > 0 && progress.prefix_bytes <= 1 << 24 && progress.tokens_per_s > 0.0);
    // Those who come together with a new beginning read it once: the first of them piece by piece, the others copy.
    let before = reused();
    let all = (0..4).map(|n| {
        let mut ask = ask(&format!("{n}?"), Some("together"));
        ask.sampling.max_tokens = Some(2);
        collect(&host, ask)
    });
    futures::future::join_all(all).await;
    assert!(reused() - before >= 2 * (shared - 64), "{} {before} {shared}", reused());
}

/// Of each pass the rows and how many tokens each got.
type Passes = Vec<Vec<(usize, usize)>>;

/// A batch that writes down what is asked of it, and can be made to fail.
struct Watched {
    inner: Box<dyn Batch>,
    passes: Arc<Mutex<Passes>>,
    /// The logits of rows with this token at the end of their span are not numbers.
    poison: u32,
}

#[async_trait(?Send)]
impl Batch for Watched {
    fn rows(&self) -> usize {
        self.inner.rows()
    }
    fn capacity(&self) -> usize {
        self.inner.capacity()
    }
    fn len(&self, row: usize) -> usize {
        self.inner.len(row)
    }
    fn truncate(&mut self, row: usize, len: usize) {
        self.inner.truncate(row, len);
    }
    async fn forward(&mut self, row: usize, tokens: &[u32], want: OutputKind) -> Result<Output, EngineError> {
        self.inner.forward(row, tokens, want).await
    }
    fn begin_choosing(&mut self, _: usize, _: &SamplerParams, _: &[u32]) -> Result<(), EngineError> {
        unreachable!("tokens are chosen by the scheduler")
    }
    async fn step(&mut self, _: &[Turn]) -> Result<Vec<Vec<f32>>, EngineError> {
        unreachable!("the scheduler appends")
    }
    async fn step_choosing(&mut self, _: &[Turn]) -> Result<Vec<u32>, EngineError> {
        unreachable!("tokens are chosen by the scheduler")
    }
    async fn append(&mut self, spans: &[Span<'_>], stop: &dyn Fn() -> bool) -> Result<Vec<Vec<f32>>, EngineError> {
        let mut logits = self.inner.append(spans, stop).await?;
        for (span, logits) in spans.iter().filter(|span| span.logits).zip(&mut logits) {
            if span.tokens.len() > 1 && span.tokens.last() == Some(&self.poison) {
                logits.fill(f32::NAN);
            }
        }
        self.passes.lock().unwrap().push(spans.iter().map(|span| (span.row, span.tokens.len())).collect());
        Ok(logits)
    }
    fn take(&mut self, row: usize) -> Result<Snapshot, EngineError> {
        self.inner.take(row)
    }
    fn extend(&mut self, row: usize, from: &Snapshot, len: usize) -> Result<(), EngineError> {
        self.inner.extend(row, from, len)
    }
    fn share(&mut self, from: usize, row: usize, len: usize) -> Result<(), EngineError> {
        self.inner.share(from, row, len)
    }
}

type Answers = mpsc::Receiver<GenerationEvent>;

fn submit(scheduler: &Scheduler, tokens: Vec<u32>, max_tokens: usize) -> Result<Answers, HostError> {
    let options = SamplingOptions { max_tokens, ignore_eos: true, ..SamplingOptions::default() };
    let (events, answers) = mpsc::channel(max_tokens + 2);
    scheduler.queue().submit(Ask { tokens, salt: None, wish: Wish::Write { options, is_chat: false, events } })?;
    Ok(answers)
}

async fn end(mut answers: Answers) -> (usize, GenerationEvent) {
    let mut pieces = 0;
    loop {
        match answers.recv().await.expect("an end") {
            GenerationEvent::Text(_) => pieces += 1,
            last => return (pieces, last),
        }
    }
}

#[tokio::test]
async fn prompts_are_read_in_turn_and_in_pieces_beside_those_who_write() {
    let (words, backend, _) = parts("compact", Form::Singles);
    let passes = Arc::new(Mutex::new(Vec::new()));
    let poison = 300;
    let inner = block_on(backend.batch(4, 512)).unwrap();
    let watched = Watched { inner, passes: Arc::clone(&passes), poison };
    let scheduler = Scheduler::start(Box::new(watched), words.tokenizer.clone(), 8, 0).unwrap();
    let text = |from: u32, len: u32| -> Vec<u32> { (0..len).map(|at| 10 + (from + at * 7) % 200).collect() };

    // The first pass ends when all have asked.
    let (mut writer, readers, more) = {
        let _held = passes.lock().unwrap();
        let writer = submit(&scheduler, text(0, 5), 400).unwrap();
        while scheduler.load().active == 0 {
            std::thread::yield_now();
        }
        let readers = [(1, 300), (2, 200), (3, 30)].map(|(from, len)| submit(&scheduler, text(from, len), 3).unwrap());
        (writer, readers, submit(&scheduler, text(9, 4), 2).unwrap())
    };
    assert!(matches!(writer.recv().await, Some(GenerationEvent::Text(_))));
    for reader in readers {
        let (pieces, last) = end(reader).await;
        assert_eq!(pieces, 3);
        assert!(matches!(last, GenerationEvent::Done(Summary { finish: FinishReason::Length, .. })), "{last:?}");
    }
    end(more).await;
    drop(writer);
    until("the writer is given up", || scheduler.load().active == 0).await;
    let seen = std::mem::take(&mut *passes.lock().unwrap());
    // The writer's row gets a token in every pass, and prompts no more than a chunk beside it.
    let row = seen[0][0].0;
    let (with, without): (Vec<_>, Vec<_>) = seen.iter().skip(1).partition(|spans| spans.contains(&(row, 1)));
    assert!(without.is_empty() && with.len() >= 8, "{seen:?}");
    for spans in &with {
        let read: usize = spans.iter().map(|(_, count)| *count).filter(|count| *count > 1).sum();
        assert!(read <= 64, "{spans:?}");
    }
    // The short prompt is not behind all of the long ones: it is read within the third pass in which prompts are.
    let mut reading = with.iter().filter(|spans| spans.iter().any(|(_, count)| *count > 1));
    let short = reading.position(|spans| spans.iter().any(|(_, count)| *count == 30)).unwrap();
    assert!(short <= 2, "{seen:?}");

    // What is not a number is the trouble of the one who got it.
    let well = submit(&scheduler, text(4, 20), 30).unwrap();
    let mut ill = text(5, 20);
    ill.push(poison);
    let (pieces, last) = end(submit(&scheduler, ill, 30).unwrap()).await;
    assert!(pieces == 0 && matches!(last, GenerationEvent::Failed(HostError::Engine(_))), "{last:?}");
    assert_eq!(end(well).await.0, 30);

    // Whoever leaves while the prompt is read, or before, frees the row.
    let gone: Vec<Answers> = (0..8).map(|n| submit(&scheduler, text(n, 500), 10).unwrap()).collect();
    drop(gone);
    until("all are gone", || scheduler.load().active + scheduler.load().waiting == 0).await;
}

#[tokio::test]
async fn a_backend_that_computes_one_sequence_at_a_time_is_driven_likewise() {
    let (words, backend, mut engine) = parts("compact", Form::Stored);
    let rows = OneByOne::new(Box::new(backend), 3).unwrap();
    let scheduler = Scheduler::start(Box::new(rows), words.tokenizer.clone(), 8, 1 << 20).unwrap();
    let prompts: Vec<Vec<u32>> =
        QUESTIONS.iter().map(|question| words.tokenizer.encode_text(question).unwrap()).collect();
    let options = SamplingOptions { max_tokens: 12, ignore_eos: true, ..SamplingOptions::default() };
    let asked: Vec<Answers> = prompts.iter().map(|tokens| submit(&scheduler, tokens.clone(), 12).unwrap()).collect();
    for (mut answers, tokens) in asked.into_iter().zip(prompts) {
        let mut expect = String::new();
        engine.reset();
        let prompt = engine::Prompt::of_tokens(tokens);
        block_on(engine.complete(prompt, &options, &|| 0.0, &mut |token| {
            expect += token.text;
            std::ops::ControlFlow::Continue(())
        }))
        .unwrap();
        let mut text = String::new();
        while let Some(GenerationEvent::Text(piece)) = answers.recv().await {
            text += &piece;
        }
        assert_eq!(text, expect);
    }
}

#[tokio::test]
async fn what_an_ask_may_say_is_done_beside_others() {
    let (_, _, engine) = parts("full", Form::Singles);
    let host = host(engine, 4, 0);
    let others: Vec<_> = QUESTIONS.iter().take(3).map(|question| collect(&host, chat(question, greedy(40)))).collect();
    let asks = async {
        let question = QUESTIONS[0];
        let (whole, summary) = collect(&host, chat(question, greedy(16))).await;
        let expect = summary.completion_tokens;
        // A stop text, of the middle of the answer.
        let middle: String = whole.chars().skip(3).take(4).collect();
        let stop = Sampling { stop: vec![middle.clone()], ..greedy(16) };
        let (text, summary) = collect(&host, chat(question, stop)).await;
        assert_eq!((text.as_str(), summary.finish), (whole.split(&middle).next().unwrap(), FinishReason::Stop));
        // Log probabilities, with two others each.
        let scored = Sampling { logprobs: Some(2), ..greedy(16) };
        let mut stream = host.generate(chat(question, scored)).await.unwrap();
        let (mut text, mut tokens) = (String::new(), 0);
        while let Some(event) = stream.recv().await {
            match event {
                GenerationEvent::Scored(piece, scores) => {
                    text += &piece;
                    tokens += 1;
                    let token = &scores["content"][0];
                    assert_eq!(token["top_logprobs"].as_array().unwrap().len(), 2);
                    assert!(
                        token["top_logprobs"][0]["logprob"] == token["logprob"],
                        "greedy takes the likeliest: {scores}"
                    );
                }
                GenerationEvent::Text(piece) => text += &piece,
                GenerationEvent::Done(_) => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((text.as_str(), tokens), (whole.as_str(), expect));
        // The model's own end may be passed by; a limit ends the answer all the same.
        let long = Sampling { ignore_eos: true, ..greedy(60) };
        let (_, summary) = collect(&host, chat(question, long)).await;
        assert_eq!((summary.completion_tokens, summary.finish), (60, FinishReason::Length));
        // The answer goes on from what is written already.
        let beginning: String = whole.chars().take(6).collect();
        let messages = vec![Message { role: "user".into(), content: question.into() }];
        let prompt = Prompt::Chat { messages, assistant_prefix: beginning };
        let (_, summary) = collect(&host, Generation { prompt, ..chat(question, greedy(4)) }).await;
        assert!(summary.completion_tokens <= 4);
        // Tokens that the model does not have are refused.
        let ids = Generation { prompt: Prompt::Tokens(vec![1, u32::MAX]), ..chat(question, greedy(4)) };
        assert!(matches!(host.generate(ids).await, Err(HostError::Field { field: "prompt", .. })));
    };
    futures::join!(asks, futures::future::join_all(others));
}
