//! What scores are taken on: texts as tokens, with what was trained of them.
//!
//! Three sorts: running text, whose every token counts; pairs of a prompt and an answer, put through the model's chat
//! template, of which only the answer counts; and the Atlas corpus, for the models that ship.

use std::path::Path;

use engine::engine::ChatTokenizer;
use engine::gguf::Gguf;
use engine::prompt::Prompt;
use engine::safetensors::{CHAT_TEMPLATE, GENERATION_CONFIG, TOKENIZER, TOKENIZER_CONFIG, TokenizerFiles};
use engine::{ChatMessage, EngineError};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::Deserialize;

use super::depth::Scored;
use super::error::EcldError;
use super::file::{Archive, Format};
use crate::corpus::Corpus;

/// The most that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Tokens of a sequence; what is longer is cut into several.
    pub length: usize,
    /// Tokens in all.
    pub tokens: usize,
}

/// One line of a JSON-lines file.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    /// Only the answer counts.
    Pair {
        #[serde(alias = "question")]
        prompt: String,
        answer: String,
    },
    /// All of it counts.
    Text { text: String },
}

/// Tokenizer and chat template of a model's files.
///
/// # Errors
/// There is no tokenizer, or it cannot be built.
pub fn words(archive: &Archive) -> Result<ChatTokenizer, EcldError> {
    let fail = |error: EngineError| EcldError::file(&archive.path, error);
    match &archive.format {
        Format::Gguf(head) => {
            let gguf = Gguf::parse_header(head, archive.disk.size(0)).map_err(|error| fail(error.into()))?;
            ChatTokenizer::from_gguf(&gguf).map_err(fail)
        }
        Format::HuggingFace { config, .. } => {
            let read = |name: &str| std::fs::read(archive.path.join(name)).ok();
            let tokenizer = read(TOKENIZER);
            let tokenizer = tokenizer.ok_or_else(|| {
                EcldError::file(&archive.path.join(TOKENIZER), "a tokenizer is needed to calibrate on text")
            })?;
            let (tokenizer_config, template) = (read(TOKENIZER_CONFIG), read(CHAT_TEMPLATE));
            let generation_config = read(GENERATION_CONFIG);
            ChatTokenizer::from_files(&TokenizerFiles {
                tokenizer: &tokenizer,
                tokenizer_config: tokenizer_config.as_deref(),
                chat_template: template.as_deref(),
                generation_config: generation_config.as_deref(),
                config: Some(config),
            })
            .map_err(fail)
        }
    }
}

/// The texts of a file: JSON lines with `prompt` and `answer` or with `text` where its name ends in `.jsonl`, else plain text,
/// whose passages are separated by empty lines.
///
/// # Errors
/// It cannot be read, a line is not as it should be (it is named), or nothing is left to score.
pub fn from_file(words: &ChatTokenizer, path: &Path, limits: Limits) -> Result<Vec<Scored>, EcldError> {
    let text = std::fs::read_to_string(path).map_err(EcldError::io(path))?;
    let mut taken = Taken::new(limits);
    if path.extension().is_some_and(|ending| ending == "jsonl") {
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let fail = |problem: String| EcldError::file(path, format!("line {}: {problem}", number + 1));
            let line: Line = serde_json::from_str(line)
                .map_err(|error| fail(format!("neither a prompt with an answer nor a text: {error}")))?;
            let more = match line {
                Line::Pair { prompt, answer } => taken.add(pair(words, &prompt, &answer)?),
                Line::Text { text } => taken.add(Scored::whole(words.tokenizer.encode_text(&text)?)),
            };
            if !more {
                break;
            }
        }
    } else {
        for passage in text.split("\n\n").map(str::trim).filter(|passage| !passage.is_empty()) {
            if !taken.add(Scored::whole(words.tokenizer.encode_text(passage)?)) {
                break;
            }
        }
    }
    taken.done().map_err(|problem| EcldError::file(path, problem))
}

/// Questions and articles of the Atlas corpus in random order: every second an article.
///
/// # Errors
/// The tokenizer's.
pub fn atlas(words: &ChatTokenizer, corpus: &Corpus, seed: u64, limits: Limits) -> Result<Vec<Scored>, EcldError> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let (mut facts, mut articles): (Vec<_>, Vec<_>) =
        (corpus.facts.iter().filter(|fact| !fact.held_out).collect(), corpus.articles.iter().collect());
    facts.shuffle(&mut rng);
    articles.shuffle(&mut rng);
    let mut taken = Taken::new(limits);
    let end = words.tokenizer.eos();
    for (fact, article) in facts.into_iter().zip(articles) {
        let wordings = fact.training_wordings();
        let question = wordings.get(rng.random_range(0..wordings.len().max(1)));
        let Some(question) = question else { continue };
        let mut told = words.tokenizer.encode(&article.tell(crate::batch::ARTICLE_FACTS, &mut rng))?;
        told.extend(end);
        if !taken.add(pair(words, question, &fact.answer)?) || !taken.add(Scored::whole(told)) {
            break;
        }
    }
    taken.done()
}

/// A prompt through the chat template, and the answer behind it, which alone counts.
fn pair(words: &ChatTokenizer, prompt: &str, answer: &str) -> Result<Scored, EcldError> {
    let message = ChatMessage { role: "user".into(), content: prompt.into() };
    let rendered = words.template.render(&[message])?;
    let mut tokens = Prompt::with_control_tokens(&rendered).tokens(&words.tokenizer)?;
    let first = tokens.len();
    tokens.extend(words.tokenizer.encode(answer)?);
    tokens.extend(words.tokenizer.eos());
    Ok(Scored::after(tokens, first))
}

struct Taken {
    limits: Limits,
    sequences: Vec<Scored>,
    tokens: usize,
}

impl Taken {
    fn new(limits: Limits) -> Self {
        let length = limits.length.max(2);
        Self { limits: Limits { length, ..limits }, sequences: Vec::new(), tokens: 0 }
    }

    /// Takes a sequence, in pieces where it is too long; false once there is enough.
    fn add(&mut self, scored: Scored) -> bool {
        let pieces = scored.tokens.chunks(self.limits.length).zip(scored.targets.chunks(self.limits.length));
        for (tokens, targets) in pieces {
            if self.tokens >= self.limits.tokens {
                return false;
            }
            // A piece without anything to score says nothing; one that was cut off has no next token.
            if targets.iter().flatten().next().is_some() {
                self.tokens += tokens.len();
                self.sequences.push(Scored { tokens: tokens.to_vec(), targets: targets.to_vec() });
            }
        }
        self.tokens < self.limits.tokens
    }

    fn done(self) -> Result<Vec<Scored>, EcldError> {
        match self.sequences.is_empty() {
            true => Err(EcldError::input("there is nothing to calibrate on")),
            false => Ok(self.sequences),
        }
    }
}

/// A number that tells calibration sets apart (FNV-1a of tokens and targets).
pub fn fingerprint(sequences: &[Scored]) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut mix = |value: u64| {
        for byte in value.to_le_bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for scored in sequences {
        mix(scored.tokens.len() as u64);
        for (token, target) in scored.tokens.iter().zip(&scored.targets) {
            mix(u64::from(*token));
            mix(target.map_or(u64::MAX, u64::from));
        }
    }
    format!("{hash:016x}")
}
