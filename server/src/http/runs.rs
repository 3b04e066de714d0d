//! `/api/runs`: training as a service; the addresses and their meaning are in [`client::protocol::runs`].
//!
//! What touches the disk runs on the blocking threads, so that a slow disk holds up no other request.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use client::protocol::runs::{HyperParameters, RunRequest, RunView};
use futures::StreamExt as _;
use serde::Deserialize;

use super::address::Address;
use super::error::ApiError;
use super::files::source::chunks;
use super::files::{self, csp, encoding};
use super::json::ApiJson;
use super::{App, Phase};
use crate::runs::follow::Place;
use crate::runs::page::{self, PageRequest};
use crate::runs::{Runs, RunsError};

/// The number of a run in an address.
#[derive(Clone, Copy, Debug)]
pub struct RunId(i64);

impl FromRequestParts<App> for RunId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let Address(text) = Address::<String>::from_request_parts(parts, app).await?;
        text.parse().map(Self).map_err(|_| ApiError::unknown_route(parts.method.as_str(), parts.uri.path()))
    }
}

async fn blocking<T: Send + 'static>(
    app: &App,
    work: impl FnOnce(Runs) -> Result<T, RunsError> + Send + 'static,
) -> Result<T, ApiError> {
    let runs = app.runs().clone();
    match tokio::task::spawn_blocking(move || work(runs)).await {
        Ok(done) => Ok(done?),
        // Only while the runtime goes down.
        Err(_) => Err(RunsError::Closing.into()),
    }
}

/// Which part of the list is asked for.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Part {
    limit: Option<usize>,
    before: Option<i64>,
}

/// `GET /api/runs`
///
/// # Errors
/// The list of runs cannot be read, or there is no such part of it.
pub async fn list(
    State(app): State<App>,
    part: Result<Query<Part>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Query(part) = part.map_err(|error| ApiError::invalid(format!("{}.", error.body_text())))?;
    let limit = part.limit.unwrap_or(page::USUAL);
    if !(1..=page::MOST).contains(&limit) {
        let message = format!("'limit' has to be between 1 and {}.", page::MOST);
        return Err(ApiError::field("limit", "invalid_value", message));
    }
    let which = PageRequest { limit, before: part.before };
    let page = app.runs().page(which).await?;
    let gzip = encoding::accepts_gzip(&headers);
    let tag = format!("\"{}{}\"", page.tag, if gzip { "-gz" } else { "" });
    let mut out = HeaderMap::new();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // Asked again every time, and answered in a few bytes while nothing has changed.
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    out.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        out.insert(header::ETAG, tag);
    }
    if files::matches_any(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, out).into_response());
    }
    if gzip {
        out.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok((out, if gzip { page.gzip.clone() } else { page.json.clone() }).into_response())
}

/// `GET /api/runs/hyper-parameters`
pub async fn hyper_parameters() -> Json<HyperParameters> {
    Json(crate::runs::request::hyper_parameters())
}

/// `POST /api/runs`
///
/// # Errors
/// What is wrong with the request, or why the server takes no more runs.
pub async fn create(State(app): State<App>, ApiJson(request): ApiJson<RunRequest>) -> Result<Response, ApiError> {
    let view = blocking(&app, move |runs| runs.create(&request)).await?;
    let location = [(header::LOCATION, format!("/api/runs/{}", view.id))];
    Ok((StatusCode::CREATED, location, Json(view)).into_response())
}

/// `GET /api/runs/{id}`
///
/// # Errors
/// There is no such run.
pub async fn one(State(app): State<App>, RunId(id): RunId) -> Result<Json<RunView>, ApiError> {
    blocking(&app, move |runs| runs.get(id)).await.map(Json)
}

/// `DELETE /api/runs/{id}`
///
/// # Errors
/// There is no such run, or it learns at present.
pub async fn delete(State(app): State<App>, RunId(id): RunId) -> Result<StatusCode, ApiError> {
    blocking(&app, move |runs| runs.delete(id)).await.map(|()| StatusCode::NO_CONTENT)
}

/// `POST /api/runs/{id}/stop`
///
/// # Errors
/// There is no such run, or it neither learns nor waits.
pub async fn stop(State(app): State<App>, RunId(id): RunId) -> Result<Json<RunView>, ApiError> {
    blocking(&app, move |runs| runs.stop(id)).await.map(Json)
}

/// `POST /api/runs/{id}/resume`
///
/// # Errors
/// There is no such run, it did not end early, or the server takes no more runs.
pub async fn resume(State(app): State<App>, RunId(id): RunId) -> Result<Json<RunView>, ApiError> {
    blocking(&app, move |runs| runs.resume(id)).await.map(Json)
}

/// `GET /api/runs/{id}/policy`
///
/// # Errors
/// There is no such run, or it has no policy yet.
pub async fn policy(State(app): State<App>, RunId(id): RunId) -> Result<Response, ApiError> {
    let file = blocking(&app, move |runs| runs.policy(id)).await?;
    let name = format!("attachment; filename=\"run-{id}.safetensors\"");
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_DISPOSITION, name),
        // A run that goes on may find a better one.
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok((headers, taken(file)).into_response())
}

/// A file that is read as its client takes it, and its length.
fn taken((file, length): (std::fs::File, u64)) -> impl IntoResponse {
    ([(header::CONTENT_LENGTH, length)], chunks(tokio::fs::File::from_std(file), length))
}

/// `GET /api/runs/{id}/curves.svg`
///
/// # Errors
/// There is no such run, or it has no picture yet.
pub async fn curves(State(app): State<App>, RunId(id): RunId) -> Result<Response, ApiError> {
    let file = blocking(&app, move |runs| runs.curves(id)).await?;
    let headers = [
        (header::CONTENT_TYPE, "image/svg+xml"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, csp::INERT),
    ];
    Ok((headers, taken(file)).into_response())
}

/// `GET /api/runs/{id}/metrics`
///
/// # Errors
/// There is no such run.
pub async fn metrics(State(app): State<App>, RunId(id): RunId, headers: HeaderMap) -> Result<Response, ApiError> {
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    // An id that is none of ours is a reader that has nothing.
    let from: Option<Place> = last.and_then(|text| text.parse().ok());
    let followed = blocking(&app, move |runs| runs.follow(id, from)).await?;
    let mut phase = app.phase();
    let going_down = async move {
        let _ = phase.wait_for(|phase| *phase > Phase::Running).await;
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        // nginx would collect the whole stream first.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((headers, Body::from_stream(followed.take_until(going_down))).into_response())
}
