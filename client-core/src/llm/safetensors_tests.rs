//! Reordering for RoPE, and a small checkpoint written and read.

use super::*;

#[test]
fn heads_are_interleaved() {
    // Two heads of four rows with one column: 0 1 2 3 | 4 5 6 7.
    let rows: Vec<f32> = (0..8u8).map(f32::from).collect();
    assert_eq!(interleave_heads(&rows, 4, 1), [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
}

/// The score of a rotated query and key is the same in both conventions, at any distance.
#[test]
fn both_conventions_give_the_same_scores() {
    let head_dim = 8;
    let rope = crate::llm::config::RopeConfig { base: 100.0, dim: head_dim, freq_divisors: vec![], magnitude: 1.0 };
    let (q, k): (Vec<f32>, Vec<f32>) = (0..8).map(|i| ((i as f32).sin(), (i as f32 * 1.7).cos())).unzip();
    let angles = |position| {
        let mut out = Vec::new();
        rope.rotation_at(&rope.frequencies(), position, &mut out);
        out
    };
    let half_split = |x: &[f32], position| {
        let turn = angles(position);
        let mut out = x.to_vec();
        for i in 0..4 {
            let (cos, sin) = (turn[2 * i], turn[2 * i + 1]);
            out[i] = x[i] * cos - x[i + 4] * sin;
            out[i + 4] = x[i + 4] * cos + x[i] * sin;
        }
        out
    };
    let neighbours = |x: &[f32], position| {
        let turn = angles(position);
        let mut out = interleave_heads(x, 8, 1);
        for i in 0..4 {
            let (cos, sin) = (turn[2 * i], turn[2 * i + 1]);
            let (a, b) = (out[2 * i], out[2 * i + 1]);
            out[2 * i] = a * cos - b * sin;
            out[2 * i + 1] = a * sin + b * cos;
        }
        out
    };
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    for distance in [0, 1, 7, 100] {
        let theirs = dot(&half_split(&q, 5 + distance), &half_split(&k, 5));
        let ours = dot(&neighbours(&q, 5 + distance), &neighbours(&k, 5));
        assert!((theirs - ours).abs() < 1e-5, "distance {distance}: {theirs} and {ours}");
    }
}

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
        let checkpoint = Checkpoint {
            config,
            tokenizer: b"",
            tokenizer_config: Some(br#"{"chat_template":"{{ messages }}"}"#),
            chat_template: None,
            shards: vec![bytes],
            store_as: GgmlType::Q8_0,
        };
        assert_eq!(checkpoint.template().unwrap().as_deref(), Some("{{ messages }}"));
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
