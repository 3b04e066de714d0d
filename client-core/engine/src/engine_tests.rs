//! The whole engine on a random model in a real file.
// Clippy's leave for tests does not reach the helpers of a test module in a file of its own.
#![allow(clippy::unwrap_used)]

use pollster::block_on;

use super::*;
use crate::gguf::GgmlType;
use crate::gguf::builder::model_file;
use crate::synthetic::{self, Storage};
use crate::testing::trained;
use crate::together::{Ended, Text, Texts};

const TEMPLATE: &str = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}<|assistant|>";

/// A model file with random weights and a small tokenizer.
pub(crate) fn model(seed: u64, context: usize, blocks: GgmlType) -> Vec<u8> {
    let (mut tokens, merges, _) = trained(320);
    tokens.extend(["<|user|>", "<|assistant|>", "<|end|>"].map(str::to_owned));
    let mut config = synthetic::config([tokens.len(), 64, 2, 4, 2, 96]);
    config.context = context;
    let storage = Storage { blocks, embedding: GgmlType::Q8_0, untied: false };
    let weights = synthetic::weights(config, storage, seed).unwrap();
    model_file(&weights, &tokens, &merges, 3, TEMPLATE)
}

fn engine(seed: u64, context: usize) -> Engine {
    Engine::from_gguf_cpu(&model(seed, context, GgmlType::Q4_0)).unwrap()
}

fn user(text: &str) -> Vec<ChatMessage> {
    vec![ChatMessage { role: "user".into(), content: text.into() }]
}

/// Runs to the end, or until `until` tokens are seen.
pub(crate) fn run(
    engine: &mut Engine,
    prompt: &str,
    prefix: &str,
    options: &SamplingOptions,
    until: usize,
) -> (String, Vec<u32>, GenerationStats) {
    let (mut text, mut ids) = (String::new(), Vec::new());
    let ticks = std::cell::Cell::new(0.0);
    let clock = || {
        ticks.set(ticks.get() + 1.0);
        ticks.get()
    };
    let mut on_token = |event: TokenEvent<'_>| {
        assert!(event.index <= ids.len());
        text.push_str(event.text);
        ids.push(event.id);
        if ids.len() == until { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let stats = block_on(engine.generate(&user(prompt), prefix, options, &clock, &mut on_token)).unwrap();
    (text, ids, stats)
}

/// Greedy, at most this many tokens.
pub(crate) fn options(max_tokens: usize) -> SamplingOptions {
    SamplingOptions { max_tokens, ..SamplingOptions::default() }
}

#[test]
fn engines_move_between_threads() {
    fn is_send<T: Send>() {}
    is_send::<Engine>();
}

#[test]
fn generates_the_same_with_and_without_the_cache() {
    let mut one = engine(1, 256);
    let (first, _, stats) = run(&mut one, "What is the capital?", "", &options(20), usize::MAX);
    assert_eq!((stats.generated_tokens, stats.finish, stats.cached_tokens), (20, FinishReason::Length, 0));
    assert!(stats.prefill_s > 0.0 && stats.ttft_s > 0.0 && stats.decode_s > 0.0);
    let (again, _, stats) = run(&mut one, "What is the capital?", "", &options(20), usize::MAX);
    assert_eq!((first.as_str(), stats.cached_tokens), (again.as_str(), stats.prompt_tokens - 1));
    // Another prompt with the same beginning, then the first once more, in a fork as well.
    let (other, _, stats) = run(&mut one, "What is helium?", "", &options(20), usize::MAX);
    assert!(stats.cached_tokens > 0 && stats.cached_tokens < stats.prompt_tokens - 1);
    let mut fork = one.fork().unwrap();
    assert_eq!(run(&mut fork, "What is helium?", "", &options(20), usize::MAX).0, other);
    one.reset();
    assert_eq!(run(&mut one, "What is the capital?", "", &options(20), usize::MAX).0, first);
}

#[test]
fn continues_after_the_part_that_is_written() {
    let mut one = engine(2, 256);
    let prompt = one.render(&user("hi"), "It is").unwrap();
    assert!(prompt.ends_with("<|user|>hi<|end|><|assistant|>It is"));
    let (text, ..) = run(&mut one, "hi", "It is", &options(8), usize::MAX);
    let mut direct = String::new();
    let mut on_token = |event: TokenEvent<'_>| {
        direct.push_str(event.text);
        ControlFlow::Continue(())
    };
    block_on(one.complete(Prompt::with_control_tokens(&prompt), &options(8), &|| 0.0, &mut on_token)).unwrap();
    assert_eq!(text, direct);
}

#[test]
fn stops_within_a_token() {
    let mut one = engine(3, 256);
    let (_, ids, stats) = run(&mut one, "hi", "", &options(100), 5);
    assert_eq!((ids.len(), stats.generated_tokens, stats.finish), (5, 5, FinishReason::Cancelled));
}

#[test]
fn stop_texts_end_the_answer() {
    let mut one = engine(1, 256);
    let (full, ..) = run(&mut one, "hello", "", &options(30), usize::MAX);
    let letters: Vec<(usize, char)> = full.char_indices().collect();
    let (at, _) = letters[letters.len() / 2];
    let stop: String = full[at..].chars().take(3).collect();
    let expect = &full[..full.find(&stop).unwrap()];
    let (text, _, stats) =
        run(&mut one, "hello", "", &SamplingOptions { stop: vec![stop.clone()], ..options(30) }, usize::MAX);
    assert_eq!((text.as_str(), stats.finish), (expect, FinishReason::Stop));
}

#[test]
fn the_context_is_a_limit() {
    let mut one = engine(4, 32);
    let (_, ids, stats) = run(&mut one, "hi", "", &options(1000), usize::MAX);
    // The last token that fits is computed, and what follows from it is the last that is shown.
    assert_eq!((stats.prompt_tokens + ids.len(), stats.finish), (33, FinishReason::Length));
    let long = "word ".repeat(60);
    let result = block_on(one.generate(&user(&long), "", &options(1), &|| 0.0, &mut |_| ControlFlow::Continue(())));
    assert!(matches!(result, Err(EngineError::PromptTooLong { context: 32, .. })), "{result:?}");
    assert_eq!(run(&mut one, "hi", "", &options(4), usize::MAX).1, ids[..4]);
}

#[test]
fn seeds_decide_free_answers() {
    let mut one = engine(5, 256);
    let free = |seed, top_k| SamplingOptions { temperature: 1.0, top_k, seed, ..options(24) };
    let a = run(&mut one, "hi", "", &free(1, 0), usize::MAX).1;
    assert_eq!(a, run(&mut one, "hi", "", &free(1, 0), usize::MAX).1);
    assert_ne!(a, run(&mut one, "hi", "", &free(2, 0), usize::MAX).1);
    let greedy = run(&mut one, "hi", "", &options(24), usize::MAX).1;
    assert_eq!(greedy, run(&mut one, "hi", "", &free(3, 1), usize::MAX).1);
}

#[test]
fn entropy_and_hidden_states() {
    let mut one = engine(6, 256);
    let entropy = block_on(one.first_token_entropy(&user("hi"))).unwrap();
    assert!(entropy > 0.0 && entropy <= (one.info().vocab as f32).ln());
    let (tokens, states) = block_on(one.hidden_states("The capital of Kenya")).unwrap();
    assert_eq!((tokens.concat().as_str(), states.len()), ("The capital of Kenya", tokens.len()));
    assert!(states.iter().all(|state| state.len() == 64));
    assert!(block_on(one.hidden_states("")).is_err());
}

#[test]
fn damaged_model_files_are_refused() {
    let (tokens, merges, _) = trained(300);
    let config = synthetic::config([tokens.len(), 32, 1, 2, 1, 32]);
    let storage = Storage { blocks: GgmlType::Q8_0, embedding: GgmlType::Q8_0, untied: false };
    let weights = synthetic::weights(config, storage, 1).unwrap();
    let sound = model_file(&weights, &tokens, &merges, 0, TEMPLATE);
    assert!(Engine::from_gguf_cpu(&sound).is_ok());
    for (from, to, expect) in [
        ("blk.0.attn_k.", "blk.7.attn_k.", "\"blk.7.attn_k.weight\" belongs to a computation"),
        ("llama.block_count", "llama.block_kount", "block_count"),
        ("\u{5}\0\0\0\0\0\0\0llama\u{c}", "\u{5}\0\0\0\0\0\0\0mamba\u{c}", "mamba"),
    ] {
        let at = sound.windows(from.len()).position(|w| w == from.as_bytes()).expect(from);
        let mut bytes = sound.clone();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        let error = Engine::from_gguf_cpu(&bytes).expect_err(to).to_string();
        assert!(error.contains(expect), "{to}: {error}");
    }
    // Without a template that can be read, texts are completed all the same.
    let at = sound.windows(8).position(|w| w == b"{% for m").unwrap();
    let mut bytes = sound.clone();
    bytes[at..at + 8].copy_from_slice(b"{% fur m");
    let mut one = Engine::from_gguf_cpu(&bytes).unwrap();
    let mut nobody = |_: TokenEvent<'_>| ControlFlow::Continue(());
    let refused = block_on(one.generate(&user("hi"), "", &options(1), &|| 0.0, &mut nobody)).unwrap_err().to_string();
    assert!(refused.contains("chat template") && refused.contains("completed without it"), "{refused}");
    assert!(block_on(one.complete("hi", &options(1), &|| 0.0, &mut nobody)).is_ok());
}

/// Answers in rows, begun at different times, are those that the engine gives alone, and a row that is free is used again.
#[test]
fn answers_together_are_those_given_alone() {
    let free = |seed| SamplingOptions { temperature: 0.9, top_k: 20, seed, repetition_penalty: 1.1, ..options(9) };
    let asked = [
        ("What is the capital?", options(20)),
        ("hi", free(3)),
        ("What is helium?", SamplingOptions { top_k: 5, ..free(4) }),
        ("Which languages are spoken there, and by whom?", options(6)),
        ("hello", options(11)),
    ];
    let mut one = engine(1, 256);
    let alone = asked.each_ref().map(|(prompt, options)| run(&mut one, prompt, "", options, usize::MAX));
    let mut together = block_on(one.together(3, 256)).unwrap();
    assert_eq!((together.capacity(), together.free_row()), (256, Some(0)));
    let mut texts = vec![(String::new(), Vec::new(), None); asked.len()];
    let (mut of_row, mut next, mut steps) = ([0; 3], 0, 0);
    while next < asked.len() || !together.is_idle() {
        // Not all at once.
        while steps % 2 == 0
            && next < asked.len()
            && let Some(row) = together.free_row()
        {
            let (prompt, options) = &asked[next];
            let text = one.prompt(&user(prompt), "").unwrap();
            block_on(together.begin(row, text, options)).unwrap();
            of_row[row] = next;
            next += 1;
        }
        let mut on_token = |row: usize, event: TokenEvent<'_>| {
            let (text, ids, _) = &mut texts[of_row[row]];
            text.push_str(event.text);
            ids.push(event.id);
            ControlFlow::Continue(())
        };
        for ended in block_on(together.step(&mut on_token)).unwrap() {
            texts[of_row[ended.row]].2 = Some((ended.finish, ended.tokens));
        }
        steps += 1;
    }
    for ((text, ids, finish), alone) in texts.iter().zip(&alone) {
        let stats = &alone.2;
        assert_eq!((text, ids, *finish), (&alone.0, &alone.1, Some((stats.finish, stats.generated_tokens))));
    }
    // The engine's own conversation is as it was.
    assert_eq!(run(&mut one, "hello", "", &options(11), usize::MAX).2.cached_tokens, alone[4].2.prompt_tokens - 1);
}

#[test]
fn rows_end_where_they_are_told_to() {
    let one = engine(1, 256);
    let mut together = block_on(one.together(2, 40)).unwrap();
    let prompt = |text: &str| one.prompt(&user(text), "").unwrap();
    let long = prompt(&"word ".repeat(60));
    let refused = block_on(together.begin(0, &long, &options(4)));
    assert!(matches!(refused, Err(EngineError::PromptTooLong { context: 40, .. })), "{refused:?}");
    assert!(block_on(together.begin(2, prompt("hi"), &options(4))).is_err());
    block_on(together.begin(0, prompt("hi"), &options(1000))).unwrap();
    block_on(together.begin(1, prompt("hello"), &options(1000))).unwrap();
    let (mut count, mut over) = ([0; 2], Vec::new());
    while !together.is_idle() {
        let mut on_token = |row: usize, _: TokenEvent<'_>| {
            count[row] += 1;
            if row == 1 && count[1] == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        over.extend(block_on(together.step(&mut on_token)).unwrap());
    }
    let room = 41 - prompt("hi").tokens(one.tokenizer()).unwrap().len();
    let ended = |row, finish, tokens| Ended { row, finish, tokens };
    let expected = vec![ended(1, FinishReason::Cancelled, 3), ended(0, FinishReason::Length, room)];
    assert_eq!((count, over), ([room, 3], expected));
    block_on(together.begin(0, prompt("hi"), &options(0))).unwrap();
    let mut none = |_: usize, _: TokenEvent<'_>| panic!("no token was asked for");
    assert_eq!(block_on(together.step(&mut none)).unwrap(), [ended(0, FinishReason::Length, 0)]);
    assert!(block_on(one.together(0, 40)).is_err() && block_on(one.together(crate::cpu::MAX_ROWS + 1, 40)).is_err());
}

/// Texts that come up one after the other, and what became of them.
#[derive(Default)]
struct ScriptedTexts {
    waiting: Vec<Text>,
    tokens: Vec<(usize, String)>,
    prompts: Vec<usize>,
    over: Vec<(usize, Result<FinishReason, String>)>,
}

impl Texts for ScriptedTexts {
    fn next(&mut self) -> Option<Text> {
        self.waiting.pop()
    }

    fn begun(&mut self, id: usize, prompt_tokens: usize) {
        assert!(prompt_tokens > 0);
        self.prompts.push(id);
    }

    fn token(&mut self, id: usize, token: TokenEvent<'_>) -> ControlFlow<()> {
        self.tokens.push((id, token.text.to_owned()));
        // The second is stopped at once.
        if id == 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn over(&mut self, id: usize, result: Result<Ended, EngineError>) {
        self.over.push((id, result.map(|ended| ended.finish).map_err(|error| error.to_string())));
    }
}

#[test]
fn texts_are_written_until_none_waits() {
    let mut one = engine(1, 256);
    let questions = ["What is helium?", "hi", "Who was that?", "And why?", "hello"];
    let alone = questions.map(|question| run(&mut one, question, "", &options(8), usize::MAX));
    let text = |id: usize, tokens| Text {
        id,
        prompt: one.prompt(&user(questions[id]), "").unwrap(),
        options: options(tokens),
    };
    let mut texts = ScriptedTexts { waiting: (0..5).rev().map(|id| text(id, 8)).collect(), ..ScriptedTexts::default() };
    // Longer than a row with all that it may write: told at once, and the others are written.
    texts.waiting.insert(2, Text { id: 5, ..text(0, 64) });
    texts.waiting.insert(0, Text { id: 6, prompt: "".into(), options: options(8) });
    let mut together = block_on(one.together(2, 64)).unwrap();
    block_on(together.write(&mut texts)).unwrap();
    assert!(together.is_idle());
    for (id, alone) in alone.iter().enumerate() {
        let told: String = texts.tokens.iter().filter(|(of, _)| *of == id).map(|(_, text)| text.as_str()).collect();
        let end = texts.over.iter().find(|(of, _)| *of == id).map(|(_, end)| end.clone());
        let (expected, finish) = match id {
            1 => (told.len() < alone.0.len(), FinishReason::Cancelled),
            _ => (told == alone.0, alone.2.finish),
        };
        assert!(expected && end == Some(Ok(finish)), "{id}: {told:?} {end:?}");
    }
    assert_eq!(texts.prompts, [0, 1, 2, 3, 4]);
    let refused: Vec<_> =
        texts.over.iter().filter_map(|(id, end)| end.clone().err().map(|error| (*id, error))).collect();
    assert!(refused.len() == 2 && refused[0].0 == 5 && refused[0].1.contains("holds 64"), "{refused:?}");
    assert_eq!(refused[1], (6, EngineError::EmptyPrompt.to_string()));
    // The order in which they were begun is not the order in which one row would have written them.
    let first_over = texts.tokens.iter().rposition(|(id, _)| *id == 0).unwrap();
    assert!(texts.tokens[..first_over].iter().any(|(id, _)| *id == 2), "{:?}", texts.tokens);
}
