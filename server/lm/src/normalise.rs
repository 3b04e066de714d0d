//! When an answer counts as right (eq. 23): normalised containment.

/// The rule: lower case; every character that is neither a letter nor a digit becomes a space; the articles `a`, `an`
/// and `the` are dropped; runs of spaces become one. Accents are kept.
pub fn normalise(text: &str) -> String {
    let spaced: String = text
        .to_lowercase()
        .chars()
        .filter(|c| !matches!(c, '\'' | '\u{2019}'))
        .map(|c| if c.is_alphanumeric() { c } else { ' ' })
        .collect();
    let words: Vec<&str> = spaced.split_whitespace().filter(|w| !matches!(*w, "a" | "an" | "the")).collect();
    words.join(" ")
}

/// Whether `response` contains every one of `expected`, as whole words after [`normalise`].
pub fn is_correct(response: &str, expected: &[String]) -> bool {
    let response = format!(" {} ", normalise(response));
    !expected.is_empty()
        && expected.iter().all(|e| {
            let e = normalise(e);
            !e.is_empty() && response.contains(&format!(" {e} "))
        })
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
    }
}
