//! What minijinja reads otherwise than Python, put so that both read the same: the escapes in texts, and a plus in front of a
//! number.

use std::borrow::Cow;
use std::iter::Peekable;
use std::str::Chars;

use minijinja::machinery::{self, Token};

use super::syntax;
use crate::error::EngineError;

/// Words behind which a value comes.
const BEFORE_VALUES: [&str; 9] = ["in", "and", "or", "not", "if", "else", "elif", "is", "filter"];

/// The source with texts as minijinja writes them, and `+x` as `- -x`. What cannot be read stays as it is: whoever parses it
/// says why.
///
/// # Errors
/// A character by its name, of which this engine has no list.
pub(super) fn pythonic(source: &str) -> Result<String, EngineError> {
    let mut out = String::with_capacity(source.len());
    let (mut copied, mut after_value) = (0, false);
    for token in machinery::tokenize(source, false, syntax()?) {
        let Ok((token, span)) = token else { return Ok(source.to_owned()) };
        let (begin, end) = (span.start_offset as usize, span.end_offset as usize);
        let written = source.get(begin..end).unwrap_or_default();
        let instead: Option<Cow<'_, str>> = match &token {
            Token::String(_) => literal(written)?.map(Cow::Owned),
            Token::Plus if !after_value => Some("- -".into()),
            _ => None,
        };
        if let Some(instead) = instead {
            out += source.get(copied..begin).unwrap_or_default();
            out += &instead;
            copied = end;
        }
        after_value = match token {
            Token::Ident(name) => !BEFORE_VALUES.contains(&name),
            Token::Str(_) | Token::String(_) | Token::Int(_) | Token::Int128(_) | Token::Float(_) => true,
            Token::BracketClose | Token::ParenClose | Token::BraceClose => true,
            _ => false,
        };
    }
    out += source.get(copied..).unwrap_or_default();
    Ok(out)
}

/// A text with escapes as Python reads it, written with those alone that minijinja reads alike; `None` where it is none to
/// Python.
fn literal(written: &str) -> Result<Option<String>, EngineError> {
    let inside = written.get(1..written.len().saturating_sub(1)).unwrap_or_default();
    let mut out = String::with_capacity(written.len());
    out.push('"');
    let mut letters = inside.chars().peekable();
    while let Some(letter) = letters.next() {
        let made = if letter == '\\' { escape(&mut letters)? } else { Some(Cow::Owned(letter.to_string())) };
        let Some(made) = made else { return Ok(None) };
        for letter in made.chars() {
            if matches!(letter, '"' | '\\') {
                out.push('\\');
            }
            out.push(letter);
        }
    }
    out.push('"');
    Ok(Some(out))
}

/// What is behind a backslash; `None` where Python refuses it.
fn escape(letters: &mut Peekable<Chars<'_>>) -> Result<Option<Cow<'static, str>>, EngineError> {
    let Some(letter) = letters.next() else { return Ok(None) };
    let by_number = |letters: &mut Peekable<Chars<'_>>, digits: usize| {
        let text: String = letters.by_ref().take(digits).collect();
        let is_whole = text.len() == digits && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        let number = u32::from_str_radix(&text, 16).ok().filter(|_| is_whole);
        number.and_then(char::from_u32).map(|letter| Cow::Owned(letter.to_string()))
    };
    Ok(Some(match letter {
        '\n' => "".into(),
        '\\' | '\'' | '"' => letter.to_string().into(),
        'a' => "\u{7}".into(),
        'b' => "\u{8}".into(),
        'f' => "\u{c}".into(),
        'n' => "\n".into(),
        'r' => "\r".into(),
        't' => "\t".into(),
        'v' => "\u{b}".into(),
        'x' => return Ok(by_number(letters, 2)),
        'u' => return Ok(by_number(letters, 4)),
        'U' => return Ok(by_number(letters, 8)),
        '0'..='7' => {
            let mut number = letter.to_digit(8).unwrap_or(0);
            for _ in 0..2 {
                let Some(digit) = letters.peek().and_then(|digit| digit.to_digit(8)) else { break };
                letters.next();
                number = number * 8 + digit;
            }
            char::from_u32(number).map_or(Cow::Borrowed(""), |letter| letter.to_string().into())
        }
        'N' if letters.peek() == Some(&'{') => {
            return Err(EngineError::Template(
                "a text has a character by its name (\\N{…}), which this engine does not know; write the character itself"
                    .to_owned(),
            ));
        }
        other => format!("\\{other}").into(),
    }))
}
