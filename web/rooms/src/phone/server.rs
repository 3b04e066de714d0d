//! The server's answer to one question, as it is streamed; read by hand (see [`crate::json`] for why).

use client::offload::openai::ChatRequest;
use client::offload::sse::SseParser;
use client::protocol::sampling::Sampling;
use web::api::{self, Ask};
use web_sys::AbortSignal;

use crate::json::Json;

/// Asks the server; every token's text goes to `token`.
///
/// # Errors
/// What the server said, or that it said nothing.
pub async fn answer(question: &str, signal: &AbortSignal, mut token: impl FnMut(&str)) -> Result<(), String> {
    let request = ChatRequest::of_question(&[], question, "", &Sampling::default());
    let body = serde_json::to_string(&request).map_err(|error| error.to_string())?;
    let sent = Ask { path: "v1/chat/completions", json: Some(&body), signal: Some(signal), ..Ask::default() };
    let response = api::send(sent).await?;
    let (mut events, mut is_whole) = (SseParser::default(), false);
    let mut take = |data: &str| {
        if data.trim() == "[DONE]" {
            is_whole = true;
            return Ok(false);
        }
        let json = Json::parse(data).ok_or("its answer cannot be read")?;
        if let Some(error) = json.get("error").known() {
            return Err(error.text("message"));
        }
        let choice = json.get("choices").get("0");
        let text = choice.get("delta").text("content");
        if !text.is_empty() {
            token(&text);
        }
        is_whole |= choice.get("finish_reason").known().is_some();
        Ok(true)
    };
    api::read(response, |bytes| {
        for event in events.push(bytes).map_err(|error| error.to_string())? {
            if !take(&event.data)? {
                return Ok(false);
            }
        }
        Ok(true)
    })
    .await?;
    // Some engines leave out the blank line behind the last event; half of one is a connection that was cut.
    if let Some(last) = events.rest().filter(|last| last.data.trim() == "[DONE]" || Json::parse(&last.data).is_some()) {
        take(&last.data)?;
    }
    if is_whole { Ok(()) } else { Err("the connection was cut".to_owned()) }
}
