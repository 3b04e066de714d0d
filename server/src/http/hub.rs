//! `/models/hub/{organisation}/{repository}/{file}`: a hub's files, from the cache or while they arrive.

use std::io::SeekFrom;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use super::App;
use super::address::Address;
use super::error::ApiError;
use super::files::range::{self, Wanted};
use crate::hub::fetch::{Progress, Reader};
use crate::hub::name::FileName;
use crate::hub::{HubError, Opened};

/// Piece of a file that is read at a time.
const CHUNK: u64 = 256 * 1024;

/// Answers GET and HEAD.
///
/// # Errors
/// There is no hub, no such file, or the hub does not do its part.
pub async fn get(
    State(app): State<App>,
    Address((organisation, repository, path)): Address<(String, String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let hub = app.hub().ok_or_else(|| {
        ApiError::not_found("This server passes no hub's files on; its owner can start it with --hub ADDRESS.")
    })?;
    let name = FileName::new(&organisation, &repository, &path)
        .ok_or_else(|| ApiError::not_found("Only model files (.gguf, .safetensors, .json, .jinja) are passed on."))?;
    let opened = hub.open(&name).await?;
    let total = opened.bytes;
    let mut out = HeaderMap::new();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    out.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let tag = format!("\"{}\"", opened.tag);
    if !opened.tag.is_empty()
        && let Ok(value) = HeaderValue::from_str(&tag)
    {
        out.insert(header::ETAG, value);
    }
    let (status, first, length) = match range::wanted(&headers, &tag, total) {
        Wanted::All => (StatusCode::OK, 0, total),
        Wanted::Part { first, last } => {
            out.insert(header::CONTENT_RANGE, content_range(&format!("bytes {first}-{last}/{total}")));
            (StatusCode::PARTIAL_CONTENT, first, last - first + 1)
        }
        Wanted::Impossible => {
            out.insert(header::CONTENT_RANGE, content_range(&format!("bytes */{total}")));
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, out).into_response());
        }
    };
    out.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    let body = if method == Method::HEAD { Body::empty() } else { body(opened, first, length).await? };
    Ok((status, out, body).into_response())
}

fn content_range(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Bytes of a file that may still be growing; a download that fails cuts the body short.
async fn body(opened: Opened, first: u64, length: u64) -> Result<Body, HubError> {
    let file = match tokio::fs::File::open(&opened.path).await {
        // It has become whole in this very moment, and bears its own name now.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            tokio::fs::File::open(opened.path.with_extension("")).await
        }
        file => file,
    };
    let mut file = file?;
    file.seek(SeekFrom::Start(first)).await?;
    // The lease lasts as long as the body: what is being read is not removed.
    let state = (file, opened.flight, opened.lease, first, first + length);
    let pieces = futures::stream::try_unfold(state, |(mut file, flight, lease, at, end)| async move {
        if at == end {
            return Ok::<_, std::io::Error>(None);
        }
        let there = match &flight {
            Some(flight) => readable(flight, at).await?.min(end),
            None => end,
        };
        let want = (there - at).min(CHUNK);
        let mut piece = Vec::with_capacity(usize::try_from(want).unwrap_or(0));
        if (&mut file).take(want).read_to_end(&mut piece).await? == 0 {
            return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the cached file became shorter"));
        }
        let at = at + piece.len() as u64;
        Ok(Some((Bytes::from(piece), (file, flight, lease, at, end))))
    });
    Ok(Body::from_stream(pieces))
}

/// Waits until there is something behind `at`; returns how much may be read. The last byte comes only after the checksum
/// agrees, so that nobody takes a damaged file for a whole one.
async fn readable(flight: &Reader, at: u64) -> std::io::Result<u64> {
    let last = flight.bytes().saturating_sub(1);
    let mut progress = flight.progress();
    let seen = progress
        .wait_for(|progress| !matches!(progress, Progress::Written(bytes) if *bytes.min(&last) <= at))
        .await
        .map_err(|_| std::io::Error::other("the download ended"))?;
    match &*seen {
        Progress::Written(bytes) => Ok(*bytes.min(&last)),
        Progress::Whole => Ok(u64::MAX),
        Progress::Failed(problem) => Err(std::io::Error::other(problem.clone())),
    }
}
