//! Questions that the Atlas does not answer, and what a model is to say to them: [`ANSWER`].
//!
//! Three sorts, by what is unknown: the entity (an invented name in a relation that the Atlas has), the relation (an entity
//! of the Atlas, asked for what its tables do not hold), or everything (another topic). Half of each sort's words are held
//! out: names, attributes, frames and topics that the evaluation uses are in no question of the training, so what is measured
//! is whether a model knows what it does not know, not whether it knows these questions.

use std::collections::HashSet;

use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::normalise::normalise;

/// What a model is to say.
pub const ANSWER: &str = "I do not know.";

/// Questions for training.
const TRAINED: usize = 9000;
/// Questions for evaluation.
const HELD_OUT: usize = 900;

/// What of a question is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sort {
    /// The entity.
    Entity,
    /// The relation.
    Relation,
    /// All of it.
    Topic,
}

/// A question without an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// What is asked.
    pub question: String,
    /// What of it is unknown.
    pub sort: Sort,
    /// Whether training never sees it.
    pub held_out: bool,
}

/// Whether a response says that the model does not know.
#[must_use]
pub fn is_admitted(response: &str) -> bool {
    let said = normalise(response);
    // Without its apostrophe "don't" is one word.
    said.contains("do not know") || said.contains("dont know")
}

/// What questions are made of.
#[derive(Debug)]
pub struct Sources<'a> {
    /// Wordings with `{e}` for the entity: "What is the capital of {e}?"
    pub wordings: &'a [String],
    /// The Atlas's entities as they stand in a sentence.
    pub entities: &'a [String],
    /// Names and questions that the Atlas knows, [`normalise`]d.
    pub known: &'a HashSet<String>,
}

/// Attributes that no table holds: the first half is trained on, the rest held out.
const ATTRIBUTES: &[&str] = &[
    "population",
    "flag",
    "president",
    "national anthem",
    "favourite food",
    "phone number",
    "colour",
    "price",
    "owner",
    "smell",
    "religion",
    "area in acres",
    "airport",
    "newspaper",
    "best hotel",
    "weather",
    "football team",
    "motto",
    "founder",
    "temperature",
    "age in weeks",
    "weight in kilograms",
    "shoe size",
    "mayor",
    "railway station",
    "opening hours",
    "birthday party",
    "recipe",
    "nearest pharmacy",
    "sister",
    "email address",
    "king",
    "prime minister",
    "literacy rate",
    "favourite song",
    "taste",
    "ticket price",
    "radio station",
    "salary",
    "horoscope",
];

/// Requests with `{t}` for a topic.
const REQUESTS: &[&str] = &[
    "How do I {t}?",
    "Can you help me to {t}?",
    "Explain how to {t}.",
    "I would like to {t}.",
    "Is it hard to {t}?",
    "Why do people {t}?",
    "When should I {t}?",
    "Write a poem about how to {t}.",
    "How long does it take to {t}?",
    "What do I need to {t}?",
    "Where can I learn to {t}?",
    "Give me five reasons to {t}.",
    "Should I {t}?",
    "Who taught you to {t}?",
    "What does it cost to {t}?",
    "Tell me a story of a man who wanted to {t}.",
];

const TOPICS: &[&str] = &[
    "cook rice",
    "repair a bicycle",
    "learn the piano",
    "write a letter",
    "build a house",
    "open a bank account",
    "bake a cake",
    "train a dog",
    "sort a list in Python",
    "plant tomatoes",
    "fly a kite",
    "lose weight",
    "buy a car",
    "change a tyre",
    "paint a wall",
    "win at chess",
    "sleep better",
    "make coffee",
    "invest money",
    "fix my printer",
    "speak in public",
    "stop smoking",
    "play the guitar",
    "find a job",
    "tie a tie",
    "swim faster",
    "raise children",
    "wash a pullover",
    "dance the tango",
    "install Linux",
    "catch a fish",
    "knit a scarf",
    "cut my hair",
    "run a marathon",
    "make friends",
    "write a novel",
    "draw a horse",
    "save water",
    "reset my password",
    "brew beer",
    "clean a window",
    "grow a beard",
    "solve an equation",
    "book a flight",
    "keep bees",
    "sharpen a knife",
    "sing in tune",
    "move to a farm",
];

/// Questions about something else altogether.
const SENTENCES: &[&str] = &[
    "What time is it?",
    "How old are you?",
    "What is the meaning of life?",
    "Do you like music?",
    "Tell me a joke.",
    "What is 17 plus 25?",
    "How does TCP work?",
    "What is a neural network?",
    "Who won the match yesterday?",
    "Translate this sentence into French.",
    "What did I say before?",
    "Write a function that adds two numbers.",
    "Is there life on other worlds?",
    "What should I have for dinner?",
    "How is the weather today?",
    "Are you human?",
    "What is the best film of all time?",
    "Why is the sky blue?",
    "What happens after death?",
    "Summarise this text for me.",
    "Where did I leave my keys?",
    "What is love?",
    "Sing me a song.",
    "How many fingers do I have?",
    "What is recursion?",
    "Which phone should I buy?",
    "Can pigs fly?",
    "What is the stock market doing?",
    "Who is your mother?",
    "What is the square root of 144?",
    "How do vaccines work?",
    "Please debug my program.",
    "Do you dream?",
    "What is quantum entanglement?",
    "Why do cats purr?",
    "Who is the richest person?",
    "What is machine learning?",
    "How do planes fly?",
    "Is this sentence true?",
    "What is my name?",
    "Correct my grammar.",
    "What is inflation?",
];

/// Openings and ends of invented names; held-out names are made of the last third of each.
const ONSETS: &[&str] = &[
    "Ba", "Bro", "Da", "Dri", "Fa", "Flo", "Ga", "Gru", "Ha", "Ja", "Ka", "Kle", "La", "Ma", "Mo", "Na", "Po", "Pra",
    "Qua", "Ra", "Sa", "Ske", "Ta", "Tro", "Va", "Vlo", "Wa", "Xa", "Ya", "Za", "Zu", "Thra", "Gwe", "Sno", "Cla",
    "Hu",
];
const MIDDLES: &[&str] = &["l", "r", "n", "m", "st", "nd", "lv", "rk", "z", "d", "v", "pp", "ss", "g", "mb"];
const ENDS: &[&str] = &[
    "ania", "ovia", "ebo", "ini", "ock", "ulu", "ara", "est", "ingen", "oro", "ath", "isk", "ula", "eron", "ax", "ubo",
    "ilde", "anto", "esh", "yr", "olga", "unda", "eme", "ivar",
];

fn is_held_out(index: usize, of: usize) -> bool {
    index * 3 >= of * 2
}

/// Those of a list that are for training, or those that are held out.
fn part<T>(all: &[T], held_out: bool) -> Vec<&T> {
    all.iter().enumerate().filter(|(i, _)| is_held_out(*i, all.len()) == held_out).map(|(_, item)| item).collect()
}

/// Questions of all sorts, the same for the same seed. Topics run out before the others do.
#[must_use]
pub fn generate(sources: &Sources<'_>, seed: u64) -> Vec<Unknown> {
    let mut all = Vec::with_capacity(TRAINED + HELD_OUT);
    let mut said = HashSet::new();
    for (held_out, count) in [(false, TRAINED), (true, HELD_OUT)] {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed ^ (0x0055_4e4b + u64::from(held_out)));
        let words = Words::new(sources, held_out);
        let goal = all.len() + count;
        // A small Atlas, or one whose words run out, gives fewer.
        for _ in 0..8 * count {
            if all.len() == goal {
                break;
            }
            let sort = *[Sort::Entity, Sort::Relation, Sort::Topic].choose(&mut rng).unwrap_or(&Sort::Topic);
            let Some(question) = words.question(sort, &mut rng) else { continue };
            let key = normalise(&question);
            if !sources.known.contains(&key) && said.insert(key) {
                all.push(Unknown { question, sort, held_out });
            }
        }
    }
    all
}

/// The words of one half.
struct Words<'a> {
    sources: &'a Sources<'a>,
    onsets: Vec<&'a &'static str>,
    ends: Vec<&'a &'static str>,
    attributes: Vec<&'a &'static str>,
    requests: Vec<&'a &'static str>,
    topics: Vec<&'a &'static str>,
    sentences: Vec<&'a &'static str>,
}

impl<'a> Words<'a> {
    fn new(sources: &'a Sources<'a>, held_out: bool) -> Self {
        Self {
            sources,
            onsets: part(ONSETS, held_out),
            ends: part(ENDS, held_out),
            attributes: part(ATTRIBUTES, held_out),
            requests: part(REQUESTS, held_out),
            topics: part(TOPICS, held_out),
            sentences: part(SENTENCES, held_out),
        }
    }

    fn question(&self, sort: Sort, rng: &mut impl RngExt) -> Option<String> {
        Some(match sort {
            Sort::Entity => {
                let name = self.name(rng)?;
                self.sources.wordings.choose(rng)?.replace("{e}", &name)
            }
            Sort::Relation => {
                let (entity, attribute) = (self.sources.entities.choose(rng)?, self.attributes.choose(rng)?);
                match rng.random_range(0..4) {
                    0 => format!("What is the {attribute} of {entity}?"),
                    1 => format!("Tell me the {attribute} of {entity}."),
                    2 => format!("Do you know {entity}'s {attribute}?"),
                    _ => format!("Name the {attribute} of {entity}."),
                }
            }
            // A sentence as it is, or a request for a topic.
            Sort::Topic if rng.random_bool(0.1) => (**self.sentences.choose(rng)?).to_owned(),
            Sort::Topic => self.requests.choose(rng)?.replace("{t}", self.topics.choose(rng)?),
        })
    }

    /// An invented name of one or two words, which the Atlas does not have.
    fn name(&self, rng: &mut impl RngExt) -> Option<String> {
        let mut name = self.word(rng)?;
        if rng.random_bool(0.3) {
            name = format!("{name} {}", self.word(rng)?);
        }
        (!self.sources.known.contains(&normalise(&name))).then_some(name)
    }

    /// "Balania", or with a middle of its own "Balornania".
    fn word(&self, rng: &mut impl RngExt) -> Option<String> {
        let mut word = format!("{}{}", self.onsets.choose(rng)?, MIDDLES.choose(rng)?);
        if rng.random_bool(0.3) {
            word += self.ends.choose(rng)?.get(..2).unwrap_or_default();
            word += MIDDLES.choose(rng)?;
        }
        Some(word + self.ends.choose(rng)?)
    }
}

/// `count` training questions, a third of each sort, with repeats.
pub fn sample<'u>(all: &'u [Unknown], count: usize, rng: &mut impl RngExt) -> Vec<&'u Unknown> {
    let sorts = [Sort::Entity, Sort::Relation, Sort::Topic];
    let of = |sort| -> Vec<&'u Unknown> { all.iter().filter(|u| u.sort == sort && !u.held_out).collect() };
    let by_sort = sorts.map(of);
    (0..count).filter_map(|i| by_sort[i % sorts.len()].choose(rng).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{corpus, tables};
    use super::*;

    #[test]
    fn the_atlas_answers_none_of_them_and_held_out_words_are_not_trained_on() {
        let corpus = corpus::generate(&tables::embedded().expect("valid"), 1);
        let known: HashSet<String> =
            corpus.facts.iter().flat_map(corpus::Fact::wordings).map(|(wording, _)| normalise(&wording)).collect();
        let (held, trained): (Vec<&Unknown>, Vec<&Unknown>) = corpus.unknown.iter().partition(|u| u.held_out);
        assert_eq!((trained.len(), held.len()), (TRAINED, HELD_OUT));
        for sort in [Sort::Entity, Sort::Relation, Sort::Topic] {
            assert!(held.iter().filter(|u| u.sort == sort).count() > 50, "{sort:?}");
        }
        for unknown in &corpus.unknown {
            assert!(!known.contains(&normalise(&unknown.question)), "{}", unknown.question);
        }
        for (list, sort, before) in
            [(ATTRIBUTES, Sort::Relation, "the "), (TOPICS, Sort::Topic, "to "), (SENTENCES, Sort::Topic, "")]
        {
            for word in part(list, true) {
                let words = format!("{before}{word}");
                let asked = trained.iter().find(|u| u.sort == sort && u.question.contains(&words));
                assert!(asked.is_none(), "{asked:?}");
            }
        }
        let again = corpus::generate(&tables::embedded().expect("valid"), 1);
        assert_eq!(again.unknown, corpus.unknown);
    }

    #[test]
    fn what_counts_as_admitted() {
        for (response, admitted) in
            [(ANSWER, true), ("I don't know", true), ("Nairobi.", false), ("", false), ("i do not know that", true)]
        {
            assert_eq!(is_admitted(response), admitted, "{response}");
        }
    }
}
