//! What a model will take in this tab, and whether the tab can give it: said before a byte of the weights is fetched.
//!
//! The numbers come from the file's own header (or from the server's manifest) and from what the browser tells of its
//! limits. What a browser keeps to itself counts as enough: a model is never refused on a guess.
//!
//! Deliberately absent: asking the browser; [`DeviceLimits`] is filled by who can.

#[cfg(feature = "engine")]
mod header;

#[cfg(feature = "engine")]
use self::header::{file_type, unique_parameters};
use crate::bytes::size;
use crate::download::MOST_IN_MEMORY;
use crate::protocol::engine::Verdict;
use crate::protocol::manifest::ModelEntry;
use crate::protocol::worker::Tier;

/// Longest header of a model file that is looked at, bytes: vocabularies of a quarter of a million tokens stay below.
pub const LONGEST_HEAD: usize = 64 << 20;
/// What the pieces of a file take that are under way at once, bytes: one as it is rearranged and as the device takes it, and two
/// as the browser hands them out and as they are read, of 8 MiB each.
const PIECES_BYTES: u64 = 48 << 20;
/// What wasm32 can address, bytes.
const WASM_LIMIT: u64 = 4 << 30;
/// Up to this many bytes the GPU's KV cache is in single precision, beyond in half.
const SINGLE_CACHE_BYTES: u64 = 64 << 20;
/// Models of up to so many parameters are held in single precision on the CPU.
pub const SINGLE_PARAMETERS: u64 = 16_000_000;
/// Most bytes of the GPU's KV cache; longer contexts are cut.
const GPU_CACHE_BYTES: u64 = 256 << 20;
/// Shortest context that is worth proposing, tokens.
const SHORTEST_CONTEXT: u64 = 512;
/// The common formats, the best first, with their bits a weight (blocks of 32 with a scale of half precision).
const FORMATS: [(&str, f64); 2] = [("Q8_0", 8.5), ("Q4_0", 4.5)];

/// What a model's header tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelFootprint {
    /// Name from the file.
    pub name: String,
    /// Number of parameters; a head that is the embedding counts once.
    pub parameters: u64,
    /// The file's type by name, or how most of the matrices are stored.
    pub quantisation: String,
    /// All tensors as stored, bytes.
    pub weight_bytes: u64,
    /// The largest of them, bytes.
    pub largest_bytes: u64,
    /// All of them as the page's CPU kernels hold them, bytes.
    pub cpu_bytes: u64,
    /// The longest context that the model was made for, tokens.
    pub context: u32,
    /// Numbers that the KV cache holds for a token, over all layers.
    pub cache_width: u64,
    /// Layers; the cache is divided among them.
    pub layers: u64,
    /// Of a checkpoint, whose matrices are stored as a person chooses: bytes of what else is read, the vocabulary above all.
    pub words_bytes: Option<u64>,
}

impl ModelFootprint {
    /// From the server's manifest, where it says enough.
    #[must_use]
    pub fn from_entry(entry: &ModelEntry) -> Option<Self> {
        (entry.cache_width > 0).then(|| Self {
            name: entry.name.clone(),
            parameters: entry.parameters,
            quantisation: entry.quantisation.clone(),
            weight_bytes: entry.bytes,
            // The manifest's models are far below every limit that a single matrix has.
            largest_bytes: 0,
            // The file's own header tells better, once it is looked at.
            cpu_bytes: entry.bytes.max(if entry.parameters > SINGLE_PARAMETERS { 0 } else { 4 * entry.parameters }),
            context: entry.context_length,
            cache_width: entry.cache_width.into(),
            layers: 1,
            words_bytes: None,
        })
    }

    /// From a GGUF file's header; what lies behind it need not be there.
    ///
    /// # Errors
    /// The header is not sound, or the model is of a kind that the engine does not run.
    #[cfg(feature = "engine")]
    pub fn from_gguf(gguf: &engine::gguf::Gguf<'_>) -> Result<Self, engine::EngineError> {
        use std::collections::BTreeMap;
        let config = engine::config::Blueprint::from_gguf_header(gguf, None)?.config;
        let mut by_type: BTreeMap<&'static str, u64> = BTreeMap::new();
        let mut footprint = Self {
            name: config.name.clone(),
            context: u32::try_from(config.context).unwrap_or(u32::MAX),
            cache_width: 2 * config.layers as u64 * config.kv_dim() as u64,
            layers: config.layers as u64,
            ..Self::default()
        };
        for info in gguf.tensors().values() {
            let bytes = info.len as u64;
            footprint.parameters += info.elements() as u64;
            footprint.weight_bytes += bytes;
            footprint.largest_bytes = footprint.largest_bytes.max(bytes);
            let cols = info.dims.first().copied().unwrap_or(1).max(1);
            let held = engine::cpu::portable_matrix_bytes(info.dtype, info.elements() / cols, cols, false);
            footprint.cpu_bytes += held.unwrap_or(bytes);
            *by_type.entry(info.dtype.name()).or_default() += bytes;
        }
        footprint.parameters = unique_parameters(gguf, footprint.parameters);
        if footprint.parameters <= SINGLE_PARAMETERS {
            footprint.cpu_bytes = 4 * footprint.parameters;
        }
        let most = || by_type.iter().max_by_key(|(_, bytes)| **bytes).map_or("none", |(name, _)| *name);
        footprint.quantisation = file_type(gguf).unwrap_or_else(most).to_owned();
        Ok(footprint)
    }
}

#[cfg(feature = "engine")]
impl ModelFootprint {
    /// Of a checkpoint called `name`, whose files beside the tensors have `words_bytes`.
    ///
    /// # Errors
    /// A tensor is missing or has another shape than the config says.
    pub fn of_checkpoint(
        name: &str,
        weights: &impl engine::parts::Weights,
        words_bytes: u64,
    ) -> Result<Self, engine::EngineError> {
        let (config, totals) = (weights.config(), weights.totals()?);
        let mut largest_bytes = 0;
        for part in weights.parts() {
            largest_bytes = largest_bytes.max(weights.form(part)?.map_or(0, |form| form.bytes()));
        }
        Ok(Self {
            name: name.to_owned(),
            parameters: totals.parameters,
            quantisation: totals.quantisation.to_owned(),
            weight_bytes: totals.bytes,
            largest_bytes,
            cpu_bytes: engine::cpu::portable_bytes(weights)?,
            context: u32::try_from(config.context).unwrap_or(u32::MAX),
            cache_width: 2 * config.layers as u64 * config.kv_dim() as u64,
            layers: config.layers as u64,
            words_bytes: Some(words_bytes),
        })
    }
}

/// Whether the CPU computes a model of so many parameters exactly, the KV cache included: a small one, or one whose type
/// (`quantisation`, by name) is none of the quantised ones.
#[must_use]
pub fn is_exact_on_cpu(parameters: u64, quantisation: &str) -> bool {
    parameters <= SINGLE_PARAMETERS || ["F32", "F16", "BF16"].contains(&quantisation)
}

/// What a KV cache takes that holds `width` numbers for each of `context` tokens: on the GPU by its size, on the CPU of a model
/// that [`is_exact`](is_exact_on_cpu) or not.
#[must_use]
pub fn cache_bytes(width: u64, context: u64, on_gpu: bool, is_exact: bool) -> u64 {
    let single = width.saturating_mul(4).saturating_mul(context);
    let is_half = if on_gpu { single > SINGLE_CACHE_BYTES } else { !is_exact };
    if is_half { single / 2 } else { single }
}

/// What this tab has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceLimits {
    /// Where the model will be computed.
    pub tier: Tier,
    /// Largest buffer that a kernel can see; `None` on the CPU.
    pub binding_bytes: Option<u64>,
    /// The device's memory, where the browser tells it. Browsers round it down and never say more than 8 GiB.
    pub device_bytes: Option<u64>,
    /// What the browser would still store for this page.
    pub storage_bytes: Option<u64>,
}

/// Memory that browsers claim at most of a device; a device that says so may have more.
const DEVICE_CLAIM_CAP: u64 = 8 << 30;

/// Judges a model of this footprint, whose file has `file_bytes` of which `here_bytes` are on this device, with `context`
/// tokens (the model's own where `None`). `others` are the models that the server offers instead.
#[must_use]
pub fn judge(
    footprint: &ModelFootprint,
    file_bytes: u64,
    here_bytes: u64,
    context: Option<u32>,
    limits: DeviceLimits,
    others: &[ModelEntry],
) -> Verdict {
    let wanted = context.unwrap_or(footprint.context).clamp(1, footprint.context.max(1));
    let on_gpu = limits.tier == Tier::WebGpu;
    let most = if on_gpu { GPU_CACHE_BYTES / (2 * footprint.cache_width.max(1)) } else { u64::MAX };
    let context = u32::try_from(most).unwrap_or(u32::MAX).clamp(1, wanted);
    let is_exact = is_exact_on_cpu(footprint.parameters, &footprint.quantisation);
    let cache_bytes = cache_bytes(footprint.cache_width, context.into(), on_gpu, is_exact);
    let download_bytes = file_bytes.saturating_sub(here_bytes);
    let kept = limits.storage_bytes.is_none_or(|free| download_bytes <= free);
    // The worker reads the header and then piece by piece, unless the browser could not store the file: then it has it all.
    let read_bytes = match kept {
        true => footprint
            .words_bytes
            .unwrap_or_else(|| file_bytes.saturating_sub(footprint.weight_bytes))
            .min(LONGEST_HEAD as u64),
        false => file_bytes,
    };
    let worker_bytes = read_bytes + PIECES_BYTES;
    let kernels_bytes = if on_gpu { 0 } else { footprint.cpu_bytes + cache_bytes };
    let load_bytes = worker_bytes + kernels_bytes;
    let gpu_bytes = if on_gpu { footprint.weight_bytes + cache_bytes } else { 0 };
    let mut verdict = Verdict {
        name: footprint.name.clone(),
        parameters: footprint.parameters,
        quantisation: footprint.quantisation.clone(),
        file_bytes,
        download_bytes,
        tier: limits.tier,
        weight_bytes: if on_gpu { footprint.weight_bytes } else { footprint.cpu_bytes },
        cache_bytes,
        load_bytes,
        context,
        longest_context: footprint.context,
        fits: true,
        kept,
        remarks: Vec::new(),
        advice: None,
    };
    if limits.tier == Tier::ServerOnly {
        verdict.fits = false;
        verdict.remarks.push("No engine runs in this tab.".to_owned());
        verdict.advice = Some("Let the server answer.".to_owned());
        return verdict;
    }
    let mut refusals =
        refusals(footprint, worker_bytes.max(kernels_bytes), load_bytes.max(gpu_bytes), cache_bytes, limits);
    if !verdict.kept {
        let free = size(limits.storage_bytes.unwrap_or_default());
        if file_bytes > MOST_IN_MEMORY {
            refusals.push(format!(
                "A file of {} is only read from storage, and the browser gives this page room for {free} more. Dropped \
                 onto the page, it is read where it lies.",
                size(file_bytes)
            ));
        } else {
            verdict.remarks.push(format!(
                "The browser gives this page room for {free} more, so the file is not kept for the next visit."
            ));
        }
    }
    verdict.fits = refusals.is_empty();
    if !verdict.fits {
        verdict.advice = Some(advice(footprint, file_bytes, context, limits, others));
    }
    if context < wanted {
        verdict.remarks.push(format!("On the GPU its context is cut to {context} tokens."));
    }
    verdict.remarks.splice(0..0, refusals);
    verdict
}

/// `largest_memory` is what the larger of both WebAssembly memories takes, `device_bytes` what the device gives at most.
fn refusals(
    footprint: &ModelFootprint,
    largest_memory: u64,
    device_bytes: u64,
    cache_bytes: u64,
    limits: DeviceLimits,
) -> Vec<String> {
    let mut refusals = Vec::new();
    if largest_memory > WASM_LIMIT {
        refusals.push(format!(
            "Loading takes {} in one WebAssembly memory, which ends at {}.",
            size(largest_memory),
            size(WASM_LIMIT)
        ));
    }
    if let Some(limit) = limits.binding_bytes {
        let layer_bytes = cache_bytes / (2 * footprint.layers.max(1));
        let largest = footprint.largest_bytes.max(layer_bytes);
        if largest > limit {
            refusals.push(format!(
                "One piece of the model takes {}; this GPU's programs see at most {} at once.",
                size(largest),
                size(limit)
            ));
        }
    }
    // What says "8 GiB" may have any amount.
    if let Some(device) = limits.device_bytes.filter(|device| *device < DEVICE_CLAIM_CAP)
        && device_bytes > device
    {
        refusals.push(format!("It takes {}; this device has about {}.", size(device_bytes), size(device)));
    }
    refusals
}

/// What to choose instead: a shorter context, the same model stored smaller, a model of the server's, the server.
fn advice(
    footprint: &ModelFootprint,
    file_bytes: u64,
    context: u32,
    limits: DeviceLimits,
    others: &[ModelEntry],
) -> String {
    let fits = |footprint: &ModelFootprint, file_bytes, context| {
        judge(footprint, file_bytes, 0, Some(context), DeviceLimits { storage_bytes: None, ..limits }, &[]).fits
    };
    let shortest = u32::try_from(SHORTEST_CONTEXT).unwrap_or(u32::MAX);
    let mut shorter = context / 2;
    while shorter >= shortest {
        if fits(footprint, file_bytes, shorter) {
            return format!("Choose a context of {shorter} tokens.");
        }
        shorter /= 2;
    }
    let bits = footprint.weight_bytes as f64 * 8.0 / footprint.parameters.max(1) as f64;
    for (format, smaller_bits) in FORMATS {
        let smaller = (footprint.parameters as f64 * smaller_bits / 8.0) as u64;
        let scale = |bytes: u64| (bytes as f64 * smaller_bits / bits) as u64;
        let stored = ModelFootprint {
            weight_bytes: smaller,
            quantisation: format.to_owned(),
            largest_bytes: scale(footprint.largest_bytes),
            cpu_bytes: scale(footprint.cpu_bytes),
            ..footprint.clone()
        };
        // A checkpoint's files stay what they are.
        let file = footprint.words_bytes.map_or(smaller, |_| file_bytes);
        if bits > smaller_bits * 1.1 && fits(&stored, file, context.min(shortest)) {
            return match footprint.words_bytes {
                Some(_) => format!("Store it as {format}: about {}.", size(smaller)),
                None => format!("Take a {format} file of the same model: about {}.", size(smaller)),
            };
        }
    }
    let small = others.iter().filter(|entry| entry.bytes < file_bytes).min_by_key(|entry| entry.bytes);
    match small {
        Some(entry) => format!("Load {} ({}), or let the server answer.", entry.name, size(entry.bytes)),
        None => "Choose a smaller model, or let the server answer.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::manifest::Accuracy;

    const GB: u64 = 1_000_000_000;

    /// Llama-3.1-8B's sizes.
    fn llama_8b(bits: f64) -> ModelFootprint {
        let parameters = 8_030_000_000;
        let weight_bytes = (parameters as f64 * bits / 8.0) as u64;
        ModelFootprint {
            name: "8B".to_owned(),
            parameters,
            quantisation: String::new(),
            weight_bytes,
            largest_bytes: (525e6 * bits / 8.0) as u64,
            cpu_bytes: weight_bytes,
            context: 131_072,
            cache_width: 2 * 32 * 1024,
            layers: 32,
            words_bytes: None,
        }
    }

    /// SmolLM2-135M's sizes.
    fn smol(bits: f64) -> ModelFootprint {
        let weight_bytes = (134.5e6 * bits / 8.0) as u64;
        ModelFootprint {
            name: "135M".to_owned(),
            parameters: 134_500_000,
            quantisation: String::new(),
            weight_bytes,
            largest_bytes: (28e6 * bits / 8.0) as u64,
            cpu_bytes: weight_bytes,
            context: 8192,
            cache_width: 2 * 30 * 192,
            layers: 30,
            words_bytes: None,
        }
    }

    fn limits(tier: Tier) -> DeviceLimits {
        let binding_bytes = (tier == Tier::WebGpu).then_some(2 << 30);
        DeviceLimits { tier, binding_bytes, device_bytes: Some(8 << 30), storage_bytes: Some(10 * GB) }
    }

    fn entry() -> ModelEntry {
        ModelEntry {
            id: "compact".to_owned(),
            name: "Atlas Compact".to_owned(),
            file: "compact.gguf".to_owned(),
            bytes: 460_960,
            sha256: String::new(),
            parameters: 705_408,
            quantisation: "Q4_0".to_owned(),
            context_length: 512,
            cache_width: 384,
            accuracy: Accuracy::default(),
            hallucination: 0.0,
            licence: String::new(),
            corpus_seed: 0,
            preferred: false,
        }
    }

    #[test]
    fn what_fits_and_what_to_choose_instead() {
        let gpu = limits(Tier::WebGpu);
        let cpu = limits(Tier::Cpu);
        let poor = DeviceLimits { device_bytes: Some(1 << 30), ..gpu };
        let narrow = DeviceLimits { binding_bytes: Some(128 << 20), ..gpu };
        let small = ModelFootprint::from_entry(&entry()).expect("the manifest says enough");
        for (what, footprint, context, limits, fits, told) in [
            ("the shipped model", small.clone(), None, cpu, true, ""),
            ("on the GPU", smol(8.5), Some(2048), gpu, true, ""),
            ("on the CPU", smol(8.5), Some(2048), cpu, true, ""),
            ("a long cache on a GPU of 128 MiB", smol(4.5), None, narrow, true, ""),
            (
                "half precision on a GPU of 32 MiB",
                smol(16.0),
                Some(512),
                DeviceLimits { binding_bytes: Some(32 << 20), ..gpu },
                false,
                "Q8_0",
            ),
            ("8B on the CPU", llama_8b(4.5), Some(2048), cpu, false, "Load Atlas Compact"),
            ("3 GB of it on a device of 1 GiB", llama_8b(4.5), Some(2048), poor, false, "let the server answer"),
            ("no engine", small, None, limits(Tier::ServerOnly), false, "server"),
        ] {
            let verdict = judge(&footprint, footprint.weight_bytes + 1_000_000, 0, context, limits, &[entry()]);
            assert_eq!(verdict.fits, fits, "{what}: {verdict:?}");
            assert_eq!(verdict.remarks.is_empty(), fits, "{what}: {verdict:?}");
            assert!(verdict.advice.unwrap_or_default().contains(told), "{what}");
        }
    }

    #[test]
    fn a_checkpoint_is_judged_as_it_will_be_stored() {
        let gpu = DeviceLimits { binding_bytes: Some(40 << 20), ..limits(Tier::WebGpu) };
        let words_bytes = Some(3_000_000);
        for (bits, fits, advice) in
            [(32.0, false, "Store it as Q8_0"), (16.0, false, "Store it as Q8_0"), (8.5, true, "")]
        {
            let footprint = ModelFootprint { words_bytes, ..smol(bits) };
            let verdict = judge(&footprint, 538_000_000, 538_000_000, Some(512), gpu, &[]);
            assert_eq!((verdict.fits, verdict.download_bytes), (fits, 0), "{verdict:?}");
            assert!(verdict.advice.unwrap_or_default().contains(advice));
            assert_eq!(verdict.load_bytes, 3_000_000 + PIECES_BYTES, "not what the files have beside the weights");
        }
        let narrow = DeviceLimits { binding_bytes: Some(20 << 20), ..gpu };
        let verdict = judge(&ModelFootprint { words_bytes, ..smol(8.5) }, 538_000_000, 0, Some(512), narrow, &[]);
        assert!(verdict.advice.unwrap_or_default().contains("Store it as Q4_0"));
    }

    #[test]
    fn a_context_that_is_too_long_is_shortened_to_one_that_fits() {
        // 135M at 4 bits on a device that says 256 MiB: 8192 tokens of cache take 189 MB beside weights of 76 MB.
        let limits = DeviceLimits { device_bytes: Some(256 << 20), ..limits(Tier::Cpu) };
        let footprint = smol(4.5);
        let file_bytes = footprint.weight_bytes;
        let verdict = judge(&footprint, file_bytes, 0, None, limits, &[]);
        assert!(!verdict.fits);
        assert_eq!(verdict.advice.as_deref(), Some("Choose a context of 4096 tokens."));
        assert!(judge(&footprint, file_bytes, 0, Some(4096), limits, &[]).fits);
    }

    #[cfg(feature = "engine")]
    #[test]
    fn models_are_held_as_the_engine_holds_them() {
        assert_eq!(SINGLE_PARAMETERS, engine::cpu::SMALL_MODEL);
    }

    #[test]
    fn the_numbers() {
        let footprint = smol(8.5);
        let file_bytes = footprint.weight_bytes + 2_000_000;
        let on_gpu = judge(&footprint, file_bytes, 1_000_000, Some(1000), limits(Tier::WebGpu), &[]);
        assert_eq!(on_gpu.download_bytes, file_bytes - 1_000_000);
        assert_eq!(on_gpu.cache_bytes, 2 * 30 * 192 * 4 * 1000);
        assert_eq!(on_gpu.load_bytes, 2_000_000 + PIECES_BYTES, "weights and cache are the GPU's");
        let on_cpu = judge(&footprint, file_bytes, file_bytes, Some(1_000_000), limits(Tier::Cpu), &[]);
        assert_eq!((on_cpu.download_bytes, on_cpu.context), (0, 8192), "no more than the model was made for");
        assert_eq!(on_cpu.cache_bytes, 2 * 30 * 192 * 2 * 8192);
        assert_eq!(on_cpu.load_bytes, 2_000_000 + PIECES_BYTES + footprint.cpu_bytes + on_cpu.cache_bytes);
    }

    #[test]
    fn a_file_larger_than_wasms_memory_fits_a_gpu_as_long_as_it_is_stored() {
        let limits = DeviceLimits { device_bytes: None, storage_bytes: Some(10 * GB), ..limits(Tier::WebGpu) };
        let footprint = llama_8b(8.5);
        let file_bytes = footprint.weight_bytes + 7_000_000;
        assert!(file_bytes > WASM_LIMIT);
        let verdict = judge(&footprint, file_bytes, 0, Some(2048), limits, &[]);
        assert!(verdict.fits && verdict.load_bytes < 100_000_000, "{verdict:?}");
        // One with nothing but air between its tensors is no larger.
        assert_eq!(judge(&smol(4.5), 5 * GB, 5 * GB, Some(512), limits, &[]).load_bytes, PIECES_BYTES + (64 << 20));
        let homeless =
            judge(&footprint, file_bytes, 0, Some(2048), DeviceLimits { storage_bytes: Some(GB), ..limits }, &[]);
        assert!(!homeless.fits && homeless.load_bytes > file_bytes, "{homeless:?}");
        assert!(homeless.remarks.iter().any(|remark| remark.contains("where it lies")), "{homeless:?}");
    }

    #[test]
    fn the_gpu_cuts_long_contexts_and_halves_large_caches() {
        let footprint = llama_8b(4.5);
        let verdict = judge(
            &footprint,
            footprint.weight_bytes,
            0,
            None,
            DeviceLimits { device_bytes: None, ..limits(Tier::WebGpu) },
            &[],
        );
        assert_eq!((verdict.context, verdict.cache_bytes), (2048, 256 << 20));
        assert!(verdict.remarks.iter().any(|remark| remark.contains("2048")), "{verdict:?}");
        assert_eq!(cache_bytes(1024, 16_384, true, false), 64 << 20);
        assert_eq!(cache_bytes(1024, 32_768, true, false), 64 << 20);
        for (parameters, quantisation, bytes) in
            [(135_000_000, "Q4_0", 64 << 20), (135_000_000, "BF16", 128 << 20), (700_000, "Q4_0", 128 << 20)]
        {
            let is_exact = is_exact_on_cpu(parameters, quantisation);
            assert_eq!(cache_bytes(1024, 32_768, false, is_exact), bytes, "{parameters} {quantisation}");
        }
    }

    #[test]
    fn a_full_disk_is_a_remark_and_no_refusal() {
        let limits = DeviceLimits { storage_bytes: Some(10_000_000), ..limits(Tier::Cpu) };
        let footprint = smol(4.5);
        let verdict = judge(&footprint, footprint.weight_bytes, 0, Some(512), limits, &[]);
        assert!(verdict.fits && !verdict.kept);
        assert!(verdict.remarks[0].contains("10 MB"), "{:?}", verdict.remarks);
        let unknown = judge(
            &footprint,
            footprint.weight_bytes,
            0,
            Some(512),
            DeviceLimits { storage_bytes: None, ..limits },
            &[],
        );
        assert!(unknown.kept && unknown.remarks.is_empty());
    }

    #[cfg(feature = "engine")]
    #[test]
    fn the_shape_of_a_shipped_model_is_what_the_manifest_says() {
        let bytes = include_bytes!("../../../public/models/compact.gguf");
        let manifest: crate::protocol::manifest::ModelManifest =
            serde_json::from_str(include_str!("../../../public/models/manifest.json")).expect("a manifest");
        let entry = manifest.models.iter().find(|entry| entry.id == "compact").expect("compact");
        // The header alone, without a single weight.
        let whole = engine::gguf::Gguf::parse(bytes).expect("a model");
        let first = whole.tensors().values().map(|info| info.start).min().expect("tensors");
        let head = engine::gguf::Gguf::parse_header(&bytes[..first as usize], bytes.len() as u64).expect("a header");
        let footprint = ModelFootprint::from_gguf(&head).expect("a model");
        assert_eq!(
            (footprint.parameters, footprint.quantisation.as_str()),
            (entry.parameters, entry.quantisation.as_str())
        );
        assert_eq!((footprint.context, footprint.cache_width), (entry.context_length, u64::from(entry.cache_width)));
        assert!(footprint.weight_bytes < entry.bytes && footprint.weight_bytes > entry.bytes * 3 / 4);
    }
}
