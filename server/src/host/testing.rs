//! A small random model for the tests of this module: it writes nonsense, but it is the real engine that writes it.

use engine::cpu::CpuBackend;
use engine::gguf::GgmlType;
use engine::synthetic::{self, Storage};
use engine::template::ChatTemplate;
use engine::{Engine, Tokenizer};
use serde_json::json;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::ModelCard;

/// A token for each byte, `<s>` in front of every text, and nothing that ends an answer.
pub fn engine(context: usize) -> Engine {
    engine_with(context, "{% for m in messages %}{{ m.content }}:{% endfor %}")
}

/// As [`engine`], with another chat template.
pub fn engine_with(context: usize, template: &str) -> Engine {
    let mut letters: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    letters.sort_unstable();
    let vocab: serde_json::Map<String, serde_json::Value> =
        letters.iter().enumerate().map(|(id, letter)| (letter.to_string(), json!(id))).collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [{"id": 256, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}],
        "pre_tokenizer": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": []},
    });
    let names = json!({"bos_token": "<s>", "add_bos_token": true}).to_string();
    let tokenizer = Tokenizer::from_json(tokenizer.to_string().as_bytes(), Some(names.as_bytes())).unwrap();
    let mut config = synthetic::config([257, 32, 1, 2, 1, 32]);
    config.context = context;
    let storage = Storage { blocks: GgmlType::Q8_0, embedding: GgmlType::Q8_0, untied: false };
    let weights = synthetic::weights(config, storage, 1).unwrap();
    let template = ChatTemplate::new(Some(template), "<s>", "").unwrap();
    Engine::from_parts(tokenizer, template, &weights, Box::new(CpuBackend::new(&weights).unwrap())).unwrap()
}

pub fn card() -> ModelCard {
    ModelCard { id: "tiny".into(), name: "Tiny".into(), context_length: Some(512), parameters: None }
}
