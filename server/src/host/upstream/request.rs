//! What the engine is asked: what our client asked for, and no more. Strict engines refuse a request with a field that
//! they do not know, and the defaults of an engine are its owner's choice.

use serde_json::{Map, Value, json};

use crate::host::{Generation, Prompt, Sampling};

/// What we send of ourselves, where it is needed; left out from then on where an engine refuses it.
pub const OWN: [&str; 3] = ["stream_options", "add_generation_prompt", "continue_final_message"];

/// The request's body.
#[must_use]
pub fn body(model: &str, generation: Generation) -> Value {
    let Generation { prompt, sampling, counted, cache_salt } = generation;
    let mut body = Map::new();
    let is_chat = matches!(prompt, Prompt::Chat { .. });
    body.insert("model".into(), json!(model));
    body.insert("stream".into(), json!(true));
    if counted {
        body.insert("stream_options".into(), json!({ "include_usage": true }));
    }
    match prompt {
        Prompt::Chat { messages, assistant_prefix } => {
            let mut turns: Vec<Value> =
                messages.into_iter().map(|turn| json!({ "role": turn.role, "content": turn.content })).collect();
            if !assistant_prefix.is_empty() {
                turns.push(json!({ "role": "assistant", "content": assistant_prefix }));
                // What vLLM wants to be told before it goes on with an answer; llama.cpp does so by itself.
                body.insert("add_generation_prompt".into(), json!(false));
                body.insert("continue_final_message".into(), json!(true));
            }
            body.insert("messages".into(), json!(turns));
        }
        Prompt::Text(text) | Prompt::Controlled(text) => drop(body.insert("prompt".into(), json!(text))),
        Prompt::Tokens(ids) => drop(body.insert("prompt".into(), json!(ids))),
    }
    if let Some(salt) = cache_salt {
        body.insert("cache_salt".into(), json!(salt));
    }
    choice(&mut body, sampling, is_chat);
    Value::Object(body)
}

fn choice(body: &mut Map<String, Value>, sampling: Sampling, is_chat: bool) {
    for (name, value) in [
        ("temperature", sampling.temperature),
        ("top_p", sampling.top_p),
        ("min_p", sampling.min_p),
        ("repetition_penalty", sampling.repetition_penalty),
        ("presence_penalty", sampling.presence_penalty),
        ("frequency_penalty", sampling.frequency_penalty),
    ] {
        if let Some(value) = value {
            body.insert(name.into(), json!(value));
        }
    }
    if let Some(max_tokens) = sampling.max_tokens {
        body.insert("max_tokens".into(), json!(max_tokens));
    }
    if sampling.top_k > 0 {
        body.insert("top_k".into(), json!(sampling.top_k));
    }
    if !sampling.stop.is_empty() {
        body.insert("stop".into(), json!(sampling.stop));
    }
    if !sampling.stop_tokens.is_empty() {
        body.insert("stop_token_ids".into(), json!(sampling.stop_tokens));
    }
    if sampling.ignore_eos {
        body.insert("ignore_eos".into(), json!(true));
    }
    if !sampling.logit_bias.is_empty() {
        let bias: Map<String, Value> =
            sampling.logit_bias.iter().map(|(id, bias)| (id.to_string(), json!(bias))).collect();
        body.insert("logit_bias".into(), Value::Object(bias));
    }
    if let Some(seed) = sampling.seed {
        // Of 64 bits with or without a sign, as it was read.
        let seed = i64::try_from(seed).map_or_else(|_| json!(seed as u64), |seed| json!(seed));
        body.insert("seed".into(), seed);
    }
    match sampling.logprobs {
        Some(others) if is_chat => {
            body.insert("logprobs".into(), json!(true));
            if others > 0 {
                body.insert("top_logprobs".into(), json!(others));
            }
        }
        Some(others) => drop(body.insert("logprobs".into(), json!(others))),
        None => {}
    }
}

/// Takes a field out again.
pub fn without(body: &mut Value, field: &str) {
    if let Some(body) = body.as_object_mut() {
        body.remove(field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Message;

    fn keys(body: &Value) -> Vec<&str> {
        body.as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn the_request_says_what_was_asked_and_no_more() {
        let plain = |prompt| Generation { prompt, sampling: Sampling::default(), counted: false, cache_salt: None };
        assert_eq!(keys(&body("m", plain(Prompt::Text("p".into())))), ["model", "prompt", "stream"]);
        assert_eq!(body("m", plain(Prompt::Tokens(vec![1, 2])))["prompt"], json!([1, 2]));
        let user = Message { role: "user".into(), content: "q".into() };
        let chat = |prefix: &str| Prompt::Chat { messages: vec![user.clone()], assistant_prefix: prefix.into() };
        assert_eq!(keys(&body("m", plain(chat("")))), ["messages", "model", "stream"]);
        let begun = body("m", plain(chat("so")));
        assert_eq!(begun["messages"][1], json!({"role": "assistant", "content": "so"}));
        assert_eq!(begun["continue_final_message"], true);
        let counted = body("m", Generation { counted: true, ..plain(chat("")) });
        assert_eq!(counted["stream_options"], json!({"include_usage": true}));
    }

    #[test]
    fn numbers_go_out_as_they_were_written() {
        let sampling = Sampling {
            temperature: Some(0.7),
            top_p: Some(0.1),
            min_p: Some(0.05),
            repetition_penalty: Some(1.1),
            logit_bias: [(5, -100.0)].into(),
            logprobs: Some(2),
            seed: Some(-1),
            ..Sampling::default()
        };
        let text = |sampling: Sampling| {
            body("m", Generation { prompt: Prompt::Text("p".into()), sampling, counted: false, cache_salt: None })
                .to_string()
        };
        let written = text(sampling.clone());
        for part in [
            r#""temperature":0.7"#,
            r#""top_p":0.1"#,
            r#""min_p":0.05"#,
            r#""repetition_penalty":1.1"#,
            r#""logit_bias":{"5":-100.0}"#,
            r#""logprobs":2"#,
            r#""seed":-1"#,
        ] {
            assert!(written.contains(part), "{part}: {written}");
        }
        let large = text(Sampling { seed: Some(i128::from(u64::MAX)), ..sampling });
        assert!(large.contains(r#""seed":18446744073709551615"#), "{large}");
    }
}
