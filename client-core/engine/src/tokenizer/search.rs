//! The search for a pattern in a text, as the `tokenizers` library's, but that it can be stopped, is bounded, and fails where a
//! pattern gives up.

use fancy_regex::Regex;
use tokenizers::Offsets;
use tokenizers::tokenizer::pattern::Pattern;

use crate::error::EngineError;

/// What is said of a text that a normalizer makes too long.
pub(super) const TOO_LONG: &str = "the tokenizer's normalizer makes this text more than four times as long";

pub(super) fn compiled(pattern: &str) -> Result<Regex, EngineError> {
    Regex::new(pattern).map_err(|error| EngineError::Tokenizer(format!("{pattern:?}: {error}")))
}

/// The search for a pattern, as the library's, but that it can be stopped (a pattern may take milliseconds for each letter), and
/// that a pattern which gives up is an error.
pub(super) struct Search<'a> {
    pub regex: &'a Regex,
    /// Whether what lies between matches is taken for them.
    pub invert: bool,
    /// Whether to give up.
    pub stop: &'a (dyn Fn() -> bool + Sync),
    /// Bytes that each match becomes, and the most that may come of the text.
    pub makes: Option<(usize, usize)>,
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
    stop: &'a (dyn Fn() -> bool + Sync),
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

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
        let (asked, regex) = (AtomicUsize::new(0), compiled("a(?=[^z]*z)(?!q)a").unwrap());
        let stop = || asked.fetch_add(1, Ordering::Relaxed) >= 1;
        let text = "a".repeat(WINDOW + 100);
        let mut matches = Matches { regex: &regex, text: &text, at: WINDOW - 2000, last: None, stop: &stop };
        assert!(matches.next().is_ok_and(|found| found.is_none()), "two thousand bytes to the end");
        let mut matches = Matches { regex: &regex, text: &text, at: 0, last: None, stop: &|| true };
        assert!(matches.next().is_err());
    }
}
