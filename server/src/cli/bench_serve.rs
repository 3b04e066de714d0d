//! `tandem bench-serve`: what the server does under load, measured from outside; see [`bench::clients`](crate::bench::clients)
//! and [`bench::serve`](crate::bench::serve).
//!
//! Clients that ask at the same time come first, then the other loads. With `--url` another server is measured, ours or not,
//! by clients that ask.

use std::time::Duration;

use anyhow::Context as _;

use crate::bench::clients::{self, Answers, Asking};
use crate::bench::serve::{self, Loads, Seen, Server};

/// What `tandem bench-serve` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Clients that ask at the same time.
    #[command(flatten)]
    pub asking: ClientArgs,
    /// Measure clients that ask, and nothing else.
    #[arg(long)]
    pub clients_only: bool,
    /// What the server that is started for it takes besides, behind `--`: a model, slots, threads.
    #[arg(last = true, conflicts_with = "url", value_name = "OPTIONS OF SERVE")]
    pub serve: Vec<String>,
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

/// What is asked, and by how many.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Clients that ask")]
pub struct ClientArgs {
    /// Measure the server at this address instead of one that is started for it: any that speaks OpenAI's API. Only clients
    /// that ask are measured then.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Bearer token for that server.
    #[arg(long, env = "TANDEM_BENCH_KEY", value_name = "TOKEN", hide_env_values = true, requires = "url")]
    pub api_key: Option<String>,
    /// Model to ask for. [default: none is named]
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Clients that ask at the same time, one number after the other.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', default_values_t = [1, 4, 16, 64],
        value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub clients: Vec<u16>,
    /// Questions that each client asks, one after the other.
    #[arg(long, value_name = "NUMBER", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub questions: u16,
    /// Words of a question; each is asked once.
    #[arg(long, value_name = "NUMBER", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..))]
    pub question_words: u16,
    /// Words of a system prompt that all questions have in common.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub system_words: u16,
    /// Longest answer, tokens.
    #[arg(long, value_name = "TOKENS", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub max_tokens: u16,
    /// Ask for answers of exactly that length, where the server knows the field (llama.cpp, vLLM, tandem).
    #[arg(long)]
    pub ignore_eos: bool,
    /// Seed of the questions.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// Longest time for a number of clients, seconds; what is not asked by then is not asked.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub longest: u64,
}

impl ClientArgs {
    fn asking(self) -> Asking {
        let Self {
            url: _,
            api_key,
            model,
            clients,
            questions,
            question_words,
            system_words,
            max_tokens,
            ignore_eos,
            seed,
            longest,
        } = self;
        let longest = Duration::from_secs(longest);
        Asking {
            api_key,
            model,
            clients,
            questions,
            question_words,
            system_words,
            max_tokens,
            ignore_eos,
            seed,
            longest,
        }
    }
}

/// Runs the benchmark.
///
/// # Errors
/// When no server can be started, or a server does not answer or does not take what it is asked to.
pub fn run(args: Args) -> anyhow::Result<()> {
    rlimit::increase_nofile_limit(16_384).context("the limit of open files")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(args))
}

async fn measure(args: Args) -> anyhow::Result<()> {
    let Args { asking, clients_only, serve, idle, askers, followers, runs } = args;
    let url = asking.url.clone();
    let asking = asking.asking();
    if let Some(url) = url {
        return by_clients(&url, &asking).await;
    }
    let server = Server::start(&serve)?;
    by_clients(server.url(), &asking).await?;
    if clients_only {
        return Ok(());
    }
    println!();
    println!("{:<52} {:>9} {:>9} {:>9} {:>7} {:>9}", "load", "p50 ms", "p99 ms", "max ms", "failed", "peak MB");
    let mut show = |load: &str, seen: &Seen, more: Option<String>| {
        let [p50, p99, most] = [0.5, 0.99, 1.0].map(|share| seen.quantile_ms(share));
        println!("{load:<52} {p50:>9.1} {p99:>9.1} {most:>9.1} {:>7} {:>9.0}", seen.failed, seen.most_mb);
        if let Some(more) = more {
            println!("    {more}");
        }
    };
    Ok(serve::measure(&server, &Loads { idle, askers, followers, runs }, &mut show).await?)
}

/// Measures the server at this address by clients that ask, and prints a line for each number of them.
async fn by_clients(url: &str, asking: &Asking) -> anyhow::Result<()> {
    println!(
        "{:>7} {:>7} {:>7} {:>6} {:>9} {:>10} {:>18} {:>18}",
        "clients", "answers", "refused", "failed", "tokens/s", "prompt t/s", "TTFT ms p50 / p95", "TPOT ms p50 / p95"
    );
    let mut show = |clients: u16, all: &Answers| {
        println!(
            "{clients:>7} {:>7} {:>7} {:>6} {:>9.1} {:>10.1} {:>18} {:>18}",
            all.count(),
            all.refused,
            all.failed,
            all.tokens_per_s(),
            all.prompt_tokens_per_s(),
            format!("{:.1} / {:.1}", all.ttft_ms(0.5), all.ttft_ms(0.95)),
            format!("{:.1} / {:.1}", all.tpot_ms(0.5), all.tpot_ms(0.95)),
        );
        if let Some(problem) = &all.first_problem {
            println!("        the first that failed: {problem}");
        }
    };
    Ok(clients::measure(url, asking, &mut show).await?)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Alone {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn the_server_that_is_started_takes_options_and_another_none() {
        let read = |words: &[&str]| Alone::try_parse_from([&["bench"], words].concat()).map(|alone| alone.args);
        let own = read(&["--clients-only", "--longest", "20", "--", "--slots", "3"]).unwrap();
        assert_eq!(own.serve, ["--slots", "3"]);
        let asking = own.asking.asking();
        assert_eq!((asking.clients, asking.longest), (vec![1, 4, 16, 64], Duration::from_secs(20)));
        assert_eq!(read(&["--clients", "2,8", "--url", "http://a"]).unwrap().asking.clients, [2, 8]);
        for wrong in [&["--url", "http://a", "--", "--slots", "3"][..], &["--api-key", "k"], &["--clients", "0"]] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}
