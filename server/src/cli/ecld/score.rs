//! `tandem ecld score`: importance scores of a model on a calibration set.

use std::path::PathBuf;

use lm::ecld::calibration::fingerprint;
use lm::ecld::file::{Archive, Teacher};
use lm::ecld::spec::Model as _;
use lm::ecld::{depth, score};

use super::{Calibration, Watch, write_json};

/// What `tandem ecld score` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model: a GGUF file, or the folder of a Hugging Face checkpoint.
    pub model: PathBuf,
    /// The JSON file to write.
    #[arg(short, long)]
    pub out: PathBuf,
    /// Leave out the rise of the loss without each block, which takes half as many passes as there are blocks.
    #[arg(long)]
    pub no_loss: bool,
    #[command(flatten)]
    calibration: Calibration,
}

/// Scores and writes.
///
/// # Errors
/// The model or the calibration set cannot be read, or the file cannot be written.
pub fn run(args: Args) -> anyhow::Result<()> {
    let archive = Archive::open(&args.model)?;
    let sequences = args.calibration.sequences(&archive)?;
    let teacher = Teacher::new(&archive, args.calibration.memory_bytes())?;
    let tokens: Vec<Vec<u32>> = sequences.iter().map(|s| s.tokens.clone()).collect();
    let count: usize = tokens.iter().map(Vec::len).sum();
    let spec = teacher.spec();
    let all: Vec<usize> = (0..spec.layers).collect();
    let judged = depth::first(&sequences, args.calibration.loss_tokens);
    let of_loss = if args.no_loss { 0 } else { depth::work(spec, judged, &[], &all) };
    let watch = Watch::work(spec.block_work(count) * spec.layers as u64 + of_loss)?;
    let mut tick = |by| watch.tick(by);
    let options = args.calibration.options();
    let scores = score::scores(&teacher, &tokens, options, &mut tick)?;
    let loss = match args.no_loss {
        true => None,
        false => Some(depth::rise(&teacher, judged, &[], &all, &mut tick)?),
    };
    watch.bar.finish_and_clear();
    let scored: usize = judged.iter().map(|s| s.targets.iter().flatten().count()).sum();
    let of_loss: usize = judged.iter().map(|s| s.tokens.len()).sum();
    write_json(
        &args.out,
        &serde_json::json!({
            "model": args.model,
            "calibration": {
                "source": args.calibration.calibration.as_ref().map_or("atlas".into(), |path| path.display().to_string()),
                "sequences": sequences.len(), "tokens": count, "loss_tokens": of_loss, "loss_scored": scored, "fnv1a64": fingerprint(&sequences),
            },
            "options": options,
            "scores": scores,
            "loss": loss,
        }),
    )?;
    eprintln!("{count} tokens; the loss on {of_loss} of them, {scored} scored");
    if let Some(loss) = &loss {
        println!("mean NLL {:.4} nats a token, perplexity {:.2}", loss.mean_nll, loss.mean_nll.exp());
    }
    println!("block  influence  rise of the loss without it");
    for (layer, influence) in scores.layer.iter().enumerate() {
        let rise = loss.as_ref().and_then(|loss| loss.rise.get(layer).copied().flatten());
        let rise = rise.map_or_else(|| "-".into(), |rise| format!("{rise:+.4}"));
        println!("{layer:5}  {influence:9.5}  {rise}");
    }
    Ok(())
}
