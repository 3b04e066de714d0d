//! Blocks by hand, and candle's port of ggml as the second opinion.

use super::*;

#[test]
fn q4_0_block_by_hand() {
    // d = 0.5; byte 0 holds code 0 (−8) below and code 15 (+7) above.
    let mut block = vec![0u8; 18];
    block[..2].copy_from_slice(&f16::from_f32(0.5).to_le_bytes());
    block[2] = 0xF0;
    block[17] = 0x8C;
    let mut out = [0f32; 32];
    assert!(dequantize(GgmlType::Q4_0, &block, &mut out));
    assert_eq!((out[0], out[16]), (-4.0, 3.5));
    assert_eq!((out[15], out[31]), (2.0, 0.0));
}

#[test]
fn q8_0_block_by_hand() {
    let mut block = vec![0u8; 34];
    block[..2].copy_from_slice(&f16::from_f32(0.25).to_le_bytes());
    block[2] = 0x80;
    block[33] = 127;
    let mut out = [0f32; 32];
    assert!(dequantize(GgmlType::Q8_0, &block, &mut out));
    assert_eq!((out[0], out[1], out[31]), (-32.0, 0.0, 31.75));
}

#[test]
fn lengths_that_do_not_belong_together_are_refused() {
    for dtype in [GgmlType::Q4_0, GgmlType::Q8_0, GgmlType::F16, GgmlType::F32] {
        assert!(!dequantize(dtype, &[0; 19], &mut [0.0; 32]), "{dtype:?}");
    }
    assert!(quantize(GgmlType::Q4_0, &[0.0; 31]).is_none());
}

#[test]
fn round_trip_stays_within_half_a_step() {
    let values: Vec<f32> = (0..256).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.013).collect();
    for (dtype, steps) in [(GgmlType::Q8_0, 127.0), (GgmlType::Q4_0, 8.0)] {
        let coded = quantize(dtype, &values).expect("whole blocks");
        let mut back = vec![0.0; values.len()];
        assert!(dequantize(dtype, &coded, &mut back));
        for (block, decoded) in values.chunks(BLOCK).zip(back.chunks(BLOCK)) {
            let largest = block.iter().fold(0f32, |m, v| m.max(v.abs()));
            // Q4_0 clips the side opposite to the extreme by up to a whole step; half-precision scales add 0.1 %.
            let bound = largest / steps * if dtype == GgmlType::Q4_0 { 1.02 } else { 0.51 } + largest * 1e-3;
            for (a, b) in block.iter().zip(decoded) {
                assert!((a - b).abs() <= bound, "{dtype:?}: {a} became {b}");
            }
        }
    }
}

/// candle's port of ggml is the second opinion.
#[cfg(feature = "cpu")]
#[test]
fn agrees_with_candle_bit_for_bit() {
    use candle_core::quantized::{GgmlDType, QTensor};
    use candle_core::{Device, Tensor};
    let values: Vec<f32> = (0..4096u32)
        .map(|i| (f64::from(i.wrapping_mul(2_654_435_761) >> 8) / f64::from(1 << 24) - 0.5) as f32)
        .collect();
    let tensor = Tensor::from_slice(&values, (64, 64), &Device::Cpu).unwrap();
    for (ours, theirs) in [(GgmlType::Q4_0, GgmlDType::Q4_0), (GgmlType::Q8_0, GgmlDType::Q8_0)] {
        let q = QTensor::quantize(&tensor, theirs).unwrap();
        let bytes = q.data().unwrap();
        assert_eq!(quantize(ours, &values).unwrap(), bytes.as_ref(), "{ours:?} codes");
        let mut out = vec![0.0; values.len()];
        assert!(dequantize(ours, &bytes, &mut out));
        let expect = q.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(out.iter().zip(&expect).all(|(a, b)| a.to_bits() == b.to_bits()), "{ours:?} values");
    }
}

/// Every type that candle has, on blocks of random bytes: any bytes are a block, and the scales' exponents are kept small so
/// that no value is infinite, where bits of a NaN could differ.
#[cfg(feature = "cpu")]
#[test]
fn random_blocks_agree_with_candle_bit_for_bit() {
    use candle_core::Device;
    use candle_core::quantized::{GgmlDType, QStorage, QTensor};
    use rand_xoshiro::Xoshiro256PlusPlus;
    use rand_xoshiro::rand_core::{Rng, SeedableRng};
    let cases: [(GgmlType, GgmlDType); 10] = [
        (GgmlType::Q4_0, GgmlDType::Q4_0),
        (GgmlType::Q4_1, GgmlDType::Q4_1),
        (GgmlType::Q5_0, GgmlDType::Q5_0),
        (GgmlType::Q5_1, GgmlDType::Q5_1),
        (GgmlType::Q8_0, GgmlDType::Q8_0),
        (GgmlType::Q4K, GgmlDType::Q4K),
        (GgmlType::Q5K, GgmlDType::Q5K),
        (GgmlType::Q6K, GgmlDType::Q6K),
        (GgmlType::Q3K, GgmlDType::Q3K),
        (GgmlType::Q2K, GgmlDType::Q2K),
    ];
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(11);
    for (ours, theirs) in cases {
        let blocks = 512;
        let mut bytes = vec![0u8; blocks * ours.block_bytes()];
        rng.fill_bytes(&mut bytes);
        for block in bytes.chunks_exact_mut(ours.block_bytes()) {
            for at in ours.halves() {
                // Clears the exponent's top bit: |value| < 2, subnormals and both signs included.
                block[at + 1] &= 0xBF;
            }
        }
        // candle wants blocks at even addresses.
        let aligned: Vec<u16> = bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_ne_bytes(*pair)).collect();
        let storage = QStorage::from_data(bytemuck::cast_slice::<u16, u8>(&aligned).into(), &Device::Cpu, theirs);
        let tensor = QTensor::new(storage.unwrap(), (blocks, ours.block_len())).unwrap();
        let expect = tensor.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let mut out = vec![0.0; expect.len()];
        assert!(dequantize(ours, &bytes, &mut out));
        for (i, (a, b)) in out.iter().zip(&expect).enumerate() {
            assert_eq!(a.to_bits(), b.to_bits(), "{ours:?} element {i}: {a} and {b}");
        }
        assert!(expect.iter().all(|v| v.is_finite()) && expect.iter().any(|v| *v != 0.0), "{ours:?}");
    }
}
