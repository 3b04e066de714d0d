//! Model files of which only the headers are here: where each tensor lies, and how its rows are read from there.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use async_trait::async_trait;

use super::error::EngineError;
use super::gguf::{GgmlType, Gguf};
use super::quant;
use super::safetensors::read::{Storage, TensorFile};
use super::source::{Source, wrong_shape};
use super::weights::Matrix;

/// Bytes of a matrix that are decoded at a time, in order to be stored otherwise: in single precision they may take twice
/// as much.
const DECODED_BYTES: usize = 4 << 20;

/// Reads a model's files, wherever they are.
#[async_trait(?Send)]
pub trait ReadAt {
    /// `len` bytes of file number `file` from byte `start` on.
    ///
    /// # Errors
    /// They cannot be read.
    async fn read(&self, file: usize, start: u64, len: usize) -> Result<Vec<u8>, EngineError>;
}

/// Files that are in memory.
#[async_trait(?Send)]
impl ReadAt for [&[u8]] {
    async fn read(&self, file: usize, start: u64, len: usize) -> Result<Vec<u8>, EngineError> {
        let bytes = usize::try_from(start).ok().and_then(|start| self.get(file)?.get(start..start.checked_add(len)?));
        bytes.map(<[u8]>::to_vec).ok_or_else(|| EngineError::Inconsistent("a model file ends too early".into()))
    }
}

#[async_trait(?Send)]
impl<R: ReadAt + ?Sized> ReadAt for &R {
    async fn read(&self, file: usize, start: u64, len: usize) -> Result<Vec<u8>, EngineError> {
        (**self).read(file, start, len).await
    }
}

/// Where a tensor lies.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    file: usize,
    /// First byte in that file.
    start: u64,
    /// Rows first.
    shape: Vec<usize>,
    /// How it is stored; `None` for a type that is not read.
    dtype: Option<GgmlType>,
}

/// The tensors of one or many files.
#[derive(Debug, Clone)]
pub struct Files<R> {
    places: BTreeMap<String, Place>,
    read: R,
    /// How matrices are handed out; `None` as they are.
    store_as: Option<GgmlType>,
}

impl<R: ReadAt> Files<R> {
    /// The tensors of the GGUF file whose header is `gguf`, which is file number 0 of `read`.
    pub fn of_gguf(gguf: &Gguf<'_>, read: R) -> Self {
        let place = |info: &super::gguf::TensorInfo| Place {
            file: 0,
            start: info.start,
            shape: info.dims.iter().rev().copied().collect(),
            dtype: Some(info.dtype),
        };
        let places = gguf.tensors().iter().map(|(name, info)| ((*name).to_owned(), place(info))).collect();
        Self { places, read, store_as: None }
    }

    /// The tensors of safetensors files whose headers are `headers`, in the order of the files of `read`. Matrices are
    /// stored as `store_as` while they are read; rows that are not whole blocks of it in single precision.
    ///
    /// # Errors
    /// A tensor is in two files.
    pub fn of_safetensors(headers: &[TensorFile<'_>], read: R, store_as: GgmlType) -> Result<Self, EngineError> {
        let mut places = BTreeMap::new();
        for (file, header) in headers.iter().enumerate() {
            for (name, view) in header.tensors() {
                let dtype = match view.storage {
                    Storage::Float(dtype) => Some(dtype),
                    Storage::Other(_) => None,
                };
                let place = Place { file, start: view.start, shape: view.shape.clone(), dtype };
                if places.insert(name.to_owned(), place).is_some() {
                    return Err(EngineError::Inconsistent(format!("tensor {name:?} is in two of the files")));
                }
            }
        }
        Ok(Self { places, read, store_as: Some(store_as) })
    }

    fn place(&self, name: &str, shape: &[usize]) -> Result<(&Place, GgmlType), EngineError> {
        let place = self.places.get(name);
        let place = place.ok_or_else(|| EngineError::Inconsistent(format!("tensor {name:?} is missing")))?;
        if place.shape != shape {
            return Err(wrong_shape(name, &place.shape, shape));
        }
        let unread = || {
            EngineError::Unsupported(format!(
                "tensor {name:?} is of a type that is not read: only F32, F16 and BF16 are"
            ))
        };
        Ok((place, place.dtype.ok_or_else(unread)?))
    }

    /// Bytes of a matrix where it lies.
    pub(super) fn stored_bytes(&self, name: &str, shape: [usize; 2]) -> Result<u64, EngineError> {
        let (_, dtype) = self.place(name, &shape)?;
        let row = dtype.row_bytes(shape[1]).unwrap_or(0);
        Ok(row as u64 * shape[0] as u64)
    }

    async fn bytes(&self, place: &Place, skip: u64, len: usize) -> Result<Vec<u8>, EngineError> {
        let bytes = self.read.read(place.file, place.start.saturating_add(skip), len).await?;
        match bytes.len() == len {
            true => Ok(bytes),
            false => Err(EngineError::Inconsistent("a part of the model file came back with another length".into())),
        }
    }
}

#[async_trait(?Send)]
impl<R: ReadAt> Source<'static> for Files<R> {
    fn names(&self) -> Vec<&str> {
        self.places.keys().map(String::as_str).collect()
    }

    fn dtype(&self, name: &str, rows: usize, cols: usize) -> Result<GgmlType, EngineError> {
        let (_, dtype) = self.place(name, &[rows, cols])?;
        Ok(self.store_as.map_or(dtype, |store_as| stored(store_as, cols)))
    }

    async fn rows(&self, name: &str, shape: [usize; 2], rows: Range<usize>) -> Result<Cow<'static, [u8]>, EngineError> {
        let [_, cols] = shape;
        let (place, stored) = self.place(name, &shape)?;
        let wrong = || EngineError::Inconsistent(format!("tensor {name:?} has no such rows"));
        let row_bytes = stored.row_bytes(cols).ok_or_else(wrong)?;
        let read = async |rows: Range<usize>| {
            let len = row_bytes.checked_mul(rows.len()).ok_or_else(wrong)?;
            self.bytes(place, rows.start as u64 * row_bytes as u64, len).await
        };
        let wanted = self.dtype(name, shape[0], cols)?;
        if wanted == stored {
            return read(rows).await.map(Cow::Owned);
        }
        let step = (DECODED_BYTES / row_bytes.max(1)).max(1);
        let mut out = Vec::new();
        for first in rows.clone().step_by(step) {
            let some = first..first.saturating_add(step).min(rows.end);
            let bytes = read(some.clone()).await?;
            let mut values = vec![0.0; some.len().checked_mul(cols).ok_or_else(wrong)?];
            if !quant::dequantize(stored, &bytes, &mut values) {
                return Err(wrong());
            }
            drop(bytes);
            out.extend_from_slice(&Matrix::encode(wanted, some.len(), cols, &values)?.bytes);
        }
        Ok(Cow::Owned(out))
    }

    async fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, EngineError> {
        let (place, stored) = self.place(name, &[len])?;
        let wrong = || EngineError::Inconsistent(format!("tensor {name:?} has the wrong number of bytes"));
        let bytes = self.bytes(place, 0, stored.row_bytes(len).ok_or_else(wrong)?).await?;
        let mut out = vec![0.0; len];
        if quant::dequantize(stored, &bytes, &mut out) { Ok(out) } else { Err(wrong()) }
    }
}

/// How rows of `cols` elements are stored where `store_as` is wanted.
fn stored(store_as: GgmlType, cols: usize) -> GgmlType {
    if store_as.row_bytes(cols).is_some() { store_as } else { GgmlType::F32 }
}

/// Tensors of which only the names are known, as an index has them: enough to say what they will take.
#[derive(Debug, Clone)]
pub struct Listing {
    pub(super) names: BTreeSet<String>,
    /// How matrices will be stored.
    pub(super) store_as: GgmlType,
}

impl Listing {
    fn unread(name: &str) -> EngineError {
        EngineError::Inconsistent(format!("of tensor {name:?} only the name is here"))
    }
}

#[async_trait(?Send)]
impl Source<'static> for Listing {
    fn names(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }

    fn dtype(&self, name: &str, _: usize, cols: usize) -> Result<GgmlType, EngineError> {
        match self.names.contains(name) {
            true => Ok(stored(self.store_as, cols)),
            false => Err(EngineError::Inconsistent(format!("tensor {name:?} is missing"))),
        }
    }

    async fn rows(&self, name: &str, _: [usize; 2], _: Range<usize>) -> Result<Cow<'static, [u8]>, EngineError> {
        Err(Self::unread(name))
    }

    async fn vector(&self, name: &str, _: usize) -> Result<Vec<f32>, EngineError> {
        Err(Self::unread(name))
    }
}
