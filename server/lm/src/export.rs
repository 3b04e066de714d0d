//! A trained model as GGUF v3: weights in llama.cpp's order and names, tokenizer, chat template, all in one file.

use super::checkpoint::{CheckpointError, values};
use super::model::Llama;
use super::tokenizer::{CHAT_TEMPLATE, SPECIAL_IDS};
use engine::gguf::GgmlType;
use engine::gguf::write::{MetaValue, WriteError, Writer};
use tokenizers::Tokenizer;

/// How the matrices are stored; norms are always F32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheme {
    /// Attention and feed-forward matrices.
    pub matrices: GgmlType,
    /// The (tied) token embedding.
    pub embedding: GgmlType,
}

/// Why no file could be made.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A tensor could not be read back.
    #[error(transparent)]
    Tensor(#[from] CheckpointError),
    /// A tensor does not fit its storage type.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The tokenizer is no byte-level BPE.
    #[error("the tokenizer cannot be written to GGUF: {0}")]
    Tokenizer(String),
}

/// The bytes of a GGUF file.
///
/// The rotary pairs are neighbours already (llama.cpp's `NORM` layout), so no row is permuted. There is no
/// `output.weight`: the embedding serves both ends.
///
/// # Errors
/// See [`ExportError`].
pub fn gguf(model: &Llama, tokenizer: &Tokenizer, name: &str, scheme: Scheme) -> Result<Vec<u8>, ExportError> {
    let c = &model.config;
    let mut w = Writer::new();
    let u32 = |v: usize| MetaValue::U32(v as u32);
    let text = |s: &str| MetaValue::Str(s.to_owned());
    w.meta("general.architecture", text("llama"))
        .meta("general.name", text(name))
        .meta("general.license", text("Apache-2.0"))
        // ggml's LLAMA_FTYPE: 0 all F32, 2 mostly Q4_0, 7 mostly Q8_0.
        .meta(
            "general.file_type",
            MetaValue::U32(match scheme.matrices {
                GgmlType::Q4_0 => 2,
                GgmlType::Q8_0 => 7,
                _ => 0,
            }),
        )
        .meta("general.quantization_version", MetaValue::U32(2))
        .meta("llama.vocab_size", u32(c.vocab))
        .meta("llama.context_length", u32(c.context))
        .meta("llama.embedding_length", u32(c.dim))
        .meta("llama.block_count", u32(c.layers))
        .meta("llama.feed_forward_length", u32(c.ffn))
        .meta("llama.attention.head_count", u32(c.heads))
        .meta("llama.attention.head_count_kv", u32(c.kv_heads))
        // Written out: in a pruned model it is no longer the width by the heads.
        .meta("llama.attention.key_length", u32(c.head_dim()))
        .meta("llama.attention.value_length", u32(c.head_dim()))
        .meta("llama.attention.layer_norm_rms_epsilon", MetaValue::F32(c.rms_eps))
        .meta("llama.rope.dimension_count", u32(c.head_dim()))
        .meta("llama.rope.freq_base", MetaValue::F32(c.rope_theta));
    let (tokens, merges) = vocabulary(tokenizer, c.vocab)?;
    let kinds = (0..c.vocab as u32).map(|id| if SPECIAL_IDS.contains(&id) { 3 } else { 1 }).collect();
    w.meta("tokenizer.ggml.model", text("gpt2"))
        .meta("tokenizer.ggml.pre", text("gpt-2"))
        .meta("tokenizer.ggml.tokens", MetaValue::Strs(tokens))
        .meta("tokenizer.ggml.token_type", MetaValue::I32s(kinds))
        .meta("tokenizer.ggml.merges", MetaValue::Strs(merges))
        .meta("tokenizer.ggml.bos_token_id", MetaValue::U32(SPECIAL_IDS[0]))
        .meta("tokenizer.ggml.eos_token_id", MetaValue::U32(SPECIAL_IDS[0]))
        .meta("tokenizer.ggml.add_bos_token", MetaValue::Bool(false))
        .meta("tokenizer.chat_template", text(CHAT_TEMPLATE));
    for ((name, [rows, cols]), tensor) in c.layout().into_iter().zip(&model.weights) {
        let data = values(tensor)?;
        if name.contains("norm") {
            w.tensor(&name, &[cols], GgmlType::F32, &data)?;
        } else if name.starts_with("token_embd") {
            w.tensor(&name, &[cols, rows], scheme.embedding, &data)?;
        } else {
            // [in, out] here, one row per output there.
            let turned: Vec<f32> =
                (0..cols).flat_map(|o| (0..rows).map(move |i| (i, o))).map(|(i, o)| data[i * cols + o]).collect();
            w.tensor(&name, &[rows, cols], scheme.matrices, &turned)?;
        }
    }
    Ok(w.finish())
}

/// Tokens by id, and the merges as "left right".
fn vocabulary(tokenizer: &Tokenizer, size: usize) -> Result<(Vec<String>, Vec<String>), ExportError> {
    let fail = |why: &str| ExportError::Tokenizer(why.to_owned());
    let tokens = (0..size as u32)
        .map(|id| tokenizer.id_to_token(id).ok_or_else(|| fail("an id has no token")))
        .collect::<Result<Vec<_>, _>>()?;
    let json = tokenizer.to_string(false).map_err(|e| fail(&e.to_string()))?;
    let json: serde_json::Value = serde_json::from_str(&json).map_err(|e| fail(&e.to_string()))?;
    let merges = json["model"]["merges"].as_array().ok_or_else(|| fail("it has no merges"))?;
    let merges = merges
        .iter()
        .map(|m| match m {
            serde_json::Value::String(s) => Some(s.clone()),
            serde_json::Value::Array(pair) => Some(format!("{} {}", pair.first()?.as_str()?, pair.get(1)?.as_str()?)),
            _ => None,
        })
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| fail("a merge is no pair"))?;
    Ok((tokens, merges))
}
