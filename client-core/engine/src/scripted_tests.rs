//! What becomes of tokens and logits, whatever computed them: a backend that returns the logits of a script.
#![allow(clippy::unwrap_used)]

use pollster::block_on;

use super::tests::{model, options, run};
use super::*;
use crate::config::ModelConfig;
use crate::gguf::GgmlType;
use crate::weights::ModelWeights;

/// Logits for one position after the other.
struct ScriptedBackend(Vec<Vec<f32>>, ModelConfig, usize);

#[async_trait::async_trait(?Send)]
impl Backend for ScriptedBackend {
    fn config(&self) -> &ModelConfig {
        &self.1
    }
    fn name(&self) -> &'static str {
        "told"
    }
    fn len(&self) -> usize {
        self.2
    }
    fn capacity(&self) -> usize {
        256
    }
    fn truncate(&mut self, len: usize) {
        self.2 = self.2.min(len);
    }
    fn fork(&self) -> Result<Box<dyn Backend>, EngineError> {
        Ok(Box::new(Self(self.0.clone(), self.1.clone(), 0)))
    }
    async fn forward(&mut self, tokens: &[u32], want: OutputKind) -> Result<Output, EngineError> {
        self.2 += tokens.len();
        match want {
            OutputKind::Nothing => Ok(Output::Nothing),
            OutputKind::Logits => Ok(Output::Logits(self.0.remove(0))),
            _ => Err(EngineError::NotOffered { backend: "told", what: "anything else" }),
        }
    }
}

/// An engine with the vocabulary of [`model`] that gives these logits.
fn scripted(script: impl Fn(&Tokenizer, usize) -> Vec<Vec<f32>>) -> Engine {
    let bytes = model(1, 256, GgmlType::Q4_0);
    let gguf = Gguf::parse(&bytes).unwrap();
    let words = ChatTokenizer::from_gguf(&gguf).unwrap();
    let weights = ModelWeights::from_gguf(&gguf).unwrap();
    let script = script(&words.tokenizer, weights.config.vocab);
    let backend = Box::new(ScriptedBackend(script, weights.config.clone(), 0));
    Engine::from_parts(words.tokenizer, words.template, &weights, backend).unwrap()
}

/// One that writes these texts, and then the first token for ever.
fn writes(texts: &'static [&'static str]) -> Engine {
    scripted(|tokenizer, vocab| {
        let ids = texts.iter().flat_map(|text| tokenizer.encode(text).unwrap());
        let certain = |id: u32| (0..vocab as u32).map(|other| if other == id { 5.0 } else { 0.0 }).collect();
        ids.chain([0; 64]).map(certain).collect()
    })
}

#[test]
fn stop_texts_may_be_those_of_control_tokens() {
    for (texts, stop, expect) in [
        (&["hello", "<|user|>", "there"][..], "<|user|>", "hello"),
        (&["hello\n", "<|user|>"], "\n<|user|>", "hello"),
        (&["<|assistant|>", "x"], "<|assistant|>", ""),
        (&["hello", "<|end|>"], "<|end|>", "hello"),
        (&["hello there"], "there", "hello "),
    ] {
        let mut one = writes(texts);
        let asked = SamplingOptions { stop: vec![stop.to_owned()], ..options(12) };
        let (text, _, stats) = run(&mut one, "hi", "", &asked, usize::MAX);
        assert_eq!((text.as_str(), stats.finish), (expect, FinishReason::Stop), "{texts:?} {stop:?}");
    }
    // Others than the model's own, and without the model's own.
    let end = |one: &Engine| one.tokenizer().encode("<|end|>").unwrap()[0];
    let mut one = writes(&["hello", "<|end|>", "there"]);
    let (_, ids, stats) = run(&mut one, "hi", "", &SamplingOptions { ignore_eos: true, ..options(20) }, usize::MAX);
    assert!(ids.contains(&end(&one)) && ids.len() == 20 && stats.finish == FinishReason::Length);
    let mut one = writes(&["hello", "<|user|>", "there"]);
    let stop_tokens = one.tokenizer().encode("<|user|>").unwrap();
    let (text, _, stats) = run(&mut one, "hi", "", &SamplingOptions { stop_tokens, ..options(20) }, usize::MAX);
    assert_eq!((text.as_str(), stats.finish), ("hello", FinishReason::Stop));
}

#[test]
fn logits_of_nan_or_infinity_end_in_an_error() {
    for (wrong, temperature) in [(f32::NAN, 0.0), (f32::NAN, 1.0), (f32::INFINITY, 0.0), (f32::NEG_INFINITY, 1.0)] {
        let mut one = scripted(|_, vocab| vec![vec![1.0; vocab], vec![wrong; vocab]]);
        let asked = SamplingOptions { temperature, ..options(8) };
        let mut count = 0;
        let mut on_token = |_: TokenEvent<'_>| {
            count += 1;
            ControlFlow::Continue(())
        };
        let error = block_on(one.complete("hi", &asked, &|| 0.0, &mut on_token)).unwrap_err();
        assert!(matches!(&error, EngineError::Numbers(_)) && count == 1, "{error} after {count}");
    }
}

#[test]
fn tokens_come_with_their_probabilities() {
    let mut one = Engine::from_gguf_cpu(&model(5, 256, GgmlType::Q4_0)).unwrap();
    let asked = SamplingOptions { top_logprobs: Some(3), ..options(6) };
    let mut seen = Vec::new();
    let mut on_token = |event: TokenEvent<'_>| {
        seen.push((event.id, event.logprobs.cloned().unwrap()));
        ControlFlow::Continue(())
    };
    let hi = [ChatMessage { role: "user".into(), content: "hi".into() }];
    block_on(one.generate(&hi, "", &asked, &|| 0.0, &mut on_token)).unwrap();
    assert_eq!(seen.len(), 6);
    for (id, found) in &seen {
        // Greedy: the likeliest is the one.
        assert!(found.top.len() == 3 && found.top[0] == (*id, found.logprob) && found.logprob < 0.0, "{found:?}");
        assert!(found.top.windows(2).all(|pair| pair[0].1 >= pair[1].1));
    }
    let plain = run(&mut one, "hi", "", &options(6), usize::MAX).1;
    assert_eq!(plain, seen.iter().map(|(id, _)| *id).collect::<Vec<_>>(), "they change nothing");
    let banned = SamplingOptions { logit_bias: vec![(plain[0], f32::NEG_INFINITY)], ..options(1) };
    assert_ne!(run(&mut one, "hi", "", &banned, usize::MAX).1[0], plain[0]);
    let forced = SamplingOptions { logit_bias: vec![(7, 100.0)], ..options(4) };
    assert_eq!(run(&mut one, "hi", "", &forced, usize::MAX).1, [7; 4]);
    let dear = SamplingOptions { frequency_penalty: 60.0, ..forced };
    let ids = run(&mut one, "hi", "", &dear, usize::MAX).1;
    assert!(ids[..2] == [7, 7] && ids[2] != 7, "{ids:?}");
}
