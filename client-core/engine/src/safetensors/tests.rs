//! A small checkpoint written and read, whole and in shards.

use ::safetensors::Dtype;

use super::*;

#[test]
fn a_checkpoint_is_read_and_checked() {
    use ::safetensors::tensor::{TensorView, serialize};
    let config =
        br#"{"model_type":"llama","vocab_size":6,"hidden_size":4,"num_hidden_layers":1,"num_attention_heads":2,
        "num_key_value_heads":1,"intermediate_size":3,"max_position_embeddings":16,"rms_norm_eps":1e-5}"#;
    let shapes: Vec<(&str, Vec<usize>)> = vec![
        ("model.embed_tokens.weight", vec![6, 4]),
        ("model.norm.weight", vec![4]),
        ("model.layers.0.input_layernorm.weight", vec![4]),
        ("model.layers.0.post_attention_layernorm.weight", vec![4]),
        ("model.layers.0.self_attn.q_proj.weight", vec![4, 4]),
        ("model.layers.0.self_attn.k_proj.weight", vec![2, 4]),
        ("model.layers.0.self_attn.v_proj.weight", vec![2, 4]),
        ("model.layers.0.self_attn.o_proj.weight", vec![4, 4]),
        ("model.layers.0.mlp.gate_proj.weight", vec![3, 4]),
        ("model.layers.0.mlp.up_proj.weight", vec![3, 4]),
        ("model.layers.0.mlp.down_proj.weight", vec![4, 3]),
    ];
    let file = |skip: &str, reshape: &str| {
        let data: Vec<(String, Vec<usize>, Vec<u8>)> = shapes
            .iter()
            .filter(|(name, _)| *name != skip)
            .map(|(name, shape)| {
                let values = 0..shape.iter().product::<usize>();
                let shape = if *name == reshape { vec![1, shape.iter().product()] } else { shape.clone() };
                ((*name).to_owned(), shape, values.flat_map(|v| (v as f32).to_le_bytes()).collect())
            })
            .collect();
        let views = data
            .iter()
            .map(|(name, shape, bytes)| (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
        serialize(views, None).unwrap()
    };
    let read = |bytes: &[u8]| {
        let checkpoint =
            Checkpoint { config, words: TokenizerFiles::default(), shards: vec![bytes], store_as: GgmlType::Q8_0 };
        checkpoint.weights()
    };
    let weights = read(&file("", "")).unwrap();
    // Rows of four are not blocks of 32: they stay single precision. Heads of two rows keep their order.
    assert_eq!(weights.layers[0].q.dtype, GgmlType::F32);
    assert_eq!(weights.embedding.row_f32(1).unwrap(), [4.0, 5.0, 6.0, 7.0]);
    assert_eq!(weights.parameters(), 24 + 12 + 16 + 8 + 8 + 16 + 12 * 3);
    let missing = read(&file("model.norm.weight", "")).unwrap_err().to_string();
    assert!(missing.contains("model.norm.weight"), "{missing}");
    let reshaped = read(&file("", "model.layers.0.mlp.up_proj.weight")).unwrap_err().to_string();
    assert!(reshaped.contains("shape"), "{reshaped}");
    assert!(read(b"not safetensors").is_err());
}

#[test]
fn templates_and_stops_are_found_wherever_they_are() {
    let from = |config: &'static str, jinja: Option<&'static str>| TokenizerFiles {
        tokenizer_config: Some(config.as_bytes()),
        chat_template: jinja.map(str::as_bytes),
        ..TokenizerFiles::default()
    };
    let named = r#"{"chat_template":[{"name":"tool_use","template":"t"},{"name":"default","template":"d"}]}"#;
    for (files, expect) in [
        (from(r#"{"chat_template":"{{ messages }}"}"#, None), Some("{{ messages }}")),
        (from(r#"{"chat_template":"old"}"#, Some("new")), Some("new")),
        (from(named, None), Some("d")),
        (from("{}", None), None),
        (TokenizerFiles::default(), None),
    ] {
        assert_eq!(files.template().unwrap().as_deref(), expect, "{files:?}");
    }
    assert!(from("{", None).template().is_err());
    for (json, expect) in [
        (r#"{"eos_token_id":7}"#, Some(vec![7])),
        (r#"{"eos_token_id":[7,9,-1]}"#, Some(vec![7, 9])),
        (r#"{"eos_token_id":-1}"#, Some(vec![])),
        (r#"{"eos_token_id":[7,"x"]}"#, None),
        (r#"{"eos_token_id":[7,99999999999]}"#, None),
        (r#"{"eos_token_id":7.5}"#, None),
        (r#"{"eos_token_id":null}"#, Some(vec![])),
        ("{}", Some(vec![])),
        ("[", None),
    ] {
        let files = TokenizerFiles { generation_config: Some(json.as_bytes()), ..TokenizerFiles::default() };
        assert_eq!(files.stops().ok(), expect, "{json}");
    }
}
