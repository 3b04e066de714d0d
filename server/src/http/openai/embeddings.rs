//! `POST /v1/embeddings`: mean-pooled, of length 1.

use axum::Json;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::models;
use crate::http::App;
use crate::http::error::ApiError;
use crate::http::json::ApiJson;

/// The request's body.
#[derive(Clone, Debug, Deserialize)]
pub struct EmbeddingsRequest {
    model: Option<String>,
    input: Input,
    encoding_format: Option<Format>,
    dimensions: Option<i64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
enum Input {
    One(String),
    Many(Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Float,
    /// Little-endian f32; what OpenAI's own client asks for unasked.
    Base64,
}

/// Embeds every text.
///
/// # Errors
/// An empty or over-long text, too many of them, another model.
pub async fn create(
    State(app): State<App>,
    ApiJson(request): ApiJson<EmbeddingsRequest>,
) -> Result<Json<Value>, ApiError> {
    let embedder = app.embedder()?;
    let id = embedder.id();
    models::check(request.model.as_deref(), std::slice::from_ref(&id))?;
    if request.dimensions.is_some() {
        return Err(ApiError::unsupported("dimensions", "'dimensions' is not offered."));
    }
    let texts = match request.input {
        Input::One(text) => vec![text],
        Input::Many(texts) => texts,
    };
    let limit = app.limits().max_inputs;
    if texts.is_empty() || texts.len() > limit {
        return Err(ApiError::field("input", "invalid_value", format!("'input' takes 1 to {limit} texts.")));
    }
    let mut data = Vec::with_capacity(texts.len());
    let mut tokens = 0;
    for (index, text) in texts.into_iter().enumerate() {
        if text.is_empty() {
            return Err(ApiError::field("input", "invalid_value", format!("'input[{index}]' is empty.")));
        }
        let embeddings = embedder.embed(text).await?;
        tokens += embeddings.tokens.len();
        let vector = embeddings.pooled();
        let embedding = match request.encoding_format {
            Some(Format::Base64) => {
                let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
                json!(STANDARD.encode(bytes))
            }
            Some(Format::Float) | None => json!(vector),
        };
        data.push(json!({ "object": "embedding", "index": index, "embedding": embedding }));
    }
    Ok(Json(json!({
        "object": "list", "model": id, "data": data,
        "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
    })))
}
