//! What the engine answers, as our events.

use client::offload::openai;
use client::offload::sse::SseParser;
use reqwest::header::CONTENT_TYPE;
use serde_json::Value;
use tokio::sync::mpsc;

use super::chunk::{Chunk, Json, Refusal};
use super::trouble::{one_line, read_bounded, transport};
use crate::host::{FinishReason, GenerationEvent, HostError, Summary};
use crate::surrogates::whole_characters;

/// Longest answer that is read, in all and in one piece. A context of a million tokens fits.
const MAX_STREAM_BYTES: usize = 1 << 30;
const MAX_TEXT_BYTES: usize = 16 << 20;

/// What our client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// A message of a chat, not a text.
    pub is_chat: bool,
    /// Log probabilities. Nobody else gets any, whatever the engine sends.
    pub scores: bool,
}

/// Turns the engine's events into ours until either side ends.
pub async fn relay(mut response: reqwest::Response, asked: Asked, sender: &mpsc::Sender<GenerationEvent>) {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.to_ascii_lowercase();
    let first = match response.chunk().await {
        Ok(first) => first.unwrap_or_default(),
        Err(error) => {
            let _ = sender.send(GenerationEvent::Failed(transport(&error))).await;
            return;
        }
    };
    // Some engines do not stream, whatever they are asked, and some say the one and do the other: events never begin with a brace,
    // and a JSON value with nothing that an event begins with.
    let is_whole = match first.trim_ascii_start().first() {
        Some(b'{') => true,
        Some(b'd' | b'e' | b'i' | b'r' | b':') => false,
        _ => kind.contains("json"),
    };
    let last = match is_whole {
        true => whole(first.into(), response, asked, sender).await,
        false => stream(first.into(), response, asked, sender).await,
    };
    if let Some(last) = last {
        // Nobody listens any more where this fails.
        let _ = sender.send(last).await;
    }
}

/// `None` when our client has left.
async fn stream(
    first: Vec<u8>,
    mut response: reqwest::Response,
    asked: Asked,
    sender: &mpsc::Sender<GenerationEvent>,
) -> Option<GenerationEvent> {
    let mut reader = SseParser::default();
    let mut answer = Answer::new(asked);
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("none").to_owned();
    let (mut read, mut begun, mut ready, mut first) = (0usize, false, Vec::new(), Some(first));
    loop {
        let next = match first.take() {
            Some(first) => Ok(Some(first.into())),
            None => response.chunk().await,
        };
        let bytes = match next {
            Ok(Some(bytes)) => bytes,
            // After the reason why it ended, whatever breaks takes nothing of the answer.
            Err(_) if answer.finish.is_some() => return Some(answer.end_of_stream()),
            Ok(None) => {
                // A last event that is whole but for the blank line behind it.
                let rest = reader.rest().filter(|event| openai::is_whole(&event.data));
                if rest.is_none() && !begun {
                    return Some(failed(format!("it sent no answer; the content type is {}", one_line(&kind))));
                }
                let last = rest.and_then(|event| answer.take(&event.data, event.event == "error", &mut ready));
                for event in ready {
                    sender.send(event).await.ok()?;
                }
                return Some(last.unwrap_or_else(|| answer.end_of_stream()));
            }
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
            begun = true;
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
    first: Vec<u8>,
    response: reqwest::Response,
    asked: Asked,
    sender: &mpsc::Sender<GenerationEvent>,
) -> Option<GenerationEvent> {
    let bytes = match read_bounded(first, response, MAX_TEXT_BYTES).await {
        Ok(bytes) => bytes,
        Err(error) => return Some(GenerationEvent::Failed(error)),
    };
    let mut answer = Answer::new(asked);
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
    asked: Asked,
    pieces: usize,
    finish: Option<FinishReason>,
    usage: Option<(usize, usize)>,
    /// Tokens of the prompt that the engine had kept, where it says so.
    cached: Option<usize>,
    refused: bool,
}

impl Answer {
    fn new(asked: Asked) -> Self {
        Self { asked, pieces: 0, finish: None, usage: None, cached: None, refused: false }
    }

    /// Takes one event; returns the one that ends the answer, if it does.
    fn take(&mut self, data: &str, is_error: bool, ready: &mut Vec<GenerationEvent>) -> Option<GenerationEvent> {
        if data.trim() == "[DONE]" {
            return Some(self.end_of_stream());
        }
        let Ok(chunk) = serde_json::from_slice::<Chunk>(&whole_characters(data.as_bytes())) else {
            return Some(failed(if is_error {
                one_line(data)
            } else {
                "it sent something that is not JSON, or not of the form that was asked for".to_owned()
            }));
        };
        match chunk.refusal() {
            // An error beside choices is one, too, as some gateways send it.
            Some(Refusal::Error(text)) => return Some(failed(one_line(&text))),
            Some(Refusal::Remark(text)) if is_error || chunk.choices.is_none() => return Some(failed(one_line(&text))),
            _ if is_error => return Some(failed(one_line(data))),
            _ => {}
        }
        let usage = chunk.usage.as_ref().and_then(Json::short).unwrap_or_default();
        // A count that no context holds is none.
        let count =
            |value: &Value| value.as_u64().and_then(|count| u32::try_from(count).ok()).map(|count| count as usize);
        if let (Some(prompt), Some(completion)) = (count(&usage["prompt_tokens"]), count(&usage["completion_tokens"])) {
            self.usage = Some((prompt, completion));
            self.cached = count(&usage["prompt_tokens_details"]["cached_tokens"]);
        }
        let choice = chunk.choices.and_then(|choices| choices.0).filter(|choice| !choice.is_other())?;
        // A whole answer has a message where a stream has deltas.
        let said = choice.delta.or(choice.message).unwrap_or_default();
        let thought =
            [said.reasoning_content, said.reasoning].into_iter().flatten().find(|thought| !thought.is_empty());
        // Nothing of the answer comes after its end.
        if self.finish.is_some() {
            return None;
        }
        if let Some(thought) = thought.filter(|_| self.asked.is_chat) {
            self.pieces += 1;
            ready.push(GenerationEvent::Reasoning(thought));
        }
        let content = if self.asked.is_chat { said.content } else { choice.text };
        let Some(mut text) = content.map_or(Some(String::new()), |content| content.0) else {
            return Some(failed("it sent content that is not text"));
        };
        if let Some(refusal) = said.refusal.filter(|refusal| !refusal.is_empty()) {
            text.push_str(&refusal);
            self.refused = true;
        }
        let scores = match choice.logprobs.filter(|_| self.asked.scores) {
            None => None,
            Some(scores) => match scores.value() {
                Some(scores) => Some(scores),
                None => return Some(failed("it sent more log probabilities than were asked for")),
            },
        };
        if !text.is_empty() || scores.is_some() {
            self.pieces += 1;
            ready.push(match scores {
                Some(scores) => GenerationEvent::Scored(text, scores),
                None => GenerationEvent::Text(text),
            });
        }
        let reason = choice.finish_reason.unwrap_or_default();
        let reason = reason.as_str();
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

    const CHAT: Asked = Asked { is_chat: true, scores: true };

    fn take(answer: &mut Answer, data: &str) -> (Vec<GenerationEvent>, Option<GenerationEvent>) {
        let mut ready = Vec::new();
        let last = answer.take(data, false, &mut ready);
        (ready, last)
    }

    #[test]
    fn an_answer_without_a_finish_reason_was_cut_off() {
        let mut answer = Answer::new(CHAT);
        let (ready, _) =
            take(&mut answer, r#"{"choices":[{"index":1,"delta":{"content":"b"},"finish_reason":"stop"}]}"#);
        assert!(ready.is_empty(), "of another answer");
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
        // A count of another form is none, and takes nothing of the answer.
        let absurd = r#"{"prompt_tokens":9223372036854775808,"completion_tokens":9223372036854775808}"#;
        for usage in ["5", "[]", r#"{"prompt_tokens":"5","completion_tokens":[]}"#, absurd] {
            assert!(take(&mut answer, &format!(r#"{{"choices":[],"usage":{usage}}}"#)).1.is_none(), "{usage}");
        }
        let Some(GenerationEvent::Done(summary)) = take(&mut answer, "[DONE]").1 else { panic!("it is complete") };
        assert_eq!((summary.prompt_tokens, summary.completion_tokens), (5, 9));
    }

    #[test]
    fn thoughts_and_log_probabilities_are_passed_on() {
        let mut answer = Answer::new(CHAT);
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

    /// Whatever an engine sends that nobody asked for is neither passed on nor built.
    #[test]
    fn what_was_not_asked_for_is_left_out() {
        let mut answer = Answer::new(Asked { scores: false, ..CHAT });
        let zeros = "0,".repeat(1000) + "0";
        let data = format!(
            r#"{{"x":[{zeros}],"choices":[{{"delta":{{"content":"a","y":[{zeros}]}},"logprobs":{{"content":[{zeros}]}}}},{zeros}]}}"#
        );
        let (ready, last) = take(&mut answer, &data);
        assert!(matches!(&ready[..], [GenerationEvent::Text(text)] if text == "a") && last.is_none(), "{ready:?}");
        let (ready, _) = take(&mut answer, r#"{"choices":[{"delta":{"content":""},"logprobs":{"content":[]}}]}"#);
        assert!(ready.is_empty());
        // Asked for, but more than a piece can have.
        let many = format!(r#"{{"choices":[{{"delta":{{"content":"a"}},"logprobs":[{}0]}}]}}"#, "0,".repeat(3 << 20));
        assert!(matches!(take(&mut Answer::new(CHAT), &many).1, Some(GenerationEvent::Failed(_))));
    }

    #[test]
    fn a_whole_answer_where_a_stream_was_asked_for() {
        let mut answer = Answer::new(CHAT);
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
            let mut answer = Answer::new(CHAT);
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
            let Some(GenerationEvent::Failed(error)) = take(&mut Answer::new(CHAT), data).1 else { panic!("{data}") };
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
