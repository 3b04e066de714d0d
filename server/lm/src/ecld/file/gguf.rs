//! GGUF's metadata byte for byte: what a cut does not touch is copied as it is, whatever type it has.

use engine::gguf::{DEFAULT_ALIGNMENT, MAGIC, VERSION};

use super::writer::Described;

const TYPE_U32: u32 = 4;
const TYPE_F32: u32 = 6;
const TYPE_BOOL: u32 = 7;
const TYPE_STR: u32 = 8;
const TYPE_ARRAY: u32 = 9;

/// The metadata of a file, in its order: a key, and its value with the number of its type in front.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata(Vec<(String, Vec<u8>)>);

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn len(&mut self) -> Option<usize> {
        usize::try_from(self.u64()?).ok()
    }

    fn skip_value(&mut self, kind: u32) -> Option<()> {
        match kind {
            TYPE_STR => {
                let len = self.len()?;
                self.take(len)?;
            }
            TYPE_ARRAY => {
                let (element, count) = (self.u32()?, self.len()?);
                if element == TYPE_STR {
                    for _ in 0..count {
                        self.skip_value(TYPE_STR)?;
                    }
                } else {
                    self.take(count.checked_mul(fixed_size(element)?)?)?;
                }
            }
            _ => {
                self.take(fixed_size(kind)?)?;
            }
        }
        Some(())
    }
}

/// Bytes of a value of a type that is no text and no list.
fn fixed_size(kind: u32) -> Option<usize> {
    Some(match kind {
        0 | 1 | TYPE_BOOL => 1,
        2 | 3 => 2,
        TYPE_U32..=TYPE_F32 => 4,
        10..=12 => 8,
        _ => return None,
    })
}

impl Metadata {
    /// That of a header that the engine's reader has accepted; `None` for another.
    pub fn of(head: &[u8]) -> Option<Self> {
        let mut cursor = Cursor(head);
        // Magic and version.
        cursor.take(8)?;
        let (_tensors, count) = (cursor.u64()?, cursor.u64()?);
        let mut entries = Vec::new();
        for _ in 0..count {
            let len = cursor.len()?;
            let key = std::str::from_utf8(cursor.take(len)?).ok()?.to_owned();
            let value = cursor.0;
            let kind = cursor.u32()?;
            cursor.skip_value(kind)?;
            entries.push((key, value.get(..value.len() - cursor.0.len())?.to_vec()));
        }
        Some(Self(entries))
    }

    fn set(&mut self, key: &str, kind: u32, value: &[u8]) {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend(value);
        match self.0.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => *old = bytes,
            None => self.0.push((key.to_owned(), bytes)),
        }
    }

    /// Writes a whole number.
    pub fn set_u32(&mut self, key: &str, value: usize) {
        self.set(key, TYPE_U32, &u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes());
    }

    /// Writes a single.
    pub fn set_f32(&mut self, key: &str, value: f32) {
        self.set(key, TYPE_F32, &value.to_le_bytes());
    }

    /// Writes a text.
    pub fn set_text(&mut self, key: &str, value: &str) {
        let mut bytes = (value.len() as u64).to_le_bytes().to_vec();
        bytes.extend(value.as_bytes());
        self.set(key, TYPE_STR, &bytes);
    }

    /// Writes a list of truth values.
    pub fn set_bools(&mut self, key: &str, values: &[bool]) {
        let mut bytes = TYPE_BOOL.to_le_bytes().to_vec();
        bytes.extend((values.len() as u64).to_le_bytes());
        bytes.extend(values.iter().map(|value| u8::from(*value)));
        self.set(key, TYPE_ARRAY, &bytes);
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: &str) {
        self.0.retain(|(known, _)| known != key);
    }

    /// Of lists of architecture `arch` with an element for each of `layers` blocks, only those of the blocks that stay.
    pub fn cut_lists(&mut self, arch: &str, layers: usize, kept: &[usize]) {
        let prefix = format!("{arch}.");
        for (key, value) in &mut self.0 {
            if !key.starts_with(&prefix) {
                continue;
            }
            let mut cursor = Cursor(value);
            let read = |cursor: &mut Cursor<'_>| Some((cursor.u32()?, cursor.u32()?, cursor.len()?));
            let Some((TYPE_ARRAY, element, count)) = read(&mut cursor) else { continue };
            let Some(size) = fixed_size(element).filter(|_| count == layers) else { continue };
            let list = cursor.0;
            let mut cut = TYPE_ARRAY.to_le_bytes().to_vec();
            cut.extend(element.to_le_bytes());
            cut.extend((kept.len() as u64).to_le_bytes());
            for layer in kept {
                cut.extend(list.get(layer * size..(layer + 1) * size).unwrap_or_default());
            }
            *value = cut;
        }
    }

    /// The alignment that it asks for.
    pub fn alignment(&self) -> usize {
        let stated = self.0.iter().find(|(key, _)| key == "general.alignment");
        let stated = stated.and_then(|(_, value)| Some(u32::from_le_bytes(value.get(4..8)?.try_into().ok()?)));
        stated.map_or(DEFAULT_ALIGNMENT as usize, |alignment| alignment.max(1) as usize)
    }

    /// The header of a file with this metadata and these tensors, up to where their data begins.
    pub fn header(&self, tensors: &[Described]) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(VERSION.to_le_bytes());
        out.extend((tensors.len() as u64).to_le_bytes());
        out.extend((self.0.len() as u64).to_le_bytes());
        let text = |out: &mut Vec<u8>, text: &str| {
            out.extend((text.len() as u64).to_le_bytes());
            out.extend(text.as_bytes());
        };
        for (key, value) in &self.0 {
            text(&mut out, key);
            out.extend(value);
        }
        let alignment = self.alignment();
        let mut offset = 0u64;
        for tensor in tensors {
            text(&mut out, &tensor.name);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            for dim in tensor.shape.iter().rev() {
                out.extend((*dim as u64).to_le_bytes());
            }
            out.extend(tensor.dtype.id().to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset = (offset + tensor.len as u64).next_multiple_of(alignment as u64);
        }
        out.resize(out.len().next_multiple_of(alignment), 0);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::gguf::write::{MetaValue, Writer};
    use engine::gguf::{GgmlType, Gguf, Value};

    #[test]
    fn metadata_survives_and_changes() {
        let mut w = Writer::new();
        w.meta("general.architecture", MetaValue::Str("llama".into()))
            .meta("llama.block_count", MetaValue::U32(3))
            .meta("llama.list", MetaValue::I32s(vec![7, 8, 9]))
            .meta("tokenizer.list", MetaValue::I32s(vec![7, 8, 9]))
            .meta("tokenizer.tokens", MetaValue::Strs(vec!["a".into(), String::new()]))
            .meta("eps", MetaValue::F32(1e-5));
        w.tensor("a", &[4], GgmlType::F32, &[1.0; 4]).unwrap();
        let file = w.finish();
        let mut metadata = Metadata::of(&file).unwrap();
        metadata.cut_lists("llama", 3, &[0, 2]);
        metadata.set_u32("llama.block_count", 2);
        metadata.set_f32("eps", 0.5);
        metadata.set_bools("llama.flags", &[true, false]);
        metadata.set_text("general.name", "née");
        metadata.remove("tokenizer.tokens");
        let tensor = Described { name: "a".into(), shape: vec![4], dtype: GgmlType::F32, len: 16 };
        let mut out = metadata.header(&[tensor]);
        out.extend([0; 16]);
        let read = Gguf::parse(&out).unwrap();
        let list = |key: &str| -> Vec<Value<'_>> { read.get(key).unwrap().as_array().unwrap().iter().collect() };
        assert_eq!(list("llama.list"), [Value::Int(7), Value::Int(9)]);
        assert_eq!(list("tokenizer.list").len(), 3);
        assert_eq!(list("llama.flags"), [Value::Bool(true), Value::Bool(false)]);
        assert_eq!(read.get("llama.block_count").and_then(Value::as_u64), Some(2));
        assert_eq!(read.get("general.name").and_then(Value::as_str), Some("née"));
        assert_eq!(read.get("eps").and_then(Value::as_f64), Some(0.5));
        assert!(read.get("tokenizer.tokens").is_none() && read.tensor("a").is_some());
        assert!(Metadata::of(&file[..40]).is_none());
    }
}
