//! What a model file is worth: accuracy (eq. 23) and hallucination (eq. 24), by the engine that users run.

use super::corpus::{Article, Corpus, Fact, Hops};
use super::ecld::hallucination::{Tally, Telling};
use super::normalise::is_correct;
use super::sentences::sentences;
use super::unknown::{self, Unknown};
use engine::{ChatMessage, Engine, EngineError, FinishReason, SamplingOptions};
use futures::executor::block_on;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use std::ops::ControlFlow;

/// Longest answer, tokens.
const ANSWER_TOKENS: usize = 48;
/// Longest continuation of an article, tokens.
const ARTICLE_TOKENS: usize = 128;

/// A share with what it is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Share {
    /// Right answers, or unsupported sentences.
    pub hits: usize,
    /// Questions, or sentences.
    pub of: usize,
}

impl Share {
    /// hits / of; nothing of nothing is no share.
    pub fn value(self) -> Option<f64> {
        (self.of > 0).then(|| self.hits as f64 / self.of as f64)
    }

    fn count(&mut self, hit: bool) {
        self.hits += usize::from(hit);
        self.of += 1;
    }
}

/// A wrong answer, to look at.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Miss {
    /// What was asked.
    pub question: String,
    /// What the model said.
    pub response: String,
    /// What the response had to contain.
    pub expected: Vec<String>,
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Answer {
    /// The fact's key.
    pub key: String,
    /// One fact or two.
    pub hops: Hops,
    /// Whether the answer was right.
    pub right: bool,
}

/// One article that was gone on with.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Told {
    /// The article's key.
    pub key: String,
    /// Its sentences.
    pub tally: Tally,
}

/// Tokens that the questions took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Spent {
    /// Questions.
    pub queries: usize,
    /// Tokens of their prompts.
    pub prompt: usize,
    /// Tokens of the answers.
    pub generated: usize,
}

/// All that is measured.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Report {
    /// Eq. 23, one fact, held-out wordings.
    pub single_hop: Share,
    /// Eq. 23, two facts, held-out pairs in held-out wordings.
    pub two_hop: Share,
    /// Eq. 24: unsupported sentences of all that continue an article's opening.
    pub hallucination: Share,
    /// Questions that the Atlas does not answer, in words held out of training: how many the model says that it does not know.
    pub admitted: Share,
    /// Questions of either hops that the Atlas answers and the model says that it does not know.
    pub refused: Share,
    /// The same sentences with openings and repeats counted apart.
    pub told: Tally,
    /// Every question, in the order in which they were asked: the same for all models that are asked with one seed.
    pub answers: Vec<Answer>,
    /// Every article, likewise.
    pub tellings: Vec<Told>,
    /// What the questions took.
    pub spent: Spent,
    /// The first wrong answers.
    pub misses: Vec<Miss>,
    /// The first unsupported sentences.
    pub unsupported: Vec<String>,
}

/// Measures `engine` on up to `limit` questions of each sort and `limit` articles, sampled with `seed`. `tick` is called
/// after each.
///
/// # Errors
/// The engine's.
pub fn evaluate(
    engine: &mut Engine,
    corpus: &Corpus,
    limit: usize,
    seed: u64,
    tick: &dyn Fn(),
) -> Result<Report, EngineError> {
    let mut report = Report::default();
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    for Asked { fact, question } in asked(corpus, limit, &mut rng) {
        let response = respond(engine, &question, &mut report.spent)?;
        let (hops, right) = (fact.hops, is_correct(&response, &fact.expect));
        report.refused.count(unknown::is_admitted(&response));
        report.answers.push(Answer { key: fact.key.clone(), hops, right });
        match hops {
            Hops::Single => report.single_hop.count(right),
            Hops::Two => report.two_hop.count(right),
        }
        if !right && report.misses.len() < 40 {
            report.misses.push(Miss { question, response, expected: fact.expect.clone() });
        }
        tick();
    }
    let mut articles: Vec<&Article> = corpus.articles.iter().collect();
    articles.shuffle(&mut rng);
    for article in articles.into_iter().take(limit) {
        let (text, cut) = continuation(engine, article)?;
        for sentence in whole_sentences(&text, cut, article) {
            let unsupported = !article.supports(&sentence);
            report.hallucination.count(unsupported);
            if unsupported && report.unsupported.len() < 40 {
                report.unsupported.push(sentence);
            }
        }
        let mut tally = Tally::default();
        tally.add(Telling { opening: &article.opening, text: &text, cut }, &|s| article.supports(s));
        report.told += tally;
        report.tellings.push(Told { key: article.key.clone(), tally });
        tick();
    }
    let mut unanswered: Vec<&Unknown> = corpus.unknown.iter().filter(|u| u.held_out).collect();
    unanswered.shuffle(&mut rng);
    for unknown in unanswered.into_iter().take(limit) {
        let response = respond(engine, &unknown.question, &mut Spent::default())?;
        let admitted = unknown::is_admitted(&response);
        report.admitted.count(admitted);
        if !admitted && report.misses.len() < 80 {
            let expected = vec![unknown::ANSWER.to_owned()];
            report.misses.push(Miss { question: unknown.question.clone(), response, expected });
        }
        tick();
    }
    Ok(report)
}

/// A question as it is asked.
#[derive(Debug, Clone)]
pub struct Asked<'a> {
    /// What it asks for.
    pub fact: &'a Fact,
    /// The words.
    pub question: String,
}

/// Up to `limit` single-hop facts and as many two-hop pairs that were held out, each in one of its held-out wordings.
pub fn asked<'a>(corpus: &'a Corpus, limit: usize, rng: &mut impl RngExt) -> Vec<Asked<'a>> {
    let mut all = Vec::new();
    for hops in [Hops::Single, Hops::Two] {
        let wanted = |f: &&Fact| f.hops == hops && (hops == Hops::Single || f.held_out);
        let mut facts: Vec<&Fact> = corpus.facts.iter().filter(wanted).collect();
        facts.shuffle(rng);
        for fact in facts.into_iter().take(limit) {
            let wordings = fact.held_out_wordings();
            let question = wordings[rng.random_range(0..wordings.len())].clone();
            all.push(Asked { fact, question });
        }
    }
    all
}

/// The greedy answer to one question.
///
/// # Errors
/// The engine's.
pub fn respond(engine: &mut Engine, question: &str, spent: &mut Spent) -> Result<String, EngineError> {
    let options = SamplingOptions { max_tokens: ANSWER_TOKENS, ..SamplingOptions::default() };
    let mut text = String::new();
    let messages = [ChatMessage { role: "user".into(), content: question.into() }];
    let stats = block_on(engine.generate(&messages, "", &options, &|| 0.0, &mut |event| {
        text.push_str(event.text);
        ControlFlow::Continue(())
    }))?;
    spent.queries += 1;
    spent.prompt += stats.prompt_tokens;
    spent.generated += stats.generated_tokens;
    Ok(text)
}

/// What the model goes on with after the article's opening, and whether the limit cut it.
fn continuation(engine: &mut Engine, article: &Article) -> Result<(String, bool), EngineError> {
    let options = SamplingOptions { max_tokens: ARTICLE_TOKENS, ..SamplingOptions::default() };
    let mut text = String::new();
    let stats = block_on(engine.complete(&article.opening, &options, &|| 0.0, &mut |event| {
        text.push_str(event.text);
        ControlFlow::Continue(())
    }))?;
    Ok((text, stats.finish != FinishReason::Stop))
}

/// The complete sentences of it.
fn whole_sentences(text: &str, cut: bool, article: &Article) -> Vec<String> {
    let mut all = sentences(text, &|s| article.supports(s));
    if cut && !text.trim_end().ends_with('.') {
        // Half a sentence states nothing.
        all.pop();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_sentences() {
        for (text, want) in [
            (
                " Kenya lies in Africa. Its domain is .ke. End.",
                vec!["Kenya lies in Africa.", "Its domain is .ke.", "End."],
            ),
            (
                "T. S. Eliot wrote The Waste Land. He was born.",
                vec!["T. S. Eliot wrote The Waste Land.", "He was born."],
            ),
            ("The capital is St. George's. Yes.", vec!["The capital is St. George's.", "Yes."]),
            ("Its symbol is C. Yes.", vec!["Its symbol is C.", "Yes."]),
            ("Its author is C. S. Lewis. Yes.", vec!["Its author is C. S. Lewis.", "Yes."]),
            ("no stop", vec!["no stop"]),
            ("", vec![]),
        ] {
            assert_eq!(sentences(text, &|s| s == "Its symbol is C."), want, "{text}");
        }
    }

    #[test]
    fn every_telling_of_the_shipped_articles_is_supported() {
        let corpus = super::super::corpus::generate(&super::super::tables::embedded().expect("valid"), 1);
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(3);
        let (mut wrong, mut all) = (Vec::new(), 0);
        for article in &corpus.articles {
            for sentence in sentences(&article.tell(5, &mut rng), &|s| article.supports(s)) {
                all += 1;
                if !article.supports(&sentence) {
                    wrong.push(sentence);
                }
            }
        }
        assert!(all > 4000, "{all}");
        assert!(wrong.is_empty(), "{} of {all}: {:?}", wrong.len(), &wrong[..wrong.len().min(8)]);
    }
}
