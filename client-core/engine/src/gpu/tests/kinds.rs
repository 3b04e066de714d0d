//! Every storage type and every family against the oracle.

use half::f16;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use super::*;
use crate::synthetic::Family;

/// Blocks of random codes whose weights have about the variance 1 / cols. Types without blocks keep their values.
fn random_codes(matrix: &mut Matrix<'_>, dtype: GgmlType, rng: &mut Xoshiro256PlusPlus) {
    let amplitude = (3.0 / matrix.cols as f32).sqrt();
    // The block's halves.
    let halves: &[f32] = match dtype {
        GgmlType::Q4_0 => &[1.0 / 8.0],
        GgmlType::Q4_1 => &[2.0 / 15.0, -1.0],
        GgmlType::Q5_0 => &[1.0 / 16.0],
        GgmlType::Q5_1 => &[2.0 / 31.0, -1.0],
        GgmlType::Q8_0 => &[1.0 / 128.0],
        // Scales and minima of six bits are 32 on average, those of four 7.5; those of Q3_K, Q6_K and IQ4_XS have a sign.
        GgmlType::Q4K => &[2.0 / 15.0 / 32.0, 1.0 / 32.0],
        GgmlType::Q5K => &[2.0 / 31.0 / 32.0, 1.0 / 32.0],
        GgmlType::Q6K => &[1.0 / 32.0 / 64.0],
        GgmlType::Q2K => &[2.0 / 3.0 / 7.5, 1.0 / 7.5],
        GgmlType::Q3K => &[1.0 / 4.0 / 16.0],
        GgmlType::Iq4Nl => &[1.0 / 127.0],
        GgmlType::Iq4Xs => &[1.0 / 127.0 / 16.0],
        GgmlType::Q1_0 => &[0.6],
        GgmlType::F32 | GgmlType::F16 | GgmlType::Bf16 => {
            *matrix = Matrix::encode(dtype, matrix.rows, matrix.cols, &matrix.to_f32()).unwrap();
            return;
        }
    };
    let mut bytes = vec![0; matrix.rows * dtype.row_bytes(matrix.cols).unwrap()];
    for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
        block.fill_with(|| rng.next_u64() as u8);
        let factor = 0.5 + 0.5 * (rng.next_u64() >> 40) as f32 / (1u32 << 24) as f32;
        for (at, half) in dtype.halves().iter().zip(halves) {
            block[*at..][..2].copy_from_slice(&f16::from_f32(factor * amplitude * half).to_le_bytes());
        }
    }
    *matrix = Matrix { dtype, rows: matrix.rows, cols: matrix.cols, bytes: bytes.into() };
}

pub(super) fn with_codes(mut weights: ModelWeights<'static>, dtype: GgmlType, seed: u64) -> ModelWeights<'static> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    for layer in &mut weights.layers {
        for matrix in
            [&mut layer.q, &mut layer.k, &mut layer.v, &mut layer.o, &mut layer.gate, &mut layer.up, &mut layer.down]
        {
            random_codes(matrix, dtype, &mut rng);
        }
    }
    random_codes(&mut weights.embedding, dtype, &mut rng);
    if let Some(output) = &mut weights.output {
        random_codes(output, dtype, &mut rng);
    }
    weights
}

/// The largest difference over calls of these numbers of tokens.
pub(super) fn worst(backend: &mut dyn Backend, weights: &ModelWeights<'_>, calls: &[usize]) -> f32 {
    let tokens = synthetic::tokens(weights.config.vocab, calls.iter().sum(), 9);
    let expect = Reference::new(weights).logits(&tokens);
    let mut worst = 0f32;
    let mut at = 0;
    for &columns in calls {
        let found = logits(backend, &tokens[at..at + columns]);
        at += columns;
        let deviation = Deviation::between(&found, &expect[at - 1]);
        assert!(deviation.same_choice, "{columns} columns: {deviation:?}");
        worst = worst.max(deviation.max);
    }
    worst
}

#[test]
fn every_storage_type() {
    let Some(gpu) = gpu() else { return };
    for (dtype, untied) in GgmlType::ALL.into_iter().zip([false, true].into_iter().cycle()) {
        let config = synthetic::config([300, 256, 2, 4, 2, 512]);
        let plain = synthetic::weights(config, storage(GgmlType::F32, GgmlType::F32, untied), 11).unwrap();
        let weights = with_codes(plain, dtype, 12);
        let found = worst(&mut backend(&gpu, &weights), &weights, &[20, 1]);
        println!("{}: {found:.1e}", dtype.name());
        assert!(found <= 1e-3, "{}: {found}", dtype.name());
    }
}

/// Rows long enough for 16 and 32 lanes, matrices large enough for two units to a group.
#[test]
fn long_rows_and_many_rows() {
    let Some(gpu) = gpu() else { return };
    for (vocab, ffn) in [(4500, 8192), (80, 2048)] {
        let config = synthetic::config([vocab, 64, 1, 4, 1, ffn]);
        let weights = synthetic::weights(config, storage(GgmlType::Q4_0, GgmlType::Q8_0, false), 13).unwrap();
        let found = worst(&mut backend(&gpu, &weights), &weights, &[10, 3, 1]);
        assert!(found <= 1e-3, "{ffn}: {found}");
    }
}

/// Biases, norms of heads and on both sides, caps, blocks without positions, windows, scaled rotations; a window shorter than a tile of
/// attention, one that ends inside the prompt, one as long as everything.
#[test]
fn every_family() {
    let Some(gpu) = gpu() else { return };
    let families = [
        Family::Llama,
        Family::Qwen2,
        Family::Qwen3,
        Family::SmolLm3,
        Family::Mistral(1),
        Family::Mistral(5),
        Family::Mistral(70),
        Family::Mistral(4096),
        Family::Gemma,
        Family::Gemma2(5),
        Family::Gemma3(70),
    ];
    for family in families {
        let mut config = synthetic::config([90, 64, 4, 4, 2, 96]);
        config.rope.magnitude = 1.2;
        config.rope.dim = 12;
        let weights =
            synthetic::weights_like(family, config, storage(GgmlType::Q8_0, GgmlType::F16, false), 21).unwrap();
        let mut single = backend(&gpu, &weights);
        let found = worst(&mut single, &weights, &[90, 3, 1, 1]);
        let per_layer = (single.counters().dispatches as usize / 4 - 2).div_ceil(4);
        let mut half = block_on(GpuBackend::with_cache(&gpu, &weights, KernelSet::BASELINE, true)).unwrap();
        let halves = worst(&mut half, &weights, &[90, 1]);
        println!("{family:?}: {found:.1e}, with a KV cache of halves {halves:.1e}; {per_layer} dispatches a layer");
        assert!(found <= 1e-3 && halves <= 5e-3, "{family:?}: {found}, {halves}");
        let most = if matches!(family, Family::Gemma2(_) | Family::Gemma3(_)) { 8 } else { 6 };
        assert!(per_layer <= most, "{family:?}: {per_layer}");
    }
}

/// Only one of the two norms.
#[test]
fn a_single_norm_of_heads() {
    let Some(gpu) = gpu() else { return };
    for keep_queries in [true, false] {
        let config = synthetic::config([40, 64, 1, 2, 1, 64]);
        let stored = storage(GgmlType::F32, GgmlType::F32, false);
        let mut weights = synthetic::weights_like(Family::Qwen3, config, stored, 3).unwrap();
        let traits = &mut weights.layers[0].traits;
        if keep_queries { &mut traits.k_norm } else { &mut traits.q_norm }.take();
        assert!(worst(&mut backend(&gpu, &weights), &weights, &[12, 1]) <= 1e-3);
    }
}

/// A self-test that is to end does so after the kernel test that is under way; the next one goes on with its report.
#[test]
fn a_stopped_test_goes_on_later() {
    let Some(gpu) = gpu() else { return };
    let config = synthetic::config([40, 256, 1, 2, 1, 256]);
    let weights = synthetic::weights(config, storage(GgmlType::Q8_0, GgmlType::Q8_0, false), 3).unwrap();
    let mut seen = Vec::new();
    let mut self_test = |known, kernel_tests: usize| {
        let mut left = kernel_tests;
        let mut go_on = |report: &SelfTestReport, counts: [u64; 2]| {
            seen.push((report.clone(), counts));
            let more = left > 0;
            left = left.saturating_sub(1);
            more
        };
        block_on(gpu.clone().self_test_while(KernelSet::BASELINE, &weights, known, &|| 0.0, &mut go_on)).unwrap().1
    };
    let first = self_test(None, 1);
    assert_eq!((first.passed.as_slice(), first.failed.len()), (&["choosing tokens".to_owned()][..], 0));
    let whole = self_test(Some(first.clone()), usize::MAX);
    assert_eq!(whole.passed, ["choosing tokens", "KV cache in half precision", "Q8_0"]);
    let counts: Vec<_> = seen.iter().map(|(_, counts)| *counts).collect();
    assert_eq!(counts, [[0, 3], [1, 3], [0, 2], [1, 2]], "nothing is tried twice");
    assert_eq!((&seen[1].0, &seen[2].0), (&first, &first));
}

/// What the adapter offers beyond the baseline holds here, and what a report of this device tells is not tried again.
#[test]
fn kernels_are_proved_once() {
    let Some(plain) = gpu() else { return };
    // Packed products have a test of their own.
    let all = KernelSet { half: true, packed: false, ..KernelSet::EXACT };
    let stored = |dtype| {
        let config = synthetic::config([40, 256, 1, 2, 1, 256]);
        synthetic::weights(config, storage(dtype, GgmlType::Q8_0, false), 3).unwrap()
    };
    let self_test = |weights: &ModelWeights<'_>, known: Option<SelfTestReport>| {
        let gpu = another();
        block_on(gpu.self_test(all, weights, known, &|| 0.0)).unwrap()
    };
    let q4_0 = stored(GgmlType::Q4_0);
    let (gpu, report) = self_test(&q4_0, None);
    println!("{report:?}");
    let caps = plain.caps();
    // They are right for subgroups of every size (SwiftShader's have four threads, most GPUs' 32).
    assert_eq!(gpu.kernels().subgroups, caps.subgroups, "{report:?}");
    assert!(["Q4_0", "Q8_0", "F32", "choosing tokens"].iter().all(|name| report.passed.iter().any(|it| it == name)));
    assert!(report.check(&q4_0).is_ok());
    assert_eq!(plain.kernels(), KernelSet::BASELINE);

    // Taken as it is, though no test can have found this.
    let fault = |name: &str| (name.to_owned(), "a driver's fault".to_owned());
    let without = |name: &str| report.passed.iter().filter(|passed| *passed != name).cloned().collect();
    let known = SelfTestReport { passed: without("subgroups"), failed: vec![fault("subgroups")], ..report.clone() };
    let (again, taken) = self_test(&q4_0, Some(known.clone()));
    assert_eq!((&taken, again.kernels().subgroups), (&known, false));
    assert_eq!(taken.dropped().collect::<Vec<_>>(), [&fault("subgroups")]);
    assert!(taken.check(&q4_0).is_ok());

    // A model that needs what failed is not computed; another type is tried, and only that.
    let known = SelfTestReport { passed: without("Q4_0"), failed: vec![fault("Q4_0")], ..report.clone() };
    let q6_k = stored(GgmlType::Q6K);
    let (_, more) = self_test(&q6_k, Some(known.clone()));
    assert_eq!(more.passed, [known.passed.clone(), vec!["Q6_K".to_owned()]].concat());
    assert!(more.check(&q6_k).is_ok());
    let refused = more.check(&q4_0).unwrap_err().to_string();
    assert!(refused.contains("Q4_0") && refused.contains("a driver's fault"), "{refused}");

    // Of other kernels or of another device: worth nothing.
    for other in [SelfTestReport { version: 0, ..known.clone() }, SelfTestReport { device: "another".into(), ..known }]
    {
        assert_eq!(self_test(&q4_0, Some(other)).1, report);
    }
    if gpu.kernels().subgroups {
        let set = KernelSet { subgroups: true, ..KernelSet::BASELINE };
        let weights = synthetic::weights(
            synthetic::config([70, 64, 2, 2, 1, 96]),
            storage(GgmlType::Q4_0, GgmlType::F16, true),
            5,
        )
        .unwrap();
        let mut backend = block_on(GpuBackend::with_kernels(&gpu, &weights, set)).unwrap();
        assert!(worst(&mut backend, &weights, &[12, 3, 1]) <= 1e-3);
    }
}

/// What only Gemma needs is tried for Gemma, and no other model is refused for it.
#[test]
fn gemmas_kernels_are_proved_for_gemma() {
    let Some(plain) = gpu() else { return };
    let of = |family| {
        let config = synthetic::config([40, 64, 1, 2, 1, 64]);
        synthetic::weights_like(family, config, storage(GgmlType::Q8_0, GgmlType::Q8_0, false), 3).unwrap()
    };
    let passed = ["choosing tokens", "KV cache in half precision", "Q8_0"].map(str::to_owned).to_vec();
    let known = SelfTestReport { passed, ..SelfTestReport::of(&plain) };
    let self_test = |weights: &ModelWeights<'_>| {
        let gpu = another();
        block_on(gpu.self_test(KernelSet::BASELINE, weights, Some(known.clone()), &|| 0.0)).unwrap().1
    };
    assert_eq!(self_test(&of(Family::Llama)), known);
    let found = self_test(&of(Family::Gemma3(5)));
    assert_eq!(found.passed.last().map(String::as_str), Some("Gemma"), "{found:?}");
    let failed = SelfTestReport { failed: vec![("Gemma".to_owned(), "a driver's fault".to_owned())], ..known };
    assert!(failed.check(&of(Family::Llama)).is_ok());
    assert!(failed.check(&of(Family::Gemma)).unwrap_err().to_string().contains("a driver's fault"));
}
