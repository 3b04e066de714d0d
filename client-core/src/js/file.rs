//! A model file, wherever it lies: on the shelf, on a person's disk, or in this memory. Read piece by piece, so that a file
//! need not pass through memory whole.

use std::rc::Rc;

use js_sys::{ArrayBuffer, Uint8Array};
use wasm_bindgen::JsCast;
use wasm_bindgen_futures::JsFuture;
use web_sys::Blob;

use super::message::describe;
use crate::llm::gguf::Gguf;
use crate::verdict::Shape;

/// Bytes that are copied out of the browser at a time.
const PIECE: usize = 8 << 20;
/// Bytes of a file that are read first for its header. Enough for small vocabularies; more is read where it is not.
pub const FIRST_HEAD: usize = 256 << 10;
/// Longest header that is looked at: vocabularies of a quarter of a million tokens stay below.
pub const LONGEST_HEAD: usize = 64 << 20;

/// A file whose bytes can be had.
#[derive(Clone, Debug)]
pub enum ModelFile {
    /// On a disk: the browser reads what is asked for.
    Blob(Blob),
    /// Here.
    Memory(Rc<Vec<u8>>),
}

impl ModelFile {
    /// Its length, bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::Blob(blob) => blob.size() as u64,
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// `len` bytes from byte `from` on; fewer where the file ends.
    ///
    /// # Errors
    /// The browser cannot read it (any more); says why in words.
    pub async fn read(&self, from: u64, len: usize) -> Result<Vec<u8>, String> {
        match self {
            Self::Memory(bytes) => {
                let from = usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len());
                let end = from.saturating_add(len).min(bytes.len());
                Ok(bytes.get(from..end).unwrap_or_default().to_vec())
            }
            Self::Blob(blob) => {
                let words = |error| format!("the file cannot be read ({})", describe(&error));
                let slice = blob.slice_with_f64_and_f64(from as f64, from as f64 + len as f64).map_err(words)?;
                let buffer = JsFuture::from(slice.array_buffer()).await.map_err(words)?;
                Ok(Uint8Array::new(buffer.unchecked_ref::<ArrayBuffer>()).to_vec())
            }
        }
    }

    /// All of it, copied piece by piece into one block of memory.
    ///
    /// # Errors
    /// The memory cannot be had, or the browser cannot read the file.
    pub async fn whole(&self) -> Result<Rc<Vec<u8>>, String> {
        if let Self::Memory(bytes) = self {
            return Ok(Rc::clone(bytes));
        }
        let size = self.size();
        let mut bytes = Vec::new();
        usize::try_from(size).ok().and_then(|size| bytes.try_reserve_exact(size).ok()).ok_or_else(|| {
            format!(
                "this tab has no memory left for a model of {size} bytes; close other tabs, or let the server answer"
            )
        })?;
        while (bytes.len() as u64) < size {
            let piece = self.read(bytes.len() as u64, PIECE).await?;
            if piece.is_empty() {
                return Err("the file became shorter while it was read; choose it again".to_owned());
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(Rc::new(bytes))
    }

    /// What the file's header tells of the model, read without the rest.
    ///
    /// # Errors
    /// The file is no model that the engine runs, or cannot be read.
    pub async fn shape(&self) -> Result<Shape, String> {
        let mut length = FIRST_HEAD;
        loop {
            let head = self.read(0, length).await?;
            match shape_of_head(&head, self.size(), length >= LONGEST_HEAD) {
                Some(shape) => return shape,
                None => length *= 4,
            }
        }
    }
}

/// The model's shape by the beginning of its file of `size` bytes; `None` where more of it is needed, and there is more,
/// unless this is the `last` try.
#[must_use]
pub fn shape_of_head(head: &[u8], size: u64, last: bool) -> Option<Result<Shape, String>> {
    match Gguf::parse_header(head, size) {
        Err(error) if error.wants_more() && !last && (head.len() as u64) < size => None,
        Ok(gguf) => Some(Shape::from_gguf(&gguf).map_err(|error| error.to_string())),
        Err(error) => Some(Err(error.to_string())),
    }
}
