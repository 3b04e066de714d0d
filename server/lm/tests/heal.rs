//! A cut file learns from the file that it was cut from: weights there and back, what the teacher says, stopped and resumed
//! runs, the quantiser in the loop. On a tiny model with a corpus of 24 lands.
// Clippy's leave for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use engine::gguf::{GgmlType, Gguf, Value};
use lm::batch::{self, Doc, Mix, Words as _};
use lm::checkpoint::values;
use lm::corpus::{self, Corpus};
use lm::ecld::cut::Keep;
use lm::ecld::encode::Fit;
use lm::ecld::file::{Archive, Teacher};
use lm::ecld::forward;
use lm::ecld::prune::prune;
use lm::ecld::quantise::{Scheme, quantise};
use lm::export;
use lm::family::Kept;
use lm::heal::{self, Course, FileWords, Lecture, Options, Recorder};
use lm::lora::{Adapters, Target};
use lm::model::{Llama, LlamaConfig};
use lm::probe::Probe;
use lm::run_folder::{Cadence, News};
use lm::tables::Table;
use lm::tokenizer;
use lm::train::{Distil, TrainConfig, Trainer};
use tokenizers::Tokenizer;

fn tiny_corpus() -> Corpus {
    let rows: String = (0..24).map(|i| format!("Land{i}\tTown{i}\tcoin{}\n", (i * 7) % 24)).collect();
    corpus::generate(&[Table::parse("countries", &format!("name\tcapital\tcurrency\n{rows}")).unwrap()], 5)
}

struct Files {
    folder: tempfile::TempDir,
    corpus: Corpus,
    tokenizer: Tokenizer,
    teacher: PathBuf,
    student: PathBuf,
}

/// A teacher that learned a little, and what is left of it without a block, half of the neurons and some of the channels.
fn files() -> Files {
    let (folder, corpus, device) = (tempfile::tempdir().unwrap(), tiny_corpus(), Device::flex());
    let tokenizer = tokenizer::train(400, &batch::tokenizer_texts(&corpus)).unwrap();
    let model = LlamaConfig {
        vocab: tokenizer.get_vocab_size(true),
        dim: 64,
        layers: 3,
        heads: 4,
        kv_heads: 2,
        own_head_dim: None,
        ffn: 128,
        context: 64,
        rope_theta: 1e4,
        rms_eps: 1e-5,
    };
    let config = TrainConfig { steps: 30, ..options(1).train };
    let fresh = Llama::init(&model, config.seed, &device);
    let mut trainer = Trainer::new(fresh, config, &corpus, &tokenizer, &device);
    for _ in 0..30 {
        trainer.step().unwrap();
    }
    let scheme = export::Scheme { matrices: GgmlType::F32, embedding: GgmlType::F32 };
    let teacher = folder.path().join("teacher.gguf");
    std::fs::write(&teacher, export::gguf(&trainer.model, &tokenizer, "tiny", scheme).unwrap()).unwrap();
    drop(trainer);
    let student = folder.path().join("student.gguf");
    let keep = Keep {
        layers: Some(vec![0, 2]),
        neurons: Some(vec![(0..64).map(|i| 2 * i).collect(); 3]),
        groups: None,
        embed: Some((0..32).collect()),
    };
    prune(&Archive::open(&teacher).unwrap(), &keep, &student, true, &mut |_| Ok(())).unwrap();
    Files { folder, corpus, tokenizer, teacher, student }
}

fn options(steps: usize) -> Options {
    let train = TrainConfig {
        steps,
        rows: 8,
        len: 32,
        warmup: 2,
        mix: Mix::default(),
        pool: Some(2),
        ..TrainConfig::default()
    };
    Options { train, alpha: 0.6, tau: 2.0, top_k: 8, in_loop: None, random: false, lora: None, keep_adapters: false }
}

/// Runs to the end or until `until` steps are done; the losses of what was done, and the file.
fn run(files: &Files, options: &Options, out: &Path, until: usize) -> Result<(Vec<f32>, Option<PathBuf>), String> {
    let (student, teacher) = (Archive::open(&files.student).unwrap(), Archive::open(&files.teacher).unwrap());
    let words = Lecture::words(&student, &teacher).unwrap();
    let record = files.folder.path().join("record");
    let (device, stop) = (Device::flex(), AtomicBool::new(false));
    let (corpus, words) = (&files.corpus, &words);
    let lecture = Lecture { student: &student, teacher: &teacher, corpus, words, options, record: &record };
    let course = lecture.course(out, &device, &stop, Box::new(|_, _| ())).map_err(|error| error.to_string())?;
    let Course { folder, trainer } = course;
    let probe = Probe::new(corpus, words, 20, 7).unwrap();
    let mut losses = Vec::new();
    let cadence = Cadence { checkpoint: 100, probe: 0 };
    let finished = folder.train(trainer, &probe, cadence, &device, &stop, |news| {
        if let News::Step(report) = news {
            losses.push(report.loss);
            if losses.len() == until {
                stop.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        }
    });
    match finished.unwrap() {
        true => Ok((losses, Some(Course::finish(&student, &folder, options, out, &device).unwrap()))),
        false => Ok((losses, None)),
    }
}

#[test]
fn a_files_words_are_those_of_training() {
    let files = files();
    let words =
        Lecture::words(&Archive::open(&files.student).unwrap(), &Archive::open(&files.teacher).unwrap()).unwrap();
    for text in ["What is the capital of Land3?", "Town7, coin2."] {
        assert_eq!(words.prompt(text).unwrap(), files.tokenizer.prompt(text).unwrap());
        assert_eq!(words.ended(text).unwrap(), files.tokenizer.ended(text).unwrap());
    }
}

#[test]
fn weights_go_into_training_and_back() {
    let (files, device) = (files(), Device::flex());
    for path in [&files.teacher, &files.student] {
        let archive = Archive::open(path).unwrap();
        let model = heal::load(&archive, &device).unwrap();
        let again = files.folder.path().join("again.gguf");
        heal::save(&archive, &model, &again).unwrap();
        let back = Archive::open(&again).unwrap();
        let tokens = [1, 9, 30, 2, 7];
        let of = |archive: &Archive| forward::logits(&Teacher::new(archive, u64::MAX).unwrap(), &tokens).unwrap();
        let (want, found) = (of(&archive), of(&back));
        assert_eq!(want, found, "{}", path.display());
        let second = heal::load(&back, &device).unwrap();
        assert_eq!(model.config, second.config);
        for (a, b) in model.weights.iter().zip(&second.weights) {
            assert_eq!(values(a).unwrap(), values(b).unwrap());
        }
    }
    let cut = heal::load(&Archive::open(&files.student).unwrap(), &device).unwrap().config;
    assert_eq!((cut.dim, cut.layers, cut.ffn, cut.head_dim(), cut.own_head_dim), (32, 2, 64, 16, Some(16)));
}

#[test]
fn other_models_are_refused_with_what_they_have() {
    let families = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/families");
    let mut refused = 0;
    for family in std::fs::read_dir(families).unwrap() {
        let path = family.unwrap().path();
        for path in [path.join("model.gguf"), path.clone()] {
            if !path.exists() {
                continue;
            }
            if let Err(error) = heal::load(&Archive::open(&path).unwrap(), &Device::flex()) {
                let told = error.to_string();
                assert!(told.contains("only Llama models") && told.contains(path.to_str().unwrap()), "{told}");
                refused += 1;
            }
        }
    }
    assert!(refused > 10, "{refused}");
}

/// The record of all tokens is the teacher itself; of a few the divergence is never more.
#[test]
fn what_was_written_down_is_what_the_teacher_says() {
    let (files, device, stop) = (files(), Device::flex(), AtomicBool::new(false));
    let teacher = Archive::open(&files.teacher).unwrap();
    let words = Lecture::words(&teacher, &teacher).unwrap();
    let Options { train, alpha, tau, .. } = options(3);
    let student = heal::load(&Archive::open(&files.student).unwrap(), &device).unwrap();
    let first_losses = |k: Option<usize>, alpha: f32| -> Vec<f32> {
        let n = student.weights.len();
        let state = lm::train::OptimState { velocity: vec![None; n], moments: vec![None; n] };
        let at = lm::train::Position::default();
        let mut trainer = Trainer::resume(student.clone(), state, at, train.clone(), &files.corpus, &words, &device);
        match k {
            None => {
                let teacher = heal::load(&teacher, &device).unwrap();
                trainer = trainer.with_teacher(Distil { teacher, alpha, temperature: tau });
            }
            Some(k) => {
                let folder = files.folder.path().join("record");
                let recorder =
                    Recorder::new(&teacher, &folder, (k, tau, train.len), &stop, Box::new(|_, _| ())).unwrap();
                let teacher = Box::new(recorder);
                trainer.lesson = Some(lm::train::Lesson { teacher, alpha, temperature: tau });
            }
        }
        (0..3).map(|_| trainer.step().unwrap().loss).collect()
    };
    let live = first_losses(None, alpha);
    let all = first_losses(Some(10_000), alpha);
    for (live, all) in live.iter().zip(&all) {
        assert!((live - all).abs() < 2e-4 * live, "{live} {all}");
    }
    // Read back from the file that the first run left.
    assert_eq!(all, first_losses(Some(10_000), alpha));
    let (few, whole) = (first_losses(Some(4), 1.0)[0], first_losses(None, 1.0)[0]);
    assert!(few <= whole + 1e-4 && few > 0.2 * whole, "{few} {whole}");
}

#[test]
fn a_run_that_was_stopped_goes_on_to_the_same_curve() {
    let files = files();
    for in_loop in [None, Some("Q4_0".to_owned())] {
        let options = Options { in_loop: in_loop.clone(), ..options(8) };
        let name = |part: &str| files.folder.path().join(format!("{part}-{}", in_loop.is_some()));
        let (whole, file) = run(&files, &options, &name("whole"), usize::MAX).unwrap();
        let (mut losses, none) = run(&files, &options, &name("parts"), 5).unwrap();
        assert!(none.is_none());
        let (rest, other) = run(&files, &options, &name("parts"), usize::MAX).unwrap();
        losses.extend(rest);
        assert_eq!(whole, losses);
        assert_eq!(std::fs::read(file.unwrap()).unwrap(), std::fs::read(other.unwrap()).unwrap());
        let log = std::fs::read_to_string(name("parts").join("log.jsonl")).unwrap();
        assert_eq!(log.lines().filter(|line| line.contains("loss")).count(), 8);
        // Another way to learn is another run.
        let refused = run(&files, &Options { alpha: 0.1, ..options }, &name("parts"), 1).unwrap_err();
        assert!(refused.contains("run.json") && refused.contains("another"), "{refused}");
    }
}

/// With the quantiser in the loop the loss is taken where the quantised file is.
#[test]
fn the_loss_is_that_of_the_quantised_file() {
    let files = files();
    let quantised = files.folder.path().join("q.gguf");
    let q = GgmlType::Q4_0;
    let scheme = Scheme::Blocks { matrices: q, embedding: q, output: q, fit: Fit::Searched };
    quantise(&Archive::open(&files.student).unwrap(), scheme, &quantised, &mut |_| Ok(())).unwrap();
    let looped = Options { in_loop: Some("Q4_0".into()), ..options(1) };
    let (looped, _) = run(&files, &looped, &files.folder.path().join("looped"), 1).unwrap();
    let (exact, _) = run(&files, &options(1), &files.folder.path().join("exact"), 1).unwrap();
    let other = Files { student: quantised, ..files };
    let (of_file, _) = run(&other, &options(1), &other.folder.path().join("file"), 1).unwrap();
    assert!((looped[0] - of_file[0]).abs() < 1e-4 * of_file[0], "{looped:?} {of_file:?}");
    assert!((looped[0] - exact[0]).abs() > 1e-3, "{looped:?} {exact:?}");
}

#[test]
fn distilling_lowers_what_the_student_loses() {
    let files = files();
    let (losses, file) = run(&files, &options(60), &files.folder.path().join("run"), usize::MAX).unwrap();
    assert!(losses[59] < 0.6 * losses[0], "{losses:?}");
    let (before, after) = (mean_nll(&files, &files.student), mean_nll(&files, &file.unwrap()));
    assert!(after < 0.7 * before, "{before} {after}");
}

/// Mean −log p of the answers to what was asked in training.
fn mean_nll(files: &Files, path: &Path) -> f64 {
    let archive = Archive::open(path).unwrap();
    let words: FileWords = Lecture::words(&archive, &archive).unwrap();
    let docs: Vec<Doc> = batch::epoch(&files.corpus, &words, &Mix::default(), 9, 0).unwrap();
    let scored = docs.into_iter().map(|doc| {
        let first = doc.weights.iter().position(|weight| *weight > 0.0).unwrap();
        lm::ecld::depth::Scored::after(doc.ids, first)
    });
    let scored: Vec<_> = scored.collect();
    let teacher = Teacher::new(&archive, u64::MAX).unwrap();
    lm::ecld::depth::rise(&teacher, &scored, &[], &[], &mut |_| Ok(())).unwrap().mean_nll
}

fn adapters(targets: &[Target]) -> Option<Adapters> {
    Some(Adapters { rank: 4, alpha: 8.0, targets: targets.to_vec() })
}

/// Only the matrices that have adapters change, and a run that was stopped goes on to the same file.
#[test]
fn adapters_learn_and_the_rest_is_frozen() {
    let (files, device) = (files(), Device::flex());
    let before = heal::load(&Archive::open(&files.student).unwrap(), &device).unwrap();
    for in_loop in [None, Some("Q4_0".to_owned())] {
        let lora = adapters(&[Target::Q, Target::Down]);
        let options = Options { in_loop: in_loop.clone(), lora, ..options(24) };
        let name = |part: &str| files.folder.path().join(format!("{part}-{}", in_loop.is_some()));
        let (losses, file) = run(&files, &options, &name("whole"), usize::MAX).unwrap();
        let mean = |some: &[f32]| some.iter().sum::<f32>() / some.len() as f32;
        assert!(mean(&losses[18..]) < 0.95 * mean(&losses[..6]), "{losses:?}");
        let after = heal::load(&Archive::open(&file.clone().unwrap()).unwrap(), &device).unwrap();
        for ((name, _), (old, new)) in before.config.layout().iter().zip(before.weights.iter().zip(&after.weights)) {
            let same = values(old).unwrap() == values(new).unwrap();
            assert_eq!(same, !(name.contains("attn_q") || name.contains("ffn_down")), "{name}");
        }
        let (mut first, none) = run(&files, &options, &name("parts"), 5).unwrap();
        assert!(none.is_none());
        let (rest, other) = run(&files, &options, &name("parts"), usize::MAX).unwrap();
        first.extend(rest);
        assert_eq!(losses, first);
        assert_eq!(std::fs::read(file.unwrap()).unwrap(), std::fs::read(other.unwrap()).unwrap());
    }
}

/// A kept adapter, in llama.cpp's layout, merged into the file that it was trained on is the merged student.
#[test]
fn a_kept_adapter_is_the_merged_one() {
    let files = files();
    let lora = adapters(&[Target::K, Target::O, Target::Gate]);
    let merged = Options { lora: lora.clone(), ..options(6) };
    let kept = Options { keep_adapters: true, ..merged.clone() };
    let (_, merged) = run(&files, &merged, &files.folder.path().join("merged"), usize::MAX).unwrap();
    let (_, adapter) = run(&files, &kept, &files.folder.path().join("kept"), usize::MAX).unwrap();
    let (merged, adapter) = (merged.unwrap(), adapter.unwrap());
    assert!(adapter.ends_with("adapter.gguf"));
    let bytes = std::fs::read(&adapter).unwrap();
    let gguf = Gguf::parse(&bytes).unwrap();
    // ggml's order, the inner dimension first: A is [in, r], B is [r, out].
    let dims = |name: &str| gguf.tensor(name).unwrap().0.dims.clone();
    assert_eq!(dims("blk.1.ffn_gate.weight.lora_a"), [32, 4]);
    assert_eq!(dims("blk.1.ffn_gate.weight.lora_b"), [4, 64]);
    assert_eq!(gguf.tensors().len(), 2 * 2 * 3);
    assert_eq!(gguf.get("general.architecture").and_then(Value::as_str), Some("llama"));
    let out = files.folder.path().join("merged-later.gguf");
    let base = Archive::open(&files.student).unwrap();
    assert_eq!(Some(heal::merge(&base, &adapter, &out, &Device::flex()).unwrap()), lora);
    let of = |path: &Path| heal::load(&Archive::open(path).unwrap(), &Device::flex()).unwrap();
    let (now, later) = (of(&merged), of(&out));
    for (now, later) in now.weights.iter().zip(&later.weights) {
        assert_eq!(values(now).unwrap(), values(later).unwrap());
    }
    // Another model, and a file that is no adapter.
    let teacher = Archive::open(&files.teacher).unwrap();
    for (base, adapter, told) in [(&teacher, &adapter, "do not fit"), (&base, &files.student, "no LoRA adapter")] {
        let refused = heal::merge(base, adapter, &out, &Device::flex()).unwrap_err().to_string();
        assert!(refused.contains(told) && refused.contains(adapter.to_str().unwrap()), "{refused}");
    }
}

/// With a quantiser and a kept adapter, the loss is that of the quantised file with the adapter beside it.
#[test]
fn a_kept_adapter_learns_beside_the_quantised_file() {
    let files = files();
    let quantised = files.folder.path().join("q.gguf");
    let q = GgmlType::Q4_0;
    let scheme = Scheme::Blocks { matrices: q, embedding: q, output: q, fit: Fit::Searched };
    quantise(&Archive::open(&files.student).unwrap(), scheme, &quantised, &mut |_| Ok(())).unwrap();
    let lora = adapters(&[Target::V, Target::Up]);
    let kept = Options { in_loop: Some("Q4_0".into()), lora: lora.clone(), keep_adapters: true, ..options(5) };
    let (frozen, _) = run(&files, &kept, &files.folder.path().join("frozen"), usize::MAX).unwrap();
    let other = Files { student: quantised, ..files };
    let plain = Options { lora, ..options(5) };
    let (of_file, _) = run(&other, &plain, &other.folder.path().join("file"), usize::MAX).unwrap();
    for (frozen, of_file) in frozen.iter().zip(&of_file) {
        assert!((frozen - of_file).abs() < 1e-3 * of_file, "{frozen} {of_file}");
    }
}

#[test]
fn adapters_that_cannot_learn_are_refused() {
    let files = files();
    let none = Adapters { rank: 0, ..Adapters::default() };
    for (options, told) in [
        (Options { lora: Some(none), ..options(2) }, "rank 0"),
        (Options { lora: adapters(&[]), ..options(2) }, "0 matrices"),
        (Options { lora: adapters(&[Target::Q]), random: true, ..options(2) }, "random"),
        (Options { keep_adapters: true, ..options(2) }, "no adapters"),
    ] {
        let refused = run(&files, &options, &files.folder.path().join("none"), 1).unwrap_err();
        assert!(refused.contains(told), "{refused}");
    }
}

/// What is left of a teacher is read from the cut file itself; a trained file is none.
#[test]
fn what_was_kept_is_read_from_the_file() {
    let files = files();
    let teacher = Archive::open(&files.teacher).unwrap();
    let cut = files.folder.path().join("cut.gguf");
    let neurons: Vec<Vec<usize>> = (0..3).map(|layer| (0..32).map(|i| 4 * i + layer).collect()).collect();
    let groups = Some(vec![vec![1]; 3]);
    let keep = Keep { layers: Some(vec![1, 2]), neurons: Some(neurons.clone()), groups, embed: None };
    prune(&teacher, &keep, &cut, true, &mut |_| Ok(())).unwrap();
    let kept = Kept::of(&teacher, &Archive::open(&cut).unwrap()).unwrap();
    assert_eq!((kept.layers, kept.neurons), (vec![1, 2], neurons[1..].to_vec()));
    assert_eq!(kept.heads, [[2, 3], [2, 3]]);
    let whole = Kept::of(&teacher, &teacher).unwrap();
    assert_eq!((whole.layers.len(), whole.neurons[0].len(), whole.heads[2].len()), (3, 128, 4));
    let other = Kept::of(&teacher, &Archive::open(&files.student).unwrap()).unwrap_err().to_string();
    assert!(other.contains("none of the teacher's"), "{other}");
}
