//! The kernels against the oracle on random models of many shapes, natively through Vulkan. Mesa's lavapipe is an adapter on
//! any Linux machine, with every part beyond the baseline; `cargo xtask test` installs it. Without an adapter a test says
//! that it was skipped; see [`gpu`].

mod batch;
mod choosing;
mod decoders;
mod kinds;
mod packed;

use std::io::Write as _;

use pollster::block_on;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::gguf::GgmlType;
use crate::reference::{Deviation, Reference};
use crate::synthetic::{self, Storage};
use crate::weights::{Matrix, ModelWeights};

/// A device; `None`, and why on standard error, where there is no adapter. With `TANDEM_REQUIRE_GPU` set a test fails then:
/// where a device is known to be, a broken driver must not look like none.
pub(crate) fn gpu() -> Option<GpuContext> {
    match block_on(GpuContext::request()) {
        Ok(gpu) => Some(gpu),
        Err(EngineError::NoAdapter(_)) if !is_required() => {
            let test = std::thread::current();
            // Not by a macro, whose text the test runner would keep to itself.
            let _ = writeln!(std::io::stderr(), "{}: skipped: no Vulkan device", test.name().unwrap_or("a test"));
            None
        }
        Err(error) => panic!("{error}. Install Mesa's Vulkan driver (Debian: mesa-vulkan-drivers libvulkan1)"),
    }
}

/// Whether whoever starts the tests knows of a device.
fn is_required() -> bool {
    std::env::var_os("TANDEM_REQUIRE_GPU").is_some_and(|value| !value.is_empty())
}

/// Another device, where there is one.
fn another() -> GpuContext {
    block_on(GpuContext::request()).unwrap()
}

fn logits(backend: &mut dyn Backend, tokens: &[u32]) -> Vec<f32> {
    match block_on(backend.forward(tokens, OutputKind::Logits)).unwrap() {
        Output::Logits(logits) => logits,
        other => panic!("{other:?}"),
    }
}

fn backend(gpu: &GpuContext, weights: &ModelWeights<'_>) -> GpuBackend {
    block_on(GpuBackend::new(gpu, weights)).unwrap()
}

fn storage(blocks: GgmlType, embedding: GgmlType, untied: bool) -> Storage {
    Storage { blocks, embedding, untied }
}

/// The checks that run in Chromium, here on Vulkan: the shapes that ship and odd ones, 64 tokens, 1e-3 on every logit.
#[cfg(feature = "cpu")]
#[test]
fn the_browser_checks_hold() {
    let Some(gpu) = gpu() else { return };
    println!("{:?}", gpu.caps());
    let checks = block_on(crate::checks::numeric(&gpu, crate::checks::Scope::All));
    for check in &checks {
        println!("{}: {}", check.name, check.detail);
    }
    assert!(checks.iter().all(|check| check.passed));
    // Ten models: once on the GPU, and on the CPU in each of its two forms; two types in packed bytes where the device has
    // such products.
    let count = |prefix: &str| checks.iter().filter(|check| check.name.starts_with(prefix)).count();
    let packed = if gpu.caps().packed { 2 } else { 0 };
    let counts = ["WebGPU, ", "CPU (Singles), ", "CPU (Stored), ", "WebGPU with packed 4x8, "].map(count);
    assert_eq!((counts, checks.len()), ([10, 10, 10, packed], 30 + packed));
}

/// Three layers, as small as can be.
fn three_layers() -> ModelWeights<'static> {
    let stored = storage(GgmlType::Q4_0, GgmlType::Q8_0, false);
    synthetic::weights(synthetic::config([64, 32, 3, 2, 1, 32]), stored, 1).unwrap()
}

/// What a token costs: embedding, five kernels a layer, head, two for the choice; one
/// submission.
#[test]
fn dispatches_of_a_token() {
    let Some(gpu) = gpu() else { return };
    let weights = three_layers();
    let mut backend = block_on(GpuBackend::new(&gpu, &weights)).unwrap();
    block_on(backend.forward(&[1], OutputKind::Argmax)).unwrap();
    assert_eq!(backend.counters(), Counters { dispatches: 5 * 3 + 4, submits: 1 });
}

/// A profile has every kernel of a call as often as the call has it, with a time each, and leaves the sequence as a call
/// does.
#[test]
fn what_every_kernel_takes() {
    let Some(gpu) = gpu() else { return };
    let weights = three_layers();
    let mut backend = block_on(GpuBackend::new(&gpu, &weights)).unwrap();
    let times = block_on(backend.profile(&[1, 2, 3])).unwrap();
    let found: Vec<_> = times.iter().map(|time| (time.kernel, time.dispatches)).collect();
    let layers = [("qkv", 3), ("attention", 3), ("o", 3), ("gate_up", 3), ("down", 3)];
    assert_eq!(found, [[("embed", 1)].as_slice(), &layers, &[("head", 1), ("peak", 1), ("best", 1)]].concat());
    assert!(times.iter().map(|time| time.seconds).sum::<f64>() > 0.0);
    assert_eq!(backend.len(), 3);
    // Only the first part of a prompt, and no stamps any more in the calls after.
    block_on(backend.profile(&vec![1; CHUNK + 1])).unwrap();
    assert_eq!(backend.len(), 3 + CHUNK);
    let expected = logits(&mut self::backend(&gpu, &weights), &[1, 2, 3, 4]);
    backend.truncate(3);
    assert_eq!(logits(&mut backend, &[4]), expected);
}

/// Any Llama shape: widths that are not blocks, heads of all sizes, any storage, vocabularies that are odd.
#[test]
fn random_shapes() {
    let Some(gpu) = gpu() else { return };
    let mut runner = TestRunner::new(Config { cases: 8, failure_persistence: None, ..Config::default() });
    // The kinds that random values can be stored as.
    let kinds = [GgmlType::F32, GgmlType::F16, GgmlType::Bf16, GgmlType::Q8_0, GgmlType::Q4_0];
    let strategy = (
        (0usize..5, 0usize..5, any::<bool>()),
        (1usize..4, 1usize..4, 1usize..40, 1usize..70, 1usize..300, 1usize..3),
        (1usize..160, 1usize..4, any::<u64>()),
    );
    let result = runner.run(
        &strategy,
        |((blocks, embedding, untied), (kv, group, half, ffn, vocab, layers), (m, extra, seed))| {
            let (blocks, embedding) = (kinds[blocks], kinds[embedding]);
            // Quantised rows are whole blocks; the rest may be anything.
            let quantised = blocks.block_len() > 1 || embedding.block_len() > 1;
            let heads = kv * group;
            let mut config = synthetic::config([vocab, 2 * half * heads, layers, heads, kv, ffn]);
            if quantised {
                config.head_dim = 32 * (1 + half / 16);
                config.rope.dim = 2 * half.min(config.head_dim / 2);
                config.dim = 32 * (1 + half % 5);
                config.ffn = 32 * (1 + ffn % 6);
            }
            let weights = synthetic::weights(config, storage(blocks, embedding, untied), seed).unwrap();
            let tokens = synthetic::tokens(vocab, m + extra, seed);
            let expect = Reference::new(&weights).logits(&tokens);
            let mut backend = block_on(GpuBackend::new(&gpu, &weights)).unwrap();
            let mut found = vec![(m - 1, logits(&mut backend, &tokens[..m]))];
            for i in m..m + extra {
                found.push((i, logits(&mut backend, &tokens[i..=i])));
            }
            for (position, logits) in found {
                let deviation = Deviation::between(&logits, &expect[position]);
                prop_assert!(
                    deviation.max <= 1e-3 && deviation.same_choice,
                    "{:?} at {position}: {deviation:?}",
                    weights.config
                );
            }
            Ok(())
        },
    );
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn choices_are_those_of_the_logits() {
    let Some(gpu) = gpu() else { return };
    let weights =
        synthetic::weights(synthetic::config([777, 64, 1, 2, 1, 64]), storage(GgmlType::Q8_0, GgmlType::Q8_0, true), 8)
            .unwrap();
    let mut backend = block_on(GpuBackend::new(&gpu, &weights)).unwrap();
    let all = logits(&mut backend, &[5, 6, 7]);
    let mut order: Vec<(u32, f32)> = (0..).zip(all).collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    for k in [1, 2, 40, 64] {
        backend.truncate(2);
        let found = block_on(backend.forward(&[7], OutputKind::TopK(k))).unwrap();
        assert_eq!(found, Output::TopK(order[..k].to_vec()), "{k}");
    }
    backend.truncate(2);
    assert_eq!(block_on(backend.forward(&[7], OutputKind::Argmax)).unwrap(), Output::Token(order[0].0));
    backend.truncate(2);
    assert!(
        matches!(block_on(backend.forward(&[7], OutputKind::TopK(65))).unwrap(), Output::Logits(all) if all.len() == 777)
    );
}

/// 64 choices and 128 logits take the same number of bytes.
#[test]
fn choices_are_not_taken_for_logits() {
    let Some(gpu) = gpu() else { return };
    let weights = synthetic::weights(
        synthetic::config([128, 32, 1, 2, 1, 32]),
        storage(GgmlType::Q8_0, GgmlType::Q8_0, false),
        4,
    )
    .unwrap();
    let mut backend = block_on(GpuBackend::new(&gpu, &weights)).unwrap();
    let found = block_on(backend.forward(&[1], OutputKind::TopK(64))).unwrap();
    assert!(matches!(&found, Output::TopK(choices) if choices.len() == 64), "{found:?}");
}

#[test]
fn rollback_forks_and_long_prompts() {
    let Some(gpu) = gpu() else { return };
    let weights =
        synthetic::weights(synthetic::config([99, 64, 2, 4, 2, 96]), storage(GgmlType::Q4_0, GgmlType::F16, false), 2)
            .unwrap();
    let mut backend = block_on(GpuBackend::new(&gpu, &weights)).unwrap();
    // More than one chunk.
    let tokens = synthetic::tokens(99, 150, 3);
    let whole = logits(&mut backend, &tokens);
    let oracle = Reference::new(&weights).logits(&tokens);
    assert!(Deviation::between(&whole, &oracle[149]).max <= 1e-3);
    let mut fork = backend.fork().unwrap();
    assert_eq!(block_on(fork.forward(&tokens[..70], OutputKind::Nothing)).unwrap(), Output::Nothing);
    block_on(fork.forward(&[1, 2, 3], OutputKind::Argmax)).unwrap();
    fork.truncate(70);
    assert!(Deviation::between(&logits(fork.as_mut(), &tokens[70..]), &whole).max <= 1e-4);
    backend.truncate(149);
    assert!(Deviation::between(&logits(&mut backend, &tokens[149..]), &whole).max <= 1e-4);
}

#[test]
fn refusals_are_errors() {
    let Some(gpu) = gpu() else { return };
    let mut config = synthetic::config([40, 30, 1, 2, 1, 8]);
    assert_eq!(config.head_dim, 15);
    let odd = synthetic::weights(config.clone(), storage(GgmlType::F32, GgmlType::F32, false), 1).unwrap();
    assert!(matches!(block_on(GpuBackend::new(&gpu, &odd)), Err(EngineError::Unsupported(_))));
    config.head_dim = 16;
    config.rope.dim = 16;
    config.context = 4;
    let weights = synthetic::weights(config, storage(GgmlType::F32, GgmlType::F32, false), 1).unwrap();
    let mut backend = block_on(GpuBackend::new(&gpu, &weights)).unwrap();
    for (tokens, want) in [
        (vec![], OutputKind::Logits),
        (vec![40], OutputKind::Logits),
        (vec![1; 5], OutputKind::Logits),
        (vec![1], OutputKind::Hidden),
    ] {
        assert!(block_on(backend.forward(&tokens, want)).is_err());
    }
    assert!(block_on(backend.forward(&[1], OutputKind::Argmax)).is_ok());
    gpu.destroy();
    let lost = block_on(backend.forward(&[1], OutputKind::Argmax));
    assert!(matches!(lost, Err(EngineError::DeviceLost(_) | EngineError::Gpu(_))), "{lost:?}");
}
