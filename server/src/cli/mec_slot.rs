//! `tandem mec-slot`: the physics of slots given as JSON lines, to check the simulator against another one.

use anyhow::Result;
use mec::{UserDecision, UserOutcome, evaluate};
use serde::{Deserialize, Serialize};

use super::slot_line::{Slot, answer_lines, check_alpha, check_power};

/// What `tandem mec-slot` takes.
///
/// Reads one JSON object a line from standard input: `K` (number of users), `f_mode` (full, equal or load), and for
/// each user `xy` (position in m, the server at the origin), `hbar_re` and `hbar_im` (scattered fading), `X` (bits),
/// `alpha`, `p` (W), `u` (difficulty); `params` may hold settings by name, `backlog_s` the time that the server still
/// needs for earlier slots (0 if left out). Writes one JSON object a line with
/// everything of eq. 14-22, 28, 29, 47 and 48. Stops at the first line that it cannot use, and names it.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {}

#[derive(Default, Deserialize)]
struct Columns {
    alpha: Vec<f64>,
    p: Vec<f64>,
    u: Vec<f64>,
}

#[derive(Default, Serialize)]
struct Output {
    distance: Vec<f64>,
    gain: Vec<f64>,
    a_loc: Vec<f64>,
    h_loc: Vec<f64>,
    a_mec: Vec<f64>,
    h_mec: Vec<f64>,
    rate: Vec<f64>,
    l_local: Vec<f64>,
    l_off: Vec<f64>,
    l_mec: Vec<f64>,
    latency: Vec<f64>,
    e_local: Vec<f64>,
    e_off: Vec<f64>,
    acc: Vec<f64>,
    hal: Vec<f64>,
    viol_acc: f64,
    viol_hal: f64,
    viol_energy: f64,
    #[serde(rename = "Omega")]
    penalty: f64,
    reward: f64,
    work: Vec<f64>,
}

/// Answers line by line until the end of input.
///
/// # Errors
/// At the first line that is no slot; the message says which line and why.
pub fn run(_: Args) -> Result<()> {
    answer_lines(answer)
}

fn answer(line: &str) -> Result<String> {
    let mut slot: Slot<Columns> = Slot::parse(line)?;
    let Columns { alpha, p, u } = std::mem::take(&mut slot.columns);
    slot.set_difficulty(&u)?;
    let users = slot.users.len();
    check_alpha("alpha", &alpha, users)?;
    check_power("p", &p, users, slot.physics.p_max_w)?;
    let mut output = Output { distance: slot.distances_m, ..Output::default() };
    for user in &slot.users {
        output.gain.push(user.gain);
        output.a_loc.push(user.quality.accuracy_local);
        output.h_loc.push(user.quality.hallucination_local);
        output.a_mec.push(user.quality.accuracy_server);
        output.h_mec.push(user.quality.hallucination_server);
    }
    let decisions = alpha.iter().zip(&p).map(|(alpha, power_w)| UserDecision { alpha: *alpha, power_w: *power_w });
    let decisions: Vec<UserDecision> = decisions.collect();
    let mut outcomes = vec![UserOutcome::default(); users];
    let totals = evaluate(&slot.physics, &slot.users, slot.backlog_s, &decisions, &mut outcomes);
    for user in &outcomes {
        output.rate.push(user.rate_bps);
        output.l_local.push(user.local_s);
        output.l_off.push(user.uplink_s);
        output.l_mec.push(user.server_s);
        output.latency.push(user.latency_s);
        output.e_local.push(user.local_j);
        output.e_off.push(user.uplink_j);
        output.acc.push(user.accuracy);
        output.hal.push(user.hallucination);
        output.work.push(user.work_cycles);
    }
    output.viol_acc = totals.violations.accuracy;
    output.viol_hal = totals.violations.hallucination;
    output.viol_energy = totals.violations.energy_j;
    output.penalty = totals.penalty;
    output.reward = totals.reward;
    Ok(serde_json::to_string(&output)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#""xy":[[3,4]],"hbar_re":[0.1],"hbar_im":[0],"X":[1e6],"alpha":[0.5],"p":[1],"u":[0]"#;

    #[test]
    fn inputs_may_be_flat_or_nested_and_settings_count() {
        let flat = answer(&format!("{{\"K\":1,{GOOD}}}")).expect("flat");
        let nested = answer(&format!("{{\"K\":1,\"f_mode\":\"full\",\"inputs\":{{{GOOD}}},\"expect\":{{}}}}"));
        assert_eq!(flat, nested.expect("nested"));
        let slower = answer(&format!("{{{GOOD},\"params\":{{\"server_hz\":1e9}}}}")).expect("settings");
        assert_ne!(flat, slower);
    }

    #[test]
    fn what_is_no_slot_is_refused_with_the_reason() {
        let cases = [
            ("[]".to_owned(), "invalid type"),
            (format!("{{\"K\":2,{GOOD}}}"), "1 entries for 2 users"),
            (format!("{{\"f_mode\":\"most\",{GOOD}}}"), "full, equal, load"),
            (format!("{{{}}}", GOOD.replace("\"alpha\":[0.5]", "\"alpha\":[1.5]")), "alpha[0]"),
            (format!("{{{}}}", GOOD.replace("\"p\":[1]", "\"p\":[3]")), "p[0]"),
            (format!("{{{}}}", GOOD.replace(",\"u\":[0]", "")), "missing field `u`"),
            (format!("{{{GOOD},\"params\":{{\"nonsense\":1}}}}"), "nonsense"),
        ];
        for (line, reason) in cases {
            let error = format!("{:#}", answer(&line).expect_err("refused"));
            assert!(error.contains(reason), "{line}: {error}");
        }
    }
}
