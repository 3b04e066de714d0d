//! The folder of a training run: `tokenizer.json`, `checkpoint.safetensors`, `log.jsonl`; and training in it, from the
//! beginning or from where its checkpoint stands.
//!
//! Deliberately absent: what a person sees meanwhile. [`RunFolder::train`] tells its caller.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::tensor::Device;
use tokenizers::Tokenizer;

use super::batch::{self, Words};
use super::checkpoint::{self, CheckpointError, Meta};
use super::corpus::{self, Corpus};
use super::model::{Llama, LlamaConfig};
use super::probe::{Exact, Probe};
use super::tables::{self, TableError};
use super::tokenizer::{self, TokenizerError};
use super::train::{StepReport, TrainConfig, TrainError, Trainer};

/// Why a run cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// File system.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The folder's tokenizer cannot be read or written.
    #[error("{}: {why}", path.display())]
    TokenizerFile {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The run that is there is another one.
    #[error("the run in {} has another {what}: name a new folder, or the same options as before", path.display())]
    Other {
        /// The folder.
        path: PathBuf,
        /// What differs.
        what: &'static str,
    },
    /// A fact table is malformed.
    #[error(transparent)]
    Tables(#[from] TableError),
    /// The tokenizer cannot be trained.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A step failed.
    #[error(transparent)]
    Train(#[from] TrainError),
}

/// Every how many steps something happens; at the last step it happens in any case.
#[derive(Debug, Clone, Copy)]
pub struct Cadence {
    /// A checkpoint is written.
    pub checkpoint: usize,
    /// Accuracy is probed.
    pub probe: usize,
}

impl Cadence {
    fn due(every: usize, step: usize, last: bool) -> bool {
        last || (every > 0 && step.is_multiple_of(every))
    }
}

/// What a training tells on its way.
#[derive(Debug)]
pub enum News {
    /// A step was done.
    Step(StepReport),
    /// Accuracy after so many steps.
    Probe(usize, Exact),
}

/// A folder with a run in it, or for one.
#[derive(Debug, Clone)]
pub struct RunFolder(PathBuf);

impl RunFolder {
    /// Makes the folder if it is not there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(path: &Path) -> Result<Self, RunError> {
        std::fs::create_dir_all(path).map_err(|source| RunError::Io { what: "make", path: path.to_owned(), source })?;
        Ok(Self(path.to_owned()))
    }

    /// Takes over the tokenizer of another run's folder, as a student does from its teacher.
    ///
    /// # Errors
    /// It cannot be copied.
    pub fn take_tokenizer(&self, from: &Path) -> Result<(), RunError> {
        let from = from.join("tokenizer.json");
        let copied = std::fs::copy(&from, self.tokenizer_path());
        copied.map(drop).map_err(|source| RunError::Io { what: "copy", path: from, source })
    }

    /// The corpus of `seed`, from the tables in a folder or from those that ship, and this run's tokenizer, which is
    /// trained for a vocabulary of `vocab` tokens and saved if it is not there yet.
    ///
    /// # Errors
    /// A table is malformed, or a file cannot be read or written.
    pub fn corpus_and_tokenizer(
        &self,
        tables_folder: Option<&Path>,
        seed: u64,
        vocab: usize,
    ) -> Result<(Corpus, Tokenizer), RunError> {
        let tables = match tables_folder {
            Some(folder) => tables::from_dir(folder)?,
            None => tables::embedded()?,
        };
        let corpus = corpus::generate(&tables, seed);
        let path = self.tokenizer_path();
        let failed = |error: tokenizers::Error| RunError::TokenizerFile { path: path.clone(), why: error.to_string() };
        let tokenizer = if path.exists() {
            Tokenizer::from_file(&path).map_err(failed)?
        } else {
            let trained = tokenizer::train(vocab, &batch::tokenizer_texts(&corpus))?;
            trained.save(&path, false).map_err(failed)?;
            trained
        };
        Ok((corpus, tokenizer))
    }

    /// A trainer where this run's checkpoint stands; where there is none, at the beginning, with the weights of `start` or
    /// fresh ones.
    ///
    /// # Errors
    /// The checkpoint cannot be read, or is of another model or corpus.
    pub fn trainer<'a>(
        &self,
        model: &LlamaConfig,
        start: Option<Llama>,
        config: TrainConfig,
        corpus: &'a Corpus,
        tokenizer: &'a dyn Words,
        device: &Device,
    ) -> Result<Trainer<'a>, RunError> {
        let path = self.checkpoint_path();
        if !path.exists() {
            let model = start.unwrap_or_else(|| Llama::init(model, config.seed, device));
            return Ok(Trainer::new(model, config, corpus, tokenizer, device));
        }
        let found = checkpoint::load(&path, device)?;
        let other = |what| Err(RunError::Other { path: self.0.clone(), what });
        if found.meta.model != *model {
            return other("size of model");
        }
        if found.meta.corpus_seed != corpus.seed {
            return other("corpus");
        }
        let at = found.meta.position;
        let mut trainer = Trainer::resume(found.model, found.state, at, config, corpus, tokenizer, device);
        trainer.lora = found.lora;
        Ok(trainer)
    }

    /// Trains to the last step, or until `stop` is raised, with log and checkpoints. Returns whether it came to the end.
    ///
    /// # Errors
    /// A file cannot be written, or a step fails.
    pub fn train(
        &self,
        mut trainer: Trainer<'_>,
        probe: &Probe,
        cadence: Cadence,
        device: &Device,
        stop: &AtomicBool,
        mut tell: impl FnMut(News),
    ) -> Result<bool, RunError> {
        self.cut_log(trainer.position.step)?;
        let log_path = self.0.join("log.jsonl");
        let failed = |source| RunError::Io { what: "write", path: log_path.clone(), source };
        let mut log = OpenOptions::new().create(true).append(true).open(&log_path).map_err(failed)?;
        let line = |log: &mut File, value: serde_json::Value| writeln!(log, "{value}").map_err(failed);
        let (start, mut tokens) = (Instant::now(), 0);
        while trainer.position.step < trainer.config.steps {
            if stop.load(Ordering::Relaxed) {
                self.save(&trainer)?;
                return Ok(false);
            }
            let report = match trainer.step() {
                Ok(report) => report,
                // What a step waited for was given up; nothing of the step was done.
                Err(_) if stop.load(Ordering::Relaxed) => {
                    self.save(&trainer)?;
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            };
            let (step, last) = (report.step, report.step == trainer.config.steps);
            tokens += report.tokens;
            line(
                &mut log,
                serde_json::json!({
                    "step": step, "epoch": report.epoch, "loss": report.loss, "tokens": report.tokens,
                    "lr": report.rate * trainer.config.matrix_lr,
                    "tokens_per_s": tokens as f64 / start.elapsed().as_secs_f64(), "seconds": report.seconds,
                }),
            )?;
            tell(News::Step(report));
            if Cadence::due(cadence.probe, step, last) {
                let exact = probe.run(&trainer.merged(), device)?;
                line(&mut log, serde_json::json!({"step": step, "exact": exact}))?;
                tell(News::Probe(step, exact));
            }
            if Cadence::due(cadence.checkpoint, step, last) {
                self.save(&trainer)?;
            }
        }
        Ok(true)
    }

    /// The log up to the step where a run goes on: what came after its last checkpoint is done again.
    fn cut_log(&self, step: usize) -> Result<(), RunError> {
        let path = self.0.join("log.jsonl");
        let failed = |what| {
            let path = path.clone();
            move |source| RunError::Io { what, path, source }
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed("read")(error)),
        };
        let of =
            |line: &str| -> Option<u64> { serde_json::from_str::<serde_json::Value>(line).ok()?.get("step")?.as_u64() };
        let kept: Vec<&str> = text.lines().filter(|line| of(line).is_some_and(|at| at <= step as u64)).collect();
        if kept.len() < text.lines().count() {
            let kept: String = kept.iter().map(|line| format!("{line}\n")).collect();
            std::fs::write(&path, kept).map_err(failed("write"))?;
        }
        Ok(())
    }

    fn save(&self, trainer: &Trainer<'_>) -> Result<(), RunError> {
        let meta = Meta {
            model: trainer.model.config.clone(),
            train: trainer.config.clone(),
            position: trainer.position,
            corpus_seed: trainer.corpus_seed(),
            lora: trainer.lora.as_ref().map(|lora| lora.settings.clone()),
        };
        let lora = trainer.lora.as_ref();
        Ok(checkpoint::save(&self.checkpoint_path(), &meta, &trainer.model, &trainer.state, lora)?)
    }

    fn tokenizer_path(&self) -> PathBuf {
        self.0.join("tokenizer.json")
    }

    /// Where the checkpoint of this run is, once there is one.
    pub fn checkpoint_path(&self) -> PathBuf {
        self.0.join("checkpoint.safetensors")
    }
}
