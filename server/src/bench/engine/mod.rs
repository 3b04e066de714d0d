//! How fast the language-model engine is on this machine.
//!
//! Decoding reads every weight once a token, so beside tokens per second stands the share of the memory's bandwidth that
//! it reaches, the bandwidth being measured by a copy in the same run. Random weights decode as fast as trained ones.
//!
//! | file | holds |
//! | --- | --- |
//! | `report.rs` | what is measured, and what comes out |
//! | `random.rs` | models of random weights |
//! | `load.rs` | the backends that are measured |
//! | `decode.rs` | what is timed |

use std::time::Instant;

use engine::backend::Counters;
use engine::weights::ModelWeights;

mod decode;
mod load;
mod random;
mod report;

use decode::{decode, prefill, together};
use load::{Loaded, Pack, load};
pub use random::{ModelSize, RandomBytes, random_weights};
pub use report::{BackendName, BenchError, KernelShare, PackedPrefill, Profile, Report, Settings};

/// Measures a model.
///
/// # Errors
/// There is no such device, the model does not fit it, or it has not what is to be measured.
pub fn measure(settings: &Settings, weights: &ModelWeights<'_>) -> Result<Report, BenchError> {
    let started = Instant::now();
    let clock = || started.elapsed().as_secs_f64();
    let Loaded { mut backend, device, kernels, copy, pack, profile } = load(settings, weights, &clock)?;
    let load_s = clock();
    let (prompt_tokens, decoded) = (settings.prompt, settings.tokens);
    let (tokens, capacity) = (prompt_tokens + decoded, backend.capacity());
    if tokens > capacity {
        return Err(BenchError::TooLong { tokens, capacity });
    }
    let prompt = engine::synthetic::tokens(weights.config.vocab, prompt_tokens, settings.seed);
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
    let packed = if settings.packed { Some(packed_prefill(&pack, &prompt, &clock)?) } else { None };
    let profile = if settings.profile { Some(profile(&prompt)?) } else { None };
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

/// Both kinds of products on one prompt, one after the other: the best of three runs each, after one to warm up.
fn packed_prefill(pack: &Pack<'_>, prompt: &[u32], clock: &dyn Fn() -> f64) -> Result<PackedPrefill, BenchError> {
    let rate = |packed: bool| -> Result<f64, BenchError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole measurement on a small model: every figure is there, whatever the machine's speed.
    #[test]
    fn measures_on_the_cpu() {
        let settings = Settings {
            backend: BackendName::Cpu,
            prompt: 8,
            tokens: 4,
            threads: 2,
            half: false,
            packed: false,
            profile: false,
            seed: 1,
        };
        let bytes = RandomBytes::new(&ModelSize::Tiny.config().0, 1);
        let weights = random_weights(ModelSize::Tiny, &bytes);
        let report = measure(&settings, &weights).unwrap();
        assert!(report.decode_tokens_per_s > 0.0 && report.prefill_tokens_per_s > 0.0 && report.copy_gb_per_s > 0.0);
        assert!(report.together_tokens_per_s.is_some_and(|rate| rate > 0.0));
        let table = 512 * 64 / 32 * 18;
        assert!(report.decode_bytes_per_token > weights.bytes() && weights.bytes() > table);
        for (settings, expected) in [
            (Settings { packed: true, ..settings }, "leave --packed out"),
            (Settings { profile: true, ..settings }, "leave --profile out"),
            (Settings { prompt: 4000, ..settings }, "do not fit"),
        ] {
            let error = measure(&settings, &weights).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
