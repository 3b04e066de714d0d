//! Which address is answered by what.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tower::Service;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use super::error::ApiError;
use super::{
    App, catalogue, connections, files, guard, health, hub, metrics, model, openai, rooms, rooms_socket, runs,
    similarity,
};

/// Addresses of the API: everything below them is JSON, errors too.
const API: [&str; 5] = ["v1", "api", "ws", "health", "metrics"];

/// The server as a service.
#[derive(Clone, Debug)]
pub struct NormalizePath(Router);

/// The server as a service.
#[must_use]
pub fn service(app: App) -> NormalizePath {
    NormalizePath(router(app))
}

impl<B> Service<axum::http::Request<B>> for NormalizePath
where
    Router: Service<axum::http::Request<B>>,
{
    type Response = <Router as Service<axum::http::Request<B>>>::Response;
    type Error = <Router as Service<axum::http::Request<B>>>::Error;
    type Future = <Router as Service<axum::http::Request<B>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        <Router as Service<axum::http::Request<B>>>::poll_ready(&mut self.0, cx)
    }

    fn call(&mut self, request: axum::http::Request<B>) -> Self::Future {
        <Router as Service<axum::http::Request<B>>>::call(&mut self.0, tidy(request))
    }
}

/// An API's address as it was meant: clients put `/v1/` and `/chat/completions` together in all ways.
fn tidy<B>(mut request: axum::http::Request<B>) -> axum::http::Request<B> {
    if let Some(meant) = meant(request.uri()) {
        *request.uri_mut() = meant;
    }
    request
}

/// `None` for an address that is as it should be, or none of the API's.
fn meant(uri: &Uri) -> Option<Uri> {
    let parts: Vec<&str> = uri.path().split('/').filter(|part| !part.is_empty()).collect();
    if !parts.first().is_some_and(|first| API.contains(first)) {
        return None;
    }
    let mut meant = format!("/{}", parts.join("/"));
    if meant == uri.path() {
        return None;
    }
    if let Some(query) = uri.query() {
        meant.push('?');
        meant.push_str(query);
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(meant.parse().ok()?);
    Uri::from_parts(parts).ok()
}

fn router(app: App) -> Router {
    let cors = cors(&app.0.parts.cors_origins);
    let router = Router::new()
        .route("/v1/chat/completions", post(openai::chat))
        .route("/v1/completions", post(openai::completions))
        .route("/v1/embeddings", post(openai::embeddings::create))
        .route("/v1/models", get(openai::models::list))
        .route("/v1/models/{*id}", get(openai::models::one))
        .route("/api/similarity", post(similarity::compare))
        .route("/api/runs", get(runs::list).post(runs::create))
        .route("/api/runs/hyper-parameters", get(runs::hyper_parameters))
        .route("/api/runs/{id}", get(runs::one).delete(runs::delete))
        .route("/api/runs/{id}/metrics", get(runs::metrics))
        .route("/api/runs/{id}/policy", get(runs::policy))
        .route("/api/runs/{id}/curves.svg", get(runs::curves))
        .route("/api/runs/{id}/stop", post(runs::stop))
        .route("/api/runs/{id}/resume", post(runs::resume))
        .route("/api/rooms", post(rooms::create))
        .route("/api/rooms/{code}", get(rooms::one).delete(rooms::delete))
        .route("/api/rooms/{code}/slots.csv", get(rooms::csv))
        .route("/api/rooms/{code}/slots.json", get(rooms::json))
        .route("/ws/rooms/{code}", get(rooms_socket::get))
        .route("/api/model", post(model::change))
        .route("/models/catalogue.json", get(catalogue::list))
        .route("/models/stored/{id}/{file}", get(catalogue::file))
        .route("/models/hub/{organisation}/{repository}/{*path}", get(hub::get))
        .route("/health", get(health::get))
        .route("/metrics", get(metrics::get))
        .method_not_allowed_fallback(wrong_method)
        .fallback(other)
        .layer(middleware::from_fn_with_state(app.clone(), guard::check))
        .layer(middleware::from_fn_with_state(app.clone(), every_answer))
        .with_state(app);
    let router = match cors {
        Some(layer) => router.layer(layer),
        None => router,
    };
    router.layer(middleware::from_fn(connections::mark))
}

async fn wrong_method(request: Request) -> ApiError {
    ApiError::wrong_method(request.method().as_str(), request.uri().path())
}

async fn other(State(app): State<App>, request: Request) -> Response {
    let path = request.uri().path();
    if path.split('/').nth(1).is_some_and(|first| API.contains(&first)) {
        return ApiError::unknown_route(request.method().as_str(), path).into_response();
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let allow = [(header::ALLOW, HeaderValue::from_static("GET,HEAD"))];
        return (allow, wrong_method(request).await).into_response();
    }
    files::respond(app.files(), request.method(), path, request.headers()).await
}

/// Headers that every answer carries, and its place in the counts.
///
/// COOP and COEP isolate the page from other origins, which gives it `SharedArrayBuffer` and fine timers. COEP is
/// `require-corp` and not `credentialless`: everything that the page loads comes from here, and Safari knows only the
/// former.
async fn every_answer(State(app): State<App>, request: Request, next: Next) -> Response {
    const HEADERS: [(HeaderName, HeaderValue); 5] = [
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
        (HeaderName::from_static("cross-origin-embedder-policy"), HeaderValue::from_static("require-corp")),
        (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("files", MatchedPath::as_str).to_owned();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = next.run(request).await;
    let status = response.status().as_u16();
    app.metrics().request(&route, status);
    tracing::debug!(%method, path, status, elapsed_ms = started.elapsed().as_millis() as u64, "answered");
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, value);
    }
    response
}

fn cors(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        // An origin that is no header value can be no page's origin either.
        AllowOrigin::list(origins.iter().filter_map(|origin| origin.trim_end_matches('/').parse().ok()))
    };
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::DELETE])
        // OpenAI's own client for JavaScript sends a dozen headers of its own (`x-stainless-…`), more with every version.
        .allow_headers(AllowHeaders::mirror_request())
        .max_age(Duration::from_secs(600))
        .expose_headers([header::ETAG, header::CONTENT_RANGE, header::CONTENT_LENGTH, header::RETRY_AFTER]);
    Some(layer)
}
