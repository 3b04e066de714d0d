//! `tandem decide`: α and p of slots given as JSON lines, to judge our policies with another simulator.

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use mec::oracle::{self, OracleEffort, powers_from_offsets};
use mec::params::MAX_USERS;
use mec::{QosKnowledge, Quality, StaticPolicy, UserDecision, UserObservation, UserOutcome, UserSlot, evaluate};
use policy::Policy;
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

use super::slot_line::{Slot, answer_lines, check_alpha, check_column, check_power};

/// What `tandem decide` takes.
///
/// Reads one JSON object a line from standard input, the form of `tandem mec-slot` without `alpha` and `p`: `K` (number
/// of users), `f_mode` (full, equal or load), `params` (settings by name), `backlog_s` (time that the server still
/// needs for earlier slots; 0 if left out), and for each user `xy` (position in m, the server at the origin), `hbar_re`
/// and `hbar_im` (scattered fading), `X` (bits), and
///   u     difficulty of the slot, seen by the optimum and by closed-form-exact-qos alone; 0 (mean quality) if left out
///   last  the last slot, seen by trained policies: an object of `alpha`, `p` (W), `acc`, `hal`, `latency` (s), one
///         number a user each, under the names that `tandem mec-slot` answers with. Left out: `alpha` 0.5; `p` equal
///         received power as loud as P_max allows; `acc`, `hal`, `latency` what those two give in this slot at `u` 0.
/// Writes one JSON object a line with `alpha` and `p`, one number a user each. A trained policy answers with its mean
/// action. Stops at the first line that it cannot use, and names it.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Who decides: a policy file (one for any number of users takes lines of any `K` in its range), or `oracle` (the
    /// slot's optimum by full knowledge), `closed-form`, `closed-form-exact-qos`, `always-local`, `always-offload`,
    /// `random`.
    #[arg(long, value_name = "FILE|NAME")]
    policy: String,
    /// Seed of `random`.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the whole line back with `alpha` and `p` put in, ready for `tandem mec-slot`.
    #[arg(long)]
    merge: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Columns {
    u: Option<Vec<f64>>,
    last: LastSlot,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LastSlot {
    alpha: Option<Vec<f64>>,
    p: Option<Vec<f64>>,
    acc: Option<Vec<f64>>,
    hal: Option<Vec<f64>>,
    latency: Option<Vec<f64>>,
}

#[derive(Serialize)]
struct Output {
    alpha: Vec<f64>,
    p: Vec<f64>,
}

enum Decider {
    Oracle,
    Static(StaticPolicy, Xoshiro256PlusPlus),
    Learned(Box<Policy>),
}

impl Decider {
    fn new(name: &str, seed: u64) -> Result<Self> {
        if name == "oracle" {
            return Ok(Self::Oracle);
        }
        let exact = StaticPolicy::ClosedForm(QosKnowledge::Exact);
        let found = StaticPolicy::ALL.into_iter().chain([exact]).find(|policy| policy.name() == name);
        if let Some(policy) = found {
            return Ok(Self::Static(policy, Xoshiro256PlusPlus::seed_from_u64(seed)));
        }
        let bytes = std::fs::read(name).with_context(|| {
            format!("--policy {name}: neither a policy's name (oracle, closed-form, always-local, ...) nor a file")
        })?;
        let policy = Policy::load(&bytes, &Device::flex()).with_context(|| format!("--policy {name}"))?;
        Ok(Self::Learned(Box::new(policy)))
    }

    fn decide(&mut self, slot: &Slot<Columns>) -> Result<Vec<UserDecision>> {
        let (physics, users) = (&slot.physics, &slot.users);
        match self {
            Self::Oracle => Ok(oracle::optimum(physics, users, slot.backlog_s, OracleEffort::Usual).decisions),
            Self::Static(policy, rng) => {
                let mut out = vec![UserDecision::default(); users.len()];
                policy.decide(physics, users, rng, &mut out);
                Ok(out)
            }
            Self::Learned(policy) => {
                let seen = observation(slot)?;
                Ok(futures::executor::block_on(policy.decide(physics, &seen))?)
            }
        }
    }
}

/// What a policy sees of a slot: this one's size and gain, and the last one with its defaults.
fn observation(slot: &Slot<Columns>) -> Result<Vec<UserObservation>> {
    let (physics, users, last) = (&slot.physics, &slot.users, &slot.columns.last);
    let count = users.len();
    let mut equal_w = [0.0; MAX_USERS];
    powers_from_offsets(physics, users.iter().map(|u| u.gain), &[0.0; MAX_USERS][..count], &mut equal_w[..count]);
    let alpha = last.alpha.clone().unwrap_or_else(|| vec![0.5; count]);
    let power_w = last.p.clone().unwrap_or_else(|| equal_w[..count].to_vec());
    check_alpha("last.alpha", &alpha, count)?;
    check_power("last.p", &power_w, count, physics.p_max_w)?;
    let decisions =
        alpha.iter().zip(&power_w).map(|(alpha, power_w)| UserDecision { alpha: *alpha, power_w: *power_w });
    let decisions: Vec<UserDecision> = decisions.collect();
    // The default must not tell a policy this slot's difficulty, which is hidden from it.
    let quality = Quality::at_difficulty(&physics.params, 0.0);
    let usual: Vec<UserSlot> = users.iter().map(|user| UserSlot { quality, ..*user }).collect();
    let mut outcomes = vec![UserOutcome::default(); count];
    evaluate(physics, &usual, slot.backlog_s, &decisions, &mut outcomes);
    for (name, column) in [("last.acc", &last.acc), ("last.hal", &last.hal), ("last.latency", &last.latency)] {
        if let Some(column) = column {
            check_column(name, column, count)?;
        }
    }
    let given = |column: &Option<Vec<f64>>, k: usize, usual: f64| column.as_ref().map_or(usual, |column| column[k]);
    let users = users.iter().enumerate().map(|(k, user)| UserObservation {
        alpha: alpha[k],
        power_w: power_w[k],
        accuracy: given(&last.acc, k, outcomes[k].accuracy),
        hallucination: given(&last.hal, k, outcomes[k].hallucination),
        latency_s: given(&last.latency, k, outcomes[k].latency_s),
        size_bits: user.size_bits,
        gain: user.gain,
    });
    Ok(users.collect())
}

/// Answers line by line until the end of input.
///
/// # Errors
/// When the policy cannot be read, or at the first line that is no slot; the message says which line and why.
pub fn run(args: Args) -> Result<()> {
    let mut decider = Decider::new(&args.policy, args.seed)?;
    answer_lines(|line| answer(&mut decider, line, args.merge))
}

fn answer(decider: &mut Decider, line: &str, merge: bool) -> Result<String> {
    let mut slot: Slot<Columns> = Slot::parse(line)?;
    if let Some(difficulty) = slot.columns.u.take() {
        slot.set_difficulty(&difficulty)?;
    }
    let decisions = decider.decide(&slot)?;
    let output =
        Output { alpha: decisions.iter().map(|d| d.alpha).collect(), p: decisions.iter().map(|d| d.power_w).collect() };
    if !merge {
        return Ok(serde_json::to_string(&output)?);
    }
    let mut whole: serde_json::Value = serde_json::from_str(line)?;
    let inputs = if whole.get("inputs").is_some() { &mut whole["inputs"] } else { &mut whole };
    ensure!(inputs.is_object(), "the inputs are no JSON object");
    inputs["alpha"] = serde_json::to_value(&output.alpha)?;
    inputs["p"] = serde_json::to_value(&output.p)?;
    Ok(whole.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::untrained;

    const SLOT: &str = r#""xy":[[3,4],[-8,2]],"hbar_re":[0.1,-0.3],"hbar_im":[0,0.2],"X":[1e6,2e6]"#;

    fn decide(name: &str, rest: &str) -> Result<serde_json::Value> {
        let line = format!("{{{SLOT}{rest}}}");
        Ok(serde_json::from_str(&answer(&mut Decider::new(name, 1)?, &line, false)?)?)
    }

    /// The file of a policy for one number of users.
    fn untrained_policy(users: usize) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("file");
        std::fs::write(file.path(), untrained::policy(users)).expect("written");
        file
    }

    #[test]
    fn difficulty_is_for_those_who_may_see_it() {
        for (name, sees) in [("oracle", true), ("closed-form-exact-qos", true), ("closed-form", false)] {
            let usual = decide(name, "").expect(name);
            assert_eq!(usual, decide(name, r#","u":[0,0]"#).expect(name), "{name}: 0 is the default");
            assert_eq!(usual != decide(name, r#","u":[2.5,2]"#).expect(name), sees, "{name}");
        }
    }

    #[test]
    fn a_policy_sees_the_last_slot_or_its_documented_default() {
        let file = untrained_policy(2);
        let policy = &*file.path().to_string_lossy();
        let usual = decide(policy, "").expect("a policy");
        let told = decide(policy, r#","last":{"alpha":[0.5,0.5]},"u":[3,3]"#).expect("told the default");
        assert_eq!(usual, told);
        let other = decide(policy, r#","last":{"acc":[0.5,0.7],"hal":[0.9,0.6]}"#).expect("told another");
        assert_ne!(usual, other);
    }

    #[test]
    fn one_policy_decides_lines_of_any_number_of_users() {
        let policy = concat!(env!("CARGO_MANIFEST_DIR"), "/../public/policies/set.safetensors");
        let mut decider = Decider::new(policy, 1).expect("the shipped policy");
        let mut decide = |users: usize| {
            let column = |value: &str| vec![value; users].join(",");
            let (xy, half, bits) = (column("[3,4]"), column("0.5"), column("1e6"));
            let line = format!(r#"{{"xy":[{xy}],"hbar_re":[{half}],"hbar_im":[{half}],"X":[{bits}]}}"#);
            Ok::<Value, anyhow::Error>(serde_json::from_str(&answer(&mut decider, &line, false)?)?)
        };
        for users in [1, 10, 4, 5, 32] {
            let answer = decide(users).expect("decided");
            assert!(["alpha", "p"].iter().all(|key| answer[key].as_array().is_some_and(|all| all.len() == users)));
        }
        let error = format!("{:#}", decide(33).expect_err("too many"));
        assert!(error.contains("1 to 32, but is 33"), "{error}");
    }

    #[test]
    fn what_cannot_be_decided_is_refused_with_the_reason() {
        let [two, three] = [2, 3].map(untrained_policy);
        let [two, three] = [&two, &three].map(|file| file.path().to_string_lossy().into_owned());
        let cases = [
            ("oracle", r#","u":[0]"#, "u has 1 entries for 2 users"),
            ("oracle", r#","last":{"power":[1,1]}"#, "unknown field `power`"),
            (&*three, "", "3 users, but there are 2"),
            ("no-such-file", "", "no-such-file"),
        ];
        for (name, rest, reason) in cases {
            let error = format!("{:#}", decide(name, rest).expect_err(reason));
            assert!(error.contains(reason), "{error}");
        }
        let error = format!("{:#}", decide(&two, r#","last":{"p":[9,1]}"#).expect_err("too loud"));
        assert!(error.contains("last.p[0] is 9 W"), "{error}");
    }
}
