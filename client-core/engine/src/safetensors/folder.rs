//! Which files of a folder are a checkpoint's, by their names: what is missing is said before anything is read.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::error::EngineError;

/// The model's sizes.
pub const CONFIG: &str = "config.json";
/// Text to tokens.
pub const TOKENIZER: &str = "tokenizer.json";
/// Names of the special tokens, and often the chat template.
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// The chat template.
pub const CHAT_TEMPLATE: &str = "chat_template.jinja";
/// Which tokens end an answer.
pub const GENERATION_CONFIG: &str = "generation_config.json";
/// All tensors, where they are in one file.
pub const WEIGHTS: &str = "model.safetensors";
/// Which file each tensor is in, where there are many.
pub const INDEX: &str = "model.safetensors.index.json";

/// Most files that an index may name. The largest open checkpoints have about 200.
const MAX_SHARDS: usize = 1024;
/// Most missing files that are named.
const MAX_NAMED: usize = 3;

/// What [`INDEX`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// The files that the tensors are in, each once, in order of name.
    pub files: Vec<String>,
    /// The tensors.
    pub tensors: BTreeSet<String>,
    /// Bytes of all tensors together, where it tells.
    pub total_bytes: Option<u64>,
}

impl Index {
    /// Reads it.
    ///
    /// # Errors
    /// It is not JSON of that form, names more than 1024 files, or names a file outside the checkpoint's folder.
    pub fn parse(json: &[u8]) -> Result<Self, EngineError> {
        #[derive(serde::Deserialize)]
        struct Wire {
            #[serde(default)]
            metadata: Value,
            weight_map: BTreeMap<String, String>,
        }
        let bad = |problem: String| EngineError::Inconsistent(format!("{INDEX} {problem}"));
        let Wire { metadata, weight_map } =
            serde_json::from_slice(json).map_err(|error| bad(format!("cannot be read: {error}")))?;
        // Some tools write it as a float.
        let total = |value: &Value| value.as_u64().or_else(|| value.as_f64().map(|bytes| bytes as u64));
        let total_bytes = metadata.get("total_size").and_then(total);
        let mut files = BTreeSet::new();
        let mut tensors = BTreeSet::new();
        for (tensor, file) in weight_map {
            tensors.insert(tensor);
            files.insert(file);
        }
        if files.is_empty() || files.len() > MAX_SHARDS {
            return Err(bad(format!("names {} files; there must be between 1 and {MAX_SHARDS}", files.len())));
        }
        let plain = |name: &String| name.ends_with(".safetensors") && !name.contains(['/', '\\', ':']);
        match files.iter().find(|name| !plain(name)) {
            Some(name) => Err(bad(format!("names {name:?}, which is not a safetensors file in the same folder"))),
            None => Ok(Self { files: files.into_iter().collect(), tensors, total_bytes }),
        }
    }
}

/// The files with the tensors among the `names` of a checkpoint's files, in order of name. `index` is what [`INDEX`] says,
/// where it is among them.
///
/// # Errors
/// [`EngineError::Incomplete`] where one of them, [`CONFIG`] or [`TOKENIZER`] is missing.
pub fn weight_files(names: &BTreeSet<&str>, index: Option<&Index>) -> Result<Vec<String>, EngineError> {
    let tensors: Vec<&str> = names.iter().filter(|name| name.ends_with(".safetensors")).copied().collect();
    if tensors.is_empty() && !names.contains(CONFIG) && index.is_none() {
        return Err(EngineError::Incomplete(format!(
            "there is no model here: it takes a GGUF file, or a checkpoint's {CONFIG}, {TOKENIZER} and {WEIGHTS}"
        )));
    }
    let files = match index {
        Some(index) => index.files.clone(),
        None if names.contains(WEIGHTS) => vec![WEIGHTS.to_owned()],
        None => match tensors.iter().find_map(|name| shards(name)) {
            Some(shards) => shards,
            None if tensors.len() > 1 => {
                return Err(EngineError::Incomplete(format!(
                    "both {} and {} may be a model: drop one of them, or {INDEX} with them",
                    tensors[0], tensors[1]
                )));
            }
            None => vec![tensors.first().copied().unwrap_or(WEIGHTS).to_owned()],
        },
    };
    let wanted = [CONFIG, TOKENIZER].into_iter().chain(files.iter().map(String::as_str));
    let missing: Vec<&str> = wanted.filter(|name| !names.contains(name)).collect();
    match missing.as_slice() {
        [] => Ok(files),
        missing => Err(EngineError::Incomplete(told(missing))),
    }
}

/// All files of the set that one of its names, `model-00001-of-00002.safetensors`, belongs to.
fn shards(name: &str) -> Option<Vec<String>> {
    let stem = name.strip_suffix(".safetensors")?;
    let (stem, count) = stem.rsplit_once("-of-")?;
    let (stem, number) = stem.rsplit_once('-')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let shards: usize = count.parse().ok().filter(|shards| (1..=MAX_SHARDS).contains(shards))?;
    let width = number.len();
    (digits(number) && digits(count))
        .then(|| (1..=shards).map(|number| format!("{stem}-{number:0width$}-of-{count}.safetensors")).collect())
}

fn told(missing: &[&str]) -> String {
    let more = missing.len().saturating_sub(MAX_NAMED);
    let named = &missing[..missing.len() - more];
    let list = match (named, more) {
        ([one], 0) => return format!("the file {one} is missing: drop it together with the other files"),
        ([first @ .., last], 0) => format!("{} and {last}", first.join(", ")),
        (named, more) => format!("{} and {more} more", named.join(", ")),
    };
    format!("the files {list} are missing: drop them together with the other files")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_names_its_files() {
        let read = |map: &str, more: &str| Index::parse(format!("{{{more}\"weight_map\":{{{map}}}}}").as_bytes());
        let map = r#""b":"m-2.safetensors","a":"m-1.safetensors","c":"m-2.safetensors""#;
        let index = read(map, r#""metadata":{"total_size":12},"#).unwrap();
        assert_eq!(index.files, ["m-1.safetensors", "m-2.safetensors"]);
        assert_eq!((index.tensors.len(), index.total_bytes), (3, Some(12)));
        assert_eq!(read(map, r#""metadata":{"total_size":12.0},"#).unwrap().total_bytes, Some(12));
        assert_eq!(read(map, "").unwrap().total_bytes, None);
        for (map, expect) in [
            ("", "0 files"),
            (r#""a":"../m.safetensors""#, "same folder"),
            (r#""a":"m.bin""#, "same folder"),
            (r#""a":"C:m.safetensors""#, "same folder"),
            (r#""a":1"#, "cannot be read"),
        ] {
            let error = read(map, "").unwrap_err().to_string();
            assert!(error.contains(expect), "{map}: {error}");
        }
    }

    #[test]
    fn a_folder_is_whole_or_says_what_is_missing() {
        let index = Index {
            files: ["a-1.safetensors", "a-2.safetensors"].map(str::to_owned).into(),
            tensors: BTreeSet::new(),
            total_bytes: None,
        };
        let words = "config.json tokenizer.json";
        for (names, index, expect) in [
            ("model.safetensors", None, Ok("model.safetensors")),
            ("model.safetensors consolidated.safetensors", None, Ok("model.safetensors")),
            ("weights.safetensors", None, Ok("weights.safetensors")),
            (
                "m-00001-of-00002.safetensors m-00002-of-00002.safetensors",
                None,
                Ok("m-00001-of-00002.safetensors m-00002-of-00002.safetensors"),
            ),
            ("a-1.safetensors a-2.safetensors b.safetensors", Some(&index), Ok("a-1.safetensors a-2.safetensors")),
            ("a-1.safetensors", Some(&index), Err("the file a-2.safetensors is missing: drop it")),
            ("m-00002-of-00002.safetensors", None, Err("m-00001-of-00002.safetensors is missing")),
            ("m-1-of-9.safetensors", None, Err("m-4-of-9.safetensors and 5 more are missing")),
            ("m-1-of-99999999999999999999.safetensors", None, Ok("m-1-of-99999999999999999999.safetensors")),
            ("a.safetensors b.safetensors", None, Err("both a.safetensors and b.safetensors may be")),
            ("", None, Err("model.safetensors is missing")),
        ] {
            let names: BTreeSet<&str> = words.split(' ').chain(names.split(' ').filter(|n| !n.is_empty())).collect();
            let found = weight_files(&names, index).map(|files| files.join(" ")).map_err(|error| error.to_string());
            match expect {
                Ok(files) => assert_eq!(found.as_deref(), Ok(files)),
                Err(part) => assert!(found.as_ref().is_err_and(|error| error.contains(part)), "{names:?}: {found:?}"),
            }
        }
        for (names, expect) in [
            (vec!["model.safetensors"], "the files config.json and tokenizer.json are missing: drop them together"),
            (vec!["config.json"], "tokenizer.json and model.safetensors are missing"),
            (vec!["config.json", "model.safetensors"], "tokenizer.json is missing: drop it together"),
            (vec!["notes.txt"], "takes a GGUF file"),
            (vec![], "no model"),
        ] {
            let error = weight_files(&names.iter().copied().collect(), None).unwrap_err().to_string();
            assert!(error.contains(expect), "{names:?}: {error}");
        }
    }
}
