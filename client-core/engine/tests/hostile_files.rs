//! Some thousand hostile `tokenizer.json` files, config files and checkpoints' folders, made one after the other from sound
//! ones: each ends in a tokenizer that works or in an error, without a panic and without much memory.

#![recursion_limit = "256"]

mod counting;

use counting::peak_of;
use engine::Tokenizer;
use engine::config::Blueprint;
use engine::safetensors::{Index, TokenizerFiles};
use serde_json::{Value, json};

#[global_allocator]
static COUNTING: counting::Counting = counting::Counting;

/// What reading a small file and encoding a short text may hold. With RUST_BACKTRACE set, a panic of the library that is
/// caught prints where it was, and the names for that take some 50 MiB.
const MOST: usize = 128 << 20;

fn added(id: u32, text: &str) -> Value {
    json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
}

/// Sound files, one for each kind of model, with all parts that files in use have.
fn sound() -> Vec<Value> {
    let bpe = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(7, "<s>"), added(8, "<|im_end|>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"}, {"type": "Prepend", "prepend": "\u{2581}"}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "\\s+(?!\\S)|\\s+|\\S+"}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [7], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": true, "ignore_merges": false,
            // With the three bytes of U+2581, each as the letter that stands for it.
            "vocab": {"H": 0, "i": 1, "Hi": 2, "t": 3, "h": 4, "th": 5, "\u{120}": 6, "a": 9, "b": 10, "\u{e2}": 11,
                "\u{138}": 12, "\u{123}": 13}, "merges": [["H", "i"], "t h"]}
    });
    let unigram = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [added(4, "</s>")],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "first", "split": true},
        "post_processor": {"type": "BertProcessing", "sep": ["</s>", 4], "cls": ["</s>", 4]},
        "decoder": {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "first", "split": true},
        "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": false, "vocab": [["<unk>", 0.0], ["\u{2581}h", -1.0], ["i", -2.0], ["t", -3.0]]}
    });
    let pieces = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [added(1, "[CLS]")],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": null,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
            "vocab": {"[UNK]": 0, "[CLS]": 1, "hi": 2, "there": 3, "##s": 4}}
    });
    let words = json!({
        "version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "unk_token": "<unk>", "vocab": {"<unk>": 0, "Hi": 1}}
    });
    vec![bpe, unigram, pieces, words]
}

/// Paths of everything in a file.
fn paths(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                paths(value, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        Value::Array(list) => list.iter().enumerate().for_each(|(n, value)| paths(value, &format!("{at}/{n}"), found)),
        _ => {}
    }
}

fn hostile_values() -> Vec<Value> {
    let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
    vec![
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(4_294_967_295u64),
        json!(4_294_967_296u64),
        json!(18_446_744_073_709_551_615u64),
        json!(1e308),
        json!(""),
        json!("\u{e9}"),
        json!("\u{0}\u{10FFFF}"),
        json!("x".repeat(5000)),
        json!([]),
        json!({}),
        json!([["H", "i", "t"]]),
        json!({"type": "Sequence"}),
        json!({"type": "Nothing"}),
        json!({"Regex": "("}),
        deep,
    ]
}

/// Loads a file and uses what came of it.
fn try_out(bytes: &[u8], config: Option<&[u8]>) -> bool {
    let Ok(tokenizer) = Tokenizer::from_json(bytes, config) else { return false };
    for text in ["Hi there", "", "<s>hi</s> [CLS] <|im_end|>", "\u{FB01}\u{1F980} it's\r\n\n  12 \u{6771}"] {
        for ids in [tokenizer.encode_prompt(text), tokenizer.encode_text(text), tokenizer.encode_whole(text)]
            .into_iter()
            .flatten()
        {
            // Nothing was padded, and nothing grows without bound.
            assert!(ids.len() <= 80 * (text.len() + 4), "{} tokens for {text:?}", ids.len());
            let _ = tokenizer.decode(&ids);
            let _ = tokenizer
                .stream_after(&ids)
                .map(|mut stream| ids.iter().try_for_each(|id| stream.push(*id).map(|_| ())));
        }
    }
    for id in [0, 7, 1000, u32::MAX] {
        let _ = (tokenizer.token_text(id), tokenizer.token_bytes(id), tokenizer.control_text(id));
    }
    let _ = tokenizer.check_ids(5);
    true
}

#[test]
fn sound_tokenizers_work() {
    for file in sound() {
        assert!(
            try_out(file.to_string().as_bytes(), None),
            "{:?}",
            Tokenizer::from_json(file.to_string().as_bytes(), None)
        );
    }
}

#[test]
fn every_value_of_a_tokenizer_may_be_hostile() {
    let (mut tried, mut sound_ones) = (0, 0);
    for file in sound() {
        let mut all = Vec::new();
        paths(&file, "", &mut all);
        for path in &all {
            for value in hostile_values() {
                let mut damaged = file.clone();
                *damaged.pointer_mut(path).unwrap() = value.clone();
                let bytes = damaged.to_string();
                let (worked, peak) = peak_of(|| try_out(bytes.as_bytes(), None));
                assert!(peak <= MOST, "{peak} bytes were held: {path} = {value}");
                tried += 1;
                sound_ones += usize::from(worked);
            }
        }
    }
    assert!(tried > 2000 && sound_ones > 100 && sound_ones < tried, "{sound_ones} of {tried}");
}

/// Hostile files that differ from sound ones in more than one value, with what is said of them; nothing is said where they
/// are made harmless.
#[test]
fn known_ways_out_are_closed() {
    let [bpe, unigram, pieces, _] = <[Value; 4]>::try_from(sound()).unwrap();
    let with = |file: &Value, path: &str, value: Value| {
        let mut file = file.clone();
        *file.pointer_mut(path).unwrap() = value;
        file
    };
    let strip = |start: u64, stop: u64| json!({"type": "Strip", "content": "i", "start": start, "stop": stop});
    let regex =
        |regex: String| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
    let replace = |from: Value, to: &str| json!({"type": "Replace", "pattern": from, "content": to});
    let grow = json!({"type": "Sequence", "normalizers": vec![replace(json!({"String": "i"}), "iiiiiiii"); 12]});
    let charsmap = |map: &str| json!({"type": "Precompiled", "precompiled_charsmap": map});
    let vocab = |vocab: Value, merges: Value, prefix: Value| {
        let file = with(&with(&bpe, "/model/vocab", vocab), "/model/merges", merges);
        with(&file, "/model/continuing_subword_prefix", prefix)
    };
    let truncation = json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 5});
    let padding = |length: u64| json!({"strategy": {"Fixed": length}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "x"});
    let long: Vec<Value> = (0..300).map(|n| json!(["a".repeat(n + 1), -1.0])).collect();
    let mut nested = json!({"type": "NFC"});
    for _ in 0..40 {
        nested = json!({"type": "Sequence", "normalizers": [nested]});
    }
    let token = bpe.pointer("/added_tokens/0").unwrap();
    let added: Vec<Value> = (0..1000).map(|n| with(token, "/content", json!(format!("{n:04}").repeat(500)))).collect();
    for (name, file, expect) in [
        ("stride of more than the length", with(&bpe, "/truncation", truncation), None),
        ("huge padding", with(&bpe, "/padding", padding(4_000_000_000)), None),
        ("padding of another form", with(&bpe, "/padding", json!({"strategy": 5})), None),
        ("dropout", with(&bpe, "/model/dropout", json!(0.9)), None),
        ("post-processor with strange tokens", with(&bpe, "/post_processor/special_tokens", json!({})), None),
        ("noise in the table", with(&bpe, "/normalizer", charsmap(&"pqen".repeat(500))), Some("precompiled_charsmap")),
        ("empty table", with(&bpe, "/normalizer", charsmap("")), Some("precompiled_charsmap")),
        ("small table", with(&bpe, "/normalizer", charsmap("BAAAAAAAAAA=")), Some("precompiled_charsmap")),
        (
            "prefix longer than the right token",
            vocab(json!({"a": 0, "b": 1, "ab": 2}), json!(["a b"]), json!("##########")),
            Some("merge of \"a\" and \"b\""),
        ),
        (
            "prefix in the middle of a letter",
            vocab(json!({"a": 0, "\u{e9}\u{e9}": 1, "a\u{e9}": 2}), json!(["a \u{e9}\u{e9}"]), json!("x")),
            Some("merge of"),
        ),
        ("merge of strangers", vocab(json!({"a": 0}), json!(["a b"]), json!(null)), Some("merge of")),
        ("huge ids", vocab(json!({"a": 4_294_967_295u64}), json!([]), json!(null)), Some("id that is too large")),
        ("stripping from the end", with(&bpe, "/decoder", strip(0, 3)), Some("strips other letters")),
        ("stripping endlessly", with(&bpe, "/decoder", strip(u64::MAX, 0)), Some("strips other letters")),
        ("groups in groups", with(&bpe, "/pre_tokenizer", regex("(".repeat(4000) + &")".repeat(4000))), Some("bytes")),
        (
            "groups in groups, short",
            with(&bpe, "/pre_tokenizer", regex("(".repeat(900) + &")".repeat(900))),
            Some("deep"),
        ),
        ("counts of counts", with(&bpe, "/pre_tokenizer", regex("(?:(?:a{1000}){1000}){1000}".into())), Some("counts")),
        ("no regular expression", with(&bpe, "/pre_tokenizer", regex("(?<".into())), Some("(?<")),
        ("replacements that grow", with(&bpe, "/normalizer", grow), Some("64 times longer")),
        (
            "replacing nothing",
            with(&bpe, "/normalizer", replace(json!({"Regex": "x*"}), "y")),
            Some("replaces nothing"),
        ),
        ("replacing an empty text", with(&bpe, "/normalizer", replace(json!({"String": ""}), "y")), Some("0 bytes")),
        (
            "pieces of no length",
            with(&bpe, "/pre_tokenizer", json!({"type": "FixedLength", "length": 0})),
            Some("impossible length"),
        ),
        ("sequences in sequences", with(&bpe, "/normalizer", nested), Some("deep")),
        ("long pieces", with(&unigram, "/model/vocab", Value::Array(long)), Some("256 bytes")),
        ("an unknown token that is none", with(&unigram, "/model/unk_id", json!(99)), Some("unk_id")),
        ("no tokens", with(&with(&unigram, "/model/vocab", json!([])), "/model/unk_id", json!(null)), None),
        ("words without end", with(&pieces, "/model/max_input_chars_per_word", json!(u32::MAX)), Some("more than 200")),
        ("a model of another kind", with(&bpe, "/model/type", json!("Magic")), Some("\"Magic\"")),
        ("added tokens, long together", with(&bpe, "/added_tokens", json!(added)), Some("added tokens")),
        ("a long added token", with(&bpe, "/added_tokens/0/content", json!("x".repeat(9000))), Some("added tokens")),
    ] {
        let bytes = file.to_string();
        let (error, peak) =
            peak_of(|| Tokenizer::from_json(bytes.as_bytes(), None).err().map(|error| error.to_string()));
        assert!(peak <= MOST, "{name}: {peak} bytes were held");
        match (expect, error) {
            (None, None) => assert!(try_out(bytes.as_bytes(), None), "{name}"),
            (Some(part), Some(error)) => assert!(error.contains(part) && error.len() < 600, "{name}: {error}"),
            (_, error) => panic!("{name}: {error:?}"),
        }
    }
    for (name, bytes) in [
        ("nothing", Vec::new()),
        ("a list in lists", "[".repeat(1 << 20).into_bytes()),
        ("objects in objects", "{\"model\":".repeat(1 << 18).into_bytes()),
        ("too large", vec![b' '; (64 << 20) + 1]),
        ("cut", sound()[0].to_string().into_bytes()[..400].to_vec()),
        ("not UTF-8", vec![0xFF; 64]),
        (
            "twice",
            br#"{"model":{"type":"BPE","vocab":{},"merges":[]},"model":{"type":"BPE","vocab":{},"merges":[]}}"#
                .to_vec(),
        ),
    ] {
        let (refused, peak) = peak_of(|| Tokenizer::from_json(&bytes, None).is_err());
        assert!(refused && peak <= MOST, "{name}: {peak}");
    }
}

/// Nothing is cut and nothing added, whatever the file asks for.
#[test]
fn prompts_are_whole() {
    let mut file = sound().remove(0);
    let plain = Tokenizer::from_json(file.to_string().as_bytes(), None).unwrap();
    file["truncation"] = json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    file["padding"] = json!({"strategy": {"Fixed": 99}, "direction": "Right", "pad_to_multiple_of": 8, "pad_id": 0, "pad_type_id": 0, "pad_token": "H"});
    let asked = Tokenizer::from_json(file.to_string().as_bytes(), None).unwrap();
    for text in ["Hi", "Hi Hi Hi Hi thi", ""] {
        assert_eq!(asked.encode_prompt(text).unwrap(), plain.encode_prompt(text).unwrap(), "{text:?}");
    }
}

/// Runs of spaces at which the library's regular expressions give up are refused rather than cut wrong.
#[test]
fn long_runs_are_refused() {
    let tokenizer = Tokenizer::from_json(sound()[0].to_string().as_bytes(), None).unwrap();
    let text = |spaces: usize| format!("Hi{}Hi thi", " ".repeat(spaces));
    assert!(tokenizer.encode_prompt(&text(1000)).is_ok());
    let error = tokenizer.encode_prompt(&text(1_200_000)).unwrap_err().to_string();
    assert!(error.contains("spaces"), "{error}");
    let mut file = sound().remove(0);
    file["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = json!("(?:a+)+(?!a)b|.");
    let tokenizer = Tokenizer::from_json(file.to_string().as_bytes(), None).unwrap();
    assert!(tokenizer.encode_prompt("Hi aab").is_ok());
    let error = tokenizer.encode_prompt(&"a".repeat(60)).unwrap_err().to_string();
    assert!(error.contains("gives up"), "{error}");
}

#[test]
fn other_files_of_a_folder_may_be_hostile() {
    let config = json!({"model_type": "llama", "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "intermediate_size": 16, "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "rope_theta": 100.0,
        "rope_scaling": {"rope_type": "yarn", "factor": 2.0}, "eos_token_id": [1, 2], "tie_word_embeddings": true});
    let names = json!({"bos_token": {"content": "<s>"}, "eos_token": "<|im_end|>", "add_bos_token": true,
        "chat_template": [{"name": "default", "template": "{{ messages }}"}]});
    let index = json!({"metadata": {"total_size": 12}, "weight_map": {"a": "m-1.safetensors"}});
    let tokenizer = sound()[0].to_string();
    let mut tried = 0;
    for file in [config, names, index] {
        let mut all = Vec::new();
        paths(&file, "", &mut all);
        for path in &all {
            for value in hostile_values() {
                let mut damaged = file.clone();
                *damaged.pointer_mut(path).unwrap() = value;
                let bytes = damaged.to_string();
                let bytes = bytes.as_bytes();
                let ((), peak) = peak_of(|| {
                    let words = TokenizerFiles {
                        tokenizer: tokenizer.as_bytes(),
                        tokenizer_config: Some(bytes),
                        chat_template: None,
                        generation_config: Some(bytes),
                        config: Some(bytes),
                    };
                    let _ = (words.template(), words.stops(), engine::engine::ChatTokenizer::from_files(&words));
                    let _ = (Blueprint::from_hf_json(bytes), Index::parse(bytes));
                    let _ = try_out(tokenizer.as_bytes(), Some(bytes));
                });
                assert!(peak <= MOST, "{path}: {peak} bytes");
                tried += 1;
            }
        }
    }
    assert!(tried > 400, "{tried}");
}

/// The end of an answer is named in one of two files.
#[test]
fn ends_are_named_in_either_file() {
    let files = |generation: Option<&'static str>, config: Option<&'static str>| TokenizerFiles {
        generation_config: generation.map(str::as_bytes),
        config: config.map(str::as_bytes),
        ..TokenizerFiles::default()
    };
    for (generation, config, expect) in [
        (Some(r#"{"eos_token_id":[3,4]}"#), Some(r#"{"eos_token_id":5}"#), vec![3, 4]),
        (Some(r#"{"temperature":1}"#), Some(r#"{"eos_token_id":5}"#), vec![5]),
        (None, Some(r#"{"eos_token_id":[5,6]}"#), vec![5, 6]),
        (None, Some(r#"{"eos_token_id":null,"text_config":{"eos_token_id":7}}"#), vec![7]),
        (Some(r#"{"eos_token_id":null}"#), None, vec![]),
        (None, None, vec![]),
    ] {
        assert_eq!(files(generation, config).stops().unwrap(), expect, "{generation:?} {config:?}");
    }
}
