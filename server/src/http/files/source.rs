//! Where a file comes from.

use std::io::SeekFrom;
use std::path::PathBuf;

use axum::body::{Body, Bytes};
use rust_embed::RustEmbed;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use super::identity::{Identities, MAX_HASHED, Stamp};

/// Piece of a large file that is read at a time.
const CHUNK: usize = 256 * 1024;

/// The folder `public`, in the program. Uncompressed: models do not shrink, and ranges need the bytes as they are.
#[derive(RustEmbed)]
#[folder = "../public"]
#[allow_missing = true]
struct Public;

/// A folder on disk, or the one inside the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// On disk; read anew for every request, so that a rebuilt page is seen at once.
    Folder(PathBuf),
    /// In the program.
    Embedded,
}

impl Source {
    /// The file of this clean relative path, if there is one. A link that leads out of the folder leads nowhere.
    ///
    /// # Errors
    /// When the disk fails; a file that is not there is no error.
    pub async fn find(&self, path: &str, identities: &Identities) -> std::io::Result<Option<Found>> {
        match self {
            Self::Embedded => Ok(Public::get(path).map(|file| {
                let hash = file.metadata.sha256_hash();
                let tag = hash.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
                let bytes = match file.data {
                    std::borrow::Cow::Borrowed(bytes) => Bytes::from_static(bytes),
                    std::borrow::Cow::Owned(bytes) => Bytes::from(bytes),
                };
                Found::from_memory(bytes, tag)
            })),
            Self::Folder(folder) => {
                let (root, path) =
                    match tokio::try_join!(tokio::fs::canonicalize(folder), tokio::fs::canonicalize(folder.join(path)))
                    {
                        Ok(both) => both,
                        Err(error) => return absent(error),
                    };
                if !path.starts_with(&root) {
                    tracing::warn!(path = %path.display(), "a link leads out of the folder; it is not followed");
                    return Ok(None);
                }
                let meta = match tokio::fs::metadata(&path).await {
                    Ok(meta) if meta.is_file() => meta,
                    Ok(_) => return Ok(None),
                    Err(error) => return absent(error),
                };
                let tag = identities.tag(&path, Stamp::of(&meta)).await?;
                Ok(Some(Found { tag, content: Content::Disk { path, len: meta.len() } }))
            }
        }
    }

    /// All of a file, for the server's own use.
    ///
    /// # Errors
    /// When it is not there or cannot be read.
    pub fn read(&self, path: &str) -> std::io::Result<Bytes> {
        match self {
            Self::Embedded => match Public::get(path).map(|file| file.data) {
                Some(std::borrow::Cow::Borrowed(bytes)) => Ok(Bytes::from_static(bytes)),
                Some(std::borrow::Cow::Owned(bytes)) => Ok(Bytes::from(bytes)),
                None => Err(std::io::Error::new(std::io::ErrorKind::NotFound, "it is not part of this program")),
            },
            Self::Folder(folder) => std::fs::read(folder.join(path)).map(Bytes::from),
        }
    }
}

fn absent(error: std::io::Error) -> std::io::Result<Option<Found>> {
    use std::io::ErrorKind::{InvalidInput, NotADirectory, NotFound};
    match error.kind() {
        NotFound | NotADirectory | InvalidInput => Ok(None),
        _ => Err(error),
    }
}

/// A file that exists.
#[derive(Clone, Debug)]
pub struct Found {
    tag: String,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Memory(Bytes),
    Disk { path: PathBuf, len: u64 },
}

impl Found {
    /// Bytes that are in memory already.
    #[must_use]
    pub fn from_memory(bytes: Bytes, tag: String) -> Self {
        Self { tag, content: Content::Memory(bytes) }
    }

    /// Whether the tag is that of the content, as [`super::identity::of_content`] makes it.
    #[must_use]
    pub fn is_hashed(&self) -> bool {
        matches!(self.content, Content::Disk { len, .. } if len <= MAX_HASHED)
    }

    /// Changes whenever the content does.
    #[must_use]
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match &self.content {
            Content::Memory(bytes) => bytes.len() as u64,
            Content::Disk { len, .. } => *len,
        }
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The file beside this one with another ending: `page.js.br` beside `page.js`.
    pub async fn sibling(&self, ending: &str) -> Option<Bytes> {
        let Content::Disk { path, .. } = &self.content else { return None };
        let mut name = path.clone().into_os_string();
        name.push(ending);
        tokio::fs::read(name).await.ok().map(Bytes::from)
    }

    /// All of it.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn bytes(&self) -> std::io::Result<Bytes> {
        match &self.content {
            Content::Memory(bytes) => Ok(bytes.clone()),
            Content::Disk { path, .. } => tokio::fs::read(path).await.map(Bytes::from),
        }
    }

    /// `length` bytes from `first` on, which have to be inside the file. Read from disk as the client takes them.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub async fn body(self, first: u64, length: u64) -> std::io::Result<Body> {
        match self.content {
            Content::Memory(bytes) => {
                let first = usize::try_from(first).unwrap_or(usize::MAX).min(bytes.len());
                let end = first.saturating_add(usize::try_from(length).unwrap_or(usize::MAX)).min(bytes.len());
                Ok(Body::from(bytes.slice(first..end)))
            }
            Content::Disk { path, .. } => {
                let mut file = tokio::fs::File::open(path).await?;
                file.seek(SeekFrom::Start(first)).await?;
                Ok(chunks(file, length))
            }
        }
    }
}

/// `length` bytes of a file from where it stands, read as they are taken.
pub fn chunks(file: tokio::fs::File, length: u64) -> Body {
    Body::from_stream(futures::stream::try_unfold((file, length), |(mut file, left)| async move {
        let mut chunk = Vec::with_capacity(CHUNK.min(usize::try_from(left).unwrap_or(CHUNK)));
        if left == 0 || (&mut file).take(left.min(CHUNK as u64)).read_to_end(&mut chunk).await? == 0 {
            // A file that shrank meanwhile ends early; the client sees a length that does not fit.
            return Ok::<_, std::io::Error>(None);
        }
        let left = left - chunk.len() as u64;
        Ok(Some((Bytes::from(chunk), (file, left))))
    }))
}
