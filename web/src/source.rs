//! What a person names a model by: an address, a hub's `org/repo/file.gguf` or `org/repo`, files that are chosen together.

use client::protocol::engine::{ModelSource, StoreAs};

/// Where the server's copies of a hub's files are.
const HUB: &str = "models/hub/";

/// The source that a text names.
///
/// # Errors
/// It names none; says what is expected.
pub fn parse(text: &str) -> Result<ModelSource, String> {
    let text = text.trim();
    if text.starts_with("https://") || text.starts_with("http://") {
        return Ok(at(text.to_owned()));
    }
    let is_name = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let depth = text.split('/').count();
    if text.split('/').all(is_name) && (depth == 2 || depth > 2 && text.ends_with(".gguf")) {
        return Ok(at(if depth == 2 { format!("{HUB}{text}/") } else { format!("{HUB}{text}") }));
    }
    Err("Give an address (https://…), or organisation/repository of the hub, with or without /file.gguf.".to_owned())
}

/// How a link of this page names a source: an id of the server's list, or what [`parse`] reads. Empty for files that a person
/// chose, which no link can hold.
#[must_use]
pub fn link(source: &ModelSource) -> &str {
    match source {
        ModelSource::Server { id } => id,
        ModelSource::Url { url, .. } => url.strip_prefix(HUB).unwrap_or(url),
        ModelSource::Folder { url, .. } => url.strip_prefix(HUB).map_or(url, |name| name.trim_end_matches('/')),
        ModelSource::File { .. } | ModelSource::Files { .. } => "",
    }
}

/// The source that a link names; `None` where it names none.
#[must_use]
pub fn of_link(text: &str) -> Option<ModelSource> {
    match text.contains('/') {
        true => parse(text).ok(),
        false => (!text.is_empty()).then(|| ModelSource::Server { id: text.to_owned() }),
    }
}

/// What is at an address: a checkpoint where it ends in a slash.
fn at(url: String) -> ModelSource {
    if url.ends_with('/') {
        ModelSource::Folder { url, store_as: StoreAs::default() }
    } else {
        ModelSource::Url { url, sha256: None }
    }
}

/// The model in files of these names and sizes in bytes that a person chose together, `folder` being the folder that they
/// were in, if any; and the number of the file that it is called after. `None` without files.
#[must_use]
pub fn of_files(files: &[(String, u64)], folder: String) -> Option<(ModelSource, usize)> {
    let with = |ending| files.iter().position(|(name, _)| name.ends_with(ending));
    if let Some(first) = with(".gguf") {
        return Some((ModelSource::File { name: files[first].0.clone() }, first));
    }
    let first = with(".safetensors").unwrap_or(0);
    let name = if folder.is_empty() { files.get(first)?.0.clone() } else { folder };
    let bytes = files.iter().map(|(_, bytes)| bytes).sum();
    (!files.is_empty()).then_some((ModelSource::Files { name, bytes, store_as: StoreAs::default() }, first))
}

/// The name that a source is shown by.
#[must_use]
pub fn name(source: &ModelSource) -> &str {
    match source {
        ModelSource::Server { id } => id,
        ModelSource::File { name } | ModelSource::Files { name, .. } => name,
        ModelSource::Url { url, .. } | ModelSource::Folder { url, .. } => {
            let path = url.split(['?', '#']).next().unwrap_or(url).trim_end_matches('/');
            path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(url)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_hub_names() {
        let url = |url: &str| Some(ModelSource::Url { url: url.to_owned(), sha256: None });
        let folder = |url: &str| Some(ModelSource::Folder { url: url.to_owned(), store_as: StoreAs::Q8 });
        for (text, expect) in [
            ("https://a.example/m.gguf", url("https://a.example/m.gguf")),
            (" http://127.0.0.1:9/m ", url("http://127.0.0.1:9/m")),
            ("org/repo/m-q4_0.gguf", url("models/hub/org/repo/m-q4_0.gguf")),
            ("org/repo/sub/m.gguf", url("models/hub/org/repo/sub/m.gguf")),
            ("org/repo", folder("models/hub/org/repo/")),
            ("https://a.example/smol/", folder("https://a.example/smol/")),
            ("repo", None),
            ("org/.repo", None),
            ("org/../repo/m.gguf", None),
            ("org//m.gguf", None),
            ("org/repo/m.bin", None),
            ("ftp://a/b/m.gguf", None),
            ("", None),
        ] {
            assert_eq!(parse(text).ok(), expect, "{text}");
        }
    }

    #[test]
    fn links_bring_a_choice_back() {
        for text in ["compact", "qwen3-0.6b", "https://a.example/m.gguf", "org/repo/m.gguf", "org/repo", "https://a/b/"]
        {
            let source = of_link(text).expect(text);
            assert_eq!(link(&source), text);
        }
        assert_eq!((of_link(""), of_link("org/../m.gguf")), (None, None));
        assert_eq!(link(&ModelSource::File { name: "m.gguf".to_owned() }), "");
    }

    #[test]
    fn files_that_are_chosen_together() {
        let of = |names: &[&str], folder: &str| {
            let files: Vec<_> = names.iter().map(|name| ((*name).to_owned(), 2)).collect();
            of_files(&files, folder.to_owned())
        };
        let files = |name: &str, bytes| ModelSource::Files { name: name.to_owned(), bytes, store_as: StoreAs::Q8 };
        assert_eq!(of(&["a.json", "m.gguf"], "f"), Some((ModelSource::File { name: "m.gguf".to_owned() }, 1)));
        assert_eq!(of(&["a.json", "m.safetensors"], ""), Some((files("m.safetensors", 4), 1)));
        assert_eq!(of(&["a.json", "m.safetensors"], "smol"), Some((files("smol", 4), 1)));
        assert_eq!(of(&["notes.txt"], ""), Some((files("notes.txt", 2), 0)));
        assert_eq!((of(&[], ""), of(&[], "f")), (None, None));
    }

    #[test]
    fn names() {
        let url = |url: &str| ModelSource::Url { url: url.to_owned(), sha256: None };
        assert_eq!(name(&url("https://a.example/x/m.gguf?download=1")), "m.gguf");
        assert_eq!(name(&url("https://a.example/")), "a.example");
        assert_eq!(name(&url("/")), "/");
        assert_eq!(
            name(&ModelSource::Folder { url: "models/hub/org/smol/".to_owned(), store_as: StoreAs::Q8 }),
            "smol"
        );
        assert_eq!(name(&ModelSource::File { name: "mine.gguf".to_owned() }), "mine.gguf");
    }
}
