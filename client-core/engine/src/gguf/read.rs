//! The GGUF reader. Nothing is copied: strings and tensor data borrow from the file's bytes, so memory stays below
//! twice the file even for one that is made of nothing but empty strings.

use std::collections::BTreeMap;

use super::{DEFAULT_ALIGNMENT, GgmlType, MAGIC, VERSIONS, foreign_type_name};

/// Longest string in the metadata, bytes. Chat templates stay below 64 KiB, tokens below 1 KiB.
const MAX_STRING: u64 = 1 << 20;
/// The one text that is longer: a whole `tokenizer.json`, and its longest, bytes.
const LONG_STRING: (&str, u64) = ("tokenizer.huggingface.json", 64 << 20);
/// Most tensors in a file. A 126-layer model has about 1,140.
const MAX_TENSORS: u64 = 4096;
/// Most metadata entries. Files in use have below a hundred; some converters write a key for every block.
const MAX_METADATA: u64 = 1 << 16;
/// Most dimensions of a tensor (`GGML_MAX_DIMS`).
const MAX_DIMS: u32 = 4;
/// Largest alignment that a file may ask for, bytes.
const MAX_ALIGNMENT: u64 = 1 << 16;

/// Why a file was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GgufError {
    /// The first four bytes are not `GGUF`.
    #[error("this is not a GGUF file (it does not begin with the letters GGUF)")]
    Magic,
    /// Another version of the format.
    #[error("GGUF version {0} is not supported, only versions 2 and 3 are; convert the file with a current llama.cpp")]
    Version(u32),
    /// Numbers are stored the other way round.
    #[error(
        "this GGUF file is big-endian, made for another kind of processor; take the little-endian one, or convert it with \
         llama.cpp's gguf_convert_endian.py"
    )]
    BigEndian,
    /// One file of several.
    #[error(
        "this is part {number} of {count} of a model that was split over several files (usually called \
         …-{first}-of-{count:05}.gguf to …-{count:05}-of-{count:05}.gguf); join them with llama.cpp's \
         `llama-gguf-split --merge` and take the one file that it writes",
        first = "00001"
    )]
    Split {
        /// Which one, from 1.
        number: u64,
        /// How many there are.
        count: u64,
    },
    /// The file ends inside the named part.
    #[error("the file ends in the middle of {0}: the download was probably cut short")]
    Truncated(&'static str),
    /// A count or length beyond what any real file has.
    #[error("{what} is {value}, more than the limit of {limit}")]
    TooLarge {
        /// What was counted.
        what: &'static str,
        /// What the file says.
        value: u64,
        /// The most that is accepted.
        limit: u64,
    },
    /// A string is not UTF-8.
    #[error("a text in the metadata is not valid UTF-8")]
    Utf8,
    /// A metadata value of a type that does not exist, or an array of arrays.
    #[error("metadata type {0} is not known")]
    ValueType(u32),
    /// The same key or tensor name twice.
    #[error("{0:?} occurs twice")]
    Duplicate(String),
    /// `general.alignment` is not a power of two.
    #[error("the alignment {0} is not a power of two between 1 and 65536")]
    Alignment(u64),
    /// A tensor of a type that the engine does not compute with.
    #[error(
        "tensor {name:?} is stored as {type_name} (type {id}); this engine reads {}",
        GgmlType::ALL.map(GgmlType::name).join(", ")
    )]
    TensorType {
        /// The tensor.
        name: String,
        /// ggml's number of the type.
        id: u32,
        /// ggml's name of the type.
        type_name: &'static str,
    },
    /// A tensor whose shape is impossible: a zero dimension, an overflow, or rows that are not whole blocks.
    #[error("tensor {0:?} has an impossible shape")]
    TensorShape(String),
    /// A tensor's data is not inside the file, not aligned, or lies over another tensor's.
    #[error("tensor {name:?}: its data {problem}")]
    TensorPlace {
        /// The tensor.
        name: String,
        /// What is wrong, as the end of a sentence.
        problem: &'static str,
    },
}

impl GgufError {
    /// Whether the beginning of a file that was given to [`Gguf::parse_header`] may just have been too short.
    pub fn wants_more(&self) -> bool {
        matches!(self, Self::Truncated(_))
    }
}

/// One metadata value. Numbers keep their width; use the `as_` methods to read them.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// Any unsigned integer.
    Uint(u64),
    /// Any signed integer.
    Int(i64),
    /// A single or double.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A text.
    Str(&'a str),
    /// A list of numbers, truth values or texts.
    Array(ArrayView<'a>),
}

impl<'a> Value<'a> {
    /// The value as a non-negative integer, whatever integer type the file chose.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::Uint(v) => Some(v),
            Self::Int(v) => u64::try_from(v).ok(),
            _ => None,
        }
    }

    /// The value as a float; integers are converted.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::Float(v) => Some(v),
            Self::Uint(v) => Some(v as f64),
            Self::Int(v) => Some(v as f64),
            _ => None,
        }
    }

    /// The value as a truth value.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(v) => Some(v),
            _ => None,
        }
    }

    /// The value as a text.
    pub fn as_str(&self) -> Option<&'a str> {
        match *self {
            Self::Str(v) => Some(v),
            _ => None,
        }
    }

    /// The value itself; of a list of equal numbers, as some converters write one for all blocks, that number.
    pub fn single(&self) -> Option<Value<'a>> {
        let Self::Array(list) = self else { return Some(self.clone()) };
        let mut values = list.iter();
        let first = values.next()?;
        values.all(|value| value == first).then_some(first)
    }

    /// The value as a list.
    pub fn as_array(&self) -> Option<&ArrayView<'a>> {
        match self {
            Self::Array(v) => Some(v),
            _ => None,
        }
    }
}

/// A list in the metadata.
#[derive(Debug, Clone, PartialEq)]
pub enum ArrayView<'a> {
    /// Texts.
    Str(Vec<&'a str>),
    /// Numbers or truth values, as they lie in the file.
    Fixed {
        /// GGUF's number of the element type.
        kind: u32,
        /// The elements, little-endian, without gaps.
        bytes: &'a [u8],
    },
}

impl<'a> ArrayView<'a> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Str(v) => v.len(),
            Self::Fixed { kind, bytes } => bytes.len() / fixed_size(*kind).unwrap_or(1),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The texts, when it is a list of texts.
    pub fn as_strs(&self) -> Option<&[&'a str]> {
        match self {
            Self::Str(v) => Some(v),
            Self::Fixed { .. } => None,
        }
    }

    /// The elements one by one, as values.
    pub fn iter(&self) -> Box<dyn Iterator<Item = Value<'a>> + '_> {
        match self {
            Self::Str(v) => Box::new(v.iter().copied().map(Value::Str)),
            Self::Fixed { kind, bytes } => {
                let size = fixed_size(*kind).unwrap_or(1);
                Box::new(bytes.chunks_exact(size).filter_map(move |chunk| fixed_value(*kind, chunk)))
            }
        }
    }
}

/// Where a tensor lies and how it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Storage type.
    pub dtype: GgmlType,
    /// Dimensions in ggml's order: the first is the one whose elements lie next to each other.
    pub dims: Vec<usize>,
    /// First byte, counted from the beginning of the file; files may be larger than wasm's 4 GiB of memory.
    pub start: u64,
    /// Size in bytes.
    pub len: usize,
}

impl TensorInfo {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        // Cannot overflow: the reader has multiplied the same numbers with checks.
        self.dims.iter().product()
    }
}

/// A parsed file, or the header of one. Borrows from the bytes that it was read from.
#[derive(Debug, Clone)]
pub struct Gguf<'a> {
    bytes: &'a [u8],
    metadata: BTreeMap<&'a str, Value<'a>>,
    tensors: BTreeMap<&'a str, TensorInfo>,
}

impl<'a> Gguf<'a> {
    /// Reads and checks a whole file.
    ///
    /// # Errors
    /// Any [`GgufError`]. When it succeeds, every tensor's bytes are inside the file, aligned, and no two overlap.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, GgufError> {
        Self::parse_header(bytes, bytes.len() as u64)
    }

    /// Reads and checks the header of a file of `file_len` bytes of which `bytes` are the first. The tensors' places are
    /// known and checked then, their data is the caller's to read; [`tensor`](Self::tensor) finds it only inside `bytes`.
    ///
    /// # Errors
    /// Any [`GgufError`]; one for which [`wants_more`](GgufError::wants_more) holds may vanish with a longer beginning.
    pub fn parse_header(bytes: &'a [u8], file_len: u64) -> Result<Self, GgufError> {
        let mut cursor = Cursor { bytes, pos: 0 };
        if cursor.take(4, "the header").map_err(|_| GgufError::Magic)? != MAGIC {
            return Err(GgufError::Magic);
        }
        let version = cursor.u32("the header")?;
        if !VERSIONS.contains(&version) {
            let swapped = VERSIONS.contains(&version.swap_bytes());
            return Err(if swapped { GgufError::BigEndian } else { GgufError::Version(version) });
        }
        let tensor_count = capped("the number of tensors", cursor.u64("the header")?, MAX_TENSORS)?;
        let metadata_count = capped("the number of metadata entries", cursor.u64("the header")?, MAX_METADATA)?;

        let mut metadata = BTreeMap::new();
        for _ in 0..metadata_count {
            let key = cursor.string("a metadata key")?;
            let kind = cursor.u32("the metadata")?;
            let longest = if key == LONG_STRING.0 { LONG_STRING.1 } else { MAX_STRING };
            let value = match cursor.value(kind, longest) {
                // Without its template a file completes texts all the same.
                Err(GgufError::Utf8) if key == "tokenizer.chat_template" => continue,
                value => value?,
            };
            if metadata.insert(key, value).is_some() {
                return Err(GgufError::Duplicate(key.to_owned()));
            }
        }
        let number = |key: &str| metadata.get(key).and_then(Value::as_u64);
        if let Some(count) = number("split.count").filter(|count| *count > 1) {
            let number = number("split.no").unwrap_or(0).saturating_add(1);
            return Err(GgufError::Split { number, count });
        }
        let alignment = match metadata.get("general.alignment") {
            None => DEFAULT_ALIGNMENT,
            Some(value) => value.as_u64().unwrap_or(0),
        };
        if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT {
            return Err(GgufError::Alignment(alignment));
        }

        let mut headers = Vec::new();
        for _ in 0..tensor_count {
            headers.push(cursor.tensor_header()?);
        }
        let data_start = (cursor.pos as u64).next_multiple_of(alignment);
        let mut tensors = BTreeMap::new();
        for header in headers {
            let name = header.name;
            let info = header.place(file_len, data_start, alignment)?;
            if tensors.insert(name, info).is_some() {
                return Err(GgufError::Duplicate(name.to_owned()));
            }
        }
        refuse_overlap(&tensors)?;
        Ok(Self { bytes, metadata, tensors })
    }

    /// All metadata, by key.
    pub fn metadata(&self) -> &BTreeMap<&'a str, Value<'a>> {
        &self.metadata
    }

    /// One metadata value.
    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        self.metadata.get(key)
    }

    /// All tensors, by name.
    pub fn tensors(&self) -> &BTreeMap<&'a str, TensorInfo> {
        &self.tensors
    }

    /// One tensor's place and its bytes.
    pub fn tensor(&self, name: &str) -> Option<(&TensorInfo, &'a [u8])> {
        let info = self.tensors.get(name)?;
        Some((info, self.data(info)?))
    }

    /// The bytes of a tensor of this file, where they are in memory.
    pub fn data(&self, info: &TensorInfo) -> Option<&'a [u8]> {
        let start = usize::try_from(info.start).ok()?;
        self.bytes.get(start..start.checked_add(info.len)?)
    }
}

fn capped(what: &'static str, value: u64, limit: u64) -> Result<u64, GgufError> {
    if value > limit { Err(GgufError::TooLarge { what, value, limit }) } else { Ok(value) }
}

fn refuse_overlap(tensors: &BTreeMap<&str, TensorInfo>) -> Result<(), GgufError> {
    let mut order: Vec<_> = tensors.iter().map(|(name, info)| (info.start, info.len, *name)).collect();
    order.sort_unstable();
    for pair in order.windows(2) {
        if let [(start, len, _), (next, _, name)] = pair
            && start + *len as u64 > *next
        {
            return Err(GgufError::TensorPlace { name: (*name).to_owned(), problem: "lies over another tensor's" });
        }
    }
    Ok(())
}

/// Size of one element of a fixed-size metadata type, bytes.
fn fixed_size(kind: u32) -> Option<usize> {
    Some(match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        10..=12 => 8,
        _ => return None,
    })
}

fn fixed_value<'a>(kind: u32, raw: &[u8]) -> Option<Value<'a>> {
    let mut wide = [0u8; 8];
    wide.get_mut(..raw.len())?.copy_from_slice(raw);
    let bits = u64::from_le_bytes(wide);
    Some(match kind {
        0 | 2 | 4 | 10 => Value::Uint(bits),
        1 => Value::Int(i64::from(bits as u8 as i8)),
        3 => Value::Int(i64::from(bits as u16 as i16)),
        5 => Value::Int(i64::from(bits as u32 as i32)),
        11 => Value::Int(bits as i64),
        6 => Value::Float(f64::from(f32::from_bits(bits as u32))),
        12 => Value::Float(f64::from_bits(bits)),
        7 => Value::Bool(bits != 0),
        _ => return None,
    })
}

struct TensorHeader<'a> {
    name: &'a str,
    dims: Vec<u64>,
    type_id: u32,
    offset: u64,
}

impl TensorHeader<'_> {
    /// Turns the header into a place in the file, or says why there is none.
    fn place(self, file_len: u64, data_start: u64, alignment: u64) -> Result<TensorInfo, GgufError> {
        let name = self.name;
        let bad_shape = || GgufError::TensorShape(name.to_owned());
        let bad_place = |problem| GgufError::TensorPlace { name: name.to_owned(), problem };
        let dtype = GgmlType::from_id(self.type_id).ok_or_else(|| GgufError::TensorType {
            name: name.to_owned(),
            id: self.type_id,
            type_name: foreign_type_name(self.type_id),
        })?;
        let mut dims = Vec::with_capacity(self.dims.len());
        let mut rows = 1usize;
        for (axis, &dim) in self.dims.iter().enumerate() {
            let dim = usize::try_from(dim).map_err(|_| bad_shape())?;
            if dim == 0 {
                return Err(bad_shape());
            }
            if axis > 0 {
                rows = rows.checked_mul(dim).ok_or_else(bad_shape)?;
            }
            dims.push(dim);
        }
        let row = *dims.first().ok_or_else(bad_shape)?;
        row.checked_mul(rows).ok_or_else(bad_shape)?;
        let len = dtype.row_bytes(row).and_then(|bytes| bytes.checked_mul(rows)).ok_or_else(bad_shape)?;
        if !self.offset.is_multiple_of(alignment) {
            return Err(bad_place("does not begin at a multiple of the alignment"));
        }
        let start = data_start.checked_add(self.offset).ok_or_else(|| bad_place("begins outside the file"))?;
        match start.checked_add(len as u64) {
            Some(end) if end <= file_len => Ok(TensorInfo { dtype, dims, start, len }),
            _ => Err(bad_place("ends outside the file: the download was probably cut short")),
        }
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    pos: usize,
}

impl<'a> Cursor<'a> {
    fn remaining(&self) -> usize {
        self.bytes.len() - self.pos
    }

    fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], GgufError> {
        let end = self.pos.checked_add(len).ok_or(GgufError::Truncated(what))?;
        let slice = self.bytes.get(self.pos..end).ok_or(GgufError::Truncated(what))?;
        self.pos = end;
        Ok(slice)
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, GgufError> {
        let raw = self.take(4, what)?;
        Ok(raw.iter().rev().fold(0, |acc, &b| (acc << 8) | u32::from(b)))
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, GgufError> {
        let raw = self.take(8, what)?;
        Ok(raw.iter().rev().fold(0, |acc, &b| (acc << 8) | u64::from(b)))
    }

    fn string(&mut self, what: &'static str) -> Result<&'a str, GgufError> {
        self.string_of(what, MAX_STRING)
    }

    fn string_of(&mut self, what: &'static str, longest: u64) -> Result<&'a str, GgufError> {
        let len = capped("the length of a text", self.u64(what)?, longest)?;
        std::str::from_utf8(self.take(len as usize, what)?).map_err(|_| GgufError::Utf8)
    }

    fn value(&mut self, kind: u32, longest: u64) -> Result<Value<'a>, GgufError> {
        const WHAT: &str = "a metadata value";
        match kind {
            8 => Ok(Value::Str(self.string_of(WHAT, longest)?)),
            9 => {
                let element = self.u32(WHAT)?;
                let count = self.u64(WHAT)?;
                self.array(element, count).map(Value::Array)
            }
            _ => {
                let size = fixed_size(kind).ok_or(GgufError::ValueType(kind))?;
                let raw = self.take(size, WHAT)?;
                fixed_value(kind, raw).ok_or(GgufError::ValueType(kind))
            }
        }
    }

    fn array(&mut self, element: u32, count: u64) -> Result<ArrayView<'a>, GgufError> {
        const WHAT: &str = "a list in the metadata";
        let count = usize::try_from(count).map_err(|_| GgufError::Truncated(WHAT))?;
        if element == 8 {
            // Each text takes at least its eight length bytes, so this also bounds the allocation by the file's size.
            if count > self.remaining() / 8 {
                return Err(GgufError::Truncated(WHAT));
            }
            let mut texts = Vec::with_capacity(count);
            for _ in 0..count {
                texts.push(self.string(WHAT)?);
            }
            return Ok(ArrayView::Str(texts));
        }
        let size = fixed_size(element).ok_or(GgufError::ValueType(element))?;
        let len = count.checked_mul(size).ok_or(GgufError::Truncated(WHAT))?;
        Ok(ArrayView::Fixed { kind: element, bytes: self.take(len, WHAT)? })
    }

    fn tensor_header(&mut self) -> Result<TensorHeader<'a>, GgufError> {
        const WHAT: &str = "the list of tensors";
        let name = self.string(WHAT)?;
        let dim_count = self.u32(WHAT)?;
        capped("the number of a tensor's dimensions", u64::from(dim_count), u64::from(MAX_DIMS))?;
        let mut dims = Vec::with_capacity(dim_count as usize);
        for _ in 0..dim_count {
            dims.push(self.u64(WHAT)?);
        }
        Ok(TensorHeader { name, dims, type_id: self.u32(WHAT)?, offset: self.u64(WHAT)? })
    }
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
