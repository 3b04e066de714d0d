//! A model's tensors as a backend takes them: matrix by matrix, in pieces of whole rows, from wherever they are. So a file
//! that is larger than this memory can be put onto a device.
//!
//! [`ModelWeights`] has them all here; [`WeightStream`](super::assemble::WeightStream) reads them when they are asked for.

use std::borrow::Cow;
use std::ops::Range;

use async_trait::async_trait;

use super::config::ModelConfig;
use super::error::EngineError;
use super::gguf::GgmlType;
use super::weights::{LayerTraits, LayerWeights, Matrix, ModelWeights};

/// Bytes of a matrix that are read at a time.
pub const PIECE_BYTES: usize = 8 << 20;

/// A matrix of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlockPart {
    /// Queries, `[q_dim, dim]`.
    Q,
    /// Keys, `[kv_dim, dim]`.
    K,
    /// Values, `[kv_dim, dim]`.
    V,
    /// Attention's way back, `[dim, q_dim]`.
    O,
    /// The feed-forward net's gate, `[ffn, dim]`.
    Gate,
    /// Its other half, `[ffn, dim]`.
    Up,
    /// Its way back, `[dim, ffn]`.
    Down,
}

impl BlockPart {
    /// All of them.
    pub const ALL: [Self; 7] = [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];
}

/// A matrix of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Token embedding, `[vocab, dim]`.
    Embedding,
    /// Output head, `[vocab, dim]`, where it is not the embedding.
    Output,
    /// Of the block with this number, counted from 0.
    Block(usize, BlockPart),
}

/// How a matrix is handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatrixForm {
    /// How its elements are stored.
    pub dtype: GgmlType,
    /// Outputs; at least 1.
    pub rows: usize,
    /// Inputs; whole blocks of `dtype`.
    pub cols: usize,
    /// Rows that are handed out together: a piece begins and ends at multiples of this, or at the last row.
    pub unit: usize,
}

impl MatrixForm {
    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        // Whoever makes a form has checked that its rows are whole blocks.
        self.dtype.row_bytes(self.cols).unwrap_or(0)
    }

    /// Bytes of the matrix as stored; more than this memory may have.
    pub fn bytes(&self) -> u64 {
        self.row_bytes() as u64 * self.rows as u64
    }

    /// Its rows in pieces in order, each of about `most` bytes at most where a row takes `row_bytes`.
    pub fn pieces(&self, row_bytes: usize, most: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let unit = self.unit.max(1);
        let step = (most / row_bytes.max(1) / unit).max(1).saturating_mul(unit);
        let rows = self.rows;
        (0..rows).step_by(step).map(move |first| first..first.saturating_add(step).min(rows))
    }
}

/// What a block has beside its matrices.
#[derive(Debug, Clone)]
pub struct BlockVectors {
    /// RMSNorm before attention, `[dim]`.
    pub attn_norm: Vec<f32>,
    /// RMSNorm before the feed-forward net, `[dim]`.
    pub ffn_norm: Vec<f32>,
    /// What families differ in.
    pub traits: LayerTraits,
}

/// What a model is in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Number of parameters; a tied embedding counts once.
    pub parameters: u64,
    /// Bytes of all matrices as handed out.
    pub bytes: u64,
    /// The storage type of most of the blocks' bytes: what a model page calls its quantisation.
    pub quantisation: &'static str,
}

/// A model's tensors.
#[async_trait(?Send)]
pub trait Weights {
    /// The sizes that all tensors have been checked against.
    fn config(&self) -> &ModelConfig;

    /// How a matrix is handed out; `None` for the head of a model whose head is its embedding.
    ///
    /// # Errors
    /// It is missing, has another shape, or is stored in a way that is not read.
    fn form(&self, part: Part) -> Result<Option<MatrixForm>, EngineError>;

    /// These rows of a matrix, in the order of [`super::weights`].
    ///
    /// # Errors
    /// As [`form`](Self::form); the rows are not whole units of it, or cannot be read.
    async fn rows(&self, part: Part, rows: Range<usize>) -> Result<Cow<'_, [u8]>, EngineError>;

    /// RMSNorm after the last block, `[dim]`.
    ///
    /// # Errors
    /// It is missing, has another length, or cannot be read.
    async fn output_norm(&self) -> Result<Vec<f32>, EngineError>;

    /// What block `layer` has beside its matrices.
    ///
    /// # Errors
    /// As [`output_norm`](Self::output_norm); there is no such block.
    async fn vectors(&self, layer: usize) -> Result<BlockVectors, EngineError>;

    /// Elements of all biases and of all norms but one before attention, one before the feed-forward net and the last.
    fn extras(&self) -> u64;

    /// The matrix `part`, which has to be there.
    ///
    /// # Errors
    /// As [`form`](Self::form).
    fn required(&self, part: Part) -> Result<MatrixForm, EngineError> {
        self.form(part)?.ok_or_else(|| EngineError::Inconsistent("a matrix of the model is missing".into()))
    }

    /// All matrices, those that the model may not have among them.
    fn parts(&self) -> Vec<Part> {
        let blocks = (0..self.config().layers).flat_map(|layer| BlockPart::ALL.map(|part| Part::Block(layer, part)));
        blocks.chain([Part::Embedding, Part::Output]).collect()
    }

    /// What the model is in numbers. Nothing is read.
    ///
    /// # Errors
    /// As [`form`](Self::form), of any matrix.
    fn totals(&self) -> Result<Totals, EngineError> {
        let config = self.config();
        let norms = (2 * config.layers as u64 + 1) * config.dim as u64;
        let mut totals = Totals { parameters: norms + self.extras(), bytes: 0, quantisation: "none" };
        for part in self.parts() {
            let Some(form) = self.form(part)? else { continue };
            totals.parameters += form.rows as u64 * form.cols as u64;
            totals.bytes += form.bytes();
        }
        if config.layers > 0 {
            totals.quantisation = self.required(Part::Block(0, BlockPart::Gate))?.dtype.name();
        }
        Ok(totals)
    }
}

fn no_block(layer: usize) -> EngineError {
    EngineError::Inconsistent(format!("there is no block {layer}"))
}

impl<'a> LayerWeights<'a> {
    /// One of its matrices.
    pub fn matrix(&self, part: BlockPart) -> &Matrix<'a> {
        match part {
            BlockPart::Q => &self.q,
            BlockPart::K => &self.k,
            BlockPart::V => &self.v,
            BlockPart::O => &self.o,
            BlockPart::Gate => &self.gate,
            BlockPart::Up => &self.up,
            BlockPart::Down => &self.down,
        }
    }
}

impl<'a> ModelWeights<'a> {
    fn matrix(&self, part: Part) -> Result<Option<&Matrix<'a>>, EngineError> {
        Ok(match part {
            Part::Embedding => Some(&self.embedding),
            Part::Output => self.output.as_ref(),
            Part::Block(layer, part) => Some(self.layers.get(layer).ok_or_else(|| no_block(layer))?.matrix(part)),
        })
    }
}

#[async_trait(?Send)]
impl Weights for ModelWeights<'_> {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn form(&self, part: Part) -> Result<Option<MatrixForm>, EngineError> {
        let Some(matrix) = self.matrix(part)? else { return Ok(None) };
        let &Matrix { dtype, rows, cols, ref bytes } = matrix;
        let whole = dtype.row_bytes(cols).and_then(|row| row.checked_mul(rows)) == Some(bytes.len());
        match whole && rows > 0 {
            true => Ok(Some(MatrixForm { dtype, rows, cols, unit: 1 })),
            false => Err(EngineError::Inconsistent("a matrix has the wrong number of bytes".into())),
        }
    }

    async fn rows(&self, part: Part, rows: Range<usize>) -> Result<Cow<'_, [u8]>, EngineError> {
        let row_bytes = self.required(part)?.row_bytes();
        let bytes = self
            .matrix(part)?
            .and_then(|matrix| matrix.bytes.get(rows.start.checked_mul(row_bytes)?..rows.end.checked_mul(row_bytes)?));
        bytes.map(Cow::Borrowed).ok_or_else(|| EngineError::Inconsistent("a matrix has fewer rows".into()))
    }

    async fn output_norm(&self) -> Result<Vec<f32>, EngineError> {
        Ok(self.output_norm.clone())
    }

    async fn vectors(&self, layer: usize) -> Result<BlockVectors, EngineError> {
        let layer = self.layers.get(layer).ok_or_else(|| no_block(layer))?;
        let (attn_norm, ffn_norm) = (layer.attn_norm.clone(), layer.ffn_norm.clone());
        Ok(BlockVectors { attn_norm, ffn_norm, traits: layer.traits.clone() })
    }

    fn extras(&self) -> u64 {
        self.layers.iter().map(|layer| layer.traits.elements() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_all_rows_in_whole_units() {
        for (rows, unit, row_bytes, most) in [(10, 1, 4, 12), (10, 4, 4, 20), (7, 3, 100, 1), (5, 1, 1, 1 << 20)] {
            let form = MatrixForm { dtype: GgmlType::F32, rows, cols: 1, unit };
            let mut next = 0;
            for piece in form.pieces(row_bytes, most) {
                assert_eq!(piece.start, next, "{form:?}");
                assert!(piece.start.is_multiple_of(unit) && !piece.is_empty());
                assert!(piece.end.is_multiple_of(unit) || piece.end == rows);
                assert!(piece.len() * row_bytes <= most || piece.len() <= unit);
                next = piece.end;
            }
            assert_eq!(next, rows);
        }
    }
}
