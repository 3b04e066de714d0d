//! A burst of questions: the text of the prompt box, one question a line, and the suggested ones.

use std::fmt;

use serde::Deserialize;

/// Most questions in a burst.
pub const MAX_QUESTIONS: usize = 16;
/// Most characters in a question. The models' context is checked by the worker, which knows the tokenizer; this only stops
/// a pasted document early.
pub const MAX_CHARS: usize = 2_000;

/// Why a burst cannot be asked. Its text says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BurstError {
    /// Nothing but white space.
    Empty,
    /// Over [`MAX_QUESTIONS`].
    TooMany(usize),
    /// A question over [`MAX_CHARS`].
    TooLong {
        /// Its number, from 1.
        question: usize,
        /// Its length.
        chars: usize,
    },
}

impl fmt::Display for BurstError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "Type a question first, or pick one of the suggested bursts."),
            Self::TooMany(given) => {
                write!(f, "That is {given} questions; a burst holds {MAX_QUESTIONS}. Remove some lines.")
            }
            Self::TooLong { question, chars } => write!(
                f,
                "Question {question} has {chars} characters; the limit is {MAX_CHARS}. Shorten it, or break it into lines."
            ),
        }
    }
}

impl std::error::Error for BurstError {}

/// Questions of a text: its lines, trimmed, without empty ones.
///
/// # Errors
/// None left, too many, or one too long.
pub fn parse(text: &str) -> Result<Vec<String>, BurstError> {
    let questions: Vec<String> = text.lines().map(str::trim).filter(|q| !q.is_empty()).map(str::to_owned).collect();
    if questions.is_empty() {
        return Err(BurstError::Empty);
    }
    if questions.len() > MAX_QUESTIONS {
        return Err(BurstError::TooMany(questions.len()));
    }
    for (index, question) in questions.iter().enumerate() {
        let chars = question.chars().count();
        if chars > MAX_CHARS {
            return Err(BurstError::TooLong { question: index + 1, chars });
        }
    }
    Ok(questions)
}

/// One suggested burst.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Suggestion {
    /// Stable name, part of its button's test id.
    pub key: String,
    /// Text of the button.
    pub label: String,
    /// What is special about it.
    pub hint: String,
    /// What it asks.
    pub questions: Vec<String>,
}

/// The suggested bursts, in the order of their buttons.
#[must_use]
pub fn suggestions() -> Vec<Suggestion> {
    serde_json::from_str(include_str!("bursts.json")).expect("bursts.json is checked by a test")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_questions() {
        let parsed = parse("  What is K2? \r\n\n\t\nWho wrote Emma?").expect("two questions");
        assert_eq!(parsed, ["What is K2?", "Who wrote Emma?"]);
    }

    #[test]
    fn refusals_name_the_line() {
        let long = "é".repeat(MAX_CHARS + 1);
        let cases = [
            (" \n\t".to_owned(), BurstError::Empty),
            ("a\n".repeat(MAX_QUESTIONS + 1), BurstError::TooMany(MAX_QUESTIONS + 1)),
            (format!("ok\n\n{long}"), BurstError::TooLong { question: 2, chars: MAX_CHARS + 1 }),
        ];
        for (text, error) in cases {
            assert_eq!(parse(&text), Err(error.clone()));
            assert!(error.to_string().ends_with('.'));
        }
        assert!(parse(&"é".repeat(MAX_CHARS)).is_ok());
    }

    #[test]
    fn suggested_bursts_can_be_asked() {
        let all = suggestions();
        assert_eq!(all.iter().map(|s| s.key.as_str()).collect::<Vec<_>>(), ["single-hop", "two-hop", "mixed"]);
        for suggestion in all {
            let text = suggestion.questions.join("\n");
            assert_eq!(parse(&text).as_deref(), Ok(&suggestion.questions[..]), "{}", suggestion.key);
        }
    }
}
