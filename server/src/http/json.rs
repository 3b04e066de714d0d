//! Reads a JSON body, and says exactly what is wrong with one that cannot be read.
//!
//! Three things that JSON leaves open are read as they are meant: `16.0` is a whole number; half of a surrogate pair (which
//! JavaScript writes for a text that was cut in the middle of a character) is U+FFFD; of two fields of one name the last
//! counts.

use axum::body::{HttpBody as _, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::header;
use serde::de::DeserializeOwned;
use serde_json::{Number, Value};

use super::App;
use super::error::ApiError;
use crate::surrogates::whole_characters;

/// From here on a float no longer tells neighbouring whole numbers apart.
const EXACT: f64 = 9_007_199_254_740_992.0;

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
        let packed = request.headers().get(header::CONTENT_ENCODING);
        if packed.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(ApiError::packed());
        }
        let limit = app.limits().max_body_bytes;
        let body = request.into_body();
        if body.size_hint().lower() > limit as u64 {
            return Err(ApiError::too_large(limit));
        }
        let read = tokio::time::timeout(app.limits().body_time, to_bytes(body, limit));
        let bytes = read.await.map_err(|_| ApiError::too_slow())?.map_err(|error| {
            let is_over = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source())
                .any(|cause| cause.to_string().contains("length limit exceeded"));
            if is_over { ApiError::too_large(limit) } else { ApiError::invalid("The request's body broke off.") }
        })?;
        // A list would be taken for the fields of what is wanted, in their order.
        if bytes.trim_ascii_start().first() == Some(&b'[') {
            return Err(ApiError::invalid("The request's body has to be a JSON object, not a list."));
        }
        parse(&bytes).map(Self)
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let broken = |error: serde_json::Error| ApiError::invalid(format!("The request's body is not valid JSON: {error}"));
    let mut value: Value = serde_json::from_slice(&whole_characters(bytes)).map_err(broken)?;
    whole_numbers(&mut value);
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        // Two names of one field.
        let twice = inner.to_string();
        let twice = twice.strip_prefix("duplicate field `").and_then(|rest| rest.split('`').next());
        match path.as_str() {
            "." if twice.is_some() => {
                let name = twice.unwrap_or_default();
                ApiError::field(name, "invalid_value", format!("'{name}' is given twice, under two of its names."))
            }
            "." => ApiError::invalid(inner.to_string()),
            _ => ApiError::field(path.clone(), "invalid_type", format!("'{path}': {inner}")),
        }
    })
}

/// `16.0` → `16`. A field that takes fractions takes whole numbers, too.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(float) = number.as_f64()
                && number.is_f64()
                && float.fract() == 0.0
                && float.abs() < EXACT
            {
                *number = Number::from(float as i64);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Outer {
        #[serde(default, rename = "list", alias = "rows")]
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
            (r#"{"list":[{"size":1.5}]}"#, Some("list[0].size"), "expected u8"),
            (r#"{"list":[{}]}"#, Some("list[0]"), "missing field `size`"),
            (r#"{"list":3}"#, Some("list"), "expected a sequence"),
            (r#"{"list":[],"rows":[]}"#, Some("list"), "given twice"),
            ("3", None, "expected struct"),
            (r#"{"list":["#, None, "not valid JSON"),
            (r#"{"list":[]} x"#, None, "not valid JSON"),
            ("", None, "not valid JSON"),
        ] {
            let error = parse::<Outer>(body.as_bytes()).unwrap_err();
            assert_eq!(error.param.as_deref(), param, "{body}: {error:?}");
            assert!(error.message.contains(says), "{body}: {error:?}");
        }
        for body in ["{\"list\":[{\"size\":1}], \"other\": null}\n", r#"{"list":[{"size":16.0},{"size":1e2}]}"#] {
            assert!(parse::<Outer>(body.as_bytes()).is_ok(), "{body}");
        }
    }

    #[test]
    fn whole_numbers_and_no_others() {
        let got: Value = parse(b"[16.0, -2.0, 1e3, 0.5, -0.0, 9007199254740993, 18446744073709551615]").unwrap();
        assert_eq!(got.to_string(), "[16,-2,1000,0.5,0,9007199254740993,18446744073709551615]");
    }

    #[test]
    fn half_a_character_is_replaced() {
        for (body, text) in [
            (r#""a\ud83d""#, "a\u{fffd}"),
            (r#""\ude00b""#, "\u{fffd}b"),
            (r#""\uD83D\uDE00""#, "\u{1f600}"),
            (r#""\ud83d\ud83d\ude00""#, "\u{fffd}\u{1f600}"),
            (r#""\ud83dx\ude00""#, "\u{fffd}x\u{fffd}"),
            (r#""\\ud83d""#, "\\ud83d"),
            (r#""\\\ud83d""#, "\\\u{fffd}"),
            (r#""\n\u00e9""#, "\né"),
        ] {
            assert_eq!(parse::<String>(body.as_bytes()).unwrap(), text, "{body}");
        }
        for body in [r#""\ud83"#, r#""\u"#, "\"\\", r#""\u+123""#] {
            assert!(parse::<String>(body.as_bytes()).is_err(), "{body}");
        }
    }
}
