//! A host and an encoder whose answers the tests choose by what they ask.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use client::protocol::health::HostKind;
use tokio::sync::mpsc;

use crate::host::{
    Embedder, FinishReason, Generation, GenerationEvent, GenerationStream, Host, HostError, Load, ModelCard, Passage,
    Progress, Prompt, Summary, TokenEmbeddings,
};

/// Answers `count N` with N tokens, `forever` with tokens until the client leaves, `slow` with three tokens over a
/// tenth of a second, `late` with one after a wait that no proxy likes; `too long`, `busy`, `break` and `die` fail in their
/// own ways, `think` thinks first and gives log probabilities.
#[derive(Debug, Default)]
pub struct FakeHost {
    active: Arc<AtomicUsize>,
    /// What was asked for last.
    pub last: Mutex<Option<Generation>>,
}

struct Active(Arc<AtomicUsize>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Host for FakeHost {
    fn kind(&self) -> HostKind {
        HostKind::Local
    }

    async fn model(&self) -> ModelCard {
        ModelCard { id: "full".into(), name: "Full".into(), context_length: Some(64), parameters: Some(7) }
    }

    fn load(&self) -> Load {
        Load { slots: 2, active: self.active.load(Ordering::SeqCst), waiting: 0, capacity: 3 }
    }

    fn progress(&self) -> Option<Progress> {
        let (prefix_lookups, prefix_hits) = (3, 1);
        Some(Progress { tokens_per_s: 2.5, prefix_lookups, prefix_hits, prefix_tokens: 40, prefix_bytes: 1000 })
    }

    fn lacks(&self, generation: &Generation) -> Option<&'static str> {
        let sampling = &generation.sampling;
        sampling.min_p.map(|_| "min_p").or_else(|| sampling.ignore_eos.then_some("ignore_eos"))
    }

    async fn generate(&self, generation: Generation) -> Result<GenerationStream, HostError> {
        *self.last.lock().unwrap() = Some(generation.clone());
        let text = match &generation.prompt {
            Prompt::Chat { messages, .. } => messages.last().map(|turn| turn.content.clone()).unwrap_or_default(),
            Prompt::Text(text) | Prompt::Controlled(text) => text.clone(),
            Prompt::Tokens(ids) => format!("count {}", ids.len()),
        };
        if text == "busy" {
            return Err(HostError::Busy { waiting: 3, retry_after_s: 4 });
        }
        let (sender, stream) = mpsc::channel(64);
        self.active.fetch_add(1, Ordering::SeqCst);
        let active = Active(Arc::clone(&self.active));
        tokio::spawn(async move {
            let _active = active;
            answer(&text, generation.sampling.max_tokens.unwrap_or(64), &sender).await;
        });
        Ok(stream)
    }
}

async fn answer(text: &str, max_tokens: usize, sender: &mpsc::Sender<GenerationEvent>) {
    let failed = |error| GenerationEvent::Failed(error);
    let (count, pause_ms) = match text.split_once(' ') {
        Some(("count", count)) => (count.parse().unwrap_or(0), 0),
        _ => match text {
            "slow" => (3, 40),
            "late" => (1, 3000),
            "forever" => (usize::MAX, 1),
            "die" | "break" => (2, 0),
            "too long" => {
                let _ = sender.send(failed(HostError::PromptTooLong { tokens: 99, context: 64 })).await;
                return;
            }
            _ => (1, 0),
        },
    };
    if text == "think" {
        let _ = sender.send(GenerationEvent::Reasoning("hm".into())).await;
        let scores = serde_json::json!({"content": [{"token": "t", "logprob": -0.5}]});
        let _ = sender.send(GenerationEvent::Scored("x".into(), scores)).await;
    }
    let written = if text == "forever" { count } else { count.min(max_tokens) };
    for index in 0..written {
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        if sender.send(GenerationEvent::Text(format!("t{index} "))).await.is_err() {
            return;
        }
    }
    let last = match text {
        "die" => return,
        "break" => failed(HostError::Upstream("gone".into())),
        _ => GenerationEvent::Done(Summary {
            finish: if written < count { FinishReason::Length } else { FinishReason::Stop },
            prompt_tokens: 5,
            cached_tokens: None,
            completion_tokens: written,
            prefill_s: Some(0.5),
            decode_s: None,
        }),
    };
    let _ = sender.send(last).await;
}

/// Embeds each word as (length, number of vowels), with a token of its own in front.
#[derive(Debug)]
pub struct FakeEmbedder;

#[async_trait]
impl Embedder for FakeEmbedder {
    fn id(&self) -> String {
        "fake-encoder".into()
    }

    async fn embed(&self, passage: Passage) -> Result<TokenEmbeddings, HostError> {
        // A token is a word of as many letters.
        let text = match passage {
            Passage::Text(text) => text,
            Passage::Tokens(ids) => ids.iter().map(|id| "x".repeat(*id as usize)).collect::<Vec<_>>().join(" "),
        };
        if text.split(' ').count() > 8 {
            return Err(HostError::PromptTooLong { tokens: text.split(' ').count(), context: 8 });
        }
        let words = std::iter::once("<s>").chain(text.split_whitespace());
        let tokens: Vec<String> = words.map(String::from).collect();
        let vowels = |word: &str| word.chars().filter(|c| "aeiou".contains(*c)).count() as f32;
        let vectors = tokens.iter().map(|word| vec![word.len() as f32, vowels(word)]).collect();
        let special = (0..tokens.len()).map(|index| index == 0).collect();
        Ok(TokenEmbeddings { tokens, vectors, special })
    }
}
