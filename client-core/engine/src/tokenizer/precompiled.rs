//! SentencePiece's `precompiled_charsmap`, walked through before the library walks through it: the library follows every
//! offset of its trie without a look at where it leads.
//!
//! The format: the trie's size in bytes (u32), the trie (u32 each), then texts that end with a zero byte. Little-endian.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Most units of the trie. The largest in use has about 60,000.
const MAX_UNITS: usize = 1 << 18;
/// Longest text that the library looks up at once, bytes.
const MAX_KEY: usize = 5;

/// How many times as long as a text may be what it becomes. Of those in use one of three bytes becomes 33.
const MAX_GROWTH: usize = 12;

/// Whether the library can look up any text in it, and makes nothing long of it.
///
/// # Errors
/// What is wrong, as the end of a sentence.
pub(super) fn check(base64: &str) -> Result<(), &'static str> {
    let bytes = STANDARD.decode(base64).map_err(|_| "is not base64")?;
    let (size, rest) = bytes.split_first_chunk::<4>().ok_or("is too short")?;
    let units = u32::from_le_bytes(*size) as usize / 4;
    if units == 0 || units > MAX_UNITS {
        return Err("has no trie of a sensible size");
    }
    let trie = rest.get(..units * 4).ok_or("ends inside its trie")?;
    let texts = std::str::from_utf8(rest.get(units * 4..).unwrap_or_default()).map_err(|_| "is not UTF-8")?;
    let trie: Vec<usize> = trie.chunks_exact(4).map(|unit| number(unit) as usize).collect();
    let offset = |unit: usize| (unit >> 10) << ((unit & (1 << 9)) >> 6);
    let label = |unit: usize| unit & ((1 << 31) | 0xFF);
    let outside = "points outside of itself";
    let mut seen = vec![false; trie.len()];
    let mut nodes = vec![offset(*trie.first().ok_or(outside)?)];
    for key in 1..=MAX_KEY {
        let mut next = Vec::new();
        for node in nodes {
            for letter in 1..=255usize {
                let at = node ^ letter;
                let unit = *trie.get(at).ok_or(outside)?;
                if label(unit) != letter || seen.get(at).is_none_or(|seen| *seen) {
                    continue;
                }
                if let Some(seen) = seen.get_mut(at) {
                    *seen = true;
                }
                let node = at ^ offset(unit);
                if (unit >> 8) & 1 == 1 {
                    let place = *trie.get(node).ok_or(outside)? & ((1 << 31) - 1);
                    if !texts.is_char_boundary(place) {
                        return Err("points into the middle of a letter");
                    }
                    let text = texts.get(place..).unwrap_or_default();
                    if text.bytes().take(MAX_GROWTH * key + 1).all(|byte| byte != 0) && text.len() > MAX_GROWTH * key {
                        return Err("makes texts more than twelve times as long");
                    }
                }
                next.push(node);
            }
        }
        nodes = next;
    }
    Ok(())
}

fn number(unit: &[u8]) -> u32 {
    unit.iter().rev().fold(0, |number, byte| (number << 8) | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(units: &[u32], texts: &[u8]) -> String {
        let mut bytes = (units.len() as u32 * 4).to_le_bytes().to_vec();
        bytes.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
        bytes.extend(texts);
        STANDARD.encode(bytes)
    }

    /// A trie of 512 units whose root is at 256, in which the letter `A` leads to a leaf at 300 whose value is `value`.
    fn one_letter(value: u32) -> Vec<u32> {
        let mut units = vec![0u32; 512];
        units[0] = 256 << 10;
        let at = 256 ^ usize::from(b'A');
        // From `at` to 300 by exclusive or.
        units[at] = ((at as u32 ^ 300) << 10) | (1 << 8) | u32::from(b'A');
        units[300] = value | (1 << 31);
        units
    }

    #[test]
    fn tries_are_walked_through() {
        let sound = map(&one_letter(2), b"x\0b\0");
        assert_eq!(check(&sound), Ok(()));
        assert_eq!(check(&map(&one_letter(0), b"0123456789ab\0")), Ok(()), "to twelve");
        // What the library makes of it.
        let json = format!("{{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"{sound}\"}}");
        let normalizer: tokenizers::NormalizerWrapper = serde_json::from_str(&json).unwrap();
        let mut text = tokenizers::NormalizedString::from("CAB");
        tokenizers::Normalizer::normalize(&normalizer, &mut text).unwrap();
        assert_eq!(text.get(), "CbB");
        let mut far = one_letter(2);
        far[256 ^ usize::from(b'A')] |= 0xFFFF << 10;
        for (name, charsmap, expect) in [
            ("not base64", "!!!".to_owned(), "base64"),
            ("empty", String::new(), "too short"),
            ("no trie", map(&[], b""), "sensible size"),
            ("short", STANDARD.encode([255, 0, 0, 0, 1]), "ends inside"),
            ("noise", STANDARD.encode([0xA7; 600]), "sensible size"),
            ("root outside", map(&[u32::MAX; 8], b""), "outside"),
            ("small", map(&[0; 8], b""), "outside"),
            ("leaf outside", map(&far, b"x\0"), "outside"),
            ("text outside", map(&one_letter(99), b"x\0"), "middle"),
            ("inside a letter", map(&one_letter(1), "é\0".as_bytes()), "middle"),
            ("not UTF-8", map(&one_letter(0), &[0xFF]), "UTF-8"),
            ("a letter to thirteen", map(&one_letter(0), b"0123456789abc\0"), "twelve times"),
        ] {
            let error = check(&charsmap).expect_err(name);
            assert!(error.contains(expect), "{name}: {error}");
        }
    }
}
