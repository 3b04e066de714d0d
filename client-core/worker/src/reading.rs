//! A model on its way into an engine: one file or a checkpoint's, read piece by piece.

use std::cell::Cell;
use std::rc::Rc;

use async_trait::async_trait;

use super::checkpoint::CheckpointFiles;
use super::file::ModelFile;
use client::offload::signal::StopFlag;
use engine::EngineError;
use engine::assemble::WeightStream;
use engine::engine::ChatTokenizer;
use engine::files::{Files, ReadAt};
use engine::gguf::Gguf;
use engine::parts::Weights;

/// What a model is made of.
#[derive(Clone, Debug)]
pub enum ModelFiles {
    /// Everything in one file.
    Gguf(ModelFile),
    /// The files of a Hugging Face checkpoint.
    Checkpoint(Rc<CheckpointFiles>),
}

impl ModelFiles {
    /// The file with the tensors that has this number.
    fn file(&self, number: usize) -> Option<&ModelFile> {
        match self {
            Self::Gguf(file) => Some(file).filter(|_| number == 0),
            Self::Checkpoint(files) => files.shard(number),
        }
    }
}

/// A model on its way into an engine, which asks for it piece by piece. Each piece may be the last: a load can be stopped.
pub struct Reading<'a> {
    /// What is read.
    pub files: &'a ModelFiles,
    /// Ends it.
    pub stop: &'a StopFlag,
    /// Told the bytes that have been read and those that will be.
    pub progress: &'a dyn Fn(u64, u64),
    /// The same numbers.
    count: Cell<(u64, u64)>,
}

impl std::fmt::Debug for Reading<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reading").field("count", &self.count.get()).finish_non_exhaustive()
    }
}

impl<'a> Reading<'a> {
    /// Of nothing yet.
    pub fn new(files: &'a ModelFiles, stop: &'a StopFlag, progress: &'a dyn Fn(u64, u64)) -> Self {
        Self { files, stop, progress, count: Cell::default() }
    }

    /// What the model needs beside its tensors, and these, of which nothing has been read. Progress begins anew.
    ///
    /// # Errors
    /// A file is damaged, is no model that the engine runs, or cannot be read.
    pub async fn open(&self) -> Result<(ChatTokenizer, WeightStream<Files<&Self>>), EngineError> {
        self.count.set((0, 0));
        let (words, weights, total) = match self.files {
            ModelFiles::Gguf(file) => {
                // It goes before the weights come.
                let head = file.head().await.map_err(EngineError::File)?;
                let gguf = Gguf::parse_header(&head, file.size())?;
                let (words, weights) = (ChatTokenizer::from_gguf(&gguf)?, WeightStream::from_gguf(&gguf, self).await?);
                let total = weights.totals()?.bytes;
                (words, weights, total)
            }
            ModelFiles::Checkpoint(files) => {
                let (words, weights) = (files.words().await?, files.weights(self).await?);
                let total = weights.bytes_to_read()?;
                (words, weights, total)
            }
        };
        self.count.set((0, total));
        Ok((words, weights))
    }
}

#[async_trait(?Send)]
impl ReadAt for Reading<'_> {
    async fn read(&self, file: usize, start: u64, len: usize) -> Result<Vec<u8>, EngineError> {
        if self.stop.is_stopped() {
            return Err(EngineError::File("the load was stopped".to_owned()));
        }
        let file = self.files.file(file).ok_or_else(|| EngineError::Inconsistent("a model file is missing".into()))?;
        let bytes = file.read(start, len).await.map_err(EngineError::File)?;
        if bytes.len() < len {
            let problem = "the file became shorter while it was read; choose it again";
            return Err(EngineError::File(problem.to_owned()));
        }
        let (read, total) = self.count.get();
        let read = read + len as u64;
        self.count.set((read, total));
        (self.progress)(read.min(total), total);
        Ok(bytes)
    }
}
