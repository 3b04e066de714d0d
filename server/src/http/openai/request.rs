//! The fields of a completion request and what is wrong with them.

use std::hash::{BuildHasher as _, RandomState};

use serde::Deserialize;
use serde_json::{Number, Value};

use super::answer::Shape;
use crate::host::{Generation, Message, Prompt, Sampling};
use crate::http::error::ApiError;

/// OpenAI's own limit.
const MAX_STOPS: usize = 4;

/// The body of `/v1/chat/completions` and `/v1/completions`: one type, since all but `messages` and `prompt` is shared.
/// Fields that only describe the caller (`user`, `metadata`, `store` …) are ignored.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CompletionRequest {
    /// Which model; the server's own where absent.
    pub model: Option<String>,
    messages: Option<Vec<RequestMessage>>,
    prompt: Option<OneOrMany>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<i64>,
    max_completion_tokens: Option<i64>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<i64>,
    seed: Option<Number>,
    stop: Option<OneOrMany>,
    n: Option<i64>,
    best_of: Option<i64>,
    echo: Option<bool>,
    suffix: Option<String>,
    logprobs: Option<Value>,
    top_logprobs: Option<i64>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    tools: Option<Vec<Value>>,
    functions: Option<Vec<Value>>,
    response_format: Option<ResponseFormat>,
}

#[derive(Clone, Debug, Deserialize)]
struct RequestMessage {
    role: Role,
    content: Option<Content>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    #[serde(alias = "developer")]
    System,
    User,
    Assistant,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of text parts")]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Clone, Debug, Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
struct ResponseFormat {
    #[serde(rename = "type")]
    kind: String,
}

impl CompletionRequest {
    /// Whether the answer is wanted token by token.
    #[must_use]
    pub fn stream(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    /// Whether a stream ends with the counts.
    #[must_use]
    pub fn include_usage(&self) -> bool {
        self.stream_options.and_then(|options| options.include_usage).unwrap_or(false)
    }

    /// What the host is asked to do.
    ///
    /// # Errors
    /// The first field that is out of range or not offered.
    pub fn into_generation(self, shape: Shape) -> Result<Generation, ApiError> {
        self.refuse_unsupported()?;
        let sampling = self.sampling()?;
        let prompt = match shape {
            Shape::Chat => conversation(self.messages)?,
            Shape::Text => Prompt::Text(single_prompt(self.prompt)?),
        };
        Ok(Generation { prompt, sampling })
    }

    fn refuse_unsupported(&self) -> Result<(), ApiError> {
        let is_listed = |list: &Option<Vec<Value>>| list.as_ref().is_some_and(|list| !list.is_empty());
        let is_asked = |value: &Option<Value>| value.as_ref().is_some_and(|value| *value != Value::Bool(false));
        let penalty = |value: Option<f64>| value.is_some_and(|value| value != 0.0);
        let cases = [
            ("n", self.n.is_some_and(|n| n != 1), "Only one answer a request ('n': 1) is offered."),
            ("best_of", self.best_of.is_some_and(|n| n != 1), "Only 'best_of': 1 is offered."),
            ("echo", self.echo == Some(true), "'echo' is not offered."),
            ("suffix", self.suffix.as_ref().is_some_and(|text| !text.is_empty()), "'suffix' is not offered."),
            ("logprobs", is_asked(&self.logprobs), "'logprobs' is not offered."),
            ("top_logprobs", self.top_logprobs.is_some_and(|n| n > 0), "'top_logprobs' is not offered."),
            ("presence_penalty", penalty(self.presence_penalty), "'presence_penalty' is not offered."),
            ("frequency_penalty", penalty(self.frequency_penalty), "'frequency_penalty' is not offered."),
            ("tools", is_listed(&self.tools), "Tools are not offered."),
            ("functions", is_listed(&self.functions), "Functions are not offered."),
            (
                "response_format",
                self.response_format.as_ref().is_some_and(|format| format.kind != "text"),
                "Only the response format 'text' is offered.",
            ),
        ];
        match cases.into_iter().find(|(_, is_asked, _)| *is_asked) {
            Some((param, _, message)) => Err(ApiError::unsupported(param, message)),
            None => Ok(()),
        }
    }

    fn sampling(&self) -> Result<Sampling, ApiError> {
        let (name, asked) = match self.max_completion_tokens {
            Some(limit) => ("max_completion_tokens", Some(limit)),
            None => ("max_tokens", self.max_tokens),
        };
        let max_tokens = match asked {
            None => None,
            Some(limit) => match usize::try_from(limit) {
                Ok(limit) if limit > 0 => Some(limit),
                _ => return Err(range(name, "has to be at least 1")),
            },
        };
        let temperature = in_range("temperature", self.temperature.unwrap_or(1.0))?;
        let top_p = in_range("top_p", self.top_p.unwrap_or(1.0))?;
        let top_k = match self.top_k {
            // llama.cpp and vLLM use both 0 and -1 for off.
            None | Some(-1) => 0,
            Some(k) => usize::try_from(k).map_err(|_| range("top_k", "has to be 0 (off) or more"))?,
        };
        let seed = match &self.seed {
            // Whoever names no seed wants another answer every time.
            None => RandomState::new().hash_one(0u8),
            Some(number) => match (number.as_u64(), number.as_i64()) {
                (Some(seed), _) => seed,
                (None, Some(seed)) => seed.cast_unsigned(),
                (None, None) => return Err(range("seed", "has to be a whole number of 64 bits")),
            },
        };
        let stop = self.stop.clone().map(OneOrMany::into_vec).unwrap_or_default();
        if stop.len() > MAX_STOPS {
            return Err(range("stop", "takes at most 4 texts"));
        }
        if stop.iter().any(String::is_empty) {
            return Err(range("stop", "cannot be an empty text"));
        }
        Ok(Sampling { max_tokens, temperature: temperature as f32, top_k, top_p: top_p as f32, seed, stop })
    }
}

fn range(param: &str, says: &str) -> ApiError {
    ApiError::field(param, "invalid_value", format!("'{param}' {says}."))
}

/// A number within what is declared of it once, for page, worker and server.
fn in_range(param: &str, value: f64) -> Result<f64, ApiError> {
    match client::protocol::sampling::setting(param).and_then(|setting| setting.problem(value)) {
        Some(problem) => Err(range(param, &problem)),
        None => Ok(value),
    }
}

fn conversation(messages: Option<Vec<RequestMessage>>) -> Result<Prompt, ApiError> {
    let messages = messages.unwrap_or_default();
    if messages.is_empty() {
        return Err(ApiError::field(
            "messages",
            "missing_required_parameter",
            "'messages' needs at least one message.",
        ));
    }
    let mut turns = Vec::with_capacity(messages.len());
    for (index, message) in messages.into_iter().enumerate() {
        let role = match message.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        turns.push(Message { role: role.into(), content: text_of(message.content, index)? });
    }
    // The answer has been begun elsewhere: it is continued.
    let assistant_prefix = match turns.pop_if(|turn| turn.role == "assistant") {
        Some(turn) => turn.content,
        None => String::new(),
    };
    if turns.is_empty() {
        return Err(ApiError::field("messages", "invalid_value", "'messages' needs a message before the assistant's."));
    }
    Ok(Prompt::Chat { messages: turns, assistant_prefix })
}

fn text_of(content: Option<Content>, index: usize) -> Result<String, ApiError> {
    let parts = match content {
        None => return Ok(String::new()),
        Some(Content::Text(text)) => return Ok(text),
        Some(Content::Parts(parts)) => parts,
    };
    let mut text = String::new();
    for part in parts {
        match (part.kind.as_str(), part.text) {
            ("text", Some(piece)) => text.push_str(&piece),
            (kind, _) => {
                let param = format!("messages[{index}].content");
                return Err(ApiError::unsupported(
                    &param,
                    format!("'{param}': only text is understood, not {kind:?}."),
                ));
            }
        }
    }
    Ok(text)
}

fn single_prompt(prompt: Option<OneOrMany>) -> Result<String, ApiError> {
    let mut prompts = prompt.map(OneOrMany::into_vec).unwrap_or_default();
    match (prompts.pop(), prompts.is_empty()) {
        (Some(prompt), true) if prompt.is_empty() => Err(range("prompt", "is empty")),
        (Some(prompt), true) => Ok(prompt),
        (Some(_), false) => Err(ApiError::unsupported("prompt", "Only one prompt a request is offered.")),
        (None, _) => Err(ApiError::field("prompt", "missing_required_parameter", "'prompt' is missing.")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn generation(shape: Shape, body: Value) -> Result<Generation, ApiError> {
        serde_json::from_value::<CompletionRequest>(body).unwrap().into_generation(shape)
    }

    #[test]
    fn reads_a_chat() {
        let got = generation(
            Shape::Chat,
            json!({"messages": [
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
                {"role": "assistant", "content": "So"}],
                "max_tokens": 5, "temperature": 0, "top_k": -1, "seed": -1, "stop": "x", "n": 1, "user": "me",
                "presence_penalty": 0, "logprobs": false, "tools": null, "response_format": {"type": "text"}}),
        )
        .unwrap();
        let Prompt::Chat { messages, assistant_prefix } = got.prompt else { panic!("a chat") };
        assert_eq!(assistant_prefix, "So");
        assert_eq!(messages[0], Message { role: "system".into(), content: "Be brief.".into() });
        assert_eq!(messages[1].content, "ab");
        let expect = Sampling {
            max_tokens: Some(5),
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            seed: u64::MAX,
            stop: vec!["x".into()],
        };
        assert_eq!(got.sampling, expect);
    }

    #[test]
    fn without_a_seed_every_answer_differs() {
        let seed = || generation(Shape::Text, json!({"prompt": "p"})).unwrap().sampling.seed;
        assert_ne!(seed(), seed());
        let large = generation(Shape::Text, json!({"prompt": ["p"], "seed": u64::MAX})).unwrap();
        assert_eq!(large.sampling.seed, u64::MAX);
    }

    #[test]
    fn names_the_field_that_is_wrong() {
        for (field, value) in [
            ("n", json!(2)),
            ("best_of", json!(3)),
            ("echo", json!(true)),
            ("suffix", json!("x")),
            ("logprobs", json!(true)),
            ("logprobs", json!(3)),
            ("top_logprobs", json!(2)),
            ("presence_penalty", json!(0.5)),
            ("frequency_penalty", json!(-0.5)),
            ("tools", json!([{}])),
            ("functions", json!([{}])),
            ("response_format", json!({"type": "json_object"})),
            ("max_tokens", json!(0)),
            ("max_completion_tokens", json!(-4)),
            ("temperature", json!(2.5)),
            ("temperature", json!(-0.1)),
            ("top_p", json!(1.1)),
            ("top_k", json!(-2)),
            ("seed", json!(0.5)),
            ("stop", json!(["a", "b", "c", "d", "e"])),
            ("stop", json!("")),
            ("messages", json!([])),
            ("messages", json!([{"role": "assistant", "content": "x"}])),
            ("messages[0].content", json!("image")),
        ] {
            let mut body = json!({"messages": [{"role": "user", "content": "q"}]});
            if field == "messages[0].content" {
                body["messages"][0]["content"] = json!([{"type": "image_url", "image_url": {"url": "data:,"}}]);
            } else {
                body[field] = value.clone();
            }
            let error = generation(Shape::Chat, body).expect_err(&format!("{field} = {value}"));
            assert_eq!(error.param.as_deref(), Some(field), "{error:?}");
            assert_eq!(error.status.as_u16(), 400);
        }
        for body in [json!({}), json!({"prompt": ""}), json!({"prompt": []}), json!({"prompt": ["a", "b"]})] {
            let error = generation(Shape::Text, body.clone()).expect_err(&body.to_string());
            assert_eq!(error.param.as_deref(), Some("prompt"));
        }
    }
}
