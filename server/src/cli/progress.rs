//! What long commands share: Ctrl-C as a flag, and a training of a language model with its progress bar.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::tensor::Device;
use indicatif::{ProgressBar, ProgressStyle};
use lm::batch::Words;
use lm::corpus::Corpus;
use lm::probe::Probe;
use lm::run_folder::{Cadence, News, RunFolder};
use lm::train::Trainer;

/// The flag that the first Ctrl-C raises, saying what happens then; the second one ends the process.
///
/// # Errors
/// The signal cannot be waited for.
pub fn stop_on_ctrl_c(what: &'static str) -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("ctrl-c".to_owned()).spawn(move || {
        runtime.block_on(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                eprintln!("\n{what}");
                flag.store(true, Ordering::Relaxed);
            }
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(130);
            }
        });
    })?;
    Ok(stop)
}

/// What a training came to.
#[derive(Debug, Clone, Copy)]
pub struct Trained {
    /// Whether it came to its last step.
    pub finished: bool,
    /// Tokens that went through the model, those that only fill rows not counted.
    pub tokens: usize,
    /// What that took, seconds.
    pub seconds: f64,
}

impl Trained {
    /// Tokens a second.
    pub fn rate(&self) -> f64 {
        self.tokens as f64 / self.seconds.max(1e-9)
    }
}

/// The bar of a training of so many steps.
///
/// # Errors
/// Never, but for a mistake in its template.
pub fn training_bar(steps: usize) -> anyhow::Result<ProgressBar> {
    let bar = ProgressBar::new(steps as u64);
    bar.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} {elapsed} eta {eta} {msg}")?);
    Ok(bar)
}

/// Trains to the last step, or until `stop` is raised, which leaves a checkpoint.
///
/// # Errors
/// When a file cannot be written or a step fails.
pub fn train(
    folder: &RunFolder,
    trainer: Trainer<'_>,
    probe: &Probe,
    cadence: Cadence,
    device: &Device,
    (bar, stop): (&ProgressBar, &AtomicBool),
) -> anyhow::Result<Trained> {
    bar.set_position(trainer.position.step as u64);
    if trainer.position.step > 0 {
        bar.suspend(|| eprintln!("resuming at step {}", trainer.position.step));
    }
    bar.reset_eta();
    let (start, mut tokens) = (Instant::now(), 0);
    let finished = folder.train(trainer, probe, cadence, device, stop, |news| match news {
        News::Step(report) => {
            tokens += report.tokens;
            let rate = tokens as f64 / start.elapsed().as_secs_f64();
            bar.set_position(report.step as u64);
            bar.set_message(format!("loss {:.3} {rate:.0} tok/s", report.loss));
        }
        News::Probe(step, exact) => bar.suspend(|| {
            eprintln!(
                "step {step}; exact answers: seen wordings {:.3}, held-out wordings {:.3}, held-out pairs {:.3}",
                exact.seen, exact.single_hop, exact.two_hop
            );
        }),
    })?;
    if finished {
        bar.finish();
    } else {
        bar.abandon_with_message("stopped; the same command goes on from here");
    }
    Ok(Trained { finished, tokens, seconds: start.elapsed().as_secs_f64() })
}

/// The probe, the bar and Ctrl-C of a training, and the training.
///
/// # Errors
/// As [`train`].
pub fn train_from_scratch(
    folder: &RunFolder,
    trainer: Trainer<'_>,
    corpus: &Corpus,
    words: &dyn Words,
    cadence: Cadence,
    device: &Device,
) -> anyhow::Result<()> {
    let probe = Probe::new(corpus, words, 400, 7)?;
    let stop = stop_on_ctrl_c("stopping after this step; a checkpoint is written")?;
    let bar = training_bar(trainer.config.steps)?;
    let trained = train(folder, trainer, &probe, cadence, device, (&bar, &stop))?;
    eprintln!("{} tokens in {:.0} s: {:.0} tokens/s", trained.tokens, trained.seconds, trained.rate());
    Ok(())
}
