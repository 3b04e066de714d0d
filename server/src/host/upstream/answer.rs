//! What the engine answers, as our events.

use client::offload::sse::SseParser;
use reqwest::header::CONTENT_TYPE;
use serde_json::Value;
use tokio::sync::mpsc;

use super::trouble::{message, one_line, read_bounded, transport};
use crate::host::{FinishReason, GenerationEvent, HostError, Summary};
use crate::surrogates::whole_characters;

/// Longest answer that is read, in all and in one piece. A context of a million tokens fits.
const MAX_STREAM_BYTES: usize = 1 << 30;
const MAX_TEXT_BYTES: usize = 16 << 20;

/// Turns the engine's events into ours until either side ends.
pub async fn relay(response: reqwest::Response, is_chat: bool, sender: &mpsc::Sender<GenerationEvent>) {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let last = match kind.trim_start().to_ascii_lowercase().starts_with("application/json") {
        // Some engines do not stream, whatever they are asked.
        true => whole(response, is_chat, sender).await,
        false => stream(response, is_chat, sender).await,
    };
    if let Some(last) = last {
        // Nobody listens any more where this fails.
        let _ = sender.send(last).await;
    }
}

/// `None` when our client has left.
async fn stream(
    mut response: reqwest::Response,
    is_chat: bool,
    sender: &mpsc::Sender<GenerationEvent>,
) -> Option<GenerationEvent> {
    let mut reader = SseParser::default();
    let mut answer = Answer::new(is_chat);
    let (mut read, mut ready) = (0usize, Vec::new());
    loop {
        let bytes = match response.chunk().await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Some(answer.end_of_stream()),
            Err(error) => return Some(GenerationEvent::Failed(transport(&error))),
        };
        read = read.saturating_add(bytes.len());
        if read > MAX_STREAM_BYTES {
            return Some(failed(format!("its answer is longer than {MAX_STREAM_BYTES} bytes")));
        }
        let events = match reader.push(&bytes) {
            Ok(events) => events,
            Err(error) => return Some(failed(error.to_string())),
        };
        for event in events {
            if event.data.is_empty() {
                continue;
            }
            let last = answer.take(&event.data, event.event == "error", &mut ready);
            for event in ready.drain(..) {
                sender.send(event).await.ok()?;
            }
            if last.is_some() {
                return last;
            }
        }
    }
}

async fn whole(
    response: reqwest::Response,
    is_chat: bool,
    sender: &mpsc::Sender<GenerationEvent>,
) -> Option<GenerationEvent> {
    let bytes = match read_bounded(response, MAX_TEXT_BYTES).await {
        Ok(bytes) => bytes,
        Err(error) => return Some(GenerationEvent::Failed(error)),
    };
    let mut answer = Answer::new(is_chat);
    let mut ready = Vec::new();
    let last = answer.take(&String::from_utf8_lossy(&bytes), false, &mut ready);
    for event in ready {
        sender.send(event).await.ok()?;
    }
    Some(last.unwrap_or_else(|| answer.end_of_stream()))
}

fn failed(why: impl Into<String>) -> GenerationEvent {
    GenerationEvent::Failed(HostError::Upstream(why.into()))
}

/// One answer as the engine sends it.
struct Answer {
    is_chat: bool,
    pieces: usize,
    finish: Option<FinishReason>,
    usage: Option<(usize, usize)>,
    /// Tokens of the prompt that the engine had kept, where it says so.
    cached: Option<usize>,
    refused: bool,
}

/// The text of a message's content, which may be a list of parts; `None` for what is not text.
fn plain(content: &Value) -> Option<String> {
    match content {
        Value::Null => Some(String::new()),
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => parts.iter().map(|part| part["text"].as_str()).collect(),
        _ => None,
    }
}

impl Answer {
    fn new(is_chat: bool) -> Self {
        Self { is_chat, pieces: 0, finish: None, usage: None, cached: None, refused: false }
    }

    /// Takes one event; returns the one that ends the answer, if it does.
    fn take(&mut self, data: &str, is_error: bool, ready: &mut Vec<GenerationEvent>) -> Option<GenerationEvent> {
        if data.trim() == "[DONE]" {
            return Some(self.end_of_stream());
        }
        let Ok(chunk) = serde_json::from_slice::<Value>(&whole_characters(data.as_bytes())) else {
            return Some(failed(if is_error {
                one_line(data)
            } else {
                "it sent something that is not JSON".to_owned()
            }));
        };
        if is_error || chunk.get("choices").is_none() {
            if let Some(text) = message(&chunk) {
                return Some(failed(one_line(&text)));
            }
            if is_error {
                return Some(failed(one_line(data)));
            }
        }
        // An error beside choices, as some gateways send it.
        if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
            let text = message(&chunk).unwrap_or_else(|| error.to_string());
            return Some(failed(one_line(&text)));
        }
        let tokens = |name: &str| chunk["usage"][name].as_u64().and_then(|count| usize::try_from(count).ok());
        if let (Some(prompt), Some(completion)) = (tokens("prompt_tokens"), tokens("completion_tokens")) {
            self.usage = Some((prompt, completion));
            let cached = chunk["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64();
            self.cached = cached.and_then(|count| usize::try_from(count).ok());
        }
        let choice = &chunk["choices"][0];
        // A whole answer has a message where a stream has deltas.
        let said = if choice["delta"].is_object() { &choice["delta"] } else { &choice["message"] };
        for name in ["reasoning_content", "reasoning"] {
            if let Some(thought) = said[name].as_str().filter(|thought| self.is_chat && !thought.is_empty()) {
                self.pieces += 1;
                ready.push(GenerationEvent::Reasoning(thought.to_owned()));
                break;
            }
        }
        let Some(mut text) = plain(if self.is_chat { &said["content"] } else { &choice["text"] }) else {
            return Some(failed("it sent content that is not text"));
        };
        if let Some(refusal) = said["refusal"].as_str().filter(|refusal| !refusal.is_empty()) {
            text.push_str(refusal);
            self.refused = true;
        }
        let scores = choice.get("logprobs").filter(|scores| !scores.is_null());
        if !text.is_empty() || scores.is_some() {
            self.pieces += 1;
            ready.push(match scores {
                Some(scores) => GenerationEvent::Scored(text, scores.clone()),
                None => GenerationEvent::Text(text),
            });
        }
        let reason = choice["finish_reason"].as_str().unwrap_or_default();
        match reason.to_ascii_lowercase().as_str() {
            // Some engines send an empty one with every piece.
            "" => {}
            "stop" | "end_turn" | "stop_sequence" | "eos" | "eos_token" => self.finish = Some(FinishReason::Stop),
            "length" | "max_tokens" | "max_output_tokens" => self.finish = Some(FinishReason::Length),
            "content_filter" | "safety" | "recitation" | "refusal" => self.finish = Some(FinishReason::Filtered),
            // Tool calls among them, which nobody here asked for: what it says is not an answer, or not all of it.
            _ => return Some(failed(format!("it ended the answer with {:?}", one_line(reason)))),
        }
        if self.refused && self.finish == Some(FinishReason::Stop) {
            self.finish = Some(FinishReason::Filtered);
        }
        None
    }

    /// An answer without a finish reason was cut off on the way.
    fn end_of_stream(&self) -> GenerationEvent {
        let Some(finish) = self.finish else { return failed("it broke off in the middle of the answer") };
        // Engines that count nothing send about one piece a token.
        let (prompt_tokens, completion_tokens) = self.usage.unwrap_or((0, self.pieces));
        let cached_tokens = self.cached;
        let summary =
            Summary { finish, prompt_tokens, cached_tokens, completion_tokens, prefill_s: None, decode_s: None };
        GenerationEvent::Done(summary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(answer: &mut Answer, data: &str) -> (Vec<GenerationEvent>, Option<GenerationEvent>) {
        let mut ready = Vec::new();
        let last = answer.take(data, false, &mut ready);
        (ready, last)
    }

    #[test]
    fn an_answer_without_a_finish_reason_was_cut_off() {
        let mut answer = Answer::new(true);
        let (ready, _) = take(&mut answer, r#"{"choices":[{"delta":{"content":"a"},"finish_reason":""}]}"#);
        assert!(matches!(&ready[..], [GenerationEvent::Text(text)] if text == "a"));
        for _ in 0..2 {
            assert!(matches!(answer.end_of_stream(), GenerationEvent::Failed(HostError::Upstream(_))));
        }
        assert!(matches!(take(&mut answer, "[DONE]").1, Some(GenerationEvent::Failed(_))));
        take(&mut answer, r#"{"choices":[{"delta":{},"finish_reason":"length"}]}"#);
        let GenerationEvent::Done(summary) = answer.end_of_stream() else { panic!("it is complete") };
        assert_eq!((summary.finish, summary.completion_tokens), (FinishReason::Length, 1));
        take(&mut answer, r#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":9}}"#);
        let Some(GenerationEvent::Done(summary)) = take(&mut answer, "[DONE]").1 else { panic!("it is complete") };
        assert_eq!((summary.prompt_tokens, summary.completion_tokens), (5, 9));
    }

    #[test]
    fn thoughts_and_log_probabilities_are_passed_on() {
        let mut answer = Answer::new(true);
        for name in ["reasoning_content", "reasoning"] {
            let (ready, _) =
                take(&mut answer, &format!(r#"{{"choices":[{{"delta":{{"{name}":"hm","content":null}}}}]}}"#));
            assert!(matches!(&ready[..], [GenerationEvent::Reasoning(text)] if text == "hm"), "{ready:?}");
        }
        let (ready, _) =
            take(&mut answer, r#"{"choices":[{"delta":{"content":"a"},"logprobs":{"content":[{"logprob":-1}]}}]}"#);
        let [GenerationEvent::Scored(text, scores)] = &ready[..] else { panic!("{ready:?}") };
        assert_eq!((text.as_str(), &scores["content"][0]["logprob"]), ("a", &serde_json::json!(-1)));
    }

    #[test]
    fn a_whole_answer_where_a_stream_was_asked_for() {
        let mut answer = Answer::new(true);
        let data = r#"{"choices":[{"message":{"content":"Paris"},"finish_reason":"stop"}],"usage":{"prompt_tokens":2,"completion_tokens":1}}"#;
        let (ready, last) = take(&mut answer, data);
        assert!(matches!(&ready[..], [GenerationEvent::Text(text)] if text == "Paris") && last.is_none());
        assert!(matches!(answer.end_of_stream(), GenerationEvent::Done(summary) if summary.prompt_tokens == 2));
    }

    #[test]
    fn how_answers_end() {
        for (chunk, says, expect) in [
            (r#"{"delta":{"content":"x\ud83d"},"finish_reason":"stop"}"#, "x\u{fffd}", Some(FinishReason::Stop)),
            (r#"{"delta":{"content":"a"},"finish_reason":"STOP"}"#, "a", Some(FinishReason::Stop)),
            (r#"{"delta":{"content":"a"},"finish_reason":"SAFETY"}"#, "a", Some(FinishReason::Filtered)),
            (r#"{"delta":{"refusal":"No."},"finish_reason":"stop"}"#, "No.", Some(FinishReason::Filtered)),
            (
                r#"{"delta":{"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},"finish_reason":"stop"}"#,
                "ab",
                Some(FinishReason::Stop),
            ),
            (r#"{"delta":{"content":5},"finish_reason":"stop"}"#, "", None),
            (r#"{"delta":{"content":[{"type":"image"}]},"finish_reason":"stop"}"#, "", None),
            (r#"{"delta":{"tool_calls":[{"index":0}]},"finish_reason":"tool_calls"}"#, "", None),
            (r#"{"delta":{"content":"a"},"finish_reason":"whatever"}"#, "a", None),
        ] {
            let mut answer = Answer::new(true);
            let (ready, last) = take(&mut answer, &format!(r#"{{"choices":[{chunk}]}}"#));
            let text: String = ready
                .iter()
                .filter_map(|event| match event {
                    GenerationEvent::Text(text) => Some(text.as_str()),
                    _ => None,
                })
                .collect();
            assert_eq!(text, says, "{chunk}");
            match (expect, last, answer.end_of_stream()) {
                (Some(finish), None, GenerationEvent::Done(summary)) => assert_eq!(summary.finish, finish, "{chunk}"),
                (None, Some(GenerationEvent::Failed(_)), _) => {}
                other => panic!("{chunk}: {other:?}"),
            }
        }
    }

    #[test]
    fn an_error_in_the_stream_is_an_error() {
        for (data, says) in [
            ("not json", "not JSON"),
            (r#"{"error":{"message":"boom"}}"#, "boom"),
            (r#"{"error":"boom"}"#, "boom"),
            (r#"{"object":"error","message":"boom"}"#, "boom"),
            (r#"{"choices":[{"delta":{},"finish_reason":"abort"}]}"#, "abort"),
        ] {
            let Some(GenerationEvent::Failed(error)) = take(&mut Answer::new(true), data).1 else { panic!("{data}") };
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
