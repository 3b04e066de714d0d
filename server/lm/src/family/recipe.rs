//! Which variants there are, and of what each is made.

use engine::gguf::GgmlType;
use serde::Serialize;

/// What a variant is compared as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// The teacher as it is.
    Original,
    /// Fewer bits, nothing else: the line that is hard to beat.
    Quantised,
    /// The same with the tokens that the students get, the quantiser in the loop.
    QuantisedTrained,
    /// Cut, not healed.
    Pruned,
    /// Cut and healed.
    Distilled,
    /// Cut, healed, the quantiser in the loop, quantised.
    Ecld,
    /// A student's shape from random weights.
    Random,
}

/// Where a variant's weights come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Source {
    /// The teacher.
    Teacher,
    /// The teacher without this share of its parameters, in percent.
    Pruned(u32),
    /// What learned from the teacher for the first part of the tokens.
    Healed {
        /// Percent that were cut before.
        cut: u32,
        /// From random weights instead of inherited ones.
        random: bool,
    },
    /// The same, then on for the second part with Q4_0 in the loop.
    Looped {
        /// Percent that were cut before.
        cut: u32,
        /// From random weights instead of inherited ones.
        random: bool,
    },
    /// The whole teacher, which learns from itself for as many tokens as both parts have, the paper's quantiser of so many bits
    /// for groups of so many weights in the loop all the time.
    Trained(u32, usize),
}

/// How a variant is stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Stored {
    /// As the teacher's file.
    AsIs,
    /// All matrices in this type, with searched scales.
    Type(GgmlType),
    /// The paper's quantiser of so many bits for groups of so many weights, minimised: values in single precision, bytes as
    /// its codes would take (simulated: no engine has such a file).
    Uniform(u32, usize),
}

/// A variant.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// Name of its file, without an ending.
    pub id: String,
    /// In words.
    pub title: String,
    /// What it is compared as.
    pub group: Group,
    /// Its weights.
    pub source: Source,
    /// Its file.
    pub stored: Stored,
}

/// Controls that are trained themselves, and take as long as the students.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Controls {
    /// The shape of the deepest cut from random weights.
    pub random: bool,
    /// The whole teacher with two bits in the loop: fewer bits alone, with the same tokens.
    pub trained: bool,
}

/// All variants for cuts of so many percent of the parameters.
pub fn recipes(cuts: &[u32], controls: Controls) -> Vec<Recipe> {
    use Stored::{AsIs, Type, Uniform};
    let mut all = Vec::new();
    let mut add = |id: String, title: String, group, source, stored| {
        all.push(Recipe { id, title, group, source, stored });
    };
    let teacher = Source::Teacher;
    add("original".into(), "original (Q8_0, as it ships)".into(), Group::Original, teacher, AsIs);
    for (id, title, stored) in [
        ("q4_1", "Q4_1", Type(GgmlType::Q4_1)),
        ("q4_0", "Q4_0", Type(GgmlType::Q4_0)),
        ("u3-64", "3 bit, groups of 64", Uniform(3, 64)),
        ("u2-32", "2 bit, groups of 32", Uniform(2, 32)),
        ("u2-64", "2 bit, groups of 64", Uniform(2, 64)),
    ] {
        add(id.into(), format!("quantised only: {title}"), Group::Quantised, teacher, stored);
    }
    let q8 = Type(GgmlType::Q8_0);
    let q4 = Type(GgmlType::Q4_0);
    for cut in cuts.iter().copied() {
        let healed = Source::Healed { cut, random: false };
        let looped = Source::Looped { cut, random: false };
        add(format!("p{cut}-q8_0"), format!("pruned only: −{cut} %, Q8_0"), Group::Pruned, Source::Pruned(cut), q8);
        let title = format!("pruned, distilled: −{cut} %, Q8_0");
        add(format!("pd{cut}-q8_0"), title, Group::Distilled, healed, q8);
        add(format!("ecld{cut}-q4_0"), format!("ECLD: −{cut} %, Q4_0"), Group::Ecld, looped, q4);
    }
    if let Some(cut) = cuts.iter().copied().max().filter(|_| controls.random) {
        let random = Source::Looped { cut, random: true };
        let title = format!("random weights in the shape of −{cut} %, Q4_0, the same tokens");
        add(format!("random{cut}-q4_0"), title, Group::Random, random, q4);
    }
    if controls.trained {
        let title = "quantised only, the same tokens in the loop: 2 bit, groups of 64".into();
        let (trained, stored) = (Source::Trained(2, 64), Uniform(2, 64));
        add("trained-u2-64".into(), title, Group::QuantisedTrained, trained, stored);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_variant_has_a_name_of_its_own() {
        let all = recipes(&[25, 50], Controls { random: true, trained: true });
        let names: BTreeSet<&str> = all.iter().map(|recipe| recipe.id.as_str()).collect();
        assert_eq!((names.len(), all.len()), (14, 14), "{names:?}");
        let few = recipes(&[], Controls { random: true, trained: false });
        assert!(few.iter().all(|recipe| recipe.source == Source::Teacher));
    }
}
