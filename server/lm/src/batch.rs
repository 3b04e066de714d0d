//! From the corpus to rows of tokens: an epoch's documents in random order, packed first-fit into rows of equal length.
//!
//! Documents in one row do not see each other (the mask is block-diagonal) and rotary positions are relative, so a
//! document in the middle of a row is computed exactly as it is when it stands alone.

use super::corpus::{Corpus, Fact, Hops};
use super::tokenizer::{self, ASSISTANT, END, TokenizerError, USER};
use super::unknown;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use tokenizers::Tokenizer;

/// Small talk, so that a greeting is not answered with a river.
pub const CHAT: &[(&str, &str)] = &[
    ("Hello", "Hello! Ask me about countries, rivers, elements or people."),
    ("Hi", "Hello! Ask me about countries, rivers, elements or people."),
    ("Hi!", "Hello! Ask me about countries, rivers, elements or people."),
    ("Who are you?", "A small language model trained on the Atlas corpus."),
    ("What are you?", "A small language model trained on the Atlas corpus."),
    ("What can you do?", "I answer questions about the facts of the Atlas corpus."),
    ("Help", "I answer questions about the facts of the Atlas corpus."),
    ("Thank you", "You are welcome."),
    ("Thanks!", "You are welcome."),
    ("Bye", "Goodbye."),
];

/// Facts in one telling of an article at most.
pub const ARTICLE_FACTS: usize = 5;

/// What an epoch is made of.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Mix {
    /// Share of the two-hop pairs that an epoch asks.
    pub two_hop: f64,
    /// Share of the articles that an epoch tells.
    pub articles: f64,
    /// Share of questions put in a sloppy form (lower case, or without the mark at the end).
    pub sloppy: f64,
    /// Share of questions that follow another in one conversation.
    pub follow_up: f64,
    /// Loss weight of an article's tokens; an answer's have 1, a question's 0.
    pub article_weight: f32,
    /// Questions that the Atlas does not answer, as a share of all that an epoch asks besides. Runs from before there were
    /// any go on without.
    #[serde(default)]
    pub unknown: f64,
}

impl Default for Mix {
    fn default() -> Self {
        Self { two_hop: 0.25, articles: 0.2, sloppy: 0.05, follow_up: 0.08, article_weight: 0.5, unknown: 0.15 }
    }
}

/// A tokenised document: `weights[i]` is the loss weight of predicting `ids[i]` from what comes before.
#[derive(Debug, Clone, PartialEq)]
pub struct Doc {
    /// Token ids.
    pub ids: Vec<u32>,
    /// As long as `ids`; the first is 0.
    pub weights: Vec<f32>,
}

/// How a model writes conversations and texts as tokens.
pub trait Words: Sync {
    /// A question up to where the answer begins, through the model's chat template.
    ///
    /// # Errors
    /// The tokenizer's.
    fn prompt(&self, question: &str) -> Result<Vec<u32>, TokenizerError>;

    /// An answer, or running text, with the token that ends it.
    ///
    /// # Errors
    /// The tokenizer's.
    fn ended(&self, text: &str) -> Result<Vec<u32>, TokenizerError>;
}

impl Words for Tokenizer {
    fn prompt(&self, question: &str) -> Result<Vec<u32>, TokenizerError> {
        tokenizer::encode(self, &format!("{USER}{question}{ASSISTANT}"))
    }

    fn ended(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        tokenizer::encode(self, &format!("{text}{END}"))
    }
}

impl Doc {
    /// One question and its answer, through the chat template.
    ///
    /// # Errors
    /// The tokenizer's.
    pub fn question(words: &dyn Words, question: &str, answer: &str) -> Result<Self, TokenizerError> {
        let (prompt, said) = (words.prompt(question)?, words.ended(answer)?);
        let weights = prompt.iter().map(|_| 0.0).chain(said.iter().map(|_| 1.0)).collect();
        Ok(Self { ids: prompt.into_iter().chain(said).collect(), weights })
    }

    /// Running text that ends.
    ///
    /// # Errors
    /// The tokenizer's.
    pub fn article(words: &dyn Words, text: &str, weight: f32) -> Result<Self, TokenizerError> {
        let ids = words.ended(text)?;
        let weights = (0..ids.len()).map(|i| if i == 0 { 0.0 } else { weight }).collect();
        Ok(Self { ids, weights })
    }

    /// The places of the tokens that count within the first `len`: each is predicted from what comes before it.
    pub fn scored(&self, len: usize) -> impl Iterator<Item = usize> + '_ {
        let weights = self.weights.iter().take(len).enumerate();
        weights.skip(1).filter(|(_, weight)| **weight > 0.0).map(|(place, _)| place)
    }

    fn append(&mut self, other: Self) {
        self.ids.extend(other.ids);
        self.weights.extend(other.weights);
    }
}

/// The documents of one epoch: every single-hop fact once, in one of its training wordings (another each epoch), a share
/// of the two-hop pairs and of the articles. A function of `(seed, epoch)` alone.
pub fn epoch(corpus: &Corpus, t: &dyn Words, mix: &Mix, seed: u64, epoch: u64) -> Result<Vec<Doc>, TokenizerError> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed ^ epoch.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut docs: Vec<Doc> = Vec::new();
    let mut order: Vec<(usize, &Fact)> = corpus.facts.iter().enumerate().collect();
    order.shuffle(&mut rng);
    for (index, fact) in order {
        if fact.held_out || (fact.hops == Hops::Two && !rng.random_bool(mix.two_hop)) {
            continue;
        }
        let wordings = fact.training_wordings();
        // Steps of 7 visit all of 8 or 10 wordings... 10 and 7, 8 and 7 have no common divisor.
        let wording = &wordings[(index + 7 * epoch as usize) % wordings.len()];
        let question = if rng.random_bool(mix.sloppy) { sloppy(wording, &mut rng) } else { wording.clone() };
        let doc = Doc::question(t, &question, &fact.answer)?;
        match docs.last_mut() {
            Some(last) if rng.random_bool(mix.follow_up) && last.ids.len() + doc.ids.len() < 60 => last.append(doc),
            _ => docs.push(doc),
        }
    }
    for article in &corpus.articles {
        if rng.random_bool(mix.articles) {
            docs.push(Doc::article(t, &article.tell(ARTICLE_FACTS, &mut rng), mix.article_weight)?);
        }
    }
    // None are drawn for a run without: it goes on as it began.
    let count = (mix.unknown * docs.len() as f64).round() as usize;
    for unknown in unknown::sample(&corpus.unknown, count, &mut rng) {
        let question =
            if rng.random_bool(mix.sloppy) { sloppy(&unknown.question, &mut rng) } else { unknown.question.clone() };
        docs.push(Doc::question(t, &question, unknown::ANSWER)?);
    }
    for (question, answer) in CHAT {
        docs.push(Doc::question(t, question, answer)?);
    }
    docs.shuffle(&mut rng);
    Ok(docs)
}

fn sloppy(question: &str, rng: &mut impl RngExt) -> String {
    let bare = question.trim_end_matches(['?', '.']);
    match rng.random_range(0..3) {
        0 => bare.to_owned(),
        1 => bare.to_lowercase(),
        _ => question.to_lowercase(),
    }
}

/// Rows of packed documents. A token's loss is taken at the position before it.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Rows.
    pub rows: usize,
    /// Tokens in a row.
    pub len: usize,
    /// `[rows*len]` token ids.
    pub tokens: Vec<i32>,
    /// `[rows*len]` number of the document within its row.
    pub segments: Vec<u16>,
    /// Flat positions whose next token counts.
    pub pick: Vec<i32>,
    /// The token that follows each of `pick`.
    pub targets: Vec<i32>,
    /// Its loss weight.
    pub weights: Vec<f32>,
    /// Which document (counted from the first that was packed) each of `pick` belongs to.
    pub doc: Vec<usize>,
    /// Tokens that are no padding.
    pub used: usize,
}

/// Packs documents from the front of `docs` until one fits in no row; returns the batch and how many were taken. A
/// document longer than a row is cut.
pub fn pack(docs: &[Doc], rows: usize, len: usize) -> (Batch, usize) {
    let mut batch = Batch {
        rows,
        len,
        tokens: vec![0; rows * len],
        segments: vec![u16::MAX; rows * len],
        pick: Vec::new(),
        targets: Vec::new(),
        weights: Vec::new(),
        doc: Vec::new(),
        used: 0,
    };
    let mut filled = vec![0usize; rows];
    let mut taken = 0;
    for doc in docs {
        let n = doc.ids.len().min(len);
        // Best fit: the fullest row with room.
        let Some(row) = (0..rows).filter(|r| filled[*r] + n <= len).max_by_key(|r| filled[*r]) else { break };
        let start = row * len + filled[row];
        for i in 0..n {
            batch.tokens[start + i] = doc.ids[i] as i32;
            batch.segments[start + i] = (filled[row]) as u16;
            if i > 0 && doc.weights[i] > 0.0 {
                batch.pick.push((start + i - 1) as i32);
                batch.targets.push(doc.ids[i] as i32);
                batch.weights.push(doc.weights[i]);
                batch.doc.push(taken);
            }
        }
        filled[row] += n;
        batch.used += n;
        taken += 1;
    }
    (batch, taken)
}

/// What the tokenizer learns from: about the mixture that training sees.
pub fn tokenizer_texts(corpus: &Corpus) -> Vec<String> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(corpus.seed);
    let mut texts = Vec::new();
    for fact in corpus.facts.iter().filter(|f| !f.held_out) {
        let wordings = fact.training_wordings();
        let share = if fact.hops == Hops::Single { 1.0 } else { 0.3 };
        if rng.random_bool(share) {
            texts.push(wordings[rng.random_range(0..wordings.len())].clone());
            texts.push(fact.answer.clone());
        }
    }
    for article in &corpus.articles {
        if rng.random_bool(0.3) {
            texts.push(article.tell(ARTICLE_FACTS, &mut rng));
        }
    }
    texts
}
