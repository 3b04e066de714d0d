//! The small part of OpenAI's chat API that the browser speaks: a request, and the pieces of its streamed answer.

use serde::{Deserialize, Serialize};

use super::fault::TransportError;
use super::sse::SseParser;
use crate::protocol::engine::{Finish, Read, Turn};
use crate::protocol::sampling::Sampling;

/// Body of `POST /v1/chat/completions`, always streamed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChatRequest {
    /// The conversation; an assistant's message at its end is gone on with.
    pub messages: Vec<Turn>,
    /// Longest answer; `None` leaves the end to the model. Engines refuse more than their context holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<usize>,
    /// 0 is greedy.
    pub temperature: f32,
    /// 1 is off.
    pub top_p: f32,
    /// Extension: 0 is off.
    pub top_k: usize,
    /// Seed of sampling.
    pub seed: u64,
    /// Always true.
    pub stream: bool,
    /// Asks for the last piece of the stream, which counts and times the tokens.
    pub stream_options: StreamOptions,
    /// Extension: beginnings that were computed before are shared with requests of the same salt alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_salt: Option<String>,
}

impl ChatRequest {
    /// A person's question after what was said `earlier`, with what of the answer is `begun` already.
    #[must_use]
    pub fn of_question(earlier: &[Turn], question: &str, begun: &str, sampling: &Sampling) -> Self {
        let mut messages = earlier.to_vec();
        messages.push(Turn::user(question));
        if !begun.is_empty() {
            messages.push(Turn::assistant(begun));
        }
        Self {
            messages,
            max_tokens: sampling.limit(),
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            top_k: sampling.top_k,
            seed: sampling.seed,
            stream: true,
            stream_options: StreamOptions { include_usage: true },
            cache_salt: None,
        }
    }
}

/// What a stream tells beside the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StreamOptions {
    /// Always true.
    pub include_usage: bool,
}

/// Something that a stream brought.
#[derive(Clone, Debug, PartialEq)]
pub enum ChatPiece {
    /// New text; our server sends one piece a token.
    Text(String),
    /// The answer is over.
    Finish(Finish),
    /// How fast it was written, by the server's own clock; servers that do not say so send none. Comes after
    /// [`ChatPiece::Finish`]. Arrival times would say nothing: the network hands over many tokens at once.
    Decoded(Decoded),
    /// What it read of the prompt, from servers that tell how much of it was kept from before.
    Read(Read),
}

/// Tokens that the server decoded, and how long it took, without prefill, queue and network.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Decoded {
    /// Tokens.
    pub tokens: usize,
    /// Seconds.
    pub seconds: f64,
}

impl Decoded {
    /// Tokens per second; `None` where nothing was timed.
    #[must_use]
    pub fn tokens_per_s(self) -> Option<f64> {
        (self.tokens > 0 && self.seconds > 0.0).then(|| self.tokens as f64 / self.seconds)
    }
}

impl std::ops::AddAssign for Decoded {
    fn add_assign(&mut self, more: Self) {
        self.tokens += more.tokens;
        self.seconds += more.seconds;
    }
}

/// Last event of a stream.
const DONE: &str = "[DONE]";

/// Whether nothing is missing of an event's data.
#[must_use]
pub fn is_whole(data: &str) -> bool {
    data.trim() == DONE || serde_json::from_str::<serde::de::IgnoredAny>(data).is_ok()
}

fn malformed(error: impl std::fmt::Display) -> TransportError {
    TransportError::Malformed(error.to_string())
}

/// Turns the bytes of a streamed answer into pieces.
#[derive(Debug, Default)]
pub struct ChatDecoder {
    sse: SseParser,
    finished: bool,
    closed: bool,
}

impl ChatDecoder {
    /// Takes the next bytes. No text comes after a [`ChatPiece::Finish`].
    ///
    /// # Errors
    /// [`TransportError::Malformed`] for what is not a chat completion, [`TransportError::Refused`] for an error object
    /// inside the stream.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<ChatPiece>, TransportError> {
        let mut pieces = Vec::new();
        for event in self.sse.push(bytes).map_err(malformed)? {
            self.take(&event.data, &mut pieces)?;
        }
        Ok(pieces)
    }

    /// What the connection's end leaves: some engines leave out the blank line behind the last event. Half an event is nothing.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn rest(&mut self) -> Result<Vec<ChatPiece>, TransportError> {
        let mut pieces = Vec::new();
        if let Some(event) = self.sse.rest().filter(|event| is_whole(&event.data)) {
            self.take(&event.data, &mut pieces)?;
        }
        Ok(pieces)
    }

    fn take(&mut self, data: &str, pieces: &mut Vec<ChatPiece>) -> Result<(), TransportError> {
        if self.closed {
            return Ok(());
        }
        if data.trim() == DONE {
            // Some engines end without a reason; the answer is whole all the same.
            if !std::mem::replace(&mut self.finished, true) {
                pieces.push(ChatPiece::Finish(Finish::Stop));
            }
            self.closed = true;
            return Ok(());
        }
        let chunk: Chunk = serde_json::from_str(data).map_err(malformed)?;
        if let Some(error) = chunk.error {
            return Err(TransportError::Refused { status: 0, message: error.message });
        }
        if let Some(Timings { predicted_n, predicted_ms: Some(ms) }) = chunk.timings {
            pieces.push(ChatPiece::Decoded(Decoded { tokens: predicted_n, seconds: ms / 1e3 }));
        }
        if let Some(Usage { prompt_tokens, prompt_tokens_details: Some(UsageDetails { cached_tokens }) }) = chunk.usage
        {
            pieces.push(ChatPiece::Read(Read { tokens: prompt_tokens, cached: cached_tokens }));
        }
        for choice in chunk.choices.into_iter().filter(|choice| choice.index == 0) {
            if self.finished {
                break;
            }
            if let Some(text) = choice.delta.content.filter(|text| !text.is_empty()) {
                pieces.push(ChatPiece::Text(text));
            }
            if let Some(reason) = choice.finish_reason {
                let finish = if reason == "length" { Finish::Length } else { Finish::Stop };
                self.finished = true;
                pieces.push(ChatPiece::Finish(finish));
            }
        }
        Ok(())
    }

    /// Whether the answer is whole; a connection that ends before broke off.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Whether the stream said that nothing more comes.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }
}

/// The message inside an error body of OpenAI's shape, or the body itself, shortened.
#[must_use]
pub fn error_message(body: &str) -> String {
    #[derive(Deserialize)]
    struct Body {
        error: ChunkError,
    }
    match serde_json::from_str::<Body>(body) {
        Ok(body) => body.error.message,
        Err(_) => body.trim().chars().take(200).collect(),
    }
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<ChunkChoice>,
    #[serde(default)]
    error: Option<ChunkError>,
    #[serde(default)]
    timings: Option<Timings>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: usize,
    #[serde(default)]
    prompt_tokens_details: Option<UsageDetails>,
}

#[derive(Deserialize)]
struct UsageDetails {
    #[serde(default)]
    cached_tokens: usize,
}

/// llama.cpp's names.
#[derive(Deserialize)]
struct Timings {
    #[serde(default)]
    predicted_n: usize,
    #[serde(default)]
    predicted_ms: Option<f64>,
}

#[derive(Deserialize)]
struct ChunkChoice {
    #[serde(default)]
    index: usize,
    #[serde(default)]
    delta: ChunkDelta,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct ChunkDelta {
    #[serde(default)]
    content: Option<String>,
}

#[derive(Deserialize)]
struct ChunkError {
    #[serde(default)]
    message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(stream: &str) -> Result<Vec<ChatPiece>, TransportError> {
        ChatDecoder::default().push(stream.as_bytes())
    }

    #[test]
    fn a_usual_stream() {
        let stream = concat!(
            "data: {\"id\":\"x\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\"},\"finish_reason\":null}]}\n\n",
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Par\"},\"finish_reason\":null}]}\n\n",
            ": keep-alive\n\n",
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"is\"}}]}\n\n",
            "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
            "data: {\"choices\":[],\"usage\":{\"completion_tokens\":2},\"timings\":{\"predicted_n\":2,\"predicted_ms\":8.0}}\n\n",
            "data: [DONE]\n\n",
        );
        let mut decoder = ChatDecoder::default();
        let pieces = decoder.push(stream.as_bytes()).expect("a stream");
        assert_eq!(
            pieces,
            [
                ChatPiece::Text("Par".into()),
                ChatPiece::Text("is".into()),
                ChatPiece::Finish(Finish::Stop),
                ChatPiece::Decoded(Decoded { tokens: 2, seconds: 0.008 }),
            ]
        );
        assert!(decoder.is_finished() && decoder.is_closed());
    }

    #[test]
    fn rates_come_from_timed_tokens_only() {
        let mut decoded = Decoded { tokens: 3, seconds: 0.5 };
        decoded += Decoded { tokens: 1, seconds: 0.5 };
        assert_eq!(decoded.tokens_per_s(), Some(4.0));
        assert_eq!(Decoded::default().tokens_per_s(), None);
        let untimed = "data: {\"choices\":[],\"timings\":{\"predicted_n\":2,\"predicted_ms\":null}}\n\n";
        assert_eq!(decode(untimed).expect("a stream"), []);
    }

    #[test]
    fn what_was_kept_from_before_is_told_where_the_server_says_so() {
        let stream = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":90,\"prompt_tokens_details\":{\"cached_tokens\":81}}}\n\n";
        assert_eq!(decode(stream).expect("a stream"), [ChatPiece::Read(Read { tokens: 90, cached: 81 })]);
        assert_eq!(Read { tokens: 90, cached: 81 }.computed(), 9);
        let silent = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":90,\"prompt_tokens_details\":null}}\n\n";
        assert_eq!(decode(silent).expect("a stream"), []);
    }

    #[test]
    fn a_question_follows_what_was_said() {
        let earlier = [Turn::user("a?"), Turn::assistant("A.")];
        let request = ChatRequest::of_question(&earlier, "b?", "B", &Sampling::default());
        let roles: Vec<(&str, &str)> = request.messages.iter().map(|m| (&*m.role, &*m.content)).collect();
        assert_eq!(roles, [("user", "a?"), ("assistant", "A."), ("user", "b?"), ("assistant", "B")]);
    }

    #[test]
    fn ends_and_errors() {
        let length = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"length\"}]}\n\n";
        assert_eq!(decode(length).expect("a stream"), [ChatPiece::Text("a".into()), ChatPiece::Finish(Finish::Length)]);
        assert_eq!(decode("data: [DONE]\n\n").expect("a stream"), [ChatPiece::Finish(Finish::Stop)]);
        assert!(matches!(decode("data: <html>\n\n"), Err(TransportError::Malformed(_))));
        let refused = decode("data: {\"error\":{\"message\":\"too busy\",\"type\":\"server_error\"}}\n\n");
        assert_eq!(refused, Err(TransportError::Refused { status: 0, message: "too busy".into() }));
    }

    #[test]
    fn a_last_event_needs_no_blank_line_behind_it() {
        let text = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
        let stop = Ok(vec![ChatPiece::Finish(Finish::Stop)]);
        let refused = Err(TransportError::Refused { status: 0, message: "full".into() });
        for (last, pieces) in [
            ("data: [DONE]", stop.clone()),
            ("data: [DONE]\n", stop.clone()),
            ("data: {\"choices\":[{\"finish_reason\":\"stop\"}]}", stop),
            ("data: {\"error\":{\"message\":\"full\"}}", refused),
            ("data: {\"choices\":[{\"delta\":{\"con", Ok(Vec::new())),
            ("", Ok(Vec::new())),
        ] {
            let mut decoder = ChatDecoder::default();
            assert_eq!(decoder.push([text, last].concat().as_bytes()), Ok(vec![ChatPiece::Text("a".into())]));
            assert_eq!(decoder.rest(), pieces, "{last:?}");
            assert_eq!(decoder.is_finished(), matches!(&pieces, Ok(pieces) if !pieces.is_empty()));
            assert_eq!(decoder.rest(), Ok(Vec::new()));
        }
    }

    #[test]
    fn words_of_an_error_body() {
        assert_eq!(error_message("{\"error\":{\"message\":\"no such model\",\"code\":404}}"), "no such model");
        assert_eq!(error_message("  plain text \n"), "plain text");
        assert_eq!(error_message(&"é".repeat(500)).chars().count(), 200);
    }
}
