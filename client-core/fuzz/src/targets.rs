//! One function for each kind of outside data. It returns whether the input was sound, and panics when the code under test
//! breaks a promise.

use engine::config::Blueprint;
use engine::engine::ChatTokenizer;
use engine::gguf::{GgmlType, Gguf};
use engine::safetensors::{Checkpoint, Index, TensorFile, TokenizerFiles, weight_files};
use engine::template::ChatTemplate;
use engine::weights::ModelWeights;
use engine::{ChatMessage, Tokenizer};

use crate::counting::peak_of;
use crate::seeds::CONFIG;

/// All targets.
pub const NAMES: [&str; 6] = ["gguf", "safetensors", "tokenizer", "template", "tokenizer_json", "folder"];

/// What a reader may hold beyond twice its input: its lists of up to 4096 entries each.
const SLACK: usize = 1 << 20;

/// The target called `name`.
pub fn by_name(name: &str) -> Option<fn(&[u8]) -> bool> {
    Some(match name {
        "gguf" => gguf,
        "safetensors" => safetensors,
        "tokenizer" => tokenizer,
        "template" => template,
        "tokenizer_json" => tokenizer_json,
        "folder" => folder,
        _ => return None,
    })
}

/// A GGUF file: the reader, then the model that it describes.
pub fn gguf(data: &[u8]) -> bool {
    let (parsed, peak) = peak_of(|| Gguf::parse(data));
    assert!(peak <= 2 * data.len() + SLACK, "the reader held {peak} bytes for {} of input", data.len());
    let Ok(gguf) = parsed else { return false };
    let mut spans = Vec::new();
    for (name, info) in gguf.tensors() {
        let (_, bytes) = gguf.tensor(name).expect("a listed tensor is inside the file");
        assert_eq!(bytes.len(), info.len);
        spans.push((info.start, info.start + info.len as u64));
    }
    spans.sort_unstable();
    assert!(spans.windows(2).all(|pair| pair[0].1 <= pair[1].0), "two tensors overlap");
    for value in gguf.metadata().values() {
        if let Some(list) = value.as_array() {
            assert_eq!(list.iter().count(), list.len());
        }
    }
    if let Ok(weights) = ModelWeights::from_gguf(&gguf) {
        assert_eq!(weights.layers.len(), weights.config.layers);
        let row = weights.embedding.row_f32(0).expect("the embedding has rows");
        assert_eq!(row.len(), weights.config.dim);
        assert_eq!(weights.config.rope.frequencies().len(), weights.config.rope.dim / 2);
        let last = &weights.layers[weights.config.layers - 1];
        assert_eq!(last.q.bytes.len(), last.q.dtype.row_bytes(last.q.cols).expect("whole blocks") * last.q.rows);
    }
    true
}

/// A safetensors file: the reader, then the checkpoint around it; and the input as a `config.json`.
pub fn safetensors(data: &[u8]) -> bool {
    let _ = Blueprint::from_hf_json(data);
    let (parsed, peak) = peak_of(|| TensorFile::parse(data));
    assert!(peak <= 2 * data.len() + SLACK, "the reader held {peak} bytes for {} of input", data.len());
    let Ok(file) = parsed else { return false };
    let covered: usize = file.names().map(|name| file.tensor(name).expect("listed").len).sum();
    let header = u64::from_le_bytes(data[..8].try_into().expect("eight bytes")) as usize;
    assert_eq!(8 + header + covered, data.len());
    let checkpoint = Checkpoint {
        config: CONFIG.as_bytes(),
        words: TokenizerFiles::default(),
        shards: vec![data],
        store_as: GgmlType::Q8_0,
    };
    if let Ok(weights) = checkpoint.weights() {
        assert_eq!(weights.layers.len(), weights.config.layers);
    }
    true
}

/// The tokenizer of a GGUF file, then a text there and back.
pub fn tokenizer(data: &[u8]) -> bool {
    let Ok(gguf) = Gguf::parse(data) else { return false };
    let Ok(tokenizer) = Tokenizer::from_gguf(&gguf) else { return false };
    used(&tokenizer)
}

/// A text there and back.
fn used(tokenizer: &Tokenizer) -> bool {
    const TEXT: &str = "Hi <s>there, it's 12\n \u{1F980}!";
    let Ok(ids) = tokenizer.encode_prompt(TEXT) else { return false };
    // Nothing is padded, and no replacement makes a text longer without bound.
    assert!(ids.len() <= 80 * TEXT.len(), "{} tokens", ids.len());
    let _ = (tokenizer.encode_text(TEXT), tokenizer.encode_whole(TEXT), tokenizer.stream_after(&ids));
    let mut stream = tokenizer.stream();
    for id in ids.iter().copied().take(64).chain([u32::MAX]) {
        let _ = stream.push(id);
        let _ = tokenizer.token_text(id);
        let _ = tokenizer.is_stop(id);
    }
    let _ = stream.finish();
    true
}

/// What a render of a short conversation may hold: its budget of 16 MiB, and what one operation needs for a moment beside.
const RENDER: usize = 80 << 20;

/// A chat template, with a short conversation.
pub fn template(data: &[u8]) -> bool {
    let Ok(source) = std::str::from_utf8(data) else { return false };
    let message = |role: &str, content: &str| ChatMessage { role: role.into(), content: content.into() };
    let messages = [message("system", "Be brief."), message("user", " Hi! "), message("assistant", "x\ny")];
    let (rendered, peak) = peak_of(|| ChatTemplate::new(Some(source), "<s>", "</s>")?.render(&messages));
    assert!(peak <= RENDER, "the render held {peak} bytes");
    rendered.is_ok()
}

/// What reading a small tokenizer and encoding a short text may hold.
const TOKENIZER: usize = 64 << 20;

/// A `tokenizer.json`, then a text there and back.
pub fn tokenizer_json(data: &[u8]) -> bool {
    let (worked, peak) = peak_of(|| Tokenizer::from_json(data, None).is_ok_and(|tokenizer| used(&tokenizer)));
    assert!(peak <= TOKENIZER + 40 * data.len(), "the tokenizer held {peak} bytes for {} of input", data.len());
    worked
}

/// What cuts an input into the files of a folder.
pub const CUT: &[u8] = b"\n=====\n";

/// A checkpoint's folder but for its tensors: config, tokenizer, its config, the generation's, the index of files, one
/// after the other.
pub fn folder(data: &[u8]) -> bool {
    let mut files = Vec::new();
    let mut rest = data;
    while let Some(at) = rest.windows(CUT.len()).position(|window| window == CUT) {
        files.push(&rest[..at]);
        rest = &rest[at + CUT.len()..];
    }
    files.push(rest);
    let file = |at: usize| files.get(at).copied();
    let words = TokenizerFiles {
        tokenizer: file(1).unwrap_or_default(),
        tokenizer_config: file(2),
        chat_template: None,
        generation_config: file(3),
        config: file(0),
    };
    let blueprint = file(0).map(Blueprint::from_hf_json);
    let index = file(4).map(Index::parse);
    if let Some(Ok(index)) = &index {
        let names = index.files.iter().map(String::as_str).chain(["config.json"]).collect();
        assert!(weight_files(&names, Some(index)).is_err(), "a folder without a tokenizer is not whole");
    }
    let words = ChatTokenizer::from_files(&words);
    if let (Some(Ok(blueprint)), Ok(words)) = (&blueprint, &words) {
        let fits = words.tokenizer.check_ids(blueprint.config.vocab).is_ok();
        assert!(!fits || words.tokenizer.eos().is_none_or(|id| (id as usize) < blueprint.config.vocab));
    }
    words.is_ok_and(|words| used(&words.tokenizer))
}
