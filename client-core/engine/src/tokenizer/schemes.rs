//! How text is cut into words before byte-level BPE, by llama.cpp's name of the scheme (`tokenizer.ggml.pre`).
//!
//! The patterns are those that the models were trained with; a piece that no pattern matches stays whole.

use tokenizers::SplitDelimiterBehavior;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};

use crate::error::EngineError;

/// Words with the space before them, contractions, numbers, punctuation.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";
/// As GPT-2, but numbers in threes, and a word may follow any one mark.
pub(super) const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// As Llama 3, but every digit alone.
pub(super) const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Mistral's: words are also cut where a capital follows a small letter.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Where a file names no scheme: punctuation, then GPT-2, then numbers in threes.
const DEFAULT: [&str; 4] = [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"];

/// GPT-2's with what Llama 3's ends with.
const WITH_REST: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Whether `pattern` is one of these: none takes many steps back but over spaces.
pub(super) fn is_known(pattern: &str) -> bool {
    is_whole(pattern) || DEFAULT.contains(&pattern) || [r"\p{N}", r"\p{N}{1,3}"].contains(&pattern)
}

/// Whether `pattern` is one of these, and ends words wherever [`super::cuts`] says that words end.
pub(super) fn is_whole(pattern: &str) -> bool {
    [GPT2, LLAMA3, QWEN2, TEKKEN, WITH_REST].contains(&pattern)
}

/// One way of cutting text.
pub(super) struct Scheme {
    /// Applied one after the other, each to the pieces of the one before.
    patterns: &'static [&'static str],
    /// Whether a piece that is a token as a whole is taken so, whatever the merges would make of it.
    pub ignore_merges: bool,
    /// Whether a beginning-of-sequence token is wanted where the file does not say.
    pub add_bos: bool,
}

/// The scheme of llama.cpp's name `name`.
///
/// # Errors
/// The name is not known.
pub(super) fn named(name: &str) -> Result<Scheme, EngineError> {
    let plain = |patterns| Scheme { patterns, ignore_merges: false, add_bos: false };
    let whole = |patterns| Scheme { patterns, ignore_merges: true, add_bos: true };
    Ok(match name {
        "default" => plain(&DEFAULT),
        "gpt-2" | "gpt2" | "phi-2" | "mpt" | "olmo" | "jais" | "roberta-bpe" => plain(&[GPT2]),
        "llama-bpe" | "llama3" | "llama-v3" | "falcon3" => whole(&[LLAMA3]),
        "smaug-bpe" | "dbrx" => plain(&[LLAMA3]),
        "qwen2" | "deepseek-r1-qwen" | "stablelm2" | "megrez" => plain(&[QWEN2]),
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone" => plain(&[r"\p{N}", GPT2]),
        "tekken" => whole(&[TEKKEN]),
        _ => {
            return Err(EngineError::Unsupported(format!(
                "its tokenizer cuts text by the scheme {name:?} (tokenizer.ggml.pre), which this engine does not know, and \
                 would cut wrongly by another one; a file that carries tokenizer.huggingface.json, or the model's Hugging \
                 Face folder with tokenizer.json, needs no scheme"
            )));
        }
    })
}

impl Scheme {
    /// The scheme as a pre-tokenizer that ends with the bytes of every piece written as visible characters.
    ///
    /// # Errors
    /// The regular expressions' library refuses a pattern.
    pub(super) fn pre_tokenizer(&self) -> Result<PreTokenizerWrapper, EngineError> {
        let mut steps = Vec::with_capacity(self.patterns.len() + 1);
        for pattern in self.patterns {
            let pattern = SplitPattern::Regex((*pattern).to_owned());
            let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
            steps.push(PreTokenizerWrapper::Split(split.map_err(|error| EngineError::Tokenizer(error.to_string()))?));
        }
        steps.push(PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, false)));
        Ok(PreTokenizerWrapper::Sequence(Sequence::new(steps)))
    }
}
