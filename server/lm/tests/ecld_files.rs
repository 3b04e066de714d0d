//! Real files of every family that the engine runs (tiny checkpoints that `transformers` wrote and computed): the forward
//! pass, cuts against W ⊙ M, quantised files, and what must not be left behind.
// Clippy's leave for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::gguf::{GgmlType, Gguf};
use engine::reference::Reference;
use engine::safetensors::{Checkpoint, TokenizerFiles};
use engine::weights::ModelWeights;
use serde::Deserialize;

use lm::ecld::cut::{Cut, Edit, Keep, Kind, zeroed};
use lm::ecld::encode::Fit;
use lm::ecld::error::EcldError;
use lm::ecld::file::{Archive, Teacher};
use lm::ecld::forward;
use lm::ecld::prune::prune;
use lm::ecld::quantise::{Scheme, quantise};
use lm::ecld::spec::{Block, Model, Spec};
use lm::ecld::trial::Trial;

#[derive(Deserialize)]
struct Golden {
    prompt: Vec<u32>,
    greedy: Vec<u32>,
    logits: Vec<Logits>,
}

#[derive(Deserialize)]
struct Logits {
    position: usize,
    values: Vec<f64>,
}

/// Every checkpoint's folder, and its GGUF file where it has one.
fn sources() -> Vec<(String, PathBuf)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/families");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(top).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let gguf = folders.iter().map(|folder| (format!("{}, GGUF", name(folder)), folder.join("model.gguf")));
    let all: Vec<_> = folders.iter().map(|folder| (name(folder), folder.clone())).chain(gguf).collect();
    all.into_iter().filter(|(_, path)| path.exists()).collect()
}

fn golden(path: &Path) -> Golden {
    let folder = if path.is_dir() { path } else { path.parent().unwrap() };
    serde_json::from_slice(&std::fs::read(folder.join("golden.json")).unwrap()).unwrap()
}

fn no_tick(_: u64) -> Result<(), EcldError> {
    Ok(())
}

/// Greatest difference, in units of the greatest logit.
fn apart(found: &[Vec<f64>], want: &[Vec<f64>]) -> f64 {
    assert_eq!(found.len(), want.len());
    let most = want.iter().flatten().fold(0f64, |most, v| most.max(v.abs()));
    found.iter().flatten().zip(want.iter().flatten()).fold(0f64, |worst, (a, b)| worst.max((a - b).abs())) / most
}

/// What the engine computes with a file.
fn engines_logits(path: &Path, tokens: &[u32]) -> Vec<Vec<f64>> {
    let wide = |weights: &ModelWeights<'_>| {
        let logits = Reference::new(weights).logits(tokens);
        logits.iter().map(|row| row.iter().map(|v| f64::from(*v)).collect()).collect()
    };
    if path.is_dir() {
        let config = std::fs::read(path.join("config.json")).unwrap();
        let shard = std::fs::read(path.join("model.safetensors")).unwrap();
        let (words, store_as) = (TokenizerFiles::default(), GgmlType::F32);
        wide(&Checkpoint { config: &config, words, shards: vec![&shard], store_as }.weights().unwrap())
    } else {
        let bytes = std::fs::read(path).unwrap();
        wide(&ModelWeights::from_gguf(&Gguf::parse(&bytes).unwrap()).unwrap())
    }
}

#[test]
fn every_family_computes_what_transformers_computes() {
    let sources = sources();
    assert!(sources.len() > 18, "{sources:?}");
    for (name, path) in sources {
        let golden = golden(&path);
        let tokens = [golden.prompt, golden.greedy].concat();
        let teacher = Teacher::new(&Archive::open(&path).unwrap(), u64::MAX).unwrap();
        let found = forward::logits(&teacher, &tokens).unwrap();
        for Logits { position, values } in golden.logits {
            let off = found[position].iter().zip(&values).fold(0f64, |worst, (a, b)| worst.max((a - b).abs()));
            assert!(off < 1e-3, "{name} at {position}: {off}");
        }
    }
}

/// W ⊙ M: a file's model with zeros where a cut takes away.
struct Masked<'a> {
    inner: &'a Teacher,
    cut: &'a Cut<'a>,
}

impl Masked<'_> {
    fn mask(&self, kind: Kind, layer: Option<usize>, values: &[f32], cols: usize) -> Vec<f32> {
        let wide: Vec<f64> = values.iter().map(|v| f64::from(*v)).collect();
        zeroed(self.cut.edit(kind, layer).as_ref(), &wide, cols).into_iter().map(|v| v as f32).collect()
    }
}

impl Model<f32> for Masked<'_> {
    fn spec(&self) -> &Spec {
        self.inner.spec()
    }

    fn block(&self, layer: usize) -> Result<Arc<Block<f32>>, EcldError> {
        let block = self.inner.block(layer)?;
        let spec = self.spec();
        let mask = |kind, values: &[f32], cols| self.mask(kind, Some(layer), values, cols);
        let Block { bias, post_norms, .. } = block.as_ref();
        Ok(Arc::new(Block {
            attn_norm: mask(Kind::Norm, &block.attn_norm, 1),
            q: mask(Kind::Query, &block.q, spec.dim),
            k: mask(Kind::KeyValue, &block.k, spec.dim),
            v: mask(Kind::KeyValue, &block.v, spec.dim),
            o: mask(Kind::AttentionOut, &block.o, spec.q_dim()),
            bias: bias.as_ref().map(|[q, k, v]| {
                let (k, v) = (mask(Kind::KeyValueBias, k, 1), mask(Kind::KeyValueBias, v, 1));
                [mask(Kind::QueryBias, q, 1), k, v]
            }),
            head_norms: block.head_norms.clone(),
            ffn_norm: mask(Kind::Norm, &block.ffn_norm, 1),
            gate: mask(Kind::Neuron, &block.gate, spec.dim),
            up: mask(Kind::Neuron, &block.up, spec.dim),
            down: mask(Kind::Down, &block.down, spec.ffn),
            post_norms: post_norms.as_ref().map(|[a, f]| [mask(Kind::Norm, a, 1), mask(Kind::Norm, f, 1)]),
            rotation: block.rotation,
            window: block.window,
        }))
    }

    fn embed(&self, tokens: &[u32]) -> Result<Vec<f32>, EcldError> {
        Ok(self.mask(Kind::Embedding, None, &self.inner.embed(tokens)?, self.spec().dim))
    }

    fn output_norm(&self) -> Result<Vec<f32>, EcldError> {
        Ok(self.mask(Kind::OutputNorm, None, &self.inner.output_norm()?, 1))
    }

    fn head(&self, rows: Range<usize>) -> Result<Vec<f32>, EcldError> {
        Ok(self.mask(Kind::Output, None, &self.inner.head(rows)?, self.spec().dim))
    }
}

/// All but every third.
fn most_of(n: usize) -> Vec<usize> {
    (0..n).filter(|i| i % 3 != 1).collect()
}

/// Cuts of each axis alone, and all together.
fn cuts(spec: &Spec) -> Vec<(&'static str, Keep)> {
    let each = |list: Vec<usize>| Some(vec![list; spec.layers]);
    let neurons = Keep { neurons: each(most_of(spec.ffn)), ..Keep::default() };
    let embed = Keep { embed: Some(most_of(spec.dim)), ..Keep::default() };
    let layers = Keep { layers: Some((1..spec.layers).collect()), ..Keep::default() };
    let mut all = Keep { embed: embed.embed.clone(), ..neurons.clone() };
    let mut cuts = vec![("neurons", neurons), ("channels", embed), ("depth", layers)];
    if spec.kv_heads > 1 {
        all.groups = each((1..spec.kv_heads).collect());
        cuts.push(("groups", Keep { groups: all.groups.clone(), ..Keep::default() }));
    }
    cuts.push(("all", all));
    cuts
}

/// Every axis of every family, in both kinds of files: what is left computes what W ⊙ M computes, in the engine too.
#[test]
fn what_is_left_computes_what_zeros_in_place_compute() {
    let mut refused = Vec::new();
    for (name, path) in sources() {
        let archive = Archive::open(&path).unwrap();
        let teacher = Teacher::new(&archive, u64::MAX).unwrap();
        let tokens = &golden(&path).prompt[..12];
        for (axis, keep) in cuts(teacher.spec()) {
            let dir = tempfile::tempdir().unwrap();
            let out = dir.path().join(if path.is_dir() { "cut" } else { "cut.gguf" });
            let report = match prune(&archive, &keep, &out, true, &mut no_tick) {
                Ok(report) => report,
                Err(error) => {
                    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "{name} {axis}");
                    refused.push(format!("{name} {axis}: {error}"));
                    continue;
                }
            };
            let smaller = Archive::open(&out).unwrap();
            assert_eq!(smaller.parameters(), report.parameters[1], "{name} {axis}");
            assert!(smaller.parameters() < archive.parameters(), "{name} {axis}");
            let mut cut = Cut::new(teacher.spec(), &keep, false).unwrap();
            if teacher.spec().gelu {
                // Masks only: gains are whole in memory.
                cut = cut.for_gemma(0.0);
            }
            let masked = forward::logits(&Masked { inner: &teacher, cut: &cut }, tokens).unwrap();
            let left = forward::logits(&Teacher::new(&smaller, 0).unwrap(), tokens).unwrap();
            let corrected = Cut::new(teacher.spec(), &keep, true).unwrap();
            let trial = forward::logits(&Trial::new(&teacher, &corrected), tokens).unwrap();
            let off = apart(&trial, &masked);
            assert!(off < 1e-4, "{name} {axis} on trial: {off}");
            // Gemma's embeddings are scaled, and rounded to F16 a second time.
            let most = if teacher.spec().gelu && keep.embed.is_some() { 3e-2 } else { 1e-3 };
            let off = apart(&left, &masked);
            assert!(off < most, "{name} {axis}: {off}");
            let off = apart(&engines_logits(&out, tokens), &left);
            assert!(off < 1e-4, "{name} {axis} in the engine: {off}");
        }
    }
    // GGUF has no word for which of SmolLM3's blocks have no positions.
    assert!(refused.iter().all(|r| r.starts_with("smollm3, GGUF depth") && r.contains("place")), "{refused:#?}");
    assert_eq!(refused.len(), 1, "{refused:#?}");
}

#[test]
fn quantised_files_load_and_have_less_error_than_plain_ones() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/families");
    let dir = tempfile::tempdir().unwrap();
    let blocks = |dtype, fit| Scheme::Blocks { matrices: dtype, embedding: dtype, output: dtype, fit };
    for family in ["llama-linear", "qwen2", "gemma2"] {
        let path = top.join(family).join("model.gguf");
        let archive = Archive::open(&path).unwrap();
        let tokens = &golden(&path).prompt[..8];
        let plain = engines_logits(&path, tokens);
        for (scheme, most_nmse) in [
            (blocks(GgmlType::Q8_0, Fit::Searched), 1e-4),
            (blocks(GgmlType::Q4_1, Fit::Searched), 1e-2),
            (blocks(GgmlType::Q4_0, Fit::Searched), 1.5e-2),
            (blocks(GgmlType::Q4_0, Fit::Plain), 1.5e-2),
            (Scheme::Uniform { bits: 8, group: 16, fit: Fit::Searched }, 1e-4),
            (Scheme::Uniform { bits: 3, group: 16, fit: Fit::Searched }, 5e-2),
        ] {
            let out = dir.path().join("quantised.gguf");
            let report = quantise(&archive, scheme, &out, &mut no_tick).unwrap();
            assert!(report.nmse <= report.nmse_plain * (1.0 + 1e-9), "{family} {scheme:?}: {report:?}");
            assert!(report.nmse > 0.0 && report.nmse < most_nmse, "{family} {scheme:?}: {}", report.nmse);
            // Tiny random models make much of little; what matters is that the engine reads the file as it was meant.
            let off = apart(&engines_logits(&out, tokens), &plain);
            assert!(off > 0.0 && (most_nmse > 1e-3 || off < 0.5), "{family} {scheme:?}: {off}");
            assert!(!report.tensors.is_empty() && report.simulated == matches!(scheme, Scheme::Uniform { .. }));
        }
    }
}

/// A checkpoint with one weight that is no number, or cut short, or stopped: the error names file and tensor, nothing is left.
#[test]
fn failures_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/families");
    let source = top.join("llama-linear").join("model.gguf");
    let archive = Archive::open(&source).unwrap();
    let tensor = archive.tensors.iter().find(|tensor| tensor.name == "blk.1.ffn_down.weight").unwrap();
    assert_eq!(tensor.dtype, GgmlType::F16);
    let mut bytes = std::fs::read(&source).unwrap();
    let at = tensor.start as usize + 6;
    bytes[at..at + 2].copy_from_slice(&half::f16::NAN.to_le_bytes());
    let (broken, out) = (dir.path().join("broken.gguf"), dir.path().join("never.gguf"));
    let nothing = |what: &str| {
        let left = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(!left.into_iter().any(|name| name.to_string_lossy().starts_with("never")), "{what}");
    };
    std::fs::write(&broken, &bytes).unwrap();
    let archive = Archive::open(&broken).unwrap();
    let keep = Keep { neurons: Some(vec![(0..8).collect(); archive.plan.config.layers]), ..Keep::default() };
    let q8 = GgmlType::Q8_0;
    let scheme = Scheme::Blocks { matrices: q8, embedding: q8, output: q8, fit: Fit::Plain };
    let errors = [
        quantise(&archive, scheme, &out, &mut no_tick).unwrap_err().to_string(),
        prune(&archive, &keep, &out, true, &mut no_tick).unwrap_err().to_string(),
    ];
    for error in errors {
        assert!(error.contains("broken.gguf") && error.contains("blk.1.ffn_down.weight"), "{error}");
    }
    nothing("NaN");
    std::fs::write(&broken, &bytes[..bytes.len() - 100]).unwrap();
    assert!(Archive::open(&broken).unwrap_err().to_string().contains("cut short"));

    let archive = Archive::open(&source).unwrap();
    let mut heard = 0;
    let stopped = quantise(&archive, scheme, &out, &mut |_| {
        heard += 1;
        if heard > 3 { Err(EcldError::Stopped) } else { Ok(()) }
    });
    assert!(matches!(stopped, Err(EcldError::Stopped)), "{stopped:?}");
    nothing("stopped");

    // A folder: a shard that is missing, a tensor in two shards.
    let folder = dir.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    for entry in std::fs::read_dir(top.join("llama")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    assert!(Archive::open(&folder).is_ok());
    let (first, second) =
        (folder.join("model-00001-of-00002.safetensors"), folder.join("model-00002-of-00002.safetensors"));
    std::fs::copy(&first, &second).unwrap();
    let error = Archive::open(&folder).unwrap_err().to_string();
    assert!(error.contains("it is in") && error.contains("tensor"), "{error}");
    std::fs::remove_file(&second).unwrap();
    let error = Archive::open(&folder).unwrap_err().to_string();
    assert!(error.contains("model-00002-of-00002.safetensors") && error.contains("missing"), "{error}");
    // A width that nothing is cut of leaves the list as it is.
    assert!(Edit { scale: 1.0, ..Edit::default() }.is_nothing());
}
