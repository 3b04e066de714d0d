//! `GET /health`

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use client::protocol::health::{Health, HealthModel, HealthProgress, HealthStatus};

use super::{App, Phase};

/// Answers 200 as long as the process lives; `status` says whether it takes work.
pub async fn get(State(app): State<App>) -> Response {
    let model = app.host().model_now().await;
    let load = app.host().load();
    let status = if *app.phase().borrow() == Phase::Running { HealthStatus::Ok } else { HealthStatus::Draining };
    let health = Health {
        status,
        version: env!("CARGO_PKG_VERSION").into(),
        host: app.host().kind(),
        model: HealthModel {
            id: model.id,
            name: model.name,
            context_length: model.context_length,
            vocabulary: app.host().vocabulary(),
        },
        slots: load.slots,
        active: load.active,
        waiting: load.waiting,
        queue: load.capacity,
        progress: app.host().progress().map(|progress| HealthProgress {
            tokens_per_s: progress.tokens_per_s,
            prefix_lookups: progress.prefix_lookups,
            prefix_hits: progress.prefix_hits,
        }),
    };
    ([(header::CACHE_CONTROL, "no-store")], Json(health)).into_response()
}
