//! `policies/manifest.json`: which policies there are and what was measured of them, and `policies/golden.json`: decisions
//! that every backend has to reproduce. Both are written by `tandem`, never by hand.

use serde::{Deserialize, Serialize};

use super::error::PolicyError;
use mec::{UserDecision, UserObservation};

/// Version of both files.
pub const MANIFEST_VERSION: u32 = 1;

/// `policies/manifest.json`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyManifest {
    /// [`MANIFEST_VERSION`].
    pub version: u32,
    /// One entry a policy file.
    pub policies: Vec<PolicyEntry>,
    /// One entry a file that decides for several numbers of users.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<SetEntry>,
}

impl Default for PolicyManifest {
    fn default() -> Self {
        Self { version: MANIFEST_VERSION, policies: Vec::new(), sets: Vec::new() }
    }
}

/// One policy file and how it did on slots that it was not trained on. Rewards are means of (47).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyEntry {
    /// Stable id, `ppo-k2`.
    pub id: String,
    /// Users K that it decides for.
    pub users: usize,
    /// File name relative to the manifest.
    pub file: String,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Lower-case hex SHA-256 of the file.
    pub sha256: String,
    /// Algorithm that trained it.
    pub algo: String,
    /// Mean reward of the policy.
    pub reward: f64,
    /// Mean reward of the per-slot optimum.
    pub oracle_reward: f64,
    /// `reward / oracle_reward`.
    pub ratio: f64,
    /// Mean reward of the closed form.
    pub closed_form_reward: f64,
    /// Mean reward of α = 0.
    pub always_local: f64,
    /// Mean reward of α = 1 at P_max.
    pub always_offload: f64,
    /// Mean reward of uniform α and p.
    pub random: f64,
    /// The policy's mean latency of a user.
    pub mean_latency_s: f64,
    /// Slots that all of this was measured on.
    pub eval_slots: u64,
    /// Seed of those slots.
    pub eval_seed: u64,
}

/// A policy file for any number of users, and how it did with the numbers of its evaluations, from 1 on, on slots that it
/// was not trained on. Rewards are means of (47).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetEntry {
    /// Stable id, `set`.
    pub id: String,
    /// File name relative to the manifest.
    pub file: String,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Lower-case hex SHA-256 of the file.
    pub sha256: String,
    /// Algorithm that trained it.
    pub algo: String,
    /// Slots of each evaluation.
    pub eval_slots: u64,
    /// Seed of those slots.
    pub eval_seed: u64,
    /// One entry a number of users, from 1 on.
    pub evaluations: Vec<SetEvaluation>,
}

/// What a policy for any number of users gave with one number of users.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetEvaluation {
    /// Users K.
    pub users: usize,
    /// Mean reward of the policy.
    pub reward: f64,
    /// Mean reward of the per-slot optimum.
    pub oracle_reward: f64,
    /// `reward / oracle_reward`.
    pub ratio: f64,
    /// Mean reward of the closed form.
    pub closed_form_reward: f64,
    /// Mean reward of α = 0.
    pub always_local: f64,
    /// Mean reward of α = 1 at P_max.
    pub always_offload: f64,
    /// Mean reward of uniform α and p.
    pub random: f64,
    /// The policy's mean latency of a user.
    pub mean_latency_s: f64,
}

/// A file of the manifest, as the one to decide for some number of users.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shipped<'a> {
    /// Id of its entry.
    pub id: &'a str,
    /// File name relative to the manifest.
    pub file: &'a str,
    /// Lower-case hex SHA-256 of the file.
    pub sha256: &'a str,
    /// Its share of the optimum's mean reward for that number of users.
    pub ratio: f64,
}

impl PolicyManifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// When it is not JSON of this form or of another version.
    pub fn parse(json: &str) -> Result<Self, PolicyError> {
        let manifest: Self = serde_json::from_str(json).map_err(|e| PolicyError::Format(e.to_string()))?;
        check_version("manifest", manifest.version)?;
        Ok(manifest)
    }

    /// The policy that did best for that many users.
    pub fn best_for(&self, users: usize) -> Option<Shipped<'_>> {
        let single = self.policies.iter().filter(|entry| entry.users == users);
        let single = single.map(|e| Shipped { id: &e.id, file: &e.file, sha256: &e.sha256, ratio: e.ratio });
        let sets = self.sets.iter().filter_map(|e| {
            let evaluation = e.evaluations.iter().find(|evaluation| evaluation.users == users)?;
            Some(Shipped { id: &e.id, file: &e.file, sha256: &e.sha256, ratio: evaluation.ratio })
        });
        single.chain(sets).max_by(|a, b| a.ratio.total_cmp(&b.ratio))
    }

    /// Puts an entry in, in place of one with the same id.
    pub fn insert_set(&mut self, entry: SetEntry) {
        self.sets.retain(|old| old.id != entry.id);
        self.sets.push(entry);
        self.sets.sort_by(|a, b| a.id.cmp(&b.id));
    }

    /// Puts an entry in, in place of one with the same id, ordered by users.
    pub fn insert(&mut self, entry: PolicyEntry) {
        self.policies.retain(|old| old.id != entry.id);
        self.policies.push(entry);
        self.policies.sort_by(|a, b| (a.users, &a.id).cmp(&(b.users, &b.id)));
    }
}

/// `policies/golden.json`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GoldenDecisions {
    /// [`MANIFEST_VERSION`].
    pub version: u32,
    /// Decisions of the shipped policies under the default parameters, as the server's CPU computed them.
    pub cases: Vec<GoldenCase>,
}

impl Default for GoldenDecisions {
    fn default() -> Self {
        Self { version: MANIFEST_VERSION, cases: Vec::new() }
    }
}

impl GoldenDecisions {
    /// Reads a golden file.
    ///
    /// # Errors
    /// When it is not JSON of this form or of another version.
    pub fn parse(json: &str) -> Result<Self, PolicyError> {
        let golden: Self = serde_json::from_str(json).map_err(|e| PolicyError::Format(e.to_string()))?;
        check_version("golden file", golden.version)?;
        Ok(golden)
    }
}

/// One observation and the decision that belongs to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GoldenCase {
    /// Id of the policy in the manifest.
    pub policy: String,
    /// What it saw, one entry a user.
    pub observation: Vec<UserObservation>,
    /// What it decided, one entry a user.
    pub decision: Vec<UserDecision>,
}

impl GoldenCase {
    /// The largest difference to another backend's decision, over all α and p (in watts); infinite if the number of users
    /// differs.
    pub fn difference(&self, decision: &[UserDecision]) -> f64 {
        if decision.len() != self.decision.len() {
            return f64::INFINITY;
        }
        let pairs = self.decision.iter().zip(decision);
        pairs.map(|(a, b)| (a.alpha - b.alpha).abs().max((a.power_w - b.power_w).abs())).fold(0.0, f64::max)
    }
}

fn check_version(what: &'static str, found: u32) -> Result<(), PolicyError> {
    if found == MANIFEST_VERSION { Ok(()) } else { Err(PolicyError::Version { what, found, wanted: MANIFEST_VERSION }) }
}
