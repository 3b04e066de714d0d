//! The simulated system as several commands take it from the command line.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use mec::params::MAX_USERS;
use mec::settings::{SETTINGS, Scale};
use mec::{MecParams, ServerShare, Variant};

/// Sizes of the tasks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sizes {
    /// The chain over all sizes.
    Mixed,
    /// One size for all, in Mbit.
    Fixed(f64),
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.parse()) {
            ("mixed", _) => Ok(Self::Mixed),
            (_, Ok(mbit)) => Ok(Self::Fixed(mbit)),
            _ => Err("a size in Mbit, such as 1.5, or `mixed` is wanted".to_owned()),
        }
    }
}

/// One number of users, or all from 1 to a largest one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Users {
    /// Just so many.
    One(usize),
    /// From 1 to so many.
    UpTo(usize),
}

impl Users {
    /// Largest number that `any` stands for.
    pub const ANY: usize = 10;

    /// The numbers, in order.
    pub fn counts(self) -> RangeInclusive<usize> {
        match self {
            Self::One(users) => users..=users,
            Self::UpTo(most) => 1..=most,
        }
    }

    /// The largest of them.
    pub fn most(self) -> usize {
        *self.counts().end()
    }
}

impl FromStr for Users {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let users = match text {
            "any" => Self::UpTo(Self::ANY),
            _ => match (text.split_once('-'), text.parse()) {
                (Some(("1", most)), _) => Self::UpTo(most.parse().map_err(|_| format!("`{most}` is not a number"))?),
                (_, Ok(users)) => Self::One(users),
                _ => return Err("a number of users, a range from 1 on such as 1-10, or `any` is wanted".to_owned()),
            },
        };
        let most = users.most();
        if (1..=MAX_USERS).contains(&most) {
            Ok(users)
        } else {
            Err(format!("must be 1 to {MAX_USERS}, but is {most}"))
        }
    }
}

impl fmt::Display for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(users) => write!(f, "{users}"),
            Self::UpTo(most) => write!(f, "1-{most}"),
        }
    }
}

/// Which system to simulate.
#[derive(Clone, Debug, clap::Args)]
pub struct SystemArgs {
    /// Number of users K; or a range from 1 on, such as 1-10, for what takes any number (`any` is 1-10).
    #[arg(long, value_name = "K|1-K|any", default_value_t = Users::One(2))]
    pub users: Users,
    /// Sizes of the tasks: `mixed`, or one size in Mbit for all (1.0, 1.5, 2.0 and 2.5 are the paper's).
    #[arg(long, alias = "size", value_name = "MBIT|mixed", default_value = "mixed")]
    pub size_mbit: Sizes,
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
    /// The parameters, with the largest number of users.
    ///
    /// # Errors
    /// When a setting is unknown or out of range.
    pub fn params(&self) -> Result<MecParams> {
        let users = self.users.most();
        let mut params = MecParams { server_share: self.f_mode, ..MecParams::with_users(users) };
        params = params.with_variant(self.variant);
        if let Sizes::Fixed(size) = self.size_mbit {
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
            // Through the same door as a value that was typed, so that `--size-mbit` is checked too.
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct ParsedArgs {
        #[command(flatten)]
        system: SystemArgs,
    }

    fn params(line: &str) -> Result<MecParams> {
        ParsedArgs::try_parse_from(std::iter::once("tandem").chain(line.split_whitespace()))?.system.params()
    }

    #[test]
    fn every_system_can_be_asked_for() {
        for users in 1..=10 {
            for variant in Variant::ALL {
                for share in ServerShare::ALL {
                    let line = format!("--users {users} --variant {} --f-mode {}", variant.name(), share.name());
                    let params = params(&line).expect("a system");
                    assert_eq!((params.users, params.variant, params.server_share), (users, variant, share));
                }
            }
        }
    }

    #[test]
    fn users_are_a_number_or_a_range_from_1_on() {
        for (text, users) in
            [("3", Users::One(3)), ("1", Users::One(1)), ("1-4", Users::UpTo(4)), ("any", Users::UpTo(10))]
        {
            assert_eq!(text.parse(), Ok(users));
            assert_eq!(users.to_string().parse(), Ok(users));
        }
        for (text, reason) in
            [("0", "must be 1 to 32"), ("33", "but is 33"), ("1-0", "but is 0"), ("1-x", "`x`"), ("2-5", "a range")]
        {
            let error = text.parse::<Users>().expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn sizes_are_mixed_or_fixed_and_checked() {
        assert_eq!(params("").expect("defaults"), MecParams::DEFAULT);
        assert_eq!(params("--size-mbit mixed").expect("mixed"), MecParams::DEFAULT);
        let fixed = MecParams::DEFAULT.with_fixed_size(1.5);
        assert_eq!(params("--size-mbit 1.5").expect("fixed"), fixed);
        assert_eq!(params("--size 1.5").expect("the short name"), fixed);
        for (line, reason) in [("--size-mbit big", "mixed"), ("--size-mbit=-1", "Mbit"), ("--size-mbit 1000", "Mbit")] {
            let error = format!("{:#}", params(line).expect_err("refused"));
            assert!(error.contains(reason), "{line}: {error}");
        }
    }
}
