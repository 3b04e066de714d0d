//! `tandem bench-nearness`: how near backends are to what a model file stands for; see [`bench::nearness`](crate::bench::nearness).

use std::path::PathBuf;

use anyhow::{Context, Result};
use engine::gguf::Gguf;
use engine::weights::ModelWeights;

use crate::bench::nearness::{Row, Settings, Summary, Where, measure, windows_as_json, windows_of};

/// What `tandem bench-nearness` takes.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The model, a GGUF file.
    gguf: PathBuf,
    /// Backends, and on how many positions each is compared at most: `cpu`, `vulkan=64`.
    #[arg(long = "on", value_delimiter = ',', value_name = "BACKEND[=POSITIONS]", value_parser = place,
        default_values = ["cpu", "portable", "candle"])]
    places: Vec<(Where, usize)>,
    /// Tokens of the fixed text.
    #[arg(long, default_value_t = 2000)]
    positions: usize,
    /// Conversations, of twenty.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(0..=20))]
    chats: u8,
    /// Positions on which the reference itself is held against sums in double precision.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(0..=32))]
    check: u8,
    /// Logits of another engine on the same positions: 32-bit floats of little endian, position after position.
    #[arg(long, value_name = "NAME=FILE", value_parser = other)]
    beside: Vec<(String, PathBuf)>,
    /// Write the tokens of all windows to this file as JSON, for another engine, and stop.
    #[arg(long, value_name = "FILE")]
    windows: Option<PathBuf>,
    /// Threads that compute a pass together.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

fn place(text: &str) -> Result<(Where, usize), String> {
    let (name, positions) = text.split_once('=').map_or((text, None), |(name, positions)| (name, Some(positions)));
    let place = <Where as clap::ValueEnum>::from_str(name, true)
        .map_err(|_| format!("{name:?} is no backend: cpu, portable, candle and vulkan are"))?;
    let positions = positions.map(|text| text.parse().map_err(|_| format!("{text:?} is no number of positions")));
    Ok((place, positions.transpose()?.unwrap_or(usize::MAX)))
}

fn other(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok((name.to_owned(), path.into())),
        _ => Err(format!("{text:?} is not of the form NAME=FILE")),
    }
}

/// Runs the command.
///
/// # Errors
/// The file is no model, or another engine's logits are not those of these positions.
pub fn run(args: Args) -> Result<()> {
    let bytes = std::fs::read(&args.gguf).with_context(|| format!("cannot read {}", args.gguf.display()))?;
    let gguf = Gguf::parse(&bytes).with_context(|| format!("{} is no model file", args.gguf.display()))?;
    let windows = windows_of(&gguf, args.positions, args.chats.into())?;
    let positions: usize = windows.iter().map(|window| window.tokens.len()).sum();
    if let Some(path) = &args.windows {
        std::fs::write(path, windows_as_json(&windows)).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{positions} positions of {} windows are in {}", windows.len(), path.display());
        return Ok(());
    }
    engine::cpu::set_threads(args.threads.into());
    let settings = Settings { places: args.places, others: args.beside, check: args.check.into() };
    let bar = indicatif::ProgressBar::new(positions as u64);
    let weights = ModelWeights::from_gguf(&gguf)?;
    let rows = measure(&weights, &windows, &settings, &mut |done, _| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    if args.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        print(&weights.config.name, &rows);
    }
    Ok(())
}

fn print(model: &str, rows: &[Row]) {
    println!("{model}: KL(single precision ‖ backend), nats");
    println!(
        "{:<32} {:<6} {:>9} {:>10} {:>10} {:>9} {:>11} {:>17}",
        "backend", "on", "positions", "mean", "99 %", "same top", "perplexity", "above f32, %"
    );
    for row in rows {
        for (name, of) in [("text", &row.text), ("chats", &row.chats), ("all", &row.all)] {
            let Some(Summary { positions, kl_mean, kl_p99, same_top, perplexity, .. }) = of else { continue };
            let above = of.as_ref().map_or((0.0, 0.0), |of| (of.above_percent, of.above_percent_error));
            println!(
                "{:<32} {name:<6} {positions:>9} {kl_mean:>10.6} {kl_p99:>10.6} {:>8.2}% {perplexity:>11.4} {:>+8.3} ± {:.3}",
                row.name,
                100.0 * same_top,
                above.0,
                above.1
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_and_files_are_read() {
        for (text, expected) in [
            ("cpu", Ok((Where::Cpu, usize::MAX))),
            ("Vulkan=64", Ok((Where::Vulkan, 64))),
            ("gpu", Err("\"gpu\" is no backend: cpu, portable, candle and vulkan are")),
            ("candle=x", Err("\"x\" is no number of positions")),
        ] {
            assert_eq!(place(text), expected.map_err(str::to_owned), "{text}");
        }
        assert_eq!(other("llama.cpp=/tmp/a=b"), Ok(("llama.cpp".to_owned(), "/tmp/a=b".into())));
        for text in ["", "name", "=file", "name="] {
            assert!(other(text).is_err(), "{text}");
        }
    }
}
