//! `POST /api/model`: another model for this server, without a restart, by whoever has the key.
//!
//! The model that answers goes on answering until the new one is in memory; what was asked of it, it answers to its end.

use std::fmt;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

use super::App;
use super::error::ApiError;
use super::json::ApiJson;
use crate::host::Host as _;
use crate::host::local::LocalHost;
use crate::host::swap::Swap;

/// Loads a model by its name in the catalogue. Called on a thread that may block.
pub type Open = dyn Fn(&str) -> Result<LocalHost, OpenError> + Send + Sync;

/// Why there is no other model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Nobody knows it, or it is not on this machine.
    #[error("{0}")]
    NotHere(String),
    /// It cannot be loaded.
    #[error("{0}")]
    Failed(String),
}

/// Changes the model.
#[derive(Clone)]
pub struct ModelSwitch(Arc<Inner>);

struct Inner {
    /// SHA-256 of the key: comparing it takes the same time whatever is given.
    key: [u8; 32],
    swap: Arc<Swap>,
    open: Box<Open>,
    /// Held while one is loaded: two at a time would not make it faster, and take more memory.
    loading: Arc<Mutex<()>>,
}

impl fmt::Debug for ModelSwitch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ModelSwitch").finish_non_exhaustive()
    }
}

impl ModelSwitch {
    /// For whoever gives `key`, what `open` loads takes the place of what is in `swap`.
    #[must_use]
    pub fn new(key: &str, swap: Arc<Swap>, open: Box<Open>) -> Self {
        Self(Arc::new(Inner { key: digest(key), swap, open, loading: Arc::default() }))
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let key =
            given.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        key.is_some_and(|(_, key)| digest(key.trim()) == self.0.key)
    }
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// Which model.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeRequest {
    /// A name of the catalogue.
    model: String,
}

/// Which model answers now.
#[derive(Clone, Debug, Serialize)]
pub struct Changed {
    /// What requests call it.
    id: String,
    /// Name for people.
    name: String,
    /// Longest prompt plus answer, in tokens.
    context_length: Option<usize>,
}

/// `POST /api/model`
///
/// # Errors
/// The key is missing or wrong, nobody may do so here, there is no such model, or it cannot be loaded: the one before answers
/// on.
pub async fn change(
    State(app): State<App>,
    headers: HeaderMap,
    ApiJson(request): ApiJson<ChangeRequest>,
) -> Result<Json<Changed>, ApiError> {
    let switch = app.switch().cloned().ok_or_else(|| {
        ApiError::forbidden(
            "This server's model is not changed while it runs; its owner can start it with --admin-key, without --upstream.",
        )
    })?;
    if !switch.admits(&headers) {
        return Err(ApiError::unauthorised(
            "The header 'Authorization: Bearer KEY' with the server's --admin-key is needed.",
        ));
    }
    let Ok(turn) = Arc::clone(&switch.0.loading).try_lock_owned() else {
        return Err(ApiError::conflict("Another model is being loaded; try again when that is done."));
    };
    // A task of its own: a client that leaves does not stop it half way.
    let changed = tokio::spawn(async move {
        let _turn = turn;
        let loader = switch.clone();
        let loaded = tokio::task::spawn_blocking(move || (loader.0.open)(&request.model)).await;
        let host = loaded.map_err(|error| OpenError::Failed(error.to_string()))??;
        let card = host.model().await;
        tracing::info!(model = card.name, "another model answers from now on");
        // Its end is nobody's concern but the memory's.
        drop(switch.0.swap.replace(host));
        Ok::<_, OpenError>(card)
    });
    match changed.await {
        Ok(Ok(card)) => Ok(Json(Changed { id: card.id, name: card.name, context_length: card.context_length })),
        Ok(Err(OpenError::NotHere(problem))) => Err(ApiError::no_such_model(problem)),
        Ok(Err(OpenError::Failed(problem))) => Err(ApiError::field("model", "cannot_be_loaded", problem)),
        Err(error) => Err(ApiError::field("model", "cannot_be_loaded", error.to_string())),
    }
}
