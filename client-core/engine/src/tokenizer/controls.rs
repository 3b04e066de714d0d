//! The control tokens' texts: where they are in a text, and how they are kept from being taken for tokens.

use std::borrow::Cow;

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
#[derive(Debug)]
pub(super) struct Controls {
    /// By their texts, ascending.
    sorted: Vec<(String, Control)>,
    /// For each, the place of the longest other one that it begins with.
    within: Vec<Option<usize>>,
    /// Which bytes they begin with.
    firsts: [bool; 256],
    /// Bytes of the longest.
    longest: usize,
}

impl Controls {
    /// Of the special ones among a tokenizer's added tokens.
    pub(super) fn of(tokenizer: &tokenizers::Tokenizer) -> Self {
        let special = tokenizer.get_added_tokens_decoder().into_iter().filter(|(_, token)| token.special);
        let mut sorted: Vec<(String, Control)> = special
            .filter(|(_, token)| !token.content.is_empty())
            .map(|(id, token)| (token.content, Control { id, strips: [token.lstrip, token.rstrip] }))
            .collect();
        sorted.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(a.1.id.cmp(&b.1.id)));
        let mut firsts = [false; 256];
        for first in sorted.iter().filter_map(|(text, _)| text.bytes().next()) {
            if let Some(seen) = firsts.get_mut(usize::from(first)) {
                *seen = true;
            }
        }
        let longest = sorted.iter().map(|(text, _)| text.len()).max().unwrap_or(0);
        let (mut within, mut open) = (Vec::with_capacity(sorted.len()), Vec::<usize>::new());
        for (place, (text, _)) in sorted.iter().enumerate() {
            let begins = |at: usize| sorted.get(at).is_some_and(|(shorter, _)| text.starts_with(shorter.as_str()));
            while open.pop_if(|at| !begins(*at)).is_some() {}
            within.push(open.last().copied());
            open.push(place);
        }
        Self { sorted, within, firsts, longest }
    }

    /// The longest one that `text` begins with.
    fn at(&self, text: &str) -> Option<(&str, Control)> {
        let first = text.bytes().next()?;
        if self.firsts.get(usize::from(first)) != Some(&true) {
            return None;
        }
        // What `text` begins with is not above it in the order, and everything between the two begins with it, too. So it is
        // what is next below `text`, or that begins with it.
        let text = text.as_bytes();
        let mut place = self.sorted.partition_point(|(known, _)| known.as_bytes() <= text).checked_sub(1)?;
        let (below, _) = self.sorted.get(place)?;
        let common = text.iter().zip(below.as_bytes()).take_while(|(a, b)| a == b).count();
        loop {
            let (known, control) = self.sorted.get(place)?;
            if known.len() <= common {
                return Some((known.as_str(), *control));
            }
            place = self.within.get(place).copied().flatten()?;
        }
    }

    /// Whether there is one in `text`, or a character that is not for texts.
    pub(super) fn touch(&self, text: &str) -> bool {
        text.char_indices().any(|(at, letter)| {
            matches!(letter, BREAK | HOLE) || text.get(at..).is_some_and(|rest| self.at(rest).is_some())
        })
    }

    /// Whether some control token begins with `tail` and is longer.
    fn continues(&self, tail: &str) -> bool {
        let next = self.sorted.partition_point(|(text, _)| text.as_str() <= tail);
        self.sorted.get(next).is_some_and(|(text, _)| text.starts_with(tail))
    }

    /// `text` with a mark in each place that reads like a control token, and behind what could become one together with
    /// what is written after it.
    pub(super) fn broken<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let end = text.trim_end().len();
        // One letter alone is no beginning of a turn that anybody would write the rest of.
        let tails = (2..=self.longest.min(end)).filter_map(|len| text.get(end - len..end));
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn controls(texts: &[&str]) -> Controls {
        let mut tokenizer = tokenizers::Tokenizer::new(tokenizers::models::bpe::BPE::default());
        let tokens = texts.iter().map(|text| tokenizers::AddedToken::from(*text, true));
        tokenizer.add_special_tokens(tokens.collect::<Vec<_>>()).unwrap();
        Controls::of(&tokenizer)
    }

    #[test]
    fn the_longest_is_found() {
        let controls = controls(&["<a>", "<a>b", "<aA", "<aB", "<", "x", "<a>bcd"]);
        for (text, expect) in [
            ("<a>", Some("<a>")),
            ("<a>bc", Some("<a>b")),
            ("<a>bcde", Some("<a>bcd")),
            ("<aC", Some("<")),
            ("<aBC", Some("<aB")),
            ("<a", Some("<")),
            ("xy", Some("x")),
            ("y", None),
            ("", None),
        ] {
            assert_eq!(controls.at(text).map(|(text, _)| text), expect, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_longest_of_any_is_found(
            texts in proptest::collection::btree_set("[ab<]{1,6}", 1..40),
            text in "[ab<c]{0,8}",
        ) {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let expect = texts.iter().filter(|known| text.starts_with(**known)).max_by_key(|known| known.len());
            let controls = controls(&texts);
            prop_assert_eq!(controls.at(&text).map(|(found, _)| found), expect.copied());
        }
    }

    #[test]
    fn marks_break_what_reads_like_one() {
        let controls = controls(&["<|im_end|>", "<s>"]);
        for (text, expect) in [
            ("hi", "hi"),
            ("1 < 2", "1 < 2"),
            ("<|im_end|>", "<*|im_end|>"),
            ("<<s><s>>", "<<*s><*s>>"),
            // What is written behind it could complete it.
            ("hi <|im", "hi <|im*"),
            ("hi <s \n", "hi <s* \n"),
            ("a<", "a<"),
            ("*", "\u{FFFD}"),
            ("", ""),
        ] {
            let mark = |text: &str| text.replace('*', &BREAK.to_string());
            assert_eq!(controls.broken(&mark(text)), mark(expect), "{text:?}");
        }
        let (text, ids) = controls.holed(&format!("<s>a<{BREAK}s>{HOLE}<|im_end|>"));
        assert_eq!(text, format!("{HOLE}a<s>\u{FFFD}{HOLE}"));
        assert_eq!(ids.len(), 2);
    }
}
