//! What Python's text methods do to letters, and ask of them.

/// The answer to a question without arguments; `None` where it is none.
pub(super) fn test(text: &str, name: &str) -> Option<bool> {
    let all = |is: &dyn Fn(char) -> bool| !text.is_empty() && text.chars().all(is);
    Some(match name {
        "isalnum" => all(&char::is_alphanumeric),
        "isalpha" => all(&char::is_alphabetic),
        "isascii" => text.is_ascii(),
        "isdecimal" | "isdigit" => all(&|c| c.is_ascii_digit() || (c.is_numeric() && is_decimal(c))),
        "isnumeric" => all(&char::is_numeric),
        "isidentifier" => {
            let mut letters = text.chars();
            letters.next().is_some_and(|c| c.is_alphabetic() || c == '_')
                && letters.all(|c| c.is_alphanumeric() || c == '_')
        }
        "islower" => text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase),
        "isupper" => text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase),
        "isprintable" => text.chars().all(super::repr::is_printable),
        "isspace" => all(&is_space),
        "istitle" => {
            let (mut inside, mut any) = (false, false);
            for letter in text.chars() {
                if letter.is_uppercase() == inside && (letter.is_uppercase() || letter.is_lowercase()) {
                    return Some(false);
                }
                any |= letter.is_uppercase();
                inside = letter.is_uppercase() || letter.is_lowercase();
            }
            any
        }
        _ => return None,
    })
}

/// White space as Python's texts have it: the four separators of ASCII too.
pub(super) fn is_space(letter: char) -> bool {
    letter.is_whitespace() || matches!(letter, '\u{1c}'..='\u{1f}')
}

/// Digits that stand for tens: those of the scripts in use come in tens.
fn is_decimal(letter: char) -> bool {
    matches!(u32::from(letter), 0x660..=0x669 | 0x6F0..=0x6F9 | 0x966..=0x96F | 0xFF10..=0xFF19)
}

/// The text that a method without arguments makes; `None` where it is none.
pub(super) fn changed(text: &str, name: &str) -> Option<String> {
    Some(match name {
        "upper" => text.to_uppercase(),
        "lower" => text.to_lowercase(),
        // Folding differs from small letters in few letters; the German one is the one that comes up.
        "casefold" => text.to_lowercase().replace('ß', "ss"),
        "capitalize" => {
            let mut letters = text.chars();
            // Where it becomes several, the others stay small.
            let mut first = letters.next().into_iter().flat_map(char::to_uppercase);
            let large: String = first.next().into_iter().collect();
            let small: String = first.flat_map(char::to_lowercase).collect();
            large + &small + &letters.as_str().to_lowercase()
        }
        "swapcase" => {
            let swap = |letter: char| -> String {
                if letter.is_uppercase() { letter.to_lowercase().collect() } else { letter.to_uppercase().collect() }
            };
            text.chars().map(swap).collect()
        }
        "title" => {
            let mut inside = false;
            let mut out = String::with_capacity(text.len());
            for letter in text.chars() {
                if inside {
                    out.extend(letter.to_lowercase());
                } else {
                    out.extend(letter.to_uppercase());
                }
                inside = letter.is_alphabetic();
            }
            out
        }
        _ => return None,
    })
}

/// Without the letters at its ends that are white space, or among `chars`.
pub(super) fn stripped<'t>(text: &'t str, chars: Option<&str>, start: bool, end: bool) -> &'t str {
    let drop = |c: char| chars.map_or_else(|| is_space(c), |set| set.contains(c));
    let text = if start { text.trim_start_matches(drop) } else { text };
    if end { text.trim_end_matches(drop) } else { text }
}

/// The one letter of a text.
pub(super) fn only(text: &str) -> Option<char> {
    let mut letters = text.chars();
    letters.next().filter(|_| letters.next().is_none())
}

/// `center`, `ljust`, `rjust`, `zfill` and `expandtabs`.
pub(super) fn filled(text: &str, name: &str, width: usize, fill: char) -> String {
    let missing = width.saturating_sub(text.chars().count());
    let some = |count: usize| fill.to_string().repeat(count);
    match name {
        "ljust" => text.to_owned() + &some(missing),
        "rjust" => some(missing) + text,
        "zfill" => {
            let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
            let sign = text.get(..text.len() - digits.len()).unwrap_or_default();
            format!("{sign}{}{digits}", "0".repeat(missing))
        }
        "expandtabs" => {
            let (mut out, mut column) = (String::new(), 0);
            for letter in text.chars() {
                match letter {
                    '\t' if width > 0 => {
                        let step = width - column % width;
                        out += &" ".repeat(step);
                        column += step;
                    }
                    '\t' => {}
                    '\n' | '\r' => {
                        out.push(letter);
                        column = 0;
                    }
                    letter => {
                        out.push(letter);
                        column += 1;
                    }
                }
            }
            out
        }
        // The larger half goes to the left where the width is odd.
        _ => {
            let left = missing / 2 + (missing & width & 1);
            some(left) + text + &some(missing - left)
        }
    }
}

/// Words between white space, at most `most` cuts; the rest keeps its inner spaces.
pub(super) fn words(text: &str, most: usize, last: bool) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = if last { text.trim_end_matches(is_space) } else { text.trim_start_matches(is_space) };
    while !rest.is_empty() {
        if words.len() == most {
            words.push(if last { rest.trim_end_matches(is_space) } else { rest });
            break;
        }
        if last {
            let (before, word) = rest.rsplit_once(is_space).unwrap_or(("", rest));
            words.push(word);
            rest = before.trim_end_matches(is_space);
        } else {
            let (word, after) = rest.split_once(is_space).unwrap_or((rest, ""));
            words.push(word);
            rest = after.trim_start_matches(is_space);
        }
    }
    if last {
        words.reverse();
    }
    words
}

/// Lines, with their ends if `keep`. Python knows more ends of lines than most.
pub(super) fn lines(text: &str, keep: bool) -> Vec<&str> {
    let is_end = |c: char| {
        matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(is_end).unwrap_or(rest.len());
        let (line, after) = rest.split_at(end);
        let length = match after.chars().next() {
            Some('\r') if after.starts_with("\r\n") => 2,
            Some(letter) => letter.len_utf8(),
            None => 0,
        };
        let whole = rest.get(..end + length).unwrap_or(rest);
        lines.push(if keep { whole } else { line });
        rest = rest.get(whole.len()..).unwrap_or_default();
    }
    lines
}
