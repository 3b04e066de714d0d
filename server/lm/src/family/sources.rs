//! The weights that variants are made of: the teacher cut, and what was trained.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::kin::Family;
use super::recipe::{Source, Student};
use crate::ecld::calibration::{self, Limits};
use crate::ecld::file::{Archive, Teacher, write_atomically};
use crate::ecld::prune::prune;
use crate::ecld::spec::{Model as _, Spec};
use crate::ecld::wishes::Wishes;
use crate::ecld::{EcldError, depth, trial};
use crate::heal::{Course, HealError, Lecture, Options};
use crate::probe::Probe;
use crate::run_folder::{Cadence, News};

/// Calibration tokens, all of which the rise of the loss is measured on too.
const CALIBRATION: usize = 4096;
/// Steps between checkpoints.
const CHECKPOINT: usize = 50;
/// Splits of a budget that are ranked after a short distillation.
const RANKED: usize = 2;
/// Its steps.
const RANKING_STEPS: usize = 40;
/// What the rates of the second part are of the first's.
const LOOP_RATE: f64 = 0.3;
/// What is added to the seeds of another repetition: the parts of one take neighbouring ones.
const NEXT_SEED: u64 = 1000;

/// What a training took.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Training {
    /// Steps.
    pub steps: usize,
    /// Tokens, those that only fill rows not counted.
    pub tokens: u64,
    /// Time of the steps themselves, seconds.
    pub seconds: f64,
    /// Loss of every step, nats.
    pub losses: Vec<f64>,
}

/// A split of a cut that was ranked.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ranked {
    /// Blocks, FFN neurons.
    pub sizes: [usize; 2],
    /// Mean −log p of the calibration set before any healing, nats.
    pub unhealed: f64,
    /// The same after `steps`.
    pub after: f64,
    /// Steps of the short distillation.
    pub steps: usize,
}

impl Family<'_> {
    /// What cuts are decided on.
    pub(super) fn calibration(&self) -> Result<Vec<depth::Scored>, EcldError> {
        let limits = Limits { length: 384.min(self.teacher.plan.config.context), tokens: CALIBRATION };
        calibration::atlas(&self.words.0, self.corpus, self.settings.seed, limits)
    }

    /// The file of a variant's weights.
    pub(super) fn source(&self, source: Source) -> Result<PathBuf, HealError> {
        let mut options = self.settings.healing.clone();
        let in_all = options.train.steps + self.settings.loop_steps;
        let (student, draw) = match source {
            Source::Teacher => return Ok(self.teacher.path.clone()),
            Source::Pruned(cut) => return self.pruned(cut),
            Source::Healed(Student { cut, random, draw }) => {
                options.random = random;
                (self.pruned(cut)?, draw)
            }
            Source::Looped(student) => {
                options.in_loop = Some("Q4_0".into());
                options.train.steps = self.settings.loop_steps;
                options.train.matrix_lr *= LOOP_RATE;
                options.train.embed_lr *= LOOP_RATE;
                options.train.decay = 1.0;
                // Documents in another order than the first part had them.
                options.train.seed += 1;
                (self.source(Source::Healed(student))?, student.draw)
            }
            Source::Lora(Student { cut, draw, .. }) => {
                options.in_loop = Some("Q4_0".into());
                options.train.steps = in_all;
                options.lora = Some(self.settings.lora.clone());
                (self.pruned(cut)?, draw)
            }
            Source::Trained { bits, group, draw, slow } => {
                options.in_loop = Some(format!("uniform-{bits}-{group}"));
                options.train.steps = in_all;
                if slow {
                    options.train.matrix_lr *= LOOP_RATE;
                    options.train.embed_lr *= LOOP_RATE;
                }
                (self.teacher.path.clone(), draw)
            }
            Source::TrainedOn => {
                options.train.steps = in_all;
                (self.teacher.path.clone(), 0)
            }
        };
        options.train.seed += NEXT_SEED * draw;
        self.trained(&self.folder(source)?, &student, &options)
    }

    /// The folder of a training.
    fn folder(&self, source: Source) -> Result<PathBuf, EcldError> {
        let again = |draw: u64| if draw == 0 { String::new() } else { format!("-s{draw}") };
        let of = |part: &str, Student { cut, random, draw }: Student| {
            format!("{part}{cut}{}{}", if random { "-random" } else { "" }, again(draw))
        };
        let name = match source {
            Source::Teacher | Source::Pruned(_) => return Err(EcldError::input("nothing is trained there")),
            Source::Healed(student) => of("healed", student),
            Source::Looped(student) => of("looped", student),
            Source::Lora(student) => of("lora", student),
            Source::Trained { bits, group, draw, slow } => {
                format!("trained-{bits}-{group}{}{}", if slow { "-slow" } else { "" }, again(draw))
            }
            Source::TrainedOn => "trained-on".into(),
        };
        Ok(self.work.join(name))
    }

    /// The teacher without `cut` percent of its parameters. The best splits by their loss unhealed are ranked again after a
    /// short distillation: what a cut has lost is not what it can win back.
    pub(super) fn pruned(&self, cut: u32) -> Result<PathBuf, HealError> {
        let path = self.work.join(format!("pruned{cut}.gguf"));
        if path.exists() {
            return Ok(path);
        }
        let sequences = self.calibration()?;
        let total = Some(f64::from(cut) / 100.0);
        let wishes = Wishes { total, loss_tokens: CALIBRATION, ..Wishes::default() };
        let teacher = Teacher::new(self.teacher, u64::MAX)?;
        let work = trial::work(teacher.spec(), &sequences, &wishes, &trial::SHARES);
        self.watch.begin(&format!("splits of −{cut} %"), work);
        let mut tick = |by| self.tick(by);
        let splits = trial::search(&teacher, &sequences, &wishes, &trial::SHARES, true, &mut tick)?;
        let (mut ranked, mut told) = (Vec::new(), Vec::new());
        for (place, split) in splits.iter().take(RANKED).enumerate() {
            let candidate = self.work.join(format!("pruned{cut}-{place}.gguf"));
            prune(self.teacher, &split.decided.keep, &candidate, true, &mut |_| self.tick(0))?;
            let mut options = self.settings.healing.clone();
            options.train.steps = RANKING_STEPS;
            let folder = self.work.join(format!("ranking{cut}-{place}"));
            let healed = Archive::open(&self.trained(&folder, &candidate, &options)?)?;
            let healed = Teacher::new(&healed, u64::MAX)?;
            let after = depth::rise(&healed, &sequences, &[], &[], &mut |_| self.tick(0))?.mean_nll;
            self.watch.note(&format!(
                "−{cut} %, {:.2} of it in blocks: mean NLL {:.4}, after {RANKING_STEPS} steps {after:.4}",
                split.depth_share, split.mean_nll
            ));
            let Spec { layers, ffn, .. } = *healed.spec();
            told.push(Ranked { sizes: [layers, ffn], unhealed: split.mean_nll, after, steps: RANKING_STEPS });
            ranked.push((after, candidate));
        }
        told.sort_by(|left, right| left.after.total_cmp(&right.after));
        let kept_at = self.rankings(cut);
        let json = serde_json::to_vec(&told).map_err(|error| EcldError::file(&kept_at, error))?;
        write_atomically(&kept_at, &json)?;
        ranked.sort_by(|left, right| left.0.total_cmp(&right.0));
        let (_, best) = ranked.first().ok_or_else(|| EcldError::input("no split of the budget can be made"))?;
        std::fs::rename(best, &path).map_err(EcldError::io(best))?;
        Ok(path)
    }

    /// The splits of a cut that were ranked after a short distillation, the one that was taken first; none where that is not
    /// known any more.
    pub fn ranking(&self, cut: u32) -> Vec<Ranked> {
        let text = std::fs::read(self.rankings(cut)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn rankings(&self, cut: u32) -> PathBuf {
        self.work.join(format!("pruned{cut}.ranking.json"))
    }

    /// Trains to the end, or goes on to it.
    fn trained(&self, out: &Path, student: &Path, options: &Options) -> Result<PathBuf, HealError> {
        let file = out.join("student.gguf");
        if file.exists() {
            return Ok(file);
        }
        let student = Archive::open(student)?;
        let record = self.work.join("record");
        let lecture = Lecture {
            student: &student,
            teacher: self.teacher,
            corpus: self.corpus,
            words: self.words,
            options,
            record: &record,
        };
        let name = out.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let told = name.clone();
        let tell = Box::new(move |read: usize, of: usize| {
            if read == of {
                self.watch.note(&format!("{told}: the teacher has read {of} documents"));
            }
        });
        let Course { folder, trainer } = lecture.course(out, self.device, self.stop, tell)?;
        let probe = Probe::new(self.corpus, self.words, 400, 7).map_err(crate::run_folder::RunError::from)?;
        self.watch.begin(&name, options.train.steps as u64);
        self.watch.advance(trainer.position.step as u64);
        let cadence = Cadence { checkpoint: CHECKPOINT, probe: 0 };
        let finished = folder.train(trainer, &probe, cadence, self.device, self.stop, |news| match news {
            News::Step(_) => self.watch.advance(1),
            News::Probe(step, exact) => self.watch.note(&format!(
                "{name}, step {step}: exact answers {:.3}, two-hop {:.3}",
                exact.single_hop, exact.two_hop
            )),
        })?;
        if !finished {
            return Err(EcldError::Stopped.into());
        }
        Course::finish(&student, &folder, options, out, self.device)
    }

    /// What the logs say of the trainings that lie behind a source.
    pub(super) fn trainings(&self, source: Source) -> Result<Vec<Training>, EcldError> {
        let before = match source {
            Source::Looped(student) => self.trainings(Source::Healed(student))?,
            _ => Vec::new(),
        };
        let Ok(folder) = self.folder(source) else { return Ok(before) };
        let path = folder.join("log.jsonl");
        let text = std::fs::read_to_string(&path).map_err(EcldError::io(&path))?;
        let mut training = Training::default();
        for line in text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()) {
            let Some(loss) = line.get("loss").and_then(serde_json::Value::as_f64) else { continue };
            training.steps += 1;
            training.losses.push(loss);
            training.tokens += line.get("tokens").and_then(serde_json::Value::as_u64).unwrap_or(0);
            let seconds = line.get("seconds").and_then(serde_json::Value::as_array);
            training.seconds += seconds.into_iter().flatten().filter_map(serde_json::Value::as_f64).sum::<f64>();
        }
        Ok(before.into_iter().chain([training]).collect())
    }
}
