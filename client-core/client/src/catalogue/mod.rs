//! `/models/catalogue.json`: open models that people run on devices and on servers, and where their files are.
//!
//! The file in `public/models` is the one list that page, command line and server read; a person's own file of the same form
//! adds to it ([`Catalogue::extend`]). What the server answers at that address also says where each file can be had at this
//! moment ([`CatalogueEntry::address`]).

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::download::is_sha256;
use crate::protocol::manifest::{Accuracy, ModelEntry, ModelManifest};
use crate::verdict::{SINGLE_PARAMETERS, cache_bytes, is_exact_on_cpu};

/// The format's version.
pub const VERSION: u32 = 1;
/// Most models in a catalogue.
const MAX_MODELS: usize = 512;

/// `models/catalogue.json`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Catalogue {
    /// [`VERSION`]
    pub version: u32,
    /// Address of the hub that the repositories are on, without a slash at the end.
    #[serde(default)]
    pub hub: String,
    /// Id of the model that pages are to load by themselves; only in what a server answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The models; within a family the smaller ones first.
    pub models: Vec<CatalogueEntry>,
}

/// One model, as one file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CatalogueEntry {
    /// What it is called on command lines and in links.
    pub id: String,
    /// Other names for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Name for people.
    pub name: String,
    /// What it is used for.
    pub role: Role,
    /// Whose model it is, and of which generation.
    pub family: String,
    /// Models with the same word cut plain text into the same tokens.
    pub tokenizer: String,
    /// Number of trained parameters; tied matrices count once.
    pub parameters: u64,
    /// `Q4_0`, `Q8_0`, …
    pub quantisation: String,
    /// Name of the file, in the repository too.
    pub file: String,
    /// `organisation/repository` of the hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// Where the file is, where it is not on the hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// A Python package that carries the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pip: Option<PipPackage>,
    /// Size of the file in bytes, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Lower-case hex SHA-256 of the file, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// What the file may be used for.
    pub licence: Licence,
    /// Longest prompt plus answer, in tokens.
    pub context_length: u32,
    /// Numbers that the KV cache holds for a token, over all layers.
    pub cache_width: u32,
    /// Where a page gets the file: relative to the catalogue, or absolute. Only in what a server answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// What a model is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Small enough for a browser's tab.
    Device,
    /// Too large for most of them.
    Server,
    /// Either.
    Both,
}

impl Role {
    /// As the file has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Server => "server",
            Self::Both => "both",
        }
    }
}

/// A wheel with the file in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipPackage {
    /// The package's name.
    pub package: String,
    /// The version that has this very file.
    pub version: String,
}

/// What a model's file may be used for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Licence {
    /// Its short name, an SPDX id where there is one.
    pub id: String,
    /// What it asks of whoever uses the file, in a sentence.
    pub asks: String,
    /// Its text.
    pub url: String,
}

/// Why a list is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogueError(String);

impl fmt::Display for CatalogueError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for CatalogueError {}

impl Catalogue {
    /// Reads a catalogue.
    ///
    /// # Errors
    /// It is not in this form; says where and what.
    pub fn parse(json: &[u8]) -> Result<Self, CatalogueError> {
        let catalogue: Self = serde_json::from_slice(json).map_err(|error| CatalogueError(error.to_string()))?;
        if catalogue.version != VERSION {
            let version = catalogue.version;
            return Err(CatalogueError(format!("it has version {version}, and this program reads {VERSION}")));
        }
        catalogue.check()?;
        Ok(catalogue)
    }

    fn check(&self) -> Result<(), CatalogueError> {
        let wrong = |id: &str, what: &str| Err(CatalogueError(format!("model {id:?}: {what}")));
        if self.models.len() > MAX_MODELS {
            return Err(CatalogueError(format!("it has more than {MAX_MODELS} models")));
        }
        let mut names = BTreeSet::new();
        for model in &self.models {
            let id = &model.id;
            for name in std::iter::once(id).chain(&model.aliases) {
                if !is_word(name) {
                    return wrong(id, "names are made of lower-case letters, digits, dots and dashes");
                }
                if !names.insert(name) {
                    return wrong(id, &format!("the name {name:?} is given twice"));
                }
            }
            if !is_file_name(&model.file) || !model.file.ends_with(".gguf") {
                return wrong(id, "'file' has to be the name of a .gguf file, without folders");
            }
            let is_repository = |text: &String| text.split('/').count() == 2 && text.split('/').all(is_file_name);
            if !model.repository.as_ref().is_none_or(is_repository) {
                return wrong(id, "'repository' has to be organisation/repository");
            }
            let is_address = |url: &String| url.starts_with("https://") || url.starts_with("http://");
            if !model.url.as_ref().is_none_or(is_address) {
                return wrong(id, "'url' has to begin with https://");
            }
            if !model.sha256.as_deref().is_none_or(is_sha256) {
                return wrong(id, "'sha256' has to be 64 hexadecimal digits in lower case");
            }
        }
        Ok(())
    }

    /// Adds another list to this one. A model of the same id takes the other's place, so that a person can change one.
    ///
    /// # Errors
    /// A name would then mean two models.
    pub fn extend(&mut self, other: Self) -> Result<(), CatalogueError> {
        for model in other.models {
            match self.models.iter_mut().find(|known| known.id == model.id) {
                Some(known) => *known = model,
                None => self.models.push(model),
            }
        }
        self.check()
    }

    /// Adds to a manifest what is meant for devices and can be had, and marks the model that pages are to load by themselves. What
    /// the manifest has already stays as it is.
    pub fn offer_to(&self, manifest: &mut ModelManifest) {
        for model in &self.models {
            let preferred = self.device.as_ref() == Some(&model.id);
            match manifest.models.iter_mut().find(|known| known.id == model.id) {
                Some(known) => known.preferred = preferred,
                None if model.role != Role::Server => manifest.models.extend(model.offer(preferred)),
                None => {}
            }
        }
    }

    /// The model of this id or other name; capital letters do not matter.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&CatalogueEntry> {
        let name = name.to_ascii_lowercase();
        self.models.iter().find(|model| model.id == name || model.aliases.contains(&name))
    }
}

impl CatalogueEntry {
    /// Whether the file is part of the program.
    #[must_use]
    pub fn is_shipped(&self) -> bool {
        self.repository.is_none() && self.url.is_none() && self.pip.is_none()
    }

    /// Memory that weights, as they are stored, and a KV cache of `context` tokens take on a CPU, bytes; `None` where the file's
    /// size is not known.
    #[must_use]
    pub fn needs_bytes(&self, context: u32) -> Option<u64> {
        let is_exact = is_exact_on_cpu(self.parameters, &self.quantisation);
        let tokens = context.min(self.context_length).into();
        // Small models are held in single precision.
        let singles = if self.parameters <= SINGLE_PARAMETERS { 4 * self.parameters } else { 0 };
        Some(self.bytes?.max(singles).saturating_add(cache_bytes(self.cache_width.into(), tokens, false, is_exact)))
    }

    /// The same model as an entry of the manifest, for a page; `None` where the page could not tell its file from another:
    /// address, size and checksum have to be known.
    #[must_use]
    pub fn offer(&self, preferred: bool) -> Option<ModelEntry> {
        Some(ModelEntry {
            id: self.id.clone(),
            name: self.name.clone(),
            file: self.address.clone()?,
            bytes: self.bytes?,
            sha256: self.sha256.clone()?,
            parameters: self.parameters,
            quantisation: self.quantisation.clone(),
            context_length: self.context_length,
            // The file's own header says more, its largest matrix above all.
            cache_width: 0,
            accuracy: Accuracy::default(),
            hallucination: 0.0,
            licence: self.licence.id.clone(),
            corpus_seed: 0,
            preferred,
        })
    }
}

fn is_word(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    !text.is_empty() && text.len() <= 64 && text.bytes().all(is_letter) && !text.starts_with(['.', '-'])
}

/// Whether this is the name of one file or folder on any disk.
fn is_file_name(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !text.is_empty() && text.len() <= 128 && text.bytes().all(is_letter) && !text.starts_with(['.', '-'])
}

#[cfg(test)]
mod tests;
