//! Parts of an address. One that cannot be read is the address of nothing: a 404 in JSON, as any other.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::App;
use super::error::ApiError;

/// The parts of the route that stand for something.
#[derive(Clone, Copy, Debug)]
pub struct Address<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Address<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        match Path::<T>::from_request_parts(parts, app).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(_) => Err(ApiError::unknown_route(parts.method.as_str(), parts.uri.path())),
        }
    }
}
