//! The control tokens' texts: where they are in a text, and how they are kept from being taken for tokens.

use std::borrow::Cow;
use std::collections::HashMap;

/// Breaks what reads like a control token and is none. One of the characters that Unicode keeps free for a program's own
/// use; wherever else it comes up it becomes U+FFFD, as Unicode allows.
pub(crate) const BREAK: char = '\u{FDD0}';
/// Stands for a control token of the template while the text around it is encoded.
pub(super) const HOLE: char = '\u{FDD1}';
/// What both become where they come from outside.
const NEITHER: &str = "\u{FFFD}";

/// A control token.
#[derive(Debug, Clone, Copy)]
struct Control {
    id: u32,
    /// Whether it takes the white space before and behind it.
    strips: [bool; 2],
}

/// All control tokens of a vocabulary.
#[derive(Debug, Default)]
pub(super) struct Controls {
    by_text: HashMap<String, Control>,
    /// All texts, ascending, to find what begins like one.
    sorted: Vec<String>,
    /// How long they are in bytes, longest first, by their first byte.
    lengths: HashMap<u8, Vec<usize>>,
}

impl Controls {
    /// Of the special ones among a tokenizer's added tokens.
    pub(super) fn of(tokenizer: &tokenizers::Tokenizer) -> Self {
        let mut controls = Self::default();
        for (id, token) in tokenizer.get_added_tokens_decoder() {
            if let (true, Some(&first)) = (token.special, token.content.as_bytes().first()) {
                let control = Control { id, strips: [token.lstrip, token.rstrip] };
                controls.sorted.push(token.content.clone());
                controls.lengths.entry(first).or_default().push(token.content.len());
                controls.by_text.insert(token.content, control);
            }
        }
        controls.sorted.sort_unstable();
        for lengths in controls.lengths.values_mut() {
            lengths.sort_unstable_by(|a, b| b.cmp(a));
            lengths.dedup();
        }
        controls
    }

    /// The longest one that `text` begins with.
    fn at(&self, text: &str) -> Option<(&str, Control)> {
        let lengths = self.lengths.get(text.as_bytes().first()?)?;
        let mut begins = lengths.iter().filter_map(|len| text.get(..*len));
        begins.find_map(|begin| self.by_text.get_key_value(begin).map(|(text, control)| (text.as_str(), *control)))
    }

    /// Whether there is one in `text`, or a character that is not for texts.
    pub(super) fn touch(&self, text: &str) -> bool {
        text.char_indices().any(|(at, letter)| {
            matches!(letter, BREAK | HOLE) || text.get(at..).is_some_and(|rest| self.at(rest).is_some())
        })
    }

    /// Whether some control token begins with `tail` and is longer.
    fn continues(&self, tail: &str) -> bool {
        let next = self.sorted.partition_point(|text| text.as_str() <= tail);
        self.sorted.get(next).is_some_and(|text| text.starts_with(tail))
    }

    /// `text` with a mark in each place that reads like a control token, and behind what could become one together with
    /// what is written after it.
    pub(super) fn broken<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let end = text.trim_end().len();
        let longest = self.sorted.iter().map(String::len).max().unwrap_or(0);
        // One letter alone is no beginning of a turn that anybody would write the rest of.
        let tails = (2..=longest.min(end)).filter_map(|len| text.get(end - len..end));
        let open = tails.into_iter().any(|tail| self.continues(tail));
        if !open && !self.touch(text) {
            return Cow::Borrowed(text);
        }
        let mut out = String::with_capacity(text.len() + 16);
        for (at, letter) in text.char_indices() {
            if open && at == end {
                out.push(BREAK);
            }
            if matches!(letter, BREAK | HOLE) {
                out.push_str(NEITHER);
                continue;
            }
            out.push(letter);
            if text.get(at..).is_some_and(|rest| self.at(rest).is_some()) {
                out.push(BREAK);
            }
        }
        if open && end == text.len() {
            out.push(BREAK);
        }
        Cow::Owned(out)
    }

    /// A text with marks, without them and with stand-ins for the control tokens that the marks do not break; and these
    /// tokens in order.
    pub(super) fn holed(&self, text: &str) -> (String, Vec<u32>) {
        let (mut out, mut ids) = (String::with_capacity(text.len()), Vec::new());
        let mut rest = text;
        while let Some(letter) = rest.chars().next() {
            if let Some((found, control)) = self.at(rest) {
                if control.strips[0] {
                    out.truncate(out.trim_end().len());
                }
                out.push(HOLE);
                ids.push(control.id);
                rest = rest.get(found.len()..).unwrap_or_default();
                if control.strips[1] {
                    rest = rest.trim_start();
                }
                continue;
            }
            match letter {
                BREAK => {}
                HOLE => out.push_str(NEITHER),
                letter => out.push(letter),
            }
            rest = rest.get(letter.len_utf8()..).unwrap_or_default();
        }
        (out, ids)
    }

    /// The text without the characters that mean something here.
    pub(super) fn plain(text: &str) -> String {
        text.replace([BREAK, HOLE], NEITHER)
    }
}
