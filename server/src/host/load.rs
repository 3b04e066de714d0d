//! Reads the full model: a GGUF file, a folder with a Hugging Face checkpoint, or the one that ships with the program.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use client::protocol::manifest::ModelManifest;
use engine::gguf::GgmlType;
use engine::safetensors::{Checkpoint, INDEX, Index, TokenizerFiles, weight_files};
use engine::{Engine, EngineError};
use sha2::{Digest as _, Sha256};

use super::ModelCard;
use crate::catalogue::Named;
use crate::http::files::source::Source;

/// Id of the shipped model that the server runs unless another one is asked for.
pub const SHIPPED: &str = "full";
/// Where `public` lists its models.
const MANIFEST: &str = "models/manifest.json";

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file is missing or cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no model that runs here.
    #[error("{path}: {source}")]
    Engine {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: EngineError,
    },
    /// The folder has weights in no form that is known.
    #[error("{path}: neither a GGUF file nor a folder with config.json, tokenizer.json and model.safetensors")]
    NotAModel {
        /// Which one.
        path: PathBuf,
    },
    /// The program was built without a model.
    #[error("this build carries no model ({why}); name one with --model, or an engine with --upstream")]
    NotShipped {
        /// What is missing.
        why: String,
    },
    /// The shipped file is not the one of the manifest.
    #[error("{file} is damaged: its SHA-256 is not the one in the manifest")]
    Damaged {
        /// Which file.
        file: String,
    },
}

/// Loads a model that a person named.
///
/// # Errors
/// [`LoadError`], naming the file.
pub fn named(named: &Named, public: &Source) -> Result<(Engine, ModelCard), LoadError> {
    match named {
        Named::Shipped(entry) => shipped(public, &entry.id),
        Named::Path(path) => from_path(path),
        Named::Stored(entry, path) => {
            let (engine, card) = from_path(path)?;
            Ok((engine, ModelCard { id: entry.id.clone(), name: entry.name.clone(), ..card }))
        }
    }
}

/// Loads a file or a folder.
///
/// # Errors
/// [`LoadError`], naming the file.
pub fn from_path(path: &Path) -> Result<(Engine, ModelCard), LoadError> {
    let fail = |source| LoadError::Engine { path: path.to_owned(), source };
    let meta = std::fs::metadata(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    let engine = if meta.is_dir() { from_folder(path)? } else { Engine::from_gguf_file(path).map_err(fail)? };
    let stem = if meta.is_dir() { path.file_name() } else { path.file_stem() };
    let id = stem.map_or_else(|| "model".into(), |stem| stem.to_string_lossy().into_owned());
    let info = engine.info();
    let card = ModelCard { id, name: info.name, context_length: Some(info.context), parameters: Some(info.parameters) };
    Ok((engine, card))
}

/// Loads a shipped model.
///
/// # Errors
/// [`LoadError::NotShipped`] when there is none, [`LoadError::Damaged`] when it is not what the manifest says.
pub fn shipped(public: &Source, id: &str) -> Result<(Engine, ModelCard), LoadError> {
    let missing = |what: &str, error: &dyn std::fmt::Display| LoadError::NotShipped { why: format!("{what}: {error}") };
    let manifest = public.read(MANIFEST).map_err(|error| missing(MANIFEST, &error))?;
    let manifest: ModelManifest = serde_json::from_slice(&manifest).map_err(|error| missing(MANIFEST, &error))?;
    let entry = manifest
        .models
        .into_iter()
        .find(|entry| entry.id == id)
        .ok_or_else(|| missing(MANIFEST, &format!("it lists no model {id:?}")))?;
    let file = format!("models/{}", entry.file);
    let bytes = public.read(&file).map_err(|error| missing(&file, &error))?;
    let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if sha256 != entry.sha256 {
        return Err(LoadError::Damaged { file });
    }
    let engine =
        Engine::from_gguf_cpu(&bytes).map_err(|source| LoadError::Engine { path: PathBuf::from(file), source })?;
    let card = ModelCard {
        id: entry.id,
        name: entry.name,
        context_length: Some(engine.info().context),
        parameters: Some(entry.parameters),
    };
    Ok((engine, card))
}

fn from_folder(folder: &Path) -> Result<Engine, LoadError> {
    let optional = |name: &str| match std::fs::read(folder.join(name)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LoadError::Read { path: folder.join(name), source }),
    };
    let (Some(config), Some(tokenizer)) = (optional("config.json")?, optional("tokenizer.json")?) else {
        return Err(LoadError::NotAModel { path: folder.to_owned() });
    };
    let tokenizer_config = optional("tokenizer_config.json")?;
    let chat_template = optional("chat_template.jinja")?;
    let generation_config = optional("generation_config.json")?;
    // The index or the usual name wins over whatever else lies there.
    let list = std::fs::read_dir(folder).map_err(|source| LoadError::Read { path: folder.to_owned(), source })?;
    let names: Vec<String> = list.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let fail = |source| LoadError::Engine { path: folder.to_owned(), source };
    let index = optional(INDEX)?.map(|json| Index::parse(&json)).transpose().map_err(fail)?;
    let files = weight_files(&names, index.as_ref()).map_err(fail)?;
    let shards = files.iter().map(|name| read(&folder.join(name))).collect::<Result<Vec<_>, _>>()?;
    let checkpoint = Checkpoint {
        config: &config,
        words: TokenizerFiles {
            tokenizer: &tokenizer,
            tokenizer_config: tokenizer_config.as_deref(),
            chat_template: chat_template.as_deref(),
            generation_config: generation_config.as_deref(),
            config: Some(&config),
        },
        shards: shards.iter().map(Vec::as_slice).collect(),
        // The server has the memory; what was trained is what answers.
        store_as: GgmlType::F32,
    };
    Engine::from_safetensors_cpu(&checkpoint).map_err(fail)
}

fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    std::fs::read(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })
}
