//! Checks of both backends that run wherever the engine runs: natively as a test, and in Chromium on the browser's own
//! WebGPU, where the page's worker will run. Nothing here judges speed.
//!
//! Deliberately absent: a list of shapes for every kernel variant; the property tests beside the kernels do that.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::backend::{Backend, Draw, Output, OutputKind, Turn};
use super::cpu::{CpuBackend, Form};
use super::gguf::GgmlType;
use super::gpu::{GpuBackend, GpuContext, KernelSet};
use super::reference::{Deviation, Reference};
use super::synthetic::{self, Family, Sizes, Storage};
use super::weights::ModelWeights;
use super::{ChatMessage, Engine, EngineError, SamplingOptions};

/// Tokens that are compared for every golden prompt.
pub const GOLDEN_TOKENS: usize = 64;
/// Largest difference of a logit on WebGPU.
const GPU_BOUND: f32 = 1e-3;
/// Largest median difference on the CPU, where candle quantises activations, in standard deviations of the logits.
const CPU_BOUND: f32 = 2e-2;
/// Tokens of the prompt in the numeric checks.
const PROMPT: usize = 64;

/// How many random models [`numeric`] tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Every one.
    All,
    /// One of each kind: where a processor stands in for the GPU and compiles each kernel for seconds, and all are tried
    /// somewhere else.
    Few,
}

/// One result.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// What was checked.
    pub name: String,
    /// Whether it held.
    pub passed: bool,
    /// What was found.
    pub detail: String,
}

impl Check {
    fn of(name: String, result: Result<(bool, String), EngineError>) -> Self {
        match result {
            Ok((passed, detail)) => Self { name, passed, detail },
            Err(error) => Self { name, passed: false, detail: format!("error: {error}") },
        }
    }
}

/// Greedy answers of a model file, written natively on the CPU: what every backend everywhere has to repeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Golden {
    /// The file's name beside the models' manifest.
    pub file: String,
    /// SHA-256 of the file that the answers are from, lower-case hexadecimal.
    pub sha256: String,
    /// Prompts with their answers.
    pub answers: Vec<Answer>,
}

/// A prompt and what the model answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The user's message.
    pub prompt: String,
    /// The greedy answer, at most [`GOLDEN_TOKENS`] tokens.
    pub text: String,
}

/// The SHA-256 of `bytes`, lower-case hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The greedy answer to `prompt`.
///
/// # Errors
/// The engine's.
pub async fn greedy(engine: &mut Engine, prompt: &str) -> Result<String, EngineError> {
    let messages = [ChatMessage { role: "user".into(), content: prompt.into() }];
    let options = SamplingOptions { max_tokens: GOLDEN_TOKENS, ..SamplingOptions::default() };
    let mut text = String::new();
    let mut on_token = |event: super::TokenEvent<'_>| {
        text.push_str(event.text);
        ControlFlow::Continue(())
    };
    engine.generate(&messages, "", &options, &|| 0.0, &mut on_token).await?;
    Ok(text)
}

/// Whether `engine`, loaded from `bytes`, repeats all golden answers.
pub async fn golden(mut engine: Engine, bytes: &[u8], golden: &Golden) -> Check {
    let name = format!("{} on {}: {} golden answers", golden.file, engine.info().backend, golden.answers.len());
    if sha256_hex(bytes) != golden.sha256 {
        let detail = "the model file is not the one that the golden answers are from; write them anew with \
                      `cargo run -p engine --features cpu,gpu --example engine_golden`";
        return Check { name, passed: false, detail: detail.into() };
    }
    let mut differing = Vec::new();
    for answer in &golden.answers {
        match greedy(&mut engine, &answer.prompt).await {
            Ok(text) if text == answer.text => {}
            Ok(text) => differing.push(format!("{:?} gave {text:?} instead of {:?}", answer.prompt, answer.text)),
            Err(error) => differing.push(format!("{:?}: {error}", answer.prompt)),
        }
    }
    let detail = match differing.first() {
        None => "all the same".into(),
        Some(first) => format!("{} differ, first: {first}", differing.len()),
    };
    Check { name, passed: differing.is_empty() && !golden.answers.is_empty(), detail }
}

/// Random models of the shapes that ship, of some odd ones and of the family with most kernels of its own, on both backends,
/// against the oracle.
pub async fn numeric(gpu: &GpuContext, scope: Scope) -> Vec<Check> {
    use Family::{Gemma2, Gemma3, Llama};
    use GgmlType::{Bf16, F16, F32, Q4_0, Q8_0};
    use Scope::{All, Few};
    /// Where it belongs, family, sizes (vocabulary, width, layers, query heads, key heads, inner width), storage of blocks and
    /// embedding, whether the head is untied.
    type Case = (Scope, Family, Sizes, GgmlType, GgmlType, bool);
    let cases: [Case; 10] = [
        (All, Llama, [2048, 256, 6, 8, 4, 704], Q8_0, Q8_0, false),
        (Few, Llama, [2048, 128, 4, 4, 2, 352], Q4_0, Q8_0, false),
        (All, Llama, [501, 192, 2, 3, 1, 96], Q4_0, Q4_0, true),
        (Few, Llama, [257, 320, 1, 2, 2, 64], Q8_0, F16, false),
        (Few, Llama, [99, 60, 2, 6, 3, 37], F32, F32, true),
        (All, Llama, [130, 28, 2, 2, 1, 9], F16, F16, false),
        (All, Llama, [33, 44, 1, 1, 1, 50], Bf16, F32, false),
        (All, Llama, [512, 576, 2, 9, 3, 1536], Q4_0, Q8_0, false),
        (All, Gemma2(20), [300, 640, 3, 4, 1, 96], Q8_0, Q8_0, false),
        (Few, Gemma3(20), [300, 640, 3, 4, 1, 96], Q8_0, Q8_0, false),
    ];
    let mut checks = Vec::new();
    for (seed, (within, family, shape, blocks, embedding, untied)) in (1..).zip(cases) {
        if scope == Few && within == All {
            continue;
        }
        let label = format!("{family:?} {shape:?} {}/{}", blocks.name(), embedding.name());
        let storage = Storage { blocks, embedding, untied };
        let weights = match synthetic::weights_like(family, synthetic::config(shape), storage, seed) {
            Ok(weights) => weights,
            Err(error) => {
                checks.push(Check { name: label, passed: false, detail: error.to_string() });
                continue;
            }
        };
        let tokens = synthetic::tokens(shape[0], PROMPT, seed);
        let Some(expected) = Reference::new(&weights).logits(&tokens).pop() else { continue };
        checks.push(Check::of(
            format!("WebGPU, {label}"),
            on_gpu(gpu, &weights, &tokens, &expected, KernelSet::BASELINE).await,
        ));
        for form in [Form::Singles, Form::Stored] {
            let found = on_cpu(&weights, form, &tokens, &expected).await;
            checks.push(Check::of(format!("CPU ({form:?}), {label}"), found));
        }
    }
    if gpu.caps().packed {
        checks.extend(packed(gpu, scope).await);
    }
    checks
}

/// Products of packed bytes, on one type with a scale to a block and one with more: an emulated GPU compiles each for half a
/// minute.
async fn packed(gpu: &GpuContext, scope: Scope) -> Vec<Check> {
    let set = KernelSet { packed: true, ..KernelSet::BASELINE };
    let mut checks = Vec::new();
    let types = match scope {
        Scope::All => [GgmlType::Q4_0, GgmlType::Q6K].as_slice(),
        Scope::Few => [GgmlType::Q4_0].as_slice(),
    };
    for &dtype in types {
        let name = format!("WebGPU with packed 4x8, {}", dtype.name());
        let storage = Storage { blocks: dtype, embedding: GgmlType::Q8_0, untied: false };
        let found = match synthetic::weights(synthetic::config([130, 256, 1, 4, 1, 256]), storage, 9) {
            Ok(weights) => {
                let tokens = synthetic::tokens(130, PROMPT, 9);
                let expected = Reference::new(&weights).logits(&tokens).pop().unwrap_or_default();
                on_gpu(gpu, &weights, &tokens, &expected, set).await
            }
            Err(error) => Err(error),
        };
        checks.push(Check::of(name, found));
    }
    checks
}

async fn logits(backend: &mut dyn Backend, tokens: &[u32]) -> Result<Vec<f32>, EngineError> {
    match backend.forward(tokens, OutputKind::Logits).await? {
        Output::Logits(logits) => Ok(logits),
        _ => Err(EngineError::NotOffered { backend: backend.name(), what: "logits" }),
    }
}

async fn on_gpu(
    gpu: &GpuContext,
    weights: &ModelWeights<'_>,
    tokens: &[u32],
    expected: &[f32],
    set: KernelSet,
) -> Result<(bool, String), EngineError> {
    let mut backend = GpuBackend::with_kernels(gpu, weights, set).await?;
    let prompt = Deviation::between(&logits(&mut backend, tokens).await?, expected);
    // The last token again, by itself: the kernels for one column.
    let (Some(&last), before_last) = (tokens.last(), tokens.len().saturating_sub(1)) else {
        return Err(EngineError::EmptyPrompt);
    };
    backend.truncate(before_last);
    let before = backend.counters();
    let greedy = backend.forward(&[last], OutputKind::Argmax).await?;
    let after = backend.counters();
    backend.truncate(before_last);
    let decoded_logits = logits(&mut backend, &[last]).await?;
    let decoded = Deviation::between(&decoded_logits, expected);
    let same = greedy == Output::Token(super::sampler::argmax(&decoded_logits));
    // And once more as one of two rows.
    let mut batch = backend.batch(2, tokens.len()).await?;
    batch.forward(1, tokens.get(..before_last).unwrap_or_default(), OutputKind::Nothing).await?;
    let turns = [0, 1].map(|row| Turn { row, token: last, draw: Draw::default() });
    let rows = batch.step(&turns).await?;
    let rowed = Deviation::between(rows.get(1).map_or(&[], Vec::as_slice), expected);
    let within = |d: Deviation| d.max <= GPU_BOUND && d.same_choice;
    let detail = format!(
        "largest difference {:.1e} after the prompt, {:.1e} after one token, {:.1e} as a row; {} dispatches and {} \
         submission a token",
        prompt.max,
        decoded.max,
        rowed.max,
        after.dispatches - before.dispatches,
        after.submits - before.submits
    );
    Ok((within(prompt) && within(decoded) && within(rowed) && same, detail))
}

async fn on_cpu(
    weights: &ModelWeights<'_>,
    form: Form,
    tokens: &[u32],
    expected: &[f32],
) -> Result<(bool, String), EngineError> {
    let mut backend = CpuBackend::with_form(weights, form)?;
    let found = Deviation::between(&logits(&mut backend, tokens).await?, expected);
    let detail = format!("median difference {:.1e} standard deviations, largest {:.1e}", found.median_share, found.max);
    Ok((found.median_share <= CPU_BOUND && found.same_choice, detail))
}
