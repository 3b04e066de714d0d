//! Everything that is a file: the page from a folder, models, policies and reports from the folder `public`, which is
//! part of the program.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`source`] | where a file comes from: a folder on disk or the program itself |
//! | [`identity`] | which version of a file this is |
//! | [`range`] | `Range` and `If-Range`: a download that was cut goes on |
//! | [`encoding`] | brotli and gzip, made once and kept |
//! | [`mime`] | media types, and how long a file may be cached |
//! | [`csp`] | the content security policy, with the hashes of the page's own inline scripts |
//!
//! A file is looked for in the page's folder first, then in `public`. Without a page, `/` explains how to build one.
//!
//! Deliberately absent: listings of folders, and `index.html` for unknown addresses: the page keeps its state in the
//! query, so that an unknown path is a mistake.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

pub mod csp;
pub mod encoding;
pub mod identity;
pub mod mime;
pub mod range;
pub mod source;

use encoding::{Cache, Encoding};
use identity::Identities;
use range::Wanted;
use source::{Found, Source};

/// What `/` says while there is no page.
const NO_PAGE: &str = include_str!("no_page.html");

/// Where files are looked for.
#[derive(Clone, Debug)]
pub struct Files {
    page: Option<PathBuf>,
    public: Source,
    cache: Arc<Cache>,
    identities: Arc<Identities>,
    /// The page's version, and the names in it that hold hashes.
    hashed: Arc<Mutex<(String, HashSet<String>)>>,
}

impl Files {
    /// The page from `page`; everything else from `public`, or from the program where that is `None`.
    #[must_use]
    pub fn new(page: Option<PathBuf>, public: Option<PathBuf>) -> Self {
        let public = public.map_or(Source::Embedded, Source::Folder);
        Self { page, public, cache: Arc::default(), identities: Arc::default(), hashed: Arc::default() }
    }

    /// The folder `public`.
    #[must_use]
    pub fn public(&self) -> &Source {
        &self.public
    }

    /// Compresses the page's files before anybody asks for them: the WebAssembly of a page takes seconds.
    pub async fn warm(&self) {
        let Some(page) = &self.page else { return };
        let Ok(mut entries) = tokio::fs::read_dir(page).await else { return };
        while let Ok(Some(entry)) = entries.next_entry().await {
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            if !mime::of(&name).is_text {
                continue;
            }
            // Whatever fails here fails again, and is told, when the file is asked for.
            if let Ok(Some(found)) = self.find(&name).await {
                let _ = self.cache.encoded(&name, &found, Encoding::Brotli).await;
            }
        }
    }

    async fn find(&self, path: &str) -> std::io::Result<Option<Found>> {
        if let Some(page) = &self.page
            && let Some(found) = Source::Folder(page.clone()).find(path, &self.identities).await?
        {
            return Ok(Some(found));
        }
        if let Some(found) = self.public.find(path, &self.identities).await? {
            return Ok(Some(found));
        }
        Ok((path == "index.html").then(|| Found::from_memory(Bytes::from_static(NO_PAGE.as_bytes()), "no-page".into())))
    }
}

impl Files {
    /// Whether the page's builder wrote down that this name holds the hash of the content: in its list of files, or, where
    /// it makes none, in the page itself.
    async fn is_hashed(&self, path: &str) -> std::io::Result<bool> {
        if !mime::may_be_hashed(path) {
            return Ok(false);
        }
        let list = self.find(mime::LIST).await?;
        let is_list = list.is_some();
        let written = match list {
            Some(list) => list,
            None => match self.find("index.html").await? {
                Some(page) => page,
                None => return Ok(false),
            },
        };
        let lock = || self.hashed.lock().unwrap_or_else(PoisonError::into_inner);
        if lock().0 == written.tag() {
            return Ok(lock().1.contains(path));
        }
        let text = written.bytes().await?;
        let text = String::from_utf8_lossy(&text);
        let names = if is_list { mime::listed_names(&text) } else { mime::hashed_names(&text) };
        let is_hashed = names.contains(path);
        *lock() = (written.tag().to_owned(), names);
        Ok(is_hashed)
    }
}

/// Answers GET and HEAD of one path.
pub async fn respond(files: &Files, method: &Method, path: &str, headers: &HeaderMap) -> Response {
    let Some(path) = clean(path) else { return not_found() };
    let path = with_ending(files, path).await;
    // A second time where the file changed between finding and reading it.
    for _ in 0..3 {
        let sent = match files.find(&path).await {
            Ok(Some(found)) => send(files, method, &path, found, headers).await,
            Ok(None) => return not_found(),
            Err(error) => return failed(&path, &error),
        };
        match sent {
            Ok(Some(response)) => return response,
            Ok(None) => {}
            Err(error) => return failed(&path, &error),
        }
    }
    failed(&path, &std::io::Error::other("it keeps changing"))
}

/// `/join` is `join.html`: what is read off a projector and typed has no ending.
async fn with_ending(files: &Files, path: String) -> String {
    let page = format!("{path}.html");
    if !path.contains('.') && matches!(files.find(&page).await, Ok(Some(_))) { page } else { path }
}

/// Answers GET and HEAD of a file that lies elsewhere on this machine.
pub async fn respond_from(
    files: &Files,
    method: &Method,
    folder: PathBuf,
    name: &str,
    headers: &HeaderMap,
) -> Response {
    let sent = match Source::Folder(folder).find(name, &files.identities).await {
        Ok(Some(found)) => send(files, method, name, found, headers).await,
        Ok(None) => return not_found(),
        Err(error) => return failed(name, &error),
    };
    match sent {
        Ok(Some(response)) => response,
        Ok(None) => failed(name, &std::io::Error::other("it keeps changing")),
        Err(error) => failed(name, &error),
    }
}

async fn send(
    files: &Files,
    method: &Method,
    path: &str,
    found: Found,
    headers: &HeaderMap,
) -> std::io::Result<Option<Response>> {
    let kind = mime::of(path);
    let mut out = HeaderMap::new();
    out.insert(header::CONTENT_TYPE, header_value(&kind.media_type));
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static(mime::cache_control(files.is_hashed(path).await?)));
    out.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // A worker obeys the policy of its own script's answer, so that scripts carry one, too.
    if kind.is_html {
        let html = found.bytes().await?;
        out.insert(header::CONTENT_SECURITY_POLICY, header_value(&csp::of_page(&String::from_utf8_lossy(&html))));
    } else if kind.is_script {
        out.insert(header::CONTENT_SECURITY_POLICY, header_value(&csp::base()));
    } else if kind.is_document {
        out.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(csp::INERT));
    }
    let has_range = *method == Method::GET && headers.contains_key(header::RANGE);
    let encoding = if kind.is_text && !has_range { encoding::negotiate(headers) } else { Encoding::Identity };
    if kind.is_text {
        out.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    let tag = format!("\"{}{}\"", found.tag(), encoding.tag_suffix());
    out.insert(header::ETAG, header_value(&tag));
    if matches_any(headers, &tag) {
        return Ok(Some((StatusCode::NOT_MODIFIED, out).into_response()));
    }
    if encoding != Encoding::Identity {
        let Some(bytes) = files.cache.encoded(path, &found, encoding).await? else { return Ok(None) };
        out.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding.token()));
        out.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        return Ok(Some((out, Body::from(bytes)).into_response()));
    }
    let total = found.len();
    let wanted = if has_range { range::wanted(headers, &tag, total) } else { Wanted::All };
    Ok(Some(match wanted {
        Wanted::All => {
            out.insert(header::CONTENT_LENGTH, HeaderValue::from(total));
            let body = if *method == Method::HEAD { Body::empty() } else { found.body(0, total).await? };
            (out, body).into_response()
        }
        Wanted::Part { first, last } => {
            out.insert(header::CONTENT_RANGE, header_value(&format!("bytes {first}-{last}/{total}")));
            let length = last - first + 1;
            out.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            (StatusCode::PARTIAL_CONTENT, out, found.body(first, length).await?).into_response()
        }
        Wanted::Impossible => {
            out.insert(header::CONTENT_RANGE, header_value(&format!("bytes */{total}")));
            (StatusCode::RANGE_NOT_SATISFIABLE, out).into_response()
        }
    }))
}

/// A URL's path as a path inside the folders; `None` for one that no file can have. Every part is an ordinary name: no
/// `..`, no drive, no hidden file.
fn clean(path: &str) -> Option<String> {
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8().ok()?;
    let relative = decoded.strip_prefix('/')?;
    let is_name = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains(['\\', ':', '\0']);
    let mut clean = relative.to_owned();
    if clean.is_empty() || clean.ends_with('/') {
        clean.push_str("index.html");
    }
    clean.split('/').all(is_name).then_some(clean)
}

/// Whether the client has this version already.
#[must_use]
pub fn matches_any(headers: &HeaderMap, tag: &str) -> bool {
    let tags = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    tags.flat_map(|list| list.split(',')).map(str::trim).any(|one| one == "*" || one.trim_start_matches("W/") == tag)
}

/// Everything that we put into a header is ASCII; an empty value is what is left of what is not.
fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// 404.
#[must_use]
pub fn not_found() -> Response {
    (StatusCode::NOT_FOUND, [(header::CACHE_CONTROL, "no-cache")], "There is nothing here.\n").into_response()
}

fn failed(path: &str, error: &std::io::Error) -> Response {
    tracing::error!(path, %error, "a file cannot be read");
    (StatusCode::INTERNAL_SERVER_ERROR, "The file cannot be read.\n").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_page_is_found_without_its_ending() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("join.html", "join"), ("plain", "plain")] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let files = Files::new(Some(folder.path().to_owned()), None);
        for (path, status) in [("/join", 200), ("/join.html", 200), ("/plain", 200), ("/joi", 404), ("/join.htm", 404)]
        {
            let response = respond(&files, &Method::GET, path, &HeaderMap::new()).await;
            assert_eq!(response.status().as_u16(), status, "{path}");
            if path.starts_with("/join") && status == 200 {
                assert!(response.headers()[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/html"), "{path}");
            }
        }
    }

    #[test]
    fn paths_stay_inside_the_folder() {
        for (path, expect) in [
            ("/", Some("index.html")),
            ("/models/full.gguf", Some("models/full.gguf")),
            ("/docs/", Some("docs/index.html")),
            ("/a%20b.txt", Some("a b.txt")),
            ("/../secret", None),
            ("/models/../../secret", None),
            ("/%2e%2e/secret", None),
            ("/..%2fsecret", None),
            ("/models//x", None),
            ("/.git/config", None),
            ("/a%5c..%5cb", None),
            ("/c:/x", None),
            ("/a%00b", None),
            ("/%ff", None),
            ("no-slash", None),
        ] {
            assert_eq!(clean(path).as_deref(), expect, "{path}");
        }
    }
}
