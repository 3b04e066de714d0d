//! Cases of losses and metrics: eq. 8 to 11, 23, 24 and Fig. 6.

use serde::Deserialize;
use serde_json::{Value, json};

use super::input::{Number, plain, read};
use crate::ecld::distil::{self, Mix};
use crate::ecld::efficiency::{self, Form, Row};
use crate::ecld::error::EcldError;
use crate::ecld::hallucination::{Tally, Telling};
use crate::normalise::{contains_any, is_correct, normalise};

pub fn distil(input: &Value) -> Result<Value, EcldError> {
    #[derive(Deserialize)]
    struct Input {
        student: Vec<Vec<Number>>,
        teacher: Vec<Vec<Number>>,
        targets: Vec<Option<i64>>,
        #[serde(default)]
        weights: Option<Vec<f64>>,
        alpha: f64,
        tau: f64,
        #[serde(default = "yes")]
        tau2: bool,
    }
    let Input { student, teacher, targets, weights, alpha, tau, tau2 } = read(input)?;
    let rows = |rows: &[Vec<Number>]| rows.iter().map(|row| plain(row)).collect::<Vec<_>>();
    // Negative ones are how training code marks what is not scored.
    let targets: Vec<Option<usize>> = targets.iter().map(|t| t.and_then(|t| usize::try_from(t).ok())).collect();
    let mix = Mix { alpha, tau, tau_squared: tau2 };
    let found = distil::loss(&rows(&student), &rows(&teacher), &targets, weights.as_deref(), mix)?;
    Ok(json!({ "loss": found.loss, "ce": found.ce, "kl": found.kl, "grad_student": found.gradient }))
}

fn yes() -> bool {
    true
}

pub fn accuracy(input: &Value) -> Result<Value, EcldError> {
    #[derive(Deserialize)]
    struct Input {
        response: String,
        expected: Vec<String>,
        #[serde(default)]
        rule: Rule,
    }
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "lowercase")]
    enum Rule {
        #[default]
        All,
        Any,
    }
    let Input { response, expected, rule } = read(input)?;
    let correct = match rule {
        Rule::All => is_correct(&response, &expected),
        Rule::Any => contains_any(&response, &expected),
    };
    Ok(json!({ "correct": correct }))
}

pub fn hallucination(input: &Value) -> Result<Value, EcldError> {
    #[derive(Deserialize)]
    struct Input {
        articles: Vec<Article>,
    }
    #[derive(Deserialize)]
    struct Article {
        supported: Vec<String>,
        #[serde(default)]
        opening: String,
        text: String,
        #[serde(default)]
        cut: bool,
    }
    let Input { articles } = read(input)?;
    let mut tally = Tally::default();
    for Article { supported, opening, text, cut } in &articles {
        let facts: Vec<String> = supported.iter().map(|fact| normalise(fact)).collect();
        let supports = |sentence: &str| facts.contains(&normalise(sentence));
        tally.add(Telling { opening, text, cut: *cut }, &supports);
    }
    Ok(json!({
        "rate": tally.rate(),
        "sentences": tally.sentences,
        "supported": tally.supported,
        "repeats": tally.repeats,
        "empty_articles": tally.empty_articles,
        "literal_eq24": tally.literal(),
    }))
}

#[derive(Deserialize)]
struct Efficiency {
    rows: Vec<[f64; 4]>,
    form: String,
    /// Sentences that each rate is of, where the file says.
    #[serde(default)]
    sentences: Option<f64>,
}

impl Efficiency {
    fn form(&self) -> Result<Form, EcldError> {
        match self.form.as_str() {
            "reciprocal" => Ok(Form::Reciprocal),
            "complement" | "one_minus" | "linear" | "literal" | "subtract" | "max" => Ok(Form::Complement),
            other => Err(EcldError::input(format!("the form {other:?} is not known; it is reciprocal or complement"))),
        }
    }

    /// With rates of 0 at their least, where it is known how many sentences they are of.
    fn rows(&self) -> Vec<Row> {
        let least = self.sentences.filter(|n| *n > 0.0).map_or(0.0, |n| 1.0 / (2.0 * n));
        let row = |[h, accuracy, size, energy]: &[f64; 4]| Row {
            hallucination: if *h == 0.0 { least } else { *h },
            accuracy: *accuracy,
            size: *size,
            energy: *energy,
        };
        self.rows.iter().map(row).collect()
    }
}

pub fn efficiency(input: &Value) -> Result<Value, EcldError> {
    let input: Efficiency = read(input)?;
    Ok(json!({ "hre_are": efficiency::hre_are(&input.rows(), input.form()?)? }))
}

/// The rule at the edge: rates of 0 are at least 1/(2 · sentences); an accuracy of 0 gives an ARE of 0. Numbers where the
/// file says how many sentences there are.
pub fn efficiency_edge(input: &Value) -> Result<Value, EcldError> {
    let input: Efficiency = read(input)?;
    let found = efficiency::hre_are(&input.rows(), input.form()?).ok();
    let rule = "min(h) = 0: clamp h to at least 1/(2 * sentences) before min/x; accuracy 0 gives ARE 0";
    Ok(json!({ "hre": rule, "hre_are": found }))
}
