//! Brotli and gzip for what shrinks. A file is compressed at its first request and kept; a file `x.br` or `x.gz` beside
//! `x` is taken instead.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use axum::http::{HeaderMap, header};
use tokio::sync::OnceCell;

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
    let lists = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut best = Encoding::Identity;
    for item in lists.flat_map(|list| list.split(',')) {
        let (name, parameter) = item.split_once(';').unwrap_or((item, ""));
        let quality = parameter.trim().strip_prefix("q=").and_then(|q| q.trim().parse::<f32>().ok()).unwrap_or(1.0);
        if quality <= 0.0 {
            continue;
        }
        match name.trim().to_ascii_lowercase().as_str() {
            "br" => return Encoding::Brotli,
            "gzip" | "x-gzip" => best = Encoding::Gzip,
            _ => {}
        }
    }
    best
}

/// One compression: under way, or done.
type Compressed = Arc<OnceCell<Bytes>>;

/// Compressed files, by tag and encoding. Two requests for the same file wait for one compression.
#[derive(Debug, Default)]
pub struct Cache {
    kept: Mutex<HashMap<(String, Encoding), Compressed>>,
}

impl Cache {
    /// The file in this encoding.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn encoded(&self, found: &Found, encoding: Encoding) -> std::io::Result<Bytes> {
        let cell = self.cell((found.tag().to_owned(), encoding));
        let make = || async {
            if let Some(encoded) = found.sibling(encoding.file_ending()).await {
                return Ok(encoded);
            }
            let bytes = found.bytes().await?;
            tokio::task::spawn_blocking(move || compress(&bytes, encoding)).await.map_err(std::io::Error::other)?
        };
        cell.get_or_try_init(make).await.cloned()
    }

    fn cell(&self, key: (String, Encoding)) -> Arc<OnceCell<Bytes>> {
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
        let brotli = cache.encoded(&found, Encoding::Brotli).await.unwrap();
        let gzip = cache.encoded(&found, Encoding::Gzip).await.unwrap();
        assert!(brotli.len() < 500 && gzip.len() < 1000, "{} {}", brotli.len(), gzip.len());
        let mut back = Vec::new();
        brotli::Decompressor::new(&*brotli, 4096).read_to_end(&mut back).unwrap();
        assert_eq!(back, text);
        back.clear();
        flate2::read::GzDecoder::new(&*gzip).read_to_end(&mut back).unwrap();
        assert_eq!(back, text);
        // The same bytes in memory, not merely equal ones.
        assert_eq!(cache.encoded(&found, Encoding::Brotli).await.unwrap().as_ptr(), brotli.as_ptr());
    }

    #[tokio::test]
    async fn a_compressed_file_beside_is_taken_unless_it_is_old() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.js"), "let a;").unwrap();
        std::fs::write(folder.path().join("a.js.br"), "made elsewhere").unwrap();
        let source = super::super::source::Source::Folder(folder.path().to_owned());
        let found = source.find("a.js").await.unwrap().unwrap();
        assert_eq!(Cache::default().encoded(&found, Encoding::Brotli).await.unwrap(), "made elsewhere");
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
        std::fs::File::options().append(true).open(folder.path().join("a.js")).unwrap().set_modified(later).unwrap();
        let found = source.find("a.js").await.unwrap().unwrap();
        assert_ne!(Cache::default().encoded(&found, Encoding::Brotli).await.unwrap(), "made elsewhere");
    }
}
