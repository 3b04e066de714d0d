//! `POST /v1/embeddings`: mean-pooled, of length 1.

use axum::Json;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::models;
use crate::host::{HostError, Passage};
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
    user: Option<String>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// One text's vector. Written as it is: an f32 that becomes an f64 on its way shows digits that nobody computed.
#[derive(Debug, Serialize)]
struct Item {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Vector {
    Floats(Vec<f32>),
    Base64(String),
}

/// The answer.
#[derive(Debug, Serialize)]
pub struct EmbeddingsResponse {
    object: &'static str,
    model: String,
    data: Vec<Item>,
    usage: Value,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string, a list of strings, a list of token ids, or a list of such lists")]
enum Input {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    ManyTokens(Vec<Vec<u32>>),
}

impl Input {
    fn into_passages(self) -> Vec<Passage> {
        match self {
            Self::Text(text) => vec![text.into()],
            Self::Texts(texts) => texts.into_iter().map(Passage::from).collect(),
            Self::Tokens(ids) => vec![Passage::Tokens(ids)],
            Self::ManyTokens(many) => many.into_iter().map(Passage::Tokens).collect(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Float,
    /// Little-endian f32; what OpenAI's own client asks for unasked.
    Base64,
}

/// Embeds every text, or every list of token ids.
///
/// # Errors
/// An empty or over-long text, a token that there is not, too many of them, another model.
pub async fn create(
    State(app): State<App>,
    ApiJson(request): ApiJson<EmbeddingsRequest>,
) -> Result<Json<EmbeddingsResponse>, ApiError> {
    let embedder = app.embedder()?;
    let id = embedder.id();
    models::check(request.model.as_deref(), std::slice::from_ref(&id))?;
    let _who_asks = request.user;
    if let Some((name, _)) = request.others.iter().find(|(_, value)| !value.is_null()) {
        let name: String = name.chars().take(64).collect();
        return Err(ApiError::unsupported(&name, format!("'{name}' is not offered; leave it out.")));
    }
    let passages = request.input.into_passages();
    let limit = app.limits().max_inputs;
    if passages.is_empty() || passages.len() > limit {
        return Err(ApiError::field("input", "invalid_value", format!("'input' takes 1 to {limit} texts.")));
    }
    if let Some(index) = passages.iter().position(Passage::is_empty) {
        return Err(ApiError::field("input", "invalid_value", format!("'input[{index}]' is empty.")));
    }
    let mut data = Vec::with_capacity(passages.len());
    let mut tokens = 0;
    for (index, passage) in passages.into_iter().enumerate() {
        let embeddings = embedder.embed(passage).await.map_err(of_input)?;
        tokens += embeddings.tokens.len();
        let vector = embeddings.pooled();
        if request.dimensions.is_some_and(|asked| usize::try_from(asked) != Ok(vector.len())) {
            let message = format!("'dimensions' can only be {}, what this encoder has.", vector.len());
            return Err(ApiError::field("dimensions", "invalid_value", message));
        }
        let embedding = match request.encoding_format {
            Some(Format::Base64) => {
                let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
                Vector::Base64(STANDARD.encode(bytes))
            }
            Some(Format::Float) | None => Vector::Floats(vector),
        };
        data.push(Item { object: "embedding", index, embedding });
    }
    let usage = json!({ "prompt_tokens": tokens, "total_tokens": tokens });
    Ok(Json(EmbeddingsResponse { object: "list", model: id, data, usage }))
}

/// What is wrong with what is to be embedded is wrong with that field.
fn of_input(error: HostError) -> ApiError {
    let error = ApiError::from(error);
    if error.status.is_client_error() { ApiError { param: Some("input".to_owned()), ..error } } else { error }
}
