//! What a model takes in memory on the CPU, known from a file's header: whoever has less is told before anything is read.

use cpu_kernels::layout::stride;

use super::{Form, portable_bytes, runs_here};
use crate::error::EngineError;
use crate::parts::{BlockPart, Part, Weights};

/// Tokens of the shortest context that a model is loaded with where nobody has said how long it is to be.
pub const LEAST_CONTEXT: usize = 512;
/// A context that is cut to what fits is cut to multiples of this.
const STEP: usize = 256;
/// Tokens that are computed together: what activations are there for.
const CHUNK: u64 = 64;

/// Bytes that a model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Of its weights; where candle computes it, of the file beside them, too.
    pub weights: u64,
    /// Of a token in a conversation's KV cache.
    pub per_token: u64,
    /// To compute in.
    pub scratch: u64,
    /// Tokens that the model reads at most.
    pub context: usize,
}

impl Need {
    /// Of a model in the form that suits its size. Nothing of it is read.
    ///
    /// # Errors
    /// As [`Weights::form`], of any matrix.
    pub fn of(weights: &dyn Weights) -> Result<Self, EngineError> {
        let (config, totals) = (weights.config(), weights.totals()?);
        let mut quantised = false;
        for layer in 0..config.layers {
            quantised |= weights.required(Part::Block(layer, BlockPart::K))?.dtype.is_quantised();
        }
        let (of_weights, of_element) = match (runs_here(weights)?, Form::of_size(totals.parameters)) {
            (true, Form::Singles) => (4 * totals.parameters, size_of::<f32>()),
            // What is held exactly has an exact cache.
            (true, _) if !quantised => (totals.bytes, size_of::<f32>()),
            (true, _) if cpu_kernels::native::isa().is_some() => (totals.bytes, size_of::<u16>()),
            (true, _) => (portable_bytes(weights)?, size_of::<u16>()),
            (false, _) => (2 * totals.bytes, size_of::<f32>()),
        };
        let elements = 2 * config.layers * config.kv_heads * stride(config.head_dim);
        let activations = 3 * config.dim + 2 * config.q_dim() + 2 * config.kv_dim() + 3 * config.ffn;
        Ok(Self {
            weights: of_weights,
            per_token: (elements * of_element) as u64,
            scratch: 4 * (CHUNK * activations as u64 + config.vocab as u64),
            context: config.context,
        })
    }

    /// Of `sequences` conversations of `context` tokens each.
    pub fn total(&self, context: usize, sequences: usize) -> u64 {
        let cache = self.per_token.saturating_mul(context as u64).saturating_mul(sequences as u64);
        self.weights.saturating_add(self.scratch).saturating_add(cache)
    }

    /// The context that the model is to have where `available` bytes are free: what was `asked` for, which has to fit, or else
    /// as much of the model's own as one conversation can have, at least [`LEAST_CONTEXT`]. Where nobody knows how much is free,
    /// all fits.
    ///
    /// # Errors
    /// [`EngineError::NoMemory`] with the numbers.
    pub fn context_in(&self, available: Option<u64>, asked: Option<usize>) -> Result<usize, EngineError> {
        let wanted = asked.unwrap_or(usize::MAX).clamp(1, self.context.max(1));
        let least = if asked.is_some() { wanted } else { wanted.min(LEAST_CONTEXT) };
        let Some(available) = available else { return Ok(wanted) };
        if self.total(least, 1) > available {
            return Err(EngineError::NoMemory {
                needed: self.total(least, 1),
                available,
                weights: self.weights,
                context: least,
                cache: self.per_token.saturating_mul(least as u64),
                scratch: self.scratch,
            });
        }
        let room = (available - self.total(0, 1)) / self.per_token.max(1);
        let fits = usize::try_from(room).unwrap_or(usize::MAX);
        Ok(if fits >= wanted { wanted } else { (fits / STEP * STEP).max(least) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::CpuBackend;
    use crate::gguf::GgmlType;
    use crate::synthetic::{self, Storage};

    #[test]
    fn contexts_fit_or_are_refused_with_numbers() {
        let need = Need { weights: 1000, per_token: 10, scratch: 100, context: 4096 };
        for (available, asked, expected) in [
            (None, None, Some(4096)),
            (None, Some(100_000), Some(4096)),
            (Some(1100 + 40_960), None, Some(4096)),
            (Some(1100 + 40_959), None, Some(3840)),
            (Some(1100 + 5_120), None, Some(512)),
            (Some(1100 + 5_119), None, None),
            (Some(1100 + 1_000), Some(100), Some(100)),
            (Some(1100 + 40_959), Some(4096), None),
            (Some(1100 + 40_959), Some(1000), Some(1000)),
            (Some(0), None, None),
            (Some(u64::MAX), Some(usize::MAX), Some(4096)),
        ] {
            let found = need.context_in(available, asked);
            assert_eq!(found.as_ref().ok().copied(), expected, "{available:?} {asked:?} {found:?}");
        }
        let told = need.context_in(Some(2 << 20), Some(4096)).unwrap();
        assert_eq!(told, 4096);
        let large = Need { weights: 4_900_000_000, per_token: 131_072, scratch: 9_000_000, context: 131_072 };
        let error = large.context_in(Some(8_000_000_000), Some(131_072)).unwrap_err().to_string();
        for number in ["22.1 GB", "8.0 GB", "4.9 GB", "17.2 GB", "131072 tokens"] {
            assert!(error.contains(number), "{number}: {error}");
        }
    }

    /// What is foretold is what the kernels then hold, but for a few per cent.
    #[test]
    fn foretold_is_what_is_held() {
        // More than what is held in single precision, and a small one.
        for (sizes, form) in [([4096, 512, 4, 8, 2, 3072], Form::Stored), ([257, 32, 1, 2, 1, 32], Form::Singles)] {
            let mut config = synthetic::config(sizes);
            config.context = 2048;
            let storage = Storage { blocks: GgmlType::Q4_0, embedding: GgmlType::Q8_0, untied: false };
            let weights = synthetic::weights(config, storage, 1).unwrap();
            let need = Need::of(&weights).unwrap();
            assert_eq!(Form::of(&weights), form);
            let backend = CpuBackend::new(&weights).unwrap();
            let held = backend.bytes() as u64;
            assert!(held >= need.weights * 9 / 10 && held <= need.weights * 11 / 10, "{held} {need:?}");
            let mut backend = backend;
            let tokens = synthetic::tokens(sizes[0], 256, 1);
            futures::executor::block_on(crate::backend::Backend::forward(
                &mut backend,
                &tokens,
                crate::backend::OutputKind::Nothing,
            ))
            .unwrap();
            assert_eq!(backend.cache_bytes() as u64, 256 * need.per_token, "{need:?}");
        }
    }
}
