//! The builds of the CPU kernels against each other, and the engine's rates. Both need a worker of an isolated page.

use std::rc::Rc;

use client::offload::ports::Clock;
use engine::EngineError;
use engine::backend::{Backend, Batch, Draw, Output, OutputKind, Turn};
use engine::checks::Check;
use engine::cpu::{CpuBackend, Form};
use engine::gguf::{GgmlType, Gguf};
use engine::gpu::{GpuBackend, GpuContext, KernelSet};
use engine::sampler::{SamplerParams, argmax};
use engine::synthetic::{self, Family, Storage};
use engine::weights::ModelWeights;
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::*;
use worker::clock::BrowserClock;
use worker::kernels::{Build, Kernels, RemoteBackend};

use super::browser::fetch;

/// The builds that this browser runs.
fn builds() -> Vec<Build> {
    let best = Build::best();
    let mut builds = Vec::new();
    for relaxed in [false, true] {
        for threads in [1, best.threads] {
            let build = Build { relaxed, threads };
            if (best.relaxed || !relaxed) && !builds.contains(&build) {
                builds.push(build);
            }
        }
    }
    builds
}

async fn logits(backend: &mut dyn Backend, tokens: &[u32]) -> Result<Vec<f32>, EngineError> {
    match backend.forward(tokens, OutputKind::Logits).await? {
        Output::Logits(logits) => Ok(logits),
        _ => Err(EngineError::NotOffered { backend: backend.name(), what: "logits" }),
    }
}

/// Runs random models of every family on every build that this browser has; each has to return what the worker's own
/// build returns, to the last bit. The report is JSON: `[{ name, passed, detail }]`.
///
/// # Errors
/// A build does not load.
#[wasm_bindgen]
pub async fn run_kernel_checks(base_url: String) -> Result<String, JsError> {
    console_error_panic_hook::set_once();
    let models = [
        (Family::Llama, GgmlType::Q8_0),
        (Family::Llama, GgmlType::Q4_1),
        (Family::Llama, GgmlType::Q5_0),
        (Family::Llama, GgmlType::Q5_1),
        (Family::Llama, GgmlType::Q4K),
        (Family::Llama, GgmlType::Q5K),
        (Family::Llama, GgmlType::Q6K),
        (Family::Llama, GgmlType::Q3K),
        (Family::Llama, GgmlType::Q2K),
        (Family::Llama, GgmlType::Iq4Nl),
        (Family::Llama, GgmlType::Iq4Xs),
        (Family::Llama, GgmlType::Q1_0),
        (Family::Qwen2, GgmlType::Q4_0),
        (Family::Qwen3, GgmlType::F16),
        (Family::SmolLm3, GgmlType::F32),
        (Family::Mistral(9), GgmlType::Q4_0),
        (Family::Gemma2(9), GgmlType::Q8_0),
        (Family::Gemma3(9), GgmlType::F16),
    ];
    let tokens = synthetic::tokens(2100, 70, 3);
    let (prompt, rest) = tokens.split_at(66);
    let passes = || std::iter::once(prompt).chain(rest.chunks(1));
    let mut checks = Vec::new();
    let mut loaded = Vec::new();
    for build in builds() {
        loaded.push(Kernels::load(&base_url, build).await.map_err(|problem| JsError::new(&problem))?);
    }
    for (family, blocks) in models {
        let config = synthetic::config([2100, 256, 4, 8, 2, 512]);
        let storage = Storage { blocks, embedding: GgmlType::Q8_0, untied: true };
        let weights = synthetic::weights_like(family, config, storage, 5)?;
        // Models of this size would be held as singles; here the stored form is what is checked.
        let mut ours = CpuBackend::with_form(&weights, Form::Stored)?;
        let mut expected = Vec::new();
        for part in passes() {
            expected.push(logits(&mut ours, part).await?);
        }
        for kernels in &loaded {
            let build = kernels.build();
            for fused in [false, true] {
                if fused && !build.relaxed {
                    continue;
                }
                kernels.fuse(Some(fused));
                let mut theirs = RemoteBackend::with_form(kernels, &weights, Form::Stored).await?;
                let mut same = 0;
                for (part, expected) in passes().zip(&expected) {
                    let found = logits(&mut theirs, part).await?;
                    let equal = expected.iter().zip(&found).all(|(a, b)| a.to_bits() == b.to_bits());
                    same += usize::from(equal && expected.len() == found.len());
                }
                // A batch over two rows, of which the second is this sequence.
                let mut batch = theirs.batch(2, 128).await?;
                batch.forward(0, &prompt[..9], OutputKind::Nothing).await?;
                batch.forward(1, prompt, OutputKind::Nothing).await?;
                for (token, expected) in rest.iter().zip(expected.iter().skip(1)) {
                    let turns = [0, 1].map(|row| Turn { row, token: *token, draw: Draw::default() });
                    let found = batch.step(&turns).await?.pop().unwrap_or_default();
                    let equal = expected.iter().zip(&found).all(|(a, b)| a.to_bits() == b.to_bits());
                    same += usize::from(equal && expected.len() == found.len());
                }
                let way = if fused { ", fused" } else { "" };
                let name = format!("{}{way}: {family:?}, {}", build.name(), blocks.name());
                checks.push(Check { name, passed: same == 9, detail: format!("{same} of 9 passes are the same") });
            }
        }
    }
    Ok(serde_json::to_string(&checks)?)
}

/// What to measure.
#[derive(Deserialize)]
struct Spec {
    /// Where the kernels lie.
    base: String,
    /// `cpu` or `webgpu`.
    backend: String,
    /// A model file; without one, a random model of `shape`.
    gguf: Option<String>,
    /// Vocabulary, width, layers, query heads, key heads, inner width.
    shape: [usize; 6],
    /// Storage of the random model's matrices, by ggml's number.
    storage: u32,
    /// On the CPU: most threads.
    threads: usize,
}

#[derive(Serialize)]
struct About {
    build: String,
    parameters: u64,
    weight_bytes: u64,
    context: usize,
}

/// A model to time, with an empty cache.
#[wasm_bindgen]
pub struct EngineBench {
    backend: Box<dyn Backend>,
    /// Several sequences over the same weights, and the last token of each.
    rows: Option<(Box<dyn Batch>, Vec<u32>)>,
    kernels: Option<Rc<Kernels>>,
    about: About,
}

#[wasm_bindgen]
impl EngineBench {
    /// Loads what `spec` (JSON) asks for.
    ///
    /// # Errors
    /// The file cannot be fetched or is not supported; there is no WebGPU.
    pub async fn load(spec: String) -> Result<EngineBench, JsError> {
        console_error_panic_hook::set_once();
        let spec: Spec = serde_json::from_str(&spec)?;
        let file = match &spec.gguf {
            Some(url) => fetch(url).await?,
            None => Vec::new(),
        };
        let weights = if spec.gguf.is_some() {
            ModelWeights::from_gguf(&Gguf::parse(&file).map_err(EngineError::from)?)?
        } else {
            let storage = GgmlType::from_id(spec.storage).ok_or_else(|| JsError::new("an unknown storage type"))?;
            let mut config = synthetic::config(spec.shape);
            config.context = 2048;
            synthetic::weights(config, Storage { blocks: storage, embedding: storage, untied: false }, 1)?
        };
        let mut about = About {
            build: "WebGPU".to_owned(),
            parameters: weights.parameters(),
            weight_bytes: weights.bytes(),
            context: weights.config.context,
        };
        if spec.backend == "webgpu" {
            let mut gpu = GpuContext::request().await?;
            // As the page does.
            if !gpu.caps().software {
                let clock = BrowserClock::default();
                let (tested, report) = gpu.self_test(KernelSet::EXACT, &weights, None, &|| clock.now_s()).await?;
                report.check(&weights)?;
                gpu = tested;
            }
            about.build = [vec!["WebGPU", &gpu.caps().name], gpu.kernels().names()].concat().join(", ");
            let backend = Box::new(GpuBackend::new(&gpu, &weights).await?);
            return Ok(Self { backend, rows: None, kernels: None, about });
        }
        let best = Build::best();
        let build = Build { threads: best.threads.min(spec.threads.max(1)), ..best };
        let kernels = Kernels::load(&spec.base, build).await.map_err(|problem| JsError::new(&problem))?;
        about.build = build.name();
        let backend = Box::new(RemoteBackend::new(&kernels, &weights).await?);
        Ok(Self { backend, rows: None, kernels: Some(kernels), about })
    }

    /// What was loaded: `{ build, parameters, weight_bytes, context }`.
    ///
    /// # Errors
    /// Never in practice.
    pub fn about(&self) -> Result<String, JsError> {
        Ok(serde_json::to_string(&self.about)?)
    }

    /// Bytes of the kernels' memory; 0 on the GPU.
    #[must_use]
    pub fn memory_bytes(&self) -> f64 {
        self.kernels.as_ref().map_or(0.0, |kernels| kernels.memory_bytes() as f64)
    }

    /// Empties the cache and appends a prompt of `tokens` random tokens; ends with the first answer token chosen.
    ///
    /// # Errors
    /// The backend's.
    pub async fn prefill(&mut self, tokens: usize) -> Result<(), JsError> {
        self.backend.truncate(0);
        let vocab = self.backend.config().vocab;
        self.backend.forward(&synthetic::tokens(vocab, tokens, 7), OutputKind::Argmax).await?;
        Ok(())
    }

    /// Appends `tokens` greedy tokens, one by one.
    ///
    /// # Errors
    /// The backend's.
    pub async fn decode(&mut self, tokens: usize) -> Result<(), JsError> {
        let mut token = 1;
        for _ in 0..tokens {
            if let Output::Token(next) = self.backend.forward(&[token], OutputKind::Argmax).await? {
                token = next;
            }
        }
        Ok(())
    }

    /// Reads a prompt of `tokens` random tokens into each of `rows` sequences, with room for as many more and 256.
    ///
    /// # Errors
    /// The backend's.
    pub async fn begin_rows(&mut self, rows: usize, tokens: usize) -> Result<(), JsError> {
        let mut batch = self.backend.batch(rows, tokens + 256).await?;
        let prompt = synthetic::tokens(self.backend.config().vocab, tokens, 7);
        let greedy = SamplerParams { temperature: 0.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0, seed: 0 };
        for row in 0..rows {
            // Where the caller chooses, there is nothing to begin.
            let _ = batch.begin_choosing(row, &greedy, &[]);
            batch.forward(row, &prompt, OutputKind::Argmax).await?;
        }
        self.rows = Some((batch, vec![1; rows]));
        Ok(())
    }

    /// Appends `steps` greedy tokens to each of those sequences.
    ///
    /// # Errors
    /// The backend's.
    pub async fn step_rows(&mut self, steps: usize) -> Result<(), JsError> {
        let Some((batch, last)) = &mut self.rows else { return Err(JsError::new("no rows were begun")) };
        for _ in 0..steps {
            let turn = |(row, token): (usize, &u32)| Turn { row, token: *token, draw: Draw::default() };
            let turns: Vec<Turn> = last.iter().enumerate().map(turn).collect();
            *last = match batch.step_choosing(&turns).await {
                Err(EngineError::NotOffered { .. }) => {
                    batch.step(&turns).await?.iter().map(|logits| argmax(logits)).collect()
                }
                chosen => chosen?,
            };
        }
        Ok(())
    }

    /// Dispatches and submissions so far.
    #[must_use]
    pub fn counters(&self) -> Vec<f64> {
        let counters = self.backend.counters();
        vec![counters.dispatches as f64, counters.submits as f64]
    }
}
