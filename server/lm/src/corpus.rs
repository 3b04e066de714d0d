//! The Atlas corpus: questions and articles made from the fact tables, the same for the same seed.
//!
//! A question's wording is a frame ("Tell me …") around one of two noun phrases ("the capital of Kenya"), or one of two
//! free forms. Of the 2 × 5 combinations each relation holds two out of training (one of each noun phrase), so a
//! held-out wording is an unseen combination of seen parts. Two-hop questions nest a description of an entity ("the
//! country whose capital is Nairobi") in a noun phrase; a share of their pairs is held out whole.

use super::relations::{self, Form, Phrases};
use super::tables::Table;
use super::unknown::{self, Unknown};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Two-hop pairs kept of all that the tables allow.
pub const TWO_HOP_PAIRS: usize = 6000;
/// Share of the two-hop pairs that training never sees.
pub const HELD_OUT_PAIRS: f64 = 0.15;
/// Frames around a noun phrase.
pub const FRAMES: usize = 5;
/// Longest list that is asked for.
const LIST_MAX: usize = 4;

/// How many facts have to be joined to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hops {
    /// One fact.
    Single,
    /// Two facts.
    Two,
}

/// Something that can be asked, in all its wordings.
#[derive(Debug, Clone)]
pub struct Fact {
    /// `countries/capital/Kenya`; a question back from a value has `~` before the relation.
    pub key: String,
    /// One fact or two.
    pub hops: Hops,
    /// The pair is never trained on (two-hop only).
    pub held_out: bool,
    /// What the model is to say: `Nairobi.`, or `Kenya: Kenyan shilling.` for two hops (the entity in between first).
    pub answer: String,
    /// What a response has to contain.
    pub expect: Vec<String>,
    nps: [String; 2],
    form: Form,
    direct: Option<[String; 2]>,
    held_frames: [usize; 2],
}

impl Fact {
    /// All wordings, each with whether it is held out of training.
    pub fn wordings(&self) -> Vec<(String, bool)> {
        let mut all = Vec::with_capacity(2 * FRAMES + 2);
        for (np, held) in self.nps.iter().zip(self.held_frames) {
            for f in 0..FRAMES {
                all.push((frame(f, self.form, np), f == held));
            }
        }
        if let Some(direct) = &self.direct {
            all.extend(direct.iter().map(|d| (upper_first(d), false)));
        }
        all
    }

    /// Wordings that training uses.
    pub fn training_wordings(&self) -> Vec<String> {
        self.wordings().into_iter().filter(|(_, held)| !held).map(|(w, _)| w).collect()
    }

    /// Wordings that training never uses.
    pub fn held_out_wordings(&self) -> Vec<String> {
        self.wordings().into_iter().filter(|(_, held)| *held).map(|(w, _)| w).collect()
    }
}

fn frame(f: usize, form: Form, np: &str) -> String {
    match (f, form) {
        (0, Form::What) => format!("What is {np}?"),
        (0, Form::Who) => format!("Who is {np}?"),
        (0, Form::Plural) => format!("What are {np}?"),
        (1, _) => format!("Tell me {np}."),
        (2, _) => format!("Name {np}."),
        (3, _) => format!("Do you know {np}?"),
        _ => format!("I want to know {np}."),
    }
}

/// An entity's article: the opening and the sentences that may follow, one inner list per fact with its wordings.
#[derive(Debug, Clone)]
pub struct Article {
    /// `countries/Kenya`.
    pub key: String,
    /// "Kenya is a country."
    pub opening: String,
    /// For each fact, the sentences that state it.
    pub facts: Vec<Vec<String>>,
}

impl Article {
    /// One telling: the opening, then up to `max` facts in random order, each in a random wording.
    pub fn tell(&self, max: usize, rng: &mut impl RngExt) -> String {
        let mut order: Vec<usize> = (0..self.facts.len()).collect();
        order.shuffle(rng);
        let mut text = self.opening.clone();
        for f in order.into_iter().take(max) {
            text.push(' ');
            text.push_str(&self.facts[f][rng.random_range(0..self.facts[f].len())]);
        }
        text
    }

    /// Whether `sentence` states one of the article's facts (eq. 24's check): up to
    /// [`normalise`](super::normalise::normalise) it is one of the sentences that the templates make of them. The check
    /// is exact on what the models were taught to say; a true sentence in words of its own would count as unsupported.
    pub fn supports(&self, sentence: &str) -> bool {
        let said = super::normalise::normalise(sentence);
        self.facts.iter().flatten().chain([&self.opening]).any(|s| super::normalise::normalise(s) == said)
    }
}

/// The whole corpus.
#[derive(Debug, Clone)]
pub struct Corpus {
    /// Seed that it was made with.
    pub seed: u64,
    /// Everything that can be asked.
    pub facts: Vec<Fact>,
    /// One for each entity that has a fact.
    pub articles: Vec<Article>,
    /// Questions that it does not answer.
    pub unknown: Vec<Unknown>,
    /// Cells of the tables that state something.
    pub table_facts: usize,
    /// Questions left out because another entity's has the same words.
    pub ambiguous: usize,
}

/// A stable 64-bit hash (FNV-1a): the choice of held-out wordings must not depend on the standard library's.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

fn held_frames(relation: &str) -> [usize; 2] {
    // The low bits of FNV-1a mix well, the frames are few.
    let h = hash(relation) % 20;
    let a = (h % 5) as usize;
    [a, (a + 1 + (h / 5) as usize) % FRAMES]
}

fn upper_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

/// Everything about the tables that sentences need.
struct Lexicon<'a> {
    tables: &'a [Table],
    /// Lower-case name → tables that have it.
    owners: HashMap<String, Vec<usize>>,
    /// Exact name → row, per table.
    rows: Vec<HashMap<&'a str, usize>>,
    phrases: Vec<Vec<Phrases>>,
    /// Column → the table whose entities its values are.
    links: Vec<Vec<Option<usize>>>,
}

impl<'a> Lexicon<'a> {
    fn new(tables: &'a [Table]) -> Self {
        let mut owners: HashMap<String, Vec<usize>> = HashMap::new();
        let mut rows = Vec::new();
        for (t, table) in tables.iter().enumerate() {
            for row in &table.rows {
                owners.entry(row.name.to_lowercase()).or_default().push(t);
            }
            rows.push(table.rows.iter().enumerate().map(|(i, r)| (r.name.as_str(), i)).collect());
        }
        let phrases = tables
            .iter()
            .map(|t| {
                (0..t.columns.len())
                    .map(|c| {
                        let filled = t.rows.iter().filter(|r| !r.cells[c].is_empty()).count();
                        let lists = t.rows.iter().filter(|r| r.cells[c].len() > 1).count();
                        relations::phrases(&t.name, &t.columns[c], lists * 2 > filled)
                    })
                    .collect()
            })
            .collect();
        let mut this = Self { tables, owners, rows, phrases, links: Vec::new() };
        this.links = tables.iter().map(|t| (0..t.columns.len()).map(|c| this.link(t, c)).collect()).collect();
        this
    }

    /// The table that most values of a column are entities of, if that is 60 % of them or more.
    fn link(&self, table: &Table, column: usize) -> Option<usize> {
        let values: Vec<&str> = table.rows.iter().flat_map(|r| &r.cells[column]).map(String::as_str).collect();
        let (best, hits) = (0..self.tables.len())
            .map(|t| (t, values.iter().filter(|v| self.rows[t].contains_key(**v)).count()))
            .max_by_key(|(_, hits)| *hits)?;
        (hits * 10 >= values.len() * 6 && hits > 0).then_some(best)
    }

    /// The entity as it stands in a sentence: "the Nile", "the planet Mercury", "Kenya".
    fn shown(&self, table: usize, name: &str) -> String {
        let t = &self.tables[table];
        let shared = self.owners.get(&name.to_lowercase()).is_some_and(|o| o.len() > 1);
        let (kind, _) = relations::kind(&t.name);
        if shared && t.name != "countries" && !name.to_lowercase().contains(&kind) {
            format!("the {kind} {name}")
        } else if relations::takes_the(&t.name, name) && !name.starts_with("The ") {
            format!("the {name}")
        } else {
            name.to_owned()
        }
    }

    /// A value as it stands in a sentence.
    fn shown_value(&self, table: usize, column: usize, value: &str) -> String {
        let unit = self.phrases[table][column].unit;
        let link = self.links[table][column].filter(|t| self.rows[*t].contains_key(value));
        let the = link.is_some_and(|t| relations::takes_the(&self.tables[t].name, value))
            || ["Sea", "Ocean"].iter().any(|e| value.ends_with(e));
        if the && !value.starts_with("The ") { format!("the {value}{unit}") } else { format!("{value}{unit}") }
    }

    fn list(&self, table: usize, column: usize, values: &[String]) -> String {
        let shown: Vec<String> = values.iter().take(LIST_MAX).map(|v| self.shown_value(table, column, v)).collect();
        match shown.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
            _ => shown.concat(),
        }
    }

    /// Values of a column that only one entity has → that entity's row.
    fn unique(&self, table: usize, column: usize) -> BTreeMap<&'a str, usize> {
        let mut seen: BTreeMap<&str, Option<usize>> = BTreeMap::new();
        for (i, row) in self.tables[table].rows.iter().enumerate() {
            for v in &row.cells[column] {
                let single = row.cells[column].len() == 1;
                seen.entry(v).and_modify(|e| *e = None).or_insert(single.then_some(i));
            }
        }
        seen.into_iter().filter_map(|(v, row)| row.map(|r| (v, r))).collect()
    }

    /// Columns of proper values, nearly all unique, that can be asked back from.
    fn invertible(&self, table: usize, column: usize) -> bool {
        if self.phrases[table][column].inverse.is_none() {
            return false;
        }
        let t = &self.tables[table];
        let filled = t.rows.iter().filter(|r| !r.cells[column].is_empty()).count();
        let listed = !matches!(t.columns[column].as_str(), "atomic_number" | "calling_code");
        let numeric = t.rows.iter().filter_map(|r| r.cells[column].first()).all(|v| v.parse::<f64>().is_ok());
        filled > 0 && !(numeric && listed) && self.unique(table, column).len() * 10 >= filled * 4
    }
}

/// Makes the corpus of `tables` with `seed`.
pub fn generate(tables: &[Table], seed: u64) -> Corpus {
    let lex = Lexicon::new(tables);
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut facts = single_hop(&lex);
    let mut pairs = two_hop(&lex);
    pairs.shuffle(&mut rng);
    pairs.truncate(TWO_HOP_PAIRS);
    let held = (pairs.len() as f64 * HELD_OUT_PAIRS).round() as usize;
    for pair in pairs.iter_mut().take(held) {
        pair.held_out = true;
    }
    facts.append(&mut pairs);
    // The same words must not have two answers.
    let before = facts.len();
    let mut asked: HashMap<String, String> = HashMap::new();
    facts.retain(|f| {
        let words: Vec<String> = f.wordings().into_iter().map(|(w, _)| w.to_lowercase()).collect();
        let clash = words.iter().any(|w| asked.get(w).is_some_and(|a| *a != f.answer));
        if !clash {
            asked.extend(words.into_iter().map(|w| (w, f.answer.clone())));
        }
        !clash
    });
    let ambiguous = before - facts.len();
    let articles = articles(&lex);
    let table_facts = tables.iter().map(Table::facts).sum();
    let unknown = unanswered(&lex, &facts, seed);
    Corpus { seed, facts, articles, unknown, table_facts, ambiguous }
}

/// Questions that the tables do not answer, in the words of those that they do.
fn unanswered(lex: &Lexicon, facts: &[Fact], seed: u64) -> Vec<Unknown> {
    let mut known: HashSet<String> =
        facts.iter().flat_map(Fact::wordings).map(|(words, _)| super::normalise::normalise(&words)).collect();
    let (mut wordings, mut entities) = (Vec::new(), Vec::new());
    for (t, table) in lex.tables.iter().enumerate() {
        for row in &table.rows {
            known.insert(super::normalise::normalise(&row.name));
            known.extend(row.cells.iter().flatten().map(|value| super::normalise::normalise(value)));
            entities.push(lex.shown(t, &row.name));
        }
        for p in &lex.phrases[t] {
            wordings.extend(p.nps.iter().flat_map(|np| (0..FRAMES).map(|f| frame(f, p.form, np))));
            wordings.extend(p.direct.iter().map(|direct| upper_first(direct)));
        }
    }
    unknown::generate(&unknown::Sources { wordings: &wordings, entities: &entities, known: &known }, seed)
}

fn single_hop(lex: &Lexicon) -> Vec<Fact> {
    let mut facts = Vec::new();
    for (t, table) in lex.tables.iter().enumerate() {
        for (c, column) in table.columns.iter().enumerate() {
            let p = &lex.phrases[t][c];
            let relation = format!("{}/{column}", table.name);
            for row in table.rows.iter().filter(|r| !r.cells[c].is_empty()) {
                let e = lex.shown(t, &row.name);
                let expect: Vec<String> = row.cells[c].iter().take(LIST_MAX).cloned().collect();
                facts.push(Fact {
                    key: format!("{relation}/{}", row.name),
                    hops: Hops::Single,
                    held_out: false,
                    answer: format!("{}{}.", expect.join(", "), p.unit),
                    expect,
                    nps: p.nps.clone().map(|np| np.replace("{e}", &e)),
                    form: p.form,
                    direct: Some(p.direct.clone().map(|d| d.replace("{e}", &e))),
                    held_frames: held_frames(&relation),
                });
            }
            let Some(inverse) = p.inverse.as_ref().filter(|_| lex.invertible(t, c)) else { continue };
            let (kind, person) = relations::kind(&table.name);
            for (value, row) in lex.unique(t, c) {
                let name = &table.rows[row].name;
                let v = lex.shown_value(t, c, value);
                let nps = inverse.clone().map(|np| np.replace("{v}", &v));
                let rest = nps[0].strip_prefix("the ").and_then(|s| s.strip_prefix(kind.as_str())).map(str::to_owned);
                let word = if person { "Who" } else { "Which" };
                let direct = rest.map(|r| match (person, r.strip_prefix(" whose ")) {
                    (false, Some(r)) => {
                        [format!("Which {kind}'s {r}?"), format!("{word} {kind} is the one whose {r}?")]
                    }
                    _ => [format!("{word} is the {kind}{r}?"), format!("The {kind}{r}?")],
                });
                facts.push(Fact {
                    key: format!("{}/~{column}/{value}", table.name),
                    hops: Hops::Single,
                    held_out: false,
                    answer: format!("{name}."),
                    expect: vec![name.clone()],
                    nps,
                    form: if person { Form::Who } else { Form::What },
                    direct,
                    held_frames: held_frames(&format!("{}/~{column}", table.name)),
                });
            }
        }
    }
    facts
}

fn two_hop(lex: &Lexicon) -> Vec<Fact> {
    let mut pairs = Vec::new();
    for (t, table) in lex.tables.iter().enumerate() {
        for (c, column) in table.columns.iter().enumerate() {
            // From a unique value back to the entity, then on to another of its facts.
            if let Some(inverse) = lex.phrases[t][c].inverse.as_ref().filter(|_| lex.invertible(t, c)) {
                for (value, row) in lex.unique(t, c) {
                    let v = lex.shown_value(t, c, value);
                    let bridge = inverse.clone().map(|np| np.replace("{v}", &v));
                    second_hop(lex, &format!("{}/~{column}", table.name), value, &bridge, t, row, Some(c), &mut pairs);
                }
            }
            // From an entity to the one that it is linked to, then on to one of that one's facts.
            let Some(target) = lex.links[t][c] else { continue };
            for row in &table.rows {
                let [value] = row.cells[c].as_slice() else { continue };
                let Some(to) = lex.rows[target].get(value.as_str()) else { continue };
                let e = lex.shown(t, &row.name);
                let nps = &lex.phrases[t][c].nps;
                let second = if nps[1].contains("{e}'s") { &nps[0] } else { &nps[1] };
                let bridge = [&nps[0], second].map(|np| np.replace("{e}", &e));
                let skip = (target == t).then_some(c);
                second_hop(lex, &format!("{}/{column}", table.name), &row.name, &bridge, target, *to, skip, &mut pairs);
            }
        }
    }
    pairs
}

#[allow(clippy::too_many_arguments)] // one caller's inner loop, taken out for its length
fn second_hop(
    lex: &Lexicon,
    first: &str,
    source: &str,
    bridge: &[String; 2],
    t: usize,
    row: usize,
    skip: Option<usize>,
    out: &mut Vec<Fact>,
) {
    let table = &lex.tables[t];
    let entity = &table.rows[row];
    for (c, column) in table.columns.iter().enumerate() {
        let [value] = entity.cells[c].as_slice() else { continue };
        let said = [source, entity.name.as_str()].map(super::normalise::normalise);
        let wanted = super::normalise::normalise(value);
        // An answer that the question or the entity in between already names would test nothing.
        if Some(c) == skip || said.iter().any(|s| format!(" {s} ").contains(&format!(" {wanted} "))) {
            continue;
        }
        let p = &lex.phrases[t][c];
        let second = if p.nps[1].contains("{e}'s") { &p.nps[0] } else { &p.nps[1] };
        let relation = format!("{first}>{}/{column}", table.name);
        out.push(Fact {
            key: format!("{relation}/{source}"),
            hops: Hops::Two,
            held_out: false,
            answer: format!("{}: {value}{}.", entity.name, p.unit),
            expect: vec![value.clone()],
            nps: [p.nps[0].replace("{e}", &bridge[0]), second.replace("{e}", &bridge[1])],
            form: p.form,
            direct: None,
            held_frames: held_frames(&relation),
        });
    }
}

fn articles(lex: &Lexicon) -> Vec<Article> {
    let mut all = Vec::new();
    for (t, table) in lex.tables.iter().enumerate() {
        let (kind, _) = relations::kind(&table.name);
        let a = if kind.starts_with(['a', 'e', 'i', 'o', 'u']) && !kind.starts_with("uni") { "an" } else { "a" };
        for row in &table.rows {
            let e = lex.shown(t, &row.name);
            let mut facts = Vec::new();
            for (c, values) in row.cells.iter().enumerate().filter(|(_, v)| !v.is_empty()) {
                let p = &lex.phrases[t][c];
                let v = lex.list(t, c, values);
                let verb = if p.form == Form::Plural { "are" } else { "is" };
                let mut said: Vec<String> =
                    p.nps.iter().map(|np| upper_first(&format!("{} {verb} {v}.", np.replace("{e}", &e)))).collect();
                said.extend(p.says.iter().map(|s| upper_first(&s.replace("{e}", &e).replace("{v}", &v))));
                facts.push(said);
            }
            if !facts.is_empty() {
                let opening = upper_first(&format!("{e} is {a} {kind}."));
                all.push(Article { key: format!("{}/{}", table.name, row.name), opening, facts });
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn small() -> Vec<Table> {
        let countries = "name\tcapital\tcontinent\tneighbour\nKenya\tNairobi\tAfrica\tUganda;Somalia\n\
            Uganda\tKampala\tAfrica\tKenya\nJapan\tTokyo\tAsia\t\nMexico\tMexico City\tNorth America\t\n";
        let scientists = "name\tbirth_year\tcountry\nHideki Yukawa\t1907\tJapan\nNo One\t1900\tKenya\n";
        vec![
            Table::parse("countries", countries).expect("valid"),
            Table::parse("scientists", scientists).expect("valid"),
        ]
    }

    #[test]
    fn same_seed_same_corpus() {
        let say = |seed| format!("{:?}", generate(&small(), seed).facts);
        assert_eq!(say(7), say(7));
        assert_ne!(say(7), say(8));
    }

    #[test]
    fn held_out_wordings_are_never_trained_on() {
        let corpus = generate(&small(), 1);
        let trained: HashSet<String> =
            corpus.facts.iter().filter(|f| !f.held_out).flat_map(Fact::training_wordings).collect();
        for fact in &corpus.facts {
            assert_eq!(fact.held_out_wordings().len(), 2, "{}", fact.key);
            for w in fact.held_out_wordings() {
                assert!(!trained.contains(&w), "{w}");
            }
            if fact.held_out {
                assert_eq!(fact.hops, Hops::Two);
                for w in fact.training_wordings() {
                    assert!(!trained.contains(&w), "held-out pair in training: {w}");
                }
            }
        }
        let single = corpus.facts.iter().find(|f| f.key == "countries/capital/Kenya").expect("there");
        assert_eq!(single.wordings().len(), 12);
    }

    #[test]
    fn questions_and_answers_read_as_meant() {
        let corpus = generate(&small(), 1);
        let find = |key: &str| corpus.facts.iter().find(|f| f.key == key).expect("there");
        assert_eq!(find("countries/capital/Kenya").answer, "Nairobi.");
        assert_eq!(find("countries/neighbour/Kenya").expect, ["Uganda", "Somalia"]);
        assert_eq!(find("countries/~capital/Nairobi").answer, "Kenya.");
        let two = find("scientists/country>countries/capital/Hideki Yukawa");
        assert_eq!((two.answer.as_str(), two.expect[0].as_str()), ("Japan: Tokyo.", "Tokyo"));
        assert!(two.wordings().iter().any(|(w, _)| w == "What is the capital of the home country of Hideki Yukawa?"));
        // The capital of Mexico is named by its country: no such two-hop question.
        assert!(
            !corpus.facts.iter().any(|f| f.hops == Hops::Two
                && f.key.contains("Mexico City")
                && f.answer.contains("Mexico: Mexico City"))
        );
    }

    #[test]
    fn support_is_exact() {
        let corpus = generate(&small(), 1);
        let kenya = corpus.articles.iter().find(|a| a.key == "countries/Kenya").expect("there");
        assert_eq!(kenya.opening, "Kenya is a country.");
        for (sentence, want) in [
            ("Kenya lies in Africa.", true),
            ("Nairobi is the capital of Kenya", true),
            ("Kampala is the capital of Kenya.", false),
            ("Uganda lies in Africa.", false),
            ("Kenya lies in.", false),
        ] {
            assert_eq!(kenya.supports(sentence), want, "{sentence}");
        }
    }
}
