//! What tensors are called in each kind of file.

/// What the parts are called. Those of a block follow `block` and its number; weights end in `.weight`, biases in `.bias`.
#[derive(Debug)]
pub(super) struct Names {
    pub embedding: &'static str,
    pub output_norm: &'static str,
    pub output: &'static str,
    pub block: &'static str,
    pub attn_norm: &'static str,
    /// Queries, keys, values.
    pub qkv: [&'static str; 3],
    pub o: &'static str,
    /// Norms of query and key heads.
    pub head_norms: [&'static str; 2],
    pub ffn_norm: &'static str,
    /// Norms behind attention and behind the feed-forward net.
    pub post_norms: [&'static str; 2],
    pub gate: &'static str,
    pub up: &'static str,
    pub down: &'static str,
    /// Endings of tensors that hold nothing that the metadata does not say.
    pub redundant: &'static [&'static str],
}

pub(super) const GGUF_NAMES: Names = Names {
    embedding: "token_embd",
    output_norm: "output_norm",
    output: "output",
    block: "blk.",
    attn_norm: "attn_norm",
    qkv: ["attn_q", "attn_k", "attn_v"],
    o: "attn_output",
    head_norms: ["attn_q_norm", "attn_k_norm"],
    ffn_norm: "ffn_norm",
    post_norms: ["post_attention_norm", "post_ffw_norm"],
    gate: "ffn_gate",
    up: "ffn_up",
    down: "ffn_down",
    redundant: &["rope_freqs.weight", "attn_rot_embd", "rotary_emb.inv_freq"],
};

pub(super) const HF_NAMES: Names = Names {
    embedding: "model.embed_tokens",
    output_norm: "model.norm",
    output: "lm_head",
    block: "model.layers.",
    attn_norm: "input_layernorm",
    qkv: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    o: "self_attn.o_proj",
    head_norms: ["self_attn.q_norm", "self_attn.k_norm"],
    ffn_norm: "post_attention_layernorm",
    post_norms: ["", ""],
    gate: "mlp.gate_proj",
    up: "mlp.up_proj",
    down: "mlp.down_proj",
    redundant: &["rotary_emb.inv_freq"],
};

/// Where norms stand on both sides, the name of the one before the feed-forward net is that of the one behind attention.
pub(super) const HF_NAMES_BOTH_SIDES: Names = Names {
    ffn_norm: "pre_feedforward_layernorm",
    post_norms: ["post_attention_layernorm", "post_feedforward_layernorm"],
    ..HF_NAMES
};

/// What a tensor of a model that also sees is called in one of text alone; `None` where it belongs to seeing.
pub(super) fn of_text(name: &str) -> Option<String> {
    let seeing = ["vision_tower.", "multi_modal_projector."];
    let inner = name.strip_prefix("model.").unwrap_or(name);
    if seeing.iter().any(|part| inner.starts_with(part)) {
        return None;
    }
    Some(match (name.strip_prefix("language_model."), name.strip_prefix("model.language_model.")) {
        // As the files of the first releases have it.
        (Some(rest), _) => rest.to_owned(),
        (_, Some(rest)) => format!("model.{rest}"),
        _ => name.to_owned(),
    })
}
