//! The command line of `tandem`: one file a command.
//!
//! Each file holds `pub struct Args` (what the command takes, with its help) and
//! `pub fn run(args: Args) -> anyhow::Result<()>`. A new command is a new file, a line in [`Command`] and a line in
//! [`Cli::run`]. Without a command `tandem` serves.
//!
//! Deliberately absent: any logic. A command parses, calls the library module of its area and prints.

use clap::{Parser, Subcommand};

pub mod bench_engine;
pub mod bench_nearness;
pub mod bench_room;
pub mod bench_serve;
pub mod bench_tokens;
pub mod corpus;
pub mod decide;
pub mod distil;
pub mod ecld;
pub mod eval;
pub mod export_lm;
pub mod figures;
pub mod folders;
pub mod mec_slot;
pub mod models;
pub mod oracle;
mod progress;
pub mod serve;
mod slot_line;
mod system;
pub mod train;
pub mod train_lm;

/// A compact language model in the browser, a full one on the server, and a trained policy that splits the work.
#[derive(Debug, Parser)]
#[command(name = "tandem", version, about, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// `tandem --listen …` is `tandem serve --listen …`.
    #[command(flatten)]
    serve: serve::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the page, the models and the API (the default command).
    Serve(Box<serve::Args>),
    /// List, fetch, verify and remove models that people know.
    Models(models::Args),
    /// Write the Atlas corpus: articles, training and held-out questions.
    Corpus(corpus::Args),
    /// Train a language model on the Atlas corpus from scratch.
    TrainLm(train_lm::Args),
    /// Evaluate slots given as JSON lines: eq. 14-22, 28, 29, 47 and 48.
    MecSlot(mec_slot::Args),
    /// Compare the per-slot optimum, the static policies and a trained one on fresh slots.
    Oracle(oracle::Args),
    /// Decide slots given as JSON lines: a trained policy, the optimum, or the closed form.
    Decide(decide::Args),
    /// Draw the paper's control figures (8-10) with the data behind them.
    Figures(figures::Args),
    /// Train an offloading policy by reinforcement learning.
    Train(train::Args),
    /// Distil a compact student from a trained teacher.
    Distil(distil::Args),
    /// Make compact models of any checkpoint: score, prune, quantise.
    Ecld(ecld::Args),
    /// Write a training checkpoint as a GGUF file.
    ExportLm(export_lm::Args),
    /// Measure how fast the engine decodes and prefills, on the GPU through Vulkan or on the CPU.
    BenchEngine(bench_engine::Args),
    /// Measure how near backends are to what a model file stands for: KL and perplexity beside a pass in single precision.
    BenchNearness(bench_nearness::Args),
    /// Compare tokens with llama.cpp's: strings that are hard to cut, through its server's `/tokenize`.
    BenchTokens(bench_tokens::Args),
    /// Measure a server under load: clients that ask at the same time (any server with OpenAI's API), idle connections,
    /// followers, polls.
    BenchServe(bench_serve::Args),
    /// Measure a live room: a hall of scripted phones that join, get their decisions, are cut off and come back.
    BenchRoom(bench_room::Args),
    /// Measure a model file: accuracy (eq. 23) and hallucination (eq. 24).
    Eval(eval::Args),
}

impl Cli {
    /// Runs the chosen command to its end.
    ///
    /// # Errors
    /// Whatever the command could not do, in words for the person who typed it.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command.unwrap_or_else(|| Command::Serve(Box::new(self.serve))) {
            Command::Serve(args) => serve::run(*args),
            Command::Models(args) => models::run(args),
            Command::Corpus(args) => corpus::run(args),
            Command::TrainLm(args) => train_lm::run(args),
            Command::MecSlot(args) => mec_slot::run(args),
            Command::Oracle(args) => oracle::run(args),
            Command::Decide(args) => decide::run(args),
            Command::Figures(args) => figures::run(args),
            Command::Train(args) => train::run(args),
            Command::Distil(args) => distil::run(args),
            Command::Ecld(args) => ecld::run(args),
            Command::ExportLm(args) => export_lm::run(args),
            Command::BenchEngine(args) => bench_engine::run(args),
            Command::BenchNearness(args) => bench_nearness::run(args),
            Command::BenchTokens(args) => bench_tokens::run(args),
            Command::BenchRoom(args) => bench_room::run(args),
            Command::BenchServe(args) => bench_serve::run(args),
            Command::Eval(args) => eval::run(args),
        }
    }
}

/// An error and what caused it, each cause once: many errors say themselves what caused them.
#[must_use]
pub fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::chain;

    #[derive(Debug, thiserror::Error)]
    #[error("model.gguf: {source}")]
    struct Quoting {
        source: std::io::Error,
    }

    #[test]
    fn a_cause_is_told_once() {
        let denied = || std::io::Error::other("permission denied");
        assert_eq!(chain(&anyhow::Error::from(Quoting { source: denied() })), "model.gguf: permission denied");
        let error = Err::<(), _>(Quoting { source: denied() }).context("cannot load the model").unwrap_err();
        assert_eq!(chain(&error), "cannot load the model: model.gguf: permission denied");
        let error = Err::<(), _>(denied()).context("cannot load the model").unwrap_err();
        assert_eq!(chain(&error), "cannot load the model: permission denied");
    }
}
