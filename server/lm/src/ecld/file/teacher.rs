//! A file's model in single precision, block by block: one that is larger than memory can be scored.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use engine::EngineError;
use engine::assemble::WeightStream;
use engine::files::Files;
use engine::gguf::{GgmlType, Gguf};
use engine::parts::{BlockPart, Part, Weights as _};
use engine::quant;
use engine::safetensors::TensorFile;
use futures::executor::block_on;

use super::archive::{Archive, Format};
use super::disk::Disk;
use crate::ecld::error::EcldError;
use crate::ecld::spec::{Block, Model, Spec};

/// A model that is read when it is asked for.
#[derive(Debug)]
pub struct Teacher {
    spec: Spec,
    stream: WeightStream<Files<Disk>>,
    path: std::path::PathBuf,
    /// Blocks that were read already, where they may be kept.
    kept: Option<Vec<OnceLock<Arc<Block<f32>>>>>,
}

impl Teacher {
    /// The model of `archive`. Its blocks are kept once they are read, where all of them in single precision take no more
    /// than `memory` bytes.
    ///
    /// # Errors
    /// A tensor is missing, has another shape than the sizes ask for, or wants a computation that the engine does not have.
    pub fn new(archive: &Archive, memory: u64) -> Result<Self, EcldError> {
        let fail = |error: EngineError| EcldError::file(&archive.path, error);
        let disk = archive.disk.clone();
        let stream = match &archive.format {
            Format::Gguf(head) => {
                let gguf = Gguf::parse_header(head, disk.size(0)).map_err(|error| fail(error.into()))?;
                block_on(WeightStream::from_gguf(&gguf, disk)).map_err(fail)?
            }
            Format::HuggingFace { config, headers } => {
                let mut parsed = Vec::new();
                for (file, header) in headers.iter().enumerate() {
                    parsed.push(TensorFile::parse_header(header, disk.size(file)).map_err(|error| fail(error.into()))?);
                }
                WeightStream::from_safetensors(config, &parsed, disk.clone(), GgmlType::F32).map_err(fail)?
            }
        };
        // Every matrix is there and has its shape.
        stream.totals().map_err(fail)?;
        let spec = Spec::of(&archive.plan);
        let block = 2 * spec.dim * (spec.q_dim() + spec.kv_dim()) + 3 * spec.dim * spec.ffn;
        let all = block as u64 * spec.layers as u64 * 4;
        let kept = (all <= memory).then(|| (0..spec.layers).map(|_| OnceLock::new()).collect());
        Ok(Self { spec, stream, path: archive.path.clone(), kept })
    }

    fn fail(&self) -> impl Fn(EngineError) -> EcldError + '_ {
        |error| EcldError::file(&self.path, error)
    }

    fn rows(&self, part: Part, rows: Range<usize>) -> Result<Vec<f32>, EcldError> {
        let form = self.stream.required(part).map_err(self.fail())?;
        let bytes = block_on(self.stream.rows(part, rows.clone())).map_err(self.fail())?;
        let mut values = vec![0.0; form.cols * rows.len()];
        if !quant::dequantize(form.dtype, &bytes, &mut values) {
            return Err(EcldError::file(&self.path, format!("{part:?} has the wrong number of bytes")));
        }
        match values.iter().any(|value| !value.is_finite()) {
            true => Err(EcldError::file(&self.path, format!("{part:?} holds what is no number"))),
            false => Ok(values),
        }
    }

    fn read(&self, layer: usize) -> Result<Block<f32>, EcldError> {
        let matrix = |part: BlockPart| {
            let part = Part::Block(layer, part);
            let rows = self.stream.required(part).map_err(self.fail())?.rows;
            self.rows(part, 0..rows)
        };
        let vectors = block_on(self.stream.vectors(layer)).map_err(self.fail())?;
        let traits = vectors.traits;
        let (q, kv) = (self.spec.q_dim(), self.spec.kv_dim());
        let bias = traits.qkv_bias.map(|bias| {
            let part = |range: Range<usize>| bias.get(range).unwrap_or_default().to_vec();
            [part(0..q), part(q..q + kv), part(q + kv..q + 2 * kv)]
        });
        Ok(Block {
            attn_norm: vectors.attn_norm,
            q: matrix(BlockPart::Q)?,
            k: matrix(BlockPart::K)?,
            v: matrix(BlockPart::V)?,
            o: matrix(BlockPart::O)?,
            bias,
            head_norms: traits.q_norm.zip(traits.k_norm).map(|(q, k)| [q, k]),
            ffn_norm: vectors.ffn_norm,
            gate: matrix(BlockPart::Gate)?,
            up: matrix(BlockPart::Up)?,
            down: matrix(BlockPart::Down)?,
            post_norms: traits.post_attn_norm.zip(traits.post_ffn_norm).map(|(a, f)| [a, f]),
            rotation: traits.rope.table(),
            window: traits.window,
        })
    }
}

impl Model<f32> for Teacher {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn block(&self, layer: usize) -> Result<Arc<Block<f32>>, EcldError> {
        let Some(place) = self.kept.as_ref().and_then(|kept| kept.get(layer)) else {
            return self.read(layer).map(Arc::new);
        };
        if let Some(block) = place.get() {
            return Ok(Arc::clone(block));
        }
        let block = Arc::new(self.read(layer)?);
        Ok(Arc::clone(place.get_or_init(|| block)))
    }

    fn embed(&self, tokens: &[u32]) -> Result<Vec<f32>, EcldError> {
        let mut out = Vec::with_capacity(tokens.len() * self.spec.dim);
        for token in tokens {
            let row = self.rows(Part::Embedding, *token as usize..*token as usize + 1)?;
            out.extend(row.iter().map(|v| v * self.spec.embedding_scale as f32));
        }
        Ok(out)
    }

    fn output_norm(&self) -> Result<Vec<f32>, EcldError> {
        block_on(self.stream.output_norm()).map_err(self.fail())
    }

    fn head(&self, rows: Range<usize>) -> Result<Vec<f32>, EcldError> {
        let own = self.stream.form(Part::Output).map_err(self.fail())?.is_some();
        self.rows(if own { Part::Output } else { Part::Embedding }, rows)
    }
}
