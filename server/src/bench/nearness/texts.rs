//! What is read: a text and twenty conversations, written for this and never changed, so that figures of different days compare.

use engine::generate::ChatMessage;
use engine::{ChatTokenizer, EngineError};

/// About 2,500 tokens: prose, code, a table, figures, a few lines of other languages.
const TEXT: &str = include_str!("text.md");
/// Tokens of the text that are read at once.
pub(super) const WINDOW: usize = 512;

/// Turns of a user and an assistant in turn; each ends with an assistant's.
const CHATS: [&[&str]; 20] = [
    &["What is the capital of Portugal?", "The capital of Portugal is Lisbon."],
    &["Count from one to five in German.", "eins, zwei, drei, vier, fünf"],
    &[
        "Why is the sky blue?",
        "Sunlight holds all colours. Air scatters short waves much more than long ones, so blue light reaches us from \
         everywhere in the sky, while red light mostly passes straight on. That is also why the sun looks red when it \
         sets: its light has come a long way through the air and has lost its blue.",
    ],
    &[
        "Write a Rust function that adds up the even numbers of a slice.",
        "```rust\nfn sum_even(numbers: &[i64]) -> i64 {\n    numbers.iter().filter(|n| *n % 2 == 0).sum()\n}\n```\n\nIt \
         borrows the slice, keeps the numbers that two divides, and adds them up. For an empty slice the sum is 0.",
    ],
    &[
        "A train leaves at 9:40 and arrives at 12:05. How long does it take?",
        "From 9:40 to 12:00 it is 2 hours and 20 minutes, and 5 minutes more until 12:05. The train takes 2 hours and 25 \
         minutes.",
    ],
    &["Translate into French: The window is open.", "La fenêtre est ouverte."],
    &[
        "Give me three names for a ginger cat.",
        "1. Marmalade\n2. Paprika\n3. Captain Crumb",
        "Something shorter?",
        "1. Rust\n2. Fig\n3. Pip",
    ],
    &["Is 91 a prime number?", "No. 91 = 7 · 13."],
    &[
        "What does HTTP status 429 mean?",
        "429 means \"Too Many Requests\": the client has asked more often than the server allows. The answer may carry a \
         Retry-After header that says how many seconds to wait before the next try.",
    ],
    &[
        "Explain recursion to a ten-year-old.",
        "Imagine that you stand in a queue and want to know how many people are in front of you. You ask the person before \
         you. They do not know either, so they ask the one before them, and so on, until the first one says: nobody! Then \
         everybody adds one and passes the number back. That is recursion: you solve a problem by handing on a smaller \
         problem of the same kind.",
    ],
    &["JSON with the keys name and age for Ada, 36.", "{\"name\": \"Ada\", \"age\": 36}"],
    &[
        "I feel tired all the time. What should I do?",
        "I am sorry to hear that. Look at the simple things first: how long and how well you sleep, what you eat and drink, \
         and whether you move during the day. If it goes on for more than two or three weeks, or comes with weight loss, \
         fever or a low mood, please see a doctor, who can have your blood looked at.",
    ],
    &[
        "Who wrote Faust?",
        "Johann Wolfgang von Goethe. The first part appeared in 1808, the second in 1832, after his death.",
        "Was he the first to tell that story?",
        "No. The legend is much older: a chapbook told it in 1587, and Christopher Marlowe made a play of it soon after.",
    ],
    &["Convert 68 °F to °C.", "(68 − 32) · 5 / 9 = 20, so 68 °F is 20 °C."],
    &["Write a haiku about rain.", "Grey roofs tap and hum;\nthe gutter learns a new song\nand forgets it. Sun."],
    &[
        "How do I undo the last commit in git but keep my changes?",
        "Run `git reset --soft HEAD~1`. The commit is gone, and what it changed is staged again. If you have pushed it \
         already, `git revert HEAD` is safer, because it adds a new commit instead of changing the past.",
    ],
    &["2, 4, 8, 16, …: what comes next?", "32: each number is twice the one before."],
    &[
        "Summarise in one sentence: The meeting was moved from Monday to Wednesday because the room is being painted. Lunch \
         will be served.",
        "Because its room is being painted, the meeting with lunch is now on Wednesday.",
    ],
    &["¿Cómo se dice «thank you very much» en español?", "Se dice «muchas gracias»."],
    &[
        "What is the difference between a list and a tuple in Python?",
        "A list can be changed after it was made, a tuple cannot. So a tuple can be the key of a dictionary, and says to the \
         reader that its length is fixed: `point = (3, 4)`. Use a list for things of one kind that come and go: \
         `names = [\"Ada\", \"Alan\"]`.",
    ],
];

/// A list of tokens that a pass reads from its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Whether it is a conversation.
    pub is_chat: bool,
    /// At least two.
    pub tokens: Vec<u32>,
}

/// Up to `positions` tokens of the text, then the first `chats` conversations as the file's template writes them.
///
/// # Errors
/// The tokenizer or the template refuses them.
pub fn windows(words: &ChatTokenizer, positions: usize, chats: usize) -> Result<Vec<Window>, EngineError> {
    let bos = words.tokenizer.bos().into_iter();
    let mut text = words.tokenizer.encode_text(TEXT)?;
    // Every window begins as a text does.
    let begins: Vec<u32> = bos.filter(|bos| text.first() == Some(bos)).collect();
    text.drain(..begins.len());
    let mut windows = Vec::new();
    let mut left = positions.min(text.len());
    for part in text.chunks(WINDOW - begins.len()) {
        let tokens: Vec<u32> = begins.iter().chain(part.iter().take(left)).copied().collect();
        left -= left.min(part.len());
        windows.push(Window { is_chat: false, tokens });
    }
    for turns in CHATS.iter().take(chats) {
        let message = |at: usize, content: &&str| ChatMessage {
            role: ["user", "assistant"][at % 2].into(),
            content: (*content).to_owned(),
        };
        let Some((answer, before)) = turns.split_last() else { continue };
        let messages: Vec<ChatMessage> = before.iter().enumerate().map(|(at, turn)| message(at, turn)).collect();
        let tokens = words.prompt(&messages, answer)?.tokens(&words.tokenizer)?;
        windows.push(Window { is_chat: true, tokens });
    }
    windows.retain(|window| window.tokens.len() > 1);
    Ok(windows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversations_take_turns_and_end_with_an_answer() {
        for turns in CHATS {
            assert!(
                turns.len() % 2 == 0 && !turns.is_empty() && turns.iter().all(|turn| !turn.is_empty()),
                "{turns:?}"
            );
        }
    }

    #[test]
    fn as_many_positions_as_asked_for_and_no_more() {
        let (engine, _) = crate::host::load::shipped(&crate::http::files::source::Source::Embedded, "full").unwrap();
        let (words, _) = engine.into_parts();
        for (positions, chats) in [(100, 2), (1000, 20), (513, 0), (1, 0), (0, 1)] {
            let windows = windows(&words, positions, chats).unwrap();
            let of = |is_chat: bool| windows.iter().filter(move |window| window.is_chat == is_chat);
            let begins = of(false).filter(|window| window.tokens.first().copied() == words.tokenizer.bos()).count();
            let tokens = of(false).map(|window| window.tokens.len()).sum::<usize>() - begins;
            assert!(tokens <= positions && tokens + 1 >= positions, "{tokens} of {positions}");
            assert_eq!(of(true).count(), chats);
            assert!(windows.iter().all(|window| window.tokens.len() <= WINDOW));
        }
    }
}
