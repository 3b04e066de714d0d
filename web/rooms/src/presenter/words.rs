//! What things are called on the presenter's screen.

use client::protocol::rooms::{Part, Presence};
use client::protocol::world::Decider;

/// Who may decide a room's slots, in the order of lists.
pub const DECIDERS: [Decider; 6] = [
    Decider::Policy,
    Decider::ClosedForm,
    Decider::Oracle,
    Decider::AlwaysLocal,
    Decider::AlwaysOffload,
    Decider::Random,
];

/// Name of a way to decide.
#[must_use]
pub fn decider(decider: Decider) -> &'static str {
    match decider {
        Decider::Policy => "Policy",
        Decider::Oracle => "Optimum",
        Decider::ClosedForm => "Closed form",
        Decider::AlwaysLocal => "Always local",
        Decider::AlwaysOffload => "Always offload",
        Decider::Random => "Random",
        Decider::Manual => "By hand",
    }
}

/// Name of a way to take part.
#[must_use]
pub fn part(part: Part) -> &'static str {
    match part {
        Part::Model => "model",
        Part::ServerOnly => "server only",
        Part::LoadOnly => "load only",
    }
}

/// Name of a presence.
#[must_use]
pub fn presence(presence: Presence) -> &'static str {
    match presence {
        Presence::Active => "here",
        Presence::Away => "away",
        Presence::Muted => "muted",
    }
}

/// A code as people read it out: two groups of three.
#[must_use]
pub fn spaced(code: &str) -> String {
    let at = code.char_indices().nth(3).map_or(code.len(), |(at, _)| at);
    let (first, second) = code.split_at(at);
    format!("{first} {second}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_codes_are_spaced() {
        let mut names: Vec<&str> = DECIDERS.into_iter().map(decider).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DECIDERS.len());
        assert_eq!(
            (spaced("BCD234"), spaced("BC"), spaced("")),
            ("BCD 234".to_owned(), "BC".to_owned(), String::new())
        );
    }
}
