//! What a person types to name a model: an address, a path on the server, or a hub's `org/repo/file.gguf`.

use client_core::protocol::engine::ModelSource;

/// Where the server's copies of a hub's files are.
const HUB: &str = "models/hub/";

/// The source that a text names.
///
/// # Errors
/// It names none; says what is expected.
pub fn parse(text: &str) -> Result<ModelSource, String> {
    let text = text.trim();
    let url = |url: String| Ok(ModelSource::Url { url, sha256: None });
    if text.starts_with("https://") || text.starts_with("http://") {
        return url(text.to_owned());
    }
    let parts: Vec<&str> = text.split('/').collect();
    let is_name = |part: &&str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    if parts.len() >= 3 && parts.iter().all(is_name) && text.ends_with(".gguf") {
        return url(format!("{HUB}{text}"));
    }
    Err("Give the address of a GGUF file (https://…), or organisation/repository/file.gguf of the hub.".to_owned())
}

/// The name that a source is shown by.
#[must_use]
pub fn name(source: &ModelSource) -> &str {
    match source {
        ModelSource::Server { id } => id,
        ModelSource::File { name } => name,
        ModelSource::Url { url, .. } => {
            let path = url.split(['?', '#']).next().unwrap_or(url);
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
        for (text, expect) in [
            ("https://a.example/m.gguf", url("https://a.example/m.gguf")),
            (" http://127.0.0.1:9/m ", url("http://127.0.0.1:9/m")),
            ("org/repo/m-q4_0.gguf", url("models/hub/org/repo/m-q4_0.gguf")),
            ("org/repo/sub/m.gguf", url("models/hub/org/repo/sub/m.gguf")),
            ("org/repo", None),
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
    fn names() {
        let url = |url: &str| ModelSource::Url { url: url.to_owned(), sha256: None };
        assert_eq!(name(&url("https://a.example/x/m.gguf?download=1")), "m.gguf");
        assert_eq!(name(&url("https://a.example/")), "https://a.example/");
        assert_eq!(name(&ModelSource::File { name: "mine.gguf".to_owned() }), "mine.gguf");
    }
}
