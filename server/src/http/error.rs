//! Every error of the API, in the shape that OpenAI's clients read:
//! `{"error": {"message", "type", "param", "code"}}`.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::host::HostError;
use crate::host::retry::spread;
use crate::hub::HubError;
use crate::rooms::RoomsError;
use crate::runs::RunsError;

/// An error answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// OpenAI's class of error.
    pub kind: &'static str,
    /// Machine-readable reason.
    pub code: Option<&'static str>,
    /// Which field of the request is wrong.
    pub param: Option<String>,
    /// What happened and what to do about it.
    pub message: String,
    /// When to come back.
    pub retry_after_s: Option<u64>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { status, kind, code, param: None, message: message.into(), retry_after_s: None }
    }

    /// 400 for a request that makes no sense.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", None, message)
    }

    /// 400 for one field.
    pub fn field(param: impl Into<String>, code: &'static str, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), code: Some(code), ..Self::invalid(message) }
    }

    /// 400 for a field of OpenAI's API that is not offered here.
    pub fn unsupported(param: &str, message: impl Into<String>) -> Self {
        Self::field(param, "unsupported_parameter", message)
    }

    /// 404 for a model that is not here.
    #[must_use]
    pub fn unknown_model(model: &str, known: &[String]) -> Self {
        let message = format!("The model '{model}' does not exist here; there is {}.", known.join(", "));
        Self {
            param: Some("model".into()),
            ..Self::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("model_not_found"), message)
        }
    }

    /// 404 for a model that is not on this machine; the message says what to do.
    pub fn no_such_model(message: impl Into<String>) -> Self {
        Self {
            param: Some("model".into()),
            ..Self::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("model_not_found"), message)
        }
    }

    /// 401.
    pub fn unauthorised(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", Some("invalid_api_key"), message)
    }

    /// 403 for what this server does for nobody.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "invalid_request_error", Some("not_allowed"), message)
    }

    /// 409.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "invalid_request_error", Some("wrong_state"), message)
    }

    /// 404 for an address that is none.
    #[must_use]
    pub fn unknown_route(method: &str, path: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "invalid_request_error",
            Some("unknown_url"),
            format!("There is no {method} {path}."),
        )
    }

    /// 404 for a file.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", Some("file_not_found"), message)
    }

    /// 405.
    #[must_use]
    pub fn wrong_method(method: &str, path: &str) -> Self {
        let message = format!("{path} does not take {method}.");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", Some("method_not_supported"), message)
    }

    /// 403 for a name that this server does not answer to.
    #[must_use]
    pub fn wrong_host(host: &str) -> Self {
        let message =
            format!("This server does not answer to the name {host:?}; its owner can allow it with --host NAME.");
        Self::new(StatusCode::FORBIDDEN, "invalid_request_error", Some("host_not_allowed"), message)
    }

    /// 403 for a page of another origin.
    #[must_use]
    pub fn wrong_origin(origin: &str) -> Self {
        let message = format!(
            "This comes from {origin:?}, not from a page of this server; its owner can allow it with --cors-origin."
        );
        Self::new(StatusCode::FORBIDDEN, "invalid_request_error", Some("origin_not_allowed"), message)
    }

    /// 408: the body did not arrive in time.
    #[must_use]
    pub fn too_slow() -> Self {
        let message = "The request's body did not arrive in time.";
        Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", Some("request_timeout"), message)
    }

    /// 413.
    #[must_use]
    pub fn too_large(limit: usize) -> Self {
        let message = format!("The request's body is over the limit of {limit} bytes.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", Some("request_too_large"), message)
    }

    /// 415.
    #[must_use]
    pub fn not_json() -> Self {
        let message = "The request has to say 'Content-Type: application/json'.";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", Some("unsupported_media_type"), message)
    }

    /// 415.
    #[must_use]
    pub fn packed() -> Self {
        let message =
            "The request's body is compressed ('Content-Encoding'), which is not understood; send it as it is.";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", Some("unsupported_media_type"), message)
    }

    /// The body of the answer, also used inside a stream that has already begun.
    #[must_use]
    pub fn body(&self) -> serde_json::Value {
        json!({ "error": {
            "message": self.message, "type": self.kind, "param": self.param, "code": self.code,
        } })
    }
}

impl From<HubError> for ApiError {
    fn from(error: HubError) -> Self {
        let text = error.to_string();
        let mut letters = text.chars();
        let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
        let message = format!("{first}{}.", letters.as_str());
        let server = |status, code| Self::new(status, "server_error", Some(code), message.clone());
        match error {
            HubError::NotFound(_) | HubError::Refused { .. } => Self::not_found(message),
            HubError::TooLarge { .. } => {
                Self::new(StatusCode::FORBIDDEN, "invalid_request_error", Some("file_too_large"), message)
            }
            HubError::Later { retry_after_s } => {
                Self { retry_after_s: Some(retry_after_s), ..server(StatusCode::SERVICE_UNAVAILABLE, "hub_busy") }
            }
            HubError::Busy | HubError::Taken(_) => {
                Self { retry_after_s: Some(spread(10.0)), ..server(StatusCode::SERVICE_UNAVAILABLE, "server_busy") }
            }
            HubError::Full { .. } | HubError::DiskFull { .. } => server(StatusCode::INSUFFICIENT_STORAGE, "cache_full"),
            HubError::Redirect(_) | HubError::Upstream(_) | HubError::Cut { .. } | HubError::Differs { .. } => {
                server(StatusCode::BAD_GATEWAY, "hub_error")
            }
            HubError::Config(_) | HubError::Disk(_) | HubError::Source { .. } | HubError::Stopped => {
                server(StatusCode::INTERNAL_SERVER_ERROR, "hub_error")
            }
        }
    }
}

impl From<HostError> for ApiError {
    fn from(error: HostError) -> Self {
        let message = error.to_string();
        let server = |status, code| Self::new(status, "server_error", Some(code), message.clone());
        match error {
            HostError::Busy { retry_after_s, .. } => {
                Self { retry_after_s: Some(retry_after_s), ..server(StatusCode::SERVICE_UNAVAILABLE, "server_busy") }
            }
            HostError::UpstreamBusy { retry_after_s, .. } => {
                Self { retry_after_s: Some(retry_after_s), ..server(StatusCode::SERVICE_UNAVAILABLE, "server_busy") }
            }
            HostError::ShuttingDown => {
                Self { retry_after_s: Some(spread(10.0)), ..server(StatusCode::SERVICE_UNAVAILABLE, "shutting_down") }
            }
            HostError::PromptTooLong { .. } | HostError::ContextExceeded(_) => {
                Self { code: Some("context_length_exceeded"), ..Self::invalid(message) }
            }
            HostError::Invalid(_) => Self::invalid(message),
            HostError::Field { field, .. } => Self::field(field, "invalid_value", message),
            HostError::Unreachable(_) => server(StatusCode::BAD_GATEWAY, "upstream_unreachable"),
            HostError::Upstream(_) => server(StatusCode::BAD_GATEWAY, "upstream_error"),
            HostError::TimedOut(_) => server(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout"),
            HostError::Engine(_) => server(StatusCode::INTERNAL_SERVER_ERROR, "engine_error"),
        }
    }
}

impl From<RunsError> for ApiError {
    fn from(error: RunsError) -> Self {
        let message = error.to_string();
        let client = |status, code| Self::new(status, "invalid_request_error", Some(code), message.clone());
        let server = |status, code| Self::new(status, "server_error", Some(code), message.clone());
        match error {
            RunsError::Field { param, code, message } => Self::field(param, code, message),
            RunsError::Off(_) => client(StatusCode::FORBIDDEN, "training_off"),
            RunsError::Unknown(_) => client(StatusCode::NOT_FOUND, "run_not_found"),
            RunsError::NotYet { .. } => client(StatusCode::NOT_FOUND, "not_there_yet"),
            RunsError::State { .. } => client(StatusCode::CONFLICT, "wrong_state"),
            RunsError::TooMany(_) => client(StatusCode::CONFLICT, "too_many_runs"),
            RunsError::QueueFull(_) => {
                Self { retry_after_s: Some(spread(30.0)), ..server(StatusCode::SERVICE_UNAVAILABLE, "queue_full") }
            }
            RunsError::Closing => {
                Self { retry_after_s: Some(spread(10.0)), ..server(StatusCode::SERVICE_UNAVAILABLE, "shutting_down") }
            }
            RunsError::Store(_) | RunsError::Train(_) | RunsError::File { .. } => {
                server(StatusCode::INTERNAL_SERVER_ERROR, "storage_failed")
            }
        }
    }
}

impl From<RoomsError> for ApiError {
    fn from(error: RoomsError) -> Self {
        let message = error.to_string();
        let client = |status, code| Self::new(status, "invalid_request_error", Some(code), message.clone());
        let server = |status, code| Self::new(status, "server_error", Some(code), message.clone());
        match error {
            RoomsError::Field { param, .. } => Self::field(param, "invalid_value", message),
            RoomsError::Off(_) => client(StatusCode::FORBIDDEN, "rooms_off"),
            RoomsError::Unknown(_) => client(StatusCode::NOT_FOUND, "room_not_found"),
            RoomsError::Forbidden => client(StatusCode::FORBIDDEN, "wrong_secret"),
            RoomsError::TooMany(_) => {
                Self { retry_after_s: Some(spread(60.0)), ..server(StatusCode::SERVICE_UNAVAILABLE, "too_many_rooms") }
            }
            RoomsError::NoRandom | RoomsError::Policy(_) | RoomsError::Store(_) => {
                server(StatusCode::INTERNAL_SERVER_ERROR, "storage_failed")
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.body())).into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
