//! Models of random weights in the sizes of models that people know.

use engine::config::{ModelConfig, ModelTraits, RopeConfig};
use engine::gguf::GgmlType;
use engine::weights::{LayerTraits, LayerWeights, Matrix, ModelWeights};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// Sizes of models that people know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ModelSize {
    /// A few thousand parameters, to see that everything works.
    Tiny,
    /// SmolLM2 135M.
    #[value(name = "smollm2-135m")]
    Smollm2_135m,
    /// Qwen2.5 0.5B.
    #[value(name = "qwen2.5-0.5b")]
    Qwen25_05b,
    /// Qwen3 0.6B.
    #[value(name = "qwen3-0.6b")]
    Qwen3_06b,
    /// Llama 3.2 1B.
    #[value(name = "llama-3.2-1b")]
    Llama32_1b,
    /// Llama 3.1 8B.
    #[value(name = "llama-3.1-8b")]
    Llama31_8b,
}

impl ModelSize {
    /// The sizes, and whether the head is a matrix of its own.
    pub fn config(self) -> (ModelConfig, bool) {
        // Vocabulary, width, layers, query heads, key heads, a head's size, inner width; RoPE's base.
        let ([vocab, dim, layers, heads, kv_heads, head_dim, ffn], base, untied) = match self {
            Self::Tiny => ([512, 64, 2, 4, 2, 16, 192], 1e4, false),
            Self::Smollm2_135m => ([49152, 576, 30, 9, 3, 64, 1536], 1e5, false),
            Self::Qwen25_05b => ([151_936, 896, 24, 14, 2, 64, 4864], 1e6, false),
            Self::Qwen3_06b => ([151_936, 1024, 28, 16, 8, 128, 3072], 1e6, false),
            Self::Llama32_1b => ([128_256, 2048, 16, 32, 8, 64, 8192], 5e5, false),
            Self::Llama31_8b => ([128_256, 4096, 32, 32, 8, 128, 14336], 5e5, true),
        };
        let config = ModelConfig {
            name: format!("{self:?}"),
            vocab,
            dim,
            layers,
            heads,
            kv_heads,
            head_dim,
            ffn,
            context: 2048,
            rms_eps: 1e-5,
            rope: RopeConfig { base, dim: head_dim, freq_divisors: Vec::new(), magnitude: 1.0 },
            traits: ModelTraits::default(),
        };
        (config, untied)
    }

    fn traits(self, config: &ModelConfig) -> LayerTraits {
        let ones = |n| Some(vec![1.0; n]);
        match self {
            Self::Qwen25_05b => {
                LayerTraits { qkv_bias: ones(config.q_dim() + 2 * config.kv_dim()), ..LayerTraits::default() }
            }
            Self::Qwen3_06b => {
                LayerTraits { q_norm: ones(config.head_dim), k_norm: ones(config.head_dim), ..LayerTraits::default() }
            }
            _ => LayerTraits::default(),
        }
    }
}

/// Bytes of random Q4_0 matrices. The layers share them: on the device each has its own copy.
pub struct RandomBytes {
    layer: [Vec<u8>; 7],
    embedding: Vec<u8>,
}

impl RandomBytes {
    /// The bytes for a model of these sizes.
    pub fn new(config: &ModelConfig, seed: u64) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut bytes = |[rows, cols]: [usize; 2]| random_q4_0(&mut rng, rows, cols);
        Self { layer: layer_sizes(config).map(&mut bytes), embedding: bytes([config.vocab, config.dim]) }
    }
}

/// Rows and columns of q, k, v, o, gate, up and down.
fn layer_sizes(c: &ModelConfig) -> [[usize; 2]; 7] {
    let (q, kv, dim, ffn) = (c.q_dim(), c.kv_dim(), c.dim, c.ffn);
    [[q, dim], [kv, dim], [kv, dim], [dim, q], [ffn, dim], [ffn, dim], [dim, ffn]]
}

/// Random codes; the scale makes the weights' variance about 1 / cols, so that activations keep their size.
fn random_q4_0(rng: &mut Xoshiro256PlusPlus, rows: usize, cols: usize) -> Vec<u8> {
    // A code's distance from 8 has the mean square 21.5.
    let scale = half::f16::from_f32((1.0 / (21.5 * cols as f32)).sqrt()).to_le_bytes();
    let mut bytes = vec![0; rows * cols / 32 * 18];
    rng.fill_bytes(&mut bytes);
    for block in bytes.as_chunks_mut::<18>().0 {
        block[..2].copy_from_slice(&scale);
    }
    bytes
}

/// The model over its bytes.
pub fn random_weights(size: ModelSize, bytes: &RandomBytes) -> ModelWeights<'_> {
    let (config, untied) = size.config();
    let matrix = |[rows, cols]: [usize; 2], bytes| Matrix {
        dtype: GgmlType::Q4_0,
        rows,
        cols,
        bytes: std::borrow::Cow::Borrowed(bytes),
    };
    let [q, k, v, o, gate, up, down] = layer_sizes(&config);
    let [bq, bk, bv, bo, bgate, bup, bdown] = bytes.layer.each_ref().map(Vec::as_slice);
    let layer = || LayerWeights {
        attn_norm: vec![1.0; config.dim],
        q: matrix(q, bq),
        k: matrix(k, bk),
        v: matrix(v, bv),
        o: matrix(o, bo),
        ffn_norm: vec![1.0; config.dim],
        gate: matrix(gate, bgate),
        up: matrix(up, bup),
        down: matrix(down, bdown),
        traits: size.traits(&config),
    };
    let table = || matrix([config.vocab, config.dim], bytes.embedding.as_slice());
    ModelWeights {
        embedding: table(),
        layers: (0..config.layers).map(|_| layer()).collect(),
        output_norm: vec![1.0; config.dim],
        output: untied.then(table),
        config: config.clone(),
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn sizes_are_whole_blocks() {
        for size in ModelSize::value_variants() {
            let (config, _) = size.config();
            assert!(
                layer_sizes(&config).iter().all(|[_, cols]| cols % 32 == 0) && config.checked().is_ok(),
                "{size:?}"
            );
        }
    }
}
