//! What things are called on the presenter's screen.

use client::protocol::rooms::down::RoomNumbers;
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

/// What the measured quality is of, where some of it is so by definition.
#[must_use]
pub fn own_references(room: &RoomNumbers) -> Option<String> {
    let RoomNumbers { own_references: own, qualities: all, .. } = *room;
    let which = match own {
        0 => return None,
        _ if own == all => "All measured answers were".to_owned(),
        1 => format!("1 of {all} measured answers was"),
        _ => format!("{own} of {all} measured answers were"),
    };
    Some(format!(
        "{which} written by the server alone, whose words are what answers are compared with: accuracy 1.00 and no \
         hallucination by definition."
    ))
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
    fn what_is_so_by_definition_is_said() {
        let room = |own_references, qualities| RoomNumbers { own_references, qualities, ..RoomNumbers::default() };
        assert_eq!((own_references(&room(0, 0)), own_references(&room(0, 5))), (None, None));
        for (own, all, begins) in [
            (5, 5, "All measured answers were"),
            (1, 5, "1 of 5 measured answers was"),
            (2, 5, "2 of 5 measured answers were"),
        ] {
            let said = own_references(&room(own, all)).unwrap_or_default();
            assert!(said.starts_with(begins) && said.contains("by definition"), "{said}");
        }
    }

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
