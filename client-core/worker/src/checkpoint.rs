//! The files of a safetensors checkpoint, each wherever it lies. Of those with tensors only the headers are read here.

use std::collections::{BTreeMap, BTreeSet};

use super::file::ModelFile;
use client::protocol::engine::StoreAs;
use client::verdict::{LONGEST_HEAD, ModelFootprint};
use engine::EngineError;
use engine::assemble::WeightStream;
use engine::engine::ChatTokenizer;
use engine::files::{Files, ReadAt};
use engine::gguf::GgmlType;
use engine::safetensors::{
    CHAT_TEMPLATE, CONFIG, GENERATION_CONFIG, INDEX, Index, TOKENIZER, TOKENIZER_CONFIG, TensorFile, TokenizerFiles,
    header_bytes, weight_files,
};

/// A checkpoint, none of whose files is missing.
#[derive(Debug)]
pub struct CheckpointFiles {
    /// What is no tensor, by name.
    texts: BTreeMap<String, ModelFile>,
    /// The files with the tensors, in order of name.
    shards: Vec<(String, ModelFile)>,
    store_as: GgmlType,
}

/// What the page calls a storage type, as the engine does.
#[must_use]
pub fn storage(store_as: StoreAs) -> GgmlType {
    match store_as {
        StoreAs::Q8 => GgmlType::Q8_0,
        StoreAs::Q4 => GgmlType::Q4_0,
        StoreAs::F16 => GgmlType::F16,
        StoreAs::F32 => GgmlType::F32,
    }
}

/// The index among these files, where there is one.
///
/// # Errors
/// It is not what it should be, or cannot be read.
pub async fn index(files: &BTreeMap<String, ModelFile>) -> Result<Option<Index>, EngineError> {
    match files.get(INDEX) {
        Some(file) => Index::parse(&all_of(INDEX, file).await?).map(Some),
        None => Ok(None),
    }
}

/// The whole of a file that is no tensor.
///
/// # Errors
/// It is longer than any such file is, or cannot be read.
pub async fn all_of(name: &str, file: &ModelFile) -> Result<Vec<u8>, EngineError> {
    let len = usize::try_from(file.size()).ok().filter(|len| *len <= LONGEST_HEAD);
    let len = len.ok_or_else(|| EngineError::Inconsistent(format!("{name} has more than {LONGEST_HEAD} bytes")))?;
    let bytes = file.read(0, len).await.map_err(EngineError::File)?;
    if bytes.len() < len {
        return Err(EngineError::File(format!("the file {name} became shorter while it was read; choose it again")));
    }
    Ok(bytes)
}

impl CheckpointFiles {
    /// The checkpoint among these files.
    ///
    /// # Errors
    /// One is missing, or the index cannot be read.
    pub async fn among(mut files: BTreeMap<String, ModelFile>, store_as: StoreAs) -> Result<Self, EngineError> {
        let index = index(&files).await?;
        let names: BTreeSet<&str> = files.keys().map(String::as_str).collect();
        let shards = weight_files(&names, index.as_ref())?;
        let shards = shards.into_iter().filter_map(|name| files.remove(&name).map(|file| (name, file))).collect();
        let kept = [CONFIG, TOKENIZER, TOKENIZER_CONFIG, CHAT_TEMPLATE, GENERATION_CONFIG];
        files.retain(|name, _| kept.contains(&name.as_str()));
        Ok(Self { texts: files, shards, store_as: storage(store_as) })
    }

    /// Size of all files that are used, bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.words_bytes() + self.shards.iter().map(|(_, file)| file.size()).sum::<u64>()
    }

    fn words_bytes(&self) -> u64 {
        self.texts.values().map(ModelFile::size).sum()
    }

    /// The file with tensors that has this number.
    #[must_use]
    pub fn shard(&self, number: usize) -> Option<&ModelFile> {
        self.shards.get(number).map(|(_, file)| file)
    }

    async fn text(&self, name: &str) -> Result<Option<Vec<u8>>, EngineError> {
        match self.texts.get(name) {
            Some(file) => all_of(name, file).await.map(Some),
            None => Ok(None),
        }
    }

    /// Tokenizer and chat template.
    ///
    /// # Errors
    /// They cannot be built, or a file cannot be read.
    pub async fn words(&self) -> Result<ChatTokenizer, EngineError> {
        let tokenizer = self.text(TOKENIZER).await?.unwrap_or_default();
        let (tokenizer_config, chat_template) = (self.text(TOKENIZER_CONFIG).await?, self.text(CHAT_TEMPLATE).await?);
        let (generation_config, config) = (self.text(GENERATION_CONFIG).await?, self.text(CONFIG).await?);
        ChatTokenizer::from_files(&TokenizerFiles {
            tokenizer: &tokenizer,
            tokenizer_config: tokenizer_config.as_deref(),
            chat_template: chat_template.as_deref(),
            generation_config: generation_config.as_deref(),
            config: config.as_deref(),
        })
    }

    /// The tensors; `read` reads the files with them.
    ///
    /// # Errors
    /// A header is damaged, or the model is none that the engine runs.
    pub async fn weights<R: ReadAt>(&self, read: R) -> Result<WeightStream<Files<R>>, EngineError> {
        let config = self.text(CONFIG).await?.unwrap_or_default();
        let mut heads = Vec::new();
        for (name, file) in &self.shards {
            let named = |problem: String| EngineError::File(format!("the file {name} cannot be used: {problem}"));
            let first = file.read(0, 8).await.map_err(named)?;
            let len = header_bytes(&first).map_err(|error| named(error.to_string()))?;
            heads.push(file.read(0, len).await.map_err(named)?);
        }
        let mut headers = Vec::new();
        for ((name, file), head) in self.shards.iter().zip(&heads) {
            let header = TensorFile::parse_header(head, file.size());
            headers
                .push(header.map_err(|error| EngineError::File(format!("the file {name} cannot be used: {error}")))?);
        }
        WeightStream::from_safetensors(&config, &headers, read, self.store_as)
    }

    /// What the files tell of the checkpoint called `name`, tensors unread.
    ///
    /// # Errors
    /// As [`weights`](Self::weights).
    pub async fn footprint(&self, name: &str) -> Result<ModelFootprint, EngineError> {
        let nothing: [&[u8]; 0] = [];
        let weights = self.weights(&nothing[..]).await?;
        ModelFootprint::of_checkpoint(name, &weights, self.words_bytes())
    }
}
