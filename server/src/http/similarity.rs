//! `POST /api/similarity`: eq. 26–27, one answer against another. The equations live in `client`; what is done here
//! is the embedding.

use axum::Json;
use axum::extract::State;
use client::offload::qos::{Quality, aligned_cosines};
use client::protocol::similarity::{SimilarityRequest, SimilarityResponse};

use super::App;
use super::error::ApiError;
use super::json::ApiJson;

/// Embeds both texts token by token and compares them position by position.
///
/// # Errors
/// Two texts without a token between them, a threshold that no cosine can have, or what the encoder cannot do.
pub async fn compare(
    State(app): State<App>,
    ApiJson(request): ApiJson<SimilarityRequest>,
) -> Result<Json<SimilarityResponse>, ApiError> {
    if !(-1.0..=1.0).contains(&request.threshold) {
        return Err(ApiError::field("threshold", "invalid_value", "'threshold' has to be between -1 and 1."));
    }
    let embedder = app.embedder()?;
    // One after the other: two at once would take two of the model's slots.
    let mut sides = Vec::with_capacity(2);
    for text in [request.reference, request.candidate] {
        // An empty answer is an answer: every token of the other one is without a partner.
        let is_empty = text.trim().is_empty();
        sides.push(if is_empty { Vec::new() } else { embedder.embed(text.into()).await?.content() });
    }
    let cosines = match sides.as_slice() {
        [reference, candidate] => aligned_cosines(reference, candidate),
        _ => Vec::new(),
    };
    let quality = Quality::from_cosines(&cosines, request.threshold)
        .ok_or_else(|| ApiError::field("reference", "invalid_value", "Both texts are empty."))?;
    Ok(Json(SimilarityResponse {
        accuracy: quality.accuracy,
        hallucination: quality.hallucination,
        cosines,
        encoder: embedder.id(),
    }))
}
