//! `tandem figures`: the paper's control figures from our own runs and policies.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use policy::Policy;

use crate::figures::learning::{read_runs, reward_over_episodes};
use crate::figures::sliders::{SLIDERS, over_slider};
use crate::figures::systems::{self, Judging, Shipped};

/// What `tandem figures` takes.
///
/// Writes each figure as NAME.svg (a chart for light and dark backgrounds) and NAME.json (the numbers of the chart, and
/// the scores that they are from):
///   fig9a   mean latency over K = 2 to 5, mixed sizes
///   fig9b   mean reward over task sizes of 1.0 to 2.5 Mbit, K = 2
///   fig10   accuracy and hallucination rate, dynamic policies against static ones, K = 2
///   fig8    reward while exploring over episodes: every algorithm found under --runs, mean and 95 % interval over its
///           seeds; fig8-eval the same of the mean action; fig8-VARIANT-kK for runs on other systems than the paper's
///   worlds-KEY  share of the optimum over the range of the slider KEY, K = 3: the policy of --sliders, the closed form,
///           the best constant actions found for each place of the slider
/// Figures 9 and 10 judge the policies of --policies beside the optimum, the closed form, the best constant actions,
/// always local, always offload and random, on the same fresh slots.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Folder to write into.
    #[arg(long, value_name = "DIR", default_value = "public/reports")]
    out: PathBuf,
    /// Folder of the policies that ship, with their manifest.json.
    #[arg(long, value_name = "DIR", default_value = "public/policies")]
    policies: PathBuf,
    /// Folder of training runs for Fig. 8; left out, Fig. 8 is not drawn.
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
    /// Name of the files for --runs; runs with other presets than the paper's are better kept apart.
    #[arg(long, default_value = "fig8")]
    name: String,
    /// Draw Fig. 8 only.
    #[arg(long, requires = "runs")]
    only_runs: bool,
    /// A policy to draw over every slider's range; nothing else is drawn then.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["runs", "only_runs"])]
    sliders: Option<PathBuf>,
    /// Slots to judge on.
    #[arg(long, default_value_t = 10_000)]
    draws: usize,
    /// Seed of the slots.
    #[arg(long, default_value_t = 20_260_101)]
    seed: u64,
}

/// Draws and writes.
///
/// # Errors
/// When policies or runs cannot be read, or the folder cannot be written.
pub fn run(args: Args) -> Result<()> {
    ensure!(args.draws > 0, "--draws must be at least 1");
    let judging = Judging { draws: args.draws, seed: args.seed };
    let mut figures = Vec::new();
    if let Some(path) = &args.sliders {
        let bytes = std::fs::read(path).with_context(|| format!("{}", path.display()))?;
        let policy = Policy::load(&bytes, &Device::flex()).with_context(|| format!("{}", path.display()))?;
        for key in SLIDERS {
            let figure = over_slider(key, &policy, judging)?;
            figure.write(&args.out)?;
            println!("{}", args.out.join(format!("{}.svg", figure.stem)).display());
        }
        return Ok(());
    }
    if let Some(dir) = &args.runs {
        figures.extend(reward_over_episodes(&args.name, &read_runs(dir)?, judging)?);
    }
    if !args.only_runs {
        let shipped = Shipped::read(&args.policies)?;
        figures.push(systems::latency_over_users(judging, &shipped)?);
        figures.push(systems::reward_over_sizes(judging, &shipped)?);
        figures.push(systems::quality(judging, &shipped)?);
    }
    for figure in figures {
        figure.write(&args.out)?;
        println!("{}", args.out.join(format!("{}.svg", figure.stem)).display());
    }
    Ok(())
}
