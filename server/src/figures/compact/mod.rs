//! The compact models' report: our Table I with its intervals and controls, the curve of quality over bytes, Fig. 6.
//!
//! | file | holds |
//! | --- | --- |
//! | `text.rs` | the report in Markdown |
//! | `charts.rs` | quality over bytes, HRE and ARE |
//! | `routing.rs` | who answers what, as a part of the text |
//! | `paper.rs` | the paper's numbers to stand beside ours |
//!
//! # ecld.json
//! [`Report`] as it is. What a page draws of it: `variants[]` (`title`, `bytes`, `metrics` = single-hop, two-hop, hallucination,
//! each `{value, low, high}` or null; `kept` = what is left, by the teacher's numbers, or null; `curves` = places in `curves[]`),
//! `curves[]` (`[name, [loss, …]]`), `teacher` (its sizes), `importance` (score heat maps), `routing[]` and `draws[]`.
//! Fields are only ever added.

use lm::ecld::EcldError;
use lm::ecld::efficiency::{Form, Row, hre_are};
use lm::family::{
    DRAWS, Family, Group, Importance, Interval, Kept, Made, Metric, Ranked, Recipe, Routing, difference, rate,
};
use serde::Serialize;

pub mod charts;
mod paper;
mod routing;
pub mod text;

/// Seed of the resampling.
const SEED: u64 = 24;
/// The three metrics.
pub const METRICS: [Metric; 3] = [Metric::SingleHop, Metric::TwoHop, Metric::Hallucination];

/// A variant with its intervals.
#[derive(Debug, Clone, Serialize)]
pub struct Variant {
    /// Its name.
    pub id: String,
    /// In words.
    pub title: String,
    /// What it is compared as.
    pub group: Group,
    /// Bytes of its file, and of them as a share of the teacher's in half precision.
    pub bytes: u64,
    /// Share of the bytes that the teacher's parameters take in half precision.
    pub of_f16: f64,
    /// Whether its bytes are counted and no engine has such a file.
    pub simulated: bool,
    /// Parameters.
    pub parameters: u64,
    /// Blocks, FFN neurons.
    pub sizes: [usize; 2],
    /// Single-hop, two-hop, hallucination; `None` where nothing was there to count.
    pub metrics: [Option<Interval>; 3],
    /// The original's taken away, paired.
    pub against_original: [Option<Interval>; 3],
    /// Mean −log p of answers to held-out questions, nats a token.
    pub mean_nll: f64,
    /// Sentences that say something new, repeats, articles without any sentence.
    pub sentences: [usize; 3],
    /// Modelled ("model-counted"), joule a query.
    pub joule_per_query: f64,
    /// Tokens of an answer.
    pub tokens_per_query: f64,
    /// HRE and ARE by min(x)/x, by 1 − x/max(x).
    pub efficiency: [[f64; 2]; 2],
    /// Tokens that it was trained on, and the seconds of their steps.
    pub trained: [f64; 2],
    /// What is left of the teacher, by its numbers: `layers`, and for each of them `heads` and `neurons`. `None`: nothing was cut.
    pub kept: Option<Kept>,
    /// Places of its trainings in [`Report::curves`], one after the other.
    pub curves: Vec<usize>,
    /// Which repetition of its training, from 0.
    pub draw: u64,
}

/// Sizes of the teacher.
#[derive(Debug, Clone, Serialize)]
pub struct TeacherSizes {
    /// Blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// KV groups.
    pub kv_heads: usize,
    /// FFN neurons of a block.
    pub neurons: usize,
    /// Width.
    pub dim: usize,
}

/// One variant over the repetitions of its training.
#[derive(Debug, Clone, Serialize)]
pub struct Draws {
    /// The first of them.
    pub id: String,
    /// Single-hop, two-hop, hallucination of each, in their order.
    pub metrics: Vec<[Option<f64>; 3]>,
}

/// A family, judged.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The variants, in the order of the recipes.
    pub variants: Vec<Variant>,
    /// What was found about each.
    #[serde(skip)]
    pub made: Vec<(Recipe, Made)>,
    /// How students learned.
    pub settings: lm::family::Settings,
    /// The training curves: name, loss of every step.
    pub curves: Vec<(String, Vec<f64>)>,
    /// The teacher's sizes.
    pub teacher: TeacherSizes,
    /// What scored how in the teacher.
    pub importance: Importance,
    /// Device and server together, for each size of ECLD.
    pub routing: Vec<Routing>,
    /// Splits of each cut between blocks and neurons, ranked after a short distillation: percent, the one that was taken first.
    pub rankings: Vec<(u32, Vec<Ranked>)>,
    /// What was trained with more than one seed.
    pub draws: Vec<Draws>,
}

impl Report {
    /// Of what was made.
    ///
    /// # Errors
    /// There is nothing, or a metric is no number.
    pub fn new(family: &Family<'_>, made: Vec<(Recipe, Made)>) -> Result<Self, EcldError> {
        let (_, original) = made.first().ok_or_else(|| EcldError::input("there is no variant to report on"))?;
        let f16 = 2.0 * family.teacher.parameters() as f64;
        let rows: Vec<Row> = made.iter().map(|(_, made)| row(made)).collect();
        let [reciprocal, complement] = [Form::Reciprocal, Form::Complement].map(|form| hre_are(&rows, form));
        let (reciprocal, complement) = (reciprocal?, complement?);
        let mut variants = Vec::new();
        for (((recipe, made), by_least), by_most) in made.iter().zip(&reciprocal).zip(&complement) {
            let judged = &made.judged;
            let tallies = judged.tellings.iter().map(|told| told.tally);
            let count = |get: fn(&lm::ecld::hallucination::Tally) -> usize| tallies.clone().map(|t| get(&t)).sum();
            let units = METRICS.map(|metric| (judged.units(metric), original.judged.units(metric)));
            let trained = made.trained.iter().fold([0.0, 0.0], |[tokens, seconds], training| {
                [tokens + training.tokens as f64, seconds + training.seconds]
            });
            variants.push(Variant {
                id: recipe.id.clone(),
                title: recipe.title.clone(),
                group: recipe.group,
                bytes: judged.bytes,
                of_f16: judged.bytes as f64 / f16,
                simulated: made.simulated,
                parameters: judged.parameters,
                sizes: made.sizes,
                metrics: units.each_ref().map(|(own, _)| rate(own, DRAWS, SEED)),
                against_original: units.each_ref().map(|(own, other)| difference(own, other, DRAWS, SEED)),
                mean_nll: judged.mean_nll,
                sentences: [count(|t| t.sentences), count(|t| t.repeats), count(|t| t.empty_articles)],
                joule_per_query: judged.joule_per_query(),
                tokens_per_query: judged.spent.generated as f64 / judged.spent.queries.max(1) as f64,
                efficiency: [*by_least, *by_most],
                trained,
                kept: made.kept.clone(),
                curves: Vec::new(),
                draw: recipe.draw,
            });
        }
        let mut curves: Vec<(String, Vec<f64>)> = Vec::new();
        for ((recipe, made), variant) in made.iter().zip(&mut variants) {
            for (part, training) in made.trained.iter().enumerate() {
                let known = curves.iter().position(|(_, known)| *known == training.losses);
                variant.curves.push(known.unwrap_or(curves.len()));
                if known.is_none() {
                    curves.push((format!("{}, part {}", recipe.id, part + 1), training.losses.clone()));
                }
            }
        }
        let sizes = &family.teacher.plan.config;
        let teacher = TeacherSizes {
            layers: sizes.layers,
            heads: sizes.heads,
            kv_heads: sizes.kv_heads,
            neurons: sizes.ffn,
            dim: sizes.dim,
        };
        let (importance, draws) = (family.importance()?, draws(&made, &variants));
        let mut routing = Vec::new();
        for (recipe, device) in made.iter().filter(|(recipe, _)| recipe.group == Group::Ecld && recipe.draw == 0) {
            routing.push(family.routing((&recipe.id, device), (&made[0].0.id, &made[0].1))?);
        }
        let cuts = made.iter().filter(|(recipe, _)| recipe.group == Group::Pruned);
        let ranked = cuts.filter_map(|(recipe, _)| recipe.source.cut()).map(|cut| (cut, family.ranking(cut)));
        let (settings, rankings) = (family.settings.clone(), ranked.collect());
        Ok(Self { variants, made, settings, curves, teacher, importance, routing, rankings, draws })
    }

    /// `left`'s metrics minus `right`'s, paired.
    pub fn differences(&self, left: usize, right: usize) -> [Option<Interval>; 3] {
        METRICS.map(|metric| {
            let units = |place: usize| self.made.get(place).map(|(_, made)| made.judged.units(metric));
            difference(&units(left)?, &units(right)?, DRAWS, SEED)
        })
    }
}

/// Variants that were trained more than once: those of one group and one cut.
fn draws(made: &[(Recipe, Made)], variants: &[Variant]) -> Vec<Draws> {
    let all = || made.iter().zip(variants);
    let again = |(recipe, _): &(Recipe, Made)| {
        let like = |(other, _): &(Recipe, Made)| {
            (other.group, other.source.cut(), other.draw > 0) == (recipe.group, recipe.source.cut(), true)
        };
        recipe.draw == 0 && made.iter().any(like)
    };
    let firsts = all().filter(|(first, _)| again(first));
    let with_rest = firsts.map(|((recipe, _), _)| {
        let same =
            |(other, _): &(Recipe, Made)| (other.group, other.source.cut()) == (recipe.group, recipe.source.cut());
        let metrics = all().filter(|(other, _)| same(other));
        let metrics = metrics.map(|(_, variant)| variant.metrics.map(|metric| metric.map(|interval| interval.value)));
        Draws { id: recipe.id.clone(), metrics: metrics.collect() }
    });
    with_rest.collect()
}

/// What HRE and ARE are made of. Accuracy is the mean of single- and two-hop.
fn row(made: &Made) -> Row {
    let judged = &made.judged;
    let share = |metric: Metric| {
        let (hits, of) = judged.units(metric).iter().fold((0, 0), |(h, n), [hits, of]| (h + hits, n + of));
        (f64::from(hits), f64::from(of))
    };
    let accuracy = |metric| {
        let (hits, of) = share(metric);
        if of > 0.0 { hits / of } else { 0.0 }
    };
    let (wrong, sentences) = share(Metric::Hallucination);
    // Nothing wrong of so many: at most half a sentence. Nothing said: all of it counts as wrong.
    let hallucination = if sentences > 0.0 { wrong.max(0.5) / sentences } else { 1.0 };
    Row {
        hallucination,
        accuracy: f64::midpoint(accuracy(Metric::SingleHop), accuracy(Metric::TwoHop)),
        size: judged.bytes as f64,
        energy: judged.joule_per_query(),
    }
}
