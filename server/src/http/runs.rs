//! `/api/runs`: training as a service; the addresses and their meaning are in [`client::protocol::runs`].
//!
//! What touches the disk runs on the blocking threads, so that a slow disk holds up no other request.

use std::convert::Infallible;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use client::protocol::runs::{END_EVENT, HyperParameters, RESET_EVENT, RunList, RunRequest, RunView};
use futures::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use super::error::ApiError;
use super::json::ApiJson;
use super::{App, Phase};
use crate::runs::follow::{Followed, Place};
use crate::runs::{Runs, RunsError};

/// The number of a run in an address.
#[derive(Clone, Copy, Debug)]
pub struct RunId(i64);

impl FromRequestParts<App> for RunId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let address = (parts.method.to_string(), parts.uri.path().to_owned());
        let unknown = || ApiError::unknown_route(&address.0, &address.1);
        let Path(text) = Path::<String>::from_request_parts(parts, app).await.map_err(|_| unknown())?;
        text.parse().map(Self).map_err(|_| unknown())
    }
}

/// Refuses what another site's page makes a browser send without asking first: a form cannot send JSON, and anything else
/// that changes something is asked for beforehand.
#[derive(Clone, Copy, Debug)]
pub struct OwnPage;

impl FromRequestParts<App> for OwnPage {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, ApiError> {
        let says = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_foreign = matches!(says("sec-fetch-site"), "cross-site" | "same-site");
        let is_json = says("content-type").starts_with("application/json");
        if is_foreign && !is_json { Err(ApiError::not_json()) } else { Ok(Self) }
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

/// `GET /api/runs`
///
/// # Errors
/// The list of runs cannot be read.
pub async fn list(State(app): State<App>) -> Result<Json<RunList>, ApiError> {
    blocking(&app, |runs| runs.list()).await.map(Json)
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
pub async fn stop(State(app): State<App>, RunId(id): RunId, _: OwnPage) -> Result<Json<RunView>, ApiError> {
    blocking(&app, move |runs| runs.stop(id)).await.map(Json)
}

/// `POST /api/runs/{id}/resume`
///
/// # Errors
/// There is no such run, it did not end early, or the server takes no more runs.
pub async fn resume(State(app): State<App>, RunId(id): RunId, _: OwnPage) -> Result<Json<RunView>, ApiError> {
    blocking(&app, move |runs| runs.resume(id)).await.map(Json)
}

/// `GET /api/runs/{id}/policy`
///
/// # Errors
/// There is no such run, or it has no policy yet.
pub async fn policy(State(app): State<App>, RunId(id): RunId) -> Result<Response, ApiError> {
    let bytes = blocking(&app, move |runs| runs.policy(id)).await?;
    let name = format!("attachment; filename=\"run-{id}.safetensors\"");
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_DISPOSITION, name),
        // A run that goes on may find a better one.
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok((headers, bytes).into_response())
}

/// `GET /api/runs/{id}/curves.svg`
///
/// # Errors
/// There is no such run, or it has no picture yet.
pub async fn curves(State(app): State<App>, RunId(id): RunId) -> Result<Response, ApiError> {
    let bytes = blocking(&app, move |runs| runs.curves(id)).await?;
    Ok(([(header::CONTENT_TYPE, "image/svg+xml"), (header::CACHE_CONTROL, "no-store")], bytes).into_response())
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
    let events = ReceiverStream::new(followed).map(event).take_until(going_down);
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

fn event(followed: Followed) -> Result<Event, Infallible> {
    Ok(match followed {
        Followed::Line(place, line) => Event::default().id(place.to_string()).data(line),
        Followed::Reset => Event::default().event(RESET_EVENT).data("{}"),
        Followed::End(view) => {
            // Numbers and names always make JSON.
            Event::default().event(END_EVENT).data(serde_json::to_string(&view).unwrap_or_default())
        }
    })
}
