//! A run in its folder: `run.json` (what was asked for), `checkpoint.safetensors`, `log.jsonl`, and at its end `student.gguf`.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::adapter;
use super::record::Recorder;
use super::student;
use super::words::FileWords;
use crate::checkpoint::{self, CheckpointError};
use crate::corpus::Corpus;
use crate::ecld::file::{Archive, write_atomically};
use crate::ecld::rounding::Rounding;
use crate::ecld::{EcldError, calibration};
use crate::lora::{Adapters, Lora};
use crate::run_folder::{RunError, RunFolder};
use crate::train::{self, Lesson, TrainConfig, TrainError, Trainer};

/// Why a run cannot begin, go on or end.
#[derive(Debug, thiserror::Error)]
pub enum HealError {
    /// A file is not as it has to be, or options make no sense.
    #[error(transparent)]
    Ecld(#[from] EcldError),
    /// The run's folder, or a step.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// How a student learns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Steps, rows, rates, seed, documents.
    pub train: TrainConfig,
    /// α: L = (1-α)·CE + α·τ²·KL(teacher ‖ student).
    pub alpha: f32,
    /// τ of both sides.
    pub tau: f32,
    /// The teacher's most likely tokens that are kept; all others count as one.
    pub top_k: usize,
    /// The quantiser that matrices are rounded by on their way through the model (straight-through), by its name.
    pub in_loop: Option<String>,
    /// From random weights instead of the file's: what the inherited ones are worth.
    pub random: bool,
    /// Only adapters of these sizes learn (LoRA).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<Adapters>,
    /// Adapters are written as a file of their own instead of being merged. The quantiser then rounds the frozen weights once, as
    /// the file does that the adapters go with, and not what both make together.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep_adapters: bool,
}

/// What a run was begun with: it goes on with the same, or not at all.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Begun {
    options: Options,
    /// FNV-1a of the teacher's file.
    teacher: String,
    /// Sizes of the student.
    student: crate::model::LlamaConfig,
    corpus_seed: u64,
}

/// A student, its teacher, and what they speak about.
#[derive(Debug)]
pub struct Lecture<'a> {
    /// The pruned file.
    pub student: &'a Archive,
    /// The file that it learns from.
    pub teacher: &'a Archive,
    /// What both are asked.
    pub corpus: &'a Corpus,
    /// The student's tokens; see [`Lecture::words`].
    pub words: &'a FileWords,
    /// How.
    pub options: &'a Options,
    /// Folder of what teachers said.
    pub record: &'a Path,
}

/// A run that can begin or go on.
pub struct Course<'a> {
    /// The folder.
    pub folder: RunFolder,
    /// Where the run stands.
    pub trainer: Trainer<'a>,
}

impl std::fmt::Debug for Course<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Course").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl<'a> Lecture<'a> {
    /// The tokens that student and teacher share.
    ///
    /// # Errors
    /// They do not share them, or there is no tokenizer.
    pub fn words(student: &Archive, teacher: &Archive) -> Result<FileWords, EcldError> {
        let (own, other) = (calibration::words(student)?, calibration::words(teacher)?);
        let sizes = [student.plan.config.vocab, teacher.plan.config.vocab];
        if sizes[0] != sizes[1] || own.tokenizer.fingerprint() != other.tokenizer.fingerprint() {
            return Err(EcldError::file(
                &student.path,
                format!(
                    "its tokens ({}) are not those of {} ({}): a student learns from a teacher of the same vocabulary",
                    sizes[0],
                    teacher.path.display(),
                    sizes[1]
                ),
            ));
        }
        Ok(FileWords(own))
    }

    /// The run in the folder `out`, where it stands. `tell` hears how many of how many documents of an epoch the teacher has
    /// read; a raised `stop` ends that.
    ///
    /// # Errors
    /// The run that is there is another one, the student is none that training knows, or a file cannot be read or written.
    pub fn course(
        &self,
        out: &Path,
        device: &Device,
        stop: &'a AtomicBool,
        tell: Box<dyn FnMut(usize, usize) + 'a>,
    ) -> Result<Course<'a>, HealError> {
        let options = self.options;
        if !(0.0..=1.0).contains(&options.alpha) {
            return Err(EcldError::input(format!("alpha {} must be in [0, 1]", options.alpha)).into());
        }
        check_adapters(options)?;
        let mut model = student::load(self.student, device)?;
        let folder = RunFolder::create(out)?;
        let recorder = (options.top_k, options.tau, options.train.len);
        let recorder = Recorder::new(self.teacher, self.record, recorder, stop, tell)?;
        let begun = Begun {
            options: options.clone(),
            teacher: format!("{:016x}", recorder.fingerprint()),
            student: model.config.clone(),
            corpus_seed: self.corpus.seed,
        };
        begin(out, &begun)?;
        let (config, words) = (options.train.clone(), self.words);
        let sizes = model.config.clone();
        let rounding = options.in_loop.as_deref().map(rounding).transpose()?;
        let frozen = rounding.as_ref().filter(|_| options.keep_adapters);
        for (i, weight) in model.weights.iter_mut().enumerate().filter(|_| frozen.is_some()) {
            let [rows, cols] = weight.dims();
            if let Some(rounding) = frozen.filter(|_| rows > 1) {
                *weight = train::round(rounding, i, weight.clone(), [rows, cols], device).map_err(RunError::from)?;
            }
        }
        let start = (!options.random).then_some(model);
        let seed = config.seed;
        let mut trainer = folder.trainer(&sizes, start, config, self.corpus, words, device)?;
        trainer.lesson = Some(Lesson { teacher: Box::new(recorder), alpha: options.alpha, temperature: options.tau });
        trainer.rounding = rounding.filter(|_| !options.keep_adapters);
        if let (Some(adapters), None) = (&options.lora, &trainer.lora) {
            trainer.lora = Some(Lora::fresh(adapters.clone(), &sizes, seed, device));
        }
        Ok(Course { folder, trainer })
    }
}

/// Adapters make sense.
fn check_adapters(options: &Options) -> Result<(), EcldError> {
    let Some(Adapters { rank, alpha, targets }) = &options.lora else {
        return match options.keep_adapters {
            true => Err(EcldError::input("there are no adapters to keep: give them a rank (--lora-rank)")),
            false => Ok(()),
        };
    };
    if *rank == 0 || targets.is_empty() || !(alpha.is_finite() && *alpha > 0.0) {
        let problem = format!("adapters of rank {rank}, alpha {alpha} for {} matrices cannot learn", targets.len());
        return Err(EcldError::input(problem));
    }
    match options.random {
        true => Err(EcldError::input("adapters to random weights that are frozen: leave out --random or --lora-rank")),
        false => Ok(()),
    }
}

/// The quantiser of this name.
fn rounding(name: &str) -> Result<train::Rounding<'static>, EcldError> {
    let rounding: Rounding = name.parse()?;
    Ok(Box::new(move |values: &[f32], cols: usize| {
        rounding.apply(values, cols).map_err(|error| TrainError::Rounding(error.to_string()))
    }))
}

impl Course<'_> {
    /// Writes the file of a run that has come to its end, from its checkpoint: `student.gguf`, or `adapter.gguf` where adapters
    /// are kept.
    ///
    /// # Errors
    /// The checkpoint cannot be read, or the file cannot be written.
    pub fn finish(
        student: &Archive,
        folder: &RunFolder,
        options: &Options,
        out: &Path,
        device: &Device,
    ) -> Result<PathBuf, HealError> {
        let checkpoint = checkpoint::load(&folder.checkpoint_path(), device)?;
        let file = |name: &str| out.join(name);
        match &checkpoint.lora {
            Some(lora) if options.keep_adapters => {
                let file = file("adapter.gguf");
                adapter::save(student, lora, &checkpoint.model.config, &file)?;
                Ok(file)
            }
            lora => {
                let merged =
                    lora.as_ref().map_or_else(|| checkpoint.model.clone(), |lora| lora.merged(&checkpoint.model));
                let file = file("student.gguf");
                student::save(student, &merged, &file)?;
                Ok(file)
            }
        }
    }
}

/// Refuses to go on with a run that was begun otherwise.
fn begin(out: &Path, begun: &Begun) -> Result<(), HealError> {
    let path = out.join("run.json");
    let fail = |problem: String| EcldError::file(&path, problem);
    if path.exists() {
        let text = std::fs::read(&path).map_err(EcldError::io(&path))?;
        let old: Begun = serde_json::from_slice(&text).map_err(|error| fail(error.to_string()))?;
        if old != *begun {
            return Err(fail(
                "the run that is there was begun with another teacher, student or options: name a new folder, or the same as \
                 before"
                    .into(),
            )
            .into());
        }
        return Ok(());
    }
    let json = serde_json::to_string_pretty(begun).map_err(|error| fail(error.to_string()))?;
    Ok(write_atomically(&path, (json + "\n").as_bytes())?)
}
