//! Media types by ending, and how long a file may be cached.

use std::collections::HashSet;

use mime_guess::mime;
use serde_json::Value;

/// What an ending says of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    /// For `Content-Type`.
    pub media_type: String,
    /// Whether compression pays.
    pub is_text: bool,
    /// Whether it is a page.
    pub is_html: bool,
    /// Whether it can be a worker.
    pub is_script: bool,
    /// Whether a browser shows it as a document that could hold scripts, without being a page of ours: SVG above all.
    pub is_document: bool,
}

/// The kind of a file; bytes of no known kind are just that.
#[must_use]
pub fn of(path: &str) -> Kind {
    let ending = path.rsplit_once('.').map_or("", |(_, ending)| ending).to_ascii_lowercase();
    let guess = match ending.as_str() {
        "js" | "mjs" => mime::TEXT_JAVASCRIPT,
        // What a browser should show rather than save, and what the table does not know.
        "md" | "wgsl" | "toml" | "jinja" => mime::TEXT_PLAIN,
        "jsonl" => "application/jsonl".parse().unwrap_or(mime::APPLICATION_OCTET_STREAM),
        "map" => mime::APPLICATION_JSON,
        _ => mime_guess::from_path(path).first_or_octet_stream(),
    };
    let (kind, subtype) = (guess.type_().as_str(), guess.subtype().as_str());
    let suffix = guess.suffix().map_or(subtype, |suffix| suffix.as_str());
    let is_words = kind == "text" || matches!(suffix, "json" | "jsonl" | "xml" | "javascript");
    let is_html = subtype == "html";
    Kind {
        media_type: if kind == "text" { format!("{}; charset=utf-8", guess.essence_str()) } else { guess.to_string() },
        is_text: is_words || matches!(subtype, "wasm" | "ttf" | "otf"),
        is_html,
        is_script: subtype == "javascript",
        is_document: !is_html && suffix == "xml",
    }
}

/// How long a file may be cached: for ever where its name holds the hash of its content, else it is asked for again, which
/// costs one 304.
#[must_use]
pub fn cache_control(is_hashed: bool) -> &'static str {
    if is_hashed { "public, max-age=31536000, immutable" } else { "no-cache" }
}

/// Whether a name has the form of a hashed one: `web-0123456789abcdef.js`, `web-0123456789abcdef_bg.wasm`; zeros in front
/// may be left out. Whether it is one, the builder says.
#[must_use]
pub fn may_be_hashed(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or(name);
    let stem = name.split('.').next().unwrap_or(name);
    let stem = stem.strip_suffix("_bg").unwrap_or(stem);
    // One of 64 bits with fewer than eight digits comes once in four billion builds.
    let is_hash = |text: &str| text.len() >= 8 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    stem.rsplit_once('-').is_some_and(|(_, hash)| is_hash(hash))
}

/// The list that the page's builder makes of its files.
pub const LIST: &str = "assets.json";

/// The files on that list whose names hold their hashes.
#[must_use]
pub fn listed_names(json: &str) -> HashSet<String> {
    let list: Value = serde_json::from_str(json).unwrap_or_default();
    let files = list["files"].as_object().into_iter().flat_map(serde_json::Map::values);
    let immutable = files.filter(|file| file["immutable"] == true);
    immutable.filter_map(|file| file["file"].as_str().map(str::to_owned)).collect()
}

/// The names of that form that a page's HTML holds, for a page that another builder made.
#[must_use]
pub fn hashed_names(html: &str) -> HashSet<String> {
    html.split(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)))
        .filter(|name| name.contains('.') && may_be_hashed(name))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        for (path, media_type) in [
            ("index.html", "text/html; charset=utf-8"),
            ("web-0123456789abcdef_bg.wasm", "application/wasm"),
            ("a/b.min.JS", "text/javascript; charset=utf-8"),
            ("models/manifest.json", "application/json"),
            ("icons/x.svg", "image/svg+xml"),
            ("models/full.gguf", "application/octet-stream"),
            ("no.ending/LICENSE", "application/octet-stream"),
        ] {
            assert_eq!(of(path).media_type, media_type, "{path}");
        }
        assert!(of("x.wasm").is_text && !of("x.gguf").is_text && of("x.mjs").is_script && of("x.html").is_html);
    }

    #[test]
    fn what_could_run_scripts() {
        for path in ["x.svg", "x.xml", "x.xhtml"] {
            assert!(of(path).is_document, "{path}: {}", of(path).media_type);
        }
        for path in ["x.html", "x.js", "x.wasm", "x.png", "x.json", "x.gguf"] {
            assert!(!of(path).is_document, "{path}: {}", of(path).media_type);
        }
    }

    #[test]
    fn what_a_builder_wrote_down() {
        let html = r#"<link rel="stylesheet" href="/tokens-00ff00ff00ff00ff.css" integrity="sha384-abc"/>
            <link href="icons/tandem.svg"><meta content="dead-beef."><script type=module>
            import init from '/web-123456789abcdef.js'; init({ module_or_path: '/web-123456789abcdef_bg.wasm' });</script>"#;
        let names = ["tokens-00ff00ff00ff00ff.css", "web-123456789abcdef.js", "web-123456789abcdef_bg.wasm"];
        assert_eq!(hashed_names(html), names.map(String::from).into());
        let json = r#"{"files": {"page.css": {"file": "page-00ff00ff00ff00ff.css", "immutable": true},
            "worker.js": {"file": "worker.js", "immutable": false}, "odd": 3}}"#;
        assert_eq!(listed_names(json), ["page-00ff00ff00ff00ff.css".to_owned()].into());
        assert!(listed_names("{").is_empty() && listed_names("[]").is_empty());
        for name in ["worker.js", "web-0123456789ABCDEF.js", "index.html", "kernels-relaxed-threads.wasm"] {
            assert!(!may_be_hashed(name), "{name}");
        }
    }
}
