//! What a teacher says of an epoch: its most likely tokens at every scored position. It is computed once, kept on disk and
//! shared by all students that learn from the same documents.
//!
//! A file is named by what it depends on: the teacher's bytes, the documents, τ, how many tokens are kept and where documents
//! are cut. It is a safetensors file of about 8·k bytes a scored position.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::batch::{Batch, Doc};
use crate::ecld::EcldError;
use crate::ecld::file::{Archive, Teacher, write_atomically};
use crate::ecld::forward::{NoTap, Pass, rms_norm};
use crate::ecld::matmul::project;
use crate::ecld::real::{Real as _, greatest, sum};
use crate::ecld::spec::{Model as _, check_sequences};
use crate::train::{Recorded, Said, TrainError};

/// Tokens of documents that go through the teacher at a time.
const TOKENS: usize = 4096;
/// Logits that are held at a time.
const HELD_LOGITS: usize = 1 << 23;

/// What was said of one epoch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Record {
    /// The first row of each document, and the number of rows.
    pub starts: Vec<u32>,
    /// `[rows, k]` tokens, `[rows, k]` log-probabilities at τ, `[rows]` probability of all others.
    pub said: Said,
}

/// Writes down what a teacher says, and reads it again.
pub struct Recorder<'a> {
    teacher: Teacher,
    /// Of the teacher's bytes.
    fingerprint: u64,
    folder: PathBuf,
    k: usize,
    tau: f32,
    /// Tokens of a row, where documents are cut.
    len: usize,
    stop: &'a AtomicBool,
    /// Hears how many of how many documents of an epoch were read.
    tell: Box<dyn FnMut(usize, usize) + 'a>,
    kept: Option<(PathBuf, Record)>,
}

impl std::fmt::Debug for Recorder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// FNV-1a, piece by piece.
#[derive(Debug, Clone, Copy)]
struct Hash(u64);

impl Hash {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl<'a> Recorder<'a> {
    /// Of `archive`, into `folder`: `k` tokens a position at temperature `tau`, documents cut at `len` tokens. A raised `stop`
    /// ends it before the epoch is written; `tell` hears how many of how many documents were read.
    ///
    /// # Errors
    /// The teacher cannot be read, or the folder cannot be made.
    pub fn new(
        archive: &Archive,
        folder: &Path,
        (k, tau, len): (usize, f32, usize),
        stop: &'a AtomicBool,
        tell: Box<dyn FnMut(usize, usize) + 'a>,
    ) -> Result<Self, EcldError> {
        if !(tau.is_finite() && tau > 0.0) {
            return Err(EcldError::input(format!("the temperature {tau} must be above 0")));
        }
        let teacher = Teacher::new(archive, u64::MAX)?;
        std::fs::create_dir_all(folder).map_err(EcldError::io(folder))?;
        let mut hash = Hash::new();
        const PIECE: u64 = 8 << 20;
        for file in archive.tensors.iter().map(|tensor| tensor.file).max().into_iter().flat_map(|last| 0..=last) {
            let size = archive.disk.size(file);
            for start in (0..size).step_by(PIECE as usize) {
                hash.mix(&archive.disk.piece(file, start, PIECE.min(size - start) as usize)?);
            }
        }
        let k = k.clamp(1, teacher.spec().vocab);
        let (fingerprint, folder) = (hash.0, folder.to_owned());
        Ok(Self { teacher, fingerprint, folder, k, tau, len, stop, tell, kept: None })
    }

    /// The teacher's file, as a number.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    fn path(&self, docs: &[Doc]) -> PathBuf {
        let mut hash = Hash::new();
        for doc in docs {
            hash.mix(&(doc.ids.len() as u64).to_le_bytes());
            for (id, weight) in doc.ids.iter().zip(&doc.weights) {
                hash.mix(&id.to_le_bytes());
                hash.mix(&weight.to_le_bytes());
            }
        }
        let Self { fingerprint, k, tau, len, .. } = self;
        self.folder.join(format!("{fingerprint:016x}-{:016x}-tau{tau}-k{k}-len{len}.safetensors", hash.0))
    }

    /// What the teacher says of all scored positions of `docs`.
    ///
    /// # Errors
    /// A token is not in its vocabulary, it cannot be read, or it was told to stop.
    pub fn record(&mut self, docs: &[Doc]) -> Result<Record, EcldError> {
        let spec = self.teacher.spec().clone();
        let (gain, head) = (self.teacher.output_norm()?, self.teacher.head(0..spec.vocab)?);
        let mut record = Record { starts: vec![0], said: Said { k: self.k, ..Said::default() } };
        let mut rest = docs;
        while !rest.is_empty() {
            if self.stop.load(Ordering::Relaxed) {
                return Err(EcldError::Stopped);
            }
            let mut tokens = 0;
            let enough = rest.iter().position(|doc| {
                tokens += doc.ids.len().min(self.len);
                tokens >= TOKENS
            });
            let (some, after) = rest.split_at(enough.map_or(rest.len(), |last| last + 1));
            rest = after;
            let cut = |doc: &Doc| doc.ids.get(..doc.ids.len().min(self.len)).unwrap_or_default().to_vec();
            let sequences: Vec<Vec<u32>> = some.iter().map(cut).collect();
            check_sequences(&spec, sequences.iter().map(Vec::as_slice))?;
            let mut x = self.teacher.embed(&sequences.concat())?;
            let pass = Pass::new(&spec, sequences.iter().map(Vec::len));
            for layer in 0..spec.layers {
                pass.block(self.teacher.block(layer)?.as_ref(), &mut x, &mut NoTap);
            }
            let mut hidden = Vec::new();
            for (doc, rows) in some.iter().zip(pass.rows()) {
                let before = record.starts.last().copied().unwrap_or(0);
                let mut scored = 0;
                for place in doc.scored(self.len) {
                    let row = rows.start + place - 1;
                    hidden.extend_from_slice(x.get(row * spec.dim..(row + 1) * spec.dim).unwrap_or_default());
                    scored += 1;
                }
                record.starts.push(before + scored);
            }
            let hidden = rms_norm(&hidden, &gain, spec.rms_eps);
            let step = (HELD_LOGITS / spec.vocab).max(1) * spec.dim;
            for hidden in hidden.chunks(step) {
                let mut logits = project(&head, hidden, spec.dim);
                let top: Vec<Top> = logits
                    .par_chunks_exact_mut(spec.vocab)
                    .map(|row| Top::of(row, spec.logit_cap, self.k, self.tau))
                    .collect();
                for top in top {
                    record.said.ids.extend(top.ids);
                    record.said.log_p.extend(top.log_p);
                    record.said.rest.push(top.rest);
                }
            }
            (self.tell)(docs.len() - rest.len(), docs.len());
        }
        Ok(record)
    }

    /// The record of `docs`: from memory, from its file, or made and written.
    fn of(&mut self, docs: &[Doc]) -> Result<&Record, EcldError> {
        let path = self.path(docs);
        if self.kept.as_ref().is_none_or(|(of, _)| *of != path) {
            let found = if path.exists() { read(&path, docs.len(), self.k)? } else { None };
            let record = match found {
                Some(record) => record,
                None => {
                    let record = self.record(docs)?;
                    write(&path, &record)?;
                    record
                }
            };
            self.kept = Some((path, record));
        }
        let kept = self.kept.as_ref().map(|(_, record)| record);
        kept.ok_or_else(|| EcldError::input("there is no record"))
    }
}

/// One position.
struct Top {
    ids: Vec<i32>,
    log_p: Vec<f32>,
    rest: f32,
}

impl Top {
    /// The `k` greatest of a row of logits, in falling order; of equals the lower token first.
    fn of(row: &mut [f32], cap: Option<f64>, k: usize, tau: f32) -> Self {
        for z in &mut *row {
            if let Some(cap) = cap {
                *z = (cap * (f64::from(*z) / cap).tanh()) as f32;
            }
            *z /= tau;
        }
        let top = greatest(row);
        let norm = top.wide() + sum(row, |z| (z - top).exp()).wide().ln();
        let mut order: Vec<u32> = (0..row.len() as u32).collect();
        let value = |id: &u32| row.get(*id as usize).copied().unwrap_or(f32::NEG_INFINITY);
        let falling = |a: &u32, b: &u32| value(b).total_cmp(&value(a)).then(a.cmp(b));
        if k < order.len() {
            order.select_nth_unstable_by(k, falling);
            order.truncate(k);
        }
        order.sort_unstable_by(falling);
        let log_p: Vec<f64> = order.iter().map(|id| value(id).wide() - norm).collect();
        let kept: f64 = log_p.iter().map(|log_p| log_p.exp()).sum();
        let rest = if k < row.len() { (1.0 - kept).max(0.0) as f32 } else { 0.0 };
        let (ids, log_p) = (order.iter().map(|id| *id as i32).collect(), log_p.iter().map(|v| *v as f32).collect());
        Self { ids, log_p, rest }
    }
}

impl Recorded for Recorder<'_> {
    fn said(&mut self, docs: &[Doc], first: usize, batch: &Batch) -> Result<Said, TrainError> {
        let k = self.k;
        let record = self.of(docs).map_err(|error| TrainError::Teacher(error.to_string()))?;
        let mut said = Said { k, ..Said::default() };
        let (mut before, mut within) = (usize::MAX, 0);
        for doc in &batch.doc {
            within = if *doc == before { within + 1 } else { 0 };
            before = *doc;
            let row = record.starts.get(first + doc).map(|start| *start as usize + within);
            let end = record.starts.get(first + doc + 1).map(|end| *end as usize);
            let row = row.filter(|row| end.is_some_and(|end| *row < end));
            let row = row.ok_or_else(|| TrainError::Teacher("its record is of other documents".into()))?;
            said.ids.extend(record.said.ids.get(row * k..(row + 1) * k).unwrap_or_default());
            said.log_p.extend(record.said.log_p.get(row * k..(row + 1) * k).unwrap_or_default());
            said.rest.extend(record.said.rest.get(row));
        }
        Ok(said)
    }
}

fn write(path: &Path, record: &Record) -> Result<(), EcldError> {
    let Said { k, ids, log_p, rest } = &record.said;
    let rows = rest.len();
    let starts: Vec<u8> = record.starts.iter().flat_map(|v| v.to_le_bytes()).collect();
    let ids: Vec<u8> = ids.iter().flat_map(|v| v.to_le_bytes()).collect();
    let log_p: Vec<u8> = log_p.iter().flat_map(|v| v.to_le_bytes()).collect();
    let rest: Vec<u8> = rest.iter().flat_map(|v| v.to_le_bytes()).collect();
    let fail = |error: safetensors::SafeTensorError| EcldError::file(path, error);
    let view = |dtype, shape, bytes| TensorView::new(dtype, shape, bytes).map_err(fail);
    let views = [
        ("starts", view(Dtype::U32, vec![record.starts.len()], &starts)?),
        ("ids", view(Dtype::I32, vec![rows, *k], &ids)?),
        ("log_p", view(Dtype::F32, vec![rows, *k], &log_p)?),
        ("rest", view(Dtype::F32, vec![rows], &rest)?),
    ];
    write_atomically(path, &safetensors::serialize(views, None).map_err(fail)?)
}

/// The record of `docs` documents; `None` where the file is another's or damaged: then it is made again.
fn read(path: &Path, docs: usize, k: usize) -> Result<Option<Record>, EcldError> {
    let bytes = std::fs::read(path).map_err(EcldError::io(path))?;
    let parsed = || -> Option<Record> {
        let file = SafeTensors::deserialize(&bytes).ok()?;
        let words = |name: &str, dtype: Dtype| -> Option<Vec<[u8; 4]>> {
            let view = file.tensor(name).ok().filter(|view| view.dtype() == dtype)?;
            Some(view.data().as_chunks::<4>().0.to_vec())
        };
        let singles = |name| Some(words(name, Dtype::F32)?.into_iter().map(f32::from_le_bytes).collect::<Vec<f32>>());
        let starts: Vec<u32> = words("starts", Dtype::U32)?.into_iter().map(u32::from_le_bytes).collect();
        let ids = words("ids", Dtype::I32)?.into_iter().map(i32::from_le_bytes).collect();
        let said = Said { k, ids, log_p: singles("log_p")?, rest: singles("rest")? };
        let rows = said.rest.len();
        let fits = starts.len() == docs + 1
            && starts.last().copied() == u32::try_from(rows).ok()
            && starts.is_sorted()
            && said.ids.len() == rows * k
            && said.log_p.len() == rows * k;
        fits.then_some(Record { starts, said })
    };
    Ok(parsed())
}
