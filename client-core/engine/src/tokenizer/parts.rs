//! The parts of a `tokenizer.json` around its model, looked through by name before the library parses them. What is not
//! known is refused, and so is what makes the library panic, take endless memory or never end.

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokenizers::normalizers::Sequence;
use tokenizers::{DecoderWrapper, NormalizerWrapper, PreTokenizerWrapper};

use super::library::Cutting;
use super::precompiled;

/// Most steps of one part, sequences in sequences counted with all that is in them, and how deep they may lie.
const MAX_STEPS: usize = 64;
const MAX_DEPTH: usize = 8;
/// How many times longer all replacements together may make a text.
const MAX_GROWTH: usize = 64;
/// Longest text that a step carries, bytes.
const MAX_TEXT: usize = 256;
/// Longest regular expression, bytes; how deep its groups may lie; and what all its counts may come to together.
const MAX_PATTERN: usize = 1 << 12;
const MAX_GROUPS: usize = 32;
const MAX_COUNTS: u64 = 10_000;

/// What the steps of a part have come to.
struct Sum<'c> {
    steps: usize,
    growth: usize,
    cutting: Option<&'c mut Cutting>,
}

type Checked = Result<(), String>;

/// The normalizer, if there is one.
///
/// # Errors
/// What is wrong with it.
pub(super) fn normalizer(part: Option<&Value>, cutting: &mut Cutting) -> Result<Option<NormalizerWrapper>, String> {
    read(part, "normalizer", "normalizers", Some(cutting), |step, kind, sum| match kind {
        "Bert" | "BertNormalizer" | "NFC" | "NFD" | "NFKC" | "NFKD" | "Lowercase" | "StripAccents" | "Strip"
        | "Nmt" | "ByteLevel" => Ok(()),
        // The library panics at texts to which nothing is prepended.
        "Prepend" => match text(step, "prepend")? {
            "" => Err("its Prepend has no text".to_owned()),
            _ => Ok(()),
        },
        "Replace" => replace(step, sum),
        "Precompiled" => {
            let map = step.get("precompiled_charsmap").and_then(Value::as_str).unwrap_or_default();
            precompiled::check(map).map_err(|problem| format!("its precompiled_charsmap {problem}"))
        }
        _ => Err(unknown(kind)),
    })
}

/// The same normalizer for a text that goes on after another: nothing is put in front of it.
pub(super) fn without_front(normalizer: &NormalizerWrapper) -> NormalizerWrapper {
    let steps = match normalizer {
        NormalizerWrapper::Prepend(_) => Vec::new(),
        NormalizerWrapper::Sequence(steps) => steps.as_ref().iter().map(without_front).collect(),
        step => return step.clone(),
    };
    NormalizerWrapper::Sequence(Sequence::new(steps))
}

/// What cuts texts into words, if there is anything.
///
/// # Errors
/// What is wrong with it.
pub(super) fn pre_tokenizer(
    part: Option<&Value>,
    cutting: &mut Cutting,
) -> Result<Option<PreTokenizerWrapper>, String> {
    read(part, "pre_tokenizer", "pretokenizers", Some(cutting), |step, kind, sum| match kind {
        "BertPreTokenizer" | "CharDelimiterSplit" | "Delimiter" | "Metaspace" | "Whitespace" | "Punctuation"
        | "WhitespaceSplit" | "Digits" | "UnicodeScripts" => Ok(()),
        "ByteLevel" => {
            if let Some(cutting) = &mut sum.cutting {
                cutting.any |= step.get("use_regex").and_then(Value::as_bool) != Some(false);
            }
            Ok(())
        }
        "Split" => pattern(step, sum).map(|_| ()),
        "FixedLength" => match step.get("length").map_or(Some(5), Value::as_u64) {
            Some(1..=4096) => Ok(()),
            _ => Err("it cuts pieces of an impossible length".into()),
        },
        _ => Err(unknown(kind)),
    })
}

/// What makes a text of tokens, if there is anything.
///
/// # Errors
/// What is wrong with it.
pub(super) fn decoder(part: Option<&Value>) -> Result<Option<DecoderWrapper>, String> {
    read(part, "decoder", "decoders", None, |step, kind, sum| match kind {
        "ByteLevel" | "Metaspace" | "BPEDecoder" | "Fuse" | "ByteFallback" => Ok(()),
        "WordPiece" => text(step, "prefix").map(|_| ()),
        "CTC" => text(step, "pad_token").and_then(|_| text(step, "word_delimiter_token")).map(|_| ()),
        "Replace" => replace(step, sum),
        // The library counts back from the end without a look at where the beginning is.
        "Strip" => match (step.get("start").and_then(Value::as_u64), step.get("stop").and_then(Value::as_u64)) {
            (Some(0..=16), Some(0)) => Ok(()),
            _ => Err("it strips other letters than some at the beginning".into()),
        },
        _ => Err(unknown(kind)),
    })
}

fn unknown(kind: &str) -> String {
    format!("the type {:?} is not known", kind.chars().take(40).collect::<String>())
}

/// Looks through all steps with `check`, then lets the library parse the part.
fn read<T: DeserializeOwned>(
    part: Option<&Value>,
    name: &str,
    inner: &str,
    cutting: Option<&mut Cutting>,
    check: impl Fn(&Value, &str, &mut Sum<'_>) -> Checked,
) -> Result<Option<T>, String> {
    fn walk(
        step: &Value,
        inner: &str,
        depth: usize,
        sum: &mut Sum<'_>,
        check: &dyn Fn(&Value, &str, &mut Sum<'_>) -> Checked,
    ) -> Checked {
        sum.steps += 1;
        if sum.steps > MAX_STEPS || depth > MAX_DEPTH {
            return Err(format!("it has more than {MAX_STEPS} steps, or they lie more than {MAX_DEPTH} deep"));
        }
        let kind = step.get("type").and_then(Value::as_str).ok_or("a step has no type")?;
        if kind != "Sequence" {
            return check(step, kind, sum).map_err(|problem| format!("{kind}: {problem}"));
        }
        let steps = step.get(inner).and_then(Value::as_array).ok_or_else(|| format!("a sequence has no {inner}"))?;
        steps.iter().try_for_each(|step| walk(step, inner, depth + 1, sum, check))
    }
    let Some(part) = part else { return Ok(None) };
    let named = |problem: String| format!("the {name}: {problem}");
    let mut sum = Sum { steps: 0, growth: 1, cutting };
    walk(part, inner, 0, &mut sum, &check).map_err(named)?;
    // As a text: some of the library's types borrow from it.
    serde_json::from_str(&part.to_string()).map(Some).map_err(|error| named(error.to_string()))
}

/// A field with a short text.
fn text<'v>(step: &'v Value, key: &str) -> Result<&'v str, String> {
    let text = step.get(key).and_then(Value::as_str).ok_or_else(|| format!("it has no {key}"))?;
    if text.len() > MAX_TEXT {
        return Err(format!("its {key} has more than {MAX_TEXT} bytes"));
    }
    Ok(text)
}

/// What a step looks for: a text, whose length is returned, or a regular expression.
fn pattern(step: &Value, sum: &mut Sum<'_>) -> Result<usize, String> {
    let pattern = step.get("pattern").ok_or("it has no pattern")?;
    if let Some(text) = pattern.get("String").and_then(Value::as_str) {
        return match text.len() {
            1..=MAX_TEXT => Ok(text.len()),
            len => Err(format!("it looks for a text of {len} bytes")),
        };
    }
    let regex = pattern.get("Regex").and_then(Value::as_str).ok_or("its pattern is neither a text nor a Regex")?;
    check_regex(regex)?;
    match &mut sum.cutting {
        Some(cutting) => cutting.add(regex).map_err(|error| error.to_string())?,
        None => fancy_regex::Regex::new(regex).map(|_| ()).map_err(|error| error.to_string())?,
    }
    Ok(1)
}

fn replace(step: &Value, sum: &mut Sum<'_>) -> Checked {
    let least = pattern(step, sum)?;
    if let Some(regex) = step.pointer("/pattern/Regex").and_then(Value::as_str)
        && fancy_regex::Regex::new(regex).is_ok_and(|regex| regex.is_match("").unwrap_or(true))
    {
        return Err("it replaces nothing by something".into());
    }
    sum.growth = sum.growth.saturating_mul(text(step, "content")?.len().div_ceil(least).max(1));
    if sum.growth > MAX_GROWTH {
        return Err(format!("replacements make texts more than {MAX_GROWTH} times longer"));
    }
    Ok(())
}

/// Refuses a regular expression that would take much to be built: groups in groups are walked through recursively, and
/// what is counted is built as often.
fn check_regex(regex: &str) -> Checked {
    if regex.is_empty() || regex.len() > MAX_PATTERN {
        return Err(format!("a regular expression has {} bytes; 1 to {MAX_PATTERN} are read", regex.len()));
    }
    let (mut depth, mut counts) = (0usize, 1u64);
    let mut rest = regex.chars().peekable();
    while let Some(letter) = rest.next() {
        match letter {
            '\\' => {
                // `\p{L}` is no count.
                let escaped = rest.next();
                if escaped.is_some_and(|letter| "pPxuUkg".contains(letter)) && rest.peek() == Some(&'{') {
                    rest.by_ref().find(|letter| *letter == '}');
                }
            }
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            '{' => {
                let mut most = 1u64;
                while let Some(number) = number(&mut rest) {
                    most = most.max(number);
                    if rest.next_if_eq(&',').is_none() {
                        break;
                    }
                }
                counts = counts.saturating_mul(most);
            }
            _ => {}
        }
        if depth > MAX_GROUPS || counts > MAX_COUNTS {
            return Err(format!(
                "in a regular expression, groups lie more than {MAX_GROUPS} deep, or counts come to more than {MAX_COUNTS}"
            ));
        }
    }
    Ok(())
}

/// The number that comes next, if one does.
fn number(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<u64> {
    let mut number = None;
    while let Some(digit) = letters.peek().and_then(|letter| letter.to_digit(10)) {
        letters.next();
        number = Some(number.unwrap_or(0u64).saturating_mul(10).saturating_add(u64::from(digit)));
    }
    number
}
