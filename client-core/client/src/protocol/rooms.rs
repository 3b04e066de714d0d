//! Live rooms: phones join as mobile LLM users (MLUs) of shared cells, a presenter watches and steers.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`rest`] | bodies of `/api/rooms…`: making a room, asking for it, the exported slots |
//! | [`up`] | [`ClientMessage`]: what a phone and a presenter say |
//! | [`down`] | [`ServerMessage`]: what the server says: welcome, decisions, pictures, snapshots, rounds |
//! | [`settings`] | what a presenter sets: slot period, cells, sliders, who decides |
//! | [`close`] | [`CloseReason`]: why the server ended a connection, and whether to come back |
//!
//! # A connection
//! `/ws/rooms/{code}` is a WebSocket of JSON texts, each one [`ClientMessage`] or [`ServerMessage`], told apart by the field
//! `type`. The first message is [`up::Join`], within [`JOIN_SECONDS`]; it carries [`ROOM_VERSION`], and a server of another
//! version closes with [`CloseReason::Version`]. The answer is [`down::Welcome`], then a [`down::Snapshot`]. From then on:
//!
//! - **Each slot** a phone that takes part gets its own [`down::Decision`] (never dropped) and a [`down::Picture`] of its own
//!   cell; a presenter gets the picture of all cells. Pictures are whole: one that was dropped, because the network was slow,
//!   is made good by a snapshot.
//! - **A phone** sends [`up::Telemetry`] each slot, [`up::Place`] when it is dragged, and an [`up::Answer`] when it has
//!   answered a question.
//! - **A presenter** sends [`up::Command`]s; one that cannot be done comes back as [`ServerMessage::Refused`].
//!
//! A phone keeps the token of its welcome and joins with it again after any cut: it is then the same MLU, with its name,
//! place and counters. Its seat in a cell is kept for [`settings::RoomSettings::away_s`]. The server pings every
//! [`PING_SECONDS`]; a browser answers by itself.
//!
//! Deliberately absent: questions and answers on their way to the full model, which go over `/v1/…` as ever.

use serde::{Deserialize, Serialize};

pub mod close;
pub mod down;
pub mod rest;
pub mod settings;
pub mod up;

pub use close::CloseReason;
pub use down::ServerMessage;
pub use settings::RoomSettings;
pub use up::ClientMessage;

/// Version of all messages of a room, and of the exported slots.
pub const ROOM_VERSION: u32 = 2;
/// Characters of a room's code.
pub const CODE_CHARS: usize = 6;
/// What a code is made of: no vowels, and nothing that is taken for something else on a projector.
pub const CODE_ALPHABET: &str = "23456789BCDFGHJKMNPQRSTVWXYZ";
/// Longest name of a device, characters.
pub const NAME_CHARS: usize = 24;
/// Longest question of a round and longest text of an answer, characters; what is longer is cut.
pub const TEXT_CHARS: usize = 2000;
/// Most questions of one round.
pub const ROUND_QUESTIONS: usize = 32;
/// Largest message to the server, bytes.
pub const MESSAGE_BYTES: usize = 16 << 10;
/// Messages a second that a member may send in the long run; twice as many at once.
pub const MESSAGES_PER_SECOND: u32 = 20;
/// Longest time from the opened connection to the join.
pub const JOIN_SECONDS: u64 = 10;
/// Time between two pings of the server.
pub const PING_SECONDS: u64 = 10;

/// Who joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A device of the hall: one MLU.
    Phone,
    /// Whoever has the room's secret: steers, takes no part in a cell.
    Presenter,
}

/// How a device takes part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Runs the compact model.
    Model,
    /// Has no model: the server answers all, α is 1 whatever was decided.
    ServerOnly,
    /// Computes nothing: a simulated device of the cell, which only places load.
    #[default]
    LoadOnly,
}

/// Whether a member takes part in the slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Presence {
    /// In its cell: sends, is decided for, interferes.
    #[default]
    Active,
    /// In the background or without a network: its seat is kept, it interferes no more.
    Away,
    /// Taken out of the slots by the presenter; its name and its texts are not shown.
    Muted,
}

/// A code as people type it, in the form that addresses have: capitals without spaces and dashes. `None` for what no room
/// can be called.
#[must_use]
pub fn tidy_code(typed: &str) -> Option<String> {
    let code: String = typed
        .chars()
        .filter(|c| !matches!(c, ' ' | '-'))
        .map(|c| c.to_ascii_uppercase())
        .take(CODE_CHARS + 1)
        .collect();
    let fits = code.len() == CODE_CHARS && code.chars().all(|c| CODE_ALPHABET.contains(c));
    fits.then_some(code)
}

/// A name or a text as it is kept and shown: without control characters and marks that turn the direction of writing, white
/// space drawn together, at most `most` characters. May be empty.
#[must_use]
pub fn clean(text: &str, most: usize) -> String {
    let mut out = String::new();
    let mut count = 0;
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
        let mut letters = word.chars().filter(|c| !is_hidden(*c)).peekable();
        if letters.peek().is_none() {
            continue;
        }
        if count > 0 {
            if count + 1 >= most {
                break;
            }
            out.push(' ');
            count += 1;
        }
        for letter in letters {
            if count >= most {
                return out;
            }
            out.push(letter);
            count += 1;
        }
    }
    out
}

/// Characters that show nothing, or change what is shown around them.
fn is_hidden(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        // Blank letters: Hangul's fillers, and Braille without a dot.
        | '\u{115f}' | '\u{1160}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_taken_as_people_type_it() {
        for (typed, code) in [
            ("BCD234", Some("BCD234")),
            ("bcd 234", Some("BCD234")),
            (" bcd-234 ", Some("BCD234")),
            ("BCD23", None),
            ("BCD2345", None),
            ("BCD23O", None),
            ("BCD23é", None),
            ("", None),
        ] {
            assert_eq!(tidy_code(typed).as_deref(), code, "{typed:?}");
        }
    }

    #[test]
    fn names_are_cleaned_and_cut() {
        for (given, most, kept) in [
            ("  Ada\t\nLovelace ", 24, "Ada Lovelace"),
            ("a\u{0}b\u{7f}c", 24, "a b c"),
            ("\u{202e}gnp.exe", 24, "gnp.exe"),
            ("a\u{200b}\u{200d}b", 24, "ab"),
            ("\u{200b} \u{200b}", 24, ""),
            ("\u{3164}\u{2800}", 24, ""),
            ("Zoë 🛰️ 東京", 24, "Zoë 🛰️ 東京"),
            ("abcdef", 3, "abc"),
            ("ab cd", 3, "ab"),
            ("ab cd", 4, "ab c"),
            ("<b>x</b>", 24, "<b>x</b>"),
        ] {
            assert_eq!(clean(given, most), kept, "{given:?}");
            assert!(clean(given, most).chars().count() <= most, "{given:?}");
        }
    }
}
