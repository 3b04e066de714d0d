//! What Python's Jinja2 makes of the same templates; see tests/golden/make_templates.py.
#![allow(clippy::unwrap_used)]

use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Golden {
    now: i64,
    messages: Vec<Message>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: String,
}

#[derive(Deserialize)]
struct Case {
    source: String,
    /// `None` where Python raises an error.
    expect: Option<String>,
}

#[test]
fn the_same_text_as_jinja2() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/templates.json");
    let golden: Golden = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let messages: Vec<ChatMessage> =
        golden.messages.into_iter().map(|m| ChatMessage { role: m.role, content: m.content }).collect();
    assert!(golden.cases.len() > 1600);
    let mut wrong = Vec::new();
    for Case { source, expect } in &golden.cases {
        // A panic here would be a trap in a browser.
        let rendered = std::panic::catch_unwind(|| {
            ChatTemplate::new(Some(source), "<s>", "</s>").and_then(|mut template| {
                template.set_now(golden.now);
                template.render(&messages)
            })
        });
        let Ok(rendered) = rendered else {
            wrong.push(format!("{source}\n    panics"));
            continue;
        };
        if rendered.as_ref().ok() != expect.as_ref() {
            let found = rendered.map_err(|error| error.to_string());
            wrong.push(format!("{source}\n    Jinja2: {expect:?}\n    here:   {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), golden.cases.len(), wrong.join("\n"));
}
