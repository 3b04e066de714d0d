//! `tandem bench-serve`: what the server does under load; see [`bench::serve`](crate::bench::serve).

use anyhow::Context as _;

use crate::bench::serve::{Loads, Seen, measure};

/// What `tandem bench-serve` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Idle connections.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(0..=4000))]
    pub idle: u16,
    /// Those who ask at once.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub askers: u16,
    /// Followers of a training run.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub followers: u16,
    /// Training runs in the list that is polled.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub runs: u16,
}

/// Runs the benchmark.
///
/// # Errors
/// When no server can be started, or it does not take what it is asked to.
pub fn run(args: Args) -> anyhow::Result<()> {
    rlimit::increase_nofile_limit(16_384).context("the limit of open files")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let Args { idle, askers, followers, runs } = args;
    println!("{:<52} {:>9} {:>9} {:>9} {:>7} {:>9}", "load", "p50 ms", "p99 ms", "max ms", "failed", "peak MB");
    let mut show = |load: &str, seen: &Seen, more: Option<String>| {
        let [p50, p99, most] = [0.5, 0.99, 1.0].map(|share| seen.quantile_ms(share));
        println!("{load:<52} {p50:>9.1} {p99:>9.1} {most:>9.1} {:>7} {:>9.0}", seen.failed, seen.most_mb);
        if let Some(more) = more {
            println!("    {more}");
        }
    };
    Ok(runtime.block_on(measure(&Loads { idle, askers, followers, runs }, &mut show))?)
}
