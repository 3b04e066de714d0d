//! The simulated system as several commands take it from the command line.

use anyhow::{Context, Result, ensure};
use client_core::mec::params::MAX_USERS;
use client_core::mec::settings::{SETTINGS, Scale};
use client_core::mec::{MecParams, ServerShare, Variant};

/// Which system to simulate.
#[derive(Clone, Debug, clap::Args)]
pub struct SystemArgs {
    /// Number of users K.
    #[arg(long, default_value_t = 2)]
    pub users: usize,
    /// All tasks of this size in Mbit instead of the mixed sizes.
    #[arg(long)]
    pub size: Option<f64>,
    /// How the server is shared: full, equal or load.
    #[arg(long, default_value = "full")]
    pub f_mode: ServerShare,
    /// What the state does between slots: paper, iid, delayed, backlog or mobile.
    #[arg(long, default_value = "paper")]
    pub variant: Variant,
    /// Any other setting, as KEY=VALUE; may be repeated. `tandem oracle --settings` lists them.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl SystemArgs {
    /// The parameters.
    ///
    /// # Errors
    /// When a setting is unknown or out of range.
    pub fn params(&self) -> Result<MecParams> {
        let users = self.users;
        ensure!((1..=MAX_USERS).contains(&users), "--users must be 1 to {MAX_USERS}, but is {users}");
        let mut params = MecParams { server_share: self.f_mode, ..MecParams::with_users(users) };
        params = params.with_variant(self.variant);
        if let Some(size) = self.size {
            params = params.with_fixed_size(size);
        }
        for pair in &self.set {
            let (key, value) = pair.split_once('=').with_context(|| format!("--set {pair}: KEY=VALUE is wanted"))?;
            ensure!(key != "users", "--set users: take --users");
            let value = value.parse().with_context(|| format!("--set {pair}: `{value}` is not a number"))?;
            params.set(key, value).with_context(|| format!("--set {pair}"))?;
        }
        for setting in SETTINGS.iter().filter(|setting| setting.key != "users") {
            let value = params.get(setting.key)?;
            // Through the same door as a value that was typed, so that `--size` is checked too.
            params.set(setting.key, value)?;
        }
        Ok(params)
    }
}

/// Prints every setting with its range, default, meaning and reason.
pub fn print_settings() {
    for s in SETTINGS {
        let scale = if s.scale == Scale::Log { ", logarithmic slider" } else { "" };
        println!("{} = {} {}  ({} to {}{scale}; URL: {})", s.key, s.default, s.unit, s.min, s.max, s.url);
        println!("    {} {}", s.help, s.reason);
    }
}
