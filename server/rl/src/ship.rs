//! Putting a policy and its evaluation into the folder that the page downloads from.

use std::path::Path;

use policy::manifest::{GoldenCase, GoldenDecisions, PolicyEntry, PolicyManifest, SetEntry, SetEvaluation};
use policy::{NetworkShape, Policy, PolicyError};
use sha2::{Digest, Sha256};

use super::checkpoint::write_whole;
use super::error::TrainError;
use super::evaluate::{Sample, Score};

/// Slots that the golden file keeps of each policy.
pub const GOLDEN_CASES: usize = 16;

/// The evaluation that goes into the manifest, of one number of users.
pub struct Scores<'a> {
    /// Users K.
    pub users: usize,
    /// The policy's own.
    pub policy: &'a Score,
    /// The per-slot optimum's.
    pub optimum: &'a Score,
    /// The closed form's.
    pub closed_form: &'a Score,
    /// α = 0.
    pub always_local: &'a Score,
    /// α = 1 at P_max.
    pub always_offload: &'a Score,
    /// Uniform α and p.
    pub random: &'a Score,
    /// Seed of the slots.
    pub seed: u64,
}

impl Scores<'_> {
    /// The policy's share of the optimum.
    fn ratio(&self) -> f64 {
        self.policy.reward / self.optimum.reward
    }
}

fn read_or_default<T: Default>(path: &Path, parse: impl Fn(&str) -> Result<T, PolicyError>) -> Result<T, TrainError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(parse(&text)?),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(T::default()),
        Err(source) => Err(TrainError::File { path: path.to_owned(), source }),
    }
}

fn write_json<T: serde::Serialize>(path: &Path, value: &T) -> Result<(), TrainError> {
    let damaged = |e: serde_json::Error| TrainError::Damaged { path: path.to_owned(), problem: e.to_string() };
    let mut text = serde_json::to_string_pretty(value).map_err(damaged)?;
    text.push('\n');
    write_whole(path, text.as_bytes())
}

/// What was put into the folder.
pub struct Shipped {
    /// Name of the policy's file.
    pub file: String,
    /// The policy's share of the optimum, of each number of users.
    pub ratios: Vec<f64>,
}

/// Copies the policy into `dir` under its id, and writes its evaluation into the manifest and its decisions into the
/// golden file, in place of what they said of that id. `scores` holds one evaluation for each number of users that the
/// policy is for, in order.
///
/// # Errors
/// When the folder cannot be written, or holds a manifest that cannot be read.
pub fn ship(
    dir: &Path,
    bytes: &[u8],
    policy: &Policy,
    scores: &[Scores<'_>],
    samples: &[Sample],
) -> Result<Shipped, TrainError> {
    std::fs::create_dir_all(dir).map_err(|source| TrainError::File { path: dir.to_owned(), source })?;
    let (manifest_path, golden_path) = (dir.join("manifest.json"), dir.join("golden.json"));
    let mut manifest = read_or_default(&manifest_path, PolicyManifest::parse)?;
    let mut golden = read_or_default(&golden_path, GoldenDecisions::parse)?;
    let algo = policy.header().algo.clone();
    let id = match &policy.header().shape {
        NetworkShape::Fixed(config) => format!("{algo}-k{}", config.users),
        NetworkShape::Set(_) | NetworkShape::World(_) => "set".to_owned(),
    };
    let file = format!("{id}.safetensors");
    let length = bytes.len() as u64;
    let sha256: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    match &policy.header().shape {
        NetworkShape::Fixed(_) => {
            let entries = scores.iter().map(|scores| PolicyEntry {
                id: id.clone(),
                users: scores.users,
                file: file.clone(),
                bytes: length,
                sha256: sha256.clone(),
                algo: algo.clone(),
                reward: scores.policy.reward,
                oracle_reward: scores.optimum.reward,
                ratio: scores.ratio(),
                closed_form_reward: scores.closed_form.reward,
                always_local: scores.always_local.reward,
                always_offload: scores.always_offload.reward,
                random: scores.random.reward,
                mean_latency_s: scores.policy.latency_mean_s,
                eval_slots: scores.policy.slots as u64,
                eval_seed: scores.seed,
            });
            entries.for_each(|entry| manifest.insert(entry));
        }
        NetworkShape::Set(_) | NetworkShape::World(_) => {
            let evaluations = scores.iter().map(|scores| SetEvaluation {
                users: scores.users,
                reward: scores.policy.reward,
                oracle_reward: scores.optimum.reward,
                ratio: scores.ratio(),
                closed_form_reward: scores.closed_form.reward,
                always_local: scores.always_local.reward,
                always_offload: scores.always_offload.reward,
                random: scores.random.reward,
                mean_latency_s: scores.policy.latency_mean_s,
            });
            manifest.insert_set(SetEntry {
                id: id.clone(),
                file: file.clone(),
                bytes: length,
                sha256,
                algo,
                eval_slots: scores.first().map_or(0, |scores| scores.policy.slots as u64),
                eval_seed: scores.first().map_or(0, |scores| scores.seed),
                evaluations: evaluations.collect(),
            });
        }
    }
    golden.cases.retain(|case| case.policy != id);
    golden.cases.extend(samples.iter().map(|sample| GoldenCase {
        policy: id.clone(),
        observation: sample.observation.clone(),
        decision: sample.decision.clone(),
    }));
    golden.cases.sort_by(|a, b| a.policy.cmp(&b.policy));
    write_whole(&dir.join(&file), bytes)?;
    write_json(&golden_path, &golden)?;
    // Last: a manifest never names a file that is not there.
    write_json(&manifest_path, &manifest)?;
    Ok(Shipped { file, ratios: scores.iter().map(Scores::ratio).collect() })
}
