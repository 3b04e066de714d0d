//! The numbers that cross the boundary between a page's worker and this crate as a module of its own. Both sides compile
//! this file: `exports` reads what the worker writes with it.

use crate::model::{ModelShape, OutputKind};

/// What a function that returns a number says when it refuses; also no model's and no sequences' number.
pub const REFUSED: u32 = u32::MAX;
/// What a function that is told something says when it takes it.
pub const ACCEPTED: u32 = 0;
/// … and when it does not.
pub const NOT_ACCEPTED: u32 = 1;

/// Alignment of what `allocate` gives, bytes.
pub const ALIGNMENT: usize = 16;

/// A layer's matrices as `matrix` numbers them, in this order from 0.
pub const LAYER_MATRICES: [&str; 7] = ["q", "k", "v", "o", "gate", "up", "down"];
/// Number of the embedding for `matrix`.
pub const EMBEDDING: u32 = 7;
/// Number of the head for `matrix`.
pub const HEAD: u32 = 8;

/// A layer's vectors as `vector` numbers them, in this order from 0.
pub const LAYER_VECTORS: [&str; 7] =
    ["attn_norm", "ffn_norm", "qkv_bias", "q_norm", "k_norm", "post_attn_norm", "post_ffn_norm"];
/// Number of the last norm for `vector`.
pub const OUTPUT_NORM: u32 = 7;

/// Words of a [`ModelShape`] as `begin` takes it.
pub const SHAPE_WORDS: usize = 14;

/// A shape as words: whole numbers, then the bits of singles.
pub fn shape_words(shape: &ModelShape) -> [u32; SHAPE_WORDS] {
    let ModelShape { vocab, dim, heads, kv_heads, head_dim, ffn, rope_dim, tables, gelu, .. } = *shape;
    let [vocab, dim, heads, kv_heads, head_dim, ffn, rope_dim, tables, gelu] =
        [vocab, dim, heads, kv_heads, head_dim, ffn, rope_dim, tables, gelu.into()].map(|n| n as u32);
    let singles = [shape.eps, shape.embedding_scale, shape.score_scale, shape.score_cap, shape.logit_cap];
    let [eps, embedding_scale, score_scale, score_cap, logit_cap] = singles.map(f32::to_bits);
    [
        vocab,
        dim,
        heads,
        kv_heads,
        head_dim,
        ffn,
        rope_dim,
        tables,
        gelu,
        eps,
        embedding_scale,
        score_scale,
        score_cap,
        logit_cap,
    ]
}

/// The inverse of [`shape_words`].
pub fn shape_of(words: [u32; SHAPE_WORDS]) -> ModelShape {
    let [vocab, dim, heads, kv_heads, head_dim, ffn, rope_dim, tables, gelu, singles @ ..] = words;
    let [eps, embedding_scale, score_scale, score_cap, logit_cap] = singles.map(f32::from_bits);
    let [vocab, dim, heads, kv_heads, head_dim, ffn, rope_dim, tables] =
        [vocab, dim, heads, kv_heads, head_dim, ffn, rope_dim, tables].map(|n| n as usize);
    ModelShape {
        vocab,
        dim,
        heads,
        kv_heads,
        head_dim,
        ffn,
        rope_dim,
        eps,
        tables,
        gelu: gelu != 0,
        embedding_scale,
        score_scale,
        score_cap,
        logit_cap,
    }
}

/// What `forward` is to leave.
pub fn want_code(want: OutputKind) -> u32 {
    match want {
        OutputKind::Nothing => 0,
        OutputKind::Last => 1,
        OutputKind::Every => 2,
        OutputKind::Hidden => 3,
    }
}

/// The inverse of [`want_code`].
pub fn want_of(code: u32) -> Option<OutputKind> {
    [OutputKind::Nothing, OutputKind::Last, OutputKind::Every, OutputKind::Hidden]
        .into_iter()
        .find(|want| want_code(*want) == code)
}

/// An optional whole number, counted from 1 so that 0 is none: a layer's rotation (counted from 0), the tokens that it sees
/// (of which there are some).
pub fn optional_code(value: Option<usize>) -> u32 {
    value.map_or(0, |value| (value as u32).saturating_add(1))
}

/// The inverse of [`optional_code`].
pub fn optional_of(code: u32) -> Option<usize> {
    (code as usize).checked_sub(1)
}

/// How `fuse` is told which way to multiply; `None` is as is faster.
pub fn fuse_code(choice: Option<bool>) -> u32 {
    match choice {
        None => 0,
        Some(false) => 1,
        Some(true) => 2,
    }
}

/// The inverse of [`fuse_code`].
pub fn fuse_of(code: u32) -> Option<bool> {
    match code {
        0 => None,
        code => Some(code == 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        let shape = ModelShape {
            vocab: 262_144,
            dim: 640,
            heads: 4,
            kv_heads: 1,
            head_dim: 256,
            ffn: 2048,
            rope_dim: 128,
            eps: 1e-6,
            tables: 2,
            gelu: true,
            embedding_scale: 25.5,
            score_scale: 0.0625,
            score_cap: 50.0,
            logit_cap: 30.0,
        };
        assert_eq!(shape_of(shape_words(&shape)), shape);
        // A word each, in the order of the declaration but for ε: a swap would show.
        let words = shape_words(&shape);
        assert_eq!((words[0], words[5], words[8], words[9]), (262_144, 2048, 1, 1e-6f32.to_bits()));
        for want in [OutputKind::Nothing, OutputKind::Last, OutputKind::Every, OutputKind::Hidden] {
            assert_eq!(want_of(want_code(want)), Some(want));
        }
        assert_eq!(want_of(4), None);
        for value in [None, Some(0), Some(1), Some(4096)] {
            assert_eq!(optional_of(optional_code(value)), value);
        }
        for choice in [None, Some(false), Some(true)] {
            assert_eq!(fuse_of(fuse_code(choice)), choice);
        }
        assert_eq!((EMBEDDING as usize, OUTPUT_NORM as usize), (LAYER_MATRICES.len(), LAYER_VECTORS.len()));
        assert_eq!(HEAD, EMBEDDING + 1);
    }
}
