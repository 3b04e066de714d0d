//! What `config.json` files of every family mean, and what is refused. GGUF metadata is tested with whole files.

use super::*;

const HF: &str = r#"{"model_type":"llama","vocab_size":2048,"hidden_size":256,"num_hidden_layers":6,
    "num_attention_heads":8,"num_key_value_heads":4,"intermediate_size":704,"max_position_embeddings":512,
    "rms_norm_eps":1e-5,"rope_theta":10000.0}"#;

/// `HF` as another family, with `more` in front of the other fields.
fn read(kind: &str, more: &str) -> Result<Blueprint, EngineError> {
    let json = HF.replace("\"llama\"", &format!("\"{kind}\"")).replacen('{', &format!("{{{more}"), 1);
    Blueprint::from_hf_json(json.as_bytes())
}

#[test]
fn reads_a_hugging_face_config() {
    let config = read("llama", "").unwrap().config;
    assert_eq!((config.dim, config.head_dim, config.kv_dim(), config.ffn), (256, 32, 128, 704));
    assert_eq!((config.rope.frequencies().len(), config.rope.magnitude), (16, 1.0));
}

#[test]
fn windows_are_where_the_family_has_them() {
    let windows = |kind: &str, more: &str| -> Vec<usize> {
        read(kind, more).unwrap().layers.iter().map(|layer| layer.window.unwrap_or(0)).collect()
    };
    let types = r#""layer_types":["full_attention","sliding_attention","full_attention","sliding_attention",
        "full_attention","full_attention"],"#;
    for (kind, more, expect) in [
        ("llama", r#""sliding_window":8,"#.to_owned(), [0; 6]),
        ("mistral", String::new(), [4096; 6]),
        ("mistral", r#""sliding_window":null,"#.into(), [0; 6]),
        ("mistral", r#""sliding_window":8,"#.into(), [8; 6]),
        ("qwen2", r#""sliding_window":8,"#.into(), [0; 6]),
        ("qwen2", r#""sliding_window":8,"use_sliding_window":true,"#.into(), [0; 6]),
        ("qwen2", r#""sliding_window":8,"use_sliding_window":true,"max_window_layers":4,"#.into(), [0, 0, 0, 0, 8, 8]),
        ("qwen3", format!(r#""sliding_window":8,"use_sliding_window":true,{types}"#), [0, 8, 0, 8, 0, 0]),
        ("smollm3", r#""sliding_window":8,"use_sliding_window":true,"#.into(), [0, 0, 0, 8, 0, 0]),
    ] {
        assert_eq!(windows(kind, &more), expect, "{kind} {more}");
    }
}

#[test]
fn families_differ_where_they_should() {
    let rope =
        |more: &str| -> Vec<bool> { read("smollm3", more).unwrap().layers.iter().map(|layer| layer.rope).collect() };
    assert_eq!(rope(""), [true, true, true, false, true, true]);
    assert_eq!(rope(r#""no_rope_layer_interval":2,"#), [true, false, true, false, true, false]);
    assert_eq!(rope(r#""no_rope_layers":[0,1,1,1,1,0],"#), [false, true, true, true, true, false]);
    assert!(read("smollm3", r#""no_rope_layers":[0,1],"#).is_err());
    let (qwen2, qwen3) = (read("qwen2", "").unwrap(), read("qwen3", r#""tie_word_embeddings":true,"#).unwrap());
    assert_eq!((qwen2.qkv_bias, qwen2.qk_norm, qwen2.tied, qwen2.config.head_dim), (true, false, None, 32));
    assert_eq!((qwen3.qkv_bias, qwen3.qk_norm, qwen3.tied, qwen3.config.head_dim), (false, true, Some(true), 128));
}

#[test]
fn refuses_what_it_cannot_run() {
    for (from, to, expect) in [
        ("\"llama\"", "\"mamba\"", "mamba"),
        ("\"num_attention_heads\":8", "\"num_attention_heads\":0", "num_attention_heads"),
        ("\"num_key_value_heads\":4", "\"num_key_value_heads\":3", "multiple"),
        ("\"rope_theta\":10000.0", "\"rope_scaling\":{\"rope_type\":\"longrope\"}", "longrope"),
        ("\"rope_theta\":10000.0", "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":-1}", "factor"),
        (
            "\"rope_theta\":10000.0",
            "\"rope_theta\":1,\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":2}",
            "sensible",
        ),
        ("\"rope_theta\":10000.0", "\"rope_scaling\":{\"type\":\"llama3\",\"factor\":8}", "low_freq_factor"),
        ("\"rope_theta\":10000.0", "\"rope_parameters\":{\"full_attention\":{}}", "kinds of blocks"),
        ("\"rope_theta\":10000.0", "\"partial_rotary_factor\":0.5", "in part"),
        ("\"rope_theta\":10000.0", "\"hidden_act\":\"gelu\"", "gelu"),
        ("\"rope_theta\":10000.0", "\"rope_theta\":\"big\"", "rope_theta"),
        ("\"num_hidden_layers\":6", "\"num_hidden_layers\":100000", "num_hidden_layers"),
        ("\"hidden_size\":256", "\"hidden_size\":-1", "hidden_size"),
        ("\"hidden_size\":256", "\"hidden_size\":", "config.json"),
    ] {
        let error = Blueprint::from_hf_json(HF.replace(from, to).as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expect), "{to}: {error}");
    }
    let huge = HF.replacen('{', &format!("{{\"x\":\"{}\",", "y".repeat(1 << 20)), 1);
    assert!(Blueprint::from_hf_json(huge.as_bytes()).unwrap_err().to_string().contains("more than"));
}
