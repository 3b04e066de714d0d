//! Where a sentence ends.

/// Splits at a full stop that is followed by a space and an upper-case letter. One that may end an initial ("T. S.
/// Eliot") or a short title ends a sentence only if what stands before it is `known` ("The symbol of carbon is C.").
pub fn sentences(text: &str, known: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut all = Vec::new();
    let mut rest = text.trim();
    let mut from = 0;
    while let Some(found) = rest[from..].find(". ") {
        let at = from + found;
        let word = rest[..at].rsplit([' ', '.']).next().unwrap_or_default();
        let abbreviated = word.chars().count() == 1 && word.chars().all(char::is_uppercase)
            || matches!(word, "St" | "Mt" | "Dr" | "Mrs" | "Mr");
        if abbreviated && !known(&rest[..=at]) || !rest[at + 2..].starts_with(char::is_uppercase) {
            from = at + 2;
            continue;
        }
        all.push(rest[..=at].to_owned());
        rest = rest[at + 2..].trim_start();
        from = 0;
    }
    if !rest.is_empty() {
        all.push(rest.to_owned());
    }
    all
}
