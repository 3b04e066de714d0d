//! The run folder: everything that a training run leaves behind, and what it needs to go on.
//!
//! ```text
//! DIR/config.toml          what was trained, read back by --resume
//!     metrics.jsonl        one line an update
//!     events.out.tfevents.tandem   the same for TensorBoard
//!     references.json      mean rewards to compare with, by name
//!     curves.svg           reward over steps, redrawn with every evaluation
//!     policy.safetensors   the best policy so far, by its evaluation
//!     checkpoint/          weights, optimiser, worlds and counters of the last good update
//! ```
//! Files appear under their names only when complete: they are written beside and then renamed. So does the checkpoint as a
//! whole, so that its files always are of the same update.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use policy::PolicyError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::config::{ConfigError, TrainConfig};
use super::tensorboard::EventFile;
use chart::{Level, Line, LineChart, Point};

/// The configuration in a run folder.
pub const CONFIG_FILE: &str = "config.toml";
/// The metrics in a run folder.
pub const METRICS_FILE: &str = "metrics.jsonl";
/// The rewards to compare with in a run folder, there from the first update on.
pub const REFERENCES_FILE: &str = "references.json";
/// The picture in a run folder, there from the first evaluation on.
pub const CURVES_FILE: &str = "curves.svg";
/// The best policy in a run folder, there from the first evaluation on.
pub const POLICY_FILE: &str = "policy.safetensors";

/// Why a training run ended early or did not begin.
#[derive(Debug, Error)]
pub enum TrainError {
    /// The folder could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A run is there already, and resuming it was not asked for.
    #[error("{0} already holds a run; choose another folder, or go on with it by --resume")]
    Exists(PathBuf),
    /// A file of the run cannot be understood.
    #[error("{path} is damaged: {problem}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A hyper-parameter is out of its range.
    #[error("the run's configuration cannot be used: {0}")]
    Config(#[from] ConfigError),
    /// A loss or a gradient stopped being a number.
    #[error(
        "update {update} gave a {what} that is not a number; the last good checkpoint is kept, go on from it by --resume with a lower learning rate"
    )]
    NotANumber {
        /// Update in which it happened.
        update: u64,
        /// What was not a number.
        what: &'static str,
    },
    /// A policy could not be written or evaluated.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// Counters that a checkpoint keeps beside weights and optimiser.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Updates done.
    pub update: u64,
    /// Environment steps done.
    pub steps: u64,
    /// What rewards are multiplied by before learning.
    pub reward_scale: f32,
    /// Mean reward of the best policy so far in its evaluation.
    pub best_reward: Option<f64>,
    /// By what it was the best: its reward, or how far it broke limits that it should not, below 0.
    #[serde(default)]
    pub best_merit: Option<f64>,
    /// Evaluations since then.
    #[serde(default)]
    pub stale_evaluations: u64,
}

/// One line of `metrics.jsonl`, with cleanrl's keys: what every algorithm has, and its own scalars.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Environment steps so far.
    pub global_step: u64,
    /// Mean reward of a slot in this update's rollout, exploration included.
    #[serde(rename = "charts/mean_reward")]
    pub mean_reward: f64,
    /// Learning rate of this update.
    #[serde(rename = "charts/learning_rate")]
    pub learning_rate: f64,
    /// Environment steps a second since the start.
    #[serde(rename = "charts/SPS")]
    pub steps_per_second: f64,
    /// Mean reward of the mean action on the evaluation slots, when evaluated.
    #[serde(rename = "eval/reward", default, skip_serializing_if = "Option::is_none")]
    pub eval_reward: Option<f64>,
    /// The same as a share of the optimum there.
    #[serde(rename = "eval/ratio", default, skip_serializing_if = "Option::is_none")]
    pub eval_ratio: Option<f64>,
    /// That of the best policy so far.
    #[serde(rename = "eval/best_reward", default, skip_serializing_if = "Option::is_none")]
    pub best_reward: Option<f64>,
    /// What the algorithm reports of its learning, under `losses/…` keys; each algorithm's file names its own. An
    /// evaluation adds what else it measured, under `eval/…` keys.
    #[serde(flatten)]
    pub losses: BTreeMap<String, f64>,
}

impl Metrics {
    /// Name and value of all scalars but the step, as in the file.
    pub fn scalars(&self) -> impl Iterator<Item = (&str, f64)> {
        let usual = [
            ("charts/mean_reward", Some(self.mean_reward)),
            ("charts/learning_rate", Some(self.learning_rate)),
            ("charts/SPS", Some(self.steps_per_second)),
            ("eval/reward", self.eval_reward),
            ("eval/ratio", self.eval_ratio),
        ];
        let usual = usual.into_iter().filter_map(|(name, value)| Some((name, value?)));
        usual.chain(self.losses.iter().map(|(name, value)| (name.as_str(), *value)))
    }
}

/// Version of the checkpoints' files.
pub const CHECKPOINT_VERSION: u32 = 1;

/// Writes a part of a checkpoint, as CBOR: unlike JSON it gives every number back bit for bit.
///
/// # Errors
/// When it cannot be written.
pub fn write_state<T: Serialize>(path: &Path, state: &T) -> Result<(), TrainError> {
    let mut bytes = Vec::new();
    ciborium::into_writer(&(CHECKPOINT_VERSION, state), &mut bytes)
        .map_err(|e| TrainError::Damaged { path: path.to_owned(), problem: e.to_string() })?;
    fs::write(path, bytes).map_err(at(path))
}

/// Reads what [`write_state`] wrote.
///
/// # Errors
/// When it cannot be read, or is of another version or another kind.
pub fn read_state<T: DeserializeOwned>(path: &Path) -> Result<T, TrainError> {
    let damaged = |problem: String| TrainError::Damaged { path: path.to_owned(), problem };
    let bytes = fs::read(path).map_err(at(path))?;
    // The version first, so that another version is called that and not broken.
    let (version, state): (u32, ciborium::Value) =
        ciborium::from_reader(bytes.as_slice()).map_err(|e| damaged(e.to_string()))?;
    if version != CHECKPOINT_VERSION {
        let problem = format!("it is of checkpoint version {version}, this build reads {CHECKPOINT_VERSION}");
        return Err(damaged(problem));
    }
    state.deserialized().map_err(|e| damaged(e.to_string()))
}

/// An open run folder.
pub struct Run {
    dir: PathBuf,
    metrics: File,
    events: EventFile,
    history: Vec<Metrics>,
    /// Rewards to compare with in the picture: name and value.
    pub references: Vec<(&'static str, f64)>,
    /// What the rewards in the picture are measured in.
    pub reward_unit: &'static str,
    /// Where the run stood when it was opened; all zero for a new one.
    pub progress: Progress,
    /// Called after every update, to show progress.
    pub on_update: Box<dyn FnMut(&Metrics) + Send>,
}

const EVENTS: &str = "events.out.tfevents.tandem";

/// Seconds since 1970, by which TensorBoard can lay out a curve.
fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> TrainError + '_ {
    |source| TrainError::File { path: path.to_owned(), source }
}

/// Writes a file so that it is there completely or not at all.
///
/// # Errors
/// When it cannot be written.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let beside = path.with_extension("part");
    if let Err(error) = fs::write(&beside, bytes) {
        // Half a file helps nobody, least of all on a full disk.
        let _ = fs::remove_file(&beside);
        return Err(at(&beside)(error));
    }
    fs::rename(&beside, path).map_err(at(path))
}

impl Run {
    /// A new run in a folder that holds none.
    ///
    /// # Errors
    /// When there is a run already, or the folder cannot be written.
    pub fn create(dir: &Path, config: &TrainConfig) -> Result<Self, TrainError> {
        if dir.join(CONFIG_FILE).exists() {
            return Err(TrainError::Exists(dir.to_owned()));
        }
        fs::create_dir_all(dir).map_err(at(dir))?;
        let path = dir.join(CONFIG_FILE);
        let damaged = |e: toml::ser::Error| TrainError::Damaged { path: path.clone(), problem: e.to_string() };
        let text = toml::to_string(config).map_err(damaged)?;
        write_whole(&path, text.as_bytes())?;
        Self::open_metrics(dir, Progress::default(), Vec::new())
    }

    /// Opens a run to go on with it.
    ///
    /// # Errors
    /// When there is no run, or it is damaged.
    pub fn resume(dir: &Path) -> Result<(Self, TrainConfig), TrainError> {
        let path = dir.join(CONFIG_FILE);
        let text = fs::read_to_string(&path).map_err(at(&path))?;
        let damaged = |path: &Path, problem: String| TrainError::Damaged { path: path.to_owned(), problem };
        let config: TrainConfig = toml::from_str(&text).map_err(|e| damaged(&path, e.to_string()))?;
        config.validate().map_err(|e| damaged(&path, e.to_string()))?;
        // Stopped between taking away the old checkpoint and renaming the new one, which is complete then.
        let (checkpoint, beside) = (dir.join("checkpoint"), dir.join("checkpoint.part"));
        if !checkpoint.exists() && beside.join("progress.json").exists() {
            fs::rename(&beside, &checkpoint).map_err(at(&checkpoint))?;
        }
        let path = checkpoint.join("progress.json");
        let progress: Progress = match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).map_err(|e| damaged(&path, e.to_string()))?,
            // Stopped before the first checkpoint: begin again.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Progress::default(),
            Err(e) => return Err(at(&path)(e)),
        };
        let path = dir.join(METRICS_FILE);
        let (mut history, mut kept) = (Vec::new(), String::new());
        if path.exists() {
            for line in BufReader::new(File::open(&path).map_err(at(&path))?).lines() {
                let line = line.map_err(at(&path))?;
                // A line cut short by a crash is dropped, and so is whatever came after the checkpoint.
                match serde_json::from_str::<Metrics>(&line) {
                    Ok(metrics) if metrics.global_step <= progress.steps => {
                        history.push(metrics);
                        kept += &line;
                        kept.push('\n');
                    }
                    _ => break,
                }
            }
        }
        write_whole(&path, kept.as_bytes())?;
        Ok((Self::open_metrics(dir, progress, history)?, config))
    }

    fn open_metrics(dir: &Path, progress: Progress, history: Vec<Metrics>) -> Result<Self, TrainError> {
        let path = dir.join(METRICS_FILE);
        let metrics = OpenOptions::new().create(true).append(true).open(&path).map_err(at(&path))?;
        let path = dir.join(EVENTS);
        // Written anew, so that it ends where the checkpoint does.
        let mut events = EventFile::create(&path, now_s()).map_err(at(&path))?;
        for metrics in &history {
            events.add(now_s(), metrics.global_step, metrics.scalars()).map_err(at(&path))?;
        }
        let (dir, on_update) = (dir.to_owned(), Box::new(|_: &Metrics| {}));
        Ok(Self { dir, metrics, events, history, references: Vec::new(), reward_unit: "1/s", progress, on_update })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What was logged so far.
    pub fn history(&self) -> &[Metrics] {
        &self.history
    }

    /// A file of the checkpoint.
    pub fn checkpoint_file(&self, name: &str) -> PathBuf {
        self.dir.join("checkpoint").join(name)
    }

    /// Logs an update; an evaluation also redraws the curves.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn log(&mut self, metrics: Metrics) -> Result<(), TrainError> {
        if self.history.is_empty() {
            self.keep_references()?;
        }
        let path = self.dir.join(METRICS_FILE);
        let mut line = serde_json::to_string(&metrics)
            .map_err(|e| TrainError::Damaged { path: path.clone(), problem: e.to_string() })?;
        line.push('\n');
        self.metrics.write_all(line.as_bytes()).map_err(at(&path))?;
        let path = self.dir.join(EVENTS);
        self.events.add(now_s(), metrics.global_step, metrics.scalars()).map_err(at(&path))?;
        (self.on_update)(&metrics);
        let evaluated = metrics.eval_reward.is_some();
        self.history.push(metrics);
        if evaluated { self.draw() } else { Ok(()) }
    }

    fn keep_references(&self) -> Result<(), TrainError> {
        let path = self.dir.join(REFERENCES_FILE);
        let by_name: BTreeMap<_, _> = self.references.iter().copied().collect();
        let text = serde_json::to_string(&by_name)
            .map_err(|e| TrainError::Damaged { path: path.clone(), problem: e.to_string() })?;
        write_whole(&path, text.as_bytes())
    }

    fn draw(&self) -> Result<(), TrainError> {
        let point = |step: u64, reward: f64| Point { x: step as f64, y: reward, half_width: 0.0 };
        let train = self.history.iter().map(|m| point(m.global_step, m.mean_reward));
        let eval = self.history.iter().filter_map(|m| Some(point(m.global_step, m.eval_reward?)));
        let level = |(name, value): &(&'static str, f64)| Level { name: (*name).to_owned(), value: *value };
        let chart = LineChart {
            title: "Mean reward over environment steps".to_owned(),
            x_title: "environment steps (slots)".to_owned(),
            y_title: format!("mean reward of a slot ({})", self.reward_unit),
            lines: vec![
                Line { name: "while exploring".to_owned(), points: train.collect() },
                Line { name: "mean action".to_owned(), points: eval.collect() },
            ],
            levels: self.references.iter().map(level).collect(),
        };
        write_whole(&self.dir.join(CURVES_FILE), chart.svg().as_bytes())
    }

    /// Keeps a policy file as the best so far.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_policy(&self, bytes: &[u8]) -> Result<(), TrainError> {
        write_whole(&self.dir.join(POLICY_FILE), bytes)
    }

    /// Replaces the checkpoint by the files that `write` puts into the folder that it is given.
    ///
    /// # Errors
    /// When they cannot be written; the old checkpoint stays then.
    pub fn checkpoint(
        &mut self,
        progress: &Progress,
        write: impl FnOnce(&Path) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        let (checkpoint, beside) = (self.dir.join("checkpoint"), self.dir.join("checkpoint.part"));
        if beside.exists() {
            fs::remove_dir_all(&beside).map_err(at(&beside))?;
        }
        fs::create_dir_all(&beside).map_err(at(&beside))?;
        write(&beside)?;
        // Last: with it the new folder is complete, see `resume`.
        let path = beside.join("progress.json");
        let text = serde_json::to_string(progress)
            .map_err(|e| TrainError::Damaged { path: path.clone(), problem: e.to_string() })?;
        write_whole(&path, text.as_bytes())?;
        if checkpoint.exists() {
            fs::remove_dir_all(&checkpoint).map_err(at(&checkpoint))?;
        }
        fs::rename(&beside, &checkpoint).map_err(at(&checkpoint))?;
        self.progress = progress.clone();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_replaced_as_a_whole_or_not_at_all() {
        let dir = tempfile::tempdir().expect("folder");
        let config = TrainConfig::new(1);
        let mut run = Run::create(dir.path(), &config).expect("run");
        let progress = |update| Progress { update, steps: update, ..Progress::default() };
        let save = |run: &mut Run, update: u64| {
            run.checkpoint(&progress(update), |part| write_state(&part.join("numbers"), &(update, 0.1 + 0.2)))
        };
        save(&mut run, 1).expect("saved");
        save(&mut run, 2).expect("saved");
        let broken = run.checkpoint(&progress(3), |part| {
            write_state(&part.join("numbers"), &3)?;
            Err(TrainError::NotANumber { update: 3, what: "loss" })
        });
        assert!(broken.is_err());
        let read = |run: &Run| read_state::<(u64, f64)>(&run.checkpoint_file("numbers"));
        let (run, same) = Run::resume(dir.path()).expect("resumed");
        assert_eq!((run.progress.update, same), (2, config));
        assert_eq!(read(&run).expect("state"), (2, 0.1 + 0.2));

        // Stopped just before the last rename.
        fs::remove_dir_all(dir.path().join("checkpoint.part")).expect("removed");
        fs::rename(dir.path().join("checkpoint"), dir.path().join("checkpoint.part")).expect("renamed");
        let (run, _) = Run::resume(dir.path()).expect("resumed");
        assert_eq!((run.progress.update, read(&run).expect("state").0), (2, 2));

        let mut foreign = Vec::new();
        ciborium::into_writer(&(CHECKPOINT_VERSION + 1, 0), &mut foreign).expect("bytes");
        for (bytes, said) in [(foreign.as_slice(), "version 2"), (&[0x82, 0x01], "damaged"), (&[], "damaged")] {
            fs::write(run.checkpoint_file("numbers"), bytes).expect("written");
            let error = read(&run).expect_err("refused").to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
