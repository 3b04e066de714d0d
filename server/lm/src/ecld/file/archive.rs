//! The tensors of a GGUF file, or of a folder with a Hugging Face checkpoint: where they lie and what they are.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use engine::config::Blueprint;
use engine::gguf::{GgmlType, Gguf};
use engine::quant;
use engine::safetensors::{CONFIG, INDEX, Index, Storage, TensorFile, WEIGHTS, header_bytes};

use super::disk::{Disk, check_plain};
use crate::ecld::cut::Kind;
use crate::ecld::error::EcldError;
use crate::ecld::names::{gguf_kind, hf_kind};

/// Bytes of a GGUF file that are read to find its header; four times as many where they do not do.
const FIRST_HEAD: u64 = 1 << 20;
/// No header is longer.
const LONGEST_HEAD: u64 = 256 << 20;
/// Largest text file of a checkpoint, bytes.
const LONGEST_TEXT: u64 = 256 << 20;

/// What kind of file it is.
#[derive(Debug, Clone)]
pub enum Format {
    /// With its header.
    Gguf(Vec<u8>),
    /// With its `config.json` and the headers of its files.
    HuggingFace {
        /// `config.json`.
        config: Vec<u8>,
        /// One a safetensors file.
        headers: Vec<Vec<u8>>,
    },
}

/// A tensor where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// As the file calls it.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// The block that it belongs to.
    pub layer: Option<usize>,
    /// Rows first.
    pub shape: Vec<usize>,
    /// How it is stored.
    pub dtype: GgmlType,
    /// The file's number.
    pub file: usize,
    /// First byte in that file.
    pub start: u64,
    /// Bytes.
    pub len: usize,
}

impl Stored {
    /// Elements that lie next to each other: a row of a matrix, or all of a vector.
    pub fn row_len(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Such rows.
    pub fn row_count(&self) -> usize {
        self.shape.iter().rev().skip(1).product()
    }

    /// Whether it is a matrix.
    pub fn is_matrix(&self) -> bool {
        self.shape.len() > 1
    }

    /// Elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A model's files, open.
#[derive(Debug)]
pub struct Archive {
    /// The file or folder.
    pub path: PathBuf,
    /// Its kind.
    pub format: Format,
    /// Its files.
    pub disk: Disk,
    /// Its tensors, in the order in which they lie.
    pub tensors: Vec<Stored>,
    /// What the metadata says.
    pub plan: Blueprint,
}

impl Archive {
    /// Opens a GGUF file, or the folder of a Hugging Face checkpoint. Of tensors only the places are read.
    ///
    /// # Errors
    /// It is neither, a file is missing or cut short, a tensor is in two files, or the engine does not run it.
    pub fn open(path: &Path) -> Result<Self, EcldError> {
        let meta = std::fs::metadata(path).map_err(EcldError::io(path))?;
        let archive = if meta.is_dir() { Self::open_folder(path)? } else { Self::open_gguf(path)? };
        archive.check_head()?;
        Ok(archive)
    }

    fn open_gguf(path: &Path) -> Result<Self, EcldError> {
        let disk = Disk::open(&[path.to_owned()])?;
        let size = disk.size(0);
        let mut len = FIRST_HEAD;
        let head = loop {
            let head = disk.piece(0, 0, len.min(size) as usize)?;
            match Gguf::parse_header(&head, size) {
                Err(error) if error.wants_more() && len < size && len < LONGEST_HEAD => len *= 4,
                Err(error) => return Err(EcldError::file(path, error)),
                Ok(_) => break head,
            }
        };
        let gguf = Gguf::parse_header(&head, size).map_err(|error| EcldError::file(path, error))?;
        let divisors = Blueprint::divisors(&gguf).map(|info| disk.piece(0, info.start, info.len)).transpose()?;
        let plan = Blueprint::from_gguf_header(&gguf, divisors.as_deref());
        let plan = plan.map_err(|error| EcldError::file(path, error))?;
        let mut tensors: Vec<Stored> = gguf
            .tensors()
            .iter()
            .map(|(name, info)| {
                let (kind, layer) = gguf_kind(name);
                let shape = info.dims.iter().rev().copied().collect();
                let name = (*name).to_owned();
                Stored { name, kind, layer, shape, dtype: info.dtype, file: 0, start: info.start, len: info.len }
            })
            .collect();
        tensors.sort_by_key(|tensor| tensor.start);
        drop(gguf);
        let format = Format::Gguf(head);
        Ok(Self { path: path.to_owned(), format, disk, tensors, plan })
    }

    fn open_folder(path: &Path) -> Result<Self, EcldError> {
        let text = |name: &str| -> Result<Option<Vec<u8>>, EcldError> {
            let file = path.join(name);
            match std::fs::metadata(&file) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Ok(meta) if meta.len() > LONGEST_TEXT => Err(EcldError::file(&file, "it is far too long")),
                _ => {
                    check_plain(&file)?;
                    std::fs::read(&file).map(Some).map_err(EcldError::io(&file))
                }
            }
        };
        let config = text(CONFIG)?.ok_or_else(|| {
            EcldError::file(path, format!("there is no {CONFIG}: a GGUF file or a Hugging Face folder is wanted"))
        })?;
        let plan = Blueprint::from_hf_json(&config).map_err(|error| EcldError::file(&path.join(CONFIG), error))?;
        let index = text(INDEX)?.map(|json| Index::parse(&json)).transpose();
        let names = match index.map_err(|error| EcldError::file(&path.join(INDEX), error))? {
            Some(index) => index.files,
            None => vec![WEIGHTS.to_owned()],
        };
        let paths: Vec<PathBuf> = names.iter().map(|name| path.join(name)).collect();
        if let Some(missing) = paths.iter().find(|path| !path.is_file()) {
            return Err(EcldError::file(missing, "the file is missing: all parts of a checkpoint are needed"));
        }
        let disk = Disk::open(&paths)?;
        let mut headers = Vec::new();
        let mut tensors: Vec<Stored> = Vec::new();
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        for (file, path) in paths.iter().enumerate() {
            let fail = |error| EcldError::file(path, error);
            let first = disk.piece(file, 0, disk.size(file).min(8) as usize)?;
            let header = disk.piece(file, 0, header_bytes(&first).map_err(fail)?)?;
            let parsed = TensorFile::parse_header(&header, disk.size(file)).map_err(fail)?;
            for (name, view) in parsed.tensors() {
                let Storage::Float(dtype) = view.storage else {
                    let problem = "it is of a type that is not read: only F32, F16 and BF16 are";
                    return Err(EcldError::tensor(path, name, problem));
                };
                if let Some(other) = places.insert(name.to_owned(), file) {
                    return Err(EcldError::tensor(path, name, format!("it is in {} too", disk.path(other).display())));
                }
                let (kind, layer) = hf_kind(name);
                let (shape, name) = (view.shape.clone(), name.to_owned());
                tensors.push(Stored { name, kind, layer, shape, dtype, file, start: view.start, len: view.len });
            }
            drop(parsed);
            headers.push(header);
        }
        tensors.sort_by_key(|tensor| (tensor.file, tensor.start));
        let format = Format::HuggingFace { config, headers };
        Ok(Self { path: path.to_owned(), format, disk, tensors, plan })
    }

    /// Whether the head is the embedding: by the config, or else by the list of tensors.
    pub fn tied(&self) -> bool {
        self.plan.tied.unwrap_or_else(|| self.find(Kind::Output).is_none())
    }

    fn find(&self, kind: Kind) -> Option<&Stored> {
        self.tensors.iter().find(|tensor| tensor.kind == kind)
    }

    /// A head that the config calls tied, and that is there all the same, has to be the embedding.
    fn check_head(&self) -> Result<(), EcldError> {
        let (Some(true), Some(head), Some(embedding)) =
            (self.plan.tied, self.find(Kind::Output), self.find(Kind::Embedding))
        else {
            return Ok(());
        };
        let path = self.disk.path(head.file);
        let differs = || EcldError::tensor(path, &head.name, "the config ties it to the embedding, which is another");
        if (&head.shape, head.dtype, head.len) != (&embedding.shape, embedding.dtype, embedding.len) {
            return Err(differs());
        }
        const PIECE: usize = 8 << 20;
        for skip in (0..head.len).step_by(PIECE) {
            let len = PIECE.min(head.len - skip);
            let read = |tensor: &Stored| self.disk.piece(tensor.file, tensor.start + skip as u64, len);
            if read(head)? != read(embedding)? {
                return Err(differs());
            }
        }
        Ok(())
    }

    /// Bytes of all tensors.
    pub fn tensor_bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.len as u64).sum()
    }

    /// Parameters.
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().filter(|t| t.kind != Kind::Other).map(|tensor| tensor.elements() as u64).sum()
    }

    /// These rows' bytes.
    ///
    /// # Errors
    /// They cannot be read, or are not there.
    pub fn row_bytes(&self, tensor: &Stored, rows: Range<usize>) -> Result<Vec<u8>, EcldError> {
        let row = tensor.dtype.row_bytes(tensor.row_len());
        let row = row.filter(|_| rows.end <= tensor.row_count()).ok_or_else(|| {
            EcldError::tensor(self.disk.path(tensor.file), &tensor.name, "its rows are not whole blocks")
        })?;
        self.disk.piece(tensor.file, tensor.start + (rows.start * row) as u64, row * rows.len())
    }

    /// These rows' values, every one of them a number.
    ///
    /// # Errors
    /// As [`row_bytes`](Self::row_bytes); NaN or an infinity is among them.
    pub fn rows(&self, tensor: &Stored, rows: Range<usize>) -> Result<Vec<f32>, EcldError> {
        let bytes = self.row_bytes(tensor, rows.clone())?;
        let mut values = vec![0.0; tensor.row_len() * rows.len()];
        let fail = |problem: String| EcldError::tensor(self.disk.path(tensor.file), &tensor.name, problem);
        if !quant::dequantize(tensor.dtype, &bytes, &mut values) {
            return Err(fail("it has the wrong number of bytes".into()));
        }
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(at) => {
                let row = rows.start + at / tensor.row_len().max(1);
                Err(fail(format!(
                    "row {row} holds {}, which is no number",
                    values.get(at).copied().unwrap_or(f32::NAN)
                )))
            }
        }
    }
}
