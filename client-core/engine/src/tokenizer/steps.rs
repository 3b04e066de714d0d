//! What a tokenizer does to a text before its model sees it, step by step: normalizers, and what cuts it into words.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use fancy_regex::Regex;
use tokenizers::normalizer::SplitDelimiterBehavior;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::split::SplitPattern;
use tokenizers::{
    AddedVocabulary, NormalizedString, Normalizer, NormalizerWrapper, PreTokenizedString, PreTokenizer as _,
};

use super::search::{Search, TOO_LONG, compiled};
use crate::error::EngineError;

/// How many times as long as a piece of a text a normalizer may make it, and how many bytes more. Those in use triple it at most
/// (a space that becomes `▁`); each byte takes a hundred and more until it is a token.
const MOST_TIMES: usize = 4;
const MOST_MORE: usize = 64 << 10;

/// A normalizer as it is run here: what replaces can be stopped, and is not run where too much would come of it.
#[derive(Debug)]
pub(super) enum Step {
    Whole(NormalizerWrapper),
    Replace { regex: Regex, content: String },
    All(Vec<Self>),
}

impl Step {
    pub(super) fn of(normalizer: &NormalizerWrapper) -> Result<Self, EngineError> {
        match normalizer {
            NormalizerWrapper::Sequence(steps) => {
                steps.as_ref().iter().map(Self::of).collect::<Result<_, _>>().map(Self::All)
            }
            NormalizerWrapper::Replace(replace) => {
                // The library keeps its pattern to itself, but for where it writes it down.
                let written = serde_json::to_value(replace)
                    .map_err(|error| EngineError::Tokenizer(format!("a normalizer's pattern: {error}")))?;
                let text = |kind| written.get("pattern").and_then(|pattern| pattern.get(kind)?.as_str());
                let escaped = text("String").map(|text| fancy_regex::escape(text).into_owned());
                let pattern = escaped.or_else(|| text("Regex").map(str::to_owned)).unwrap_or_default();
                Ok(Self::Replace { regex: compiled(&pattern)?, content: replace.content.clone() })
            }
            _ => Ok(Self::Whole(normalizer.clone())),
        }
    }

    /// Runs it over a text, of which at most so many bytes may come.
    fn run(
        &self,
        text: &mut NormalizedString,
        most: usize,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> tokenizers::Result<()> {
        match self {
            Self::Whole(normalizer) => {
                normalizer.normalize(text)?;
                if text.get().len() <= most { Ok(()) } else { Err(TOO_LONG.into()) }
            }
            Self::Replace { regex, content } => {
                text.replace(Search { regex, invert: false, stop, makes: Some((content.len(), most)) }, content)
            }
            Self::All(steps) => steps.iter().try_for_each(|step| step.run(text, most, stop)),
        }
    }
}

/// The normalizer of a piece, over its parts between added tokens.
struct Normalizing<'n> {
    first: &'n Step,
    /// What the piece begins with: what follows a control token is a beginning of its own.
    later: &'n Step,
    begun: AtomicBool,
    /// Bytes that may still come of the piece.
    left: AtomicUsize,
    /// Whether to give up.
    stop: &'n (dyn Fn() -> bool + Sync),
    /// What a part failed with, which the library's own loop passes over.
    failed: Mutex<Option<tokenizers::Error>>,
}

impl Normalizing<'_> {
    fn part(&self, text: &mut NormalizedString) -> tokenizers::Result<()> {
        let step = if self.begun.swap(true, Ordering::Relaxed) { self.first } else { self.later };
        let left = self.left.load(Ordering::Relaxed);
        step.run(text, left, self.stop)?;
        self.left.store(left - text.get().len(), Ordering::Relaxed);
        Ok(())
    }
}

impl Normalizer for Normalizing<'_> {
    fn normalize(&self, text: &mut NormalizedString) -> tokenizers::Result<()> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.is_none() {
            *failed = self.part(text).err();
        }
        Ok(())
    }
}

/// A text cut at its added tokens, and the rest of it normalized: `later` is for what the text begins with.
pub(super) fn normalized(
    added: &AddedVocabulary,
    text: &str,
    first: &Step,
    later: &Step,
    stop: &(dyn Fn() -> bool + Sync),
) -> tokenizers::Result<PreTokenizedString> {
    let left = AtomicUsize::new(MOST_TIMES.saturating_mul(text.len()).saturating_add(MOST_MORE));
    let normalizing = Normalizing { first, later, begun: AtomicBool::new(false), left, stop, failed: Mutex::default() };
    // Some tokens are looked for in the normalized text, by the library alone.
    if added.get_added_tokens_decoder().values().any(|token| token.normalized) {
        let pieces = added.extract_and_normalize(Some(&normalizing), text);
        let failed = normalizing.failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        return failed.map_or(Ok(pieces), Err);
    }
    let mut pieces = added.extract_and_normalize(None::<&NormalizerWrapper>, text);
    pieces.normalize(|part| normalizing.part(part))?;
    Ok(pieces)
}

/// What cuts a text into words, as it is run here.
#[derive(Debug)]
pub(super) enum Cut {
    Whole(PreTokenizerWrapper),
    Split { regex: Regex, invert: bool, behavior: SplitDelimiterBehavior },
    All(Vec<Self>),
}

impl Cut {
    pub(super) fn of(cut: &PreTokenizerWrapper) -> Result<Self, EngineError> {
        match cut {
            PreTokenizerWrapper::Sequence(all) => {
                all.as_ref().iter().map(Self::of).collect::<Result<_, _>>().map(Self::All)
            }
            PreTokenizerWrapper::Split(split) => {
                let regex = match &split.pattern {
                    SplitPattern::String(text) => compiled(&fancy_regex::escape(text))?,
                    SplitPattern::Regex(pattern) => compiled(pattern)?,
                };
                Ok(Self::Split { regex, invert: split.invert, behavior: split.behavior })
            }
            _ => Ok(Self::Whole(cut.clone())),
        }
    }

    pub(super) fn run(
        &self,
        pieces: &mut PreTokenizedString,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> tokenizers::Result<()> {
        match self {
            Self::Whole(cut) => cut.pre_tokenize(pieces),
            Self::Split { regex, invert, behavior } => {
                pieces.split(|_, text| text.split(Search { regex, invert: *invert, stop, makes: None }, *behavior))
            }
            Self::All(all) => all.iter().try_for_each(|cut| cut.run(pieces, stop)),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokenizers::Offsets;

    use super::*;

    const BEHAVIOURS: [&str; 5] = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"];

    fn split(pattern: &str, behaviour: &str, invert: bool) -> PreTokenizerWrapper {
        let split = serde_json::json!({
            "type": "Split", "pattern": { "Regex": pattern }, "behavior": behaviour, "invert": invert,
        });
        let spaces = serde_json::json!({ "type": "WhitespaceSplit" });
        let all = serde_json::json!({ "type": "Sequence", "pretokenizers": [split, spaces] });
        serde_json::from_value(all).unwrap()
    }

    fn words(pieces: &PreTokenizedString) -> Vec<(String, Offsets)> {
        let splits = pieces.get_splits(tokenizers::OffsetReferential::Original, tokenizers::OffsetType::Byte);
        splits.into_iter().map(|(word, offsets, _)| (word.to_owned(), offsets)).collect()
    }

    #[test]
    fn texts_are_cut_as_the_library_cuts_them() {
        for pattern in [r"\d+", r"a|b", r"\s+(?!\S)|\s+", r"x*", "é"] {
            for (behaviour, invert) in BEHAVIOURS.iter().flat_map(|behaviour| [(behaviour, false), (behaviour, true)]) {
                let cut = split(pattern, behaviour, invert);
                for text in ["", " ", "a", "12 ab  12é", "xxaxx b", "no match", "ééa1"] {
                    let (mut ours, mut theirs) = (PreTokenizedString::from(text), PreTokenizedString::from(text));
                    Cut::of(&cut).unwrap().run(&mut ours, &|| false).unwrap();
                    cut.pre_tokenize(&mut theirs).unwrap();
                    assert_eq!(words(&ours), words(&theirs), "{pattern} {behaviour} {invert} {text:?}");
                }
            }
        }
    }

    fn replace(pattern: &str) -> NormalizerWrapper {
        let step = |pattern| serde_json::json!({ "type": "Replace", "pattern": pattern, "content": "_é" });
        let steps = [step(serde_json::json!({ "Regex": pattern })), step(serde_json::json!({ "String": "no" }))];
        let all = serde_json::json!({ "type": "Sequence", "normalizers": steps });
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn texts_are_replaced_as_the_library_replaces() {
        for pattern in [r"\d+", "a|b", r"\s{2,}", "é"] {
            let normalizer = replace(pattern);
            for text in ["", " ", "a", "12 ab  12é", "xxaxx b", "no match", "ééa1"] {
                let (mut ours, mut theirs) = (NormalizedString::from(text), NormalizedString::from(text));
                Step::of(&normalizer).unwrap().run(&mut ours, 100, &|| false).unwrap();
                normalizer.normalize(&mut theirs).unwrap();
                assert_eq!(ours, theirs, "{pattern} {text:?}");
            }
        }
    }

    #[test]
    fn a_pattern_can_be_stopped_within_a_text() {
        let cut = split("(?=(?:a|aa|(?!a)b){0,17}c)x|.", "Isolated", false);
        let (asked, text) = (AtomicUsize::new(0), "a".repeat(1000));
        let stop = || asked.fetch_add(1, Ordering::Relaxed) >= 3;
        assert!(Cut::of(&cut).unwrap().run(&mut PreTokenizedString::from(text.as_str()), &stop).is_err());
        assert_eq!(asked.swap(0, Ordering::Relaxed), 4, "once a match, and no more after that");
        let step = Step::of(&replace("(?=(?:a|aa|(?!a)b){0,17}c)x|.")).unwrap();
        assert!(step.run(&mut NormalizedString::from(text.as_str()), 9999, &stop).is_err());
        assert_eq!(asked.swap(0, Ordering::Relaxed), 4, "in a normalizer, too");
        // And where a token is looked for in the normalized text.
        let mut added = AddedVocabulary::new();
        let model = tokenizers::models::bpe::BPE::default();
        let token = tokenizers::AddedToken::from("QQQ", false).normalized(true);
        added.add_tokens([token], &model, None::<&NormalizerWrapper>).unwrap();
        assert!(normalized(&added, &text, &step, &step, &stop).is_err());
        assert_eq!(asked.load(Ordering::Relaxed), 4, "whoever normalizes");
    }

    /// What a normalizer would make too long is refused before it is, in all parts of a text together; and a pattern that
    /// gives up behind a first step is an error, not a text that stays as it is.
    #[test]
    fn normalizers_are_bounded_and_do_not_give_up_in_silence() {
        let step = |normalizer: serde_json::Value| Step::of(&serde_json::from_value(normalizer).unwrap()).unwrap();
        let replace = |pattern: serde_json::Value, content: &str| serde_json::json!({ "type": "Replace", "pattern": pattern, "content": content });
        let grows = step(replace(serde_json::json!({ "String": "a" }), &"c".repeat(64)));
        let prepends = step(serde_json::json!({ "type": "Prepend", "prepend": "c".repeat(256) }));
        let (text, few) = ("a".repeat(100_000), "a".repeat(900));
        for (normalized_tokens, special) in [(false, "n"), (true, "n")] {
            let mut added = AddedVocabulary::new();
            let model = tokenizers::models::bpe::BPE::default();
            let token = tokenizers::AddedToken::from(special, false).normalized(normalized_tokens);
            added.add_tokens([token], &model, None::<&NormalizerWrapper>).unwrap();
            let said =
                |text: &str, step: &Step| normalized(&added, text, step, step, &|| false).err().map(|e| e.to_string());
            assert_eq!(said(&text, &grows).as_deref(), Some(TOO_LONG));
            assert_eq!(said(&few, &grows), None, "a short text may grow more");
            assert_eq!(said(&text, &prepends), None);
            // A token that is looked for in the normalized text does not part it before.
            let parts = "an".repeat(1000);
            assert_eq!(said(&parts, &prepends).is_some(), !normalized_tokens, "it is put in front of every part");
        }
        let gives_up = serde_json::json!({ "Regex": "(?:a(?!q)|aa(?!q))+c" });
        let x = replace(serde_json::json!({ "String": "x" }), "a");
        let behind = step(serde_json::json!({ "type": "Sequence", "normalizers": [x, replace(gives_up, "Z")] }));
        let run =
            |text: String| behind.run(&mut NormalizedString::from(text), 9999, &|| false).map_err(|e| e.to_string());
        assert_eq!(run("xxc".to_owned()), Ok(()));
        assert!(run("x".repeat(60) + " b xxc").is_err_and(|error| error.contains("gives up at this text")));
    }
}
