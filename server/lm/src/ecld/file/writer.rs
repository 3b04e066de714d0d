//! Tensors one after the other into a GGUF or a safetensors file, whose header was made from their list before.

use engine::gguf::GgmlType;

use super::output::PartFile;
use crate::ecld::error::EcldError;

/// A tensor that will be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// As the file calls it.
    pub name: String,
    /// Rows first.
    pub shape: Vec<usize>,
    /// How it is stored.
    pub dtype: GgmlType,
    /// Bytes.
    pub len: usize,
}

impl Described {
    /// A tensor of this shape.
    ///
    /// # Errors
    /// Its rows are not whole blocks.
    pub fn new(name: &str, shape: Vec<usize>, dtype: GgmlType) -> Result<Self, EcldError> {
        let row = shape.last().copied().unwrap_or(1);
        let rows: usize = shape.iter().rev().skip(1).product();
        let len = dtype.row_bytes(row).and_then(|row| row.checked_mul(rows)).ok_or_else(|| {
            EcldError::input(format!("tensor {name:?}: rows of {row} are not whole blocks of {}", dtype.name()))
        })?;
        Ok(Self { name: name.to_owned(), shape, dtype, len })
    }
}

/// Writes what a header promised, and nothing else.
#[derive(Debug)]
pub struct TensorWriter {
    file: PartFile,
    alignment: usize,
    tensors: std::vec::IntoIter<Described>,
    current: Option<(Described, usize)>,
}

impl TensorWriter {
    /// Begins a file with `header`, which ends where the data of `tensors` begins. Each of them begins at a multiple of
    /// `alignment` from there.
    ///
    /// # Errors
    /// [`EcldError::Io`].
    pub fn begin(
        mut file: PartFile,
        header: &[u8],
        tensors: Vec<Described>,
        alignment: usize,
    ) -> Result<Self, EcldError> {
        file.write(header)?;
        Ok(Self { file, alignment, tensors: tensors.into_iter(), current: None })
    }

    /// Ends the tensor before and begins the next.
    ///
    /// # Errors
    /// The one before is not as long as promised, or there is none left.
    pub fn begin_next(&mut self) -> Result<(), EcldError> {
        self.end()?;
        let next = self.tensors.next();
        let next = next.ok_or_else(|| EcldError::file(self.file.path(), "it has more tensors than its header"))?;
        self.current = Some((next, 0));
        Ok(())
    }

    /// Appends to the tensor that was begun.
    ///
    /// # Errors
    /// [`EcldError::Io`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), EcldError> {
        if let Some((_, written)) = &mut self.current {
            *written += bytes.len();
        }
        self.file.write(bytes)
    }

    fn end(&mut self) -> Result<(), EcldError> {
        let Some((tensor, written)) = self.current.take() else { return Ok(()) };
        if written != tensor.len {
            let problem = format!("{written} bytes were made of it instead of {}", tensor.len);
            return Err(EcldError::tensor(self.file.path(), &tensor.name, problem));
        }
        let padding = written.next_multiple_of(self.alignment) - written;
        self.file.write(&vec![0; padding])
    }

    /// The file is whole.
    ///
    /// # Errors
    /// A tensor is missing, or [`EcldError::Io`].
    pub fn commit(mut self) -> Result<(), EcldError> {
        self.end()?;
        match self.tensors.next() {
            Some(missing) => Err(EcldError::tensor(self.file.path(), &missing.name, "it was never written")),
            None => self.file.commit(),
        }
    }
}

/// The header of a safetensors file.
///
/// # Errors
/// A tensor is of a type that the format does not have.
pub fn safetensors_header(tensors: &[Described]) -> Result<Vec<u8>, EcldError> {
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".into(), serde_json::json!({ "format": "pt" }));
    let mut offset = 0u64;
    for tensor in tensors {
        let dtype = match tensor.dtype {
            GgmlType::F32 => "F32",
            GgmlType::F16 => "F16",
            GgmlType::Bf16 => "BF16",
            other => {
                return Err(EcldError::input(format!(
                    "tensor {:?}: safetensors files do not hold {}; convert to GGUF first",
                    tensor.name,
                    other.name()
                )));
            }
        };
        let end = offset + tensor.len as u64;
        header.insert(
            tensor.name.clone(),
            serde_json::json!({ "dtype": dtype, "shape": tensor.shape, "data_offsets": [offset, end] }),
        );
        offset = end;
    }
    let mut json = serde_json::Value::Object(header).to_string().into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut out = (json.len() as u64).to_le_bytes().to_vec();
    out.extend(json);
    Ok(out)
}
