//! How long a prompt takes with packed products and without. Whether they are faster, no capability of an adapter tells: a
//! GPU without the instruction has them written out in shifts and additions.

use serde::{Deserialize, Serialize};

use super::{CHUNK, GpuBackend, GpuContext, KernelSet};
use crate::backend::{Backend, OutputKind};
use crate::error::EngineError;
use crate::gguf::GgmlType;
use crate::synthetic::{self, Storage};

/// Timed runs of each kind; their median counts. One is enough where it takes [`SLOW_S`].
const RUNS: usize = 5;
const SLOW_S: f64 = 0.5;
/// A run takes at least so long, if that takes no more than [`MOST_PROMPTS`]: else what submitting costs, and the clock's
/// steps, would count too.
const RUN_S: f64 = 0.02;
const MOST_PROMPTS: f64 = 16.0;
/// A block that is large enough to fill a GPU, and little to wait for: vocabulary, width, layers, query heads, key heads,
/// inner width.
const SHAPE: synthetic::Sizes = [64, 1024, 1, 8, 1, 1024];

/// Microseconds that a prompt of [`CHUNK`] tokens takes through one block in Q4_0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefillTimes {
    /// With products in single precision.
    pub single_us: u32,
    /// With packed products.
    pub packed_us: u32,
}

impl PrefillTimes {
    /// Whether packed products are faster by more than chance: by more than a twentieth.
    pub fn prefers_packed(self) -> bool {
        u64::from(self.packed_us) * 20 < u64::from(self.single_us) * 19
    }

    /// Times both. `clock` returns seconds.
    ///
    /// # Errors
    /// The device's.
    pub(super) async fn measure(gpu: &GpuContext, clock: &dyn Fn() -> f64) -> Result<Self, EngineError> {
        let storage = Storage { blocks: GgmlType::Q4_0, embedding: GgmlType::Q4_0, untied: false };
        let weights = synthetic::weights(synthetic::config(SHAPE), storage, 1)?;
        let tokens = synthetic::tokens(weights.config.vocab, CHUNK, 1);
        let mut single = GpuBackend::with_cache(gpu, &weights, KernelSet::BASELINE, false).await?;
        let set = KernelSet { packed: true, ..KernelSet::BASELINE };
        let mut packed = GpuBackend::with_cache(gpu, &weights, set, false).await?;
        let mut run = PromptLoop { gpu, clock, tokens: &tokens, prompts: 1.0 };
        // The first prompt pays for compiling, the second says how many make a run.
        for backend in [&mut single, &mut packed] {
            run.prompt_s(backend).await?;
        }
        let once_s = run.prompt_s(&mut single).await?;
        run.prompts = (RUN_S / once_s).ceil().clamp(1.0, MOST_PROMPTS);
        let mut took_s = [Vec::new(), Vec::new()];
        for _ in 0..if once_s < SLOW_S { RUNS } else { 1 } {
            // In turn, so that both are met by what the GPU's own clock does meanwhile.
            for (backend, took_s) in [&mut single, &mut packed].into_iter().zip(&mut took_s) {
                took_s.push(run.prompt_s(backend).await?);
            }
        }
        let [single_us, packed_us] = took_s.map(median_us);
        Ok(Self { single_us, packed_us })
    }
}

/// Prompts one after the other, without waiting in between.
struct PromptLoop<'r> {
    gpu: &'r GpuContext,
    clock: &'r dyn Fn() -> f64,
    tokens: &'r [u32],
    prompts: f64,
}

impl PromptLoop<'_> {
    /// Seconds that one of them takes.
    async fn prompt_s(&self, backend: &mut GpuBackend) -> Result<f64, EngineError> {
        let started_s = (self.clock)();
        for _ in 0..self.prompts as usize {
            backend.truncate(0);
            backend.forward(self.tokens, OutputKind::Nothing).await?;
        }
        self.gpu.settled().await?;
        Ok(((self.clock)() - started_s) / self.prompts)
    }
}

fn median_us(mut took_s: Vec<f64>) -> u32 {
    took_s.sort_by(f64::total_cmp);
    took_s.get(took_s.len() / 2).map_or(u32::MAX, |took_s| (took_s * 1e6) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_and_what_is_faster() {
        assert_eq!(median_us(vec![5.0, 1e-3, 2e-3, 0.0, 3e-3]), 2000);
        assert_eq!(median_us(vec![1.5]), 1_500_000);
        for (single_us, packed_us, packed) in
            [(1000, 949, true), (1000, 950, false), (0, 0, false), (1000, 2000, false), (u32::MAX, 1, true)]
        {
            assert_eq!(PrefillTimes { single_us, packed_us }.prefers_packed(), packed, "{single_us} {packed_us}");
        }
    }
}
