//! Reads the full model: a GGUF file, a folder with a Hugging Face checkpoint, or the one that ships with the program.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use client::protocol::manifest::ModelManifest;
use engine::gguf::GgmlType;
use engine::safetensors::{Checkpoint, INDEX, Index, TokenizerFiles, weight_files};
use engine::{Engine, EngineError};
use sha2::{Digest as _, Sha256};

use super::ModelCard;
use super::memory::Room;
use crate::catalogue::Named;
use crate::http::files::source::Source;

/// Id of the shipped model that the server runs unless another one is asked for.
pub const SHIPPED: &str = "full";
/// Longest file of a checkpoint beside its weights, bytes: vocabularies of 260,000 tokens have 33 MB.
const LONGEST_TEXT: u64 = 64 << 20;
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
    /// A folder whose files do not fit into memory.
    #[error(
        "{path}: its files have {:.1} GB and take at least twice as much memory; {:.1} GB are available. A GGUF file of this \
         model takes less",
        *files as f64 / 1e9,
        *available as f64 / 1e9
    )]
    NoMemory {
        /// Which folder.
        path: PathBuf,
        /// Bytes of its weights.
        files: u64,
        /// What there is.
        available: u64,
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

/// Loads a model that a person named, if there is room for it. The shipped ones are small and take any room.
///
/// # Errors
/// [`LoadError`], naming the file.
pub fn named(named: &Named, public: &Source, room: Room) -> Result<(Engine, ModelCard), LoadError> {
    match named {
        Named::Shipped(entry) => shipped(public, &entry.id),
        Named::Path(path) => from_path(path, room),
        Named::Stored(entry, path) => {
            let (engine, card) = from_path(path, room)?;
            Ok((engine, ModelCard { id: entry.id.clone(), name: entry.name.clone(), ..card }))
        }
    }
}

/// Loads a file or a folder, if there is room for it: that is looked at before weights are read.
///
/// # Errors
/// [`LoadError`], naming the file.
pub fn from_path(path: &Path, room: Room) -> Result<(Engine, ModelCard), LoadError> {
    let fail = |source| LoadError::Engine { path: path.to_owned(), source };
    let meta = std::fs::metadata(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    let engine = match meta.is_dir() {
        true => from_folder(path, room)?,
        false => Engine::from_gguf_file_in(path, room.available, room.context).map_err(fail)?,
    };
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

fn from_folder(folder: &Path, room: Room) -> Result<Engine, LoadError> {
    let optional = |name: &str| match read_text(&folder.join(name)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(LoadError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
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
    let sizes = files.iter().map(|name| size(&folder.join(name))).sum::<Result<u64, LoadError>>()?;
    // The files, and what is made of them: single precision, of halves or of singles.
    if let Some(available) = room.available.filter(|available| 2 * sizes > *available) {
        return Err(LoadError::NoMemory { path: folder.to_owned(), files: sizes, available });
    }
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
    Engine::from_safetensors_cpu_in(&checkpoint, room.context).map_err(fail)
}

/// A plain file's size. A pipe would be waited for, and a device has no end.
fn size(path: &Path) -> Result<u64, LoadError> {
    let fail = |source| LoadError::Read { path: path.to_owned(), source };
    let meta = std::fs::metadata(path).map_err(fail)?;
    match meta.is_file() {
        true => Ok(meta.len()),
        false => Err(fail(std::io::Error::other("it is not a plain file"))),
    }
}

/// A file beside the weights, which is not read where it is longer than any of its kind.
fn read_text(path: &Path) -> Result<Vec<u8>, LoadError> {
    if size(path)? > LONGEST_TEXT {
        let source = std::io::Error::other(format!("it has more than {} MiB", LONGEST_TEXT >> 20));
        return Err(LoadError::Read { path: path.to_owned(), source });
    }
    read(path)
}

fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    size(path)?;
    std::fs::read(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shipped model, as if it were somebody's file.
    fn file(folder: &Path) -> PathBuf {
        let path = folder.join("mine.gguf");
        std::fs::write(&path, Source::Embedded.read("models/full.gguf").unwrap()).unwrap();
        path
    }

    #[test]
    fn a_model_without_room_is_refused_before_it_is_read_and_a_context_is_cut_to_what_fits() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path());
        let own = from_path(&path, Room::default()).unwrap().1.context_length.unwrap();
        let error = |room: Room| from_path(&path, room).unwrap_err().to_string();
        let said = error(Room { available: Some(3 << 20), context: None });
        for part in ["mine.gguf", "does not fit into memory", "3.1 MB are available", "weights", "tokens"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        // Room for the model and a short conversation, not for a long one.
        let room = |context| Room { available: Some(24 << 20), context };
        let context = from_path(&path, room(None)).map(|(engine, card)| {
            assert_eq!(Some(engine.info().context), card.context_length);
            engine.info().context
        });
        assert!(context.is_ok_and(|context| context <= own), "{own}");
        let asked = from_path(&path, Room { available: None, context: Some(100) }).unwrap().1.context_length;
        assert_eq!(asked, Some(100));
    }

    /// One has no end, the other is waited for.
    #[cfg(unix)]
    #[test]
    fn devices_and_pipes_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let said = |path: &Path| from_path(path, Room::default()).unwrap_err().to_string();
        let found = said(Path::new("/dev/zero"));
        assert!(found.contains("/dev/zero") && found.contains("not a plain file"), "{found}");
        let pipe = folder.path().join("model.safetensors");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.is_ok_and(|status| status.success()), "mkfifo belongs to every Unix");
        assert!(said(&pipe).contains("not a plain file"));
        for name in ["config.json", "tokenizer.json"] {
            std::fs::write(folder.path().join(name), "{}").unwrap();
        }
        let found = said(folder.path());
        assert!(found.contains("model.safetensors") && found.contains("not a plain file"), "{found}");
    }

    /// Two gigabytes that nobody has written are not read to see that they are no tokenizer.
    #[test]
    fn files_that_are_far_too_long_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), "{}").unwrap();
        std::fs::File::create(folder.path().join("tokenizer.json")).unwrap().set_len(2 << 30).unwrap();
        let found = from_path(folder.path(), Room::default()).unwrap_err().to_string();
        assert!(found.contains("tokenizer.json") && found.contains("more than 64 MiB"), "{found}");
    }

    #[test]
    fn a_folder_without_room_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in [("config.json", "{}"), ("tokenizer.json", "{}"), ("model.safetensors", "0123456789")] {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        let found = from_path(folder.path(), Room { available: Some(19), context: None }).unwrap_err();
        assert!(matches!(found, LoadError::NoMemory { files: 10, available: 19, .. }), "{found}");
        let found = from_path(folder.path(), Room { available: Some(20), context: None }).unwrap_err();
        assert!(matches!(found, LoadError::Engine { .. }), "{found}");
    }
}
