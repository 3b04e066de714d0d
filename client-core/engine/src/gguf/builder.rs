//! Writes GGUF bytes for tests, right or wrong as the test says.

use super::super::weights::{Matrix, ModelWeights};

/// Appends the parts of a GGUF file; what is written is what the test says, right or wrong.
#[derive(Debug, Clone, Default)]
pub(crate) struct Builder(pub(crate) Vec<u8>);

impl Builder {
    pub(crate) fn header(tensors: u64, metadata: u64) -> Self {
        Self(b"GGUF".to_vec()).u32(3).u64(tensors).u64(metadata)
    }
    pub(crate) fn u32(mut self, v: u32) -> Self {
        self.0.extend(v.to_le_bytes());
        self
    }
    pub(crate) fn u64(mut self, v: u64) -> Self {
        self.0.extend(v.to_le_bytes());
        self
    }
    pub(crate) fn raw(mut self, v: &[u8]) -> Self {
        self.0.extend(v);
        self
    }
    pub(crate) fn str(self, v: &str) -> Self {
        self.u64(v.len() as u64).raw(v.as_bytes())
    }
    pub(crate) fn tensor(self, name: &str, dims: &[u64], kind: u32, offset: u64) -> Self {
        let with_dims = dims.iter().fold(self.str(name).u32(dims.len() as u32), |b, &d| b.u64(d));
        with_dims.u32(kind).u64(offset)
    }
    pub(crate) fn align(mut self, to: usize) -> Self {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
        self
    }
}

/// A whole model as a file: `weights`, and a byte-level tokenizer given by its tokens (the last `control` of which are
/// control tokens, the very last one ending a turn) and merges.
pub fn model_file(
    weights: &ModelWeights<'_>,
    tokens: &[String],
    merges: &[String],
    control: usize,
    template: &str,
) -> Vec<u8> {
    let c = &weights.config;
    let mut tensors: Vec<(String, Vec<u64>, u32, Vec<u8>)> = Vec::new();
    let mut matrix = |name: String, m: &Matrix<'_>| {
        tensors.push((name, vec![m.cols as u64, m.rows as u64], m.dtype.id(), m.bytes.to_vec()));
    };
    matrix("token_embd.weight".into(), &weights.embedding);
    if let Some(output) = &weights.output {
        matrix("output.weight".into(), output);
    }
    for (i, l) in weights.layers.iter().enumerate() {
        let parts = [
            ("attn_q", &l.q),
            ("attn_k", &l.k),
            ("attn_v", &l.v),
            ("attn_output", &l.o),
            ("ffn_gate", &l.gate),
            ("ffn_up", &l.up),
            ("ffn_down", &l.down),
        ];
        for (part, m) in parts {
            matrix(format!("blk.{i}.{part}.weight"), m);
        }
    }
    let mut vector = |name: String, v: &[f32]| {
        tensors.push((name, vec![v.len() as u64], 0, v.iter().flat_map(|x| x.to_le_bytes()).collect()));
    };
    vector("output_norm.weight".into(), &weights.output_norm);
    for (i, l) in weights.layers.iter().enumerate() {
        vector(format!("blk.{i}.attn_norm.weight"), &l.attn_norm);
        vector(format!("blk.{i}.ffn_norm.weight"), &l.ffn_norm);
    }

    let sizes = [
        ("embedding_length", c.dim),
        ("block_count", c.layers),
        ("feed_forward_length", c.ffn),
        ("attention.head_count", c.heads),
        ("attention.head_count_kv", c.kv_heads),
        ("attention.key_length", c.head_dim),
        ("attention.value_length", c.head_dim),
        ("rope.dimension_count", c.rope.dim),
        ("context_length", c.context),
    ];
    let mut b = Builder::header(tensors.len() as u64, sizes.len() as u64 + 11);
    b = b.str("general.architecture").u32(8).str("llama").str("general.name").u32(8).str(&c.name);
    for (key, value) in sizes {
        b = b.str(&format!("llama.{key}")).u32(4).u32(value as u32);
    }
    b = b.str("llama.attention.layer_norm_rms_epsilon").u32(6).u32(c.rms_eps.to_bits());
    b = b.str("llama.rope.freq_base").u32(6).u32(c.rope.base.to_bits());
    b = b.str("tokenizer.ggml.model").u32(8).str("gpt2").str("tokenizer.ggml.pre").u32(8).str("gpt-2");
    b = b.str("tokenizer.ggml.tokens").u32(9).u32(8).u64(tokens.len() as u64);
    b = tokens.iter().fold(b, |b, token| b.str(token));
    b = b.str("tokenizer.ggml.merges").u32(9).u32(8).u64(merges.len() as u64);
    b = merges.iter().fold(b, |b, merge| b.str(merge));
    b = b.str("tokenizer.ggml.token_type").u32(9).u32(5).u64(tokens.len() as u64);
    b = (0..tokens.len()).fold(b, |b, i| b.u32(if i + control >= tokens.len() { 3 } else { 1 }));
    b = b.str("tokenizer.ggml.eos_token_id").u32(4).u32(tokens.len() as u32 - 1);
    b = b.str("tokenizer.chat_template").u32(8).str(template);

    let mut offset = 0u64;
    for (name, dims, kind, bytes) in &tensors {
        b = b.tensor(name, dims, *kind, offset);
        offset = (offset + bytes.len() as u64).next_multiple_of(32);
    }
    for (_, _, _, bytes) in &tensors {
        b = b.align(32).raw(bytes);
    }
    b.0
}
