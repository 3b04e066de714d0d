//! The safetensors reader: the header's JSON is checked while it is read, and nothing of it is kept but the list of
//! tensors, so a hostile header cannot make the reader hold more than the file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::gguf::GgmlType;

/// Longest header, bytes: the format's own limit.
const MAX_HEADER: u64 = 100_000_000;
/// Longest name of a tensor, bytes.
const MAX_NAME: usize = 1 << 20;
/// Most tensors in a file. A 126-layer model has about 1,140.
const MAX_TENSORS: usize = 4096;
/// Most dimensions of a tensor.
const MAX_DIMS: usize = 4;

/// Why a file was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SafetensorsError {
    /// The file ends before its header does.
    #[error("the safetensors file ends inside its header: the download was probably cut short")]
    Truncated,
    /// The header's length is beyond what any real file has.
    #[error("the safetensors header has {0} bytes, more than the limit of 100000000")]
    HeaderLength(u64),
    /// The header is not the JSON that the format asks for; says where.
    #[error("the safetensors header cannot be read: {0}")]
    Header(String),
    /// A tensor's data is not inside the file, lies over another's, or is not as long as its shape says.
    #[error("tensor {name:?}: its data {problem}")]
    Place {
        /// The tensor.
        name: String,
        /// What is wrong, as the end of a sentence.
        problem: &'static str,
    },
    /// Bytes after the last tensor.
    #[error("the safetensors file has {0} bytes that belong to no tensor")]
    Rest(u64),
}

/// How a tensor's elements are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// A type that the engine reads: F32, F16 or BF16.
    Float(GgmlType),
    /// Another known type, of so many bytes.
    Other(usize),
}

impl Storage {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "F32" => Self::Float(GgmlType::F32),
            "F16" => Self::Float(GgmlType::F16),
            "BF16" => Self::Float(GgmlType::Bf16),
            "F64" | "I64" | "U64" => Self::Other(8),
            "I32" | "U32" => Self::Other(4),
            "I16" | "U16" => Self::Other(2),
            "I8" | "U8" | "BOOL" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" => Self::Other(1),
            _ => return None,
        })
    }

    fn bytes(self) -> usize {
        match self {
            Self::Float(dtype) => dtype.block_bytes(),
            Self::Other(bytes) => bytes,
        }
    }
}

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorView {
    /// How its elements are stored.
    pub storage: Storage,
    /// Dimensions, the slowest first (rows before columns).
    pub shape: Vec<usize>,
    /// First byte of its elements (little-endian), counted from the beginning of the file; files may be larger than
    /// wasm's 4 GiB of memory.
    pub start: u64,
    /// Size in bytes.
    pub len: usize,
}

/// The parsed header of a file (or shard). Borrows from the bytes that it was read from.
#[derive(Debug, Clone, Default)]
pub struct TensorFile<'a> {
    tensors: BTreeMap<Cow<'a, str>, TensorView>,
}

/// Bytes of the beginning of a file that its header takes, by the first eight of them.
///
/// # Errors
/// There are fewer, or they name a length beyond the format's limit.
pub fn header_bytes(first: &[u8]) -> Result<usize, SafetensorsError> {
    let (length, _) = first.split_first_chunk::<8>().ok_or(SafetensorsError::Truncated)?;
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER {
        return Err(SafetensorsError::HeaderLength(length));
    }
    Ok(8 + length as usize)
}

impl<'a> TensorFile<'a> {
    /// Reads and checks a whole file.
    ///
    /// # Errors
    /// Any [`SafetensorsError`]. When it succeeds, every tensor's bytes are inside the file and as many as its shape
    /// says, and together they cover the file's data exactly once.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, SafetensorsError> {
        Self::parse_header(bytes, bytes.len() as u64)
    }

    /// Reads and checks the header of a file of `file_len` bytes of which `bytes` are the first, at least as many as
    /// [`header_bytes`] says. The tensors' places are known and checked then, their data is the caller's to read.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_header(bytes: &'a [u8], file_len: u64) -> Result<Self, SafetensorsError> {
        let data_start = header_bytes(bytes)?;
        let header = bytes.get(8..data_start).ok_or(SafetensorsError::Truncated)?;
        let data_start = data_start as u64;
        let mut json = serde_json::Deserializer::from_slice(header);
        let entries = (&mut json).deserialize_map(HeaderVisitor);
        let entries = entries.and_then(|entries| json.end().map(|()| entries));
        let entries = entries.map_err(|error| SafetensorsError::Header(error.to_string()))?;

        let mut tensors = BTreeMap::new();
        for (name, entry) in entries {
            let bad = |problem| SafetensorsError::Place { name: name.to_string(), problem };
            let (begin, end) = entry.data_offsets;
            let start = data_start.checked_add(begin).ok_or_else(|| bad("lies outside the file"))?;
            let inside = data_start.checked_add(end).is_some_and(|end| end <= file_len);
            let len = end.checked_sub(begin).filter(|_| inside).ok_or_else(|| bad("lies outside the file"))?;
            let mut size = Some(entry.dtype.0.bytes());
            for dim in &entry.shape.0 {
                size = size.and_then(|size| size.checked_mul(*dim));
            }
            let len = size.filter(|size| *size as u64 == len).ok_or_else(|| bad("is not as long as its shape says"))?;
            tensors.insert(name, TensorView { storage: entry.dtype.0, shape: entry.shape.0, start, len });
        }
        let mut order: Vec<_> = tensors.iter().map(|(name, view)| (view.start, view.len, name)).collect();
        order.sort_unstable();
        let mut covered = data_start;
        for (start, len, name) in order {
            if start != covered {
                let problem = if start < covered { "lies over another tensor's" } else { "comes after a gap" };
                return Err(SafetensorsError::Place { name: name.to_string(), problem });
            }
            covered += len as u64;
        }
        match file_len.checked_sub(covered) {
            Some(0) => Ok(Self { tensors }),
            rest => Err(rest.map_or(SafetensorsError::Truncated, SafetensorsError::Rest)),
        }
    }

    /// One tensor.
    pub fn tensor(&self, name: &str) -> Option<&TensorView> {
        self.tensors.get(name)
    }

    /// All tensors, by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorView)> {
        self.tensors.iter().map(|(name, view)| (name.as_ref(), view))
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(AsRef::as_ref)
    }
}

/// A tensor as the header describes it.
#[derive(Deserialize)]
struct Entry {
    dtype: StorageName,
    shape: Dims,
    /// First byte and the one after the last, counted from the end of the header.
    data_offsets: (u64, u64),
}

struct StorageName(Storage);

impl<'de> Deserialize<'de> for StorageName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Name::deserialize(deserializer)?.0;
        Storage::from_name(&name).map(Self).ok_or_else(|| D::Error::custom(format!("the type {name:?} is not known")))
    }
}

/// Up to [`MAX_DIMS`] numbers.
struct Dims(Vec<usize>);

impl<'de> Deserialize<'de> for Dims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DimsVisitor;
        impl<'de> Visitor<'de> for DimsVisitor {
            type Value = Dims;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX_DIMS} dimensions")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Dims, A::Error> {
                let mut dims = Vec::new();
                while let Some(dim) = list.next_element::<u64>()? {
                    if dims.len() == MAX_DIMS {
                        return Err(A::Error::custom(format!("a tensor has more than {MAX_DIMS} dimensions")));
                    }
                    dims.push(usize::try_from(dim).map_err(|_| A::Error::custom("a dimension is too large"))?);
                }
                Ok(Dims(dims))
            }
        }
        deserializer.deserialize_seq(DimsVisitor)
    }
}

/// A text of the header, borrowed where it has no escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a text of at most {MAX_NAME} bytes")
            }
            fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<Name<'de>, E> {
                if text.len() > MAX_NAME { Err(too_long()) } else { Ok(Name(Cow::Borrowed(text))) }
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Name<'de>, E> {
                if text.len() > MAX_NAME { Err(too_long()) } else { Ok(Name(Cow::Owned(text.to_owned()))) }
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

fn too_long<E: serde::de::Error>() -> E {
    E::custom(format!("a name has more than {MAX_NAME} bytes"))
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = BTreeMap<Cow<'de, str>, Entry>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object that names the tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some(Name(name)) = map.next_key()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if entries.len() == MAX_TENSORS {
                return Err(A::Error::custom(format!("there are more than {MAX_TENSORS} tensors")));
            }
            let entry: Entry = map.next_value()?;
            if let Some((name, _)) = entries.remove_entry(&name) {
                return Err(A::Error::custom(format!("tensor {name:?} occurs twice")));
            }
            entries.insert(name, entry);
        }
        Ok(entries)
    }
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
