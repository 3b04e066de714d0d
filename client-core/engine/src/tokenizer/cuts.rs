//! Where a long text may be cut into pieces that are encoded one after the other: whoever waits for the tokens can leave
//! between two of them, and only one piece is taken apart at a time.
//!
//! The tokens are those of the whole text. So a text is cut only where all that looks at it is known to end:
//!
//! - With the patterns of known schemes: behind what is no white space and before a space, and where letters end before a
//!   sign, a digit or a new line, or numbers before a letter or a sign. Of each pattern every alternative has been gone
//!   through: none goes on over such a place, none looks back, and only white space looks ahead.
//! - Without a pattern, as SentencePiece's BPE: between two letters that are tokens by themselves and stand beside each other
//!   in no token, so that no merge could ever reach over.
//! - With other things that cut at spaces: behind a letter, a digit or a sign and before a space.
//!
//! And never where a token that is looked for in the text itself could lie, or end, or begin. What is not known to be so is
//! not cut at all.

use std::collections::HashSet;

use serde_json::Value;

use super::controls::HOLE;
use super::schemes;

/// Bytes of a piece, about.
pub(super) const PIECE: usize = 32 << 10;
/// Longest stretch without a place to cut, bytes: what cannot be cut cannot be stopped.
pub(super) const LONGEST: usize = 256 << 10;
/// SentencePiece's sign for a space.
const SPACE: char = '\u{2581}';

/// Where a tokenizer's texts may be cut; see the module.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Rule {
    /// Nowhere: its parts are not known.
    #[default]
    Nowhere,
    /// As known patterns do.
    Words,
    /// Between letters that no token holds together.
    Pairs {
        /// Whether spaces become SentencePiece's sign first.
        sign: bool,
        /// Only before a space: elsewhere one would be put in front of the piece.
        at_spaces: bool,
    },
    /// Before spaces.
    Spaces,
}

/// The steps of a part of `tokenizer.json`, those of sequences one after the other.
fn steps<'v>(part: Option<&'v Value>, inner: &str, into: &mut Vec<&'v Value>) {
    let Some(part) = part.filter(|part| !part.is_null()) else { return };
    match part.get(inner).and_then(Value::as_array) {
        // Their depth and number have been looked at.
        Some(list) => list.iter().for_each(|step| steps(Some(step), inner, into)),
        None => into.push(part),
    }
}

fn kind(step: &Value) -> &str {
    step.get("type").and_then(Value::as_str).unwrap_or_default()
}

fn flag(step: &Value, key: &str, usual: bool) -> bool {
    step.get(key).and_then(Value::as_bool).unwrap_or(usual)
}

fn is(step: &Value, path: &str, text: &str) -> bool {
    step.pointer(path).and_then(Value::as_str) == Some(text)
}

/// Whether a step makes SentencePiece's sign of each space and does nothing else.
fn writes_sign(step: &Value) -> bool {
    kind(step) == "Replace" && is(step, "/pattern/String", " ") && is(step, "/content", "\u{2581}")
}

/// Whether a step puts that sign in front of a text.
fn prepends_sign(step: &Value) -> bool {
    kind(step) == "Prepend" && is(step, "/prepend", "\u{2581}")
}

/// Whether a step changes nothing at a letter that is followed by a space, and neither becomes anything else together with
/// the other.
fn minds_its_letter(step: &Value) -> bool {
    match kind(step) {
        "NFC" | "NFD" | "NFKC" | "NFKD" | "Lowercase" | "StripAccents" | "Nmt" | "Bert" | "BertNormalizer"
        | "Precompiled" => true,
        "Strip" => !flag(step, "strip_left", true),
        "Replace" => writes_sign(step) || is(step, "/pattern/Regex", " {2,}"),
        _ => false,
    }
}

/// Whether a step cuts by a pattern that is known, in the way in which that pattern is meant.
fn cuts_by_known(step: &Value, known: fn(&str) -> bool) -> bool {
    kind(step) == "Split"
        && step.pointer("/pattern/Regex").and_then(Value::as_str).is_some_and(known)
        && is(step, "/behavior", "Isolated")
        && !flag(step, "invert", false)
}

impl Rule {
    /// The rule for parts of `tokenizer.json`. `merges` says whether its model is a BPE of which merges alone decide what a
    /// word becomes: without a prefix, a suffix and words that are taken whole.
    pub(super) fn of(normalizer: Option<&Value>, pre_tokenizer: Option<&Value>, merges: bool) -> Self {
        let (mut before, mut cuts) = (Vec::new(), Vec::new());
        steps(normalizer, "normalizers", &mut before);
        steps(pre_tokenizer, "pretokenizers", &mut cuts);
        if before.iter().all(|step| kind(step) == "NFC") && Self::is_words(&cuts) {
            return Self::Words;
        }
        if merges && let Some(rule) = Self::pairs(&before, &cuts) {
            return rule;
        }
        let cuts_at_spaces = |step: &&Value| match kind(step) {
            "BertPreTokenizer" | "Whitespace" | "WhitespaceSplit" => true,
            "Metaspace" => flag(step, "split", true),
            "ByteLevel" => flag(step, "use_regex", true),
            _ => cuts_by_known(step, schemes::is_whole),
        };
        let is_harmless = |step: &&Value| {
            cuts_at_spaces(step)
                || matches!(kind(step), "Punctuation" | "Digits" | "ByteLevel")
                || cuts_by_known(step, schemes::is_known)
        };
        let are_known = before.iter().all(|step| minds_its_letter(step)) && cuts.iter().all(is_harmless);
        // What comes behind a step that takes spaces out or writes them otherwise sees none.
        if are_known && cuts.first().is_some_and(cuts_at_spaces) { Self::Spaces } else { Self::Nowhere }
    }

    fn is_words(cuts: &[&Value]) -> bool {
        let is_known = |step: &&Value| match kind(step) {
            "ByteLevel" => !flag(step, "add_prefix_space", true),
            "Digits" => true,
            "Punctuation" => ["Contiguous", "Isolated"].iter().any(|way| is(step, "/behavior", way)),
            _ => cuts_by_known(step, schemes::is_known),
        };
        // Behind it, bytes are written as other letters.
        let bytes = cuts.iter().position(|step| kind(step) == "ByteLevel").unwrap_or(cuts.len());
        let is_whole = |(at, step): (usize, &&Value)| {
            (at == bytes && flag(step, "use_regex", true)) || (at < bytes && cuts_by_known(step, schemes::is_whole))
        };
        cuts.iter().all(is_known) && cuts.iter().enumerate().any(is_whole)
    }

    /// As the files of Llama 2, Mistral and Gemma have it.
    fn pairs(before: &[&Value], cuts: &[&Value]) -> Option<Self> {
        let sign = before.iter().any(|step| writes_sign(step));
        if !before.iter().all(|step| writes_sign(step) || prepends_sign(step)) {
            return None;
        }
        match cuts {
            [] => Some(Self::Pairs { sign, at_spaces: false }),
            // There is none left to cut at.
            [step] if kind(step) == "Split" && is(step, "/pattern/String", " ") && sign => {
                Some(Self::Pairs { sign, at_spaces: false })
            }
            [step] if kind(step) == "Metaspace" && is(step, "/replacement", "\u{2581}") && before.is_empty() => {
                Some(Self::Pairs { sign: true, at_spaces: true })
            }
            _ => None,
        }
    }
}

/// What no cut may part.
#[derive(Debug, Default)]
pub(super) struct Bonds {
    /// Two letters that are beside each other in a token.
    pairs: HashSet<(char, char)>,
    /// What tokens that are looked for in the text begin with, and what they end with.
    firsts: HashSet<char>,
    lasts: HashSet<char>,
    /// Letters that are tokens.
    alone: HashSet<char>,
}

impl Bonds {
    /// Of a tokenizer whose texts are cut by `rule`.
    pub(super) fn of(tokenizer: &tokenizers::Tokenizer, rule: Rule) -> Self {
        let mut this = Self::default();
        this.look_for(&HOLE.to_string());
        for token in tokenizer.get_added_tokens_decoder().into_values() {
            this.look_for(&token.content);
            this.look_for(&token.content.replace(' ', "\u{2581}"));
        }
        if matches!(rule, Rule::Pairs { .. }) {
            for token in tokenizer.get_vocab(false).into_keys() {
                let mut letters = token.chars();
                if let (Some(letter), None) = (letters.next(), letters.next()) {
                    this.alone.insert(letter);
                }
                this.pairs.extend(token.chars().zip(token.chars().skip(1)));
            }
        }
        this
    }

    fn look_for(&mut self, text: &str) {
        self.firsts.extend(text.chars().next());
        self.lasts.extend(text.chars().next_back());
        self.pairs.extend(text.chars().zip(text.chars().skip(1)));
    }

    fn part(&self, a: char, b: char) -> bool {
        !self.lasts.contains(&a) && !self.firsts.contains(&b) && !self.pairs.contains(&(a, b))
    }
}

/// Letters that stay one letter however Unicode writes them, for certain: Latin, Cyrillic, kana, Chinese and Korean ones.
fn is_letter(letter: char) -> bool {
    matches!(letter, 'a'..='z' | 'A'..='Z' | '\u{C0}'..='\u{D6}' | '\u{D8}'..='\u{F6}' | '\u{F8}'..='\u{24F}'
        | '\u{400}'..='\u{481}' | '\u{48A}'..='\u{4FF}' | '\u{3041}'..='\u{3096}' | '\u{30A1}'..='\u{30FA}'
        | '\u{4E00}'..='\u{9FFF}' | '\u{AC00}'..='\u{D7A3}')
}

/// Signs that are nothing else, for certain.
fn is_sign(letter: char) -> bool {
    letter.is_ascii_punctuation()
        || matches!(letter, '\u{2010}'..='\u{2027}' | '\u{3001}'..='\u{3003}' | '\u{3008}'..='\u{3011}'
            | '\u{FF01}'..='\u{FF0F}' | '\u{FF1A}'..='\u{FF20}')
}

fn is_plain(letter: char) -> bool {
    is_letter(letter) || letter.is_ascii_digit() || is_sign(letter)
}

/// Whether known patterns end between `a` and `b`, with `before` in front of them.
fn ends_word(before: char, a: char, b: char) -> bool {
    let is_line = matches!(b, '\n' | '\r');
    if matches!(b, ' ' | '\t') {
        !a.is_whitespace()
    } else if is_letter(a) {
        is_sign(b) || b.is_ascii_digit() || is_line
    } else if a.is_ascii_digit() {
        is_letter(b) || is_sign(b) || is_line
    } else {
        // A pattern takes new lines with the sign before them, and one of them a slash.
        a == '\n' && is_plain(before) && is_plain(b) && b != '/'
    }
}

impl Rule {
    fn parts(self, bonds: &Bonds, before: char, a: char, b: char) -> bool {
        match self {
            Self::Nowhere => false,
            Self::Words => ends_word(before, a, b) && bonds.part(a, b),
            Self::Spaces => is_plain(a) && b == ' ' && bonds.part(a, b),
            Self::Pairs { sign, at_spaces } => {
                let written = |letter: char| if sign && letter == ' ' { SPACE } else { letter };
                let (first, second) = (written(a), written(b));
                (b == ' ' || !at_spaces)
                    && bonds.alone.contains(&first)
                    && bonds.alone.contains(&second)
                    && bonds.part(first, second)
                    && bonds.part(a, b)
            }
        }
    }

    /// How many bytes of `text` the first piece has; all of them where they are not many more than `piece`, and `None` where
    /// the stretch behind them has no place to cut.
    pub(super) fn cut(self, bonds: &Bonds, text: &str, piece: usize) -> Option<usize> {
        if text.len() <= piece || self == Self::Nowhere {
            return Some(text.len());
        }
        let begin = text.floor_char_boundary(piece);
        let end = text.floor_char_boundary(begin.saturating_add(LONGEST));
        let mut before = text.get(..begin).and_then(|head| head.chars().next_back()).unwrap_or('\n');
        let mut letters = text.get(begin..end).unwrap_or_default().char_indices().peekable();
        while let Some((_, a)) = letters.next() {
            let Some((at, b)) = letters.peek().copied() else { break };
            if self.parts(bonds, before, a, b) {
                return Some(begin + at);
            }
            before = a;
        }
        (end == text.len()).then_some(end)
    }
}
