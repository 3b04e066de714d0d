//! `tandem ecld prune`: what scores least is cut out of a model.

use std::path::PathBuf;

use anyhow::Context as _;
use lm::ecld::calibration::fingerprint;
use lm::ecld::file::{Archive, Teacher};
use lm::ecld::memo::Memo;
use lm::ecld::spec::Model as _;
use lm::ecld::wishes::{Amount, DepthBy, Wishes};
use lm::ecld::{plan, prune, trial};

use super::{Calibration, Watch, report_path, write_json};

/// How blocks are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LayersBy {
    /// By the rise of the loss without them, measured again after every one that goes.
    Loss,
    /// By block influence (1 - cosine of what goes in and what comes out): cheap.
    Influence,
}

/// What `tandem ecld prune` takes.
///
/// Ratios are shares that go: `--neurons 0.3` leaves 70 % of the FFN neurons of every block. Thresholds (`--…-theta`) are in
/// units of the axis' mean score. Sizes are equal over the blocks, since files hold one number. The report is written beside
/// the output.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("what").multiple(true).required(true)))]
pub struct Args {
    /// The model: a GGUF file, or the folder of a Hugging Face checkpoint.
    pub model: PathBuf,
    /// What to write: a GGUF file of one, a folder of a folder.
    #[arg(short, long)]
    pub out: PathBuf,
    /// Share of the blocks that goes.
    #[arg(long, group = "what", value_name = "RATIO", conflicts_with = "layers_theta")]
    pub layers: Option<f64>,
    /// Blocks go that score less than this many times the mean.
    #[arg(long, group = "what", value_name = "THETA")]
    pub layers_theta: Option<f64>,
    /// Blocks to drop by their number (from 0).
    #[arg(long, group = "what", value_name = "N,N…", value_delimiter = ',')]
    pub drop_layers: Vec<usize>,
    /// Share of the FFN neurons that goes.
    #[arg(long, group = "what", value_name = "RATIO", conflicts_with = "neurons_theta")]
    pub neurons: Option<f64>,
    /// Neurons go that score less than this many times the mean.
    #[arg(long, group = "what", value_name = "THETA")]
    pub neurons_theta: Option<f64>,
    /// Share of the KV groups that goes, with their query heads.
    #[arg(long, group = "what", value_name = "RATIO", conflicts_with = "groups_theta")]
    pub groups: Option<f64>,
    /// KV groups go that score less than this many times the mean.
    #[arg(long, group = "what", value_name = "THETA")]
    pub groups_theta: Option<f64>,
    /// Share of the channels of the residual stream (the embedding's width) that goes.
    #[arg(long, group = "what", value_name = "RATIO", conflicts_with = "channels_theta")]
    pub channels: Option<f64>,
    /// Channels go that score less than this many times the mean.
    #[arg(long, group = "what", value_name = "THETA")]
    pub channels_theta: Option<f64>,
    /// Share of all parameters that goes, in blocks and neurons.
    #[arg(long, group = "what", value_name = "RATIO", conflicts_with_all = ["target_bytes", "layers", "neurons"])]
    pub target_ratio: Option<f64>,
    /// Bytes of tensors that stay, in the source's types.
    #[arg(long, group = "what", value_name = "BYTES", conflicts_with_all = ["layers", "neurons"])]
    pub target_bytes: Option<u64>,
    /// Share of the target that goes in blocks, the rest in neurons. Both ends are bad: try several.
    #[arg(long, default_value_t = 1.0 / 3.0)]
    pub depth_share: f64,
    /// Try five values of --depth-share (those that make different cuts) and take the one whose loss is lowest, unhealed: the report has them all.
    #[arg(long, conflicts_with = "depth_share")]
    pub search: bool,
    /// How blocks are chosen.
    #[arg(long, value_enum, default_value = "loss")]
    pub layers_by: LayersBy,
    /// Blocks that never go; by default the first two and the last, of fewer than eight the first and the last.
    #[arg(long, value_name = "N,N…", value_delimiter = ',')]
    pub protect: Option<Vec<usize>>,
    /// Neurons and channels are left in multiples of this: 32 for Q4_0 and Q8_0, 256 for K types.
    #[arg(long, default_value_t = 32)]
    pub align: usize,
    /// Leave norms as they are when channels go, instead of making up for the smaller width.
    #[arg(long)]
    pub keep_norms: bool,
    #[command(flatten)]
    calibration: Calibration,
}

impl Args {
    fn wishes(&self, archive: &Archive) -> Wishes {
        let amount = |ratio: Option<f64>, theta: Option<f64>| ratio.map(Amount::Ratio).or(theta.map(Amount::Threshold));
        let bytes = archive.tensor_bytes().max(1) as f64;
        Wishes {
            depth: amount(self.layers, self.layers_theta),
            drop_layers: self.drop_layers.clone(),
            neurons: amount(self.neurons, self.neurons_theta),
            groups: amount(self.groups, self.groups_theta),
            embed: amount(self.channels, self.channels_theta),
            total: self.target_ratio.or(self.target_bytes.map(|target| 1.0 - target as f64 / bytes)),
            depth_share: self.depth_share,
            depth_by: match self.layers_by {
                LayersBy::Loss => DepthBy::Loss,
                LayersBy::Influence => DepthBy::Influence,
            },
            protected: self.protect.clone(),
            align: self.align,
            options: self.calibration.options(),
            loss_tokens: self.calibration.loss_tokens,
        }
    }
}

/// Scores, decides, cuts.
///
/// # Errors
/// The model or the calibration set cannot be read, a wish cannot be met, or the output cannot be written.
pub fn run(args: Args) -> anyhow::Result<()> {
    let archive = Archive::open(&args.model)?;
    let sequences = args.calibration.sequences(&archive)?;
    let teacher = Teacher::new(&archive, args.calibration.memory_bytes())?;
    let wishes = args.wishes(&archive);
    let mut memo = Memo::new(teacher.spec(), &sequences, &wishes);
    let watch = Watch::work(match args.search {
        true => trial::work(teacher.spec(), &sequences, &wishes, &trial::SHARES),
        false => memo.work(teacher.spec(), std::slice::from_ref(&wishes)),
    })?;
    let mut tick = |by| watch.tick(by);
    let mut splits = Vec::new();
    let decided = if args.search {
        splits = trial::search(&teacher, &sequences, &wishes, &trial::SHARES, !args.keep_norms, &mut tick)?;
        let best = splits.first().context("no split of the budget can be made")?;
        best.decided.clone()
    } else {
        plan::decide(&teacher, &mut memo, &wishes, &mut tick)?
    };
    watch.bar.finish_and_clear();
    drop(teacher);

    let watch = Watch::bytes(archive.tensor_bytes())?;
    let report = prune::prune(&archive, &decided.keep, &args.out, !args.keep_norms, &mut |by| watch.tick(by))?;
    watch.bar.finish_and_clear();
    let path = report_path(&args.out);
    let mut json = serde_json::to_value(&report)?;
    if let Some(fields) = json.as_object_mut() {
        fields.insert("calibration".into(), fingerprint(&sequences).into());
        fields.insert("options".into(), serde_json::to_value(wishes.options)?);
        fields.insert("scores".into(), serde_json::to_value(&decided.scores)?);
        fields.insert("splits".into(), serde_json::to_value(&splits)?);
        fields.insert("dropped".into(), serde_json::to_value(&decided.dropped)?);
    }
    write_json(&path, &json)?;
    for warning in report.warnings.iter().chain(&decided.warnings) {
        eprintln!("warning: {warning}");
    }
    for split in &splits {
        println!("depth share {:.2}: mean NLL {:.4} nats a token", split.depth_share, split.mean_nll);
    }
    let [before, after] = report.parameters;
    let share = 100.0 * after as f64 / before.max(1) as f64;
    println!("{}: {before} -> {after} parameters ({share:.1} %)", args.out.display());
    println!("{} -> {}", serde_json::to_string(&report.sizes_before)?, serde_json::to_string(&report.sizes_after)?);
    println!("report: {}", path.display());
    Ok(())
}
