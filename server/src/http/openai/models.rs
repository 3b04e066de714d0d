//! `GET /v1/models`

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::http::App;
use crate::http::address::Address;
use crate::http::error::ApiError;

/// Every model that a request may name.
pub async fn list(State(app): State<App>) -> Json<Value> {
    Json(json!({ "object": "list", "data": all(&app).await }))
}

/// One of them.
///
/// # Errors
/// 404 for another one.
pub async fn one(State(app): State<App>, Address(id): Address<String>) -> Result<Json<Value>, ApiError> {
    let models = all(&app).await;
    let known: Vec<String> = models.iter().filter_map(|model| Some(model["id"].as_str()?.to_owned())).collect();
    check(Some(&id), &known)?;
    models.into_iter().find(|model| model["id"] == id).map(Json).ok_or_else(|| ApiError::unknown_model(&id, &known))
}

/// Refuses a model that is not here; naming none is fine.
///
/// # Errors
/// 404.
pub fn check(asked: Option<&str>, known: &[String]) -> Result<(), ApiError> {
    match asked {
        Some(asked) if !known.iter().any(|id| id == asked) => Err(ApiError::unknown_model(asked, known)),
        _ => Ok(()),
    }
}

async fn all(app: &App) -> Vec<Value> {
    let card = app.host().model().await;
    let mut models = vec![json!({
        "id": card.id, "object": "model", "created": 0, "owned_by": "tandem",
        "name": card.name, "context_length": card.context_length, "parameters": card.parameters,
    })];
    if let Ok(embedder) = app.embedder()
        && embedder.id() != card.id
    {
        models.push(json!({ "id": embedder.id(), "object": "model", "created": 0, "owned_by": "tandem" }));
    }
    models
}
