//! Cases on tiny models: logits, scores, what is kept, and what is left after the cut.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::Vectors;
use super::input::{Number, plain, read};
use crate::ecld::cut::{Cut, Keep};
use crate::ecld::depth::{self, Scored};
use crate::ecld::error::EcldError;
use crate::ecld::forward;
use crate::ecld::memory::MemoryModel;
use crate::ecld::score::{self, Aggregate, Options, Scores};
use crate::ecld::select;
use crate::ecld::spec::{Model as _, check_sequences};

/// Logits that differ by no more than this share are the same.
const SAME: f64 = 1e-10;

fn no_tick(_: u64) -> Result<(), EcldError> {
    Ok(())
}

fn logits_of(model: &MemoryModel, tokens: &[u32]) -> Result<Vec<Vec<f64>>, EcldError> {
    check_sequences(model.spec(), [tokens])?;
    forward::logits(model, tokens)
}

pub fn logits(vectors: &Vectors, input: &Value) -> Result<Value, EcldError> {
    #[derive(Deserialize)]
    struct Input {
        model: String,
        tokens: Vec<u32>,
    }
    let Input { model, tokens } = read(input)?;
    Ok(json!({ "logits": logits_of(&vectors.model(&model)?.model()?, &tokens)? }))
}

/// Minitron's aggregations, as the vectors have them where they say nothing.
#[derive(Deserialize)]
struct Aggregations {
    #[serde(default = "mean_abs")]
    seq: String,
    #[serde(default = "l2")]
    batch: String,
    #[serde(default = "sum")]
    group: String,
}

fn mean_abs() -> String {
    "mean_abs".into()
}

fn l2() -> String {
    "l2".into()
}

fn sum() -> String {
    "sum".into()
}

impl Aggregations {
    fn options(&self) -> Result<Options, EcldError> {
        let [seq, batch, group] = [&self.seq, &self.batch, &self.group].map(|name| Aggregate::named(name));
        Ok(Options { seq: seq?, batch: batch?, group: group?, times_down: false })
    }
}

pub fn scores(vectors: &Vectors, input: &Value) -> Result<Value, EcldError> {
    #[derive(Deserialize)]
    struct Input {
        model: String,
        sequences: Vec<Vec<u32>>,
    }
    let Input { model, sequences } = read(input)?;
    let options = read::<Aggregations>(input)?.options()?;
    let model = vectors.model(&model)?.model()?;
    let Scores { layer, neuron, head, group, embed } = score::scores(&model, &sequences, options, &mut no_tick)?;
    Ok(json!({ "layer": layer, "neuron": neuron, "head": head, "group": group, "embed": embed }))
}

pub fn layer_by_loss(vectors: &Vectors, input: &Value) -> Result<Value, EcldError> {
    #[derive(Deserialize)]
    struct Input {
        model: String,
        sequences: Vec<Vec<u32>>,
    }
    let Input { model, sequences } = read(input)?;
    let model = vectors.model(&model)?.model()?;
    let sequences: Vec<Scored> = sequences.into_iter().map(Scored::whole).collect();
    let all: Vec<usize> = (0..model.spec().layers).collect();
    let found = depth::rise(&model, &sequences, &[], &all, &mut no_tick)?;
    Ok(json!({ "mean_nll": found.mean_nll, "rise": found.rise }))
}

pub fn keep_ratio(input: &Value) -> Result<Value, EcldError> {
    #[derive(Deserialize)]
    struct Input {
        scores: Vec<Number>,
        ratio: f64,
        #[serde(default = "one")]
        multiple: usize,
    }
    let Input { scores, ratio, multiple } = read(input)?;
    Ok(json!({ "kept": select::by_ratio(&plain(&scores), ratio, multiple)? }))
}

fn one() -> usize {
    1
}

pub fn keep_threshold(input: &Value) -> Result<Value, EcldError> {
    #[derive(Deserialize)]
    struct Input {
        scores: Vec<Number>,
        theta: f64,
        #[serde(default)]
        relative: bool,
    }
    let Input { scores, theta, relative } = read(input)?;
    Ok(json!({ "kept": select::by_threshold(&plain(&scores), theta, relative)? }))
}

/// Whether gains make up for a narrower norm, in whatever words the file has for it.
fn corrects_norms(how: Option<&Value>) -> Result<bool, EcldError> {
    match how {
        None | Some(Value::Null | Value::Bool(false)) => Ok(false),
        Some(Value::Bool(true)) => Ok(true),
        Some(Value::String(name)) => match name.as_str() {
            "none" => Ok(false),
            "sqrt" | "width" | "gain" | "gains" | "sqrt_ratio" | "sqrt(d/d')" => Ok(true),
            other => Err(EcldError::input(format!("norm_fix {other:?} is not known; it is null or \"sqrt\""))),
        },
        Some(other) => Err(EcldError::input(format!("norm_fix {other} is not known; it is null or \"sqrt\""))),
    }
}

pub fn prune(vectors: &Vectors, input: &Value) -> Result<Value, EcldError> {
    #[derive(Deserialize)]
    struct Input {
        model: String,
        ratios: BTreeMap<String, f64>,
        sequences: Vec<Vec<u32>>,
        tokens: Vec<u32>,
        #[serde(default = "one")]
        multiple: usize,
    }
    let Input { model, ratios, sequences, tokens, multiple } = read(input)?;
    let wire = vectors.model(&model)?;
    let model = wire.model()?;
    let options = read::<Aggregations>(input)?.options()?;
    let scores = score::scores(&model, &sequences, options, &mut no_tick)?;
    let mut keep = Keep::default();
    for (axis, ratio) in ratios {
        let each = |lists: &[Vec<f64>]| {
            lists.iter().map(|scores| select::by_ratio(scores, ratio, multiple)).collect::<Result<Vec<_>, _>>()
        };
        match axis.as_str() {
            "depth" | "layers" => keep.layers = Some(select::by_ratio(&scores.layer, ratio, 1)?),
            "neurons" => keep.neurons = Some(each(&scores.neuron)?),
            "groups" => keep.groups = Some(each(&scores.group)?),
            "embed" => keep.embed = Some(select::by_ratio(&scores.embed, ratio, multiple)?),
            other => {
                return Err(EcldError::input(format!(
                    "nothing is called {other:?} that could be cut: there are depth, neurons, groups and embed"
                )));
            }
        }
    }
    let cut = Cut::new(model.spec(), &keep, corrects_norms(input.get("norm_fix"))?)?;
    let (pruned, masked) = (model.cut(&cut), model.masked(&cut));
    let found = logits_of(&pruned, &tokens)?;
    let same = logits_of(&masked, &tokens)?
        .iter()
        .flatten()
        .zip(found.iter().flatten())
        .all(|(a, b)| (a - b).abs() <= SAME * a.abs().max(1e-2));
    let shapes: BTreeMap<&String, &Vec<usize>> = pruned.tensors().iter().map(|(name, t)| (name, &t.shape)).collect();
    Ok(json!({
        "kept": keep,
        "config": wire.config.cut(pruned.spec()),
        "shapes": shapes,
        "parameters": pruned.parameters(),
        "logits": found,
        "equals_zeros_in_place": same,
    }))
}
