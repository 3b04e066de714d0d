//! The GGUF v3 writer: metadata, then tensors, each at its alignment.

use super::{DEFAULT_ALIGNMENT, GgmlType, MAGIC, VERSION};
use crate::quant;

/// A metadata value that the writer knows.
#[derive(Debug, Clone, PartialEq)]
pub enum MetaValue {
    /// `UINT32`.
    U32(u32),
    /// `FLOAT32`.
    F32(f32),
    /// `BOOL`.
    Bool(bool),
    /// `STRING`.
    Str(String),
    /// `ARRAY` of `STRING`.
    Strs(Vec<String>),
    /// `ARRAY` of `INT32`.
    I32s(Vec<i32>),
    /// `ARRAY` of `BOOL`.
    Bools(Vec<bool>),
}

/// GGUF's numbers of the value types.
const TYPE_U32: u32 = 4;
const TYPE_I32: u32 = 5;
const TYPE_F32: u32 = 6;
const TYPE_BOOL: u32 = 7;
const TYPE_STR: u32 = 8;
const TYPE_ARRAY: u32 = 9;

/// A tensor whose shape and values do not belong together, or whose rows are not whole blocks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tensor {0}: its values do not fit its shape or its storage type")]
pub struct WriteError(pub String);

struct Tensor {
    name: String,
    dims: Vec<u64>,
    dtype: GgmlType,
    bytes: Vec<u8>,
}

/// Collects a file's parts; [`Writer::finish`] lays them out.
#[derive(Default)]
pub struct Writer {
    meta: Vec<(String, MetaValue)>,
    tensors: Vec<Tensor>,
}

impl Writer {
    /// An empty file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a metadata entry.
    pub fn meta(&mut self, key: &str, value: MetaValue) -> &mut Self {
        self.meta.push((key.to_owned(), value));
        self
    }

    /// Appends a tensor, converted to `dtype`. `dims` are in ggml's order: the first is the length of a row, whose
    /// elements lie next to each other in `values`.
    ///
    /// # Errors
    /// When the number of values is not the product of `dims`, or a row is not whole blocks of `dtype`.
    pub fn tensor(&mut self, name: &str, dims: &[usize], dtype: GgmlType, values: &[f32]) -> Result<(), WriteError> {
        let fail = || WriteError(name.to_owned());
        let row = dims.first().copied().unwrap_or(0);
        if dims.iter().product::<usize>() != values.len() || dtype.row_bytes(row).is_none() {
            return Err(fail());
        }
        let bytes = quant::quantize(dtype, values).ok_or_else(fail)?;
        let dims = dims.iter().map(|d| *d as u64).collect();
        self.tensors.push(Tensor { name: name.to_owned(), dims, dtype, bytes });
        Ok(())
    }

    /// The file's bytes.
    pub fn finish(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.meta.len() as u64).to_le_bytes());
        for (key, value) in &self.meta {
            put_str(&mut out, key);
            put_value(&mut out, value);
        }
        let mut offset = 0u64;
        for t in &self.tensors {
            put_str(&mut out, &t.name);
            out.extend((t.dims.len() as u32).to_le_bytes());
            for d in &t.dims {
                out.extend(d.to_le_bytes());
            }
            out.extend(t.dtype.id().to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset = (offset + t.bytes.len() as u64).next_multiple_of(DEFAULT_ALIGNMENT);
        }
        for t in &self.tensors {
            out.resize(out.len().next_multiple_of(DEFAULT_ALIGNMENT as usize), 0);
            out.extend(&t.bytes);
        }
        // llama.cpp wants the last tensor padded too.
        out.resize(out.len().next_multiple_of(DEFAULT_ALIGNMENT as usize), 0);
        out
    }
}

fn put_str(out: &mut Vec<u8>, s: &str) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &MetaValue) {
    match value {
        MetaValue::U32(v) => {
            out.extend(TYPE_U32.to_le_bytes());
            out.extend(v.to_le_bytes());
        }
        MetaValue::F32(v) => {
            out.extend(TYPE_F32.to_le_bytes());
            out.extend(v.to_le_bytes());
        }
        MetaValue::Bool(v) => {
            out.extend(TYPE_BOOL.to_le_bytes());
            out.push(u8::from(*v));
        }
        MetaValue::Str(v) => {
            out.extend(TYPE_STR.to_le_bytes());
            put_str(out, v);
        }
        MetaValue::Strs(v) => {
            out.extend(TYPE_ARRAY.to_le_bytes());
            out.extend(TYPE_STR.to_le_bytes());
            out.extend((v.len() as u64).to_le_bytes());
            for s in v {
                put_str(out, s);
            }
        }
        MetaValue::I32s(v) => {
            out.extend(TYPE_ARRAY.to_le_bytes());
            out.extend(TYPE_I32.to_le_bytes());
            out.extend((v.len() as u64).to_le_bytes());
            for i in v {
                out.extend(i.to_le_bytes());
            }
        }
        MetaValue::Bools(v) => {
            out.extend(TYPE_ARRAY.to_le_bytes());
            out.extend(TYPE_BOOL.to_le_bytes());
            out.extend((v.len() as u64).to_le_bytes());
            out.extend(v.iter().map(|v| u8::from(*v)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Gguf, Value};
    use super::*;

    #[test]
    fn the_reader_reads_back_what_was_written() {
        let mut w = Writer::new();
        w.meta("general.architecture", MetaValue::Str("llama".into()))
            .meta("n", MetaValue::U32(7))
            .meta("eps", MetaValue::F32(1e-5))
            .meta("flag", MetaValue::Bool(false))
            .meta("list", MetaValue::Strs(vec!["a".into(), "bc".into()]))
            .meta("kinds", MetaValue::I32s(vec![1, -3]));
        let row: Vec<f32> = (0..64).map(|i| i as f32 - 31.5).collect();
        w.tensor("a", &[64], GgmlType::F32, &row).expect("fits");
        w.tensor("b", &[32, 2], GgmlType::Q8_0, &row).expect("fits");
        w.tensor("c", &[32, 2], GgmlType::Q4_0, &row).expect("fits");
        let bytes = w.finish();
        let g = Gguf::parse(&bytes).expect("valid");
        assert_eq!(g.get("n").and_then(Value::as_u64), Some(7));
        assert_eq!(g.get("flag").and_then(Value::as_bool), Some(false));
        assert_eq!(g.get("eps").and_then(Value::as_f64), Some(f64::from(1e-5f32)));
        let list = g.get("list").and_then(Value::as_array).and_then(|a| a.as_strs().map(<[&str]>::to_vec));
        assert_eq!(list, Some(vec!["a", "bc"]));
        for (name, dtype, len) in [("a", GgmlType::F32, 256), ("b", GgmlType::Q8_0, 68), ("c", GgmlType::Q4_0, 36)] {
            let (t, data) = g.tensor(name).expect("there");
            assert_eq!((t.dtype, t.len), (dtype, len), "{name}");
            let mut back = vec![0f32; 64];
            assert!(quant::dequantize(dtype, data, &mut back));
            let step = match dtype {
                GgmlType::F32 => 0.0,
                GgmlType::Q8_0 => 32.0 / 127.0,
                _ => 32.0 / 8.0,
            };
            for (x, y) in row.iter().zip(&back) {
                assert!((x - y).abs() <= step, "{name}: {x} {y}");
            }
        }
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let mut w = Writer::new();
        assert!(w.tensor("x", &[3], GgmlType::F32, &[0.0; 4]).is_err());
        assert!(w.tensor("x", &[16, 2], GgmlType::Q8_0, &[0.0; 32]).is_err());
    }
}
