//! Slots as JSON lines, the form that `mec-slot` and `decide` read.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};

use anyhow::{Context, Result, ensure};
use mec::channel::{self, Position, Scatter};
use mec::params::MAX_USERS;
use mec::{MecParams, Physics, Quality, ServerShare, UserSlot};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A line: either the inputs themselves, or an object that holds them under `inputs`.
#[derive(Deserialize)]
struct InputLine {
    #[serde(rename = "K")]
    users: Option<usize>,
    #[serde(default = "full")]
    f_mode: String,
    #[serde(default)]
    params: BTreeMap<String, f64>,
    #[serde(default)]
    backlog_s: f64,
    #[serde(default)]
    inputs: serde_json::Map<String, serde_json::Value>,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

fn full() -> String {
    ServerShare::Full.name().to_owned()
}

/// What every slot has.
#[derive(Deserialize)]
struct Inputs {
    xy: Vec<[f64; 2]>,
    hbar_re: Vec<f64>,
    hbar_im: Vec<f64>,
    #[serde(rename = "X")]
    size_bits: Vec<f64>,
}

/// A slot, and the command's own columns of its line.
pub struct Slot<T> {
    /// The system.
    pub physics: Physics,
    /// One entry a user, of mean quality until [`Slot::set_difficulty`].
    pub users: Vec<UserSlot>,
    /// Distance of each user to the antenna.
    pub distances_m: Vec<f64>,
    /// Time that the server still needs for earlier slots.
    pub backlog_s: f64,
    /// The further columns.
    pub columns: T,
}

impl<T: DeserializeOwned> Slot<T> {
    /// Reads a line.
    ///
    /// # Errors
    /// When it is no slot, with the reason.
    pub fn parse(line: &str) -> Result<Self> {
        let InputLine { users, f_mode, params: settings, backlog_s, inputs, mut rest } = serde_json::from_str(line)?;
        rest.extend(inputs);
        let inputs = serde_json::Value::Object(rest);
        let columns: T = serde_json::from_value(inputs.clone())?;
        let inputs: Inputs = serde_json::from_value(inputs)?;
        let count = users.unwrap_or(inputs.size_bits.len());
        ensure!((1..=MAX_USERS).contains(&count), "K must be 1 to {MAX_USERS}, but is {count}");
        ensure!(backlog_s.is_finite() && backlog_s >= 0.0, "backlog_s is {backlog_s}; it is a time in seconds");
        let server_share: ServerShare = f_mode.parse().context("f_mode")?;
        let mut params = MecParams { server_share, ..MecParams::with_users(count) };
        for (key, value) in &settings {
            ensure!(key != "users", "params: the number of users is K");
            params.set(key, *value).context("params")?;
        }
        let physics = params.physics();
        ensure!(inputs.xy.len() == count, "xy has {} entries for {count} users", inputs.xy.len());
        for (name, column) in [("hbar_re", &inputs.hbar_re), ("hbar_im", &inputs.hbar_im), ("X", &inputs.size_bits)] {
            check_column(name, column, count)?;
        }
        let (mut slots, mut distances_m) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for (k, [x_m, y_m]) in inputs.xy.into_iter().enumerate() {
            let size_bits = inputs.size_bits[k];
            ensure!(size_bits > 0.0, "X[{k}] is {size_bits}; a task has some bits");
            let at = Position { x_m, y_m };
            let gain = channel::gain(&physics, at, Scatter { re: inputs.hbar_re[k], im: inputs.hbar_im[k] });
            ensure!(gain.is_finite(), "xy[{k}] or hbar[{k}] gives no finite channel gain");
            distances_m.push(channel::distance_m(&physics, at));
            slots.push(UserSlot { gain, size_bits, quality: Quality::at_difficulty(&params, 0.0) });
        }
        Ok(Self { physics, users: slots, distances_m, backlog_s, columns })
    }

    /// Gives each user's slot the quality of its difficulty.
    ///
    /// # Errors
    /// When there is not one finite number a user.
    pub fn set_difficulty(&mut self, difficulty: &[f64]) -> Result<()> {
        check_column("u", difficulty, self.users.len())?;
        for (user, difficulty) in self.users.iter_mut().zip(difficulty) {
            user.quality = Quality::at_difficulty(&self.physics.params, *difficulty);
        }
        Ok(())
    }
}

/// Checks that a column holds one finite number a user.
///
/// # Errors
/// When it does not.
pub fn check_column(name: &str, column: &[f64], users: usize) -> Result<()> {
    ensure!(column.len() == users, "{name} has {} entries for {users} users", column.len());
    ensure!(column.iter().all(|v| v.is_finite()), "{name} holds a value that is not a finite number");
    Ok(())
}

/// Checks that a column holds an offloading ratio a user.
///
/// # Errors
/// When it does not.
pub fn check_alpha(name: &str, column: &[f64], users: usize) -> Result<()> {
    check_column(name, column, users)?;
    for (k, alpha) in column.iter().enumerate() {
        ensure!((0.0..=1.0).contains(alpha), "{name}[{k}] is {alpha}, outside 0..=1");
    }
    Ok(())
}

/// Checks that a column holds a transmit power a user.
///
/// # Errors
/// When it does not.
pub fn check_power(name: &str, column: &[f64], users: usize, p_max_w: f64) -> Result<()> {
    check_column(name, column, users)?;
    for (k, power_w) in column.iter().enumerate() {
        let allowed = (0.0..=p_max_w * (1.0 + 1e-9)).contains(power_w);
        ensure!(allowed, "{name}[{k}] is {power_w} W, outside 0..={p_max_w} W");
    }
    Ok(())
}

/// Answers standard input line by line on standard output until its end; empty lines are passed over.
///
/// # Errors
/// At the first line that cannot be answered; the message says which line and why. What was answered before stays so.
pub fn answer_lines(mut answer: impl FnMut(&str) -> Result<String>) -> Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for (n, line) in std::io::stdin().lock().lines().enumerate() {
        let line = line.with_context(|| format!("line {}: cannot be read", n + 1))?;
        if line.trim().is_empty() {
            continue;
        }
        match answer(&line) {
            Ok(answer) => writeln!(out, "{answer}")?,
            Err(error) => {
                out.flush()?;
                return Err(error.context(format!("line {}", n + 1)));
            }
        }
    }
    out.flush()?;
    Ok(())
}
