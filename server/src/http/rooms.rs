//! `/api/rooms`: live rooms; the addresses and their meaning are in [`client::protocol::rooms::rest`]. The rooms' WebSockets
//! are in [`super::rooms_socket`].

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use client::protocol::rooms::CloseReason;
use client::protocol::rooms::rest::{NewRoom, RoomInfo};

use super::App;
use super::address::Address;
use super::error::ApiError;
use super::json::ApiJson;
use crate::rooms::export::{Export, Form};
use crate::rooms::{Rooms, RoomsError};

async fn blocking<T: Send + 'static>(
    app: &App,
    work: impl FnOnce(Rooms) -> Result<T, RoomsError> + Send + 'static,
) -> Result<T, ApiError> {
    let rooms = app.rooms().clone();
    match tokio::task::spawn_blocking(move || work(rooms)).await {
        Ok(done) => Ok(done?),
        // Only while the runtime goes down.
        Err(_) => Err(RoomsError::Off("it is going down.".to_owned()).into()),
    }
}

/// The secret of `Authorization: Bearer SECRET`.
fn secret(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, secret) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim().to_owned())
}

/// `POST /api/rooms`
///
/// # Errors
/// What is wrong with the request, or why the server makes no more rooms.
pub async fn create(State(app): State<App>, ApiJson(request): ApiJson<NewRoom>) -> Result<Response, ApiError> {
    let made = blocking(&app, move |rooms| rooms.create(request)).await?;
    let headers = [
        (header::LOCATION, format!("/api/rooms/{}", made.code)),
        // The secret is in it.
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok((StatusCode::CREATED, headers, Json(made)).into_response())
}

/// `GET /api/rooms/{code}`
///
/// # Errors
/// There is no such room.
pub async fn one(State(app): State<App>, Address(code): Address<String>) -> Result<Response, ApiError> {
    let info: RoomInfo = app.rooms().get(&code)?.info();
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(info)).into_response())
}

/// `DELETE /api/rooms/{code}`
///
/// # Errors
/// There is no such room, or the secret is missing or wrong.
pub async fn delete(
    State(app): State<App>,
    Address(code): Address<String>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    app.rooms().get_with(&code, secret(&headers).as_deref())?.close(CloseReason::RoomClosed);
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /api/rooms/{code}/slots.csv`
///
/// # Errors
/// There is no such room, or the secret is missing or wrong.
pub async fn csv(state: State<App>, path: Address<String>, headers: HeaderMap) -> Result<Response, ApiError> {
    export(state, path, headers, Form::Csv).await
}

/// `GET /api/rooms/{code}/slots.json`
///
/// # Errors
/// There is no such room, or the secret is missing or wrong.
pub async fn json(state: State<App>, path: Address<String>, headers: HeaderMap) -> Result<Response, ApiError> {
    export(state, path, headers, Form::Json).await
}

async fn export(
    State(app): State<App>,
    Address(code): Address<String>,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, ApiError> {
    let room = app.rooms().get_with(&code, secret(&headers).as_deref())?;
    let (ending, kind) = match form {
        Form::Csv => ("csv", "text/csv; charset=utf-8"),
        Form::Json => ("json", "application/json"),
    };
    let name = format!("attachment; filename=\"room-{}.{ending}\"", room.code());
    // A piece is read when the last one has been taken.
    let pieces = futures::stream::try_unfold((room, Export::new(form)), |(room, mut export)| async move {
        let read = tokio::task::spawn_blocking(move || {
            let piece = export.next(&room);
            (room, export, piece)
        });
        let (room, export, piece) = read.await.map_err(std::io::Error::other)?;
        let piece = piece.map_err(std::io::Error::other)?;
        Ok::<_, std::io::Error>(piece.map(|piece| (Bytes::from(piece), (room, export))))
    });
    let mut out = HeaderMap::new();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(name) = HeaderValue::from_str(&name) {
        out.insert(header::CONTENT_DISPOSITION, name);
    }
    Ok((out, Body::from_stream(pieces)).into_response())
}
