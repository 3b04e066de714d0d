//! An engine's errors, in its own words and ours.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;

use crate::host::{HostError, retry};

/// How much of an engine's error text is passed on, and how much of an answer that is one is read, and for how long.
const MAX_ERROR_CHARS: usize = 400;
const MAX_ERROR_BYTES: usize = 64 << 10;
const ERROR_TIME: Duration = Duration::from_secs(5);
/// Longest time after which a client is told to come back, seconds.
const MAX_RETRY_S: u64 = 600;

/// A refusal.
#[derive(Debug)]
pub struct Trouble {
    /// For our client.
    pub error: HostError,
    status: Option<StatusCode>,
    text: String,
}

impl From<HostError> for Trouble {
    fn from(error: HostError) -> Self {
        Self { error, status: None, text: String::new() }
    }
}

impl Trouble {
    /// Whether the engine refuses this field of a request.
    #[must_use]
    pub fn is_about(&self, field: &str, body: &Value) -> bool {
        self.status.is_some_and(|status| matches!(status.as_u16(), 400 | 422))
            && body.get(field).is_some()
            && self.text.contains(field)
    }
}

/// All of a body of which the first bytes have been read, unless it is longer than `limit`.
///
/// # Errors
/// The body is too long, or breaks off.
pub async fn read_bounded(first: Vec<u8>, mut response: reqwest::Response, limit: usize) -> Result<Vec<u8>, HostError> {
    let mut bytes = first;
    while let Some(chunk) = response.chunk().await.map_err(|error| transport(&error))? {
        if bytes.len() + chunk.len() > limit {
            return Err(HostError::Upstream(format!("its answer is longer than {limit} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The beginning of an error's body; what does not come is left out.
async fn beginning(mut response: reqwest::Response) -> String {
    let mut bytes = Vec::new();
    let read = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            let room = MAX_ERROR_BYTES - bytes.len();
            bytes.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
            if bytes.len() >= MAX_ERROR_BYTES {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(ERROR_TIME, read).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Passes a success on; turns the engine's own error into ours.
///
/// # Errors
/// [`Trouble`].
pub async fn checked(response: reqwest::Response) -> Result<reqwest::Response, Trouble> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    if status.is_redirection() {
        let target = header(reqwest::header::LOCATION).unwrap_or_default();
        let why = format!("it redirects to {}, which is not where it is", one_line(&target));
        return Err(HostError::Upstream(why).into());
    }
    let retry_after_s = header(reqwest::header::RETRY_AFTER).and_then(|value| value.trim().parse().ok());
    let retry_after_s = retry_after_s.map_or_else(|| retry::spread(5.0), |seconds: u64| seconds.min(MAX_RETRY_S));
    let text = beginning(response).await;
    let body: Value = serde_json::from_str(&text).unwrap_or_default();
    let message = message(&body).unwrap_or_else(|| text.clone());
    let message = match message.trim() {
        "" => status.canonical_reason().unwrap_or("no reason").to_owned(),
        message => one_line(message),
    };
    let inner = body.get("error").unwrap_or(&body);
    let is_context = inner["code"] == "context_length_exceeded" || inner["type"] == "exceed_context_size_error";
    let error = match status.as_u16() {
        429 | 503 => HostError::UpstreamBusy { message, retry_after_s },
        // Our own key or the model's name is wrong: the person at the server has to act, not the client.
        401 | 403 | 404 => HostError::Upstream(format!("{status}: {message}")),
        400..=499 if is_context => match (inner["n_prompt_tokens"].as_u64(), inner["n_ctx"].as_u64()) {
            (Some(tokens), Some(context)) => {
                HostError::PromptTooLong { tokens: tokens as usize, context: context as usize }
            }
            _ => HostError::ContextExceeded(message),
        },
        400..=499 => HostError::Invalid(message),
        _ => HostError::Upstream(format!("{status}: {message}")),
    };
    Err(Trouble { error, status: Some(status), text })
}

/// The message of an error in any of the shapes that engines give them; `None` where there is none.
#[must_use]
pub fn message(body: &Value) -> Option<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let error = body.get("error").filter(|error| !error.is_null());
    if let Some(error) = error {
        return Some(text(&error["message"]).or_else(|| text(error)).unwrap_or_else(|| error.to_string()));
    }
    // FastAPI's, in a text or a list of what is wrong where; then vLLM's older one.
    let detail = |detail: &Value| match detail {
        Value::Array(all) => Some(all.iter().map(describe).collect::<Vec<_>>().join("; ")),
        other => text(other),
    };
    detail(&body["detail"]).or_else(|| text(&body["message"]))
}

fn describe(detail: &Value) -> String {
    let place: Vec<String> = detail["loc"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned))
        .collect();
    match detail["msg"].as_str() {
        Some(says) => format!("{}: {says}", place.join(".")),
        None => detail.to_string(),
    }
}

/// Somebody else's text for a log and a message: one line, of a length that can be read.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut line = String::new();
    for (index, letter) in text.trim().chars().enumerate() {
        if index == MAX_ERROR_CHARS {
            line.push('…');
            break;
        }
        match letter {
            '\n' | '\t' => line.push(' '),
            // C0, DEL, C1, and what turns the order of letters around.
            letter if letter.is_control() || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                line.extend(letter.escape_unicode());
            }
            letter => line.push(letter),
        }
    }
    line
}

/// What went wrong on the way. The URL is left out: it may hold a password.
#[must_use]
pub fn transport(error: &reqwest::Error) -> HostError {
    let text = chain(error);
    if error.is_timeout() {
        HostError::TimedOut(text)
    } else if error.is_connect() || error.is_request() {
        HostError::Unreachable(text)
    } else {
        HostError::Upstream(text)
    }
}

/// An error with its causes, in one line and without the URL.
#[must_use]
pub fn chain(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut source = std::error::Error::source(error);
    if source.is_none() {
        return "the request failed".into();
    }
    while let Some(cause) = source {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    one_line(&text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_in_every_shape() {
        for (body, says) in [
            (json!({"error": {"message": "a", "code": 1}}), Some("a")),
            (json!({"error": "b"}), Some("b")),
            (json!({"error": {"code": 7}}), Some(r#"{"code":7}"#)),
            (json!({"error": null, "detail": "c"}), Some("c")),
            (
                json!({"detail": [{"loc": ["body", "top_k"], "msg": "extra fields not permitted"}, {"loc": ["body", 0], "msg": "d"}]}),
                Some("body.top_k: extra fields not permitted; body.0: d"),
            ),
            (json!({"object": "error", "message": "e"}), Some("e")),
            (json!({"choices": []}), None),
            (json!("f"), None),
        ] {
            assert_eq!(message(&body).as_deref(), says, "{body}");
        }
    }

    #[test]
    fn a_text_makes_one_line_and_moves_no_cursor() {
        assert_eq!(one_line(" a\nb\r\n\u{1b}[2Jc\u{9b}d\u{202e}e "), r"a b\u{d} \u{1b}[2Jc\u{9b}d\u{202e}e");
        assert_eq!(one_line(&"é".repeat(MAX_ERROR_CHARS + 1)).chars().count(), MAX_ERROR_CHARS + 1);
        assert_eq!(one_line("short"), "short");
    }
}
