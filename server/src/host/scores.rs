//! Log probabilities in the two forms that OpenAI's API has: lists of objects for chats, lists beside each other for plain
//! texts.

use engine::Tokenizer;
use engine::sampler::TokenLogprobs;
use serde_json::{Map, Value, json};

/// What stands for a probability of zero, which JSON cannot write.
const NEVER: f64 = -9999.0;

/// Those of one token. `offset` is the number of characters of the answer before it.
#[must_use]
pub fn of_token(tokenizer: &Tokenizer, is_chat: bool, id: u32, offset: usize, scores: &TokenLogprobs) -> Value {
    let text = |id: u32| tokenizer.token_text(id);
    if is_chat {
        let entry = |id: u32, logprob: f32| json!({ "token": text(id), "logprob": number(logprob), "bytes": tokenizer.token_bytes(id) });
        let mut content = entry(id, scores.logprob);
        content["top_logprobs"] = scores.top.iter().map(|(id, logprob)| entry(*id, *logprob)).collect();
        return json!({ "content": [content], "refusal": null });
    }
    let top: Map<String, Value> = scores.top.iter().map(|(id, logprob)| (text(*id), number(*logprob))).collect();
    json!({
        "tokens": [text(id)], "token_logprobs": [number(scores.logprob)], "top_logprobs": [top],
        "text_offset": [offset],
    })
}

/// With the digits that an f32 has.
fn number(value: f32) -> Value {
    let short = if value.is_finite() { value.to_string().parse().unwrap_or(NEVER) } else { NEVER };
    json!(short)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing;

    #[test]
    fn both_forms() {
        let engine = testing::engine(64);
        let tokenizer = engine.tokenizer();
        let ids = tokenizer.encode_text("ab").unwrap();
        let [a, b] = [ids[ids.len() - 2], ids[ids.len() - 1]];
        let scores = TokenLogprobs { logprob: -0.1, top: vec![(a, -0.1), (b, f32::NEG_INFINITY)] };
        let chat = of_token(tokenizer, true, a, 0, &scores);
        assert_eq!(chat["content"][0]["token"], "a");
        assert_eq!(
            (chat["content"][0]["logprob"].to_string().as_str(), &chat["content"][0]["bytes"]),
            ("-0.1", &json!([97]))
        );
        assert_eq!(chat["content"][0]["top_logprobs"][1]["logprob"], NEVER);
        let text = of_token(tokenizer, false, a, 7, &scores);
        assert_eq!(text["tokens"], json!(["a"]));
        assert_eq!((&text["text_offset"], &text["top_logprobs"][0]["a"]), (&json!([7]), &json!(-0.1)));
    }
}
