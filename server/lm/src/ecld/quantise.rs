//! Stage III on a file: every matrix quantised, in pieces, with both squared errors side by side: the plain writer's (min-max)
//! and the minimised one's.
//!
//! Two ways: the block formats that users have, with searched scales ([`encode`](super::encode)), and the paper's uniform
//! quantiser per group, whose values are written back as F32 for comparison (*simulated*: no engine has a format for it).

use std::path::{Path, PathBuf};

use engine::gguf::GgmlType;
use rayon::prelude::*;
use serde::Serialize;

use super::cut::Kind;
use super::encode::{Fit, can_write, encode, squared_error};
use super::error::EcldError;
use super::file::gguf::Metadata;
use super::file::{Archive, Described, Format, PartFile, Stored, TensorWriter};
use super::uniform::{self, Effort, Grid};

/// Values that are encoded at a time.
const PIECE: usize = 2 << 20;

/// How matrices are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// As a block format; one type for the matrices of the blocks, for the token embedding and for the output head.
    Blocks {
        /// Attention and feed-forward matrices.
        matrices: GgmlType,
        /// Token embedding.
        embedding: GgmlType,
        /// Output head, where it is not the embedding.
        output: GgmlType,
        /// How scales are chosen.
        fit: Fit,
    },
    /// The paper's, written back as F32.
    Uniform {
        /// q.
        bits: u32,
        /// Weights that share (a, Δ).
        group: usize,
        /// Whether (a, b) are minimised, or the ends of the weights.
        fit: Fit,
    },
}

/// What became of one tensor.
#[derive(Debug, Clone, Serialize)]
pub struct TensorReport {
    /// Its name.
    pub name: String,
    /// As it was stored.
    pub from: &'static str,
    /// As it is stored.
    pub to: String,
    /// Squared error of the plain writer (min-max).
    pub sse_plain: f64,
    /// Squared error of what was written.
    pub sse: f64,
    /// Sum of the weights' squares: errors divided by it are NMSE.
    pub power: f64,
}

/// What was made.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The file that was quantised.
    pub source: PathBuf,
    /// What was written.
    pub out: PathBuf,
    /// Bytes of the tensors before and after.
    pub tensor_bytes: [u64; 2],
    /// Bits a weight of all tensors; of a simulated file those that its codes would take.
    pub bits_per_weight: f64,
    /// Whether the values are those of a quantiser that no file format has.
    pub simulated: bool,
    /// NMSE over all quantised matrices: the plain writer's.
    pub nmse_plain: f64,
    /// The same of what was written.
    pub nmse: f64,
    /// The matrices.
    pub tensors: Vec<TensorReport>,
    /// What whoever asked should know.
    pub warnings: Vec<String>,
}

/// What is to become of a tensor.
enum Job {
    /// Copied.
    Copy,
    /// Norms and biases: in single precision.
    Vector,
    Blocks(GgmlType, Fit),
    Uniform(u32, usize, Fit),
}

/// Writes `archive` quantised to the GGUF file `out`. `tick` hears how many bytes were read since the last time, and may
/// stop it.
///
/// # Errors
/// The source is no GGUF file, a type is not written here, a weight is no number, a tensor cannot be read or written, or
/// `tick` says stop. Nothing is left under the name then.
pub fn quantise(
    archive: &Archive,
    scheme: Scheme,
    out: &Path,
    tick: &mut dyn FnMut(u64) -> Result<(), EcldError>,
) -> Result<Report, EcldError> {
    let Format::Gguf(head) = &archive.format else {
        return Err(EcldError::file(&archive.path, "only GGUF files are quantised; convert the checkpoint first"));
    };
    let mut metadata =
        Metadata::of(head).ok_or_else(|| EcldError::file(&archive.path, "its metadata cannot be copied"))?;
    let mut warnings = Vec::new();
    let (mut jobs, mut described) = (Vec::new(), Vec::new());
    let mut replaced = 0;
    for tensor in &archive.tensors {
        let job = job(tensor, scheme);
        let dtype = match job {
            Job::Copy => tensor.dtype,
            Job::Vector | Job::Uniform(..) => GgmlType::F32,
            Job::Blocks(dtype, _) => dtype,
        };
        if let (Job::Blocks(dtype, _), Some(wanted)) = (&job, wanted(tensor.kind, scheme)) {
            replaced += usize::from(*dtype != wanted);
        }
        let to = Described::new(&tensor.name, tensor.shape.clone(), dtype);
        described.push(to.map_err(|problem| EcldError::tensor(&archive.path, &tensor.name, problem))?);
        jobs.push(job);
    }
    if replaced > 0 {
        warnings.push(format!(
            "{replaced} matrices have rows that are not whole blocks of the type that was asked for: they are Q5_0, \
             IQ4_NL or F16"
        ));
    }
    if archive.tensors.iter().any(|tensor| tensor.is_matrix() && tensor.dtype.block_len() > 1) {
        warnings
            .push("the source is already quantised: errors are measured against its own grid, not the original".into());
    }
    if let Scheme::Blocks { matrices, embedding, output, .. } = scheme {
        if let Some(other) = [matrices, embedding, output].into_iter().find(|dtype| !can_write(*dtype)) {
            return Err(EcldError::input(format!("{} is not written here", other.name())));
        }
        metadata.set_u32("general.file_type", file_type(matrices));
        metadata.set_u32("general.quantization_version", 2);
    } else {
        metadata.set_u32("general.file_type", 0);
    }
    let all: u64 = described.iter().map(|tensor| tensor.len as u64).sum();
    let header = metadata.header(&described);
    let types: Vec<GgmlType> = described.iter().map(|tensor| tensor.dtype).collect();
    let file = PartFile::create(out)?;
    let mut writer = TensorWriter::begin(file, &header, described, metadata.alignment())?;
    let mut tensors = Vec::new();
    let mut bits = 0.0;
    for ((tensor, job), dtype) in archive.tensors.iter().zip(&jobs).zip(types) {
        writer.begin_next()?;
        let made = one(archive, tensor, job, &mut writer, tick).map_err(|problem| match problem {
            EcldError::Stopped | EcldError::Tensor { .. } | EcldError::Io { .. } | EcldError::File { .. } => problem,
            problem => EcldError::tensor(&archive.path, &tensor.name, problem),
        })?;
        bits += made.bits;
        if !matches!(job, Job::Copy | Job::Vector) {
            let to = match job {
                Job::Uniform(bits, group, _) => format!("uniform-{bits}-{group}"),
                _ => dtype.name().to_owned(),
            };
            let Made { sse_plain, sse, power, .. } = made;
            let (name, from) = (tensor.name.clone(), tensor.dtype.name());
            tensors.push(TensorReport { name, from, to, sse_plain, sse, power });
        }
    }
    writer.commit()?;
    let sum = |get: fn(&TensorReport) -> f64| tensors.iter().map(get).sum::<f64>();
    let power = sum(|t| t.power).max(f64::MIN_POSITIVE);
    let elements: usize = archive.tensors.iter().map(Stored::elements).sum();
    Ok(Report {
        source: archive.path.clone(),
        out: out.to_owned(),
        tensor_bytes: [archive.tensor_bytes(), all],
        bits_per_weight: bits / elements.max(1) as f64,
        simulated: matches!(scheme, Scheme::Uniform { .. }),
        nmse_plain: sum(|t| t.sse_plain) / power,
        nmse: sum(|t| t.sse) / power,
        tensors,
        warnings,
    })
}

/// The type that was asked for.
fn wanted(kind: Kind, scheme: Scheme) -> Option<GgmlType> {
    let Scheme::Blocks { matrices, embedding, output, .. } = scheme else { return None };
    Some(match kind {
        Kind::Embedding => embedding,
        Kind::Output => output,
        _ => matrices,
    })
}

fn job(tensor: &Stored, scheme: Scheme) -> Job {
    match tensor.kind {
        Kind::Other => Job::Copy,
        _ if !tensor.is_matrix() => Job::Vector,
        kind => match scheme {
            Scheme::Uniform { bits, group, fit } => Job::Uniform(bits, group, fit),
            Scheme::Blocks { fit, matrices, .. } => {
                let wanted = wanted(kind, scheme).unwrap_or(matrices);
                Job::Blocks(stored_as(wanted, tensor.row_len()), fit)
            }
        },
    }
}

/// The type that rows of so many elements are stored in where `wanted` was asked for: what llama.cpp does for rows that are
/// too short for a K type.
pub fn stored_as(wanted: GgmlType, row_len: usize) -> GgmlType {
    let low = matches!(wanted, GgmlType::Q2K | GgmlType::Q3K);
    let types = [wanted, if low { GgmlType::Iq4Nl } else { GgmlType::Q5_0 }, GgmlType::F16];
    types.into_iter().find(|dtype| dtype.row_bytes(row_len).is_some()).unwrap_or(GgmlType::F16)
}

/// ggml's number of a file that is mostly of this type.
fn file_type(dtype: GgmlType) -> usize {
    match dtype {
        GgmlType::F16 => 1,
        GgmlType::Q4_0 => 2,
        GgmlType::Q4_1 => 3,
        GgmlType::Q8_0 => 7,
        GgmlType::Q5_0 => 8,
        GgmlType::Q2K => 10,
        GgmlType::Q3K => 11,
        GgmlType::Q4K => 14,
        GgmlType::Iq4Nl => 25,
        GgmlType::Bf16 => 32,
        _ => 0,
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Made {
    sse_plain: f64,
    sse: f64,
    power: f64,
    bits: f64,
}

fn one(
    archive: &Archive,
    tensor: &Stored,
    job: &Job,
    writer: &mut TensorWriter,
    tick: &mut dyn FnMut(u64) -> Result<(), EcldError>,
) -> Result<Made, EcldError> {
    let mut made = Made::default();
    let row = tensor.row_len();
    let row_bytes = tensor.len / tensor.row_count().max(1);
    let step = (PIECE / row.max(1)).max(1);
    for first in (0..tensor.row_count()).step_by(step) {
        let rows = first..(first + step).min(tensor.row_count());
        match *job {
            Job::Copy => {
                let bytes = archive.row_bytes(tensor, rows.clone())?;
                made.bits += bytes.len() as f64 * 8.0;
                writer.write(&bytes)?;
            }
            Job::Vector => {
                let bytes = encode(GgmlType::F32, &archive.rows(tensor, rows.clone())?, Fit::Plain)?;
                made.bits += bytes.len() as f64 * 8.0;
                writer.write(&bytes)?;
            }
            Job::Blocks(dtype, fit) => {
                let values = archive.rows(tensor, rows.clone())?;
                let bytes = encode(dtype, &values, fit)?;
                let (sse, power) = squared_error(dtype, &values, &bytes);
                made.sse += sse;
                made.power += power;
                made.sse_plain += match fit {
                    Fit::Plain => sse,
                    Fit::Searched => squared_error(dtype, &values, &encode(dtype, &values, Fit::Plain)?).0,
                };
                made.bits += bytes.len() as f64 * 8.0;
                writer.write(&bytes)?;
            }
            Job::Uniform(bits, group, fit) => {
                let values = archive.rows(tensor, rows.clone())?;
                let done: Vec<(Vec<f32>, Made)> = values
                    .par_chunks(row.max(1))
                    .map(|row| uniform_row(row, bits, group, fit))
                    .collect::<Result<_, _>>()?;
                for (values, of_row) in done {
                    made.sse += of_row.sse;
                    made.sse_plain += of_row.sse_plain;
                    made.power += of_row.power;
                    made.bits += of_row.bits;
                    writer.write(&encode(GgmlType::F32, &values, Fit::Plain)?)?;
                }
            }
        }
        tick((rows.len() * row_bytes) as u64)?;
    }
    Ok(made)
}

/// One row through the paper's quantiser, (a, Δ) in half precision.
fn uniform_row(row: &[f32], bits: u32, group: usize, fit: Fit) -> Result<(Vec<f32>, Made), EcldError> {
    let wide: Vec<f64> = row.iter().map(|v| f64::from(*v)).collect();
    let mut made = Made { power: wide.iter().map(|v| v * v).sum(), ..Made::default() };
    let plain = |w: &[f64], bits: u32| -> Result<Grid, EcldError> { uniform::min_max(w, bits)?.to_half() };
    let plain_groups = uniform::rows([wide.as_slice()], bits, group, plain)?;
    made.sse_plain = plain_groups.iter().map(|group| group.quantised.sse).sum();
    let groups = match fit {
        Fit::Plain => plain_groups,
        // At 8 bits there is nothing to gain.
        Fit::Searched if bits >= 8 => plain_groups,
        Fit::Searched => uniform::rows([wide.as_slice()], bits, group, |w, bits| {
            let (found, plain) = (uniform::minimised(w, bits, Effort::Quick)?.to_half()?, plain(w, bits)?);
            // Rounding (a, Δ) may cost more than the search has won.
            Ok(if found.quantise(w).sse <= plain.quantise(w).sse { found } else { plain })
        })?,
    };
    made.sse = groups.iter().map(|group| group.quantised.sse).sum();
    made.bits = uniform::bits_per_weight(bits, groups.len(), row.len()) * row.len() as f64;
    Ok((groups.iter().flat_map(|group| group.quantised.values.iter().map(|v| *v as f32)).collect(), made))
}
