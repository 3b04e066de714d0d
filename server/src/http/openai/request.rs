//! The fields of a completion request and what is wrong with them.
//!
//! Every field is honoured or refused by name: a client that asks for what is not done here has to hear of it.

use std::collections::BTreeMap;

use client::protocol::sampling;
use serde::Deserialize;
use serde_json::{Map, Number, Value, json};

use super::answer::Endpoint;
use crate::host::{Generation, Message, Prompt, Sampling};
use crate::http::error::ApiError;

/// OpenAI's own limits, and one for what it does not have.
const MAX_STOPS: usize = 4;
const MAX_STOP_TOKENS: usize = 64;
const MAX_LOGPROBS: i64 = 20;
const MAX_BIAS: f64 = 100.0;
/// Longest salt, bytes.
const MAX_SALT: usize = 256;
/// Most answers to one request: each takes a slot.
const MAX_CHOICES: usize = 16;

/// Fields that say who asks or how to keep books, and change no answer.
const ABOUT_THE_CALLER: [&str; 9] = [
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "cache_prompt",
    "parallel_tool_calls",
];

/// What else a message may hold that earlier answers come back with.
const COMES_BACK: [&str; 3] = ["annotations", "reasoning_content", "reasoning"];

/// Values of fields that are not offered which ask for nothing. `null` never does.
fn asks_for_nothing(name: &str, value: &Value) -> bool {
    let number = |neutral: f64| value.as_f64() == Some(neutral);
    match name {
        _ if value.is_null() => true,
        _ if ABOUT_THE_CALLER.contains(&name) => true,
        "tool_choice" | "function_call" => value == "none",
        "modalities" => *value == json!(["text"]),
        "min_tokens" | "mirostat" | "n_probs" | "dry_multiplier" | "xtc_probability" | "dynatemp_range" => number(0.0),
        "typical_p" | "tfs_z" | "length_penalty" => number(1.0),
        "bad_words" | "guided_choice" => *value == json!([]),
        "use_beam_search"
        | "early_stopping"
        | "include_stop_str_in_output"
        | "return_token_ids"
        | "return_tokens_as_token_ids"
        | "timings_per_token" => *value == json!(false),
        "skip_special_tokens" | "spaces_between_special_tokens" => *value == json!(true),
        _ => false,
    }
}

/// The body of `/v1/chat/completions` and `/v1/completions`: one type, since all but `messages` and `prompt` is shared.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CompletionRequest {
    /// Which model; the server's own where absent.
    pub model: Option<String>,
    messages: Option<Vec<RequestMessage>>,
    prompt: Option<Prompts>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<i64>,
    max_completion_tokens: Option<i64>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<i64>,
    min_p: Option<f64>,
    seed: Option<Number>,
    stop: Option<OneOrMany>,
    stop_token_ids: Option<Vec<u32>>,
    ignore_eos: Option<bool>,
    n: Option<i64>,
    best_of: Option<i64>,
    echo: Option<bool>,
    suffix: Option<String>,
    logprobs: Option<Value>,
    top_logprobs: Option<i64>,
    logit_bias: Option<BTreeMap<String, f64>>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    #[serde(alias = "repeat_penalty")]
    repetition_penalty: Option<f64>,
    tools: Option<Vec<Value>>,
    functions: Option<Vec<Value>>,
    response_format: Option<ResponseFormat>,
    continue_final_message: Option<bool>,
    add_generation_prompt: Option<bool>,
    /// Whether what reads like a control token in a prompt is one.
    parse_special: Option<bool>,
    cache_salt: Option<String>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Clone, Debug, Deserialize)]
struct RequestMessage {
    role: Role,
    content: Option<Content>,
    #[serde(flatten)]
    others: Map<String, Value>,
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
    #[serde(flatten)]
    others: Map<String, Value>,
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

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string, a list of strings, a list of token ids, or a list of such lists")]
enum Prompts {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    ManyTokens(Vec<Vec<u32>>),
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct StreamOptions {
    include_usage: Option<bool>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Clone, Debug, Deserialize)]
struct ResponseFormat {
    #[serde(rename = "type")]
    kind: String,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// What a request comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// One answer each, those to the first prompt first.
    pub answers: Vec<Generation>,
    /// Answers to each prompt.
    pub per_prompt: usize,
    /// What stands before each answer; empty unless the request wants to hear its prompts again.
    pub echo: Vec<String>,
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
        self.stream_options.as_ref().and_then(|options| options.include_usage).unwrap_or(false)
    }

    /// What the host is asked to do.
    ///
    /// # Errors
    /// The first field that is out of range or not offered.
    pub fn into_work(mut self, endpoint: Endpoint) -> Result<Work, ApiError> {
        self.refuse_unsupported(endpoint)?;
        let sampling = self.sampling(endpoint)?;
        let counted = !self.stream() || self.include_usage();
        let cache_salt = self.cache_salt.take();
        if cache_salt.as_ref().is_some_and(|salt| salt.is_empty() || salt.len() > MAX_SALT) {
            return Err(range("cache_salt", &format!("has to have between 1 and {MAX_SALT} bytes")));
        }
        let per_prompt = self.choices()?;
        let wants_echo = self.echo == Some(true);
        let prompts = match endpoint {
            Endpoint::Chat => vec![conversation(self.messages.take(), self.continue_final_message)?],
            Endpoint::Text => prompts(self.prompt.take(), self.parse_special == Some(true))?,
        };
        let count = prompts.len().saturating_mul(per_prompt);
        if count > MAX_CHOICES {
            let field = if per_prompt > 1 { "n" } else { "prompt" };
            return Err(range(
                field,
                &format!("asks for {count} answers; at most {MAX_CHOICES} are given to a request"),
            ));
        }
        let mut work = Work { answers: Vec::with_capacity(count), per_prompt, echo: Vec::new() };
        for prompt in prompts {
            if wants_echo {
                let (Prompt::Text(text) | Prompt::Controlled(text)) = &prompt else {
                    return Err(ApiError::unsupported("echo", "'echo' is offered for prompts in text only."));
                };
                work.echo.extend(std::iter::repeat_n(text.clone(), per_prompt));
            }
            for choice in 0..per_prompt {
                let mut sampling = sampling.clone();
                // The same seed would give the same answer again.
                sampling.seed = sampling
                    .seed
                    .map(|seed| i128::from((seed as u64).wrapping_add(choice as u64)))
                    .filter(|_| choice > 0)
                    .or(sampling.seed);
                let (prompt, cache_salt) = (prompt.clone(), cache_salt.clone());
                work.answers.push(Generation { prompt, sampling, counted, cache_salt });
            }
        }
        Ok(work)
    }

    fn refuse_unsupported(&self, endpoint: Endpoint) -> Result<(), ApiError> {
        let is_listed = |list: &Option<Vec<Value>>| list.as_ref().is_some_and(|list| !list.is_empty());
        let is_chat = endpoint == Endpoint::Chat;
        let continues = self.continue_final_message == Some(true);
        let begins = self.add_generation_prompt != Some(false) || continues;
        let cases = [
            ("suffix", self.suffix.as_ref().is_some_and(|text| !text.is_empty()), "'suffix' is not offered."),
            ("parse_special", is_chat && self.parse_special == Some(true), "'parse_special' is for plain texts."),
            ("echo", is_chat && self.echo == Some(true), "'echo' is for plain texts."),
            (
                "logprobs",
                self.echo == Some(true) && self.logprobs.as_ref().is_some_and(|asked| !asked.is_null()),
                "'logprobs' of a prompt that is echoed are not offered; leave out 'echo' or 'logprobs'.",
            ),
            ("tools", is_listed(&self.tools), "'tools' are not offered."),
            ("functions", is_listed(&self.functions), "'functions' are not offered."),
            (
                "response_format",
                self.response_format.as_ref().is_some_and(|format| format.kind != "text"),
                "'response_format' is offered as 'text' only.",
            ),
            (
                "add_generation_prompt",
                !begins,
                "'add_generation_prompt': false goes with 'continue_final_message' only.",
            ),
            ("messages", !is_chat && self.messages.is_some(), "'messages' is for /v1/chat/completions."),
            ("prompt", is_chat && self.prompt.is_some(), "'prompt' is for /v1/completions."),
        ];
        if let Some((param, _, message)) = cases.into_iter().find(|(_, is_asked, _)| *is_asked) {
            return Err(ApiError::unsupported(param, message));
        }
        refuse_others("", &self.others, asks_for_nothing)?;
        if let Some(options) = &self.stream_options {
            refuse_others("stream_options.", &options.others, |_, value| value.is_null() || *value == json!(false))?;
        }
        if let Some(format) = &self.response_format {
            refuse_others("response_format.", &format.others, |_, value| value.is_null())?;
        }
        Ok(())
    }

    fn choices(&self) -> Result<usize, ApiError> {
        let n = match self.n {
            None => 1,
            Some(n) => match usize::try_from(n) {
                Ok(n) if (1..=MAX_CHOICES).contains(&n) => n,
                _ => return Err(range("n", &format!("has to be between 1 and {MAX_CHOICES}"))),
            },
        };
        match self.best_of {
            Some(best_of) if best_of != n as i64 => {
                Err(ApiError::unsupported("best_of", "'best_of' is offered where it is the same as 'n'."))
            }
            _ => Ok(n),
        }
    }

    fn sampling(&self, endpoint: Endpoint) -> Result<Sampling, ApiError> {
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
        // What page, worker and server share is declared once.
        for (name, value) in
            [("temperature", self.temperature), ("top_p", self.top_p), ("repetition_penalty", self.repetition_penalty)]
        {
            let problem = value.zip(sampling::setting(name)).and_then(|(value, setting)| setting.problem(value));
            if let Some(problem) = problem {
                return Err(range(name, &problem));
            }
        }
        for (name, value, least, most) in [
            ("min_p", self.min_p, 0.0, 1.0),
            ("presence_penalty", self.presence_penalty, -2.0, 2.0),
            ("frequency_penalty", self.frequency_penalty, -2.0, 2.0),
        ] {
            if value.is_some_and(|value| !(least..=most).contains(&value)) {
                return Err(range(name, &format!("has to be between {least} and {most}")));
            }
        }
        let top_k = match self.top_k {
            // llama.cpp and vLLM use both 0 and -1 for off.
            None | Some(-1) => 0,
            Some(k) => usize::try_from(k).map_err(|_| range("top_k", "has to be 0 (off) or more"))?,
        };
        let seed = match &self.seed {
            None => None,
            Some(number) => match (number.as_u64(), number.as_i64()) {
                (Some(seed), _) => Some(i128::from(seed)),
                (None, Some(seed)) => Some(i128::from(seed)),
                (None, None) => return Err(range("seed", "has to be a whole number of 64 bits")),
            },
        };
        let stop = self.stop.clone().map(OneOrMany::into_vec).unwrap_or_default();
        if stop.len() > MAX_STOPS {
            return Err(range("stop", "takes at most 4 texts"));
        }
        if self.stop_token_ids.as_ref().is_some_and(|ids| ids.len() > MAX_STOP_TOKENS) {
            return Err(range("stop_token_ids", &format!("takes at most {MAX_STOP_TOKENS} tokens")));
        }
        if stop.iter().any(String::is_empty) {
            return Err(range("stop", "cannot be an empty text"));
        }
        Ok(Sampling {
            max_tokens,
            temperature: self.temperature,
            top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            logit_bias: self.bias()?,
            logprobs: self.log_probabilities(endpoint)?,
            seed,
            stop,
            stop_tokens: self.stop_token_ids.clone().unwrap_or_default(),
            ignore_eos: self.ignore_eos.unwrap_or(false),
        })
    }

    fn bias(&self) -> Result<BTreeMap<u32, f64>, ApiError> {
        let entry = |(id, bias): (&String, &f64)| match id.parse::<u32>() {
            // Written in one way only: another number under "05" would take the place of that under "5".
            Ok(number) if (-MAX_BIAS..=MAX_BIAS).contains(bias) && number.to_string() == *id => Ok((number, *bias)),
            _ => Err(range("logit_bias", "takes token ids, each with a number between -100 and 100")),
        };
        self.logit_bias.iter().flatten().map(entry).collect()
    }

    /// `true` and `top_logprobs` for chats, a number for plain texts.
    fn log_probabilities(&self, endpoint: Endpoint) -> Result<Option<usize>, ApiError> {
        let count = |name: &str, count: i64| match usize::try_from(count) {
            Ok(others) if count <= MAX_LOGPROBS => Ok(Some(others)),
            _ => Err(range(name, &format!("has to be between 0 and {MAX_LOGPROBS}"))),
        };
        let others = self.top_logprobs.unwrap_or(0);
        match (endpoint, &self.logprobs) {
            (Endpoint::Chat, Some(Value::Bool(true))) => count("top_logprobs", others),
            (Endpoint::Text, Some(Value::Number(number))) if self.top_logprobs.is_none() => {
                count("logprobs", number.as_i64().unwrap_or(-1))
            }
            (_, None | Some(Value::Null | Value::Bool(false))) if others == 0 => Ok(None),
            (Endpoint::Chat, None | Some(Value::Null | Value::Bool(false))) => {
                Err(range("top_logprobs", "needs 'logprobs': true"))
            }
            (Endpoint::Text, _) if self.top_logprobs.is_some() => Err(range("top_logprobs", "is for chats")),
            (Endpoint::Text, _) => Err(range("logprobs", "has to be a whole number")),
            (Endpoint::Chat, _) => Err(range("logprobs", "has to be true or false")),
        }
    }
}

fn range(param: &str, says: &str) -> ApiError {
    ApiError::field(param, "invalid_value", format!("'{param}' {says}."))
}

/// Refuses the first field that is not offered and asks for something.
fn refuse_others(
    place: &str,
    others: &Map<String, Value>,
    neutral: impl Fn(&str, &Value) -> bool,
) -> Result<(), ApiError> {
    match others.iter().find(|(name, value)| !neutral(name, value)) {
        None => Ok(()),
        Some((name, _)) => {
            let name: String = name.chars().take(64).collect();
            let param = format!("{place}{name}");
            Err(ApiError::unsupported(&param, format!("'{param}' is not offered; leave it out.")))
        }
    }
}

fn conversation(messages: Option<Vec<RequestMessage>>, continues: Option<bool>) -> Result<Prompt, ApiError> {
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
        let nothing = |name: &str, value: &Value| {
            value.is_null() || COMES_BACK.contains(&name) || (name == "tool_calls" && *value == json!([]))
        };
        refuse_others(&format!("messages[{index}]."), &message.others, nothing)?;
        let role = match message.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        if message.content.is_none() && message.role != Role::Assistant {
            let param = format!("messages[{index}].content");
            return Err(ApiError::field(&param, "missing_required_parameter", format!("'{param}' is missing.")));
        }
        turns.push(Message { role: role.into(), content: text_of(message.content, index)? });
    }
    // An answer that has been begun elsewhere is continued, unless it is said to be complete.
    let is_begun = turns.last().is_some_and(|turn| turn.role == "assistant");
    if continues == Some(true) && !is_begun {
        return Err(range("continue_final_message", "needs a last message of the assistant's"));
    }
    let assistant_prefix = match turns.pop_if(|_| is_begun && continues != Some(false)) {
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
    for (at, part) in parts.into_iter().enumerate() {
        if part.kind == "text" {
            refuse_others(&format!("messages[{index}].content[{at}]."), &part.others, |_, value| value.is_null())?;
        }
        match (part.kind.as_str(), part.text) {
            ("text", Some(piece)) => text.push_str(&piece),
            ("text", None) => {
                let param = format!("messages[{index}].content[{at}].text");
                return Err(ApiError::field(&param, "missing_required_parameter", format!("'{param}' is missing.")));
            }
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

fn prompts(prompts: Option<Prompts>, controlled: bool) -> Result<Vec<Prompt>, ApiError> {
    let text_prompt = if controlled { Prompt::Controlled } else { Prompt::Text };
    let prompts: Vec<Prompt> = match prompts {
        None => return Err(ApiError::field("prompt", "missing_required_parameter", "'prompt' is missing.")),
        Some(Prompts::Text(text)) => vec![text_prompt(text)],
        Some(Prompts::Texts(texts)) => texts.into_iter().map(text_prompt).collect(),
        Some(Prompts::Tokens(ids)) => vec![Prompt::Tokens(ids)],
        Some(Prompts::ManyTokens(many)) => many.into_iter().map(Prompt::Tokens).collect(),
    };
    let is_empty = |prompt: &Prompt| match prompt {
        Prompt::Text(text) | Prompt::Controlled(text) => text.is_empty(),
        Prompt::Tokens(ids) => ids.is_empty(),
        Prompt::Chat { .. } => false,
    };
    if prompts.is_empty() || prompts.iter().any(is_empty) {
        return Err(range("prompt", "is empty"));
    }
    Ok(prompts)
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
