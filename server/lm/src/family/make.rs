//! Files from recipes, in a folder: what is there already is not made again, what was stopped goes on.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::anatomy::{Importance, Kept};
use super::judge::{Judged, judge};
use super::recipe::{Recipe, Source, Stored, Student};
use crate::corpus::Corpus;
use crate::ecld::calibration::{self, Limits};
use crate::ecld::encode::Fit;
use crate::ecld::file::{Archive, Teacher, write_atomically};
use crate::ecld::prune::prune;
use crate::ecld::quantise::{Scheme, quantise};
use crate::ecld::spec::{Model as _, Spec};
use crate::ecld::wishes::Wishes;
use crate::ecld::{EcldError, depth, trial};
use crate::heal::{Course, FileWords, HealError, Lecture, Options};
use crate::lora::Adapters;
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

/// What all variants have in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// How students learn in the first part.
    pub healing: Options,
    /// Steps of the second part, with the quantiser in the loop.
    pub loop_steps: usize,
    /// Adapters of the variant that learns through them alone.
    pub lora: Adapters,
    /// Questions of each sort, and articles.
    pub limit: usize,
    /// Seed of what is asked.
    pub seed: u64,
}

/// Who sees how far it is.
pub trait Watch {
    /// Something begins that has so many parts.
    fn begin(&self, what: &str, total: u64);
    /// So many more of them are done.
    fn advance(&self, by: u64);
    /// Something to be told beside it.
    fn note(&self, text: &str);
}

/// A teacher and a folder for its family.
pub struct Family<'a> {
    /// The file that all others come from.
    pub teacher: &'a Archive,
    /// Where files are made.
    pub work: &'a Path,
    /// What they are taught and asked.
    pub corpus: &'a Corpus,
    /// The teacher's tokens.
    pub words: &'a FileWords,
    /// What all have in common.
    pub settings: &'a Settings,
    /// Where to compute.
    pub device: &'a Device,
    /// Raised by Ctrl-C.
    pub stop: &'a AtomicBool,
    /// Who sees how far it is.
    pub watch: &'a dyn Watch,
}

impl std::fmt::Debug for Family<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Family").field("work", &self.work).finish_non_exhaustive()
    }
}

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

/// A variant that is there and was judged.
#[derive(Debug, Clone, Serialize)]
pub struct Made {
    /// Its file.
    pub path: PathBuf,
    /// Whether its bytes are counted, since no file format has its quantiser.
    pub simulated: bool,
    /// Trainings that it went through.
    pub trained: Vec<Training>,
    /// Blocks, FFN neurons.
    pub sizes: [usize; 2],
    /// What is left of the teacher; `None` where nothing was cut.
    pub kept: Option<Kept>,
    /// What it is worth.
    pub judged: Judged,
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

/// A judgement on disk.
#[derive(Serialize, Deserialize)]
struct OnDisk {
    /// Length and time of the file that was judged.
    file: (u64, u64),
    limit: usize,
    seed: u64,
    judged: Judged,
}

impl Family<'_> {
    /// Makes and judges a variant.
    ///
    /// # Errors
    /// A step fails, or it was told to stop: what was trained so far is kept.
    pub fn make(&self, recipe: &Recipe) -> Result<Made, HealError> {
        let source = self.source(recipe.source)?;
        let (path, bytes) = self.stored(recipe, &source)?;
        let judged = self.judged(recipe, &path, bytes)?;
        let config = Archive::open(&path)?.plan.config;
        let trained = self.trainings(recipe.source)?;
        let kept = match recipe.source.cut() {
            Some(cut) => Some(Kept::of(self.teacher, &Archive::open(&self.pruned(cut)?)?)?),
            None => None,
        };
        Ok(Made { path, simulated: bytes.is_some(), trained, sizes: [config.layers, config.ffn], kept, judged })
    }

    /// What scored how in the teacher.
    ///
    /// # Errors
    /// The teacher cannot be read, or it was told to stop.
    pub fn importance(&self) -> Result<Importance, EcldError> {
        let sequences = self.calibration()?;
        let teacher = Teacher::new(self.teacher, u64::MAX)?;
        self.watch.begin("scores of the teacher's parts", 0);
        Importance::of(&teacher, &sequences, &mut |_| self.tick(0))
    }

    /// What cuts are decided on.
    fn calibration(&self) -> Result<Vec<depth::Scored>, EcldError> {
        let limits = Limits { length: 384.min(self.teacher.plan.config.context), tokens: CALIBRATION };
        calibration::atlas(&self.words.0, self.corpus, self.settings.seed, limits)
    }

    /// The file of a variant's weights.
    fn source(&self, source: Source) -> Result<PathBuf, HealError> {
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
    fn pruned(&self, cut: u32) -> Result<PathBuf, HealError> {
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

    pub(super) fn tick(&self, by: u64) -> Result<(), EcldError> {
        self.watch.advance(by);
        match self.stop.load(std::sync::atomic::Ordering::Relaxed) {
            true => Err(EcldError::Stopped),
            false => Ok(()),
        }
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

    /// The variant's file, and the bytes that it would take where it is simulated.
    fn stored(&self, recipe: &Recipe, source: &Path) -> Result<(PathBuf, Option<u64>), EcldError> {
        let scheme = match recipe.stored {
            Stored::AsIs => return Ok((source.to_owned(), None)),
            Stored::Type(dtype) => {
                Scheme::Blocks { matrices: dtype, embedding: dtype, output: dtype, fit: Fit::Searched }
            }
            Stored::Uniform(bits, group) => Scheme::Uniform { bits, group, fit: Fit::Searched },
        };
        let path = self.work.join(format!("{}.gguf", recipe.id));
        let counted = self.work.join(format!("{}.bytes.json", recipe.id));
        let simulated = matches!(scheme, Scheme::Uniform { .. });
        if path.exists() && (!simulated || counted.exists()) {
            if !simulated {
                return Ok((path, None));
            }
            let text = std::fs::read(&counted).map_err(EcldError::io(&counted))?;
            let bytes = serde_json::from_slice(&text).map_err(|error| EcldError::file(&counted, error))?;
            return Ok((path, Some(bytes)));
        }
        let archive = Archive::open(source)?;
        self.watch.begin(&format!("{}: quantised", recipe.id), archive.tensor_bytes());
        let report = quantise(&archive, scheme, &path, &mut |by| self.tick(by))?;
        if !simulated {
            return Ok((path, None));
        }
        // Codes and scales, and all that is no tensor as it is in the source.
        let codes = (report.bits_per_weight * archive.parameters() as f64 / 8.0).ceil() as u64;
        let bytes = codes + archive.disk.size(0).saturating_sub(archive.tensor_bytes());
        write_atomically(&counted, bytes.to_string().as_bytes())?;
        Ok((path, Some(bytes)))
    }

    fn judged(&self, recipe: &Recipe, path: &Path, bytes: Option<u64>) -> Result<Judged, EcldError> {
        let kept_at = self.work.join(format!("{}.judged.json", recipe.id));
        let Settings { limit, seed, .. } = *self.settings;
        let meta = std::fs::metadata(path).map_err(EcldError::io(path))?;
        let changed = meta.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        let file = (meta.len(), changed.map_or(0, |time| time.as_secs()));
        if let Ok(text) = std::fs::read(&kept_at)
            && let Ok(kept) = serde_json::from_slice::<OnDisk>(&text)
            && (kept.file, kept.limit, kept.seed) == (file, limit, seed)
        {
            return Ok(kept.judged);
        }
        self.watch.begin(&format!("{}: judged", recipe.id), 3 * limit as u64);
        let judged = judge(path, bytes, self.corpus, self.words, (limit, seed), &|| self.watch.advance(1))?;
        let kept = OnDisk { file, limit, seed, judged };
        let json = serde_json::to_vec(&kept).map_err(|error| EcldError::file(&kept_at, error))?;
        write_atomically(&kept_at, &json)?;
        self.tick(0)?;
        Ok(kept.judged)
    }

    /// What the logs say of the trainings that lie behind a source.
    fn trainings(&self, source: Source) -> Result<Vec<Training>, EcldError> {
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
