//! A model file that is in no list, as an entry of one: what its own header says.

use std::path::Path;

use client::catalogue::{CatalogueEntry, Licence, Role};
use client::verdict::ModelFootprint;
use engine::EngineError;
use engine::disk::DiskFile;
use engine::gguf::Gguf;
use sha2::{Digest as _, Sha256};

use crate::hub::download::{Stop, hash_into};

/// Longest id.
const MAX_ID: usize = 48;

/// What a GGUF file says of itself, with its checksum: every byte of it is read.
///
/// # Errors
/// It cannot be read, or is no model that the engine runs.
pub fn describe(path: &Path) -> anyhow::Result<CatalogueEntry> {
    let file = DiskFile::open(path)?;
    let head = file.head()?;
    let gguf = Gguf::parse_header(&head, file.size()).map_err(EngineError::from)?;
    // As pages judge it: what is stored twice counts once, and the file's own type is its name.
    let footprint = ModelFootprint::from_gguf(&gguf)?;
    let mut hash = Sha256::new();
    hash_into(&mut hash, &mut std::fs::File::open(path)?, &Stop::default(), &mut |_, _| {})?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(CatalogueEntry {
        id: id(&stem),
        aliases: Vec::new(),
        name: if footprint.name.is_empty() { stem.clone() } else { footprint.name },
        role: Role::Device,
        family: String::new(),
        tokenizer: String::new(),
        parameters: footprint.parameters,
        quantisation: footprint.quantisation,
        file: format!("{}.gguf", id(&stem)),
        repository: None,
        url: None,
        pip: None,
        bytes: Some(file.size()),
        sha256: Some(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
        licence: Licence {
            id: "unknown".to_owned(),
            asks: "Nobody has said what its licence asks.".to_owned(),
            url: String::new(),
        },
        context_length: footprint.context,
        cache_width: u32::try_from(footprint.cache_width).unwrap_or(u32::MAX),
        address: None,
    })
}

/// A name for links, made of a file's.
fn id(stem: &str) -> String {
    let letters = stem.chars().map(|letter| match letter.to_ascii_lowercase() {
        letter @ ('a'..='z' | '0'..='9' | '.') => letter,
        _ => '-',
    });
    let id: String = letters.take(MAX_ID).collect();
    let id = id.trim_matches(['-', '.']);
    if id.is_empty() { "own".to_owned() } else { format!("own-{id}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_tells_what_it_is() {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../public/models/compact.gguf"));
        let entry = describe(path).unwrap();
        let list = crate::catalogue::load(include_bytes!("../../../public/models/catalogue.json"), &[]).unwrap();
        let known = list.find("compact").unwrap();
        assert_eq!((entry.bytes, &entry.sha256), (known.bytes, &known.sha256));
        assert_eq!((entry.parameters, &entry.quantisation), (known.parameters, &known.quantisation));
        assert_eq!((entry.context_length, entry.cache_width), (known.context_length, known.cache_width));
        assert_eq!((entry.id.as_str(), entry.file.as_str()), ("own-compact", "own-compact.gguf"));
        assert!(describe(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))).is_err());
    }

    #[test]
    fn file_names_become_ids() {
        for (stem, expect) in [
            ("SmolLM2-135M-Instruct.Q4_1", "own-smollm2-135m-instruct.q4-1"),
            ("漢字", "own"),
            ("a b", "own-a-b"),
            (&"x".repeat(99), &format!("own-{}", "x".repeat(48))),
        ] {
            assert_eq!(id(stem), expect);
        }
    }
}
