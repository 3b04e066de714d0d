//! Pruning a file: every tensor is read in pieces, cut and written, so that memory stays far below the model's size.
//!
//! What is cut only by rows, or not at all, is copied as it is stored. Columns of blocks with shared scales cannot be taken
//! out; such matrices are decoded and stored in half precision, to be quantised again afterwards from the best values there
//! are. Before anything is written, the new metadata are read back as the engine would, and have to say what was meant.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use engine::config::Blueprint;
use engine::gguf::{GgmlType, Gguf};
use engine::safetensors::{CONFIG, INDEX, WEIGHTS};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::cut::{Cut, Edit, Keep, Kind, apply};
use super::encode::{Fit, encode};
use super::error::EcldError;
use super::file::gguf::Metadata;
use super::file::{Archive, Described, Format, PartFile, PartFolder, Stored, TensorWriter, safetensors_header};
use super::names::renumbered;
use super::spec::Spec;

/// Bytes of a tensor that are read at a time.
const PIECE: usize = 8 << 20;
/// Files of a checkpoint that hold weights in another form, by their endings.
const OTHER_WEIGHTS: [&str; 8] = [".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx"];

/// What was made.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The file or folder that was pruned.
    pub source: PathBuf,
    /// What was written.
    pub out: PathBuf,
    /// Bytes of the tensors before and after.
    pub tensor_bytes: [u64; 2],
    /// Parameters before and after.
    pub parameters: [u64; 2],
    /// Blocks, width, query heads, KV groups, FFN neurons before.
    pub sizes_before: Sizes,
    /// The same after.
    pub sizes_after: Sizes,
    /// Whether norms' gains and ε were corrected for the smaller width.
    pub norms_corrected: bool,
    /// What stays, by the source's numbers.
    pub kept: Keep,
    /// Matrices that are stored otherwise than before, since their columns were cut out of blocks.
    pub stored_as_f16: usize,
    /// What whoever asked should know.
    pub warnings: Vec<String>,
}

/// A model's sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sizes {
    layers: usize,
    dim: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    ffn: usize,
}

impl From<&Spec> for Sizes {
    fn from(spec: &Spec) -> Self {
        let Spec { layers, dim, heads, kv_heads, head_dim, ffn, .. } = *spec;
        Self { layers, dim, heads, kv_heads, head_dim, ffn }
    }
}

/// One tensor's way.
struct Job<'a> {
    from: &'a Stored,
    edit: Edit,
    to: Described,
}

/// Writes what is left of `archive` to `out`: a GGUF file of one, a folder of a folder. `tick` hears how many bytes were
/// read since the last time, and may stop it.
///
/// # Errors
/// What stays does not fit the model, the new file could not say what is in it, a tensor cannot be read or written, or
/// `tick` says stop. Nothing is left under the name then.
pub fn prune(
    archive: &Archive,
    keep: &Keep,
    out: &Path,
    correct_norms: bool,
    tick: &mut dyn FnMut(u64) -> Result<(), EcldError>,
) -> Result<Report, EcldError> {
    let spec = Spec::of(&archive.plan);
    let mut cut = Cut::new(&spec, keep, correct_norms)?;
    if spec.gelu {
        cut = cut.for_gemma(f64::from(archive.plan.gain_offset));
    }
    if archive.plan.also_sees && keep.embed.is_some() {
        return Err(EcldError::file(
            &archive.path,
            "the model also sees: its images need all channels, cut something else",
        ));
    }
    let jobs = jobs(archive, &cut)?;
    let described: Vec<Described> = jobs.iter().map(|job| job.to.clone()).collect();
    let all: u64 = described.iter().map(|tensor| tensor.len as u64).sum();
    let meant = Meant { archive, cut: &cut };
    match &archive.format {
        Format::Gguf(head) => {
            let metadata = gguf_metadata(archive, &cut, head)?;
            let header = metadata.header(&described);
            meant.check_gguf(&header, header.len() as u64 + all + (described.len() * metadata.alignment()) as u64)?;
            let file = PartFile::create(out)?;
            write(archive, &jobs, TensorWriter::begin(file, &header, described, metadata.alignment())?, tick)?;
        }
        Format::HuggingFace { config, .. } => {
            let config = hf_config(archive, &cut, config)?;
            meant.check_hf(&config)?;
            let folder = PartFolder::create(out)?;
            copy_others(&archive.path, &folder)?;
            let file = PartFile::create(&folder.inside(CONFIG))?;
            commit(file, &config)?;
            let file = PartFile::create(&folder.inside(WEIGHTS))?;
            let writer = TensorWriter::begin(file, &safetensors_header(&described)?, described, 1)?;
            write(archive, &jobs, writer, tick)?;
            folder.commit()?;
        }
    }
    let stored_as_f16 = jobs.iter().filter(|j| j.from.dtype != j.to.dtype && j.to.dtype == GgmlType::F16).count();
    let parameters = jobs.iter().filter(|job| job.from.kind != Kind::Other);
    let parameters = parameters.map(|job| job.to.shape.iter().product::<usize>() as u64).sum();
    let mut warnings = Vec::new();
    if archive.tensors.iter().any(|tensor| tensor.is_matrix() && tensor.dtype.block_len() > 1) {
        warnings.push("the source is already quantised: start from an F16, BF16 or F32 file where there is one".into());
    }
    Ok(Report {
        source: archive.path.clone(),
        out: out.to_owned(),
        tensor_bytes: [archive.tensor_bytes(), all],
        parameters: [archive.parameters(), parameters],
        sizes_before: Sizes::from(&spec),
        sizes_after: Sizes::from(&cut.spec()),
        norms_corrected: correct_norms && keep.embed.is_some(),
        kept: keep.clone(),
        stored_as_f16,
        warnings,
    })
}

fn commit(mut file: PartFile, bytes: &[u8]) -> Result<(), EcldError> {
    file.write(bytes)?;
    file.commit()
}

/// What happens to each tensor that stays.
fn jobs<'a>(archive: &'a Archive, cut: &Cut<'_>) -> Result<Vec<Job<'a>>, EcldError> {
    let mut jobs = Vec::new();
    for from in &archive.tensors {
        // A tied head that is there all the same stays the embedding.
        let kind = if from.kind == Kind::Output && archive.tied() { Kind::Embedding } else { from.kind };
        let Some(edit) = cut.edit(kind, from.layer) else { continue };
        let name = match from.layer.and_then(|old| Some((old, cut.layer(old)?))) {
            Some((old, new)) => renumbered(&from.name, old, new),
            None => from.name.clone(),
        };
        let recoded = edit.cols.is_some() || edit.scale != 1.0;
        let dtype = match from.dtype {
            dtype if !recoded => dtype,
            // A gain times √(d/d′) deserves all its digits.
            _ if !from.is_matrix() => GgmlType::F32,
            dtype if dtype.block_len() > 1 => GgmlType::F16,
            dtype => dtype,
        };
        let to = Described::new(&name, edit.shape(&from.shape), dtype);
        let to = to.map_err(|problem| EcldError::tensor(&archive.path, &from.name, problem))?;
        jobs.push(Job { from, edit, to });
    }
    Ok(jobs)
}

fn write(
    archive: &Archive,
    jobs: &[Job<'_>],
    mut writer: TensorWriter,
    tick: &mut dyn FnMut(u64) -> Result<(), EcldError>,
) -> Result<(), EcldError> {
    for job in jobs {
        writer.begin_next()?;
        let Job { from, edit, to } = job;
        let fail = |problem: EcldError| EcldError::tensor(archive.disk.path(from.file), &from.name, problem);
        if !from.is_matrix() {
            let values = archive.rows(from, 0..1)?;
            let kept = apply(edit, &values, 1, |edit, value| edit.scaled(f64::from(value)) as f32);
            writer.write(&encode(to.dtype, &kept, Fit::Plain).map_err(fail)?)?;
            tick(from.len as u64)?;
            continue;
        }
        let row = from.len / from.row_count().max(1);
        let step = (PIECE / row.max(1)).max(1);
        for first in (0..from.row_count()).step_by(step) {
            let rows = first..(first + step).min(from.row_count());
            let here: Option<Vec<usize>> = edit.rows.as_ref().map(|kept| {
                let from = kept.partition_point(|row| *row < rows.start);
                let to = kept.partition_point(|row| *row < rows.end);
                kept.get(from..to).unwrap_or_default().iter().map(|row| row - rows.start).collect()
            });
            let edit = Edit { rows: here, ..edit.clone() };
            if edit.rows.as_ref().is_none_or(|rows| !rows.is_empty()) {
                let bytes = if edit.cols.is_none() && edit.scale == 1.0 {
                    apply(&edit, &archive.row_bytes(from, rows.clone())?, row, |_, byte| byte)
                } else {
                    let values = archive.rows(from, rows.clone())?;
                    let scaled = |edit: &Edit, value: f32| edit.scaled(f64::from(value)) as f32;
                    encode(to.dtype, &apply(&edit, &values, from.row_len(), scaled), Fit::Plain).map_err(fail)?
                };
                writer.write(&bytes)?;
            }
            tick((rows.len() * row) as u64)?;
        }
    }
    writer.commit()
}

fn gguf_metadata(archive: &Archive, cut: &Cut<'_>, head: &[u8]) -> Result<Metadata, EcldError> {
    let fail = |problem: &str| EcldError::file(&archive.path, problem);
    let mut metadata = Metadata::of(head).ok_or_else(|| fail("its metadata cannot be copied"))?;
    let gguf = Gguf::parse_header(head, archive.disk.size(0)).map_err(|error| EcldError::file(&archive.path, error))?;
    let arch = gguf.get("general.architecture").and_then(engine::gguf::Value::as_str);
    let arch = arch.ok_or_else(|| fail("it names no architecture"))?;
    let (spec, config) = (cut.spec(), &archive.plan.config);
    if let Some(layers) = &cut.keep().layers {
        metadata.cut_lists(arch, config.layers, layers);
        // Which blocks see only a window follows from their place no longer.
        if archive.plan.post_norms && archive.plan.layers.iter().any(|layer| layer.window.is_some()) {
            let slides = layers.iter().filter_map(|layer| archive.plan.layers.get(*layer));
            let slides: Vec<bool> = slides.map(|layer| layer.window.is_some()).collect();
            metadata.set_bools(&format!("{arch}.attention.sliding_window_pattern"), &slides);
        }
    }
    for (key, value) in [
        ("embedding_length", spec.dim),
        ("feed_forward_length", spec.ffn),
        ("block_count", spec.layers),
        ("attention.head_count", spec.heads),
        ("attention.head_count_kv", spec.kv_heads),
        ("attention.key_length", spec.head_dim),
        ("attention.value_length", spec.head_dim),
        ("rope.dimension_count", config.rope.dim),
    ] {
        metadata.set_u32(&format!("{arch}.{key}"), value);
    }
    if spec.rms_eps != f64::from(config.rms_eps) {
        metadata.set_f32(&format!("{arch}.attention.layer_norm_rms_epsilon"), spec.rms_eps as f32);
    }
    // It tells another number of parameters.
    metadata.remove("general.size_label");
    Ok(metadata)
}

fn hf_config(archive: &Archive, cut: &Cut<'_>, config: &[u8]) -> Result<Vec<u8>, EcldError> {
    let path = archive.path.join(CONFIG);
    let mut whole: Map<String, Value> =
        serde_json::from_slice(config).map_err(|error| EcldError::file(&path, error))?;
    let also_sees = archive.plan.also_sees;
    let text = if also_sees {
        let text = whole.get_mut("text_config").and_then(Value::as_object_mut);
        text.ok_or_else(|| EcldError::file(&path, "it has no text_config"))?
    } else {
        &mut whole
    };
    let spec = cut.spec();
    for (key, value) in [
        ("hidden_size", spec.dim),
        ("intermediate_size", spec.ffn),
        ("num_hidden_layers", spec.layers),
        ("num_attention_heads", spec.heads),
        ("num_key_value_heads", spec.kv_heads),
        // What follows from width and heads before the cut does not after it.
        ("head_dim", spec.head_dim),
    ] {
        text.insert(key.into(), json!(value));
    }
    if spec.rms_eps != f64::from(archive.plan.config.rms_eps) {
        text.insert("rms_norm_eps".into(), json!(spec.rms_eps));
    }
    if let Some(layers) = &cut.keep().layers {
        let plans = &archive.plan.layers;
        let slides = |layer: &usize| plans.get(*layer).is_some_and(|plan| plan.window.is_some());
        let listed = text.get("layer_types").is_some_and(Value::is_array);
        let differ = plans.windows(2).any(|pair| pair[0].window != pair[1].window);
        if listed || differ || archive.plan.post_norms {
            let kind = |layer: &usize| if slides(layer) { "sliding_attention" } else { "full_attention" };
            let old = text.get("layer_types").and_then(Value::as_array).cloned();
            let types = layers.iter().map(|layer| {
                let stated = old.as_ref().and_then(|types| types.get(*layer)).cloned();
                stated.unwrap_or_else(|| json!(kind(layer)))
            });
            let types: Vec<Value> = types.collect();
            text.insert("layer_types".into(), Value::Array(types));
        }
        if let Some(first) = text.get("max_window_layers").and_then(Value::as_u64) {
            let below = layers.iter().filter(|layer| (**layer as u64) < first).count();
            text.insert("max_window_layers".into(), json!(below));
        }
        if plans.iter().any(|plan| plan.rope.table().is_none()) {
            let has = |layer: &usize| plans.get(*layer).is_none_or(|plan| plan.rope.table().is_some());
            let list: Vec<u8> = layers.iter().map(|layer| u8::from(has(layer))).collect();
            text.insert("no_rope_layers".into(), json!(list));
        }
    }
    whole.insert("tie_word_embeddings".into(), json!(archive.tied()));
    let json = serde_json::to_vec_pretty(&Value::Object(whole));
    json.map_err(|error| EcldError::file(&path, error))
}

/// What the cut model should be, and whether metadata say so.
struct Meant<'a> {
    archive: &'a Archive,
    cut: &'a Cut<'a>,
}

impl Meant<'_> {
    fn check_gguf(&self, header: &[u8], at_most: u64) -> Result<(), EcldError> {
        let fail = |problem: String| EcldError::file(&self.archive.path, problem);
        let gguf = Gguf::parse_header(header, at_most).map_err(|error| fail(error.to_string()))?;
        let divisors = self.archive.tensors.iter().find(|tensor| tensor.name == "rope_freqs.weight");
        let divisors = divisors.map(|tensor| self.archive.row_bytes(tensor, 0..tensor.row_count())).transpose()?;
        let plan = Blueprint::from_gguf_header(&gguf, divisors.as_deref());
        self.check(&plan.map_err(|error| fail(error.to_string()))?)
    }

    fn check_hf(&self, config: &[u8]) -> Result<(), EcldError> {
        let plan = Blueprint::from_hf_json(config);
        self.check(&plan.map_err(|error| EcldError::file(&self.archive.path, error))?)
    }

    fn check(&self, found: &Blueprint) -> Result<(), EcldError> {
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-6 * b.abs();
        let (spec, mut wanted) = (Spec::of(found), self.cut.spec());
        if close(spec.rms_eps, wanted.rms_eps) {
            wanted.rms_eps = spec.rms_eps;
        }
        if close(spec.embedding_scale, wanted.embedding_scale) {
            wanted.embedding_scale = spec.embedding_scale;
        }
        wanted.context = spec.context;
        let old = &self.archive.plan;
        let kept = old.layers.iter().enumerate().filter(|(layer, _)| self.cut.layer(*layer).is_some());
        let layers_fit = kept.map(|(_, plan)| plan).eq(found.layers.iter());
        let same = (found.qk_norm, found.post_norms, found.half_split, found.gain_offset)
            == (old.qk_norm, old.post_norms, old.half_split, old.gain_offset);
        match layers_fit && same && spec == wanted {
            true => Ok(()),
            false if !layers_fit => Err(EcldError::file(
                &self.archive.path,
                "which of this family's blocks see a window or have positions follows from their place, and the file has no \
                 way to say it otherwise: leave its blocks, or those that keep the pattern",
            )),
            false => Err(EcldError::file(
                &self.archive.path,
                "this family's scores follow from its sizes, and the file has no way to say it otherwise: cut neurons only",
            )),
        }
    }
}

/// Tokenizer, template and whatever else lies in the folder that is no weight.
fn copy_others(from: &Path, to: &PartFolder) -> Result<(), EcldError> {
    let written: BTreeSet<&str> = [CONFIG, INDEX].into();
    for entry in fs::read_dir(from).map_err(EcldError::io(from))? {
        let entry = entry.map_err(EcldError::io(from))?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let weights = OTHER_WEIGHTS.iter().any(|ending| name.ends_with(ending));
        if weights || written.contains(name) || !entry.path().is_file() {
            continue;
        }
        fs::copy(entry.path(), to.inside(name)).map_err(EcldError::io(&entry.path()))?;
    }
    Ok(())
}
