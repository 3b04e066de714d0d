//! The tokens of a text in pieces are those of the whole text, for tokenizers of every family.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::cuts::Rule;
use super::schemes::{LLAMA3, QWEN2};
use super::tests::{file, load};
use super::*;
use crate::gguf::builder::Builder;

/// A family's name, a tokenizer, and the rule by which its texts are to be cut.
type Family = (String, Tokenizer, Rule);

const PAIRS: Rule = Rule::Pairs { sign: true, at_spaces: false };

fn golden(name: &str) -> Vec<u8> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tokenizers");
    std::fs::read(folder.join(name)).unwrap()
}

/// `tokenizer` as a `tokenizer.json` with other parts around its model.
fn with_parts(tokenizer: &Tokenizer, normalizer: Value, pre_tokenizer: Value) -> Tokenizer {
    let mut json: Value = serde_json::to_value(&*tokenizer.inner).unwrap();
    (json["normalizer"], json["pre_tokenizer"]) = (normalizer, pre_tokenizer);
    Tokenizer::from_json(json.to_string().as_bytes(), None).unwrap()
}

fn split(regex: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false})
}

fn sequence(key: &str, steps: &[Value]) -> Value {
    json!({"type": "Sequence", key: steps})
}

/// Made once.
static FAMILIES: LazyLock<Vec<Family>> = LazyLock::new(families);

/// Files of GGUF and what `tokenizer.json` files of families in use have around their models.
fn families() -> Vec<Family> {
    let spm = load(&golden("spm.gguf")).unwrap();
    let file_bpe = golden("bpe.gguf");
    let bpe = load(&file_bpe).unwrap();
    let gguf = Gguf::parse(&file_bpe).unwrap();
    let list = |key: &str| -> Vec<String> {
        gguf.get(key).unwrap().as_array().unwrap().as_strs().unwrap().iter().map(|text| (*text).to_owned()).collect()
    };
    let (tokens, merges) = (list("tokenizer.ggml.tokens"), list("tokenizer.ggml.merges"));
    let controls = tokens.len() - 3;
    let kinds = |b: Builder| {
        let b = b.str("tokenizer.ggml.token_type").u32(9).u32(5).u64(tokens.len() as u64);
        ((0..tokens.len()).fold(b, |b, i| b.u32(if i < controls { 1 } else { 3 })), 1)
    };
    let mut all: Vec<Family> = Vec::new();
    for pre in ["default", "gpt-2", "llama-bpe", "qwen2", "smollm", "smaug-bpe", "tekken"] {
        all.push((format!("GGUF {pre}"), load(&file(&tokens, &merges, pre, kinds)).unwrap(), Rule::Words));
    }
    let bytes = |prefix: bool, regex: bool| json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": regex});
    let cut = |steps: &[Value]| sequence("pretokenizers", steps);
    let sign = json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"});
    let front = json!({"type": "Prepend", "prepend": "\u{2581}"});
    let metaspace = |scheme: &str, split: bool| json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme, "split": split});
    let at_space =
        json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false});
    let digits = json!({"type": "Digits", "individual_digits": true});
    let signs = json!({"type": "Punctuation", "behavior": "Contiguous"});
    let threes = split("[0-9][0-9][0-9]");
    for (name, of, normalizer, pre_tokenizer, rule) in [
        ("Llama 3", &bpe, Value::Null, cut(&[split(LLAMA3), bytes(false, false)]), Rule::Words),
        ("Qwen", &bpe, json!({"type": "NFC"}), cut(&[split(QWEN2), bytes(false, false)]), Rule::Words),
        ("GPT-2", &bpe, Value::Null, bytes(false, true), Rule::Words),
        ("SmolLM", &bpe, Value::Null, cut(&[digits, bytes(false, true)]), Rule::Words),
        ("Falcon", &bpe, Value::Null, cut(&[signs, bytes(false, true), threes]), Rule::Words),
        ("RoBERTa", &bpe, Value::Null, bytes(true, true), Rule::Spaces),
        ("numbers alone", &bpe, Value::Null, cut(&[split(r"\p{N}{1,3}"), bytes(false, false)]), Rule::Nowhere),
        ("strange", &bpe, Value::Null, cut(&[split(r"\w+(?=\s|$)|."), bytes(false, false)]), Rule::Nowhere),
        ("Llama 2", &spm, sequence("normalizers", &[front, sign.clone()]), Value::Null, PAIRS),
        ("Gemma", &spm, sign, at_space, PAIRS),
        ("Mistral", &spm, Value::Null, metaspace("first", false), Rule::Pairs { sign: true, at_spaces: true }),
        ("TinyLlama", &spm, Value::Null, metaspace("always", false), Rule::Pairs { sign: true, at_spaces: true }),
        ("words with signs", &spm, json!({"type": "NFKC"}), metaspace("always", true), Rule::Spaces),
        ("folded", &spm, json!({"type": "Lowercase"}), Value::Null, Rule::Nowhere),
    ] {
        all.push((name.to_owned(), with_parts(of, normalizer, pre_tokenizer), rule));
    }
    all.push(("GGUF SentencePiece".to_owned(), spm, PAIRS));
    for (name, json, rule) in others() {
        all.push((name.to_owned(), Tokenizer::from_json(json.to_string().as_bytes(), None).unwrap(), rule));
    }
    all
}

/// Of families whose models are no BPE.
fn others() -> [(&'static str, Value, Rule); 3] {
    let bert = json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true});
    let strip = json!({"type": "Strip", "strip_left": false, "strip_right": true});
    let runs = json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "\u{2581}"});
    let ends = json!([{"id": 1, "content": "[SEP]", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}]);
    let words = json!({"[UNK]": 0, "[SEP]": 1, "the": 2, "##e": 3, "a": 4, "th": 5, ".": 6, "it": 7, "'": 8, "s": 9, "\u{4EAC}": 10});
    let pieces = json!([
        ["<unk>", 0.0],
        ["\u{2581}", -1.0],
        ["a", -2.0],
        ["\u{2581}the", -2.5],
        ["th", -3.0],
        ["e", -2.0],
        ["\u{2581}\u{2581}", -1.5],
        ["'s", -4.0]
    ]);
    [
        (
            "BERT",
            json!({"added_tokens": ends, "normalizer": bert, "pre_tokenizer": {"type": "BertPreTokenizer"},
                "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": words}}),
            Rule::Spaces,
        ),
        (
            "T5",
            json!({"normalizer": sequence("normalizers", &[json!({"type": "NFKC"}), strip, runs]),
                "pre_tokenizer": {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true},
                "model": {"type": "Unigram", "unk_id": 0, "vocab": pieces}}),
            Rule::Spaces,
        ),
        (
            "words alone",
            json!({"pre_tokenizer": {"type": "Whitespace"}, "model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": words}}),
            Rule::Spaces,
        ),
    ]
}

/// The tokens in pieces of about so many bytes, and how often it was asked whether to stop: once a piece at least.
fn in_pieces(tokenizer: &Tokenizer, text: &str, bytes: usize) -> (Vec<u32>, usize) {
    let asked = AtomicUsize::new(0);
    let stop = || {
        asked.fetch_add(1, Ordering::Relaxed);
        false
    };
    let ids = library::encode_pieces(
        &tokenizer.inner,
        tokenizer.inner.get_added_vocabulary(),
        &tokenizer.cutting,
        text,
        &stop,
        bytes,
    )
    .unwrap();
    (ids, asked.into_inner())
}

/// The texts of the golden file one after the other, thrice and otherwise joined each time.
fn long_text() -> String {
    let golden: Value = serde_json::from_slice(&golden("golden.json")).unwrap();
    let texts: Vec<&str> =
        golden["spm"].as_array().unwrap().iter().map(|entry| entry["text"].as_str().unwrap()).collect();
    ["", " ", "\n"].iter().map(|between| texts.join(between)).collect()
}

#[test]
fn pieces_have_the_tokens_of_the_whole_in_every_family() {
    let text = long_text();
    for (name, tokenizer, rule) in FAMILIES.iter() {
        assert_eq!(tokenizer.cutting.rule, *rule, "{name}");
        let library = tokenizer.inner.encode_fast(text.as_str(), false).unwrap();
        let (whole, _) = in_pieces(tokenizer, &text, usize::MAX);
        assert_eq!(whole, library.get_ids(), "{name}: as the library");
        for bytes in [1, 5, 40, 301, 2000] {
            let (ids, asked) = in_pieces(tokenizer, &text, bytes);
            assert_eq!(ids, whole, "{name} in pieces of {bytes}");
            assert!(
                *rule == Rule::Nowhere || asked >= text.len() / (bytes + 1000),
                "{name}: {asked} pieces of {bytes}"
            );
        }
    }
}

/// Whoever leaves is noticed at the next piece: it is asked at each, and given up at any.
#[test]
fn a_long_text_is_given_up_when_nobody_waits() {
    let text = long_text().repeat((6 * cuts::PIECE) / long_text().len() + 1);
    for (name, tokenizer, rule) in FAMILIES.iter().filter(|(_, _, rule)| *rule != Rule::Nowhere) {
        let (_, asked) = in_pieces(tokenizer, &text, cuts::PIECE);
        assert!(asked >= 5, "{name} by {rule:?}: asked {asked} times");
        for after in [0, asked / 2] {
            let count = AtomicUsize::new(0);
            let stop = || count.fetch_add(1, Ordering::Relaxed) >= after;
            let made = library::encode(
                &tokenizer.inner,
                tokenizer.inner.get_added_vocabulary(),
                &tokenizer.cutting,
                &text,
                &stop,
            );
            assert!(matches!(made, Err(EngineError::Stopped)), "{name} after {after}");
            assert_eq!(count.into_inner(), after + 1, "{name}: nothing goes on after that");
            assert!(matches!(tokenizer.encode_text_until(&text, &|| true), Err(EngineError::Stopped)), "{name}");
        }
    }
}

#[test]
fn what_has_no_place_to_cut_is_refused_in_words() {
    for (name, tokenizer, _) in FAMILIES.iter().filter(|(name, _, rule)| name.contains("GGUF") && *rule == Rule::Words)
    {
        let run = "a".repeat(cuts::PIECE + cuts::LONGEST + 10);
        let error = tokenizer.encode(&format!("Hi {run} there")).err().map(|error| error.to_string());
        assert!(error.as_ref().is_some_and(|error| error.contains("no place to cut")), "{name}: {error:?}");
        let shorter = run.get(..cuts::LONGEST / 8).unwrap();
        assert!(tokenizer.encode(&format!("Hi {shorter} there")).is_ok(), "{name}");
    }
}

/// Neither a token for it, nor one for what is unknown, nor one for its bytes: the library leaves such a letter out.
#[test]
fn a_letter_without_a_token_is_named() {
    let vocab = json!({"h": 0, "i": 1, "hi": 2, "\u{120}": 3, "\u{120}hi": 4});
    let model = json!({"type": "BPE", "vocab": vocab, "merges": [["h", "i"], ["\u{120}", "hi"]]});
    for (pre_tokenizer, letter) in [
        (Value::Null, "\u{E9}"),
        (json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}), "\u{E9}"),
        (Value::Null, "x"),
    ] {
        let json = json!({"model": model, "pre_tokenizer": pre_tokenizer}).to_string();
        let tokenizer = Tokenizer::from_json(json.as_bytes(), None).unwrap();
        assert_eq!(tokenizer.encode("hihi").unwrap(), [2, 2]);
        let error = tokenizer.encode(&format!("hi{letter}hi")).unwrap_err().to_string();
        assert!(error.contains(&format!("{letter:?}")) && error.contains("no token"), "{error}");
    }
    let known = json!({"type": "BPE", "vocab": {"h": 0, "?": 1}, "merges": [], "unk_token": "?"});
    let tokenizer = Tokenizer::from_json(json!({"model": known}).to_string().as_bytes(), None).unwrap();
    assert_eq!(tokenizer.encode("hxh").unwrap(), [0, 1, 0], "what is unknown has a token");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_text_has_the_same_tokens_in_pieces(
        parts in proptest::collection::vec(proptest::sample::select(vec![
            "a", "B", "the", " the", "\u{E9}", "e\u{301}", "\u{301}", "\u{6771}", "\u{4EAC}", "\u{3002}", "\u{3001}", " ", "  ", "\t", "\n", "\r\n",
            "'s", "'LL", "1", "12", "\u{BD}", "/", "!", "_", "...", "\u{1F980}", "\u{200B}", "\u{A0}", "\u{3000}", "\u{2581}", "<s>",
            "<|end|>", "[SEP]", "\u{915}\u{93C}", "\u{958}", "\u{DF}", "\u{1C5}", "\u{D55C}", "\u{212A}", "\u{110C}\u{1175}", "\u{D7}", "\u{FF01}",
        ]), 1..40),
        bytes in 1usize..9,
    ) {
        let text = parts.concat();
        for (name, tokenizer, _) in FAMILIES.iter() {
            let whole = in_pieces(tokenizer, &text, usize::MAX).0;
            prop_assert_eq!(in_pieces(tokenizer, &text, bytes).0, whole, "{} {:?}", name, text);
        }
    }
}
