//! Files from recipes, in a folder: what is there already is not made again, what was stopped goes on.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::anatomy::{Importance, Kept};
use super::judge::{Judged, judge};
use super::kin::{Family, Settings};
use super::recipe::{Recipe, Stored};
use super::sources::Training;
use crate::ecld::EcldError;
use crate::ecld::encode::Fit;
use crate::ecld::file::{Archive, Teacher, write_atomically};
use crate::ecld::quantise::{Scheme, quantise};
use crate::heal::HealError;

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
}
