//! Checkpoints: one safetensors file with weights (`w.NAME`), Muon's velocities (`v.NAME`), AdamW's moments (`m1.NAME`,
//! `m2.NAME`), adapters (`lora.a.NAME`, `lora.b.NAME`, with `m1.` or `m2.` in front of their moments), and settings and position in its metadata.

use super::lora::{Adapters, Lora, Pair};
use super::model::{Llama, LlamaConfig};
use super::train::{OptimState, Position, TrainConfig};
use burn::tensor::{Device, Tensor, TensorData};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// Why a checkpoint cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// File system.
    #[error("cannot access {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no checkpoint of this program.
    #[error("{path} is no usable checkpoint: {why}")]
    Malformed {
        /// The file.
        path: String,
        /// Why.
        why: String,
    },
    /// A tensor could not be read back from the device.
    #[error("the device failed: {0}")]
    Device(String),
}

/// What is known about the checkpoint beside its tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// Sizes.
    pub model: LlamaConfig,
    /// Settings of the run.
    pub train: TrainConfig,
    /// Where the run was.
    pub position: Position,
    /// Seed of the corpus.
    pub corpus_seed: u64,
    /// Sizes of adapters, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<Adapters>,
}

/// A checkpoint in memory.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// Settings and position.
    pub meta: Meta,
    /// Weights.
    pub model: Llama,
    /// Optimizer state.
    pub state: OptimState,
    /// Adapters, where only they learn.
    pub lora: Option<Lora>,
}

/// AdamW's.
type Moments = Option<(Tensor<2>, Tensor<2>)>;

const META: &str = "tandem";

/// The values of a tensor, row by row.
pub fn values(t: &Tensor<2>) -> Result<Vec<f32>, CheckpointError> {
    t.clone().inner().try_into_vec_as::<f32>().map_err(|e| CheckpointError::Device(format!("{e:?}")))
}

/// Writes a checkpoint; the old file stays until the new one is complete.
pub fn save(
    path: &Path,
    meta: &Meta,
    model: &Llama,
    state: &OptimState,
    lora: Option<&Lora>,
) -> Result<(), CheckpointError> {
    let mut tensors: Vec<(String, [usize; 2], Vec<u8>)> = Vec::new();
    let mut push = |name: String, t: &Tensor<2>| -> Result<(), CheckpointError> {
        let bytes = values(t)?.iter().flat_map(|v| v.to_le_bytes()).collect();
        tensors.push((name, t.dims(), bytes));
        Ok(())
    };
    for (i, (name, _)) in model.config.layout().iter().enumerate() {
        push(format!("w.{name}"), &model.weights[i])?;
        if let Some(Some(v)) = state.velocity.get(i) {
            push(format!("v.{name}"), v)?;
        }
        if let Some(Some((m1, m2))) = state.moments.get(i) {
            push(format!("m1.{name}"), m1)?;
            push(format!("m2.{name}"), m2)?;
        }
        let Some(pair) = lora.and_then(|lora| lora.pair(i)) else { continue };
        for ((part, tensor), moments) in [("a", &pair.a), ("b", &pair.b)].into_iter().zip(&pair.moments) {
            push(format!("lora.{part}.{name}"), tensor)?;
            if let Some((m1, m2)) = moments {
                push(format!("m1.lora.{part}.{name}"), m1)?;
                push(format!("m2.lora.{part}.{name}"), m2)?;
            }
        }
    }
    let malformed = |why: String| CheckpointError::Malformed { path: path.display().to_string(), why };
    let json = serde_json::to_string(meta).map_err(|e| malformed(e.to_string()))?;
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| TensorView::new(Dtype::F32, shape.to_vec(), bytes).map(|v| (name.as_str(), v)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| malformed(e.to_string()))?;
    let bytes = safetensors::serialize(views, Some(HashMap::from([(META.to_owned(), json)])))
        .map_err(|e| malformed(e.to_string()))?;
    let io = |source| CheckpointError::Io { path: path.display().to_string(), source };
    let partial = path.with_extension("partial");
    // Without the sync, a power cut would leave an empty file under the final name.
    let written = File::create(&partial).and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()));
    written.map_err(io)?;
    std::fs::rename(&partial, path).map_err(io)
}

/// Reads a checkpoint onto `device`.
pub fn load(path: &Path, device: &Device) -> Result<Checkpoint, CheckpointError> {
    let malformed = |why: String| CheckpointError::Malformed { path: path.display().to_string(), why };
    let bytes =
        std::fs::read(path).map_err(|source| CheckpointError::Io { path: path.display().to_string(), source })?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| malformed(e.to_string()))?;
    let json = header.metadata().as_ref().and_then(|m| m.get(META)).ok_or_else(|| malformed("no settings".into()))?;
    let meta: Meta = serde_json::from_str(json).map_err(|e| malformed(e.to_string()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| malformed(e.to_string()))?;
    let read = |name: &str, shape: [usize; 2]| -> Result<Option<Tensor<2>>, CheckpointError> {
        let Ok(view) = file.tensor(name) else { return Ok(None) };
        if view.shape() != shape || view.dtype() != Dtype::F32 {
            return Err(malformed(format!("{name} is {:?} {:?}, not F32 {shape:?}", view.dtype(), view.shape())));
        }
        let data: Vec<f32> = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        Ok(Some(Tensor::from_data(TensorData::new(data, shape), device)))
    };
    let (mut weights, mut state) = (Vec::new(), OptimState::default());
    for (name, shape) in meta.model.layout() {
        weights.push(read(&format!("w.{name}"), shape)?.ok_or_else(|| malformed(format!("{name} is missing")))?);
        state.velocity.push(read(&format!("v.{name}"), shape)?);
        let m1 = read(&format!("m1.{name}"), shape)?;
        state.moments.push(m1.zip(read(&format!("m2.{name}"), shape)?));
    }
    let lora = match meta.lora.clone() {
        None => None,
        Some(settings) => {
            let mut pairs = vec![None; weights.len()];
            for (i, name, [inputs, outputs]) in settings.of(&meta.model) {
                let half = |part: &str, shape| -> Result<(Tensor<2>, Moments), CheckpointError> {
                    let name = format!("lora.{part}.{name}");
                    let tensor = read(&name, shape)?.ok_or_else(|| malformed(format!("{name} is missing")))?;
                    let m1 = read(&format!("m1.{name}"), shape)?;
                    Ok((tensor, m1.zip(read(&format!("m2.{name}"), shape)?)))
                };
                let (a, of_a) = half("a", [inputs, settings.rank])?;
                let (b, of_b) = half("b", [settings.rank, outputs])?;
                if let Some(pair) = pairs.get_mut(i) {
                    *pair = Some(Pair { a, b, moments: [of_a, of_b] });
                }
            }
            Some(Lora { settings, pairs })
        }
    };
    Ok(Checkpoint { model: Llama { config: meta.model.clone(), weights }, meta, state, lora })
}
