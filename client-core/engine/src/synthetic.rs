//! Models with random weights, of any shape and storage type: what kernels are tested and timed on.

use half::f16;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use super::config::{Activation, ModelConfig, ModelTraits, Positions, RopeConfig};
use super::error::EngineError;
use super::gguf::GgmlType;
use super::weights::{LayerTraits, LayerWeights, Matrix, ModelWeights};

/// Storage types of a synthetic model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Storage {
    /// The blocks' matrices.
    pub blocks: GgmlType,
    /// Embedding and head.
    pub embedding: GgmlType,
    /// Whether the head is a matrix of its own.
    pub untied: bool,
}

/// The family that a synthetic model is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Plain.
    Llama,
    /// Biases on queries, keys and values.
    Qwen2,
    /// Queries and keys are normalised.
    Qwen3,
    /// Every fourth block has no positions.
    SmolLm3,
    /// A token sees this many.
    Mistral(usize),
    /// A GELU, and embeddings that are scaled.
    Gemma,
    /// Norms on both sides and capped scores and logits besides; in every other block a token sees this many.
    Gemma2(usize),
    /// Norms on both sides and of heads; but for every third block a token sees this many and has positions of its own.
    Gemma3(usize),
}

impl Family {
    fn model_traits(self, config: &ModelConfig) -> ModelTraits {
        let gemma = ModelTraits {
            activation: Activation::Gelu,
            embedding_scale: (config.dim as f32).sqrt(),
            ..ModelTraits::default()
        };
        match self {
            Self::Gemma => gemma,
            Self::Gemma2(_) => ModelTraits {
                query_scalar: Some(0.7 * config.head_dim as f32),
                score_cap: Some(1.5),
                logit_cap: Some(2.5),
                ..gemma
            },
            Self::Gemma3(_) => {
                ModelTraits { local_rope: Some(RopeConfig { base: 100.0, ..config.rope.clone() }), ..gemma }
            }
            _ => config.traits.clone(),
        }
    }

    fn traits(self, rng: &mut Xoshiro256PlusPlus, config: &ModelConfig, layer: usize) -> LayerTraits {
        let mut traits = LayerTraits::default();
        match self {
            Self::Llama | Self::Gemma => {}
            Self::Qwen2 => {
                let width = config.q_dim() + 2 * config.kv_dim();
                traits.qkv_bias = Some((0..width).map(|_| 0.5 * uniform(rng)).collect());
            }
            Self::Qwen3 => {
                traits.q_norm = Some(random_norm(rng, config.head_dim));
                traits.k_norm = Some(random_norm(rng, config.head_dim));
            }
            Self::SmolLm3 if (layer + 1).is_multiple_of(4) => traits.rope = Positions::None,
            Self::SmolLm3 => {}
            Self::Mistral(window) => traits.window = Some(window.max(1)),
            Self::Gemma2(window) | Self::Gemma3(window) => {
                traits.post_attn_norm = Some(random_norm(rng, config.dim));
                traits.post_ffn_norm = Some(random_norm(rng, config.dim));
                let mut step = 2;
                if config.traits.local_rope.is_some() {
                    traits.q_norm = Some(random_norm(rng, config.head_dim));
                    traits.k_norm = Some(random_norm(rng, config.head_dim));
                    step = 3;
                }
                if !(layer + 1).is_multiple_of(step) {
                    traits.window = Some(window.max(1));
                    traits.rope = if step == 3 { Positions::Local } else { Positions::Main };
                }
            }
        }
        traits
    }
}

/// Sizes of a synthetic model: vocabulary, width, layers, query heads, key heads, inner width.
pub type Sizes = [usize; 6];

/// A config of the given sizes; the head's size is `dim / heads`, the context 512.
pub fn config([vocab, dim, layers, heads, kv_heads, ffn]: Sizes) -> ModelConfig {
    let head_dim = dim / heads.max(1);
    ModelConfig {
        name: format!("synthetic d{dim} l{layers}"),
        vocab,
        dim,
        layers,
        heads,
        kv_heads,
        head_dim,
        ffn,
        context: 512,
        rms_eps: 1e-5,
        rope: RopeConfig { base: 10_000.0, dim: head_dim & !1, freq_divisors: Vec::new(), magnitude: 1.0 },
        traits: ModelTraits::default(),
    }
}

/// Random weights of a plain model, scaled so that activations keep their size through the blocks.
///
/// # Errors
/// The config contradicts itself, or rows are not whole blocks of the storage type.
pub fn weights(config: ModelConfig, storage: Storage, seed: u64) -> Result<ModelWeights<'static>, EngineError> {
    weights_like(Family::Llama, config, storage, seed)
}

/// Random weights of a model like those of `family`.
///
/// # Errors
/// As [`weights`].
pub fn weights_like(
    family: Family,
    config: ModelConfig,
    storage: Storage,
    seed: u64,
) -> Result<ModelWeights<'static>, EngineError> {
    let config = ModelConfig { traits: family.model_traits(&config), ..config }.checked()?;
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut layers = Vec::with_capacity(config.layers);
    for layer in 0..config.layers {
        let mut matrix = |rows, cols| random_matrix(&mut rng, storage.blocks, rows, cols);
        layers.push(LayerWeights {
            q: matrix(config.q_dim(), config.dim)?,
            k: matrix(config.kv_dim(), config.dim)?,
            v: matrix(config.kv_dim(), config.dim)?,
            o: matrix(config.dim, config.q_dim())?,
            gate: matrix(config.ffn, config.dim)?,
            up: matrix(config.ffn, config.dim)?,
            down: matrix(config.dim, config.ffn)?,
            attn_norm: random_norm(&mut rng, config.dim),
            ffn_norm: random_norm(&mut rng, config.dim),
            traits: family.traits(&mut rng, &config, layer),
        });
    }
    let output = match storage.untied {
        true => Some(random_matrix(&mut rng, storage.embedding, config.vocab, config.dim)?),
        false => None,
    };
    Ok(ModelWeights {
        embedding: random_matrix(&mut rng, storage.embedding, config.vocab, config.dim)?,
        output_norm: random_norm(&mut rng, config.dim),
        layers,
        output,
        config,
    })
}

/// `count` random tokens of a vocabulary.
pub fn tokens(vocab: usize, count: usize, seed: u64) -> Vec<u32> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    (0..count).map(|_| (rng.next_u64() % vocab.max(1) as u64) as u32).collect()
}

/// Uniform in [−1, 1).
fn uniform(rng: &mut Xoshiro256PlusPlus) -> f32 {
    (rng.next_u64() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

fn random_matrix(
    rng: &mut Xoshiro256PlusPlus,
    dtype: GgmlType,
    rows: usize,
    cols: usize,
) -> Result<Matrix<'static>, EngineError> {
    // Variance 1/cols: a uniform variable on [−a, a] has a²/3.
    let amplitude = (3.0 / cols as f32).sqrt();
    if is_only_read(dtype) {
        return random_blocks(rng, dtype, rows, cols, amplitude);
    }
    let values: Vec<f32> = (0..rows * cols).map(|_| uniform(rng) * amplitude).collect();
    Matrix::encode(dtype, rows, cols, &values)
}

/// Whether there is no encoder for these blocks.
fn is_only_read(dtype: GgmlType) -> bool {
    use GgmlType::{Bf16, F16, F32, Q4_0, Q8_0};
    !matches!(dtype, F32 | F16 | Bf16 | Q4_0 | Q8_0)
}

/// Blocks of random codes whose scale makes values as large as `amplitude`. Minima, where there are any, take their middle
/// away.
fn random_blocks(
    rng: &mut Xoshiro256PlusPlus,
    dtype: GgmlType,
    rows: usize,
    cols: usize,
    amplitude: f32,
) -> Result<Matrix<'static>, EngineError> {
    let not_whole = || EngineError::Inconsistent(format!("rows of {cols} are not whole blocks of {}", dtype.name()));
    let bytes_in_all = dtype.row_bytes(cols).ok_or_else(not_whole)? * rows;
    let mut bytes: Vec<u8> = (0..bytes_in_all.div_ceil(8)).flat_map(|_| rng.next_u64().to_le_bytes()).collect();
    bytes.truncate(bytes_in_all);
    // The largest value and the middle in units of the scale.
    let (largest, middle) = match dtype {
        GgmlType::Q4_1 => (7.5, -7.5),
        GgmlType::Q5_0 => (16.0, 0.0),
        GgmlType::Q5_1 => (15.5, -15.5),
        GgmlType::Q2K => (1.5 * 15.0, 1.5),
        GgmlType::Q3K => (4.0 * 32.0, 0.0),
        GgmlType::Q4K => (7.5 * 63.0, 7.5),
        GgmlType::Q5K => (15.5 * 63.0, 15.5),
        GgmlType::Iq4Nl => (127.0, 0.0),
        GgmlType::Iq4Xs => (127.0 * 32.0, 0.0),
        // The variance of a uniform value is a third of its largest one's square; here all are as large.
        GgmlType::Q1_0 => (3f32.sqrt(), 0.0),
        _ => (32.0 * 127.0, 0.0),
    };
    let scale = amplitude / largest;
    for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
        for (at, value) in dtype.halves().iter().zip([scale, scale * middle]) {
            block[*at..*at + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
        }
    }
    Ok(Matrix { dtype, rows, cols, bytes: bytes.into() })
}

fn random_norm(rng: &mut Xoshiro256PlusPlus, dim: usize) -> Vec<f32> {
    (0..dim).map(|_| 1.0 + 0.25 * uniform(rng)).collect()
}
