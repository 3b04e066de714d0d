//! Device and server together (the second paper's last row): the compact model answers what it is sent, the original the rest.
//!
//! Who answers is decided three ways. *By known hops*: single-hop questions stay, two-hop ones go; that needs a label that
//! nobody has when a question comes, so it is an oracle, as in the paper. *By a predictor*: logistic regression on what the
//! device knows once it has read the question and before it writes: entropy of its first token, that token's probability, the
//! margin to the second, and the question's length. That costs nothing (the device reads the question anyway) and needs no second model;
//! an encoder would know the question's form, not what this device knows. *At random*: the same share, in expectation, which
//! every rule has to beat.
//!
//! Predictors are fitted on held-out questions that are not among those judged: one to tell two-hop from single-hop, one to tell
//! what this device gets wrong.

use engine::Engine;
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::Serialize;

use super::bootstrap::{DRAWS, Interval, resampled};
use super::judge::Judged;
use super::kin::Family;
use super::logistic::{Logistic, ranked_right};
use super::make::Made;
use crate::batch::Words as _;
use crate::corpus::{Corpus, Fact, Hops};
use crate::ecld::EcldError;
use crate::ecld::file::{Archive, Teacher};
use crate::ecld::forward;
use crate::evaluate::{Asked, Spent, asked, respond};
use crate::normalise::is_correct;

/// Questions of each sort that predictors are fitted on, at most.
const FITTED: usize = 400;
/// Seed of which.
const FIT_SEED: u64 = 77;
/// Seed of the resampling.
const SEED: u64 = 25;

/// One way to decide who answers.
#[derive(Debug, Clone, Serialize)]
pub struct Route {
    /// In words.
    pub name: String,
    /// Whether it needs to know what nobody knows when a question comes.
    pub oracle: bool,
    /// Share of the questions that the server answers.
    pub offloaded: f64,
    /// Of all questions, single-hop, two-hop (eq. 23).
    pub accuracy: [Option<Interval>; 3],
    /// Eq. 24 over the articles. A predictor decides by the article's opening; an article has no hops, so the oracle sends the same
    /// share of them as of questions, at random, in expectation.
    pub hallucination: Option<Interval>,
    /// Accuracy of all questions minus what is to be expected of the same share at random, paired.
    pub over_random: Option<Interval>,
}

/// What a predictor is worth.
#[derive(Debug, Clone, Serialize)]
pub struct Predictor {
    /// What it predicts.
    pub of: String,
    /// Its weights: entropy (nats), probability of the first token, margin to the second, tokens of the question.
    pub fitted: Logistic,
    /// Questions that it was fitted on.
    pub questions: usize,
    /// Of pairs of judged questions, one with the label and one without, the share that it ranks right.
    pub ranked_right: Option<f64>,
}

/// One device with the original behind it.
#[derive(Debug, Clone, Serialize)]
pub struct Routing {
    /// The variant on the device.
    pub device: String,
    /// The variant on the server.
    pub server: String,
    /// Bytes that the device holds.
    pub device_bytes: u64,
    /// The ways, the device alone and the server alone first.
    pub routes: Vec<Route>,
    /// The predictors.
    pub predictors: Vec<Predictor>,
}

/// What the device knows of a text before it writes.
fn features(model: &Teacher, tokens: &[u32]) -> Result<Vec<f64>, EcldError> {
    let rows = forward::logits(model, tokens)?;
    let last = rows.last().ok_or_else(|| EcldError::input("a question has no tokens"))?;
    let top = last.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = last.iter().map(|z| (z - top).exp()).sum();
    let p = |z: f64| (z - top).exp() / sum;
    let entropy: f64 = -last.iter().map(|z| p(*z) * ((z - top) - sum.ln())).sum::<f64>();
    let mut order = last.clone();
    order.sort_unstable_by(|a, b| b.total_cmp(a));
    let of = |place: usize| order.get(place).copied().map_or(0.0, p);
    Ok(vec![entropy, of(0), of(0) - of(1), tokens.len() as f64])
}

/// Held-out questions that are not among `judged`, as many of either hops as there are, up to [`FITTED`].
fn others<'a>(corpus: &'a Corpus, judged: &[Asked<'_>]) -> Vec<Asked<'a>> {
    let taken = |fact: &Fact| judged.iter().any(|asked| asked.fact.key == fact.key);
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(FIT_SEED);
    let all: Vec<Asked<'a>> = asked(corpus, usize::MAX, &mut rng).into_iter().filter(|a| !taken(a.fact)).collect();
    let of = |hops: Hops| all.iter().filter(move |asked| asked.fact.hops == hops);
    let count = of(Hops::Single).count().min(of(Hops::Two).count()).min(FITTED);
    of(Hops::Single).take(count).chain(of(Hops::Two).take(count)).cloned().collect()
}

/// Answers and articles of both sides, and who does what.
struct Both<'a> {
    device: &'a Judged,
    server: &'a Judged,
}

impl Both<'_> {
    /// The chance that the server takes each question, and each article.
    fn route(&self, name: &str, oracle: bool, questions: &[f64], articles: &[f64]) -> Route {
        let right = |place: usize, chance: f64| -> f64 {
            let of = |judged: &Judged| judged.answers.get(place).map_or(0.0, |a| f64::from(u8::from(a.right)));
            (1.0 - chance) * of(self.device) + chance * of(self.server)
        };
        let offloaded = questions.iter().sum::<f64>() / questions.len().max(1) as f64;
        let mean = |drawn: &[u32], value: &dyn Fn(usize) -> f64| -> Option<f64> {
            (!drawn.is_empty()).then(|| drawn.iter().map(|i| value(*i as usize)).sum::<f64>() / drawn.len() as f64)
        };
        let chance = |place: usize| questions.get(place).copied().unwrap_or(0.0);
        let accuracy = [None, Some(Hops::Single), Some(Hops::Two)].map(|hops| {
            let answers = self.device.answers.iter().enumerate();
            let places: Vec<usize> =
                answers.filter(|(_, a)| hops.is_none_or(|h| h == a.hops)).map(|(i, _)| i).collect();
            let value = |at: usize| places.get(at).map_or(0.0, |place| right(*place, chance(*place)));
            resampled(places.len(), DRAWS, SEED, &|drawn| mean(drawn, &value))
        });
        let over = |place: usize| right(place, chance(place)) - right(place, offloaded);
        let over_random = resampled(questions.len(), DRAWS, SEED, &|drawn| mean(drawn, &over));
        let told = |place: usize| -> [f64; 2] {
            let of = |judged: &Judged| {
                let tally = judged.tellings.get(place).map(|told| told.tally).unwrap_or_default();
                [(tally.sentences - tally.supported) as f64, tally.sentences as f64]
            };
            let chance = articles.get(place).copied().unwrap_or(0.0);
            let ([a, b], [c, d]) = (of(self.device), of(self.server));
            [(1.0 - chance) * a + chance * c, (1.0 - chance) * b + chance * d]
        };
        let hallucination = resampled(articles.len(), DRAWS, SEED, &|drawn| {
            let sum = |[x, y]: [f64; 2], [a, b]: [f64; 2]| [x + a, y + b];
            let [wrong, all] = drawn.iter().map(|i| told(*i as usize)).fold([0.0; 2], sum);
            (all > 0.0).then(|| wrong / all)
        });
        Route { name: name.into(), oracle, offloaded, accuracy, hallucination, over_random }
    }
}

/// The value that this share of `values` lies above.
fn threshold(values: &[f64], share: f64) -> f64 {
    let mut order = values.to_vec();
    order.sort_unstable_by(|a, b| b.total_cmp(a));
    order.get((share * order.len() as f64) as usize).copied().unwrap_or(f64::INFINITY)
}

impl Family<'_> {
    /// Everything about `device`, a variant of the family, with the variant `server` behind it: both judged on the same
    /// questions.
    ///
    /// # Errors
    /// The device's file cannot be read, the engine fails, or it was told to stop.
    pub fn routing(&self, device: (&str, &Made), server: (&str, &Made)) -> Result<Routing, EcldError> {
        let (id, made) = device;
        let archive = Archive::open(&made.path)?;
        let model = Teacher::new(&archive, u64::MAX)?;
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(self.settings.seed);
        let judged = asked(self.corpus, self.settings.limit, &mut rng);
        if !judged.iter().map(|asked| &asked.fact.key).eq(made.judged.answers.iter().map(|answer| &answer.key)) {
            return Err(EcldError::file(&made.path, "it was judged on other questions: judge it again"));
        }
        let fitting = others(self.corpus, &judged);
        self.watch
            .begin(&format!("{id}: routing"), (judged.len() + 2 * fitting.len() + made.judged.tellings.len()) as u64);
        let prompt = |question: &str| -> Result<Vec<f64>, EcldError> {
            self.tick(1)?;
            let tokens = self.words.prompt(question).map_err(|error| EcldError::input(error.to_string()))?;
            features(&model, &tokens)
        };
        let known: Vec<Vec<f64>> = judged.iter().map(|asked| prompt(&asked.question)).collect::<Result<_, _>>()?;
        let openings = made.judged.tellings.iter().map(|told| -> Result<Vec<f64>, EcldError> {
            self.tick(1)?;
            let article = self.corpus.articles.iter().find(|article| article.key == told.key);
            let opening = article.map_or("", |article| &article.opening);
            features(&model, &self.words.0.tokenizer.encode(opening)?)
        });
        let openings: Vec<Vec<f64>> = openings.collect::<Result<_, _>>()?;
        let mut engine = Engine::from_gguf_cpu(&std::fs::read(&made.path).map_err(EcldError::io(&made.path))?)?;
        let mut rows = Vec::new();
        for asked in &fitting {
            let known = prompt(&asked.question)?;
            let response = respond(&mut engine, &asked.question, &mut Spent::default())?;
            self.tick(1)?;
            rows.push((known, asked.fact.hops == Hops::Two, !is_correct(&response, &asked.fact.expect)));
        }
        let both = Both { device: &made.judged, server: &server.1.judged };
        let certain = |n: usize, chance: f64| vec![chance; n];
        let (questions, articles) = (known.len(), openings.len());
        let by_hops: Vec<f64> = judged.iter().map(|asked| f64::from(u8::from(asked.fact.hops == Hops::Two))).collect();
        let share = by_hops.iter().sum::<f64>() / questions.max(1) as f64;
        let mut routes = vec![
            both.route("always the device", false, &certain(questions, 0.0), &certain(articles, 0.0)),
            both.route("always the server", false, &certain(questions, 1.0), &certain(articles, 1.0)),
            both.route("two-hop to the server, by the known hops", true, &by_hops, &certain(articles, share)),
        ];
        let mut predictors = Vec::new();
        let wrong = |place: usize| made.judged.answers.get(place).is_some_and(|answer| !answer.right);
        let sorts: [(&str, bool, &[f64]); 2] =
            [("two hops", false, &[0.5]), ("the device is wrong", true, &[0.1, 0.25, 0.5])];
        for (of, is_wrong, shares) in sorts {
            let labelled = rows.iter().map(|(row, two, off)| (row.clone(), if is_wrong { *off } else { *two }));
            let labelled: Vec<(Vec<f64>, bool)> = labelled.collect();
            let fitted = Logistic::fit(&labelled);
            let says = |rows: &[Vec<f64>]| -> Vec<f64> { rows.iter().map(|row| fitted.probability(row)).collect() };
            let (said, of_articles) = (says(&known), says(&openings));
            let seen: Vec<f64> = labelled.iter().map(|(row, _)| fitted.probability(row)).collect();
            for share in shares {
                // Hops by the likelier of both; errors are rarer than that: the threshold is where so many of the questions
                // that it was fitted on lie above.
                let least = if is_wrong { threshold(&seen, *share) } else { 0.5 };
                let sent = |said: &[f64]| said.iter().map(|p| f64::from(u8::from(*p > least))).collect::<Vec<f64>>();
                let name = match is_wrong {
                    true => format!("predictor of {of}, its upper {:.0} %", 100.0 * share),
                    false => format!("predictor of {of}"),
                };
                routes.push(both.route(&name, false, &sent(&said), &sent(&of_articles)));
            }
            let label =
                |(place, p): (usize, f64)| (p, if is_wrong { wrong(place) } else { by_hops.get(place) == Some(&1.0) });
            let ranked: Vec<(f64, bool)> = said.into_iter().enumerate().map(label).collect();
            let questions = labelled.len();
            predictors.push(Predictor { of: of.into(), fitted, questions, ranked_right: ranked_right(&ranked) });
        }
        let (device, server) = (id.to_owned(), server.0.to_owned());
        Ok(Routing { device, server, device_bytes: made.judged.bytes, routes, predictors })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecld::hallucination::Tally;
    use crate::evaluate::{Answer, Told};

    fn judged(right: [bool; 4], supported: usize) -> Judged {
        let answer = |(place, right): (usize, bool)| Answer {
            key: place.to_string(),
            hops: if place < 2 { Hops::Single } else { Hops::Two },
            right,
        };
        let tally = Tally { sentences: 10, supported, ..Tally::default() };
        Judged {
            bytes: 1,
            parameters: 1,
            answers: right.into_iter().enumerate().map(answer).collect(),
            tellings: vec![Told { key: "x".into(), tally }],
            spent: Spent::default(),
            mean_nll: 0.0,
        }
    }

    #[test]
    fn each_question_is_answered_by_whom_it_was_sent_to() {
        let (device, server) = (judged([true, true, false, false], 2), judged([true, false, true, true], 8));
        let both = Both { device: &device, server: &server };
        for (sent, told, accuracy, wrong, over) in [
            ([0.0; 4], 0.0, [0.5, 1.0, 0.0], 0.8, 0.0),
            ([1.0; 4], 1.0, [0.75, 0.5, 1.0], 0.2, 0.0),
            // The half that the device cannot do: 1.0 against 0.625 at random.
            ([0.0, 0.0, 1.0, 1.0], 0.5, [1.0, 1.0, 1.0], 0.5, 0.375),
        ] {
            let route = both.route("x", false, &sent, &[told]);
            let found = route.accuracy.map(|interval| interval.unwrap().value);
            assert_eq!(found, accuracy, "{sent:?}");
            assert!((route.hallucination.unwrap().value - wrong).abs() < 1e-12);
            assert!((route.over_random.unwrap().value - over).abs() < 1e-12);
            assert!((route.offloaded - sent.iter().sum::<f64>() / 4.0).abs() < 1e-12);
        }
    }

    #[test]
    fn thresholds_leave_a_share_above() {
        let values: Vec<f64> = (0..100).map(f64::from).collect();
        for (share, want) in [(0.0, 0), (0.25, 25), (0.5, 50)] {
            let least = threshold(&values, share);
            assert_eq!(values.iter().filter(|v| **v > least).count(), want, "{share}");
        }
    }
}
