//! Whatever reads tokens and says what follows: a backend, the oracle, logits that another engine has left in a file.

use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};

use engine::EngineError;
use engine::backend::{Backend, Output, OutputKind};
use engine::cpu::{CpuBackend, Form};
use engine::reference::Reference;
use engine::weights::ModelWeights;
use futures::executor::block_on;

use super::error::NearnessError;

/// Where a pass is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Where {
    /// The kernels, with the best tiles of this machine and a cache in half precision: what the server runs.
    Cpu,
    /// The kernels with the tiles and the cache that every machine runs: what a page runs.
    Portable,
    /// candle, for what the kernels have no fast tiles for.
    Candle,
    /// A GPU, through Vulkan.
    Vulkan,
}

/// Reads tokens.
pub(super) trait Pass {
    /// Forgets what it has read.
    fn begin(&mut self);
    /// Reads on; returns the logits at each of these tokens, `[tokens, vocab]`.
    fn read(&mut self, tokens: &[u32]) -> Result<Vec<f32>, NearnessError>;
}

struct OfBackend(Box<dyn Backend>);

impl Pass for OfBackend {
    fn begin(&mut self) {
        self.0.truncate(0);
    }

    fn read(&mut self, tokens: &[u32]) -> Result<Vec<f32>, NearnessError> {
        match block_on(self.0.forward(tokens, OutputKind::AllLogits)) {
            Ok(Output::AllLogits(logits)) => Ok(logits),
            // One by one, then.
            Ok(_) | Err(EngineError::NotOffered { .. }) => {
                let mut all = Vec::new();
                for token in tokens {
                    match block_on(self.0.forward(&[*token], OutputKind::Logits))? {
                        Output::Logits(logits) => all.extend(logits),
                        _ => return Err(EngineError::NotOffered { backend: self.0.name(), what: "logits" }.into()),
                    }
                }
                Ok(all)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The pass of `engine::reference`, which reads everything anew each time.
struct Oracle {
    reference: Reference,
    tokens: Vec<u32>,
}

impl Pass for Oracle {
    fn begin(&mut self) {
        self.tokens.clear();
    }

    fn read(&mut self, tokens: &[u32]) -> Result<Vec<f32>, NearnessError> {
        let before = self.tokens.len();
        self.tokens.extend(tokens);
        Ok(self.reference.logits(&self.tokens).split_off(before).concat())
    }
}

/// Single-precision logits of little endian, in the order of the windows.
struct OfFile {
    path: PathBuf,
    file: BufReader<File>,
    vocab: usize,
}

impl Pass for OfFile {
    fn begin(&mut self) {}

    fn read(&mut self, tokens: &[u32]) -> Result<Vec<f32>, NearnessError> {
        let mut bytes = vec![0; 4 * tokens.len() * self.vocab];
        self.file.read_exact(&mut bytes).map_err(|source| NearnessError::File { path: self.path.clone(), source })?;
        Ok(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }
}

/// The reference: the kernels over weights in single precision, with a cache in single precision.
pub(super) fn reference(weights: &ModelWeights<'_>) -> Result<Box<dyn Pass>, NearnessError> {
    Ok(Box::new(OfBackend(Box::new(CpuBackend::with_form(weights, Form::Singles)?))))
}

/// What the reference itself is checked with: sums in double precision.
pub(super) fn oracle(weights: &ModelWeights<'_>) -> Box<dyn Pass> {
    Box::new(Oracle { reference: Reference::new(weights), tokens: Vec::new() })
}

/// What another engine has left.
pub(super) fn of_file(path: &Path, positions: usize, vocab: usize) -> Result<Box<dyn Pass>, NearnessError> {
    let fail = |source| NearnessError::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(fail)?;
    let (found, wanted) = (file.metadata().map_err(fail)?.len(), 4 * positions as u64 * vocab as u64);
    if found != wanted {
        return Err(NearnessError::OtherSize { path: path.to_owned(), found, wanted, positions, vocab });
    }
    Ok(Box::new(OfFile { path: path.to_owned(), file: BufReader::new(file), vocab }))
}

/// The model on a backend.
pub(super) fn on(place: Where, weights: &ModelWeights<'_>) -> Result<Box<dyn Pass>, NearnessError> {
    let backend: Box<dyn Backend> = match place {
        // Stored even where it is small, and would be held in single precision otherwise.
        Where::Cpu => Box::new(CpuBackend::with_form(weights, Form::Stored)?),
        Where::Portable => Box::new(CpuBackend::with_form(weights, Form::Portable)?),
        Where::Candle => Box::new(engine::candle::CandleBackend::new(weights)?),
        #[cfg(feature = "vulkan")]
        Where::Vulkan => {
            use engine::gpu::{GpuBackend, GpuContext, KernelSet};
            let gpu = block_on(GpuContext::request())?;
            Box::new(block_on(GpuBackend::with_kernels(&gpu, weights, KernelSet::EXACT))?)
        }
        #[cfg(not(feature = "vulkan"))]
        Where::Vulkan => return Err(NearnessError::NoVulkan),
    };
    Ok(Box::new(OfBackend(backend)))
}
