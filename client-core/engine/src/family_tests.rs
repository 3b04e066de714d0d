//! Tiny checkpoints of every family against what `transformers` computed with them; see tests/golden/make_families.py.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use pollster::block_on;
use serde::Deserialize;

use super::assemble::WeightStream;
use super::backend::{Backend, Output, OutputKind};
use super::cpu::{CpuBackend, Form};
use super::error::EngineError;
use super::files::ReadAt;
use super::gguf::{GgmlType, Gguf};
use super::parts::{BlockPart, Part, Weights};
use super::reference::{Deviation, Reference};
use super::safetensors::{Checkpoint, Index, TensorFile, TokenizerFiles, header_bytes};
use super::weights::ModelWeights;

/// How far logits may be from those of `transformers`.
const TOLERANCE: f32 = 1e-3;

#[derive(Deserialize)]
struct Golden {
    prompt: Vec<u32>,
    greedy: Vec<u32>,
    logits: Vec<Logits>,
}

#[derive(Deserialize)]
struct Logits {
    position: usize,
    values: Vec<f32>,
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn folders() -> Vec<(String, PathBuf)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/families");
    let mut found: Vec<(String, PathBuf)> = std::fs::read_dir(top)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.path()))
        .collect();
    found.sort();
    assert!(found.len() >= 13, "{found:?}");
    found
}

fn golden(folder: &Path) -> Golden {
    let golden: Golden = serde_json::from_slice(&read(&folder.join("golden.json"))).unwrap();
    assert_eq!((golden.greedy.len(), golden.logits.len()), (64, 5));
    golden
}

fn shards(folder: &Path) -> Vec<String> {
    let index = folder.join("model.safetensors.index.json");
    match index.exists() {
        true => Index::parse(&read(&index)).unwrap().files,
        false => vec!["model.safetensors".to_owned()],
    }
}

/// The checkpoint in `folder`, its shards in the order of the index where it has one.
fn checkpoint(folder: &Path, store_as: GgmlType) -> ModelWeights<'static> {
    let shards: Vec<Vec<u8>> = shards(folder).iter().map(|name| read(&folder.join(name))).collect();
    let files = Checkpoint {
        config: &read(&folder.join("config.json")),
        words: TokenizerFiles::default(),
        shards: shards.iter().map(Vec::as_slice).collect(),
        store_as,
    };
    files.weights().unwrap()
}

/// The oracle's logits at the golden positions, and the backends' there and on the greedy way.
fn agrees(name: &str, weights: &ModelWeights<'_>, golden: &Golden) {
    let tokens = [golden.prompt.as_slice(), &golden.greedy].concat();
    let oracle = Reference::new(weights).logits(&tokens);
    for logits in &golden.logits {
        let deviation = Deviation::between(&oracle[logits.position], &logits.values);
        assert!(deviation.max < TOLERANCE, "{name}, oracle at {}: {deviation:?}", logits.position);
    }
    for form in [Form::Singles, Form::Stored] {
        let mut backend = CpuBackend::with_form(weights, form).unwrap();
        agrees_on(&mut backend, &format!("{name}, {form:?}"), golden);
    }
}

/// One backend, fed in chunks up to each golden position, then greedily from the prompt's end.
fn agrees_on(backend: &mut dyn Backend, name: &str, golden: &Golden) {
    let tokens = [golden.prompt.as_slice(), &golden.greedy].concat();
    for logits in &golden.logits {
        let chunk = &tokens[backend.len()..=logits.position];
        let Output::Logits(found) = block_on(backend.forward(chunk, OutputKind::Logits)).unwrap() else {
            panic!("{name}")
        };
        let deviation = Deviation::between(&found, &logits.values);
        assert!(deviation.max < TOLERANCE, "{name} at {}: {deviation:?}", logits.position);
    }
    backend.truncate(golden.prompt.len() - 1);
    let mut last = golden.prompt[golden.prompt.len() - 1];
    let mut found = Vec::new();
    for _ in &golden.greedy {
        let Output::Token(next) = block_on(backend.forward(&[last], OutputKind::Argmax)).unwrap() else {
            panic!("{name}")
        };
        found.push(next);
        last = next;
    }
    assert_eq!(found, golden.greedy, "{name}");
}

#[test]
fn checkpoints_compute_what_transformers_computes() {
    for (name, folder) in folders() {
        agrees(&name, &checkpoint(&folder, GgmlType::F16), &golden(&folder));
    }
}

#[test]
fn gguf_files_compute_what_transformers_computes() {
    let mut architectures = std::collections::BTreeSet::new();
    for (name, folder) in folders() {
        let path = folder.join("model.gguf");
        if !path.exists() {
            continue;
        }
        let bytes = read(&path);
        let gguf = Gguf::parse(&bytes).unwrap();
        architectures.insert(gguf.get("general.architecture").unwrap().as_str().unwrap().to_owned());
        let weights = ModelWeights::from_gguf(&gguf).unwrap();
        agrees(&format!("{name}.gguf"), &weights, &golden(&folder));
    }
    let expect = ["gemma", "gemma2", "gemma3", "llama", "qwen2", "qwen3", "smollm3"];
    assert_eq!(architectures.into_iter().collect::<Vec<_>>(), expect);
}

#[cfg(feature = "gpu")]
mod gpu {
    use super::*;
    use crate::gpu::{GpuBackend, tests::gpu};

    /// The families with most kernels of their own; software takes its time, so others are there in Chromium only.
    #[test]
    fn checkpoints_compute_what_transformers_computes() {
        let Some(gpu) = gpu() else { return };
        for (name, folder) in folders().into_iter().filter(|(name, _)| ["gemma2", "gemma3"].contains(&name.as_str())) {
            let mut backend = block_on(GpuBackend::new(&gpu, &checkpoint(&folder, GgmlType::F16))).unwrap();
            agrees_on(&mut backend, &format!("{name} on WebGPU"), &golden(&folder));
        }
    }
}

/// A safetensors file with other names, and one more tensor of two numbers.
fn renamed(file: &[u8], rename: impl Fn(&str) -> String, more: &str) -> Vec<u8> {
    let (length, rest) = file.split_at(8);
    let (header, data) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
    let header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(header).unwrap();
    let mut named: serde_json::Map<_, _> = header
        .into_iter()
        .filter(|(name, _)| name != "__metadata__")
        .map(|(name, place)| (rename(&name), place))
        .collect();
    let place = serde_json::json!({"dtype": "F32", "shape": [2], "data_offsets": [data.len(), data.len() + 8]});
    named.insert(more.to_owned(), place);
    let mut header = serde_json::to_vec(&named).unwrap();
    header.resize(header.len().next_multiple_of(8), b' ');
    [&(header.len() as u64).to_le_bytes()[..], &header, data, &[0; 8]].concat()
}

/// Gemma 3 as files of models that also see hold it, old ones and new ones: the part for text is taken out of them.
#[test]
fn the_part_for_text_computes_what_transformers_computes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/families/gemma3");
    let text: serde_json::Value = serde_json::from_slice(&read(&folder.join("config.json"))).unwrap();
    let config = serde_json::json!({"model_type": "gemma3", "text_config": text, "vision_config": {}}).to_string();
    let plain = read(&folder.join("model.safetensors"));
    let weights = |file: &[u8]| {
        let words = TokenizerFiles::default();
        let files = Checkpoint { config: config.as_bytes(), words, shards: vec![file], store_as: GgmlType::F16 };
        files.weights().map(|weights| agrees("gemma3, the part for text", &weights, &golden(&folder)))
    };
    weights(&renamed(&plain, |name| format!("language_model.{name}"), "vision_tower.patch.bias")).unwrap();
    let now = |name: &str| name.replacen("model.", "model.language_model.", 1);
    weights(&renamed(&plain, now, "model.multi_modal_projector.norm.weight")).unwrap();
    let error = weights(&renamed(&plain, now, "model.audio_tower.norm.weight")).unwrap_err().to_string();
    assert!(error.contains("model.audio_tower.norm.weight"), "{error}");
}

/// Reads files in memory, and keeps the largest piece in mind.
struct Counting<'a> {
    files: Vec<&'a [u8]>,
    largest: Cell<usize>,
    /// Bytes that are missing of every piece.
    short: usize,
}

impl<'a> Counting<'a> {
    fn new(files: &[&'a [u8]]) -> Self {
        Self { files: files.to_vec(), largest: Cell::new(0), short: 0 }
    }
}

#[async_trait(?Send)]
impl ReadAt for Counting<'_> {
    async fn read(&self, file: usize, start: u64, len: usize) -> Result<Vec<u8>, EngineError> {
        self.largest.set(self.largest.get().max(len));
        self.files[..].read(file, start, len - self.short).await
    }
}

/// All bytes of a matrix, read in pieces of at least one unit.
fn in_pieces(weights: &dyn Weights, part: Part) -> Vec<u8> {
    let form = weights.required(part).unwrap();
    form.pieces(form.row_bytes(), 1).flat_map(|rows| block_on(weights.rows(part, rows)).unwrap().into_owned()).collect()
}

fn same_weights(name: &str, parts: &dyn Weights, whole: &ModelWeights<'_>) {
    assert_eq!(*parts.config(), whole.config, "{name}");
    assert_eq!(parts.totals().unwrap(), whole.totals().unwrap(), "{name}");
    assert_eq!(parts.totals().unwrap().parameters, whole.parameters(), "{name}");
    assert!(block_on(parts.vectors(whole.layers.len())).is_err());
    for (number, layer) in whole.layers.iter().enumerate() {
        for part in BlockPart::ALL {
            let found = in_pieces(parts, Part::Block(number, part));
            assert!(found == *layer.matrix(part).bytes, "{name}: {part:?} of {number}");
        }
        let vectors = block_on(parts.vectors(number)).unwrap();
        assert_eq!((&vectors.traits, &vectors.ffn_norm), (&layer.traits, &layer.ffn_norm), "{name}");
    }
    assert!(in_pieces(parts, Part::Embedding) == *whole.embedding.bytes, "{name}");
    assert_eq!(parts.form(Part::Output).unwrap().is_some(), whole.output.is_some(), "{name}");
}

/// With only the header in memory and every piece of a tensor read when it is asked for, the same model comes out; a piece
/// that comes back short is noticed.
#[test]
fn gguf_files_are_read_piece_by_piece() {
    for (name, folder) in folders() {
        let path = folder.join("model.gguf");
        if !path.exists() {
            continue;
        }
        let bytes = read(&path);
        let mut beginning = 64;
        let gguf = loop {
            match Gguf::parse_header(&bytes[..beginning], bytes.len() as u64) {
                Ok(gguf) => break gguf,
                Err(error) => assert!(error.wants_more(), "{name}: {error}"),
            }
            beginning = (2 * beginning).min(bytes.len());
        };
        let mut reader = Counting::new(&[&bytes]);
        let parts = block_on(WeightStream::from_gguf(&gguf, &reader)).unwrap();
        let whole = ModelWeights::from_gguf(&Gguf::parse(&bytes).unwrap()).unwrap();
        same_weights(&name, &parts, &whole);
        assert!(reader.largest.get() < whole.embedding.bytes.len(), "{name}: no matrix was read whole");
        let collected = block_on(parts.collect()).unwrap();
        assert_eq!(collected.layers[0].q.bytes, whole.layers[0].q.bytes, "{name}");
        reader.short = 1;
        let error = block_on(async { WeightStream::from_gguf(&gguf, &reader).await?.collect().await }).unwrap_err();
        assert!(error.to_string().contains("length") || error.to_string().contains("rope_freqs"), "{name}: {error}");
    }
}

/// The same with checkpoints that are quantised while they are read.
#[test]
fn checkpoints_are_read_piece_by_piece() {
    for (name, folder) in folders() {
        let (names, store_as) = (shards(&folder), GgmlType::Q8_0);
        let files: Vec<Vec<u8>> = names.iter().map(|name| read(&folder.join(name))).collect();
        let headers: Vec<TensorFile<'_>> = files
            .iter()
            .map(|file| TensorFile::parse_header(&file[..header_bytes(file).unwrap()], file.len() as u64).unwrap())
            .collect();
        let files: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
        let reader = Counting::new(&files);
        let config = read(&folder.join("config.json"));
        let parts = WeightStream::from_safetensors(&config, &headers, &reader, store_as).unwrap();
        same_weights(&name, &parts, &checkpoint(&folder, store_as));
        let matrices = checkpoint(&folder, GgmlType::F16).bytes();
        assert_eq!(parts.bytes_to_read().unwrap(), matrices, "{name}: they are stored in half precision");
        let listed = headers.iter().flat_map(TensorFile::names).map(str::to_owned).collect();
        let listed = WeightStream::from_names(&config, listed, store_as).unwrap();
        assert_eq!(listed.totals().unwrap(), parts.totals().unwrap(), "{name}: the names alone tell as much");
        assert!(block_on(listed.collect()).is_err());
    }
}

/// Quantising on load rounds weights and nothing else: logits move a little, and matrices take the blocks' size.
#[test]
fn checkpoints_are_quantised_on_load() {
    for (name, folder) in folders() {
        let (exact, golden) = (checkpoint(&folder, GgmlType::F16), golden(&folder));
        for (store_as, bound) in [(GgmlType::Q8_0, 0.15), (GgmlType::Q4_0, 2.5)] {
            let weights = checkpoint(&folder, store_as);
            assert_eq!(weights.layers[0].q.dtype, store_as, "{name}");
            assert_eq!(weights.parameters(), exact.parameters(), "{name}");
            assert!(weights.bytes() < exact.bytes(), "{name}");
            let found = Reference::new(&weights).logits(&golden.prompt);
            let deviation = Deviation::between(&found[0], &golden.logits[0].values);
            assert!(deviation.median_share < bound && deviation.max > 0.0, "{name} {store_as:?}: {deviation:?}");
        }
    }
}

/// Files that want a computation that is not made here are refused, and say what it is.
#[test]
fn foreign_parts_are_refused_by_name() {
    for (family, from, to, expect) in [
        ("qwen3", "blk.0.attn_q_norm.weight", "blk.0.attn_s_norm.weight", "attn_s_norm"),
        ("llama-llama3", "rope_freqs.weight", "rope_frecs.weight", "rope_frecs"),
        ("qwen3", "general.architecture", "general.architekture", "(none)"),
        ("qwen3", "qwen3.block_count", "qwen3.logit_scale", "qwen3.logit_scale"),
        ("gemma2", "blk.1.post_ffw_norm.weight", "blk.1.post_ffw_form.weight", "post_ffw_form"),
        ("qwen3", "qwen3.embedding_length", "qwen3.embedding_longth", "embedding_length"),
        (
            "qwen2",
            "qwen2.rope.scaling.type\x08\0\0\0\x04\0\0\0\0\0\0\0yarn",
            "qwen2.rope.scaling.type\x08\0\0\0\x04\0\0\0\0\0\0\0barn",
            "barn",
        ),
    ] {
        let folder = folders().into_iter().find(|(name, _)| name == family).unwrap().1;
        let mut bytes = read(&folder.join("model.gguf"));
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).expect(from);
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        let error = ModelWeights::from_gguf(&Gguf::parse(&bytes).unwrap()).unwrap_err().to_string();
        assert!(error.contains(expect), "{to}: {error}");
    }
}
