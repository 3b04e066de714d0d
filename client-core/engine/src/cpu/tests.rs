//! The CPU backend against the oracle, on random models of many shapes.

use pollster::block_on;
use proptest::prelude::*;

use super::*;
use crate::backend::Draw;
use crate::gguf::GgmlType;
use crate::reference::{Deviation, Reference};
use crate::synthetic::{self, Storage};

fn logits(backend: &mut CpuBackend, tokens: &[u32]) -> Vec<f32> {
    match block_on(backend.forward(tokens, OutputKind::Logits)).unwrap() {
        Output::Logits(logits) => logits,
        other => panic!("{other:?}"),
    }
}

fn storage(blocks: GgmlType, embedding: GgmlType, untied: bool) -> Storage {
    Storage { blocks, embedding, untied }
}

/// Single-precision weights leave no excuse: the two must agree to rounding.
#[test]
fn unquantised_models_agree_to_rounding() {
    for (shape, blocks) in [
        ([50, 24, 2, 3, 1, 40], GgmlType::F32),
        ([33, 20, 1, 2, 2, 7], GgmlType::F32),
        ([64, 64, 3, 4, 2, 96], GgmlType::F16),
    ] {
        for untied in [false, true] {
            let weights = synthetic::weights(synthetic::config(shape), storage(blocks, blocks, untied), 3).unwrap();
            let tokens = synthetic::tokens(shape[0], 20, 9);
            let expect = Reference::new(&weights).logits(&tokens);
            for form in [Form::Singles, Form::Stored] {
                let mut backend = CpuBackend::with_form(&weights, form).unwrap();
                let deviation = Deviation::between(&logits(&mut backend, &tokens), &expect[19]);
                assert!(deviation.max < 2e-4 && deviation.same_choice, "{shape:?} {form:?}: {deviation:?}");
            }
        }
    }
}

/// Activations are rounded to eight bits: 2 % of the logits' spread. In single precision there is no excuse.
#[test]
fn quantised_models_stay_within_the_bound() {
    for (shape, blocks, embedding) in [
        ([2048, 256, 6, 8, 4, 704], GgmlType::Q8_0, GgmlType::Q8_0),
        ([2048, 128, 4, 4, 2, 352], GgmlType::Q4_0, GgmlType::Q8_0),
        ([300, 96, 2, 3, 3, 160], GgmlType::Q4_0, GgmlType::F16),
    ] {
        let weights = synthetic::weights(synthetic::config(shape), storage(blocks, embedding, false), 5).unwrap();
        let tokens = synthetic::tokens(shape[0], 64, 11);
        let expect = Reference::new(&weights).logits(&tokens);
        let mut stored = CpuBackend::with_form(&weights, Form::Stored).unwrap();
        let deviation = Deviation::between(&logits(&mut stored, &tokens), &expect[63]);
        assert!(deviation.median_share <= 2e-2 && deviation.same_choice, "{shape:?} {blocks:?}: {deviation:?}");
        let mut single = CpuBackend::new(&weights).unwrap();
        let deviation = Deviation::between(&logits(&mut single, &tokens), &expect[63]);
        assert!(deviation.max <= 1e-4, "{shape:?} {blocks:?}: {deviation:?}");
    }
}

#[test]
fn hidden_states_are_the_oracles() {
    let config = synthetic::config([40, 32, 2, 4, 2, 48]);
    let weights = synthetic::weights(config, storage(GgmlType::F32, GgmlType::F32, false), 1).unwrap();
    let tokens = synthetic::tokens(40, 9, 2);
    let expect: Vec<f32> = Reference::new(&weights).hidden(&tokens).concat();
    let mut backend = CpuBackend::new(&weights).unwrap();
    let Output::Hidden(found) = block_on(backend.forward(&tokens, OutputKind::Hidden)).unwrap() else { panic!() };
    assert!(Deviation::between(&found, &expect).max < 1e-4);
}

#[test]
fn bad_input_leaves_the_cache_as_it_was() {
    let mut config = synthetic::config([40, 32, 2, 4, 2, 64]);
    config.context = 8;
    let weights = synthetic::weights(config, storage(GgmlType::Q8_0, GgmlType::Q8_0, false), 1).unwrap();
    let mut backend = CpuBackend::new(&weights).unwrap();
    let before = logits(&mut backend, &[1, 2, 3]);
    for (tokens, expect) in [(vec![], "empty"), (vec![40], "vocabulary"), (vec![0; 6], "context")] {
        let error = block_on(backend.forward(&tokens, OutputKind::Logits)).unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
        assert_eq!(backend.len(), 3);
    }
    backend.truncate(2);
    assert_eq!(logits(&mut backend, &[3]), before);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// However a sequence is cut into calls, and whatever was rolled back in between, its last logits are the same.
    #[test]
    fn chunks_and_rollback_do_not_matter(cut in 1usize..11, wrong in 1usize..5, seed in 0u64..1000) {
        let config = synthetic::config([40, 32, 2, 4, 2, 48]);
        let weights = synthetic::weights(config, storage(GgmlType::F32, GgmlType::F32, false), seed).unwrap();
        let tokens = synthetic::tokens(40, 12, seed);
        let mut backend = CpuBackend::new(&weights).unwrap();
        let whole = logits(&mut backend, &tokens);
        let mut other = backend.fork().unwrap();
        block_on(other.forward(&tokens[..cut], OutputKind::Nothing)).unwrap();
        block_on(other.forward(&synthetic::tokens(40, wrong, seed + 1), OutputKind::Nothing)).unwrap();
        other.truncate(cut);
        let Output::Logits(found) = block_on(other.forward(&tokens[cut..], OutputKind::Logits)).unwrap() else { panic!() };
        prop_assert!(Deviation::between(&found, &whole).max < 1e-4);
    }
}

/// Biases, norms inside attention, norms on both sides, caps, blocks without positions, windows, and a scaled RoPE: each family's own, in two calls.
#[test]
fn families_agree_to_rounding() {
    use crate::synthetic::Family;
    let families = [
        Family::Qwen2,
        Family::Qwen3,
        Family::SmolLm3,
        Family::Mistral(1),
        Family::Mistral(6),
        Family::Gemma,
        Family::Gemma2(6),
        Family::Gemma3(6),
    ];
    for family in families {
        let mut config = synthetic::config([50, 24, 5, 3, 1, 40]);
        config.rope.magnitude = 1.2;
        let weights = synthetic::weights_like(family, config, storage(GgmlType::F32, GgmlType::F32, false), 3).unwrap();
        let tokens = synthetic::tokens(50, 20, 9);
        let expect = Reference::new(&weights).logits(&tokens);
        for form in [Form::Singles, Form::Stored] {
            let mut backend = CpuBackend::with_form(&weights, form).unwrap();
            logits(&mut backend, &tokens[..13]);
            let deviation = Deviation::between(&logits(&mut backend, &tokens[13..]), &expect[19]);
            assert!(deviation.max < 2e-4 && deviation.same_choice, "{family:?} {form:?}: {deviation:?}");
        }
    }
}

/// A step over several rows gives every row to the last bit what it gets alone, whichever rows take part.
#[test]
fn rows_of_a_batch_are_sequences_alone() {
    use crate::synthetic::Family;
    let cases = [(Family::Llama, GgmlType::Q8_0), (Family::Qwen3, GgmlType::Q4_0), (Family::Mistral(4), GgmlType::F16)];
    for (family, blocks) in cases {
        let config = synthetic::config([60, 64, 2, 4, 2, 96]);
        let weights = synthetic::weights_like(family, config, storage(blocks, GgmlType::Q8_0, true), 3).unwrap();
        for form in [Form::Singles, Form::Stored] {
            let backend = CpuBackend::with_form(&weights, form).unwrap();
            let mut batch = block_on(backend.batch(3, 64)).unwrap();
            let mut alone: Vec<_> = (0..3).map(|_| backend.fork().unwrap()).collect();
            for (row, alone) in (0..).zip(&mut alone) {
                let prompt = synthetic::tokens(60, 5 + 9 * row, row as u64);
                let found = block_on(batch.forward(row, &prompt, OutputKind::Logits)).unwrap();
                assert_eq!(found, block_on(alone.forward(&prompt, OutputKind::Logits)).unwrap());
            }
            for (token, rows) in (7..).zip([&[0, 1, 2][..], &[0, 2], &[1], &[1, 2], &[0, 1, 2]]) {
                let turn = |row: &usize| Turn { row: *row, token: token + *row as u32, draw: Draw::default() };
                let turns: Vec<Turn> = rows.iter().map(turn).collect();
                let found = block_on(batch.step(&turns)).unwrap();
                assert_eq!(found.len(), rows.len());
                for (turn, found) in turns.iter().zip(found) {
                    let alone = &mut alone[turn.row];
                    let expect = block_on(alone.forward(&[turn.token], OutputKind::Logits)).unwrap();
                    assert!(Output::Logits(found) == expect, "{family:?} {form:?} row {}", turn.row);
                    assert_eq!(batch.len(turn.row), alone.len());
                }
            }
            // A row that is taken back does not touch the others.
            batch.truncate(1, 2);
            alone[1].truncate(2);
            let turns = [1, 2].map(|row| Turn { row, token: 3, draw: Draw::default() });
            let found = block_on(batch.step(&turns)).unwrap();
            for (turn, found) in turns.iter().zip(found) {
                let expect = block_on(alone[turn.row].forward(&[3], OutputKind::Logits)).unwrap();
                assert!(Output::Logits(found) == expect);
            }
        }
    }
}

#[test]
fn steps_that_cannot_be_are_refused() {
    let weights =
        synthetic::weights(synthetic::config([40, 32, 1, 2, 1, 32]), storage(GgmlType::Q8_0, GgmlType::Q8_0, false), 1)
            .unwrap();
    let backend = CpuBackend::new(&weights).unwrap();
    let mut batch = block_on(backend.batch(2, 2)).unwrap();
    let turn = |row, token| Turn { row, token, draw: Draw::default() };
    block_on(batch.step(&[turn(0, 1), turn(1, 2)])).unwrap();
    let bad: [&[Turn]; 5] =
        [&[], &[turn(1, 1), turn(0, 1)], &[turn(0, 1), turn(0, 1)], &[turn(2, 1)], &[turn(0, 1), turn(1, 40)]];
    for turns in bad {
        assert!(block_on(batch.step(turns)).is_err(), "{turns:?}");
    }
    assert_eq!((batch.len(0), batch.len(1)), (1, 1));
    block_on(batch.step(&[turn(0, 1)])).unwrap();
    assert!(matches!(block_on(batch.step(&[turn(0, 1)])), Err(EngineError::PromptTooLong { context: 2, .. })));
    assert!(block_on(batch.forward(2, &[1], OutputKind::Logits)).is_err());
}
