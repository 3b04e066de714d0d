//! One file judged, by the engine that users run: answers, sentences, tokens, energy.

use std::path::Path;

use engine::Engine;
use serde::{Deserialize, Serialize};

use super::bootstrap::Unit;
use crate::batch::{Doc, Words};
use crate::corpus::{Corpus, Hops};
use crate::ecld::EcldError;
use crate::ecld::depth::{self, Scored};
use crate::ecld::file::{Archive, Teacher};
use crate::evaluate::{Answer, Spent, Told, evaluate};

/// Energy to read a byte of weights, joule (the additions' counted model).
pub const JOULE_PER_BYTE: f64 = 40e-12;
/// Energy of a multiply-add of bytes, joule.
pub const JOULE_PER_MAC: f64 = 1e-12;

/// What was found about a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// Bytes of the file, or what they would be of a simulated one.
    pub bytes: u64,
    /// Parameters.
    pub parameters: u64,
    /// Every question.
    pub answers: Vec<Answer>,
    /// Every article.
    pub tellings: Vec<Told>,
    /// Tokens that the questions took.
    pub spent: Spent,
    /// Mean −log p of the answers' tokens to held-out questions, nats.
    pub mean_nll: f64,
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Eq. 23, one fact, held-out wordings.
    SingleHop,
    /// Eq. 23, two facts, held-out pairs.
    TwoHop,
    /// Eq. 24 without repeats: unsupported sentences of all that say something new.
    Hallucination,
}

impl Judged {
    /// Hits and counts by fact or article, in an order that all variants share.
    pub fn units(&self, metric: Metric) -> Vec<Unit> {
        let answers = |hops: Hops| {
            let mut units: Vec<(&str, Unit)> = Vec::new();
            for answer in self.answers.iter().filter(|answer| answer.hops == hops) {
                match units.last_mut().filter(|(key, _)| *key == answer.key) {
                    Some((_, [hits, of])) => (*hits, *of) = (*hits + u32::from(answer.right), *of + 1),
                    None => units.push((&answer.key, [u32::from(answer.right), 1])),
                }
            }
            units.into_iter().map(|(_, unit)| unit).collect()
        };
        match metric {
            Metric::SingleHop => answers(Hops::Single),
            Metric::TwoHop => answers(Hops::Two),
            Metric::Hallucination => {
                let unit =
                    |told: &Told| [(told.tally.sentences - told.tally.supported) as u32, told.tally.sentences as u32];
                self.tellings.iter().map(unit).collect()
            }
        }
    }

    /// Modelled energy of a question and its answer, joule: the weights are read once for the prompt and once for every token
    /// of the answer, and every token passes every weight. What the machine takes while it waits is not in it.
    pub fn joule_per_query(&self) -> f64 {
        let queries = self.spent.queries.max(1) as f64;
        let (prompt, generated) = (self.spent.prompt as f64 / queries, self.spent.generated as f64 / queries);
        let read = (1.0 + generated) * self.bytes as f64 * JOULE_PER_BYTE;
        read + (prompt + generated) * self.parameters as f64 * JOULE_PER_MAC
    }
}

/// Judges the file at `path` on up to `limit` questions of each sort and articles, sampled with `seed`. `bytes` is what a
/// simulated file would take; `None` for the file's own. `tick` is called after each.
///
/// # Errors
/// The file cannot be read, or the engine fails.
pub fn judge(
    path: &Path,
    bytes: Option<u64>,
    corpus: &Corpus,
    words: &dyn Words,
    (limit, seed): (usize, u64),
    tick: &dyn Fn(),
) -> Result<Judged, EcldError> {
    let file = std::fs::read(path).map_err(EcldError::io(path))?;
    let mut engine = Engine::from_gguf_cpu(&file)?;
    let parameters = engine.info().parameters;
    let report = evaluate(&mut engine, corpus, limit, seed, tick)?;
    drop(engine);
    let archive = Archive::open(path)?;
    let held_out = held_out(corpus, words, limit)?;
    let mean_nll = depth::rise(&Teacher::new(&archive, u64::MAX)?, &held_out, &[], &[], &mut |_| Ok(()))?.mean_nll;
    Ok(Judged {
        bytes: bytes.unwrap_or(file.len() as u64),
        parameters,
        answers: report.answers,
        tellings: report.tellings,
        spent: report.spent,
        mean_nll,
    })
}

/// The first held-out wording of every so-manieth question, of which the answer counts.
fn held_out(corpus: &Corpus, words: &dyn Words, limit: usize) -> Result<Vec<Scored>, EcldError> {
    let facts: Vec<_> = corpus.facts.iter().filter(|fact| fact.hops == Hops::Single || fact.held_out).collect();
    let mut all = Vec::new();
    for fact in facts.iter().step_by((facts.len() / limit.max(1)).max(1)) {
        let wordings = fact.held_out_wordings();
        let Some(question) = wordings.first() else { continue };
        let doc = Doc::question(words, question, &fact.answer).map_err(|error| EcldError::input(error.to_string()))?;
        let first = doc.weights.iter().position(|weight| *weight > 0.0).unwrap_or(doc.ids.len());
        all.push(Scored::after(doc.ids, first));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecld::hallucination::Tally;

    #[test]
    fn units_are_facts_and_articles() {
        let answer = |key: &str, hops, right| Answer { key: key.into(), hops, right };
        let told =
            |sentences, supported| Told { key: "x".into(), tally: Tally { sentences, supported, ..Tally::default() } };
        let judged = Judged {
            bytes: 1000,
            parameters: 2000,
            answers: vec![
                answer("a", Hops::Single, true),
                answer("a", Hops::Single, false),
                answer("b", Hops::Single, true),
                answer("c", Hops::Two, false),
            ],
            tellings: vec![told(4, 1), told(0, 0)],
            spent: Spent { queries: 2, prompt: 20, generated: 6 },
            mean_nll: 0.5,
        };
        assert_eq!(judged.units(Metric::SingleHop), [[1, 2], [1, 1]]);
        assert_eq!(judged.units(Metric::TwoHop), [[0, 1]]);
        assert_eq!(judged.units(Metric::Hallucination), [[3, 4], [0, 0]]);
        // 4 readings of 1000 bytes, 13 tokens through 2000 weights.
        let want = 4.0 * 1000.0 * JOULE_PER_BYTE + 13.0 * 2000.0 * JOULE_PER_MAC;
        assert!((judged.joule_per_query() / want - 1.0).abs() < 1e-12);
    }
}
