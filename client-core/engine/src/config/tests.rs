//! What `config.json` files of every family mean, and what is refused. GGUF metadata is tested with whole files.

use super::*;
use crate::gguf::write::{MetaValue, Writer};
use crate::gguf::{GgmlType, Gguf};

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
        ("gemma", r#""sliding_window":8,"#.into(), [0; 6]),
        ("gemma2", String::new(), [4096, 0, 4096, 0, 4096, 0]),
        ("gemma2", format!(r#""sliding_window":8,{types}"#), [0, 8, 0, 8, 0, 0]),
        ("gemma3_text", r#""sliding_window":8,"#.into(), [8, 8, 8, 8, 8, 0]),
        ("gemma3_text", r#""sliding_window":8,"sliding_window_pattern":3,"#.into(), [8, 8, 0, 8, 8, 0]),
        ("gemma3_text", r#""sliding_window":null,"#.into(), [0; 6]),
    ] {
        assert_eq!(windows(kind, &more), expect, "{kind} {more}");
    }
}

#[test]
fn families_differ_where_they_should() {
    let rope = |more: &str| -> Vec<bool> {
        read("smollm3", more).unwrap().layers.iter().map(|layer| layer.rope == Positions::Main).collect()
    };
    assert_eq!(rope(""), [true, true, true, false, true, true]);
    assert_eq!(rope(r#""no_rope_layer_interval":2,"#), [true, false, true, false, true, false]);
    assert_eq!(rope(r#""no_rope_layers":[0,1,1,1,1,0],"#), [false, true, true, true, true, false]);
    assert!(read("smollm3", r#""no_rope_layers":[0,1],"#).is_err());
    let (qwen2, qwen3) = (read("qwen2", "").unwrap(), read("qwen3", r#""tie_word_embeddings":true,"#).unwrap());
    assert_eq!((qwen2.qkv_bias, qwen2.qk_norm, qwen2.tied, qwen2.config.head_dim), (true, false, None, 32));
    assert_eq!((qwen3.qkv_bias, qwen3.qk_norm, qwen3.tied, qwen3.config.head_dim), (false, true, Some(true), 128));
}

/// What Gemma's files state, what they leave to whoever knows the family, and the positions in the two ways of writing them.
#[test]
fn gemmas_differ_from_each_other() {
    let [one, two, three] = ["gemma", "gemma2", "gemma3_text"].map(|kind| read(kind, "").unwrap());
    for (plan, norms, caps) in [
        (&one, [false, false], [None; 2]),
        (&two, [false, true], [Some(50.0), Some(30.0)]),
        (&three, [true, true], [None; 2]),
    ] {
        let (config, traits) = (&plan.config, &plan.config.traits);
        assert_eq!(([plan.qk_norm, plan.post_norms], [traits.score_cap, traits.logit_cap]), (norms, caps));
        assert_eq!((traits.activation, traits.embedding_scale), (Activation::Gelu, 16.0));
        assert_eq!(
            (config.head_dim, config.score_scale(), plan.gain_offset, plan.tied),
            (256, 1.0 / 16.0, 1.0, Some(true))
        );
    }
    let stated =
        read("gemma2", r#""query_pre_attn_scalar":144,"attn_logit_softcapping":null,"final_logit_softcapping":9,"#);
    let stated = stated.unwrap().config;
    assert_eq!((stated.score_scale(), stated.traits.score_cap, stated.traits.logit_cap), (1.0 / 12.0, None, Some(9.0)));

    let before = r#""rope_theta":5e5,"rope_local_base_freq":2e3,"rope_scaling":{"rope_type":"linear","factor":8},"#;
    let now = r#""rope_parameters":{"full_attention":{"rope_type":"linear","factor":8,"rope_theta":5e5},
        "sliding_attention":{"rope_type":"default","rope_theta":2e3}},"#;
    // The config that both are put into has a base of its own.
    let plain = HF.replace(r#""rope_theta":10000.0"#, r#""x":0"#).replace("\"llama\"", "\"gemma3_text\"");
    let of = |more: &str| Blueprint::from_hf_json(plain.replacen('{', &format!("{{{more}"), 1).as_bytes()).unwrap();
    assert_eq!(of(before), of(now));
    let (config, usual) = (of(now).config, of("").config);
    let local = config.traits.local_rope.unwrap();
    assert_eq!((config.rope.base, config.rope.freq_divisors[0]), (5e5, 8.0));
    assert_eq!((local.base, local.freq_divisors.len()), (2e3, 0));
    assert_eq!((usual.rope.base, usual.traits.local_rope.unwrap().base), (1e6, 1e4));
    let ropes: Vec<Option<usize>> = of(now).layers.iter().map(|layer| layer.rope.table()).collect();
    assert_eq!(ropes, [Some(1), Some(1), Some(1), Some(1), Some(1), Some(0)]);
}

/// A Gemma's GGUF metadata with keys of its own, as text and number.
fn gemma_gguf(arch: &str, layers: u32, keys: &[(&str, f32)]) -> Result<Blueprint, EngineError> {
    let value = |key: &str, value: f32| match key.contains("window") {
        true => MetaValue::U32(value as u32),
        false => MetaValue::F32(value),
    };
    let keys: Vec<_> = keys.iter().map(|(key, number)| (*key, value(key, *number))).collect();
    gemma_gguf_of(arch, layers, &keys)
}

fn gemma_gguf_of(arch: &str, layers: u32, keys: &[(&str, MetaValue)]) -> Result<Blueprint, EngineError> {
    let mut w = Writer::new();
    w.meta("general.architecture", MetaValue::Str(arch.into()));
    let sizes = [("embedding_length", 576), ("attention.head_count", 4), ("attention.key_length", 256)];
    let more = [("attention.value_length", 256), ("block_count", layers), ("feed_forward_length", 64)];
    for (key, value) in sizes.into_iter().chain(more).chain([("context_length", 64)]) {
        w.meta(&format!("{arch}.{key}"), MetaValue::U32(value));
    }
    for (key, value) in keys {
        w.meta(&format!("{arch}.{key}"), value.clone());
    }
    w.tensor("token_embd.weight", &[576, 2], GgmlType::F32, &[0.0; 1152]).unwrap();
    Blueprint::from_gguf(&Gguf::parse(&w.finish()).unwrap())
}

/// Where files say nothing, llama.cpp's rules hold.
#[test]
fn gemmas_metadata_is_completed_as_in_llama_cpp() {
    let windows = |plan: &Blueprint| plan.layers.iter().map(|layer| layer.window.unwrap_or(0)).collect::<Vec<_>>();
    let two = gemma_gguf("gemma2", 5, &[]).unwrap();
    assert_eq!(windows(&two), [4096, 0, 4096, 0, 4096]);
    assert_eq!((two.config.traits.score_cap, two.config.traits.logit_cap), (Some(50.0), Some(30.0)));
    assert_eq!((two.half_split, two.gain_offset, two.config.traits.local_rope.is_none()), (true, 0.0, true));
    let uncapped =
        gemma_gguf("gemma2", 2, &[("attn_logit_softcapping", 0.0), ("final_logit_softcapping", 4.0)]).unwrap();
    assert_eq!((uncapped.config.traits.score_cap, uncapped.config.traits.logit_cap), (None, Some(4.0)));

    let sliding = [("attention.sliding_window", 8.0), ("rope.freq_base", 1e6), ("rope.scaling.factor", 8.0)];
    let three = gemma_gguf("gemma3", 7, &sliding).unwrap();
    assert_eq!(windows(&three), [8, 8, 8, 8, 8, 0, 8]);
    let local = three.config.traits.local_rope.clone().unwrap();
    assert_eq!(
        (three.config.rope.base, three.config.rope.freq_divisors[0], local.base, local.freq_divisors.len()),
        (1e6, 8.0, 1e4, 0)
    );
    let thirds = [sliding[0], ("attention.sliding_window_pattern", 3.0)];
    assert_eq!(windows(&gemma_gguf("gemma3", 4, &thirds).unwrap()), [8, 8, 0, 8]);
    let listed = |list: MetaValue| {
        let keys = [("attention.sliding_window", MetaValue::U32(8)), ("attention.sliding_window_pattern", list)];
        gemma_gguf_of("gemma3", 3, &keys)
    };
    assert_eq!(windows(&listed(MetaValue::Bools(vec![false, true, true])).unwrap()), [0, 8, 8]);
    for list in [MetaValue::Bools(vec![true; 2]), MetaValue::I32s(vec![1; 3])] {
        let refused = listed(list).unwrap_err().to_string();
        assert!(refused.contains("sliding_window_pattern") && refused.contains("3 blocks"), "{refused}");
    }
    let whole = gemma_gguf("gemma3", 2, &[]).unwrap();
    assert!(whole.layers.iter().all(|layer| layer.window.is_none() && layer.rope == Positions::Main));

    // The largest of each generation divide by the width of a head as the model's width would have it: 576 / 4.
    for (arch, layers, scale) in
        [("gemma2", 46, 1.0 / 12.0), ("gemma3", 62, 1.0 / 12.0), ("gemma2", 62, 1.0 / 16.0), ("gemma", 46, 1.0 / 16.0)]
    {
        assert_eq!(gemma_gguf(arch, layers, &[]).unwrap().config.score_scale(), scale, "{arch} {layers}");
    }
    for (arch, key) in
        [("gemma", "attn_logit_softcapping"), ("gemma2", "rope.freq_base_swa"), ("gemma3", "attention.scale")]
    {
        let refused = gemma_gguf(arch, 1, &[(key, 2.0)]).unwrap_err().to_string();
        assert!(refused.contains(key), "{refused}");
    }
}

/// The smallest of those that also see, as its file has it: the rest is what the class has.
#[test]
fn the_part_for_text_is_taken() {
    let json = r#"{"model_type":"gemma3","_name_or_path":"mine","text_config":{"model_type":"gemma3_text",
        "hidden_size":2560,"intermediate_size":10240,"num_hidden_layers":34,"sliding_window":1024,
        "rope_scaling":{"factor":8.0,"rope_type":"linear"}},"vision_config":{"hidden_size":1152}}"#;
    let plan = Blueprint::from_hf_json(json.as_bytes()).unwrap();
    let config = &plan.config;
    assert!(plan.also_sees && plan.qk_norm && plan.post_norms && plan.tied == Some(true));
    assert_eq!((config.name.as_str(), config.dim, config.ffn, config.layers), ("mine", 2560, 10_240, 34));
    assert_eq!((config.heads, config.kv_heads, config.head_dim, config.vocab), (8, 4, 256, 262_208));
    assert_eq!((config.context, config.rope.base, config.rope.freq_divisors[0]), (131_072, 1e6, 8.0));
    assert_eq!(plan.layers.iter().filter(|layer| layer.window == Some(1024)).count(), 29);
}

#[test]
fn refuses_what_it_cannot_run() {
    for (from, to, expect) in [
        ("\"llama\"", "\"mamba\"", "mamba"),
        ("\"llama\"", "\"gemma3\"", "text_config"),
        ("\"llama\"", "\"gemma4\"", "gemma3_text"),
        ("\"llama\"", "\"gemma2\",\"hidden_activation\":\"gelu\"", "gelu"),
        ("\"llama\"", "\"gemma3_text\",\"use_bidirectional_attention\":true", "later tokens"),
        ("\"llama\"", "\"gemma2\",\"final_logit_softcapping\":-1", "final_logit_softcapping"),
        ("\"llama\"", "\"gemma3_text\",\"rope_parameters\":{\"chunked_attention\":{}}", "kinds of blocks"),
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
    for (kind, more, expect) in [
        (
            "llama",
            r#""quantization_config":{"quant_method":"gptq","bits":4},"#,
            ["quantization_config", "gptq", "GGUF"],
        ),
        (
            "qwen2",
            r#""quantization_config":{"quant_method":"awq","bits":4},"#,
            ["quantization_config", "awq", "made from"],
        ),
        ("llama", r#""compression_config":{},"#, ["compression_config", "of its own", "GGUF"]),
        ("qwen3", r#""quantization":{"group_size":64,"bits":4},"#, ["\"quantization\"", "of its own", "GGUF"]),
        ("mistral", r#""num_local_experts":8,"#, ["num_local_experts", "8", "without experts"]),
        ("qwen3", r#""num_experts":128,"#, ["num_experts", "128", "without experts"]),
        ("llama", r#""num_experts_per_tok":2,"#, ["num_experts_per_tok", "2", "without experts"]),
        ("llama", r#""residual_multiplier":0.22,"#, ["residual_multiplier", "0.22", "does not have"]),
        ("llama", r#""num_local_experts":"many","#, ["num_local_experts", "many", "without experts"]),
        ("qwen2", r#""final_logit_softcapping":30.0,"#, ["final_logit_softcapping", "30", "does not have"]),
        ("gemma", r#""attn_logit_softcapping":50.0,"#, ["attn_logit_softcapping", "50", "does not have"]),
    ] {
        let error = read(kind, more).unwrap_err().to_string();
        assert!(expect.iter().all(|part| error.contains(part)), "{more}: {error}");
    }
    // What changes nothing is let through.
    for more in [r#""quantization_config":null,"#, r#""num_local_experts":0,"#, r#""residual_multiplier":1.0,"#] {
        assert!(read("llama", more).is_ok(), "{more}");
    }
    let sees = r#"{"model_type":"gemma3","text_config":{"hidden_size":2560,"quantization_config":{"quant_method":"bitsandbytes"}}}"#;
    assert!(Blueprint::from_hf_json(sees.as_bytes()).unwrap_err().to_string().contains("bitsandbytes"));
    let huge = HF.replacen('{', &format!("{{\"x\":\"{}\",", "y".repeat(1 << 20)), 1);
    assert!(Blueprint::from_hf_json(huge.as_bytes()).unwrap_err().to_string().contains("more than"));
}

/// Some converters write a list with a number for every block.
#[test]
fn lists_of_equal_numbers_are_sizes() {
    let read = |heads: &[i32]| {
        gemma_gguf_of("gemma2", 2, &[("attention.head_count_kv", MetaValue::I32s(heads.to_vec()))])
            .map(|blueprint| blueprint.config.kv_heads)
            .map_err(|error| error.to_string())
    };
    assert_eq!(read(&[2, 2]), Ok(2));
    assert_eq!(read(&[1]), Ok(1));
    for (heads, expect) in [(&[2, 1][..], "head_count_kv is another for every block"), (&[-2, -2], "whole number")] {
        let error = read(heads).unwrap_err();
        assert!(error.contains(expect), "{heads:?}: {error}");
    }
}
