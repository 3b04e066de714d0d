//! When an answer counts as right (eq. 23): normalised containment.

use std::borrow::Cow;

use tokenizers::normalizers::NFC;
use tokenizers::{NormalizedString, Normalizer as _};

/// The rule: letters with their accents in one character (NFC); lower case; every character that is neither a letter nor a digit becomes a space; the articles `a`, `an`
/// and `the` are dropped; runs of spaces become one. Accents are kept.
pub fn normalise(text: &str) -> String {
    let spaced: String = composed(text)
        .to_lowercase()
        .chars()
        .filter(|c| !matches!(c, '\'' | '\u{2019}'))
        .map(|c| if c.is_alphanumeric() { c } else { ' ' })
        .collect();
    let words: Vec<&str> = spaced.split_whitespace().filter(|w| !matches!(*w, "a" | "an" | "the")).collect();
    words.join(" ")
}

/// Letters and their accents as one character each, where there is one (NFC).
fn composed(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut composed = NormalizedString::from(text);
    match NFC.normalize(&mut composed) {
        Ok(()) => Cow::Owned(composed.get().to_owned()),
        Err(_) => Cow::Borrowed(text),
    }
}

/// Whether `response` contains every one of `expected`, as whole words after [`normalise`]: the answer is a list.
pub fn is_correct(response: &str, expected: &[String]) -> bool {
    let response = format!(" {} ", normalise(response));
    !expected.is_empty() && expected.iter().all(|e| holds(&response, e))
}

/// Whether `response` contains one of `expected`: they are names of the same thing.
pub fn contains_any(response: &str, expected: &[String]) -> bool {
    let response = format!(" {} ", normalise(response));
    expected.iter().any(|e| holds(&response, e))
}

/// Whether what was normalised, with a space on either side, holds `expected`.
fn holds(spaced: &str, expected: &str) -> bool {
    let expected = normalise(expected);
    !expected.is_empty() && spaced.contains(&format!(" {expected} "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule() {
        for (text, want) in [
            ("The Nile.", "nile"),
            ("  a  Kenyan   shilling!", "kenyan shilling"),
            ("N'Djamena", "ndjamena"),
            ("S\u{e3}o Tom\u{e9}", "s\u{e3}o tom\u{e9}"),
            ("Sa\u{303}o Tome\u{301}", "s\u{e3}o tom\u{e9}"),
            ("1,234 km", "1 234 km"),
            ("An apple, the pear", "apple pear"),
        ] {
            assert_eq!(normalise(text), want, "{text}");
        }
    }

    #[test]
    fn containment_is_by_whole_words() {
        for (response, expected, want) in [
            ("Kenya: Kenyan shilling.", vec!["Kenyan shilling"], true),
            ("Niger.", vec!["Nigeria"], false),
            ("Nigeria.", vec!["Niger"], false),
            ("Uganda, Somalia.", vec!["Somalia", "Uganda"], true),
            ("Uganda.", vec!["Somalia", "Uganda"], false),
            ("", vec!["x"], false),
            ("anything", vec![], false),
            ("anything", vec!["the"], false),
        ] {
            let expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
            assert_eq!(is_correct(response, &expected), want, "{response} {expected:?}");
        }
        let names = ["Sa\u{303}o Tome\u{301}".to_owned(), "ST".to_owned()];
        assert!(contains_any("It is S\u{e3}o Tom\u{e9}.", &names) && !contains_any("Stone", &names));
        assert!(!contains_any("anything", &[]));
    }
}
