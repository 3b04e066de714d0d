//! Products of packed bytes, whether they are the faster ones on the device or not.

use std::cell::Cell;

use super::kinds::{with_codes, worst};
use super::*;

const PACKED: KernelSet = KernelSet { packed: true, ..KernelSet::BASELINE };

/// A device that knows the instruction, or whose compiler writes it out, which natively every one does.
fn packing_gpu() -> Option<GpuContext> {
    let gpu = gpu()?;
    assert!(gpu.caps().packed, "{:?} has no packed 4x8-bit products", gpu.caps());
    Some(gpu)
}

fn packed(gpu: &GpuContext, weights: &ModelWeights<'_>) -> GpuBackend {
    block_on(GpuBackend::with_kernels(gpu, weights, PACKED)).unwrap()
}

/// Rows that are no whole tiles, an odd number of blocks to a row, columns that are no whole tiles and several of them.
#[test]
fn every_quantised_type_in_packed_bytes() {
    let Some(gpu) = packing_gpu() else { return };
    for dtype in GgmlType::ALL.into_iter().filter(|dtype| dtype.block_len() > 1) {
        // Queries, keys and values are two tiles and a half, or four and a half.
        let shape = if dtype.block_len() > 32 { [77, 256, 1, 16, 1, 256] } else { [77, 96, 1, 3, 1, 160] };
        let config = synthetic::config(shape);
        let plain = synthetic::weights(config, storage(GgmlType::F32, GgmlType::F32, true), 31).unwrap();
        let weights = with_codes(plain, dtype, 32);
        let mut backend = packed(&gpu, &weights);
        let found = worst(&mut backend, &weights, &[5, 33, 128]);
        println!("{}: {found:.1e}", dtype.name());
        assert!(found <= 1e-3, "{}: {found}", dtype.name());
    }
}

/// Columns of nothing but zeros, with a block of zeros, with an element that is far larger than its block's others, and
/// with elements whose squares vanish: every logit is a number, and none is off. The head has an odd number of rows.
#[test]
fn columns_that_are_hard_to_scale() {
    let Some(gpu) = packing_gpu() else { return };
    let config = synthetic::config([77, 96, 1, 3, 1, 96]);
    let mut weights = synthetic::weights(config, storage(GgmlType::Q4_0, GgmlType::F32, true), 41).unwrap();
    let mut table = weights.embedding.to_f32();
    for (token, row) in table.chunks_exact_mut(96).enumerate() {
        match token % 5 {
            0 => row.fill(0.0),
            1 => row[32..64].fill(0.0),
            2 => row[7] = 10.0,
            3 => row.iter_mut().for_each(|x| *x *= 1e-25),
            _ => {}
        }
    }
    weights.embedding = Matrix::encode(GgmlType::F32, 77, 96, &table).unwrap();
    let tokens: Vec<u32> = (0..77).collect();
    let oracle = Reference::new(&weights).logits(&tokens);
    let mut backend = packed(&gpu, &weights);
    let all = match block_on(backend.forward(&tokens, OutputKind::AllLogits)).unwrap() {
        Output::AllLogits(all) => all,
        other => panic!("{other:?}"),
    };
    for (token, (found, expected)) in all.chunks_exact(77).zip(&oracle).enumerate() {
        let Deviation { max, .. } = Deviation::between(found, expected);
        assert!(max <= 1e-3, "{token}: {max}");
    }
}

/// They are used where they hold and are faster, by the caller's clock, and what a report tells is not timed again.
#[test]
fn packed_bytes_are_used_where_they_are_faster() {
    let Some(gpu) = packing_gpu() else { return };
    let weights =
        synthetic::weights(synthetic::config([40, 64, 1, 2, 1, 64]), storage(GgmlType::Q4_0, GgmlType::F16, false), 3)
            .unwrap();
    // Each timing asks twice. The first three are to compile and to count, then single and packed take turns.
    let (now_s, asked) = (Cell::new(0.0), Cell::new(0));
    let clock = || {
        let timing = asked.get() / 2;
        if asked.get() % 2 == 1 {
            now_s.set(now_s.get() + if timing % 2 == 1 { 2.0 } else { 1.0 });
        }
        asked.set(asked.get() + 1);
        now_s.get()
    };
    let self_test =
        |weights: &ModelWeights<'_>, known| block_on(gpu.clone().self_test(PACKED, weights, known, &clock)).unwrap();
    let (tested, report) = self_test(&weights, None);
    assert_eq!(report.pace, Some(PrefillTimes { single_us: 2_000_000, packed_us: 1_000_000 }), "{report:?}");
    assert_eq!(tested.kernels(), PACKED);
    assert_eq!(PACKED.names(), ["packed 4x8"]);

    let timings = asked.get();
    let slower = SelfTestReport { pace: Some(PrefillTimes { single_us: 1000, packed_us: 3000 }), ..report.clone() };
    let (tested, taken) = self_test(&weights, Some(slower.clone()));
    assert_eq!((taken, tested.kernels()), (slower, KernelSet::BASELINE));
    assert_eq!(report.dropped().count(), 0);
    assert_eq!(asked.get(), timings);

    // Nothing to pack, nothing to try.
    let plain =
        synthetic::weights(synthetic::config([40, 64, 1, 2, 1, 64]), storage(GgmlType::F16, GgmlType::F16, false), 3)
            .unwrap();
    assert_eq!(self_test(&plain, None).1.pace, None);
    assert_eq!(asked.get(), timings);
}
