//! The only calls of the `tokenizers` library that see outside data: what it panics at becomes an error, and a text at which
//! its regular expressions would give up is refused.
//!
//! fancy-regex counts the steps that it takes back and gives up after a million; the library then takes all that is left of
//! the text as one piece and says nothing. So patterns are searched for here ([`Search`]), and one that gives up is an error.
//! With the patterns of known schemes only a run of white space takes so many steps, and is refused before.
//!
//! In wasm32 nothing unwinds. There the checks of `json.rs` have to hold alone.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use fancy_regex::Regex;
use tokenizers::normalizer::{Range, SplitDelimiterBehavior};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::split::SplitPattern;
use tokenizers::tokenizer::pattern::Pattern;
use tokenizers::{
    AddedVocabulary, Model as _, NormalizedString, Normalizer, NormalizerWrapper, OffsetType, Offsets,
    PreTokenizedString, PreTokenizer as _,
};

use super::cuts::{self, Bonds, Rule};
use crate::error::EngineError;

/// Longest run of white space that known patterns are given.
const MAX_RUN: usize = 250_000;
/// Longest text, bytes.
const MAX_TEXT: usize = 64 << 20;
/// How many times as long as a piece of a text a normalizer may make it, and how many bytes more. Those in use triple it at most
/// (a space that becomes `▁`); each byte takes a hundred and more until it is a token.
const MOST_TIMES: usize = 4;
const MOST_MORE: usize = 64 << 10;
const TOO_LONG: &str = "the tokenizer's normalizer makes this text more than four times as long";
/// Words between two questions whether anybody waits, where a text is not cut into pieces.
const WORDS: usize = 64;

/// How an error begins that was a panic.
const FAILED: &str = "the tokenizers library has failed ";

/// Whether `error` was a panic.
pub(super) fn is_panic(error: &EngineError) -> bool {
    matches!(error, EngineError::Tokenizer(problem) if problem.starts_with(FAILED))
}

/// What the library does in `work`, with a panic as an error.
pub(super) fn guarded<T>(what: &str, work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, EngineError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| EngineError::Tokenizer(error.to_string())),
        Err(_) => Err(EngineError::Tokenizer(format!("{FAILED}{what}; the tokenizer's file is probably damaged"))),
    }
}

/// How a tokenizer cuts texts: into pieces here, and into words by its regular expressions.
#[derive(Debug, Default)]
pub(super) struct Cutting {
    /// Whether there are regular expressions at all.
    pub any: bool,
    /// Where long texts may be cut.
    pub rule: Rule,
    /// What a text is made into before it is cut.
    first: Option<Step>,
    /// What cuts it into words.
    cut: Option<Cut>,
    /// The same of a piece that is not the first, where the tokenizer puts something in front of a text: without that.
    later: Option<Step>,
    /// Made when a long text first comes.
    bonds: OnceLock<Bonds>,
}

impl Cutting {
    /// With the patterns of a known scheme, or none.
    pub(super) fn known(any: bool, rule: Rule) -> Self {
        Self { any, rule, ..Self::default() }
    }

    /// Has pieces that go on after another made into what `normalizer` makes of them.
    ///
    /// # Errors
    /// A pattern is no regular expression.
    pub(super) fn go_on_with(&mut self, normalizer: &NormalizerWrapper) -> Result<(), EngineError> {
        self.later = Some(Step::of(normalizer)?);
        Ok(())
    }

    /// Takes over how `tokenizer` normalizes and cuts.
    ///
    /// # Errors
    /// A pattern is no regular expression.
    pub(super) fn follow(&mut self, tokenizer: &tokenizers::Tokenizer) -> Result<(), EngineError> {
        self.first = tokenizer.get_normalizer().map(Step::of).transpose()?;
        self.cut = tokenizer.get_pre_tokenizer().map(Cut::of).transpose()?;
        Ok(())
    }

    /// Notes that a pattern cuts texts.
    ///
    /// # Errors
    /// It is no regular expression.
    pub(super) fn add(&mut self, pattern: &str) -> Result<(), EngineError> {
        self.any = true;
        compiled(pattern).map(drop)
    }

    /// Refuses a text that would be cut wrong.
    fn check(&self, text: &str) -> Result<(), EngineError> {
        if text.len() > MAX_TEXT {
            return Err(EngineError::Tokenizer(format!("the text has more than {} MiB", MAX_TEXT >> 20)));
        }
        if self.any && text.len() > MAX_RUN {
            let mut run = 0;
            for letter in text.chars() {
                run = if letter.is_whitespace() { run + 1 } else { 0 };
                if run > MAX_RUN {
                    return Err(EngineError::Tokenizer(format!(
                        "the text has a run of more than {MAX_RUN} spaces or new lines; leave some of them out"
                    )));
                }
            }
        }
        Ok(())
    }

    /// The first piece of a text, and the rest.
    fn piece<'t>(
        &self,
        tokenizer: &tokenizers::Tokenizer,
        text: &'t str,
        bytes: usize,
    ) -> Result<(&'t str, &'t str), EngineError> {
        if text.len() <= bytes || self.rule == Rule::Nowhere {
            return Ok((text, ""));
        }
        let bonds = self.bonds.get_or_init(|| Bonds::of(tokenizer, self.rule));
        self.rule.cut(bonds, text, bytes).and_then(|at| text.split_at_checked(at)).ok_or_else(|| {
            EngineError::Tokenizer(format!(
                "the text has a stretch of more than {} KiB that has no place to cut it, such as a space between two \
                 words; put some into it, or leave it out",
                cuts::LONGEST >> 10
            ))
        })
    }
}

fn compiled(pattern: &str) -> Result<Regex, EngineError> {
    Regex::new(pattern).map_err(|error| EngineError::Tokenizer(format!("{pattern:?}: {error}")))
}

/// A normalizer as it is run here: what replaces can be stopped, and is not run where too much would come of it.
#[derive(Debug)]
enum Step {
    Whole(NormalizerWrapper),
    Replace { regex: Regex, content: String },
    All(Vec<Self>),
}

impl Step {
    fn of(normalizer: &NormalizerWrapper) -> Result<Self, EngineError> {
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
    fn run(&self, text: &mut NormalizedString, most: usize, stop: &dyn Fn() -> bool) -> tokenizers::Result<()> {
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
    /// What a part failed with, which the library's own loop passes over.
    failed: Mutex<Option<tokenizers::Error>>,
}

impl Normalizing<'_> {
    fn part(&self, text: &mut NormalizedString, stop: &dyn Fn() -> bool) -> tokenizers::Result<()> {
        let step = if self.begun.swap(true, Ordering::Relaxed) { self.first } else { self.later };
        let left = self.left.load(Ordering::Relaxed);
        step.run(text, left, stop)?;
        self.left.store(left - text.get().len(), Ordering::Relaxed);
        Ok(())
    }
}

impl Normalizer for Normalizing<'_> {
    fn normalize(&self, text: &mut NormalizedString) -> tokenizers::Result<()> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.is_none() {
            *failed = self.part(text, &|| false).err();
        }
        Ok(())
    }
}

/// A text cut at its added tokens, and the rest of it normalized: `later` is for what the text begins with.
fn normalized(
    added: &AddedVocabulary,
    text: &str,
    first: &Step,
    later: &Step,
    stop: &dyn Fn() -> bool,
) -> tokenizers::Result<PreTokenizedString> {
    let left = AtomicUsize::new(MOST_TIMES.saturating_mul(text.len()).saturating_add(MOST_MORE));
    let normalizing = Normalizing { first, later, begun: AtomicBool::new(false), left, failed: Mutex::default() };
    // Some tokens are looked for in the normalized text, by the library alone, which asks nobody whether to go on.
    if added.get_added_tokens_decoder().values().any(|token| token.normalized) {
        let pieces = added.extract_and_normalize(Some(&normalizing), text);
        let failed = normalizing.failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        return failed.map_or(Ok(pieces), Err);
    }
    let mut pieces = added.extract_and_normalize(None::<&NormalizerWrapper>, text);
    pieces.normalize(|part| normalizing.part(part, stop))?;
    Ok(pieces)
}

/// The search for a pattern, as the library's, but that it can be stopped (a pattern may take milliseconds for each letter), and
/// that a pattern which gives up is an error.
struct Search<'a> {
    regex: &'a Regex,
    invert: bool,
    stop: &'a dyn Fn() -> bool,
    /// Bytes that each match becomes, and the most that may come of the text.
    makes: Option<(usize, usize)>,
}

impl Pattern for Search<'_> {
    fn find_matches(&self, inside: &str) -> tokenizers::Result<Vec<(Offsets, bool)>> {
        let is_match = !self.invert;
        if inside.is_empty() {
            return Ok(vec![((0, 0), !is_match)]);
        }
        let (mut found, mut end, mut made) = (Vec::new(), 0, inside.len());
        let mut matches = Matches { regex: self.regex, text: inside, at: 0, last: None, stop: self.stop };
        while let Some((from, to)) = matches.next()? {
            if let Some((becomes, most)) = self.makes {
                made = made + becomes - (to - from);
                if made > most {
                    return Err(TOO_LONG.into());
                }
            }
            if end != from {
                found.push(((end, from), !is_match));
            }
            found.push(((from, to), is_match));
            end = to;
        }
        if end != inside.len() {
            found.push(((end, inside.len()), !is_match));
        }
        Ok(found)
    }
}

/// Bytes that a pattern is searched for in at once. One that never matches may look at all of them from each of them, for
/// seconds.
const WINDOW: usize = 64 << 10;
/// A match that ends so close to a window's end is looked for again in another: what follows may make it another one.
const MARGIN: usize = 4 << 10;

/// The matches of a pattern, as `Regex::find_iter` has them, found in windows of a text so that they can be stopped. A pattern whose
/// matches need more than [`MARGIN`] bytes behind their beginning to be any may find others in texts longer than a window.
struct Matches<'a> {
    regex: &'a Regex,
    text: &'a str,
    /// Where the next search begins.
    at: usize,
    /// Where the last match ended.
    last: Option<usize>,
    stop: &'a dyn Fn() -> bool,
}

impl Matches<'_> {
    fn next(&mut self) -> tokenizers::Result<Option<Offsets>> {
        let mut size = WINDOW;
        while self.at <= self.text.len() {
            if (self.stop)() {
                return Err("stopped".into());
            }
            let end = self.text.floor_char_boundary(self.at.saturating_add(size));
            let whole = end == self.text.len();
            let window = self.text.get(..end).unwrap_or_default();
            let found = self.regex.find_from_pos(window, self.at);
            let found =
                found.map_err(|error| format!("the tokenizer's regular expression gives up at this text: {error}"))?;
            let safe = self.text.floor_char_boundary(end.saturating_sub(MARGIN));
            let (from, to) = match found {
                Some(found) if whole || found.end() <= safe => (found.start(), found.end()),
                // It begins where the window does: only a larger one has more of it.
                Some(found) if found.start() <= self.at => {
                    size *= 2;
                    continue;
                }
                Some(found) => {
                    self.at = found.start();
                    continue;
                }
                None if whole => return Ok(None),
                None => {
                    self.at = safe;
                    continue;
                }
            };
            if from == to {
                self.at = to + self.text.get(to..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8);
                if self.last == Some(to) {
                    continue;
                }
            } else {
                self.at = to;
            }
            self.last = Some(to);
            return Ok(Some((from, to)));
        }
        Ok(None)
    }
}

/// What cuts a text into words, as it is run here.
#[derive(Debug)]
enum Cut {
    Whole(PreTokenizerWrapper),
    Split { regex: Regex, invert: bool, behavior: SplitDelimiterBehavior },
    All(Vec<Self>),
}

impl Cut {
    fn of(cut: &PreTokenizerWrapper) -> Result<Self, EngineError> {
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

    fn run(&self, pieces: &mut PreTokenizedString, stop: &dyn Fn() -> bool) -> tokenizers::Result<()> {
        match self {
            Self::Whole(cut) => cut.pre_tokenize(pieces),
            Self::Split { regex, invert, behavior } => {
                pieces.split(|_, text| text.split(Search { regex, invert: *invert, stop, makes: None }, *behavior))
            }
            Self::All(all) => all.iter().try_for_each(|cut| cut.run(pieces, stop)),
        }
    }
}

/// The token ids of `text`, without any that the file wants around it. `stop` is asked between pieces and says whether to give
/// up.
///
/// # Errors
/// The library's, the text cannot be cut, it has a letter for which there is no token, or `stop` said so.
pub(super) fn encode(
    tokenizer: &tokenizers::Tokenizer,
    added: &AddedVocabulary,
    cutting: &Cutting,
    text: &str,
    stop: &dyn Fn() -> bool,
) -> Result<Vec<u32>, EngineError> {
    encode_pieces(tokenizer, added, cutting, text, stop, cuts::PIECE)
}

/// As [`encode`], in pieces of about so many bytes.
pub(super) fn encode_pieces(
    tokenizer: &tokenizers::Tokenizer,
    added: &AddedVocabulary,
    cutting: &Cutting,
    text: &str,
    stop: &dyn Fn() -> bool,
    bytes: usize,
) -> Result<Vec<u32>, EngineError> {
    cutting.check(text)?;
    let mut ids = Vec::new();
    let (mut rest, mut later) = (text, false);
    loop {
        if stop() {
            return Err(EngineError::Stopped);
        }
        let (piece, after) = cutting.piece(tokenizer, rest, bytes)?;
        ids.extend(encode_piece(tokenizer, added, cutting, later, piece, stop)?);
        if after.is_empty() {
            return Ok(ids);
        }
        (rest, later) = (after, true);
    }
}

/// The same in one go: the library's own `encode_fast`, with a look at every word.
fn encode_piece(
    tokenizer: &tokenizers::Tokenizer,
    added: &AddedVocabulary,
    cutting: &Cutting,
    goes_on: bool,
    piece: &str,
    stop: &dyn Fn() -> bool,
) -> Result<Vec<u32>, EngineError> {
    let (words, unknown) = (Cell::new(0usize), RefCell::new(None));
    let asked = || {
        let stops = stop();
        if stops {
            *unknown.borrow_mut() = Some(EngineError::Stopped);
        }
        stops
    };
    let made = guarded("at a text", || {
        let mut pieces = match &cutting.first {
            Some(first) => {
                let later = cutting.later.as_ref().filter(|_| goes_on).unwrap_or(first);
                normalized(added, piece, first, later, &asked)?
            }
            None => added.extract_and_normalize(None::<&NormalizerWrapper>, piece),
        };
        if let Some(cut) = &cutting.cut {
            cut.run(&mut pieces, &asked)?;
        }
        let model = tokenizer.get_model();
        pieces.tokenize(|word| {
            words.set(words.get() + 1);
            if words.get().is_multiple_of(WORDS) && asked() {
                return Err("stopped".into());
            }
            let tokens = model.tokenize(word.get())?;
            // What has no token is left out without a word.
            if tokens.last().map_or(0, |token| token.offsets.1) < word.get().len() {
                *unknown.borrow_mut() = Some(no_token(model, word));
                return Err("a letter has no token".into());
            }
            Ok(tokens)
        })?;
        Ok(pieces.into_encoding(None, 0, OffsetType::None)?.get_ids().to_vec())
    });
    match unknown.into_inner() {
        Some(error) => Err(error),
        None => made,
    }
}

/// Says for which letter of `word` there is no token.
fn no_token(model: &tokenizers::ModelWrapper, word: &NormalizedString) -> EngineError {
    let is_lost = |letter: char| model.tokenize(letter.encode_utf8(&mut [0; 4])).is_ok_and(|tokens| tokens.is_empty());
    let lost = word.get().char_indices().find(|(_, letter)| is_lost(*letter));
    // As it was written, where bytes are written as other letters.
    let shown = lost.and_then(|(at, letter)| word.get_range_original(Range::Normalized(at..at + letter.len_utf8())));
    EngineError::Tokenizer(format!(
        "the model's vocabulary has no token for {:?}, and none for what is unknown; leave it out",
        shown.unwrap_or_else(|| word.get_original()).chars().take(8).collect::<String>()
    ))
}

/// The text of `ids`.
///
/// # Errors
/// The library's.
pub(super) fn decode(tokenizer: &tokenizers::Tokenizer, ids: &[u32], skip: bool) -> Result<String, EngineError> {
    guarded("at tokens", || tokenizer.decode(ids, skip))
}

#[cfg(test)]
mod tests {
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
        let (asked, text) = (Cell::new(0), "a".repeat(1000));
        let stop = || {
            asked.set(asked.get() + 1);
            asked.get() > 3
        };
        assert!(Cut::of(&cut).unwrap().run(&mut PreTokenizedString::from(text.as_str()), &stop).is_err());
        assert_eq!(asked.get(), 4, "once a match, and no more after that");
        asked.set(0);
        let step = Step::of(&replace("(?=(?:a|aa|(?!a)b){0,17}c)x|.")).unwrap();
        assert!(step.run(&mut NormalizedString::from(text.as_str()), 9999, &stop).is_err());
        assert_eq!(asked.get(), 4, "in a normalizer, too");
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

    /// Matches of a long text, whose windows end anywhere, are those of the whole; and a pattern that matches nowhere is given up
    /// between two windows.
    #[test]
    fn windows_change_no_match() {
        let words = ["ab", " ", "12", "é", "\n\n", "xx", "z ", "q"];
        let text: String = (0..60_000usize).map(|n| words[(n * 7919 + n / 8 * 31) % 8]).collect();
        let run = format!("{}{}{}", "a".repeat(200_000), text, " ".repeat(70_000));
        for text in [&text, &run] {
            for pattern in [r"\d+", r"\s+(?!\S)|\s+", r"x*", "é", r"\p{L}+", "a+", "nowhere", r"(?<=a)b", "^a|$"] {
                let regex = compiled(pattern).unwrap();
                let whole: Vec<_> = regex.find_iter(text).map(|part| part.unwrap().range()).collect();
                let mut matches = Matches { regex: &regex, text, at: 0, last: None, stop: &|| false };
                let windows: Vec<_> =
                    std::iter::from_fn(|| matches.next().unwrap()).map(|(from, to)| from..to).collect();
                assert_eq!(windows, whole, "{pattern}");
            }
        }
        let (asked, regex) = (Cell::new(0), compiled("a(?=[^z]*z)(?!q)a").unwrap());
        let stop = || {
            asked.set(asked.get() + 1);
            asked.get() > 1
        };
        let text = "a".repeat(WINDOW + 100);
        let mut matches = Matches { regex: &regex, text: &text, at: WINDOW - 2000, last: None, stop: &stop };
        assert!(matches.next().is_ok_and(|found| found.is_none()), "two thousand bytes to the end");
        let mut matches = Matches { regex: &regex, text: &text, at: 0, last: None, stop: &|| true };
        assert!(matches.next().is_err());
    }
}
