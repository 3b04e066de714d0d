//! What weights are read from: named tensors, wherever they lie.

use std::borrow::Cow;
use std::ops::Range;

use async_trait::async_trait;

use super::error::EngineError;
use super::gguf::GgmlType;

/// A file's tensors.
#[async_trait(?Send)]
pub trait Source<'a> {
    /// All names.
    fn names(&self) -> Vec<&str>;

    /// How the matrix `name` of `rows` outputs and `cols` inputs is handed out.
    ///
    /// # Errors
    /// It is missing, or has another shape.
    fn dtype(&self, name: &str, rows: usize, cols: usize) -> Result<GgmlType, EngineError>;

    /// These rows of the matrix `name`, whose `shape` is outputs and inputs.
    ///
    /// # Errors
    /// It is missing, has another shape, or cannot be read.
    async fn rows(&self, name: &str, shape: [usize; 2], rows: Range<usize>) -> Result<Cow<'a, [u8]>, EngineError>;

    /// The vector `name` in single precision.
    ///
    /// # Errors
    /// It is missing, has another length, or cannot be read.
    async fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, EngineError>;
}

/// The error for a tensor of another shape than the model's sizes ask for.
pub(super) fn wrong_shape(name: &str, found: &[usize], expected: &[usize]) -> EngineError {
    EngineError::Inconsistent(format!(
        "tensor {name:?} has the shape {found:?}, but the model's sizes ask for {expected:?}"
    ))
}
