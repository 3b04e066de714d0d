//! How each relation is put into words.
//!
//! Every (table, column) gets two noun phrases with `{e}` for the entity; question wordings and article sentences are
//! made of them by the frames of [`super::corpus`]. A column that is not listed here, as in tables of a user's own, gets
//! phrases from its name.

/// Words for one relation.
#[derive(Debug, Clone)]
pub struct Phrases {
    /// Two noun phrases, `{e}` = the entity: "the capital of {e}". The first also works around a long description.
    pub nps: [String; 2],
    /// The question word: What, Who, or What with a plural verb.
    pub form: Form,
    /// Two free question wordings.
    pub direct: [String; 2],
    /// Article sentences beside those made of the noun phrases, `{e}` and `{v}`.
    pub says: Vec<String>,
    /// Noun phrases for the question back from a unique value, `{v}`: "the country whose capital is {v}".
    pub inverse: Option<[String; 2]>,
    /// Put before and after a value: `("", " metres")`.
    pub unit: &'static str,
}

/// Which question word fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// What is ...
    What,
    /// Who is ...
    Who,
    /// What are ...
    Plural,
}

/// What an entity of this table is called, and whether it is a person.
pub fn kind(table: &str) -> (String, bool) {
    let table_words = table.replace('_', " ");
    let singular = table_words.strip_suffix('s').unwrap_or(&table_words);
    let name = singular.strip_suffix("ie").map_or_else(|| singular.to_owned(), |stem| format!("{stem}y"));
    (name, matches!(table, "scientists" | "writers" | "painters"))
}

/// Names that take "the" in a sentence.
pub fn takes_the(table: &str, name: &str) -> bool {
    let range = ["Islands", "Mountains", "Alps", "Strait", "Desert", "Sea", "Ocean", "Gulf", "Canal"];
    match table {
        "rivers" | "deserts" => true,
        "countries" => {
            matches!(
                name,
                "Netherlands"
                    | "Philippines"
                    | "Bahamas"
                    | "Maldives"
                    | "United Kingdom"
                    | "United States"
                    | "Gambia"
                    | "Czech Republic"
                    | "Comoros"
                    | "Seychelles"
                    | "Dominican Republic"
                    | "United Arab Emirates"
                    | "Democratic Republic of the Congo"
                    | "Republic of the Congo"
                    | "Central African Republic"
            ) || name.ends_with("Islands")
        }
        "landmarks" => range.iter().any(|r| name.ends_with(r)),
        _ => false,
    }
}

/// `(table or "*", column, np, np, form, direct, direct, says, inverse, unit)`; empty strings = the default.
type Line = (
    &'static str,
    &'static str,
    [&'static str; 2],
    Form,
    [&'static str; 2],
    &'static [&'static str],
    [&'static str; 2],
    &'static str,
);

use Form::{Plural, What, Who};

const LINES: &[Line] = &[
    (
        "countries",
        "capital",
        ["the capital of {e}", "{e}'s capital city"],
        What,
        ["Which city is the capital of {e}?", "What city is {e} governed from?"],
        &["{v} is the capital of {e}."],
        ["the country whose capital is {v}", "the country that has {v} as its capital"],
        "",
    ),
    (
        "countries",
        "continent",
        ["the continent of {e}", "the continent on which {e} lies"],
        What,
        ["Which continent is {e} in?", "Where in the world is {e}?"],
        &["{e} lies in {v}.", "{e} is a country in {v}."],
        ["", ""],
        "",
    ),
    (
        "countries",
        "currency",
        ["the currency of {e}", "the money used in {e}"],
        What,
        ["Which currency does {e} use?", "What do people pay with in {e}?"],
        &["People in {e} pay in {v}."],
        ["the country whose currency is the {v}", "the country that pays in {v}"],
        "",
    ),
    (
        "countries",
        "language",
        ["the main language of {e}", "the language spoken in {e}"],
        What,
        ["Which language do people speak in {e}?", "What is spoken in {e}?"],
        &["People in {e} speak {v}."],
        ["the country whose main language is {v}", "the country where people speak {v}"],
        "",
    ),
    (
        "countries",
        "neighbour",
        ["the neighbours of {e}", "some countries that border {e}"],
        Plural,
        ["Which countries border {e}?", "Which countries lie next to {e}?"],
        &["{e} borders {v}."],
        ["", ""],
        "",
    ),
    (
        "countries",
        "demonym",
        ["the word for a person from {e}", "the demonym of {e}"],
        What,
        ["What do you call people from {e}?", "What is a citizen of {e} called?"],
        &[],
        ["the country of a person called {v}", "the country whose demonym is {v}"],
        "",
    ),
    (
        "countries",
        "domain",
        ["the internet domain of {e}", "{e}'s top-level domain"],
        What,
        ["Which internet domain belongs to {e}?", "How do web addresses from {e} end?"],
        &["Web addresses from {e} end in {v}."],
        ["the country whose internet domain is {v}", "the country with the top-level domain {v}"],
        "",
    ),
    (
        "mountains",
        "range",
        ["the mountain range of {e}", "the range that {e} belongs to"],
        What,
        ["Which mountain range is {e} part of?", "In which range is {e}?"],
        &["{e} belongs to the range {v}."],
        ["", ""],
        "",
    ),
    (
        "mountains",
        "country",
        ["the country of {e}", "the country in which {e} stands"],
        What,
        ["Where is {e}?", "In which country does {e} rise?"],
        &["{e} rises in {v}."],
        ["", ""],
        "",
    ),
    (
        "landmarks",
        "city",
        ["the city of {e}", "the city in which {e} stands"],
        What,
        ["Which city is {e} in?", "Where can you visit {e}?"],
        &["{e} stands in {v}."],
        ["", ""],
        "",
    ),
    (
        "moons",
        "planet",
        ["the planet of {e}", "the planet that {e} orbits"],
        What,
        ["Which planet does {e} orbit?", "Whose moon is {e}?"],
        &["{e} orbits {v}.", "{e} is a moon of {v}."],
        ["", ""],
        "",
    ),
    (
        "painters",
        "movement",
        ["the movement of {e}", "the art movement of {e}"],
        What,
        ["Which movement did {e} belong to?", "In which style did {e} paint?"],
        &["{e} belonged to the movement {v}."],
        ["", ""],
        "",
    ),
    (
        "painters",
        "famous_work",
        ["the best known painting of {e}", "a famous work of {e}"],
        What,
        ["What is {e} known for?", "What did {e} paint?"],
        &["{e} painted {v}."],
        ["the painter of {v}", "the painter who made {v}"],
        "",
    ),
    (
        "writers",
        "famous_work",
        ["the best known book of {e}", "a famous work of {e}"],
        What,
        ["What is {e} known for?", "What did {e} write?"],
        &["{e} wrote {v}."],
        ["the writer of {v}", "the author of {v}"],
        "",
    ),
    (
        "writers",
        "language",
        ["the language of {e}", "the language in which {e} wrote"],
        What,
        ["Which language did {e} write in?", "In what language are the works of {e}?"],
        &["{e} wrote in {v}."],
        ["", ""],
        "",
    ),
    (
        "planets",
        "position",
        ["the position of {e} from the Sun", "the place of {e} in the solar system"],
        What,
        ["Which planet from the Sun is {e}?", "How far out does {e} come among the planets?"],
        &["Counted from the Sun {e} is number {v}."],
        ["", ""],
        "",
    ),
    (
        "planets",
        "type",
        ["the type of {e}", "the kind of planet that {e} is"],
        What,
        ["What kind of planet is {e}?", "Is {e} rocky or a giant?"],
        &["{e} is of the type {v}."],
        ["", ""],
        "",
    ),
    (
        "planets",
        "largest_moon",
        ["the largest moon of {e}", "the biggest moon of {e}"],
        What,
        ["Which moon of {e} is the largest?", "Which is the biggest moon of {e}?"],
        &["{v} is the largest moon of {e}."],
        ["the planet whose largest moon is {v}", "the planet with the biggest moon {v}"],
        "",
    ),
    (
        "planets",
        "next_planet",
        ["the next planet after {e}", "the planet after {e}"],
        What,
        ["Which planet comes after {e}?", "What planet follows {e}?"],
        &["After {e} comes {v}."],
        ["", ""],
        "",
    ),
    (
        "planets",
        "nickname",
        ["the nickname of {e}", "another name of {e}"],
        What,
        ["What is {e} also called?", "By which nickname is {e} known?"],
        &["{e} is also called {v}."],
        ["", ""],
        "",
    ),
    (
        "lakes",
        "country",
        ["the country of {e}", "the country around {e}"],
        What,
        ["Where is {e}?", "Which country is {e} in?"],
        &["{e} lies in {v}."],
        ["", ""],
        "",
    ),
    (
        "landmarks",
        "country",
        ["the country of {e}", "the country in which {e} stands"],
        What,
        ["Where is {e}?", "Which country is {e} in?"],
        &["{e} stands in {v}."],
        ["", ""],
        "",
    ),
    (
        "deserts",
        "country",
        ["the country of {e}", "the country in which {e} lies"],
        What,
        ["Where is {e}?", "Which country is {e} in?"],
        &["{e} lies in {v}."],
        ["", ""],
        "",
    ),
    (
        "*",
        "height_m",
        ["the height of {e}", "the elevation of {e}"],
        What,
        ["How high is {e}?", "How tall is {e}?"],
        &["{e} is {v} high."],
        ["", ""],
        " metres",
    ),
    (
        "*",
        "continent",
        ["the continent of {e}", "the continent on which {e} lies"],
        What,
        ["Which continent is {e} in?", "On which continent is {e}?"],
        &["{e} lies in {v}."],
        ["", ""],
        "",
    ),
    (
        "rivers",
        "mouth",
        ["the mouth of {e}", "the water into which {e} flows"],
        What,
        ["Where does {e} end?", "What does {e} flow into?"],
        &["{e} flows into {v}."],
        ["", ""],
        "",
    ),
    (
        "rivers",
        "source_country",
        ["the source country of {e}", "the country where {e} begins"],
        What,
        ["Where does {e} begin?", "In which country does {e} rise?"],
        &["{e} rises in {v}."],
        ["", ""],
        "",
    ),
    (
        "elements",
        "symbol",
        ["the symbol of {e}", "the chemical symbol for {e}"],
        What,
        ["Which symbol does {e} have?", "How is {e} written in chemistry?"],
        &["{e} has the symbol {v}."],
        ["the element with the symbol {v}", "the element whose symbol is {v}"],
        "",
    ),
    (
        "elements",
        "atomic_number",
        ["the atomic number of {e}", "the number of protons in {e}"],
        What,
        ["Which atomic number does {e} have?", "How many protons does {e} have?"],
        &["{e} has {v} protons."],
        ["the element with atomic number {v}", "the element whose atomic number is {v}"],
        "",
    ),
    (
        "elements",
        "category",
        ["the category of {e}", "the class of elements that {e} belongs to"],
        What,
        ["What kind of element is {e}?", "Which class of elements is {e} in?"],
        &["{e} is counted among the class {v}."],
        ["", ""],
        "",
    ),
    (
        "elements",
        "period",
        ["the period of {e}", "the row of {e} in the periodic table"],
        What,
        ["Which period is {e} in?", "In which period of the table is {e}?"],
        &["{e} stands in period {v}."],
        ["", ""],
        "",
    ),
    (
        "elements",
        "group",
        ["the group of {e}", "the column of {e} in the periodic table"],
        What,
        ["Which group is {e} in?", "In which group of the table is {e}?"],
        &["{e} stands in group {v}."],
        ["", ""],
        "",
    ),
    (
        "elements",
        "state",
        ["the state of {e} at room temperature", "the usual state of matter of {e}"],
        What,
        ["Is {e} a solid, a liquid or a gas?", "In which state is {e} at room temperature?"],
        &["At room temperature {e} is a {v}."],
        ["", ""],
        "",
    ),
    (
        "elements",
        "discovery_year",
        ["the discovery year of {e}", "the year in which {e} was discovered"],
        What,
        ["When was {e} discovered?", "In which year was {e} found?"],
        &["{e} was discovered in {v}."],
        ["", ""],
        "",
    ),
    (
        "*",
        "birth_year",
        ["the birth year of {e}", "the year in which {e} was born"],
        What,
        ["When was {e} born?", "In which year was {e} born?"],
        &["{e} was born in {v}."],
        ["", ""],
        "",
    ),
    (
        "*",
        "field",
        ["the field of {e}", "the field in which {e} worked"],
        What,
        ["What did {e} study?", "What did {e} work on?"],
        &["{e} worked in {v}."],
        ["", ""],
        "",
    ),
    (
        "*",
        "known_for",
        ["the best known work of {e}", "the thing that {e} is known for"],
        What,
        ["What is {e} known for?", "What made {e} famous?"],
        &["{e} is known for {v}."],
        ["the person known for {v}", "the one who is famous for {v}"],
        "",
    ),
    (
        "scientists",
        "country",
        ["the home country of {e}", "the country that {e} came from"],
        What,
        ["Where was {e} from?", "Which country did {e} come from?"],
        &["{e} came from {v}."],
        ["", ""],
        "",
    ),
    (
        "writers",
        "country",
        ["the home country of {e}", "the country that {e} came from"],
        What,
        ["Where was {e} from?", "Which country did {e} come from?"],
        &["{e} came from {v}."],
        ["", ""],
        "",
    ),
    (
        "painters",
        "country",
        ["the home country of {e}", "the country that {e} came from"],
        What,
        ["Where was {e} from?", "Which country did {e} come from?"],
        &["{e} came from {v}."],
        ["", ""],
        "",
    ),
    (
        "*",
        "discoverer",
        ["the discoverer of {e}", "the person who discovered {e}"],
        Who,
        ["Who discovered {e}?", "Who first found {e}?"],
        &["{v} discovered {e}."],
        ["", ""],
        "",
    ),
];

/// The words for `column` of `table`. `list`: cells of this column hold several values.
pub fn phrases(table: &str, column: &str, list: bool) -> Phrases {
    let found = LINES
        .iter()
        .find(|l| l.0 == table && l.1 == column)
        .or_else(|| LINES.iter().find(|l| l.0 == "*" && l.1 == column));
    let (noun, unit) = split_unit(column);
    let (kind, _) = kind(table);
    let own = |s: &str| s.to_owned();
    let inverse_default =
        [format!("the {kind} whose {noun} is {{v}}"), format!("the {kind} that has {{v}} as its {noun}")];
    match found {
        Some((_, _, nps, form, direct, says, inverse, unit)) => Phrases {
            nps: nps.map(own),
            form: *form,
            direct: direct.map(own),
            says: says.iter().map(|s| own(s)).collect(),
            inverse: (!inverse[0].is_empty()).then(|| inverse.map(own)),
            unit,
        },
        None => Phrases {
            nps: [format!("the {noun} of {{e}}"), format!("{{e}}'s {noun}")],
            form: if list { Form::Plural } else { Form::What },
            direct: [format!("{{e}}, {noun}?"), format!("Which {noun} does {{e}} have?")],
            says: Vec::new(),
            inverse: Some(inverse_default),
            unit,
        },
    }
}

/// `height_m` → (`height`, ` metres`).
fn split_unit(column: &str) -> (String, &'static str) {
    for (suffix, unit) in [
        ("_km2", " square kilometres"),
        ("_km", " kilometres"),
        ("_kg", " kilograms"),
        ("_days", " days"),
        ("_m", " metres"),
        ("_c", " degrees Celsius"),
        ("_hours", " hours"),
        ("_years", " years"),
    ] {
        if let Some(stem) = column.strip_suffix(suffix) {
            return (stem.replace('_', " "), unit);
        }
    }
    (column.replace('_', " "), "")
}
