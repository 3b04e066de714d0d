//! Reads a JSON body, and says exactly what is wrong with one that cannot be read.

use axum::body::{HttpBody as _, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::header;
use serde::de::DeserializeOwned;

use super::App;
use super::error::ApiError;

/// A JSON body of at most `--max-body` bytes.
#[derive(Clone, Copy, Debug)]
pub struct ApiJson<T>(pub T);

impl<T: DeserializeOwned> FromRequest<App> for ApiJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        // A browser sends JSON to a foreign server only after asking it; plain text it would send at once. Insisting on
        // the type keeps other sites' pages from using this server unasked.
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let kind = kind.split(';').next().unwrap_or("").trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            return Err(ApiError::not_json());
        }
        let limit = app.limits().max_body_bytes;
        let body = request.into_body();
        if body.size_hint().lower() > limit as u64 {
            return Err(ApiError::too_large(limit));
        }
        let bytes = to_bytes(body, limit).await.map_err(|error| {
            let is_over = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source())
                .any(|cause| cause.to_string().contains("length limit exceeded"));
            if is_over { ApiError::too_large(limit) } else { ApiError::invalid("The request's body broke off.") }
        })?;
        parse(&bytes).map(Self)
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if inner.is_data() && path != "." {
            ApiError::field(path.clone(), "invalid_type", format!("'{path}': {inner}"))
        } else if inner.is_data() {
            ApiError::invalid(inner.to_string())
        } else {
            ApiError::invalid(format!("The request's body is not valid JSON: {inner}"))
        }
    })?;
    reader.end().map_err(|error| ApiError::invalid(format!("The request's body is not valid JSON: {error}")))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Outer {
        #[serde(default, rename = "list")]
        _list: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    struct Inner {
        #[serde(rename = "size")]
        _size: u8,
    }

    #[test]
    fn names_what_is_wrong() {
        for (body, param, says) in [
            (r#"{"list":[{"size":1},{"size":"big"}]}"#, Some("list[1].size"), "expected u8"),
            (r#"{"list":[{}]}"#, Some("list[0]"), "missing field `size`"),
            (r#"{"list":3}"#, Some("list"), "expected a sequence"),
            ("3", None, "expected struct"),
            (r#"{"list":["#, None, "not valid JSON"),
            (r#"{"list":[]} x"#, None, "not valid JSON"),
            ("", None, "not valid JSON"),
        ] {
            let error = parse::<Outer>(body.as_bytes()).unwrap_err();
            assert_eq!(error.param.as_deref(), param, "{body}: {error:?}");
            assert!(error.message.contains(says), "{body}: {error:?}");
        }
        assert!(parse::<Outer>(b"{\"list\":[{\"size\":1}], \"other\": null}\n").is_ok());
    }
}
