//! The tokenizer that is built from GGUF metadata against the one that its lists were taken from.

use proptest::prelude::*;

use super::*;
use crate::gguf::builder::Builder;
use crate::testing::{TEXT, trained};

pub(super) fn file(
    tokens: &[String],
    merges: &[String],
    pre: &str,
    extra: impl Fn(Builder) -> (Builder, u64),
) -> Vec<u8> {
    let b = Builder::default();
    let b = b.str("tokenizer.ggml.model").u32(8).str("gpt2").str("tokenizer.ggml.pre").u32(8).str(pre);
    let b = b.str("tokenizer.ggml.tokens").u32(9).u32(8).u64(tokens.len() as u64);
    let b = tokens.iter().fold(b, |b, t| b.str(t));
    let b = b.str("tokenizer.ggml.merges").u32(9).u32(8).u64(merges.len() as u64);
    let b = merges.iter().fold(b, |b, m| b.str(m));
    let (b, more) = extra(b);
    Builder::header(0, 4 + more).raw(&b.0).0
}

pub(super) fn load(bytes: &[u8]) -> Result<Tokenizer, EngineError> {
    Tokenizer::from_gguf(&Gguf::parse(bytes).expect("the file itself is sound"))
}

fn with_specials() -> (Tokenizer, tokenizers::Tokenizer) {
    let (mut tokens, merges, original) = trained(400);
    let base = tokens.len();
    tokens.extend(["<|s|>".to_owned(), "<|im_end|>".to_owned()]);
    let kinds = |b: Builder| {
        let b = b.str("tokenizer.ggml.token_type").u32(9).u32(5).u64(base as u64 + 2);
        let b = (0..base + 2).fold(b, |b, i| b.u32(if i < base { 1 } else { 3 }));
        let b = b.str("tokenizer.ggml.bos_token_id").u32(4).u32(base as u32);
        let b = b.str("tokenizer.ggml.eos_token_id").u32(4).u32(base as u32 + 1);
        (b.str("tokenizer.ggml.add_bos_token").u32(7).raw(&[1]), 4)
    };
    (load(&file(&tokens, &merges, "gpt-2", kinds)).unwrap(), original)
}

#[test]
fn special_tokens() {
    let (tokenizer, _) = with_specials();
    let (bos, eos) = (tokenizer.bos().unwrap(), tokenizer.eos().unwrap());
    let ids = tokenizer.encode("<|s|>hi<|im_end|>").unwrap();
    assert_eq!((ids.first(), ids.last()), (Some(&bos), Some(&eos)));
    assert_eq!(tokenizer.decode(&ids).unwrap(), "hi");
    assert_eq!(tokenizer.encode_prompt("hi").unwrap()[0], bos);
    assert_eq!(tokenizer.encode_prompt("<|s|>hi").unwrap().iter().filter(|id| **id == bos).count(), 1);
    assert!(tokenizer.is_stop(eos) && !tokenizer.is_stop(bos));
    assert_eq!(tokenizer.special_text(Some(bos)), "<|s|>");
    assert_eq!(tokenizer.token_text(eos), "<|im_end|>");
}

#[test]
fn an_unknown_way_of_cutting_text_is_named_with_what_helps() {
    let (tokens, merges, _) = trained(400);
    let error = load(&file(&tokens, &merges, "from-tomorrow", |b| (b, 0))).unwrap_err().to_string();
    for part in ["\"from-tomorrow\"", "tokenizer.ggml.pre", "tokenizer.json"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn known_pre_tokenizers_keep_the_text() {
    let (tokens, merges, _) = trained(400);
    for pre in ["default", "gpt-2", "llama-bpe", "smaug-bpe", "qwen2", "smollm", "tekken"] {
        let tokenizer = load(&file(&tokens, &merges, pre, |b| (b, 0))).unwrap();
        for text in TEXT {
            assert_eq!(tokenizer.decode(&tokenizer.encode(text).unwrap()).unwrap(), text, "{pre}");
        }
    }
}

fn sentence_piece(tokens: &[&str], scores: &[f32]) -> Vec<u8> {
    let b = Builder::header(0, 3).str("tokenizer.ggml.model").u32(8).str("llama");
    let b = b.str("tokenizer.ggml.tokens").u32(9).u32(8).u64(tokens.len() as u64);
    let b = tokens.iter().fold(b, |b, token| b.str(token));
    let b = b.str("tokenizer.ggml.scores").u32(9).u32(6).u64(scores.len() as u64);
    scores.iter().fold(b, |b, score| b.u32(score.to_bits())).0
}

/// A SentencePiece vocabulary as Gemma's files have it: no space in front of a text, an end and a beginning of other
/// numbers than usual, an end of turn that is neither, and runs of spaces and new lines that are tokens as a whole.
#[test]
fn gemmas_vocabulary() {
    let tokens = [
        "<pad>",
        "<eos>",
        "<bos>",
        "<unk>",
        "<start_of_turn>",
        "<end_of_turn>",
        "\n",
        "  ",
        "<0xC3>",
        "<0xA9>",
        "hi",
        "\u{2581}hi",
        "us",
        "er",
        "user",
        "\u{2581}",
        "h",
        "i",
        "u",
        "s",
        "e",
        "r",
    ];
    let kinds = |id: usize| match id {
        3 => 2,
        0..6 => 3,
        6 | 7 => 4,
        8 | 9 => 6,
        _ => 1,
    };
    let b = Builder::header(0, 8).str("tokenizer.ggml.model").u32(8).str("llama");
    let b = b.str("tokenizer.ggml.tokens").u32(9).u32(8).u64(tokens.len() as u64);
    let b = tokens.iter().fold(b, |b, token| b.str(token));
    let b = b.str("tokenizer.ggml.scores").u32(9).u32(6).u64(tokens.len() as u64);
    let b = (0..tokens.len()).fold(b, |b, id| b.u32((-(id as f32)).to_bits()));
    let b = b.str("tokenizer.ggml.token_type").u32(9).u32(5).u64(tokens.len() as u64);
    let b = (0..tokens.len()).fold(b, |b, id| b.u32(kinds(id)));
    let ids = [("bos", 2), ("eos", 1), ("unknown", 3)];
    let b = ids.iter().fold(b, |b, (key, id)| b.str(&format!("tokenizer.ggml.{key}_token_id")).u32(4).u32(*id));
    let tokenizer = load(&b.str("tokenizer.ggml.add_space_prefix").u32(7).raw(&[0]).0).unwrap();
    let text = "<start_of_turn>user\nhi hi  hi\u{e9}<end_of_turn>";
    let ids = tokenizer.encode_prompt(text).unwrap();
    assert_eq!(ids, [2, 4, 14, 6, 10, 11, 7, 10, 8, 9, 5]);
    assert_eq!(tokenizer.decode(&ids).unwrap(), "user\nhi hi  hi\u{e9}");
    assert_eq!(tokenizer.encode_prompt(&format!("<bos>{text}")).unwrap(), ids);
    let stops: Vec<u32> = (0..tokens.len() as u32).filter(|id| tokenizer.is_stop(*id)).collect();
    assert_eq!(stops, [1, 5]);
}

/// llama.cpp's cuts of the same texts with the same vocabularies; see tests/golden/make_tokenizers.py.
#[test]
fn the_same_tokens_as_llama_cpp() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tokenizers");
    let golden: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("golden.json")).unwrap()).unwrap();
    let ids = |list: &serde_json::Value| -> Vec<u32> {
        list.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
    };
    let texts: Vec<&str> = golden["spm"].as_array().unwrap().iter().map(|e| e["text"].as_str().unwrap()).collect();
    assert!(texts.len() > 60);

    let file_spm = std::fs::read(folder.join("spm.gguf")).unwrap();
    let spm = load(&file_spm).unwrap();
    for entry in golden["spm"].as_array().unwrap() {
        let text = entry["text"].as_str().unwrap();
        let mut expect = ids(&entry["ids"]);
        // llama.cpp puts a beginning even before a written one; here one is enough.
        if expect.starts_with(&[1, 1]) {
            expect.remove(0);
        }
        assert_eq!(spm.encode_prompt(text).unwrap(), expect, "{text:?}");
        assert_eq!(spm.decode(&expect).unwrap(), entry["back"].as_str().unwrap(), "{text:?}");
        let mut stream = spm.stream();
        let mut shown: String = expect.iter().map(|id| stream.push(*id).unwrap()).collect();
        shown += &stream.finish().unwrap();
        assert_eq!(shown, entry["back"].as_str().unwrap(), "streaming {text:?}");
    }

    let file_bpe = std::fs::read(folder.join("bpe.gguf")).unwrap();
    let lists = Gguf::parse(&file_bpe).unwrap();
    let list = |key: &str| -> Vec<String> {
        let list = lists.get(key).unwrap().as_array().unwrap().as_strs().unwrap();
        list.iter().map(|text| (*text).to_owned()).collect()
    };
    let (tokens, merges) = (list("tokenizer.ggml.tokens"), list("tokenizer.ggml.merges"));
    let first_control = tokens.len() - 3;
    let kinds = |b: Builder| {
        let b = b.str("tokenizer.ggml.token_type").u32(9).u32(5).u64(tokens.len() as u64);
        let b = (0..tokens.len()).fold(b, |b, i| b.u32(if i < first_control { 1 } else { 3 }));
        (b.str("tokenizer.ggml.bos_token_id").u32(4).u32(first_control as u32), 2)
    };
    for (pre, cuts) in golden["bpe"].as_object().unwrap() {
        let tokenizer = load(&file(&tokens, &merges, pre, kinds)).unwrap();
        for (text, expect) in texts.iter().zip(cuts.as_array().unwrap()) {
            let mut expect = ids(expect);
            if expect.starts_with(&[first_control as u32; 2]) {
                expect.remove(0);
            }
            assert_eq!(tokenizer.encode_prompt(text).unwrap(), expect, "{pre} {text:?}");
        }
    }
}

#[test]
fn contradictions_are_refused() {
    let (tokens, merges, _) = trained(400);
    let id = |key: &'static str, id: u32| {
        move |b: Builder| (b.str(&format!("tokenizer.ggml.{key}_token_id")).u32(4).u32(id), 1)
    };
    let with = |list: &[String], more: &str| list.iter().cloned().chain([more.to_owned()]).collect::<Vec<_>>();
    // A control token takes a hundred times its length in memory, and a run of one letter can be made of others in 130,000 ways.
    let long = with(&with(&tokens, &"x".repeat(600_000)), &"y".repeat(600_000));
    let control = |b: Builder| {
        let b = b.str("tokenizer.ggml.token_type").u32(9).u32(5).u64(long.len() as u64);
        ((0..long.len()).fold(b, |b, i| b.u32(if i < tokens.len() { 1 } else { 3 })), 1)
    };
    let runs: Vec<String> = (0..=512).map(|n| "c".repeat(n)).collect();
    let runs: Vec<&str> = runs.iter().map(|run| if run.is_empty() { "<unk>" } else { run.as_str() }).collect();
    for (name, bytes, expect) in [
        ("long control token", file(&long, &merges, "gpt-2", control), "control and user-defined tokens"),
        ("runs of a letter", sentence_piece(&runs, &vec![0.0; runs.len()]), "too many ways"),
        ("end outside", file(&tokens, &merges, "gpt-2", id("eos", 9999)), "9999"),
        ("beginning below", file(&tokens, &merges, "gpt-2", id("bos", u32::MAX)), "bos_token_id"),
        ("unknown outside", file(&tokens, &merges, "gpt-2", id("unknown", tokens.len() as u32)), "unknown_token_id"),
        ("merge of strangers", file(&tokens, &with(&merges, "qqqq zzzz"), "gpt-2", |b| (b, 0)), "not in the list"),
        ("merge of one", file(&tokens, &with(&merges, "abc"), "gpt-2", |b| (b, 0)), "not two tokens"),
        ("unknown scheme", file(&tokens, &merges, "klingon", |b| (b, 0)), "klingon"),
        ("no tokens", Builder::header(0, 1).str("tokenizer.ggml.model").u32(8).str("gpt2").0, "tokens is missing"),
        ("another kind", Builder::header(0, 1).str("tokenizer.ggml.model").u32(8).str("bert").0, "bert"),
        ("no scores", sentence_piece(&["<unk>", "a", "b", "ab"], &[]), "4 tokens with 0 scores"),
        ("NaN", sentence_piece(&["<unk>", "a"], &[0.0, f32::NAN]), "scores"),
        ("long piece", sentence_piece(&["<unk>", &"a".repeat(513)], &[0.0, 1.0]), "513 bytes"),
    ] {
        let error = load(&bytes).expect_err(name).to_string();
        assert!(error.contains(expect), "{name}: {error}");
    }
}

/// The library puts a prefix to every letter of a text.
#[test]
fn affixes_are_bounded() {
    for (key, expect) in [("continuing_subword_prefix", "prefix"), ("end_of_word_suffix", "suffix")] {
        let json = |len: usize| {
            let model = serde_json::json!({ "type": "BPE", "vocab": { "a": 0 }, "merges": [], key: "#".repeat(len) });
            serde_json::json!({ "model": model }).to_string()
        };
        let error = Tokenizer::from_json(json(300).as_bytes(), None).expect_err(key).to_string();
        assert!(error.contains(expect) && error.contains("256 bytes"), "{error}");
        assert!(Tokenizer::from_json(json(4).as_bytes(), None).is_ok());
    }
}

/// A word's cost grows with the square of its length, and cutting it cannot be stopped.
#[test]
fn words_of_word_pieces_are_bounded() {
    let json = |letters: usize| {
        let model = serde_json::json!({ "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": letters, "vocab": { "[UNK]": 0, "a": 1 } });
        serde_json::json!({ "model": model }).to_string()
    };
    let error = Tokenizer::from_json(json(201).as_bytes(), None).expect_err("too long").to_string();
    assert!(error.contains("201 letters") && error.contains("more than 200"), "{error}");
    assert!(Tokenizer::from_json(json(200).as_bytes(), None).is_ok());
}

/// Official files have some tokens twice: text becomes the first, and the second is shown like it.
#[test]
fn tokens_may_occur_twice() {
    let (mut tokens, merges, _) = trained(400);
    let (twice, count) = (tokens[300].clone(), tokens.len() as u32);
    let plain = load(&file(&tokens, &merges, "gpt-2", |b| (b, 0))).unwrap();
    tokens.push(twice);
    let tokenizer = load(&file(&tokens, &merges, "gpt-2", |b| (b, 0))).unwrap();
    for text in TEXT {
        assert_eq!(tokenizer.encode(text).unwrap(), plain.encode(text).unwrap());
    }
    assert_eq!(tokenizer.decode(&[count, 300]).unwrap(), plain.decode(&[300, 300]).unwrap());
    let shown = |tokenizer: &Tokenizer, id: u32| (tokenizer.token_text(id), tokenizer.token_bytes(id));
    assert_eq!(shown(&tokenizer, count), shown(&plain, 300));
    let mut stream = tokenizer.stream();
    assert_eq!(stream.push(count).unwrap(), plain.token_text(300));
}

#[test]
fn an_end_is_put_behind_whole_texts_alone() {
    let (mut tokens, merges, _) = trained(400);
    let eos = tokens.len() as u32;
    tokens.push("<eos>".to_owned());
    let more = |b: Builder| {
        let b = b.str("tokenizer.ggml.eos_token_id").u32(4).u32(eos);
        (b.str("tokenizer.ggml.add_eos_token").u32(7).raw(&[1]), 2)
    };
    let tokenizer = load(&file(&tokens, &merges, "gpt-2", more)).unwrap();
    assert!(!tokenizer.encode_prompt("The capital").unwrap().contains(&eos));
    assert!(!tokenizer.encode_text("The capital").unwrap().contains(&eos));
    assert_eq!(tokenizer.encode_whole("The capital").unwrap().last(), Some(&eos));
    assert!(tokenizer.check_ids(eos as usize + 1).is_ok());
    let error = tokenizer.check_ids(eos as usize).unwrap_err().to_string();
    assert!(error.contains(&format!("end-of-sequence token is {eos}")), "{error}");
}

/// SentencePiece puts a space in front of a text and takes it away again. What goes on after another text keeps its own.
#[test]
fn continuations_keep_their_first_space() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tokenizers");
    let spm = std::fs::read(folder.join("spm.gguf")).unwrap();
    let spm = load(&spm).unwrap();
    let (bpe, _) = with_specials();
    for tokenizer in [&spm, &bpe] {
        for (prompt, rest) in [
            ("The capital of France is", " Paris is"),
            ("The capital of France is", "n't"),
            ("The capital", " of\n France"),
            ("\u{6771}\u{4EAC}", " \u{6771}"),
            ("a  ", "b"),
        ] {
            let whole = tokenizer.encode_prompt(&format!("{prompt}{rest}")).unwrap();
            // Wherever the tokens are handed over.
            for cut in 1..whole.len() {
                let (before, after) = whole.split_at(cut);
                let begun = tokenizer.decode(before).unwrap();
                if begun.ends_with('\u{FFFD}') {
                    continue;
                }
                let mut stream = tokenizer.stream_after(before).unwrap();
                let mut text: String = after.iter().map(|id| stream.push(*id).unwrap()).collect();
                text += &stream.finish().unwrap();
                assert_eq!(begun + &text, format!("{prompt}{rest}"), "{whole:?} at {cut}");
            }
        }
    }
    // Behind a control token a text begins, and has no space that nobody wrote.
    let bos = spm.bos().unwrap();
    let ids = spm.encode("Paris").unwrap();
    let mut stream = spm.stream_after(&[ids.as_slice(), &[bos]].concat()).unwrap();
    let text: String = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
    assert_eq!(text, "Paris");
}

/// Bytes of tokens, also of parts of letters.
#[test]
fn bytes_of_tokens_make_the_text() {
    let (bpe, _) = with_specials();
    for text in TEXT {
        let bytes: Vec<u8> = bpe.encode(text).unwrap().iter().flat_map(|id| bpe.token_bytes(*id)).collect();
        assert_eq!(String::from_utf8(bytes).unwrap(), text);
    }
    assert_eq!(bpe.token_bytes(bpe.eos().unwrap()), b"<|im_end|>");
    assert!(bpe.token_bytes(u32::MAX).is_empty());
}

proptest! {
    #[test]
    fn the_same_tokens_as_the_original(text in "\\PC{0,60}") {
        let (tokenizer, original) = with_specials();
        let ids = tokenizer.encode(&text).unwrap();
        let expect = original.encode(text.as_str(), false).unwrap();
        prop_assert_eq!(&ids, expect.get_ids());
        prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }

    #[test]
    fn streaming_gives_the_same_text(text in "\\PC{0,60}") {
        let (tokenizer, _) = with_specials();
        let mut stream = tokenizer.stream();
        let mut shown = String::new();
        for id in tokenizer.encode(&text).unwrap() {
            let fresh = stream.push(id).unwrap();
            let torn = fresh.contains('\u{FFFD}') && !text.contains('\u{FFFD}');
            prop_assert!(!torn);
            shown += &fresh;
        }
        shown += &stream.finish().unwrap();
        prop_assert_eq!(shown, text);
    }
}
