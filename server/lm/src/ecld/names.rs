//! What a tensor is, by its name in either kind of file; and its name once blocks are renumbered.

use super::cut::Kind;

/// By GGUF's name, with or without `.weight`; and the number of its block.
pub fn gguf_kind(name: &str) -> (Kind, Option<usize>) {
    let plain = name.strip_suffix(".weight").unwrap_or(name);
    let Some((layer, part)) = numbered(plain, "blk.") else {
        let kind = match plain {
            "token_embd" => Kind::Embedding,
            "output" => Kind::Output,
            "output_norm" => Kind::OutputNorm,
            _ => Kind::Other,
        };
        return (kind, None);
    };
    let kind = match part {
        "attn_norm" | "ffn_norm" | "post_attention_norm" | "post_ffw_norm" => Kind::Norm,
        "attn_q" => Kind::Query,
        "attn_k" | "attn_v" => Kind::KeyValue,
        "attn_q.bias" => Kind::QueryBias,
        "attn_k.bias" | "attn_v.bias" => Kind::KeyValueBias,
        "attn_output" => Kind::AttentionOut,
        "attn_q_norm" | "attn_k_norm" => Kind::HeadNorm,
        "ffn_gate" | "ffn_up" => Kind::Neuron,
        "ffn_down" => Kind::Down,
        _ => Kind::Other,
    };
    (kind, Some(layer))
}

/// By Hugging Face's name, also where the model is the part for text of one that sees.
pub fn hf_kind(name: &str) -> (Kind, Option<usize>) {
    if name.contains("vision_tower.") || name.contains("multi_modal_projector.") {
        return (Kind::Other, None);
    }
    let plain = name.strip_suffix(".weight").unwrap_or(name);
    let plain = ["model.language_model.", "language_model.model.", "language_model.", "model."]
        .iter()
        .find_map(|prefix| plain.strip_prefix(prefix))
        .unwrap_or(plain);
    let Some((layer, part)) = numbered(plain, "layers.") else {
        let kind = match plain {
            "embed_tokens" => Kind::Embedding,
            "lm_head" => Kind::Output,
            "norm" => Kind::OutputNorm,
            _ => Kind::Other,
        };
        return (kind, None);
    };
    let kind = match part {
        "input_layernorm" | "post_attention_layernorm" | "pre_feedforward_layernorm" | "post_feedforward_layernorm" => {
            Kind::Norm
        }
        "self_attn.q_proj" => Kind::Query,
        "self_attn.k_proj" | "self_attn.v_proj" => Kind::KeyValue,
        "self_attn.q_proj.bias" => Kind::QueryBias,
        "self_attn.k_proj.bias" | "self_attn.v_proj.bias" => Kind::KeyValueBias,
        "self_attn.o_proj" => Kind::AttentionOut,
        "self_attn.q_norm" | "self_attn.k_norm" => Kind::HeadNorm,
        "mlp.gate_proj" | "mlp.up_proj" => Kind::Neuron,
        "mlp.down_proj" => Kind::Down,
        _ => Kind::Other,
    };
    (kind, Some(layer))
}

/// The name of a tensor of block `old` once that is block `new`.
pub fn renumbered(name: &str, old: usize, new: usize) -> String {
    for part in ["blk.", "layers."] {
        let (from, to) = (format!("{part}{old}."), format!("{part}{new}."));
        if name.contains(&from) {
            return name.replacen(&from, &to, 1);
        }
    }
    name.to_owned()
}

fn numbered<'n>(name: &'n str, prefix: &str) -> Option<(usize, &'n str)> {
    let (number, part) = name.strip_prefix(prefix)?.split_once('.')?;
    Some((number.parse().ok()?, part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_files_name_the_same_things() {
        for (gguf, hf, kind, layer) in [
            ("token_embd.weight", "model.embed_tokens.weight", Kind::Embedding, None),
            ("output.weight", "lm_head.weight", Kind::Output, None),
            ("output_norm.weight", "model.norm.weight", Kind::OutputNorm, None),
            ("blk.3.attn_norm.weight", "model.layers.3.input_layernorm.weight", Kind::Norm, Some(3)),
            ("blk.12.attn_q.weight", "model.layers.12.self_attn.q_proj.weight", Kind::Query, Some(12)),
            ("blk.1.attn_v.bias", "model.layers.1.self_attn.v_proj.bias", Kind::KeyValueBias, Some(1)),
            (
                "blk.1.attn_output.weight",
                "language_model.model.layers.1.self_attn.o_proj.weight",
                Kind::AttentionOut,
                Some(1),
            ),
            ("blk.0.ffn_down.weight", "model.language_model.layers.0.mlp.down_proj.weight", Kind::Down, Some(0)),
            ("rope_freqs.weight", "vision_tower.embeddings.weight", Kind::Other, None),
        ] {
            assert_eq!(gguf_kind(gguf), (kind, layer), "{gguf}");
            assert_eq!(hf_kind(hf), (kind, layer), "{hf}");
        }
        assert_eq!(renumbered("blk.11.ffn_up.weight", 11, 2), "blk.2.ffn_up.weight");
        assert_eq!(renumbered("model.layers.1.mlp.up_proj.weight", 1, 0), "model.layers.0.mlp.up_proj.weight");
        assert_eq!(renumbered("output.weight", 1, 0), "output.weight");
    }
}
