//! Brotli and gzip for what shrinks. A file is compressed at its first request and kept; a file `x.br` or `x.gz` beside
//! `x` is taken instead, if it really is `x`.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use axum::http::{HeaderMap, header};
use tokio::sync::OnceCell;

use super::identity;
use super::source::Found;

/// Brotli level: 5 of 11, a fraction of a second for a 3 MB module. 9 saves another tenth and takes many times as long,
/// which a busy machine feels at the first load.
const BROTLI_LEVEL: u32 = 5;
const BROTLI_WINDOW: u32 = 22;
/// With more compressed bytes than this nothing is added before all is dropped. A page is about a twentieth of it.
const MAX_KEPT_BYTES: usize = 64 << 20;

/// How an answer is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Not at all.
    Identity,
    /// gzip
    Gzip,
    /// Brotli
    Brotli,
}

impl Encoding {
    /// Its name in HTTP.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Brotli => "br",
        }
    }

    /// What it adds to an entity tag: another encoding is another representation.
    #[must_use]
    pub fn tag_suffix(self) -> &'static str {
        match self {
            Self::Identity => "",
            Self::Gzip => "-gz",
            Self::Brotli => "-br",
        }
    }

    fn file_ending(self) -> &'static str {
        match self {
            Self::Identity => "",
            Self::Gzip => ".gz",
            Self::Brotli => ".br",
        }
    }
}

/// The best encoding that the client takes.
#[must_use]
pub fn negotiate(headers: &HeaderMap) -> Encoding {
    if accepts(headers, &["br"]) {
        Encoding::Brotli
    } else if accepts_gzip(headers) {
        Encoding::Gzip
    } else {
        Encoding::Identity
    }
}

/// Whether the client takes gzip.
#[must_use]
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    accepts(headers, &["gzip", "x-gzip"])
}

fn accepts(headers: &HeaderMap, names: &[&str]) -> bool {
    let lists = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|item| {
        let (name, parameter) = item.split_once(';').unwrap_or((item, ""));
        let quality = parameter.trim().strip_prefix("q=").and_then(|q| q.trim().parse::<f32>().ok()).unwrap_or(1.0);
        quality > 0.0 && names.iter().any(|known| name.trim().eq_ignore_ascii_case(known))
    })
}

/// One compression: under way, or done.
type Compressed = Arc<OnceCell<Bytes>>;

/// A path, the version of what lies there, and an encoding.
type Key = (String, String, Encoding);

/// Compressed files. Two requests for the same file wait for one compression.
#[derive(Debug, Default)]
pub struct Cache {
    kept: Mutex<HashMap<Key, Compressed>>,
}

impl Cache {
    /// The file of this path in this encoding; `None` when it is no longer what was found.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn encoded(&self, path: &str, found: &Found, encoding: Encoding) -> std::io::Result<Option<Bytes>> {
        let cell = self.cell((path.to_owned(), found.tag().to_owned(), encoding));
        let make = || async {
            let bytes = found.bytes().await?;
            // What is kept under a version has to be that version.
            if found.is_hashed() && identity::of_content(&bytes) != found.tag() {
                return Err(Changed::Meanwhile);
            }
            let beside = found.sibling(encoding.file_ending()).await;
            let work = move || match beside {
                Some(beside) if is_of(&beside, &bytes, encoding) => Ok(beside),
                _ => compress(&bytes, encoding),
            };
            Ok(tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)??)
        };
        match cell.get_or_try_init(make).await {
            Ok(bytes) => Ok(Some(bytes.clone())),
            Err(Changed::Meanwhile) => Ok(None),
            Err(Changed::Io(error)) => Err(error),
        }
    }

    fn cell(&self, key: Key) -> Arc<OnceCell<Bytes>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if !kept.contains_key(&key)
            && kept.values().filter_map(|cell| cell.get()).map(Bytes::len).sum::<usize>() > MAX_KEPT_BYTES
        {
            // Old builds of a page that is being worked on; what is in use comes back at its next request.
            kept.clear();
        }
        Arc::clone(kept.entry(key).or_default())
    }
}

/// Why a file could not be compressed.
enum Changed {
    Meanwhile,
    Io(std::io::Error),
}

impl From<std::io::Error> for Changed {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// Whether a compressed file holds exactly these bytes. It may come from an older build.
fn is_of(encoded: &[u8], bytes: &[u8], encoding: Encoding) -> bool {
    let mut reader: Box<dyn std::io::Read + '_> = match encoding {
        Encoding::Identity => Box::new(encoded),
        Encoding::Gzip => Box::new(flate2::read::MultiGzDecoder::new(encoded)),
        Encoding::Brotli => Box::new(brotli::Decompressor::new(encoded, 1 << 16)),
    };
    let mut rest = bytes;
    let mut piece = vec![0; 1 << 16];
    loop {
        match reader.read(&mut piece) {
            Ok(0) => return rest.is_empty(),
            Ok(read) => match piece.get(..read).and_then(|piece| rest.strip_prefix(piece)) {
                Some(left) => rest = left,
                None => return false,
            },
            Err(_) => return false,
        }
    }
}

fn compress(bytes: &[u8], encoding: Encoding) -> std::io::Result<Bytes> {
    let mut out = Vec::with_capacity(bytes.len() / 3);
    match encoding {
        Encoding::Identity => out.extend_from_slice(bytes),
        Encoding::Gzip => {
            let mut writer = flate2::write::GzEncoder::new(&mut out, flate2::Compression::default());
            writer.write_all(bytes)?;
            writer.finish()?;
        }
        Encoding::Brotli => {
            let mut writer = brotli::CompressorWriter::new(&mut out, 1 << 16, BROTLI_LEVEL, BROTLI_WINDOW);
            writer.write_all(bytes)?;
            writer.flush()?;
            drop(writer);
        }
    }
    Ok(Bytes::from(out))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use axum::http::HeaderValue;

    use super::super::identity::Identities;
    use super::*;

    #[test]
    fn negotiation() {
        for (accept, expect) in [
            ("gzip, deflate, br, zstd", Encoding::Brotli),
            ("gzip, br;q=0", Encoding::Gzip),
            ("GZIP;q=0.5", Encoding::Gzip),
            ("gzip;q=0", Encoding::Identity),
            ("identity", Encoding::Identity),
            ("", Encoding::Identity),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(accept));
            assert_eq!(negotiate(&headers), expect, "{accept}");
        }
        assert_eq!(negotiate(&HeaderMap::new()), Encoding::Identity);
    }

    #[tokio::test]
    async fn compresses_once_and_loses_nothing() {
        let text = Bytes::from("tandem ".repeat(10_000));
        let found = Found::from_memory(text.clone(), "t".into());
        let cache = Cache::default();
        let brotli = cache.encoded("t", &found, Encoding::Brotli).await.unwrap().unwrap();
        let gzip = cache.encoded("t", &found, Encoding::Gzip).await.unwrap().unwrap();
        assert!(brotli.len() < 500 && gzip.len() < 1000, "{} {}", brotli.len(), gzip.len());
        let mut back = Vec::new();
        brotli::Decompressor::new(&*brotli, 4096).read_to_end(&mut back).unwrap();
        assert_eq!(back, text);
        back.clear();
        flate2::read::GzDecoder::new(&*gzip).read_to_end(&mut back).unwrap();
        assert_eq!(back, text);
        // The same bytes in memory, not merely equal ones.
        assert_eq!(cache.encoded("t", &found, Encoding::Brotli).await.unwrap().unwrap().as_ptr(), brotli.as_ptr());
    }

    #[tokio::test]
    async fn a_compressed_file_beside_is_taken_where_it_is_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let text = "let a = 1;".repeat(50);
        let mut best = Vec::new();
        brotli::CompressorWriter::new(&mut best, 4096, 11, 22).write_all(text.as_bytes()).unwrap();
        let source = super::super::source::Source::Folder(folder.path().to_owned());
        for (beside, content, taken) in [
            (&best[..], text.clone(), true),
            (b"made elsewhere", text.clone(), false),
            // Of the last build, and as new as this one.
            (&best[..], text.replace('1', "2"), false),
            (&best[..best.len() / 2], text.clone(), false),
        ] {
            std::fs::write(folder.path().join("a.js"), &content).unwrap();
            std::fs::write(folder.path().join("a.js.br"), beside).unwrap();
            let found = source.find("a.js", &Identities::default()).await.unwrap().unwrap();
            let got = Cache::default().encoded("a.js", &found, Encoding::Brotli).await.unwrap().unwrap();
            assert_eq!(got == beside, taken, "{beside:?}");
            assert!(is_of(&got, content.as_bytes(), Encoding::Brotli));
        }
    }

    #[tokio::test]
    async fn what_changed_after_it_was_found_is_not_kept_as_what_was_found() {
        let folder = tempfile::tempdir().unwrap();
        let source = super::super::source::Source::Folder(folder.path().to_owned());
        std::fs::write(folder.path().join("a.js"), "let a;").unwrap();
        let found = source.find("a.js", &Identities::default()).await.unwrap().unwrap();
        std::fs::write(folder.path().join("a.js"), "let b;").unwrap();
        assert_eq!(Cache::default().encoded("a.js", &found, Encoding::Gzip).await.unwrap(), None);
    }
}
