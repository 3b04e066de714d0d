//! Several sequences in one pass, against each alone.

use super::*;
use crate::backend::{Draw, Turn};
use crate::sampler::Sampler;
use crate::synthetic::Family;

/// Rows of different lengths, of which some take part in a step and some do not, with norms of heads, windows and both
/// kinds of caches; a row that is taken back and read anew.
#[test]
fn rows_are_sequences_alone() {
    let Some(gpu) = gpu() else { return };
    let cases = [
        (Family::Llama, GgmlType::Q4_0, false),
        (Family::Qwen3, GgmlType::Q8_0, true),
        (Family::Mistral(5), GgmlType::F16, false),
    ];
    for (family, blocks, half_cache) in cases {
        let config = synthetic::config([70, 64, 2, 4, 2, 96]);
        let weights = synthetic::weights_like(family, config, storage(blocks, GgmlType::Q8_0, true), 3).unwrap();
        let backend = block_on(GpuBackend::with_cache(&gpu, &weights, KernelSet::BASELINE, half_cache)).unwrap();
        let mut batch = block_on(backend.batch(4, 64)).unwrap();
        let mut alone: Vec<_> = (0..4).map(|_| backend.fork().unwrap()).collect();
        for (row, alone) in (0..).zip(&mut alone) {
            let prompt = synthetic::tokens(70, 1 + 7 * row, row as u64);
            let Output::Logits(found) = block_on(batch.forward(row, &prompt, OutputKind::Logits)).unwrap() else {
                panic!()
            };
            assert!(Deviation::between(&found, &logits(alone.as_mut(), &prompt)).max <= 1e-5);
        }
        for (token, rows) in (7..).zip([&[0, 1, 2, 3][..], &[0, 2], &[3], &[1, 2, 3]]) {
            let turns: Vec<Turn> =
                rows.iter().map(|&row| Turn { row, token: token + row as u32, draw: Draw::default() }).collect();
            let before = batch.counters();
            let found = block_on(batch.step(&turns)).unwrap();
            assert_eq!(batch.counters().submits, before.submits + 1);
            for (turn, found) in turns.iter().zip(found) {
                let expect = logits(alone[turn.row].as_mut(), &[turn.token]);
                let deviation = Deviation::between(&found, &expect);
                assert!(deviation.max <= 1e-5, "{family:?} row {}: {deviation:?}", turn.row);
            }
        }
        batch.truncate(2, 3);
        alone[2].truncate(3);
        let prompt = synthetic::tokens(70, 20, 8);
        let Output::Logits(found) = block_on(batch.forward(2, &prompt, OutputKind::Logits)).unwrap() else { panic!() };
        assert!(Deviation::between(&found, &logits(alone[2].as_mut(), &prompt)).max <= 1e-5);
    }
}

/// Every row chooses by its own parameters what it chooses alone: one takes the likeliest, two draw, one of those with a
/// penalty, over several slices of the vocabulary.
#[test]
fn rows_choose_for_themselves() {
    let Some(gpu) = gpu() else { return };
    let config = synthetic::config([2500, 64, 1, 2, 1, 64]);
    let weights = synthetic::weights(config, storage(GgmlType::Q8_0, GgmlType::Q8_0, false), 5).unwrap();
    let backend = block_on(GpuBackend::new(&gpu, &weights)).unwrap();
    let greedy = SamplerParams { temperature: 0.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0, seed: 1 };
    let free = SamplerParams { temperature: 1.2, top_k: 40, top_p: 0.9, ..greedy };
    let rows = [greedy, free, SamplerParams { repetition_penalty: 1.3, seed: 2, ..free }];
    for rows in [&rows[..], &[greedy, greedy]] {
        let mut batch = block_on(backend.batch(rows.len(), 64)).unwrap();
        let mut draws: Vec<Sampler> = rows.iter().map(|params| Sampler::new(*params)).collect();
        let mut chosen: Vec<Vec<u32>> = Vec::new();
        let prompt = |row: usize| synthetic::tokens(2500, 4 + row, row as u64);
        for (row, params) in rows.iter().enumerate() {
            batch.begin_choosing(row, params, &prompt(row)).unwrap();
            let want = OutputKind::Choice(draws[row].draw());
            let Output::Token(first) = block_on(batch.forward(row, &prompt(row), want)).unwrap() else { panic!() };
            chosen.push(vec![first]);
        }
        for _ in 0..4 {
            let turns: Vec<Turn> = (0..rows.len())
                .map(|row| Turn { row, token: *chosen[row].last().unwrap(), draw: draws[row].draw() })
                .collect();
            for (chosen, next) in chosen.iter_mut().zip(block_on(batch.step_choosing(&turns)).unwrap()) {
                chosen.push(next);
            }
        }
        for (row, params) in rows.iter().enumerate() {
            let mut alone = backend.fork().unwrap();
            let mut draws = Sampler::new(*params);
            alone.begin_choosing(params, &prompt(row)).unwrap();
            let want = OutputKind::Choice(draws.draw());
            let Output::Token(first) = block_on(alone.forward(&prompt(row), want)).unwrap() else { panic!() };
            let mut expect = vec![first];
            for _ in 0..4 {
                alone.queue(draws.draw()).unwrap();
                expect.push(block_on(alone.next_choice()).unwrap());
            }
            assert_eq!(chosen[row], expect, "row {row} of {}", rows.len());
        }
    }
}

/// A step costs what one token costs, and one submission.
#[test]
fn a_step_costs_a_tokens_dispatches() {
    let Some(gpu) = gpu() else { return };
    let config = synthetic::config([64, 32, 3, 2, 1, 32]);
    let weights = synthetic::weights(config, storage(GgmlType::Q4_0, GgmlType::Q8_0, false), 1).unwrap();
    let backend = block_on(GpuBackend::new(&gpu, &weights)).unwrap();
    let mut batch = block_on(backend.batch(4, 1000)).unwrap();
    let greedy = SamplerParams { temperature: 0.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0, seed: 1 };
    (0..4).for_each(|row| batch.begin_choosing(row, &greedy, &[]).unwrap());
    let turns = [0, 1, 2, 3].map(|row| Turn { row, token: 1, draw: Draw::default() });
    block_on(batch.step_choosing(&turns)).unwrap();
    assert_eq!(batch.counters(), Counters { dispatches: 5 * 3 + 4, submits: 1 });
    assert!(block_on(backend.batch(5, 8)).is_err());
    let Err(error) = block_on(batch.forward(0, &[1], OutputKind::Hidden)) else { panic!() };
    assert!(matches!(error, EngineError::NotOffered { .. }));
}
