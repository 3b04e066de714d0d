//! A model's file, wherever it lies: in the store, on a person's disk, or in this memory. Read piece by piece, so
//! that a file need not pass through memory whole.

use std::rc::Rc;

use js_sys::{ArrayBuffer, Uint8Array};
use wasm_bindgen::JsCast;
use wasm_bindgen_futures::JsFuture;
use web_sys::Blob;

use super::message::describe;
use client::verdict::{LONGEST_HEAD, ModelFootprint};
use engine::gguf::{Gguf, GgufError};

/// Bytes of a file that are read first for its header. Enough for small vocabularies; more is read where it is not.
pub const FIRST_HEAD: usize = 256 << 10;

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

    /// Its beginning, as far as the header needs it; where the header cannot be read, a part that shows why.
    ///
    /// # Errors
    /// The browser cannot read it.
    pub async fn head(&self) -> Result<Vec<u8>, String> {
        let mut length = FIRST_HEAD;
        loop {
            let head = self.read(0, length).await?;
            match Gguf::parse_header(&head, self.size()) {
                Err(error) if more_may_help(&error, &head, self.size(), length >= LONGEST_HEAD) => length *= 4,
                _ => return Ok(head),
            }
        }
    }

    /// What the file's header tells of the model, read without the rest.
    ///
    /// # Errors
    /// The file is no model that the engine runs, or cannot be read.
    pub async fn footprint(&self) -> Result<ModelFootprint, String> {
        let head = self.head().await?;
        footprint_of_head(&head, self.size(), true).unwrap_or_else(|| Err("the file has no header".to_owned()))
    }
}

/// Whether a header that could not be read may become readable with more of the file, unless this is the `last` try.
fn more_may_help(error: &GgufError, head: &[u8], size: u64, last: bool) -> bool {
    error.wants_more() && !last && (head.len() as u64) < size
}

/// The model's footprint by the beginning of its file of `size` bytes; `None` where more of it is needed, and there is more,
/// unless this is the `last` try.
#[must_use]
pub fn footprint_of_head(head: &[u8], size: u64, last: bool) -> Option<Result<ModelFootprint, String>> {
    match Gguf::parse_header(head, size) {
        Err(error) if more_may_help(&error, head, size, last) => None,
        Ok(gguf) => Some(ModelFootprint::from_gguf(&gguf).map_err(|error| error.to_string())),
        Err(error) => Some(Err(error.to_string())),
    }
}
