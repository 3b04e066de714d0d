//! Which variants there are, and of what each is made.

use engine::gguf::GgmlType;
use serde::Serialize;

/// What a variant is compared as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// The teacher as it is.
    Original,
    /// The teacher trained on with the tokens that the students get.
    OriginalTrained,
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
    /// The same where only adapters of low rank learned (LoRA), merged before the quantiser.
    Lora,
    /// A student's shape from random weights.
    Random,
}

/// A training of a student.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Student {
    /// Percent that were cut before.
    pub cut: u32,
    /// From random weights instead of inherited ones.
    pub random: bool,
    /// Which repetition, from 0: another order of documents.
    pub draw: u64,
}

/// Where a variant's weights come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The teacher.
    Teacher,
    /// The teacher without this share of its parameters, in percent.
    Pruned(u32),
    /// What learned from the teacher for the first part of the tokens.
    Healed(Student),
    /// The same, then on for the second part with Q4_0 in the loop.
    Looped(Student),
    /// What learned from the teacher for as many tokens as both parts have, through adapters of low rank alone, Q4_0 in the loop
    /// of what they are merged into all the time.
    Lora(Student),
    /// The whole teacher, which learns from itself for as many tokens as both parts have, the paper's quantiser in the loop
    /// all the time.
    Trained {
        /// Of a weight.
        bits: u32,
        /// Weights that share a scale.
        group: usize,
        /// Which repetition, from 0.
        draw: u64,
        /// At the rates of the students' second part, not of their first: what was never cut may want smaller steps.
        slow: bool,
    },
    /// The whole teacher, which learns from itself for as many tokens, nothing in the loop.
    TrainedOn,
}

impl Source {
    /// Percent that were cut, where anything was.
    pub fn cut(self) -> Option<u32> {
        match self {
            Self::Pruned(cut) => Some(cut),
            Self::Healed(student) | Self::Looped(student) | Self::Lora(student) => Some(student.cut),
            Self::Teacher | Self::Trained { .. } | Self::TrainedOn => None,
        }
    }
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
    /// Which repetition of its training, from 0.
    pub draw: u64,
}

/// What is made beside the cuts themselves; all but `draws` take as long as a student or longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Controls {
    /// The shape of the deepest cut from random weights.
    pub random: bool,
    /// The whole teacher with two bits in the loop: fewer bits alone, with the same tokens.
    pub trained: bool,
    /// The whole teacher trained on with the same tokens.
    pub trained_on: bool,
    /// The deepest cut healed through adapters of low rank.
    pub lora: bool,
    /// Trainings of the deepest cut, and of fewer bits alone, with so many seeds.
    pub draws: u64,
}

impl Default for Controls {
    fn default() -> Self {
        Self { random: false, trained: false, trained_on: false, lora: false, draws: 1 }
    }
}

const Q8: Stored = Stored::Type(GgmlType::Q8_0);
const Q4: Stored = Stored::Type(GgmlType::Q4_0);

/// All variants for cuts of so many percent of the parameters. What decides comes first, other seeds last.
pub fn recipes(cuts: &[u32], controls: Controls) -> Vec<Recipe> {
    use Stored::{AsIs, Type, Uniform};
    let mut all = Vec::new();
    let mut add = |id: String, title: String, group, source, stored| {
        all.push(Recipe { id, title, group, source, stored, draw: 0 });
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
    for cut in cuts.iter().copied() {
        let student = Student { cut, random: false, draw: 0 };
        add(format!("p{cut}-q8_0"), format!("pruned only: −{cut} %, Q8_0"), Group::Pruned, Source::Pruned(cut), Q8);
        let title = format!("pruned, distilled: −{cut} %, Q8_0");
        add(format!("pd{cut}-q8_0"), title, Group::Distilled, Source::Healed(student), Q8);
        add(format!("ecld{cut}-q4_0"), format!("ECLD: −{cut} %, Q4_0"), Group::Ecld, Source::Looped(student), Q4);
    }
    let deepest = cuts.iter().copied().max();
    if controls.trained {
        all.extend([trained(0, false), trained(0, true)]);
    }
    if let Some(cut) = deepest {
        let student = |random| Student { cut, random, draw: 0 };
        let mut add = |id: String, title: String, group, source| {
            all.push(Recipe { id, title, group, source, stored: Q4, draw: 0 });
        };
        if controls.lora {
            let title = format!("pruned, LoRA merged: −{cut} %, Q4_0");
            add(format!("lora{cut}-q4_0"), title, Group::Lora, Source::Lora(student(false)));
        }
        if controls.random {
            let title = format!("random weights in the shape of −{cut} %, Q4_0, the same tokens");
            add(format!("random{cut}-q4_0"), title, Group::Random, Source::Looped(student(true)));
        }
    }
    if controls.trained_on {
        let (id, title) = ("original-on".into(), "original trained on with the same tokens, Q8_0".into());
        let (group, source) = (Group::OriginalTrained, Source::TrainedOn);
        all.push(Recipe { id, title, group, source, stored: Q8, draw: 0 });
    }
    for draw in 1..controls.draws {
        if let Some(cut) = deepest {
            let student = Student { cut, random: false, draw };
            all.push(Recipe {
                id: format!("ecld{cut}-q4_0-s{draw}"),
                title: format!("ECLD: −{cut} %, Q4_0, training {}", draw + 1),
                group: Group::Ecld,
                source: Source::Looped(student),
                stored: Q4,
                draw,
            });
        }
        if controls.trained {
            all.push(trained(draw, false));
        }
    }
    all
}

/// Two bits alone with the same tokens.
fn trained(draw: u64, slow: bool) -> Recipe {
    let (bits, group) = (2, 64);
    let mut id = format!("trained-u2-64{}", if slow { "-slow" } else { "" });
    let mut title = format!("quantised only, the same tokens in the loop: {bits} bit, groups of {group}");
    if slow {
        title += ", smaller steps";
    }
    if draw > 0 {
        id += &format!("-s{draw}");
        title += &format!(", training {}", draw + 1);
    }
    let source = Source::Trained { bits, group, draw, slow };
    Recipe { id, title, group: Group::QuantisedTrained, source, stored: Stored::Uniform(bits, group), draw }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_variant_has_a_name_of_its_own() {
        let every = Controls { random: true, trained: true, trained_on: true, lora: true, draws: 3 };
        let all = recipes(&[25, 50], every);
        let names: BTreeSet<&str> = all.iter().map(|recipe| recipe.id.as_str()).collect();
        assert_eq!((names.len(), all.len()), (21, 21), "{names:?}");
        let few = recipes(&[], Controls { random: true, ..Controls::default() });
        assert!(few.iter().all(|recipe| recipe.source == Source::Teacher));
    }

    #[test]
    fn only_what_is_trained_is_repeated() {
        let all = recipes(&[50], Controls { trained: true, draws: 3, ..Controls::default() });
        let again: Vec<&str> = all.iter().filter(|recipe| recipe.draw > 0).map(|recipe| recipe.id.as_str()).collect();
        assert_eq!(again, ["ecld50-q4_0-s1", "trained-u2-64-s1", "ecld50-q4_0-s2", "trained-u2-64-s2"]);
    }
}
