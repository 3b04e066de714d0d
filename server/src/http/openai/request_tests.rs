use super::*;

fn work(endpoint: Endpoint, body: Value) -> Result<Work, ApiError> {
    serde_json::from_value::<CompletionRequest>(body).unwrap().into_work(endpoint)
}

fn one(endpoint: Endpoint, body: Value) -> Generation {
    let mut work = work(endpoint, body).unwrap();
    assert_eq!(work.answers.len(), 1);
    work.answers.pop().unwrap()
}

#[test]
fn reads_a_chat() {
    let got = one(
        Endpoint::Chat,
        json!({"messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": "So", "refusal": null, "annotations": [], "tool_calls": []}],
            "max_tokens": 5, "temperature": 0, "top_k": -1, "seed": -1, "stop": "x", "n": 1, "user": "me",
            "presence_penalty": 0.5, "logprobs": false, "tools": null, "response_format": {"type": "text"},
            "metadata": {"a": "b"}, "tool_choice": "none", "logit_bias": {"7": 1}}),
    );
    let Prompt::Chat { messages, assistant_prefix } = got.prompt else { panic!("a chat") };
    assert_eq!(assistant_prefix, "So");
    assert_eq!(messages[0], Message { role: "system".into(), content: "Be brief.".into() });
    assert_eq!(messages[1].content, "ab");
    let expect = Sampling {
        max_tokens: Some(5),
        temperature: Some(0.0),
        presence_penalty: Some(0.5),
        logit_bias: [(7, 1.0)].into(),
        seed: Some(-1),
        stop: vec!["x".into()],
        ..Sampling::default()
    };
    assert_eq!(got.sampling, expect);
    assert!(got.counted, "an answer in one piece has its counts");
}

#[test]
fn without_a_seed_every_answer_differs() {
    let sampling = one(Endpoint::Text, json!({"prompt": "p"})).sampling;
    assert_eq!(sampling, Sampling::default(), "nothing is made up");
    assert_ne!(sampling.seed_or_any(), sampling.seed_or_any());
    let large = one(Endpoint::Text, json!({"prompt": ["p"], "seed": u64::MAX}));
    assert_eq!(large.sampling.seed_or_any(), u64::MAX);
}

#[test]
fn several_prompts_and_answers() {
    let got =
        work(Endpoint::Text, json!({"prompt": ["a", "b"], "n": 2, "best_of": 2, "seed": 5, "echo": true})).unwrap();
    let prompts: Vec<_> = got.answers.iter().map(|answer| (answer.prompt.clone(), answer.sampling.seed)).collect();
    let text = |text: &str| Prompt::Text(text.to_owned());
    let expect = [(text("a"), Some(5)), (text("a"), Some(6)), (text("b"), Some(5)), (text("b"), Some(6))];
    assert_eq!(prompts, expect);
    assert_eq!((got.per_prompt, got.echo.concat().as_str()), (2, "aabb"));
    let ids = work(Endpoint::Text, json!({"prompt": [[1, 2], [3]]})).unwrap();
    assert_eq!(ids.answers[1].prompt, Prompt::Tokens(vec![3]));
    let stream = one(Endpoint::Text, json!({"prompt": "a", "stream": true, "cache_salt": "mine"}));
    assert_eq!((stream.counted, stream.cache_salt.as_deref()), (false, Some("mine")));
}

#[test]
fn a_complete_answer_of_the_assistants_is_not_continued_where_the_client_says_so() {
    let body = |continues: Value| {
        json!({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
            "continue_final_message": continues, "add_generation_prompt": continues == json!(false)})
    };
    for (continues, turns, prefix) in [(json!(true), 1, "a"), (json!(false), 2, "")] {
        let Prompt::Chat { messages, assistant_prefix } = one(Endpoint::Chat, body(continues)).prompt else { panic!() };
        assert_eq!((messages.len(), assistant_prefix.as_str()), (turns, prefix));
    }
}

#[test]
fn every_field_is_honoured_or_refused_by_name() {
    for (field, value) in [
        ("n", json!(17)),
        ("n", json!(0)),
        ("best_of", json!(3)),
        ("echo", json!(true)),
        ("suffix", json!("x")),
        ("logprobs", json!(3)),
        ("top_logprobs", json!(2)),
        ("presence_penalty", json!(2.5)),
        ("frequency_penalty", json!(-2.5)),
        ("repetition_penalty", json!(0)),
        ("min_p", json!(1.5)),
        ("logit_bias", json!({"x": 1})),
        ("logit_bias", json!({"5": 1, "05": -100})),
        ("logit_bias", json!({"+5": 1})),
        ("logit_bias", json!({"1": 101})),
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
        ("messages[0].content", json!([{"type": "image_url", "image_url": {"url": "data:,"}}])),
        ("messages[0].name", json!("Ann")),
        ("messages[0].tool_call_id", json!("1")),
        ("prompt", json!("p")),
        ("stop_token_ids", json!(vec![1; 65])),
        ("cache_salt", json!("")),
        ("cache_salt", json!("x".repeat(257))),
        ("min_tokens", json!(3)),
        ("tool_choice", json!("auto")),
        ("guided_json", json!({})),
        ("grammar", json!("root ::= x")),
        ("reasoning_effort", json!("low")),
        ("modalities", json!(["audio"])),
        ("skip_special_tokens", json!(false)),
        ("add_generation_prompt", json!(false)),
        ("continue_final_message", json!(true)),
        ("stream_options.include_obfuscation", json!(true)),
        ("temprature", json!(1)),
    ] {
        let mut body = json!({"messages": [{"role": "user", "content": "q"}]});
        match field.rsplit_once('.') {
            Some((place, name)) if place.starts_with("messages") => body["messages"][0][name] = value.clone(),
            Some((place, name)) => body[place][name] = value.clone(),
            None => body[field] = value.clone(),
        }
        let error = work(Endpoint::Chat, body).expect_err(&format!("{field} = {value}"));
        assert_eq!(error.param.as_deref(), Some(field), "{error:?}");
        assert_eq!(error.status.as_u16(), 400);
        assert!(error.message.contains(field.rsplit('.').next().unwrap()) || field.starts_with("mess"), "{error:?}");
    }
    for (field, value) in [
        ("stop_token_ids", json!([])),
        ("ignore_eos", json!(false)),
        ("min_tokens", json!(0)),
        ("skip_special_tokens", json!(true)),
        ("guided_json", Value::Null),
        ("whatever", Value::Null),
        ("cache_prompt", json!(true)),
        ("parallel_tool_calls", json!(true)),
        ("modalities", json!(["text"])),
    ] {
        let mut body = json!({"messages": [{"role": "user", "content": "q"}]});
        body[field] = value.clone();
        assert!(work(Endpoint::Chat, body).is_ok(), "{field} = {value}");
    }
    for body in [
        json!({}),
        json!({"prompt": ""}),
        json!({"prompt": []}),
        json!({"prompt": ["a", ""]}),
        json!({"prompt": [[]]}),
        json!({"prompt": vec!["a"; 17]}),
    ] {
        let error = work(Endpoint::Text, body.clone()).expect_err(&body.to_string());
        assert_eq!(error.param.as_deref(), Some("prompt"));
    }
    for (field, value) in [("logprobs", json!(true)), ("logprobs", json!(21)), ("top_logprobs", json!(1))] {
        let mut body = json!({"prompt": "p"});
        body[field] = value;
        assert_eq!(work(Endpoint::Text, body).unwrap_err().param.as_deref(), Some(field));
    }
    let scored = one(
        Endpoint::Chat,
        json!({"messages": [{"role": "user", "content": "q"}], "logprobs": true, "top_logprobs": 3}),
    );
    assert_eq!(scored.sampling.logprobs, Some(3));
    assert_eq!(one(Endpoint::Text, json!({"prompt": "p", "logprobs": 0})).sampling.logprobs, Some(0));
}

#[test]
fn nothing_within_a_field_is_dropped() {
    let user = |content: serde_json::Value| json!({"messages": [{"role": "user", "content": content}]});
    for (endpoint, body, param) in [
        (
            Endpoint::Chat,
            user(json!([{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}])),
            "messages[0].content[0].cache_control",
        ),
        (Endpoint::Chat, user(json!([{"type": "text", "text": "a"}, {"type": "text"}])), "messages[0].content[1].text"),
        (Endpoint::Chat, user(json!(null)), "messages[0].content"),
        (
            Endpoint::Chat,
            json!({"messages": [{"role": "system"}, {"role": "user", "content": "q"}]}),
            "messages[0].content",
        ),
        (
            Endpoint::Chat,
            json!({"messages": [{"role": "user", "content": "q"}], "response_format": {"type": "text", "strict": true}}),
            "response_format.strict",
        ),
        (Endpoint::Text, json!({"prompt": "p", "echo": true, "logprobs": 1}), "logprobs"),
    ] {
        let error = work(endpoint, body.clone()).expect_err(&body.to_string());
        assert_eq!((error.param.as_deref(), error.status.as_u16()), (Some(param), 400), "{body}: {error:?}");
    }
    // What clients send back of an answer, and a request without any of it.
    let begun = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}], "response_format": {"type": "text"}});
    assert!(work(Endpoint::Chat, begun).is_ok());
}
