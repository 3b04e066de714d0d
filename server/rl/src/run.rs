//! The run folder: everything that a training run leaves behind, and what it needs to go on.
//!
//! ```text
//! DIR/config.toml          what was trained, read back by --resume
//!     metrics.jsonl        one line an update
//!     events.out.tfevents.tandem   the same for TensorBoard
//!     references.json      mean rewards to compare with, by name
//!     curves.svg           reward over steps, redrawn with every evaluation
//!     policy.safetensors   the best policy so far, by its evaluation
//!     begin.safetensors    a policy that it begins with, if it does not begin from nothing
//!     checkpoint/          weights, optimiser, worlds and counters of the last good update
//! ```
//! Files appear under their names only when complete: they are written beside and then renamed. So does the checkpoint as a
//! whole, so that its files always are of the same update.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use chart::{Level, Line, LineChart};
use serde::{Deserialize, Serialize};

use super::checkpoint::{read_state, sync_folder, sync_names, write_state, write_whole};
use super::curve::Curve;
use super::error::TrainError;
use super::settings::RunConfig;
use super::tensorboard::EventFile;

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

/// The policy that a run begins with, in its folder.
pub const BEGIN_FILE: &str = "begin.safetensors";

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
            ("eval/best_reward", self.best_reward),
        ];
        let usual = usual.into_iter().filter_map(|(name, value)| Some((name, value?)));
        usual.chain(self.losses.iter().map(|(name, value)| (name.as_str(), *value)))
    }
}

/// An open run folder.
pub struct Run {
    dir: PathBuf,
    metrics: File,
    events: EventFile,
    /// Lines in the file.
    logged: u64,
    /// Mean rewards while exploring, and of evaluations.
    curves: [Curve; 2],
    /// The last line with an evaluation.
    evaluated: Option<Metrics>,
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
/// `progress.json` once more, bit for bit: a best reward that is off by its last digit could decide otherwise what is better.
const PROGRESS_FILE: &str = "progress.cbor";

/// Seconds since 1970, by which TensorBoard can lay out a curve.
fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl Run {
    /// A new run in a folder that holds none.
    ///
    /// # Errors
    /// When there is a run already, or the folder cannot be written.
    pub fn create(dir: &Path, config: &impl RunConfig) -> Result<Self, TrainError> {
        if dir.join(CONFIG_FILE).exists() {
            return Err(TrainError::Exists(dir.to_owned()));
        }
        fs::create_dir_all(dir).map_err(TrainError::at(dir))?;
        let path = dir.join(CONFIG_FILE);
        let text = toml::to_string(config).map_err(|e| TrainError::damaged(&path, e))?;
        write_whole(&path, text.as_bytes())?;
        Self::open_metrics(dir, Progress::default())
    }

    /// Opens a run to go on with it.
    ///
    /// # Errors
    /// When there is no run, or it is damaged.
    pub fn resume<C: RunConfig>(dir: &Path) -> Result<(Self, C), TrainError> {
        let path = dir.join(CONFIG_FILE);
        let text = fs::read_to_string(&path).map_err(TrainError::at(&path))?;
        let config: C = toml::from_str(&text).map_err(|e| TrainError::damaged(&path, e))?;
        config.check().map_err(|e| TrainError::damaged(&path, e))?;
        // Stopped between taking away the old checkpoint and renaming the new one, which is complete then.
        let (checkpoint, beside) = (dir.join("checkpoint"), dir.join("checkpoint.part"));
        if !checkpoint.exists() && beside.join("progress.json").exists() {
            fs::rename(&beside, &checkpoint).map_err(TrainError::at(&checkpoint))?;
        }
        let path = checkpoint.join("progress.json");
        let exact = checkpoint.join(PROGRESS_FILE);
        let progress: Progress = match fs::read_to_string(&path) {
            // Older checkpoints have the JSON alone.
            Ok(_) if exact.exists() => read_state(&exact)?,
            Ok(text) => serde_json::from_str(&text).map_err(|e| TrainError::damaged(&path, e))?,
            // Stopped before the first checkpoint: begin again.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Progress::default(),
            Err(e) => return Err(TrainError::at(&path)(e)),
        };
        let mut run = Self::open_metrics(dir, progress)?;
        run.read_back()?;
        Ok((run, config))
    }

    fn open_metrics(dir: &Path, progress: Progress) -> Result<Self, TrainError> {
        let path = dir.join(METRICS_FILE);
        let metrics = OpenOptions::new().create(true).append(true).open(&path).map_err(TrainError::at(&path))?;
        let path = dir.join(EVENTS);
        // Written anew, so that it ends where the checkpoint does.
        let events = EventFile::create(&path, now_s()).map_err(TrainError::at(&path))?;
        Ok(Self {
            dir: dir.to_owned(),
            metrics,
            events,
            logged: 0,
            curves: Default::default(),
            evaluated: None,
            references: Vec::new(),
            reward_unit: "1/s",
            progress,
            on_update: Box::new(|_: &Metrics| {}),
        })
    }

    /// Reads what was logged up to the checkpoint, line by line: a run may have more of them than memory. What came after it
    /// is taken back, and so is a line that a crash has cut short.
    fn read_back(&mut self) -> Result<(), TrainError> {
        let path = self.dir.join(METRICS_FILE);
        let fail = |error| TrainError::at(&path)(error);
        let mut file = BufReader::new(File::open(&path).map_err(fail)?);
        let (mut kept, mut line) = (0u64, String::new());
        loop {
            line.clear();
            let bytes = file.read_line(&mut line).map_err(fail)?;
            match serde_json::from_str::<Metrics>(&line) {
                Ok(metrics) if line.ends_with('\n') && metrics.global_step <= self.progress.steps => {
                    kept += bytes as u64;
                    self.take_in(&metrics)?;
                }
                _ => break,
            }
        }
        // Not by the handle that appends: not every system lets it cut.
        OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(kept)).map_err(fail)
    }

    /// Everything that follows from a line but the line itself.
    fn take_in(&mut self, metrics: &Metrics) -> Result<(), TrainError> {
        let path = self.dir.join(EVENTS);
        self.events.add(now_s(), metrics.global_step, metrics.scalars()).map_err(TrainError::at(&path))?;
        let [explored, evaluated] = &mut self.curves;
        explored.add(metrics.global_step as f64, metrics.mean_reward);
        self.logged += 1;
        if let Some(reward) = metrics.eval_reward {
            evaluated.add(metrics.global_step as f64, reward);
            self.evaluated = Some(metrics.clone());
        }
        Ok(())
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Updates that were logged so far.
    pub fn logged(&self) -> u64 {
        self.logged
    }

    /// The last update whose policy was evaluated.
    pub fn evaluated(&self) -> Option<&Metrics> {
        self.evaluated.as_ref()
    }

    /// What was logged so far, read from the file.
    #[cfg(test)]
    pub fn history(&self) -> Vec<Metrics> {
        let text = fs::read_to_string(self.dir.join(METRICS_FILE)).expect("metrics");
        text.lines().map(|line| serde_json::from_str(line).expect("a line")).collect()
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
        if self.logged == 0 {
            self.keep_references()?;
        }
        let path = self.dir.join(METRICS_FILE);
        let mut line = serde_json::to_string(&metrics).map_err(|e| TrainError::damaged(&path, e))?;
        line.push('\n');
        self.metrics.write_all(line.as_bytes()).map_err(TrainError::at(&path))?;
        self.take_in(&metrics)?;
        (self.on_update)(&metrics);
        if metrics.eval_reward.is_some() { self.draw() } else { Ok(()) }
    }

    fn keep_references(&self) -> Result<(), TrainError> {
        let path = self.dir.join(REFERENCES_FILE);
        let by_name: BTreeMap<_, _> = self.references.iter().copied().collect();
        let text = serde_json::to_string(&by_name).map_err(|e| TrainError::damaged(&path, e))?;
        write_whole(&path, text.as_bytes())
    }

    fn draw(&self) -> Result<(), TrainError> {
        let [explored, evaluated] = &self.curves;
        let level = |(name, value): &(&'static str, f64)| Level { name: (*name).to_owned(), value: *value };
        let chart = LineChart {
            title: "Mean reward over environment steps".to_owned(),
            x_title: "environment steps (slots)".to_owned(),
            y_title: format!("mean reward of a slot ({})", self.reward_unit),
            lines: vec![
                Line { name: "while exploring".to_owned(), points: explored.points() },
                Line { name: "mean action".to_owned(), points: evaluated.points() },
            ],
            levels: self.references.iter().map(level).collect(),
        };
        write_whole(&self.dir.join(CURVES_FILE), chart.svg().as_bytes())
    }

    /// Keeps a policy file as what the run begins with.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin_with(&self, bytes: &[u8]) -> Result<(), TrainError> {
        write_whole(&self.dir.join(BEGIN_FILE), bytes)
    }

    /// The policy file that the run begins with, if it does not begin from nothing.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn begins_with(&self) -> Result<Option<Vec<u8>>, TrainError> {
        let path = self.dir.join(BEGIN_FILE);
        if path.exists() { fs::read(&path).map(Some).map_err(TrainError::at(&path)) } else { Ok(None) }
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
            fs::remove_dir_all(&beside).map_err(TrainError::at(&beside))?;
        }
        fs::create_dir_all(&beside).map_err(TrainError::at(&beside))?;
        write(&beside)?;
        write_state(&beside.join(PROGRESS_FILE), progress)?;
        // Last: with it the new folder is complete, see `resume`.
        let path = beside.join("progress.json");
        let text = serde_json::to_string(progress).map_err(|e| TrainError::damaged(&path, e))?;
        write_whole(&path, text.as_bytes())?;
        sync_folder(&beside)?;
        if checkpoint.exists() {
            fs::remove_dir_all(&checkpoint).map_err(TrainError::at(&checkpoint))?;
        }
        fs::rename(&beside, &checkpoint).map_err(TrainError::at(&checkpoint))?;
        sync_names(&self.dir);
        self.progress = progress.clone();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::read_state;
    use crate::settings::RunSettings;

    impl RunConfig for RunSettings {
        fn check(&self) -> Result<(), crate::error::ConfigError> {
            Ok(())
        }
    }

    #[test]
    fn a_checkpoint_is_replaced_as_a_whole_or_not_at_all() {
        let dir = tempfile::tempdir().expect("folder");
        let config = RunSettings { seed: 4, ..RunSettings::default() };
        let mut run = Run::create(dir.path(), &config).expect("run");
        let progress = |update| Progress { update, steps: update, ..Progress::default() };
        let save = |run: &mut Run, update: u64| {
            run.checkpoint(&progress(update), |part| write_state(&part.join("numbers"), &(update, 0.1 + 0.2)))
        };
        save(&mut run, 1).expect("saved");
        save(&mut run, 2).expect("saved");
        let broken = run.checkpoint(&progress(3), |part| {
            write_state(&part.join("numbers"), &3)?;
            Err(TrainError::NotFinite { update: 3, what: "loss" })
        });
        assert!(broken.is_err());
        let read = |run: &Run| read_state::<(u64, f64)>(&run.checkpoint_file("numbers"));
        let (run, same) = Run::resume::<RunSettings>(dir.path()).expect("resumed");
        assert_eq!((run.progress.update, same), (2, config));
        assert_eq!(read(&run).expect("state"), (2, 0.1 + 0.2));

        // Stopped just before the last rename.
        fs::remove_dir_all(dir.path().join("checkpoint.part")).expect("removed");
        fs::rename(dir.path().join("checkpoint"), dir.path().join("checkpoint.part")).expect("renamed");
        let (run, _) = Run::resume::<RunSettings>(dir.path()).expect("resumed");
        assert_eq!((run.progress.update, read(&run).expect("state").0), (2, 2));
    }

    #[test]
    fn progress_is_read_back_bit_for_bit() {
        let dir = tempfile::tempdir().expect("folder");
        let mut run = Run::create(dir.path(), &RunSettings::default()).expect("run");
        let mut seed = 1u64;
        for update in 1..200 {
            // xorshift, for mantissas of all kinds.
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let reward = f64::from_bits((seed >> 12) | (1024 << 52));
            let progress =
                Progress { update, best_reward: Some(reward), best_merit: Some(-reward), ..Progress::default() };
            run.checkpoint(&progress, |_| Ok(())).expect("saved");
            assert_eq!(Run::resume::<RunSettings>(dir.path()).expect("resumed").0.progress, progress);
        }
    }

    /// A run of tiny updates writes more of them than memory should hold.
    #[test]
    fn what_was_logged_is_read_back_without_being_kept() {
        let dir = tempfile::tempdir().expect("folder");
        let mut run = Run::create(dir.path(), &RunSettings::default()).expect("run");
        let metrics = |n: u64| Metrics {
            global_step: n,
            mean_reward: n as f64,
            eval_reward: n.is_multiple_of(100).then_some(n as f64),
            losses: BTreeMap::from([("losses/value_loss".to_owned(), 0.5)]),
            ..Metrics::default()
        };
        for n in 1..=3000 {
            run.log(metrics(n)).expect("logged");
        }
        assert!(run.curves[0].points().len() < 3000);
        run.checkpoint(&Progress { update: 2950, steps: 2950, ..Progress::default() }, |_| Ok(())).expect("saved");
        drop(run);
        let path = dir.path().join(METRICS_FILE);
        let torn = fs::read_to_string(&path).expect("lines") + "{\"global_step\":1,";
        fs::write(&path, torn).expect("torn");
        let (mut run, _) = Run::resume::<RunSettings>(dir.path()).expect("resumed");
        assert_eq!((run.logged(), run.evaluated()), (2950, Some(&metrics(2900))));
        for n in 2951..=3000 {
            run.log(metrics(n)).expect("logged");
        }
        let all: Vec<Metrics> = (1..=3000).map(metrics).collect();
        assert!(run.history() == all, "the lines are those of a run that was not interrupted");
        let mut straight = <[Curve; 2]>::default();
        all.iter().for_each(|m| straight[0].add(m.global_step as f64, m.mean_reward));
        assert_eq!(run.curves[0], straight[0], "and so is its curve");
    }

    #[test]
    fn the_event_file_holds_what_the_lines_hold() {
        let dir = tempfile::tempdir().expect("folder");
        let mut run = Run::create(dir.path(), &RunSettings::default()).expect("run");
        let losses = BTreeMap::from([("losses/value_loss".to_owned(), 0.5), ("eval/latency_s".to_owned(), 0.25)]);
        let plain = Metrics { global_step: 8, mean_reward: 1.5, losses: losses.clone(), ..Metrics::default() };
        let evaluated = Metrics {
            global_step: 16,
            eval_reward: Some(2.0),
            eval_ratio: Some(0.75),
            best_reward: Some(2.5),
            ..plain.clone()
        };
        run.log(plain).expect("logged");
        run.log(evaluated).expect("logged");
        let check = |what: &str| {
            let text = fs::read_to_string(dir.path().join(METRICS_FILE)).expect("metrics");
            let lines: Vec<BTreeMap<String, f64>> =
                text.lines().map(|line| serde_json::from_str(line).expect("numbers")).collect();
            let mut events = crate::tensorboard::tests::read(&dir.path().join(EVENTS));
            for ((step, scalars), mut line) in events.drain(..).zip(lines.clone()) {
                assert_eq!(line.remove("global_step"), Some(step as f64), "{what}");
                assert!(scalars.keys().eq(line.keys()), "{what}: {scalars:?} and {line:?}");
                assert!(scalars.values().zip(line.values()).all(|(a, b)| (a - b).abs() < 1e-6), "{what}");
            }
            assert_eq!(crate::tensorboard::tests::read(&dir.path().join(EVENTS)).len(), lines.len(), "{what}");
        };
        check("as logged");
        let progress = Progress { update: 2, steps: 16, ..Progress::default() };
        run.checkpoint(&progress, |_| Ok(())).expect("saved");
        drop(run);
        Run::resume::<RunSettings>(dir.path()).expect("resumed");
        check("as resumed");
    }
}
