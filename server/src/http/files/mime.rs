//! Media types by ending, and how long a file may be cached.

/// What an ending says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// For `Content-Type`.
    pub media_type: &'static str,
    /// Whether compression pays.
    pub is_text: bool,
    /// Whether it is a page.
    pub is_html: bool,
    /// Whether it can be a worker.
    pub is_script: bool,
}

/// The kind of a file; bytes of no known kind are just that.
#[must_use]
pub fn of(path: &str) -> Kind {
    let name = path.rsplit('/').next().unwrap_or(path);
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending).to_ascii_lowercase();
    let (media_type, is_text) = match ending.as_str() {
        "html" | "htm" => ("text/html; charset=utf-8", true),
        "js" | "mjs" => ("text/javascript; charset=utf-8", true),
        "css" => ("text/css; charset=utf-8", true),
        "wasm" => ("application/wasm", true),
        "json" | "map" => ("application/json", true),
        "jsonl" => ("application/jsonl", true),
        "webmanifest" => ("application/manifest+json", true),
        "svg" => ("image/svg+xml", true),
        "txt" | "md" | "wgsl" => ("text/plain; charset=utf-8", true),
        "csv" => ("text/csv; charset=utf-8", true),
        "xml" => ("application/xml", true),
        "png" => ("image/png", false),
        "jpg" | "jpeg" => ("image/jpeg", false),
        "webp" => ("image/webp", false),
        "avif" => ("image/avif", false),
        "gif" => ("image/gif", false),
        "ico" => ("image/x-icon", false),
        "woff2" => ("font/woff2", false),
        "woff" => ("font/woff", false),
        "ttf" => ("font/ttf", true),
        "pdf" => ("application/pdf", false),
        "mp4" => ("video/mp4", false),
        "webm" => ("video/webm", false),
        // Weights: gguf, safetensors, mpk, bin.
        _ => ("application/octet-stream", false),
    };
    let is_html = matches!(ending.as_str(), "html" | "htm");
    Kind { media_type, is_text, is_html, is_script: matches!(ending.as_str(), "js" | "mjs") }
}

/// Files whose name holds the hash of their content never change; everything else is asked for again, which costs one
/// 304. Trunk names files `web-0123456789abcdef.js` and `web-0123456789abcdef_bg.wasm`.
#[must_use]
pub fn cache_control(path: &str) -> &'static str {
    let name = path.rsplit('/').next().unwrap_or(path);
    let stem = name.split('.').next().unwrap_or(name);
    let stem = stem.strip_suffix("_bg").unwrap_or(stem);
    let is_hash = |text: &str| text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if stem.rsplit_once('-').is_some_and(|(_, hash)| is_hash(hash)) {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    }
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
    fn only_names_with_a_hash_never_change() {
        for (path, is_immutable) in [
            ("web-0123456789abcdef.js", true),
            ("web-0123456789abcdef_bg.wasm", true),
            ("tokens-00ff00ff00ff00ff.css", true),
            ("worker.js", false),
            ("worker_bg.wasm", false),
            ("web-0123456789ABCDEF.js", false),
            ("web-0123456789abcde.js", false),
            // wasm-bindgen's folders carry the hash of the crate, not of the file.
            ("snippets/web-0123456789abcdef/inline0.js", false),
            ("index.html", false),
            ("models/full.gguf", false),
        ] {
            assert_eq!(cache_control(path).ends_with("immutable"), is_immutable, "{path}");
        }
    }
}
