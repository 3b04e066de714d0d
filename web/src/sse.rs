//! Reads the server's stream (`text/event-stream` with OpenAI chunks), piece by piece as the network cuts it.

use serde::Deserialize;

/// One thing the stream said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// More text.
    Text(String),
    /// `[DONE]`.
    End,
    /// The server broke off; its message.
    Error(String),
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    error: Option<ApiError>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Option<Delta>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
}

/// OpenAI's error object.
#[derive(Debug, Deserialize)]
pub struct ApiError {
    /// For people.
    pub message: String,
}

/// Body of an error response.
#[derive(Debug, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ApiError,
}

/// Longest line that is waited for; a longer one is given up, so that a broken server cannot fill the memory.
const MAX_LINE: usize = 1 << 20;

/// Lines that are not complete yet.
#[derive(Debug, Default)]
pub struct Reader {
    rest: String,
}

impl Reader {
    /// Takes in a piece of the stream.
    pub fn push(&mut self, piece: &str) -> Vec<Item> {
        self.rest.push_str(piece);
        let mut items = Vec::new();
        while let Some(end) = self.rest.find('\n') {
            let line: String = self.rest.drain(..=end).collect();
            items.extend(parse_line(line.trim_end()));
        }
        if self.rest.len() > MAX_LINE {
            self.rest.clear();
            items.push(Item::Error("The server sent a line without an end.".into()));
        }
        items
    }
}

fn parse_line(line: &str) -> Option<Item> {
    let data = line.strip_prefix("data:")?.trim();
    if data == "[DONE]" {
        return Some(Item::End);
    }
    let chunk: Chunk = match serde_json::from_str(data) {
        Ok(chunk) => chunk,
        Err(error) => return Some(Item::Error(format!("The server sent something unreadable ({error})."))),
    };
    if let Some(error) = chunk.error {
        return Some(Item::Error(error.message));
    }
    let text = chunk.choices.into_iter().next()?.delta?.content?;
    (!text.is_empty()).then_some(Item::Text(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = concat!(
        ": keep-alive\n\n",
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\r\n\r\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"Nairo\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"bi é\"},\"finish_reason\":null}]}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
        "data: [DONE]\n\n",
    );

    #[test]
    fn cuts_anywhere_make_no_difference() {
        let expected = [Item::Text("Nairo".into()), Item::Text("bi é".into()), Item::End];
        let chars: Vec<char> = STREAM.chars().collect();
        for size in [1, 2, 3, 7, 50, chars.len()] {
            let mut reader = Reader::default();
            let items: Vec<Item> =
                chars.chunks(size).flat_map(|c| reader.push(&c.iter().collect::<String>())).collect();
            assert_eq!(items, expected, "pieces of {size}");
        }
    }

    #[test]
    fn errors_are_told() {
        let items = Reader::default().push("data: {\"error\":{\"message\":\"Busy.\"}}\ndata: {oops\n");
        assert_eq!(items[0], Item::Error("Busy.".into()));
        assert!(matches!(items[1], Item::Error(_)));
    }

    #[test]
    fn an_endless_line_is_given_up() {
        let mut reader = Reader::default();
        let items = reader.push(&"x".repeat(MAX_LINE + 1));
        assert!(matches!(items[..], [Item::Error(_)]));
        assert_eq!(reader.push("data: [DONE]\n"), [Item::End]);
    }
}
