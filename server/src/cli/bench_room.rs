//! `tandem bench-room`: a live room measured from outside; see [`bench::room`](crate::bench::room).

use std::time::Duration;

use anyhow::Context as _;

use crate::bench::clients::quantile;
use crate::bench::room::{self, Hall, Place};
use crate::bench::room_report::Report;
use crate::bench::serve::Server;

/// What `tandem bench-room` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Phones that join at once, all from this machine's address.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=4000))]
    pub phones: u16,
    /// Rooms that they are spread over; a room holds 500.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub rooms: u16,
    /// How long they stay, seconds.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..=3600))]
    pub seconds: u64,
    /// Time from one slot to the next, seconds.
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS")]
    pub period: f64,
    /// Share of the phones that is cut off, and comes back, in every interval.
    #[arg(long, default_value_t = 0.2, value_name = "SHARE", value_parser = share)]
    pub cut: f64,
    /// That interval, seconds.
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    pub cut_every: u64,
    /// Kill the server after so many seconds, as a power cut would, and start it again.
    #[arg(long, value_name = "SECONDS", conflicts_with = "url")]
    pub kill_after: Option<u64>,
    /// Seed of the room and of the cuts.
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    pub seed: u64,
    /// Measure the server at this address (http://…) instead of one that is started for it.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// What the server that is started for it takes besides, behind `--`.
    #[arg(last = true, conflicts_with = "url", value_name = "OPTIONS OF SERVE")]
    pub serve: Vec<String>,
}

fn share(text: &str) -> Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| "it has to be a number".to_owned())?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("it has to be between 0 and 1".to_owned()) }
}

/// Runs the benchmark.
///
/// # Errors
/// When no server can be started, or it gives no room.
pub fn run(args: Args) -> anyhow::Result<()> {
    rlimit::increase_nofile_limit(16_384).context("the limit of open files")?;
    crate::tls::install_provider();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut place = match &args.url {
        Some(url) => Place::Url(url.clone()),
        None => Place::Own(Server::start(&args.serve)?),
    };
    let hall = Hall {
        phones: args.phones,
        rooms: args.rooms,
        time: Duration::from_secs(args.seconds),
        period_s: args.period,
        cut: args.cut,
        cut_every: Duration::from_secs(args.cut_every),
        kill_after: args.kill_after.map(Duration::from_secs),
        seed: args.seed,
    };
    let report = runtime.block_on(room::meet(&mut place, &hall))?;
    print!("{}", told(&args, &report));
    Ok(())
}

fn told(args: &Args, report: &Report) -> String {
    let row = |what: &str, value: String| format!("{what:<44} {value}\n");
    let spread = |values: &[f64]| {
        let [p50, p95, most] = [0.5, 0.95, 1.0].map(|share| quantile(values, share));
        format!("p50 {p50:.1} ms, p95 {p95:.1} ms, longest {most:.1} ms")
    };
    let (joins, arrivals, late_ms) = (report.joins_ms(), report.arrivals_ms(), report.late_ms());
    let refused: Vec<String> = report.refusals().iter().map(|(why, count)| format!("{count}: {why}")).collect();
    let back: Vec<f64> = report.phones.iter().flat_map(|phone| &phone.back_ms).copied().collect();
    let mut text = String::new();
    let hall = format!("{}, {}, {} s, {} s", args.phones, args.rooms, args.seconds, report.period_s);
    text += &row("phones, rooms, seconds, period", hall);
    text +=
        &row("joined (at once, from one address)", format!("{} of {}: {}", joins.len(), args.phones, spread(&joins)));
    text += &row("refused", if refused.is_empty() { "0".to_owned() } else { refused.join("; ") });
    text += &row(
        "slots, most devices in one",
        format!("{}, {}", late_ms.len(), report.presenters.iter().map(|seen| seen.most_active).max().unwrap_or(0)),
    );
    text += &row("slots late, by the server's clock", spread(&late_ms));
    text += &row("decisions late, as they arrived", spread(&arrivals));
    text += &row("decisions, lost", format!("{}, {}", arrivals.len(), report.sum(|phone| phone.lost)));
    let (cuts, returns) = (report.sum(|p| p.cuts.into()), report.sum(|p| p.returns.into()));
    let strangers = report.sum(|phone| phone.strangers.into());
    text += &row("cut off, back as themselves, strangers", format!("{cuts}, {returns}, {strangers}"));
    if !back.is_empty() {
        text += &row("from the wish to come back to the welcome", spread(&back));
    }
    let per_phone_kb = 1e3 * (report.most_mb - report.before_mb) / f64::from(args.phones);
    if per_phone_kb.is_finite() {
        let memory =
            format!("{:.0} MB before, {:.0} MB at most: {per_phone_kb:.0} kB", report.before_mb, report.most_mb);
        text += &row("memory of the server, a phone", memory);
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::bench::room_report::PhoneSeen;

    #[derive(Debug, clap::Parser)]
    struct Alone {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn the_report_tells_what_was_seen() {
        let args = Alone::try_parse_from(["bench", "--phones", "2"]).unwrap().args;
        let phone =
            PhoneSeen { joined_ms: Some(30.0), lost: 3, cuts: 2, returns: 1, strangers: 1, ..PhoneSeen::default() };
        let refused = PhoneSeen { refused: vec!["Full".to_owned()], ..PhoneSeen::default() };
        let report = Report { phones: vec![phone, refused], before_mb: 10.0, most_mb: 12.0, ..Report::default() };
        let text = told(&args, &report);
        for line in ["1 of 2", "1: Full", "0, 3\n", "2, 1, 1\n", "1000 kB"] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert!(Alone::try_parse_from(["bench", "--cut", "1.5"]).is_err());
    }
}
