//! Who writes the answers: the models behind the HTTP API.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`local`] | the full model in this process, from outside: asks in, answers out |
//! | [`scheduler`] | the thread that computes it: all running sequences in each pass, prompts in chunks beside them |
//! | [`prefix`] | what was computed for conversations that are over, for others that begin alike |
//! | [`load`] | reads that model from a file, a folder or the program itself |
//! | [`memory`] | how much memory is free for it |
//! | [`upstream`] | another OpenAI-compatible engine (vLLM, llama.cpp server …) reached over HTTP |
//! | [`encoder`] | a BERT that embeds texts, for `/v1/embeddings` and the similarity of eq. 26–27 |
//! | [`queue`] | a bounded queue before a number of places |
//! | [`pool`] | threads over such a queue, under `encoder` |
//! | [`swap`] | a model here that can give way to another one |
//! | [`scores`] | log probabilities of the model here, as the API has them |
//! | [`retry`] | when somebody who was refused should come back |
//!
//! A host is told what to write in its own terms ([`Generation`]) and answers with [`GenerationEvent`]s; it knows nothing
//! of OpenAI's JSON. Whoever drops a [`GenerationStream`] cancels the generation: it ends within one token.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};

use async_trait::async_trait;
use client::protocol::health::HostKind;
pub use engine::ChatMessage as Message;
use tokio::sync::mpsc;

pub mod encoder;
pub mod load;
pub mod local;
pub mod memory;
pub mod pool;
pub mod prefix;
pub mod queue;
pub mod retry;
pub mod scheduler;
pub mod scores;
pub mod swap;
pub mod upstream;

#[cfg(test)]
pub(crate) mod testing;

/// What to continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// A conversation, put into the model's own chat template.
    Chat {
        /// The turns before the answer.
        messages: Vec<Message>,
        /// The answer's beginning when somebody has already written it; empty otherwise.
        assistant_prefix: String,
    },
    /// Plain text, continued as it stands; what reads like a control token is text.
    Text(String),
    /// The same, but what reads like a control token is one.
    Controlled(String),
    /// The same, as the model's own tokens.
    Tokens(Vec<u32>),
}

/// How to choose the next token, and when to stop. What is `None` was not asked for: the host does as it does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sampling {
    /// Longest answer in tokens; `None` is what the context leaves.
    pub max_tokens: Option<usize>,
    /// 0 is greedy.
    pub temperature: Option<f64>,
    /// Only the k likeliest tokens; 0 is off.
    pub top_k: usize,
    /// Nucleus: the likeliest tokens that hold this much probability; 1 is off.
    pub top_p: Option<f64>,
    /// Only tokens of at least this share of the likeliest one's probability; 0 is off.
    pub min_p: Option<f64>,
    /// Divides what has occurred before (CTRL); 1 is off.
    pub repetition_penalty: Option<f64>,
    /// Subtracted from what has occurred before; 0 is off.
    pub presence_penalty: Option<f64>,
    /// Subtracted as often as it has occurred; 0 is off.
    pub frequency_penalty: Option<f64>,
    /// Added to tokens' logits.
    pub logit_bias: BTreeMap<u32, f64>,
    /// Log probabilities of the chosen tokens and of so many others.
    pub logprobs: Option<usize>,
    /// Seed of the choice; a signed or an unsigned number of 64 bits, as the client wrote it.
    pub seed: Option<i128>,
    /// The answer ends before the first of these.
    pub stop: Vec<String>,
    /// Tokens that end the answer beside the model's own.
    pub stop_tokens: Vec<u32>,
    /// Whether the model's own end is a token like any other.
    pub ignore_eos: bool,
}

impl Sampling {
    /// The seed; whoever names none wants another answer every time.
    #[must_use]
    pub fn seed_or_any(&self) -> u64 {
        // The bits of a negative number, too, make a seed.
        self.seed.map_or_else(|| RandomState::new().hash_one(0u8), |seed| seed as u64)
    }
}

/// One answer to write.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// What to continue.
    pub prompt: Prompt,
    /// How.
    pub sampling: Sampling,
    /// Whether the client is told how many tokens it took.
    pub counted: bool,
    /// Only requests with the same salt share what was computed for the beginnings of their prompts.
    pub cache_salt: Option<String>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model said that it is done, or a stop text came up.
    Stop,
    /// `max_tokens` or the context's end.
    Length,
    /// The engine held something back.
    Filtered,
}

/// What one answer took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Why it ended.
    pub finish: FinishReason,
    /// Tokens read.
    pub prompt_tokens: usize,
    /// Those of them that were computed before and kept, where the host can tell.
    pub cached_tokens: Option<usize>,
    /// Tokens written.
    pub completion_tokens: usize,
    /// Time to read the prompt, where the host can tell.
    pub prefill_s: Option<f64>,
    /// Time to write the answer, where the host can tell.
    pub decode_s: Option<f64>,
}

/// What happens while an answer is written. The last event is `Done` or `Failed`.
#[derive(Debug)]
pub enum GenerationEvent {
    /// More text; one event a token. Empty where a character is not complete yet.
    Text(String),
    /// The same with log probabilities, in the form that OpenAI's API has for this kind of answer.
    Scored(String, serde_json::Value),
    /// What a model thinks before it answers, where the host tells it apart.
    Reasoning(String),
    /// The answer is complete.
    Done(Summary),
    /// The answer cannot be completed.
    Failed(HostError),
}

/// The events of one answer. Dropping it cancels the generation.
pub type GenerationStream = mpsc::Receiver<GenerationEvent>;

/// What a person should know of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelCard {
    /// What requests call it.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// Longest prompt plus answer in tokens, where known.
    pub context_length: Option<usize>,
    /// Number of parameters, where known.
    pub parameters: Option<u64>,
}

/// How busy a host is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Answers that can be written at the same time; 0 where the host does not say.
    pub slots: usize,
    /// Answers being written.
    pub active: usize,
    /// Requests waiting for a slot.
    pub waiting: usize,
    /// Requests that may wait.
    pub capacity: usize,
}

/// What a host has done.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// Tokens written a second, all answers together, over the last ten seconds.
    pub tokens_per_s: f64,
    /// Prompts for whose beginnings something that was computed before was looked for.
    pub prefix_lookups: u64,
    /// Those of them for which something was found.
    pub prefix_hits: u64,
    /// Tokens of prompts that did not have to be computed.
    pub prefix_tokens: u64,
    /// Memory that the beginnings take which are kept.
    pub prefix_bytes: usize,
}

/// Writes answers.
#[async_trait]
pub trait Host: Send + Sync + 'static {
    /// In this process or elsewhere.
    fn kind(&self) -> HostKind;

    /// The model that writes.
    async fn model(&self) -> ModelCard;

    /// The same, where it matters whether that is known.
    ///
    /// # Errors
    /// When an engine elsewhere does not say it.
    async fn known_model(&self) -> Result<ModelCard, HostError> {
        Ok(self.model().await)
    }

    /// The same as far as it is known at this moment: nothing is waited for.
    async fn model_now(&self) -> ModelCard {
        self.model().await
    }

    /// What its vocabulary is recognised by ([`engine::Tokenizer::fingerprint`]); `None` where it is not seen.
    fn vocabulary(&self) -> Option<String> {
        None
    }

    /// How busy the host is now.
    fn load(&self) -> Load;

    /// What it has done, where it computes itself.
    fn progress(&self) -> Option<Progress> {
        None
    }

    /// The field of the API that asks for what this host cannot do, if one does.
    fn lacks(&self, _generation: &Generation) -> Option<&'static str> {
        None
    }

    /// Starts to write an answer.
    ///
    /// # Errors
    /// When it cannot even be queued. What goes wrong later arrives as [`GenerationEvent::Failed`].
    async fn generate(&self, generation: Generation) -> Result<GenerationStream, HostError>;
}

/// A text as the encoder sees it: its tokens and a vector for each, in context.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenEmbeddings {
    /// The tokens' texts, `[n]`.
    pub tokens: Vec<String>,
    /// The tokens' contextual embeddings, `[n][d]`.
    pub vectors: Vec<Vec<f32>>,
    /// Whether the tokenizer added the token (BERT's `[CLS]` and `[SEP]`), `[n]`. Such tokens count in the mean, as in
    /// the sentence encoders that are trained so, and not in a token-by-token comparison.
    pub special: Vec<bool>,
}

impl TokenEmbeddings {
    /// The same, if all of its numbers are finite: no client could read others, and their mean says nothing.
    ///
    /// # Errors
    /// [`HostError::Engine`].
    pub fn checked(self) -> Result<Self, HostError> {
        if self.vectors.iter().flatten().all(|value| value.is_finite()) {
            return Ok(self);
        }
        let why =
            "a number of the embedding is not finite; the model's weights are damaged, or its numbers are too large";
        Err(HostError::Engine(why.to_owned()))
    }

    /// The mean of all vectors, scaled to length 1; empty when there is no token.
    #[must_use]
    pub fn pooled(&self) -> Vec<f32> {
        let Some(first) = self.vectors.first() else { return Vec::new() };
        // f64: the order of a long sum should not show in the result.
        let mut sum = vec![0.0f64; first.len()];
        for vector in &self.vectors {
            for (total, value) in sum.iter_mut().zip(vector) {
                *total += f64::from(*value);
            }
        }
        let norm = sum.iter().map(|value| value * value).sum::<f64>().sqrt();
        let scale = if norm > 0.0 { 1.0 / norm } else { 0.0 };
        sum.iter().map(|value| (value * scale) as f32).collect()
    }

    /// The vectors of the text's own tokens, without those that the tokenizer added.
    #[must_use]
    pub fn content(&self) -> Vec<Vec<f32>> {
        self.vectors.iter().zip(&self.special).filter(|(_, special)| !**special).map(|(v, _)| v.clone()).collect()
    }
}

/// What is embedded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passage {
    /// A text, with what the tokenizer puts around one.
    Text(String),
    /// Token ids as they are.
    Tokens(Vec<u32>),
}

impl Passage {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Tokens(ids) => ids.is_empty(),
        }
    }
}

impl From<&str> for Passage {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Passage {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// Embeds texts.
#[async_trait]
pub trait Embedder: Send + Sync + 'static {
    /// What requests call it.
    fn id(&self) -> String;

    /// Embeds every token of a text, in context.
    ///
    /// # Errors
    /// When the text is empty or too long, a token is none of the model's, the queue is full or the computation fails.
    async fn embed(&self, passage: Passage) -> Result<TokenEmbeddings, HostError>;
}

/// Why a host could not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Every slot is taken and the queue is full.
    #[error("the server is busy: {waiting} requests are waiting already; try again in {retry_after_s} s")]
    Busy {
        /// Requests that wait.
        waiting: usize,
        /// When it makes sense to come back.
        retry_after_s: u64,
    },
    /// The upstream engine has no place, in its own words.
    #[error("the upstream engine is busy: {message}; try again in {retry_after_s} s")]
    UpstreamBusy {
        /// What it says.
        message: String,
        /// When it makes sense to come back.
        retry_after_s: u64,
    },
    /// Prompt and context do not fit.
    #[error("the prompt has {tokens} tokens, but the model's context holds {context}; shorten the prompt")]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens that the context holds.
        context: usize,
    },
    /// The same, where the engine only says so in its own words.
    #[error("{0}")]
    ContextExceeded(String),
    /// The request makes no sense to this model.
    #[error("{0}")]
    Invalid(String),
    /// A field of it names what this model does not have.
    #[error("'{field}': {why}")]
    Field {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// No answer from the upstream engine.
    #[error("the upstream engine cannot be reached: {0}")]
    Unreachable(String),
    /// The upstream engine took too long.
    #[error("the upstream engine did not answer in time: {0}")]
    TimedOut(String),
    /// The upstream engine refused or broke off.
    #[error("the upstream engine failed: {0}")]
    Upstream(String),
    /// The computation failed.
    #[error("the model could not compute: {0}")]
    Engine(String),
    /// The server is going down.
    #[error("the server is shutting down")]
    ShuttingDown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pooling_is_the_normalised_mean_and_content_leaves_special_tokens_out() {
        let embeddings = TokenEmbeddings {
            tokens: ["[CLS]", "a", "b"].map(String::from).to_vec(),
            vectors: vec![vec![3.0, 0.0], vec![0.0, 2.0], vec![0.0, 2.0]],
            special: vec![true, false, false],
        };
        // Mean (1, 4/3), length 5/3.
        let pooled = embeddings.pooled();
        assert!((pooled[0] - 0.6).abs() < 1e-6 && (pooled[1] - 0.8).abs() < 1e-6, "{pooled:?}");
        assert_eq!(embeddings.content(), vec![vec![0.0, 2.0], vec![0.0, 2.0]]);
        let none = TokenEmbeddings { tokens: vec![], vectors: vec![], special: vec![] };
        assert!(none.pooled().is_empty());
        let zero = TokenEmbeddings { tokens: vec!["a".into()], vectors: vec![vec![0.0]], special: vec![false] };
        assert_eq!(zero.pooled(), vec![0.0]);
    }
}
