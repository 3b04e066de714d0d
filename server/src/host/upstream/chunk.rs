//! An engine's chunk or answer, of which only what is used is kept: a list of a million zeros under a name of its own costs
//! nothing here.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::trouble::message;

/// Longest log probabilities of a piece, and longest error or count of tokens, bytes of JSON.
const MAX_SCORES: usize = 4 << 20;
const MAX_ERROR: usize = 64 << 10;

/// One event of a stream, or a whole answer.
#[derive(Deserialize)]
pub struct Chunk {
    pub choices: Option<First<Choice>>,
    pub usage: Option<Json>,
    error: Option<Json>,
    message: Option<Json>,
    detail: Option<Json>,
}

/// What a chunk says instead of an answer.
pub enum Refusal {
    /// It names an error.
    Error(String),
    /// It has a text where others have errors.
    Remark(String),
}

impl Chunk {
    /// Why there is no answer.
    pub fn refusal(&self) -> Option<Refusal> {
        if let Some(error) = self.error.as_ref().filter(|error| error.0.get() != "null") {
            let error = error.short().unwrap_or_else(|| "an error too long to be read".into());
            return message(&serde_json::json!({ "error": error })).map(Refusal::Error);
        }
        let part = |json: &Option<Json>| json.as_ref().and_then(Json::short).unwrap_or_default();
        let parts = serde_json::json!({ "message": part(&self.message), "detail": part(&self.detail) });
        message(&parts).map(Refusal::Remark)
    }
}

/// JSON that nobody has looked into.
#[derive(Deserialize)]
#[serde(transparent)]
pub struct Json(Box<RawValue>);

impl Json {
    /// What it is, unless it is longer than a piece's log probabilities are.
    pub fn value(&self) -> Option<Value> {
        self.within(MAX_SCORES)
    }

    /// The same of what is short.
    pub fn short(&self) -> Option<Value> {
        self.within(MAX_ERROR)
    }

    fn within(&self, limit: usize) -> Option<Value> {
        let text = self.0.get();
        (text.len() <= limit).then(|| serde_json::from_str(text).ok()).flatten()
    }
}

/// The answer's only choice.
#[derive(Deserialize)]
pub struct Choice {
    index: Option<Json>,
    pub delta: Option<Said>,
    pub message: Option<Said>,
    pub text: Option<Content>,
    pub logprobs: Option<Json>,
    #[serde(default, deserialize_with = "text")]
    pub finish_reason: Option<String>,
}

impl Choice {
    /// Whether it belongs to another answer than the first, which is all that was asked for.
    pub fn is_other(&self) -> bool {
        self.index.as_ref().is_some_and(|index| !["0", "null"].contains(&index.0.get()))
    }
}

/// What was said.
#[derive(Default, Deserialize)]
pub struct Said {
    pub content: Option<Content>,
    #[serde(default, deserialize_with = "text")]
    pub reasoning_content: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub reasoning: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub refusal: Option<String>,
}

/// Takes a visitor of a single kind of value, and everything else for nothing.
fn loose<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Loose, D::Error> {
    deserializer.deserialize_any(LooseVisitor)
}

/// A text, the texts of parts, or something else.
enum Loose {
    Text(String),
    Parts(Option<String>),
    Null,
    Other,
}

struct LooseVisitor;

impl<'de> Visitor<'de> for LooseVisitor {
    type Value = Loose;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Loose, E> {
        Ok(Loose::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Loose, E> {
        Ok(Loose::Text(text))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Loose, E> {
        Ok(Loose::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Loose, E> {
        Ok(Loose::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Loose, E> {
        Ok(Loose::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Loose, E> {
        Ok(Loose::Other)
    }

    fn visit_unit<E>(self) -> Result<Loose, E> {
        Ok(Loose::Null)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Loose, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Loose::Other)
    }

    /// Parts of a content: their texts together, unless one has none.
    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Loose, A::Error> {
        let mut all = Some(String::new());
        while let Some(part) = parts.next_element::<Part>()? {
            match (&mut all, part.0) {
                (Some(all), Some(text)) => all.push_str(&text),
                _ => all = None,
            }
        }
        Ok(Loose::Parts(all))
    }
}

/// The text of a part of a content.
struct Part(Option<String>);

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PartVisitor;
        impl<'de> Visitor<'de> for PartVisitor {
            type Value = Part;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a part of a content")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Part, A::Error> {
                let mut text = None;
                while let Some(name) = map.next_key::<String>()? {
                    match name.as_str() {
                        "text" => text = map.next_value::<Content>()?.0,
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(Part(text))
            }

            fn visit_unit<E>(self) -> Result<Part, E> {
                Ok(Part(None))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Part, E> {
                Ok(Part(None))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Part, E> {
                Ok(Part(None))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Part, E> {
                Ok(Part(None))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Part, E> {
                Ok(Part(None))
            }

            fn visit_str<E>(self, _: &str) -> Result<Part, E> {
                Ok(Part(None))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Part, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Part(None))
            }
        }
        deserializer.deserialize_any(PartVisitor)
    }
}

/// A message's content, which may be a list of parts; `None` for what is not text.
pub struct Content(pub Option<String>);

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match loose(deserializer)? {
            Loose::Text(text) => Some(text),
            Loose::Null => Some(String::new()),
            Loose::Parts(parts) => parts,
            Loose::Other => None,
        }))
    }
}

/// A text; anything else is none.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match loose(deserializer)? {
        Loose::Text(text) => Some(text),
        _ => None,
    })
}

/// The first of a list, whose others are skipped.
pub struct First<T>(pub Option<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for First<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FirstVisitor<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for FirstVisitor<T> {
            type Value = First<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<First<T>, A::Error> {
                let first = list.next_element()?;
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(First(first))
            }
        }
        deserializer.deserialize_seq(FirstVisitor(std::marker::PhantomData))
    }
}
