//! Half characters in JSON: programs that cut a text between the two halves of an emoji write an escape that is no character.

use std::borrow::Cow;

/// Replaces the escapes of lone surrogates by that of U+FFFD, which is as long.
pub fn whole_characters(bytes: &[u8]) -> Cow<'_, [u8]> {
    let unit = |at: usize| -> Option<u16> {
        let escape = bytes.get(at..at + 6)?;
        let digits = std::str::from_utf8(escape.strip_prefix(b"\\u")?).ok()?;
        u16::from_str_radix(digits, 16).ok().filter(|_| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
    };
    let mut mended = Cow::Borrowed(bytes);
    let mut at = 0;
    while let Some(next) = bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == b'\\')) {
        at += next;
        let Some(first) = unit(at) else {
            // Another escape, a backslash's above all: two bytes.
            at += 2;
            continue;
        };
        let is_high = (0xD800..0xDC00).contains(&first);
        let is_low = (0xDC00..0xE000).contains(&first);
        if is_high && unit(at + 6).is_some_and(|second| (0xDC00..0xE000).contains(&second)) {
            at += 12;
            continue;
        }
        if (is_high || is_low)
            && let Some(escape) = mended.to_mut().get_mut(at..at + 6)
        {
            escape.copy_from_slice(b"\\uFFFD");
        }
        at += 6;
    }
    mended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_characters_are_replaced_and_nothing_else() {
        for (text, expect) in [
            (r#""a""#, r#""a""#),
            (r#""\ud83d\ude00""#, r#""\ud83d\ude00""#),
            (r#""x\ud83d""#, r#""x\uFFFD""#),
            (r#""\ude00\ud83d\ud83d\ude00""#, r#""\uFFFD\uFFFD\ud83d\ude00""#),
            (r#""\\ud83d""#, r#""\\ud83d""#),
            (r#""\ud8""#, r#""\ud8""#),
        ] {
            assert_eq!(whole_characters(text.as_bytes()), expect.as_bytes(), "{text}");
        }
    }
}
