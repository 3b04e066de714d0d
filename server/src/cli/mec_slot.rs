//! `tandem mec-slot`: the physics of slots given as JSON lines, to check the simulator against another one.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};

use anyhow::{Context, Result, bail, ensure};
use client_core::mec::channel::{self, Position, Scatter};
use client_core::mec::params::MAX_USERS;
use client_core::mec::{MecParams, Quality, ServerShare, UserDecision, UserOutcome, UserSlot, evaluate};
use serde::{Deserialize, Serialize};

/// What `tandem mec-slot` takes.
///
/// Reads one JSON object a line from standard input: `K` (number of users), `f_mode` (full, equal or load), and for
/// each user `xy` (position in m, the server at the origin), `hbar_re` and `hbar_im` (scattered fading), `X` (bits),
/// `alpha`, `p` (W), `u` (difficulty); `params` may hold settings by name. Writes one JSON object a line with
/// everything of eq. 14-22, 28, 29, 47 and 48. Stops at the first line that it cannot use, and names it.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {}

/// A line: either the inputs themselves, or an object that holds them under `inputs`.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "K")]
    users: Option<usize>,
    #[serde(default = "full")]
    f_mode: String,
    #[serde(default)]
    params: BTreeMap<String, f64>,
    inputs: Option<Inputs>,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

fn full() -> String {
    ServerShare::Full.name().to_owned()
}

#[derive(Deserialize)]
struct Inputs {
    xy: Vec<[f64; 2]>,
    hbar_re: Vec<f64>,
    hbar_im: Vec<f64>,
    #[serde(rename = "X")]
    size_bits: Vec<f64>,
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
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for (n, line) in std::io::stdin().lock().lines().enumerate() {
        let line = line.with_context(|| format!("line {}: cannot be read", n + 1))?;
        if line.trim().is_empty() {
            continue;
        }
        match answer(&line) {
            Ok(answer) => writeln!(out, "{answer}")?,
            Err(error) => {
                // What was answered before stays answered.
                out.flush()?;
                return Err(error.context(format!("line {}", n + 1)));
            }
        }
    }
    out.flush()?;
    Ok(())
}

fn answer(line: &str) -> Result<String> {
    let Line { users, f_mode, params: settings, inputs, rest } = serde_json::from_str(line)?;
    let inputs: Inputs = match inputs {
        Some(inputs) => inputs,
        None => serde_json::from_value(serde_json::Value::Object(rest))?,
    };
    let users = users.unwrap_or(inputs.size_bits.len());
    ensure!((1..=MAX_USERS).contains(&users), "K must be 1 to {MAX_USERS}, but is {users}");
    let server_share: ServerShare = f_mode.parse().context("f_mode")?;
    let mut params = MecParams { server_share, ..MecParams::with_users(users) };
    for (key, value) in &settings {
        ensure!(key != "users", "params: the number of users is K");
        params.set(key, *value).context("params")?;
    }
    let physics = params.physics();
    let columns = [
        ("hbar_re", &inputs.hbar_re),
        ("hbar_im", &inputs.hbar_im),
        ("X", &inputs.size_bits),
        ("alpha", &inputs.alpha),
        ("p", &inputs.p),
        ("u", &inputs.u),
    ];
    ensure!(inputs.xy.len() == users, "xy has {} entries for {users} users", inputs.xy.len());
    for (name, column) in columns {
        ensure!(column.len() == users, "{name} has {} entries for {users} users", column.len());
        ensure!(column.iter().all(|v| v.is_finite()), "{name} holds a value that is not a finite number");
    }
    let mut slots = Vec::with_capacity(users);
    let mut decisions = Vec::with_capacity(users);
    let mut output = Output::default();
    for (k, [x_m, y_m]) in inputs.xy.iter().copied().enumerate() {
        let (alpha, power_w, size_bits) = (inputs.alpha[k], inputs.p[k], inputs.size_bits[k]);
        if !(0.0..=1.0).contains(&alpha) {
            bail!("alpha[{k}] is {alpha}, outside 0..=1");
        }
        if !(0.0..=physics.p_max_w * (1.0 + 1e-9)).contains(&power_w) {
            bail!("p[{k}] is {power_w} W, outside 0..={} W", physics.p_max_w);
        }
        ensure!(size_bits > 0.0, "X[{k}] is {size_bits}; a task has some bits");
        let at = Position { x_m, y_m };
        let distance_m = channel::distance_m(&physics, at);
        let gain = channel::gain(&physics, at, Scatter { re: inputs.hbar_re[k], im: inputs.hbar_im[k] });
        ensure!(gain.is_finite(), "xy[{k}] or hbar[{k}] gives no finite channel gain");
        let quality = Quality::at_difficulty(&params, inputs.u[k]);
        output.distance.push(distance_m);
        output.gain.push(gain);
        output.a_loc.push(quality.accuracy_local);
        output.h_loc.push(quality.hallucination_local);
        output.a_mec.push(quality.accuracy_server);
        output.h_mec.push(quality.hallucination_server);
        slots.push(UserSlot { gain, size_bits, quality });
        decisions.push(UserDecision { alpha, power_w });
    }
    let mut outcomes = vec![UserOutcome::default(); users];
    let totals = evaluate(&physics, &slots, 0.0, &decisions, &mut outcomes);
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
