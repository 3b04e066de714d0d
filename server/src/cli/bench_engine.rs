//! `tandem bench-engine`: how fast the language-model engine is on this machine.
//!
//! Decoding reads every weight once a token, so beside tokens per second stands the share of the memory's bandwidth that
//! it reaches, the bandwidth being measured by a copy in the same run. Random weights decode as fast as trained ones.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use engine::EngineError;
use engine::backend::{Backend, Counters, Draw, MAX_ROWS, Output, Turn, Want};
use engine::config::{ModelConfig, ModelTraits, RopeConfig};
use engine::gguf::{GgmlType, Gguf};
use engine::sampler::{SamplerParams, argmax};
use engine::weights::{LayerTraits, LayerWeights, Matrix, ModelWeights};
use futures::executor::block_on;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use serde::Serialize;

/// What is copied to measure the bandwidth: more than caches hold.
const COPY_BYTES: usize = 256 << 20;
/// Steps that are under way at once, as in the engine.
const STEPS_AHEAD: usize = 2;

/// What `tandem bench-engine` takes.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Where to compute.
    #[arg(long, value_enum, default_value_t = BackendName::Vulkan)]
    backend: BackendName,
    /// Sizes of the model, whose weights are random, in Q4_0.
    #[arg(long, value_enum, default_value_t = ModelSize::Smollm2_135m)]
    shape: ModelSize,
    /// A model file instead of random weights.
    #[arg(long, conflicts_with = "shape")]
    gguf: Option<std::path::PathBuf>,
    /// Tokens of the prompt.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    prompt: u32,
    /// Tokens to decode.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    tokens: u32,
    /// Threads that compute a pass together; only with --backend cpu.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// Also take parts of the kernels that compute in half precision, where the device has it.
    #[arg(long)]
    half: bool,
    /// Also time the prompt with packed 4x8-bit products and without, whichever the self-test found faster.
    #[arg(long)]
    packed: bool,
    /// Also print what every kernel takes, for a token and for the prompt's first part; only with --backend vulkan.
    #[arg(long)]
    profile: bool,
    /// Seed of random weights and of the prompt.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum BackendName {
    Vulkan,
    Cpu,
}

/// Sizes of models that people know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ModelSize {
    /// A few thousand parameters, to see that everything works.
    Tiny,
    #[value(name = "smollm2-135m")]
    Smollm2_135m,
    #[value(name = "qwen2.5-0.5b")]
    Qwen25_05b,
    #[value(name = "qwen3-0.6b")]
    Qwen3_06b,
    #[value(name = "llama-3.2-1b")]
    Llama32_1b,
    #[value(name = "llama-3.1-8b")]
    Llama31_8b,
}

impl ModelSize {
    /// The sizes, and whether the head is a matrix of its own.
    fn config(self) -> (ModelConfig, bool) {
        // Vocabulary, width, layers, query heads, key heads, a head's size, inner width; RoPE's base.
        let ([vocab, dim, layers, heads, kv_heads, head_dim, ffn], base, untied) = match self {
            Self::Tiny => ([512, 64, 2, 4, 2, 16, 192], 1e4, false),
            Self::Smollm2_135m => ([49152, 576, 30, 9, 3, 64, 1536], 1e5, false),
            Self::Qwen25_05b => ([151_936, 896, 24, 14, 2, 64, 4864], 1e6, false),
            Self::Qwen3_06b => ([151_936, 1024, 28, 16, 8, 128, 3072], 1e6, false),
            Self::Llama32_1b => ([128_256, 2048, 16, 32, 8, 64, 8192], 5e5, false),
            Self::Llama31_8b => ([128_256, 4096, 32, 32, 8, 128, 14336], 5e5, true),
        };
        let config = ModelConfig {
            name: format!("{self:?}"),
            vocab,
            dim,
            layers,
            heads,
            kv_heads,
            head_dim,
            ffn,
            context: 2048,
            rms_eps: 1e-5,
            rope: RopeConfig { base, dim: head_dim, freq_divisors: Vec::new(), magnitude: 1.0 },
            traits: ModelTraits::default(),
        };
        (config, untied)
    }

    fn traits(self, config: &ModelConfig) -> LayerTraits {
        let ones = |n| Some(vec![1.0; n]);
        match self {
            Self::Qwen25_05b => {
                LayerTraits { qkv_bias: ones(config.q_dim() + 2 * config.kv_dim()), ..LayerTraits::default() }
            }
            Self::Qwen3_06b => {
                LayerTraits { q_norm: ones(config.head_dim), k_norm: ones(config.head_dim), ..LayerTraits::default() }
            }
            _ => LayerTraits::default(),
        }
    }
}

/// Bytes of random Q4_0 matrices. The layers share them: on the device each has its own copy.
struct RandomBytes {
    layer: [Vec<u8>; 7],
    embedding: Vec<u8>,
}

impl RandomBytes {
    fn new(config: &ModelConfig, seed: u64) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut bytes = |[rows, cols]: [usize; 2]| random_q4_0(&mut rng, rows, cols);
        Self { layer: layer_sizes(config).map(&mut bytes), embedding: bytes([config.vocab, config.dim]) }
    }
}

/// Rows and columns of q, k, v, o, gate, up and down.
fn layer_sizes(c: &ModelConfig) -> [[usize; 2]; 7] {
    let (q, kv, dim, ffn) = (c.q_dim(), c.kv_dim(), c.dim, c.ffn);
    [[q, dim], [kv, dim], [kv, dim], [dim, q], [ffn, dim], [ffn, dim], [dim, ffn]]
}

/// Random codes; the scale makes the weights' variance about 1 / cols, so that activations keep their size.
fn random_q4_0(rng: &mut Xoshiro256PlusPlus, rows: usize, cols: usize) -> Vec<u8> {
    // A code's distance from 8 has the mean square 21.5.
    let scale = half::f16::from_f32((1.0 / (21.5 * cols as f32)).sqrt()).to_le_bytes();
    let mut bytes = vec![0; rows * cols / 32 * 18];
    rng.fill_bytes(&mut bytes);
    for block in bytes.as_chunks_mut::<18>().0 {
        block[..2].copy_from_slice(&scale);
    }
    bytes
}

fn random_weights(shape: ModelSize, bytes: &RandomBytes) -> ModelWeights<'_> {
    let (config, untied) = shape.config();
    let matrix = |[rows, cols]: [usize; 2], bytes| Matrix {
        dtype: GgmlType::Q4_0,
        rows,
        cols,
        bytes: std::borrow::Cow::Borrowed(bytes),
    };
    let [q, k, v, o, gate, up, down] = layer_sizes(&config);
    let [bq, bk, bv, bo, bgate, bup, bdown] = bytes.layer.each_ref().map(Vec::as_slice);
    let layer = || LayerWeights {
        attn_norm: vec![1.0; config.dim],
        q: matrix(q, bq),
        k: matrix(k, bk),
        v: matrix(v, bv),
        o: matrix(o, bo),
        ffn_norm: vec![1.0; config.dim],
        gate: matrix(gate, bgate),
        up: matrix(up, bup),
        down: matrix(down, bdown),
        traits: shape.traits(&config),
    };
    let table = || matrix([config.vocab, config.dim], bytes.embedding.as_slice());
    ModelWeights {
        embedding: table(),
        layers: (0..config.layers).map(|_| layer()).collect(),
        output_norm: vec![1.0; config.dim],
        output: untied.then(table),
        config: config.clone(),
    }
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    device: String,
    /// Parts of the kernels beyond the baseline.
    kernels: Vec<&'static str>,
    parameters: u64,
    load_s: f64,
    prompt_tokens: usize,
    prefill_tokens_per_s: f64,
    /// Without packed products and with them, where that was asked for.
    packed: Option<PackedPrefill>,
    decode_tokens_per_s: f64,
    /// Of [`MAX_ROWS`] sequences in one pass, all their tokens counted; `None` where the backend computes one at a time.
    together_tokens_per_s: Option<f64>,
    /// Bytes of weights and of the KV cache that a token reads.
    decode_bytes_per_token: u64,
    decode_gb_per_s: f64,
    copy_gb_per_s: f64,
    share_of_copy: f64,
    dispatches_per_token: f64,
    submits_per_token: f64,
    /// What every kernel takes, where that was asked for.
    profile: Option<Profile>,
}

/// What every kernel takes, alone in a pass.
#[derive(Debug, Serialize)]
struct Profile {
    token: Vec<KernelShare>,
    prompt: Vec<KernelShare>,
}

/// All dispatches of a kernel in a call.
#[derive(Debug, Serialize)]
struct KernelShare {
    kernel: &'static str,
    dispatches: u32,
    us: f64,
}

/// The same prompt with two kinds of products.
#[derive(Debug, Serialize)]
struct PackedPrefill {
    single_tokens_per_s: f64,
    packed_tokens_per_s: f64,
}

/// Runs the command.
///
/// # Errors
/// There is no such device, the model does not fit it, or the file is none.
pub fn run(args: Args) -> Result<()> {
    let report = match &args.gguf {
        Some(path) => {
            let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            let gguf = Gguf::parse(&bytes).with_context(|| format!("{} is no model file", path.display()))?;
            measure(&args, &ModelWeights::from_gguf(&gguf)?)?
        }
        None => {
            let bytes = RandomBytes::new(&args.shape.config().0, args.seed);
            measure(&args, &random_weights(args.shape, &bytes))?
        }
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

fn measure(args: &Args, weights: &ModelWeights<'_>) -> Result<Report> {
    let started = Instant::now();
    let clock = || started.elapsed().as_secs_f64();
    let Loaded { mut backend, device, kernels, copy, pack, profile } = load(args, weights, &clock)?;
    let load_s = clock();
    let (prompt_tokens, decoded) = (args.prompt as usize, args.tokens as usize);
    let room = prompt_tokens + decoded;
    ensure!(room <= backend.capacity(), "{room} tokens do not fit into a KV cache of {}", backend.capacity());
    let prompt = engine::synthetic::tokens(weights.config.vocab, prompt_tokens, args.seed);
    // Once to warm up: pages are touched, pipelines are compiled to the end.
    prefill(backend.as_mut(), &prompt)?;
    decode(backend.as_mut(), 4.min(decoded))?;
    let before = clock();
    prefill(backend.as_mut(), &prompt)?;
    let prefill_s = clock() - before;
    let counted = backend.counters();
    let before = clock();
    let steps = decode(backend.as_mut(), decoded)? as f64;
    let decode_s = clock() - before;
    let Counters { dispatches, submits } = backend.counters();
    let config = &weights.config;
    let unread = if weights.output.is_some() { weights.embedding.bytes.len() as u64 } else { 0 };
    // On average half of the decoded tokens are in the cache beside the prompt; single precision is assumed.
    let cache = 8 * (config.layers * config.kv_dim() * (prompt_tokens + decoded / 2)) as u64;
    let bytes = weights.bytes() - unread + cache;
    let rate = steps / decode_s;
    let together_tokens_per_s = together(backend.as_ref(), &prompt, decoded, &clock)?;
    // Before others come.
    drop(backend);
    let packed = if args.packed { Some(packed_prefill(&pack, &prompt, &clock)?) } else { None };
    let profile = if args.profile { Some(profile(&prompt)?) } else { None };
    let copy_rate = copy()?;
    Ok(Report {
        model: config.name.clone(),
        device,
        kernels,
        parameters: weights.parameters(),
        load_s,
        prompt_tokens,
        prefill_tokens_per_s: prompt_tokens as f64 / prefill_s,
        packed,
        decode_tokens_per_s: rate,
        together_tokens_per_s,
        decode_bytes_per_token: bytes,
        decode_gb_per_s: rate * bytes as f64 / 1e9,
        copy_gb_per_s: copy_rate / 1e9,
        share_of_copy: rate * bytes as f64 / copy_rate,
        dispatches_per_token: (dispatches - counted.dispatches) as f64 / steps,
        submits_per_token: (submits - counted.submits) as f64 / steps,
        profile,
    })
}

/// A backend with the model on it.
struct Loaded<'c> {
    backend: Box<dyn Backend>,
    device: String,
    kernels: Vec<&'static str>,
    /// Measures the memory's bandwidth, bytes per second.
    copy: Box<dyn Fn() -> Result<f64> + 'c>,
    /// The model once more, with packed products or without.
    pack: Box<Pack<'c>>,
    /// The model once more, for what its kernels take behind a prompt.
    profile: Box<ProfileOf<'c>>,
}

type Pack<'c> = dyn Fn(bool) -> Result<Box<dyn Backend>> + 'c;
type ProfileOf<'c> = dyn Fn(&[u32]) -> Result<Profile> + 'c;

fn load<'c>(args: &Args, weights: &'c ModelWeights<'_>, clock: &'c dyn Fn() -> f64) -> Result<Loaded<'c>> {
    match args.backend {
        BackendName::Cpu => Ok(Loaded {
            device: format!("CPU, {} threads", engine::cpu::set_threads(args.threads.into())),
            backend: engine::cpu::backend(weights)?,
            kernels: Vec::new(),
            copy: Box::new(|| Ok(copy_on_cpu(clock))),
            pack: Box::new(|_| bail!("packed products are the GPU's; leave --packed out")),
            profile: Box::new(|_| bail!("kernels are timed on a GPU; leave --profile out")),
        }),
        #[cfg(feature = "vulkan")]
        BackendName::Vulkan => {
            use engine::gpu::{GpuBackend, GpuContext, KernelSet, copy_bandwidth};
            // Tiles are of one kind.
            let wanted = KernelSet { half: args.half, packed: !args.half, ..KernelSet::EXACT };
            let self_test = async { GpuContext::request().await?.self_test(wanted, weights, None, clock).await };
            let (gpu, report) = block_on(self_test)?;
            for (part, why) in report.dropped() {
                eprintln!("{part} is left out: {why}");
            }
            if let Some(pace) = report.pace {
                eprintln!(
                    "self-test: a prompt through one block took {} us with packed 4x8, {} us in single precision",
                    pace.packed_us, pace.single_us
                );
            }
            report.check(weights)?;
            let set = gpu.kernels();
            let device = gpu.clone();
            let pack = move |packed: bool| {
                ensure!(!packed || device.caps().packed, "this device has no packed 4x8-bit products");
                let set = KernelSet { half: false, packed, ..set };
                Ok(Box::new(block_on(GpuBackend::with_kernels(&device, weights, set))?) as Box<dyn Backend>)
            };
            let device = gpu.clone();
            let profile =
                move |prompt: &[u32]| profile_of(block_on(GpuBackend::with_kernels(&device, weights, set))?, prompt);
            Ok(Loaded {
                backend: Box::new(block_on(GpuBackend::with_kernels(&gpu, weights, set))?),
                device: gpu.caps().name.clone(),
                kernels: set.names(),
                copy: Box::new(move || Ok(block_on(copy_bandwidth(&gpu, COPY_BYTES, 3, clock))?)),
                pack: Box::new(pack),
                profile: Box::new(profile),
            })
        }
        #[cfg(not(feature = "vulkan"))]
        BackendName::Vulkan => bail!("this program was built without Vulkan; build it with --features vulkan"),
    }
}

/// Brings the sequence to `prompt` and waits until it is there.
fn prefill(backend: &mut dyn Backend, prompt: &[u32]) -> Result<()> {
    backend.truncate(0);
    match block_on(backend.forward(prompt, Want::Argmax))? {
        Output::Token(_) => Ok(()),
        _ => bail!("the backend does not say which token is the likeliest"),
    }
}

/// Both kinds of products on one prompt, one after the other: the best of three runs each, after one to warm up.
fn packed_prefill(pack: &Pack<'_>, prompt: &[u32], clock: &dyn Fn() -> f64) -> Result<PackedPrefill> {
    let rate = |packed: bool| -> Result<f64> {
        let mut backend = pack(packed)?;
        prefill(backend.as_mut(), prompt)?;
        let mut best_s = f64::INFINITY;
        for _ in 0..3 {
            let before = clock();
            prefill(backend.as_mut(), prompt)?;
            best_s = best_s.min(clock() - before);
        }
        Ok(prompt.len() as f64 / best_s)
    };
    Ok(PackedPrefill { single_tokens_per_s: rate(false)?, packed_tokens_per_s: rate(true)? })
}

/// The kernels of a token behind the prompt and of the prompt: of three calls the one that takes the least, after one to
/// warm up.
#[cfg(feature = "vulkan")]
fn profile_of(mut backend: engine::gpu::GpuBackend, prompt: &[u32]) -> Result<Profile> {
    use engine::gpu::GpuBackend;
    let least = |backend: &mut GpuBackend, tokens: &[u32], after: usize| -> Result<Vec<KernelShare>> {
        let mut best = Vec::new();
        let mut best_us = f64::INFINITY;
        for run in 0..4 {
            backend.truncate(after);
            let times = block_on(backend.profile(tokens))?;
            let shares: Vec<KernelShare> = times
                .iter()
                .map(|time| KernelShare { kernel: time.kernel, dispatches: time.dispatches, us: 1e6 * time.seconds })
                .collect();
            let us = shares.iter().map(|share| share.us).sum();
            if run > 0 && us < best_us {
                (best, best_us) = (shares, us);
            }
        }
        Ok(best)
    };
    let of_prompt = least(&mut backend, prompt, 0)?;
    // A profile goes through the prompt's first part only.
    prefill(&mut backend, prompt)?;
    Ok(Profile { prompt: of_prompt, token: least(&mut backend, &[0], prompt.len())? })
}

/// Decodes greedily, as the engine does: with steps under way ahead of the token that is waited for, where the backend
/// can. Returns the number of steps.
fn decode(backend: &mut dyn Backend, tokens: usize) -> Result<usize> {
    let greedy = SamplerParams { temperature: 0.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0, seed: 0 };
    match backend.begin_choosing(&greedy, &[]) {
        Ok(()) => {
            for step in 0..tokens + STEPS_AHEAD {
                if step < tokens {
                    backend.queue(Draw::default())?;
                }
                if step >= STEPS_AHEAD {
                    block_on(backend.next_choice())?;
                }
            }
        }
        Err(EngineError::NotOffered { .. }) => {
            let mut id = 0;
            for _ in 0..tokens {
                id = match block_on(backend.forward(&[id], Want::Argmax))? {
                    Output::Token(id) => id,
                    _ => bail!("the backend does not say which token is the likeliest"),
                };
            }
        }
        Err(error) => return Err(error.into()),
    }
    Ok(tokens)
}

/// Tokens a second of [`MAX_ROWS`] sequences behind the same prompt, each a greedy token longer with every pass.
fn together(backend: &dyn Backend, prompt: &[u32], tokens: usize, clock: &dyn Fn() -> f64) -> Result<Option<f64>> {
    let mut batch = match block_on(backend.batch(MAX_ROWS, prompt.len() + tokens)) {
        Err(EngineError::NotOffered { .. }) => return Ok(None),
        batch => batch?,
    };
    let greedy = SamplerParams { temperature: 0.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0, seed: 0 };
    let mut last = [0; MAX_ROWS];
    let mut on_device = true;
    for row in 0..MAX_ROWS {
        on_device = match batch.begin_choosing(row, &greedy, &[]) {
            Err(EngineError::NotOffered { .. }) => false,
            begun => begun.map(|()| true)?,
        };
        block_on(batch.forward(row, prompt, Want::Nothing))?;
    }
    let mut timed = 0;
    let mut before = clock();
    for step in 0..tokens {
        let turns: Vec<Turn> = (0..).zip(last).map(|(row, token)| Turn { row, token, draw: Draw::default() }).collect();
        let next = if on_device {
            block_on(batch.step_choosing(&turns))?
        } else {
            block_on(batch.step(&turns))?.iter().map(|logits| argmax(logits)).collect()
        };
        last.iter_mut().zip(next).for_each(|(last, next)| *last = next);
        if step == 0 && tokens > 1 {
            // The first warms up.
            before = clock();
        } else {
            timed += MAX_ROWS;
        }
    }
    Ok(Some(timed as f64 / (clock() - before)))
}

/// The best of three copies on one thread, read and written bytes both counted.
fn copy_on_cpu(clock: &dyn Fn() -> f64) -> f64 {
    let source = vec![1u8; COPY_BYTES];
    let mut target = vec![0u8; COPY_BYTES];
    let mut best = 0f64;
    for _ in 0..3 {
        let before = clock();
        target.copy_from_slice(std::hint::black_box(&source));
        std::hint::black_box(&mut target);
        best = best.max(2.0 * COPY_BYTES as f64 / (clock() - before));
    }
    best
}

fn print(report: &Report) {
    let kernels = if report.kernels.is_empty() { "baseline".to_owned() } else { report.kernels.join(", ") };
    println!("{} on {} ({kernels})", report.model, report.device);
    println!("  parameters            {:>12}", report.parameters);
    println!("  load                  {:>12.2} s", report.load_s);
    println!("  prefill ({:>4} tokens) {:>12.1} tokens/s", report.prompt_tokens, report.prefill_tokens_per_s);
    if let Some(PackedPrefill { single_tokens_per_s, packed_tokens_per_s }) = report.packed {
        println!("    single precision    {single_tokens_per_s:>12.1} tokens/s");
        println!("    packed 4x8          {packed_tokens_per_s:>12.1} tokens/s");
    }
    println!("  decode                {:>12.1} tokens/s", report.decode_tokens_per_s);
    if let Some(together) = report.together_tokens_per_s {
        println!("    {MAX_ROWS} together          {together:>12.1} tokens/s");
    }
    println!("  read for a token      {:>12.1} MB", report.decode_bytes_per_token as f64 / 1e6);
    println!("  decode reads          {:>12.2} GB/s", report.decode_gb_per_s);
    println!("  a copy moves          {:>12.2} GB/s", report.copy_gb_per_s);
    println!("  share of that         {:>12.1} %", 100.0 * report.share_of_copy);
    println!("  dispatches a token    {:>12.1}", report.dispatches_per_token);
    println!("  submits a token       {:>12.1}", report.submits_per_token);
    if let Some(Profile { token, prompt }) = &report.profile {
        for (what, shares) in [("a token", token), ("a prompt's first part", prompt)] {
            println!("  kernels of {what}, alone in a pass");
            for KernelShare { kernel, dispatches, us } in shares {
                println!(
                    "    {kernel:<12} {dispatches:>4} times {us:>10.1} us, {:>8.2} us each",
                    us / f64::from(*dispatches)
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole command on a small model: every figure is there, whatever the machine's speed.
    #[test]
    fn measures_on_the_cpu() {
        let args = Args {
            backend: BackendName::Cpu,
            shape: ModelSize::Tiny,
            gguf: None,
            prompt: 8,
            tokens: 4,
            threads: 2,
            half: false,
            packed: false,
            profile: false,
            seed: 1,
            json: true,
        };
        let bytes = RandomBytes::new(&args.shape.config().0, 1);
        let weights = random_weights(ModelSize::Tiny, &bytes);
        let report = measure(&args, &weights).unwrap();
        assert!(report.decode_tokens_per_s > 0.0 && report.prefill_tokens_per_s > 0.0 && report.copy_gb_per_s > 0.0);
        assert!(report.together_tokens_per_s.is_some_and(|rate| rate > 0.0));
        let table = 512 * 64 / 32 * 18;
        assert!(report.decode_bytes_per_token > weights.bytes() && weights.bytes() > table);
        let of_the_gpu = measure(&Args { packed: true, ..args.clone() }, &weights).unwrap_err();
        assert!(of_the_gpu.to_string().contains("leave --packed out"), "{of_the_gpu}");
        let of_the_gpu = measure(&Args { profile: true, ..args.clone() }, &weights).unwrap_err();
        assert!(of_the_gpu.to_string().contains("leave --profile out"), "{of_the_gpu}");
        let too_long = Args { prompt: 4000, ..args };
        assert!(measure(&too_long, &weights).unwrap_err().to_string().contains("do not fit"));
    }

    #[test]
    fn shapes_are_whole_blocks() {
        use clap::ValueEnum as _;
        for shape in ModelSize::value_variants() {
            let (config, _) = shape.config();
            assert!(
                layer_sizes(&config).iter().all(|[_, cols]| cols % 32 == 0) && config.checked().is_ok(),
                "{shape:?}"
            );
        }
    }
}
