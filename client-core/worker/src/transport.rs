//! The server's API over fetch.

use std::collections::VecDeque;

use async_trait::async_trait;
use futures::StreamExt;

use super::fetch::{self, Ask};
use client::download::{Opened, Source, SourceError};
use client::offload::openai::{ChatDecoder, ChatRequest, error_message};
use client::offload::ports::{ChatStream, Transport, TransportError};
use client::protocol::similarity::{SimilarityRequest, SimilarityResponse};

/// The server at a URL that ends in a slash; without one there is none.
#[derive(Clone, Debug, Default)]
pub struct Server {
    base_url: String,
}

impl Server {
    /// The server at `base_url`; a missing slash at the end is added. An empty one means that there is none.
    #[must_use]
    pub fn at(base_url: &str) -> Self {
        if base_url.is_empty() {
            return Self::default();
        }
        Self { base_url: format!("{}/", base_url.trim_end_matches('/')) }
    }

    /// Whether there is no server.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.base_url.is_empty()
    }

    /// The URL of something on the server, from its path without a slash at the beginning.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base_url)
    }

    async fn post(&self, path: &str, body: &impl serde::Serialize) -> Result<fetch::Reply, TransportError> {
        let json = serde_json::to_string(body).map_err(|error| TransportError::Malformed(error.to_string()))?;
        let url = self.url(path);
        let ask = Ask { url: &url, json: Some(json), from: 0 };
        let reply = fetch::send(ask).await.map_err(TransportError::Unreachable)?;
        let status = reply.status();
        if (200..=299).contains(&status) {
            return Ok(reply);
        }
        // A body that breaks off is no more than a missing explanation.
        let message = error_message(&reply.text().await.unwrap_or_default());
        Err(TransportError::Refused { status, message })
    }
}

#[async_trait(?Send)]
impl Transport for Server {
    async fn chat(&self, request: &ChatRequest) -> Result<ChatStream, TransportError> {
        let reply = self.post("v1/chat/completions", request).await?;
        let chunks = reply.chunks().map_err(TransportError::Malformed)?;
        let state = Some((chunks, ChatDecoder::default(), VecDeque::new()));
        let stream = futures::stream::unfold(state, |state| async move {
            let (mut chunks, mut decoder, mut pieces) = state?;
            loop {
                if let Some(piece) = pieces.pop_front() {
                    return Some((Ok(piece), Some((chunks, decoder, pieces))));
                }
                if decoder.is_closed() {
                    return None;
                }
                let fresh = match chunks.next().await {
                    Some(Ok(chunk)) => decoder.push(&chunk),
                    Some(Err(problem)) => Err(TransportError::Broken(problem)),
                    None => match decoder.rest() {
                        Ok(last) if !last.is_empty() => Ok(last),
                        // Some engines close the connection instead of saying that they are done.
                        Ok(_) if decoder.is_finished() => return None,
                        Ok(_) => Err(TransportError::Broken("the answer has no end".to_owned())),
                        Err(error) => Err(error),
                    },
                };
                match fresh {
                    Ok(fresh) => pieces.extend(fresh),
                    Err(error) => return Some((Err(error), None)),
                }
            }
        });
        Ok(stream.boxed_local())
    }

    async fn similarity(&self, request: &SimilarityRequest) -> Result<SimilarityResponse, TransportError> {
        let text = self.post("api/similarity", request).await?.text().await.map_err(TransportError::Broken)?;
        serde_json::from_str(&text).map_err(|error| TransportError::Malformed(error.to_string()))
    }
}

#[async_trait(?Send)]
impl Source for Server {
    async fn open(&self, url: &str, from: u64) -> Result<Opened, SourceError> {
        let reply = fetch::send(Ask { url, json: None, from }).await.map_err(SourceError::Cut)?;
        let begins_at = match reply.status() {
            206 => reply.header("content-range").as_deref().and_then(range_start).unwrap_or(from),
            200..=299 => 0,
            status => return Err(SourceError::Status(status)),
        };
        let chunks = reply.chunks().map_err(SourceError::Cut)?;
        Ok(Opened { begins_at, body: chunks.map(|chunk| chunk.map_err(SourceError::Cut)).boxed_local() })
    }
}

/// The first byte of a `Content-Range: bytes 100-199/200`.
fn range_start(header: &str) -> Option<u64> {
    header.trim().strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}
