//! What all that is made of one teacher has in common: the teacher, a folder, the settings, and who watches.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::corpus::Corpus;
use crate::ecld::EcldError;
use crate::ecld::file::Archive;
use crate::heal::{FileWords, Options};
use crate::lora::Adapters;

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

impl Family<'_> {
    /// So much more of what was begun is done.
    ///
    /// # Errors
    /// [`EcldError::Stopped`].
    pub(super) fn tick(&self, by: u64) -> Result<(), EcldError> {
        self.watch.advance(by);
        match self.stop.load(std::sync::atomic::Ordering::Relaxed) {
            true => Err(EcldError::Stopped),
            false => Ok(()),
        }
    }
}
