//! The self-test: which kernels compute what they should on this device, and which of those beyond the baseline are used.
//!
//! A kernel test is a small model on the GPU against the oracle. What was found is data ([`SelfTestReport`]), so that a
//! page can keep it and try every device and version once.

use serde::{Deserialize, Serialize};

use super::pace::PrefillTimes;
use super::{GpuBackend, GpuContext};
use crate::backend::{Backend, Draw, Output, OutputKind, Turn};
use crate::config::ModelTraits;
use crate::error::EngineError;
use crate::gguf::GgmlType;
use crate::parts::{BlockPart, Part, Weights};
use crate::reference::{Deviation, Reference};
use crate::sampler::{Sampler, SamplerParams};
use crate::synthetic::{self, Family, Storage};
use crate::weights::ModelWeights;

/// Changes whenever kernels do, so that reports of older ones no longer count.
pub const KERNEL_VERSION: u32 = 5;

/// Largest difference of a logit from the oracle's, with single precision throughout.
const BOUND: f32 = 1e-3;
/// The same where prompts or the KV cache are in half precision: logits have a standard deviation of about 1.
const HALF_BOUND: f32 = 2e-2;

/// The types whose codes are packed bytes in [`KernelSet::packed`], as many at a time as a block has products: each kernel
/// more would be one more to compile.
const QUANTISED: [[GgmlType; 4]; 2] = [
    [GgmlType::Q4_0, GgmlType::Q4_1, GgmlType::Q5_0, GgmlType::Q5_1],
    [GgmlType::Q8_0, GgmlType::Q4K, GgmlType::Q5K, GgmlType::Q6K],
];
/// The same of types that few models have: tried for those only.
const FEW_BITS: [[GgmlType; 4]; 2] = [
    [GgmlType::Q3K, GgmlType::Q2K, GgmlType::Iq4Xs, GgmlType::Iq4Nl],
    [GgmlType::Q1_0, GgmlType::Q2K, GgmlType::Iq4Xs, GgmlType::Q1_0],
];

/// Which kernels beyond the baseline are used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct KernelSet {
    /// Sums through subgroups instead of workgroup memory.
    pub subgroups: bool,
    /// Tiles of long prompts in half precision. Less exact: on only where a caller asks for it.
    pub half: bool,
    /// Tiles of long prompts in products of packed bytes, where weights are quantised. [`half`](Self::half) goes first.
    pub packed: bool,
}

impl KernelSet {
    /// Only what every adapter has.
    pub const BASELINE: Self = Self { subgroups: false, half: false, packed: false };
    /// All that leaves logits within the bound that the baseline has to keep.
    pub const EXACT: Self = Self { subgroups: true, half: false, packed: true };

    /// Names of the parts, for people.
    pub fn names(self) -> Vec<&'static str> {
        let parts = [(self.subgroups, "subgroups"), (self.half, "shader-f16"), (self.packed, "packed 4x8")];
        parts.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect()
    }

    /// What both have.
    pub fn intersection(self, other: Self) -> Self {
        Self {
            subgroups: self.subgroups && other.subgroups,
            half: self.half && other.half,
            packed: self.packed && other.packed,
        }
    }
}

/// What the self-test found on a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelfTestReport {
    /// The adapter's name and driver as it was.
    pub device: String,
    /// [`KERNEL_VERSION`] as it was.
    pub version: u32,
    /// Names of the tests that were passed.
    pub passed: Vec<String>,
    /// Names of those that were not, with what was found.
    pub failed: Vec<(String, String)>,
    /// What packed products are worth, where they hold.
    pub pace: Option<PrefillTimes>,
}

impl SelfTestReport {
    /// Of nothing yet.
    pub(super) fn of(gpu: &GpuContext) -> Self {
        Self { device: gpu.identity(), version: KERNEL_VERSION, passed: Vec::new(), failed: Vec::new(), pace: None }
    }

    /// Whether it says something about this device and these kernels.
    pub fn is_of(&self, gpu: &GpuContext) -> bool {
        self.version == KERNEL_VERSION && self.device == gpu.identity()
    }

    /// Which of the kernels beyond the baseline hold and are worth it.
    pub fn kernels(&self) -> KernelSet {
        let holds = |test: KernelTest| self.passed.iter().any(|passed| passed == test.name());
        let fails = |test: KernelTest| self.failed.iter().any(|(failed, _)| failed == test.name());
        let packed = holds(KernelTest::Packed) && !fails(KernelTest::PackedFewBits);
        let packed = packed && self.pace.is_some_and(PrefillTimes::prefers_packed);
        KernelSet { subgroups: holds(KernelTest::Subgroups), half: holds(KernelTest::Half), packed }
    }

    /// Whether this model is computed as it should be on the device.
    ///
    /// # Errors
    /// Kernels that it needs have failed, with what was found; the model's own errors.
    pub fn check(&self, weights: &dyn Weights) -> Result<(), EngineError> {
        let needed = kernel_tests(weights, KernelSet::BASELINE)?;
        match self.failed.iter().find(|(name, _)| needed.iter().any(|test| test.name() == name)) {
            None => Ok(()),
            Some((what, found)) => Err(EngineError::SelfTest { what: what.clone(), found: found.clone() }),
        }
    }

    /// What failed of the parts beyond the baseline, with what was found.
    pub fn dropped(&self) -> impl Iterator<Item = &(String, String)> {
        let parts = [KernelTest::Subgroups, KernelTest::Half, KernelTest::Packed, KernelTest::PackedFewBits];
        let parts = parts.map(KernelTest::name);
        self.failed.iter().filter(move |(name, _)| parts.contains(&name.as_str()))
    }

    pub(super) fn tells_of(&self, test: KernelTest) -> bool {
        let name = test.name();
        self.passed.iter().chain(self.failed.iter().map(|(name, _)| name)).any(|known| known == name)
    }

    pub(super) fn note(&mut self, test: KernelTest, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => self.passed.push(test.name().to_owned()),
            Err(found) => self.failed.push((test.name().to_owned(), found)),
        }
    }
}

/// One question to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KernelTest {
    /// A model stored in this type.
    Stored(GgmlType),
    /// A KV cache in half precision.
    HalfCache,
    /// What only Gemma has: GELU, norms on both sides, caps, two rotations.
    Gemma,
    /// Tokens chosen on the device.
    Choosing,
    /// [`KernelSet::subgroups`].
    Subgroups,
    /// [`KernelSet::half`].
    Half,
    /// [`KernelSet::packed`], for every type that many models have.
    Packed,
    /// The same for the others.
    PackedFewBits,
}

impl KernelTest {
    /// What people and reports call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stored(dtype) => dtype.name(),
            Self::HalfCache => "KV cache in half precision",
            Self::Gemma => "Gemma",
            Self::Choosing => "choosing tokens",
            Self::Subgroups => "subgroups",
            Self::Half => "shader-f16",
            Self::Packed => "packed 4x8",
            Self::PackedFewBits => "packed 4x8 for few bits",
        }
    }

    /// Asks the device.
    ///
    /// # Errors
    /// It computes something else than it should, or refuses; in words.
    pub(super) async fn run(self, gpu: &GpuContext) -> Result<(), String> {
        let plain = Model { family: Family::Llama, dtype: GgmlType::Q8_0, ffn: 96 };
        let heads_normed = |dtype| Model { family: Family::Qwen3, dtype, ffn: 96 };
        match self {
            Self::Stored(dtype) => heads_normed(dtype).within(gpu, KernelSet::BASELINE, false, BOUND).await,
            Self::HalfCache => plain.within(gpu, KernelSet::BASELINE, true, HALF_BOUND).await,
            Self::Packed | Self::PackedFewBits => {
                let set = KernelSet { packed: true, ..KernelSet::BASELINE };
                for types in if self == Self::Packed { QUANTISED } else { FEW_BITS } {
                    let weights = mixed(types).map_err(|error| error.to_string())?;
                    let held = within(gpu, &weights, &[11], set, false, BOUND).await;
                    held.map_err(|found| format!("{}: {found}", types.map(GgmlType::name).join(", ")))?;
                }
                Ok(())
            }
            Self::Gemma => {
                for family in [Family::Gemma2(5), Family::Gemma3(5)] {
                    Model { family, ..plain }.within(gpu, KernelSet::BASELINE, false, BOUND).await?;
                }
                Ok(())
            }
            Self::Choosing => plain.chooses(gpu).await.map_err(|error| error.to_string())?,
            Self::Subgroups | Self::Half => {
                let (set, bound) = match self {
                    Self::Half => (KernelSet { half: true, ..KernelSet::BASELINE }, HALF_BOUND),
                    _ => (KernelSet { subgroups: true, ..KernelSet::BASELINE }, BOUND),
                };
                // Rows short, longer and long enough for every number of lanes, and so many that groups take two units.
                for ffn in [96, 2048, 8192] {
                    Model { ffn, ..heads_normed(GgmlType::Q4_0) }.within(gpu, set, false, bound).await?;
                }
                Ok(())
            }
        }
    }
}

/// The tests for a model, with these parts beyond the baseline.
///
/// # Errors
/// As [`Weights::form`].
pub(super) fn kernel_tests(weights: &dyn Weights, parts: KernelSet) -> Result<Vec<KernelTest>, EngineError> {
    let mut kernel_tests = vec![KernelTest::Choosing, KernelTest::HalfCache];
    let types = types_of(weights)?;
    kernel_tests.extend(types.iter().copied().map(KernelTest::Stored));
    kernel_tests.extend((weights.config().traits != ModelTraits::default()).then_some(KernelTest::Gemma));
    kernel_tests.extend(parts.subgroups.then_some(KernelTest::Subgroups));
    kernel_tests.extend(parts.half.then_some(KernelTest::Half));
    let quantised = types.iter().any(|dtype| dtype.block_len() > 1);
    kernel_tests.extend((parts.packed && quantised).then_some(KernelTest::Packed));
    let few_bits = types.iter().any(|dtype| FEW_BITS.as_flattened().contains(dtype));
    kernel_tests.extend((parts.packed && few_bits).then_some(KernelTest::PackedFewBits));
    Ok(kernel_tests)
}

/// How matrices of a model are stored once they are packed, each type once.
///
/// # Errors
/// As [`Weights::form`].
fn types_of(weights: &dyn Weights) -> Result<Vec<GgmlType>, EngineError> {
    let layers = 0..weights.config().layers;
    let blocks = layers.flat_map(|layer| BlockPart::ALL.map(|part| Part::Block(layer, part)));
    let mut types = Vec::new();
    for part in blocks.chain([Part::Embedding, Part::Output]) {
        if let Some(form) = weights.form(part)?
            && !types.contains(&form.dtype)
        {
            types.push(form.dtype);
        }
    }
    // What is packed together and stored differently becomes F32.
    if types.len() > 1 && !types.contains(&GgmlType::F32) {
        types.push(GgmlType::F32);
    }
    Ok(types)
}

/// A model of one block with random weights.
#[derive(Debug, Clone, Copy)]
struct Model {
    family: Family,
    dtype: GgmlType,
    ffn: usize,
}

impl Model {
    fn weights(self, vocab: usize) -> Result<ModelWeights<'static>, EngineError> {
        // Rows are whole blocks.
        let wide = |size: usize| size.next_multiple_of(self.dtype.block_len());
        let config = synthetic::config([vocab, wide(64), 1, 2, 1, wide(self.ffn)]);
        let storage = Storage { blocks: self.dtype, embedding: self.dtype, untied: false };
        synthetic::weights_like(self.family, config, storage, 1)
    }

    /// Whether no logit is further off than `bound`, after a prompt of many columns, of a few, of one, and after a step of
    /// two sequences.
    async fn within(self, gpu: &GpuContext, set: KernelSet, half_cache: bool, bound: f32) -> Result<(), String> {
        let weights = self.weights(50).map_err(|error| error.to_string())?;
        within(gpu, &weights, &[11, 3, 1], set, half_cache, bound).await
    }

    /// Whether the device chooses what the sampler chooses from the device's own logits, over several slices of the
    /// vocabulary, in steps of which one is under way while the next is queued.
    async fn chooses(self, gpu: &GpuContext) -> Result<Result<(), String>, EngineError> {
        const VOCAB: usize = 2500;
        let mut backend = GpuBackend::with_kernels(gpu, &self.weights(VOCAB)?, KernelSet::BASELINE).await?;
        let prompt = synthetic::tokens(VOCAB, 3, 2);
        let greedy = SamplerParams { temperature: 0.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0, seed: 1 };
        for params in
            [greedy, SamplerParams { temperature: 1.3, top_k: 40, top_p: 0.9, repetition_penalty: 1.2, seed: 1 }]
        {
            let mut draws = Sampler::new(params);
            backend.truncate(0);
            backend.begin_choosing(&params, &prompt)?;
            let Output::Token(first) = backend.forward(&prompt, OutputKind::Choice(draws.draw())).await? else {
                return Err(EngineError::NotOffered { backend: "webgpu", what: "choosing on the device" });
            };
            let mut chosen = vec![first];
            for _ in 0..2 {
                backend.queue(draws.draw())?;
            }
            for _ in 0..2 {
                chosen.push(backend.next_choice().await?);
            }
            backend.truncate(0);
            let mut sampler = Sampler::new(params);
            sampler.note(&prompt);
            let mut last = prompt.clone();
            for id in chosen {
                let expected = sampler.choose(&logits(&mut backend, &last).await?);
                if id != expected {
                    return Ok(Err(format!("token {id} was chosen instead of {expected}")));
                }
                last = vec![id];
            }
        }
        Ok(Ok(()))
    }
}

/// A model of one block whose products (queries, keys and values; output; gate and up; down) are stored in these types.
fn mixed(types: [GgmlType; 4]) -> Result<ModelWeights<'static>, EngineError> {
    let of = |dtype| {
        // Rows of whole blocks of every type; the first product's are no whole tiles.
        let config = synthetic::config([50, 256, 1, 16, 1, 256]);
        synthetic::weights(config, Storage { blocks: dtype, embedding: GgmlType::Q8_0, untied: false }, 1)
    };
    let [first, second, third, fourth] = types;
    let mut weights = of(first)?;
    for (dtype, product) in [(second, 1), (third, 2), (fourth, 3)] {
        for (layer, other) in weights.layers.iter_mut().zip(of(dtype)?.layers) {
            match product {
                1 => layer.o = other.o,
                2 => (layer.gate, layer.up) = (other.gate, other.up),
                _ => layer.down = other.down,
            }
        }
    }
    Ok(weights)
}

/// Whether no logit is further off than `bound`, after calls of so many columns and after a step of two sequences.
async fn within(
    gpu: &GpuContext,
    weights: &ModelWeights<'_>,
    calls: &[usize],
    set: KernelSet,
    half_cache: bool,
    bound: f32,
) -> Result<(), String> {
    match deviation(gpu, weights, calls, set, half_cache).await {
        // Not a number is not within any bound.
        Ok(found) if found <= bound => Ok(()),
        Ok(found) => Err(format!("a logit is {found:.1e} off, and at most {bound:.0e} is allowed")),
        Err(error) => Err(error.to_string()),
    }
}

async fn deviation(
    gpu: &GpuContext,
    weights: &ModelWeights<'_>,
    calls: &[usize],
    set: KernelSet,
    half_cache: bool,
) -> Result<f32, EngineError> {
    let tokens = synthetic::tokens(weights.config.vocab, calls.iter().sum(), 1);
    let oracle = Reference::new(weights).logits(&tokens);
    let mut backend = GpuBackend::with_cache(gpu, weights, set, half_cache).await?;
    let mut worst = 0f32;
    let mut at = 0;
    for &columns in calls {
        let chunk = tokens.get(at..at + columns).unwrap_or_default();
        at += columns;
        let expected = oracle.get(at - 1).map_or(&[][..], Vec::as_slice);
        worst = worse(worst, &logits(&mut backend, chunk).await?, expected);
    }
    // The last token once more, in the second of two rows of different lengths; the first repeats the beginning.
    let (Some((last, before)), Some(expected)) = (tokens.split_last(), oracle.last()) else { return Ok(worst) };
    let [first, second, ..] = *before else { return Ok(worst) };
    let mut batch = backend.batch(2, tokens.len()).await?;
    batch.forward(0, &[first], OutputKind::Nothing).await?;
    batch.forward(1, before, OutputKind::Nothing).await?;
    let turn = |row, token| Turn { row, token, draw: Draw::default() };
    let found = batch.step(&[turn(0, second), turn(1, *last)]).await?;
    for (found, expected) in found.iter().zip([oracle.get(1).unwrap_or(expected), expected]) {
        worst = worse(worst, found, expected);
    }
    Ok(worst)
}

/// The larger of `worst` and what these logits differ by.
fn worse(worst: f32, found: &[f32], expected: &[f32]) -> f32 {
    let Deviation { max, .. } = Deviation::between(found, expected);
    if max.is_nan() { f32::INFINITY } else { worst.max(max) }
}

async fn logits(backend: &mut GpuBackend, tokens: &[u32]) -> Result<Vec<f32>, EngineError> {
    match backend.forward(tokens, OutputKind::Logits).await? {
        Output::Logits(logits) => Ok(logits),
        _ => Err(EngineError::NotOffered { backend: "webgpu", what: "logits" }),
    }
}
