//! Choosing on the device, steps that run ahead, logits of every position, snapshots.

use super::*;
use crate::backend::Draw;
use crate::sampler::{Sampler, SamplerParams};

fn params(temperature: f32, top_k: usize, top_p: f32, repetition_penalty: f32) -> SamplerParams {
    SamplerParams { temperature, top_k, top_p, repetition_penalty, seed: 5 }
}

fn small(vocab: usize, seed: u64) -> ModelWeights<'static> {
    let stored = storage(GgmlType::Q8_0, GgmlType::Q8_0, true);
    synthetic::weights(synthetic::config([vocab, 64, 1, 2, 1, 64]), stored, seed).unwrap()
}

fn chosen(backend: &mut dyn Backend, tokens: &[u32], draw: Draw) -> u32 {
    match block_on(backend.forward(tokens, OutputKind::Choice(draw))).unwrap() {
        Output::Token(id) => id,
        other => panic!("{other:?}"),
    }
}

/// The device chooses what the sampler chooses from the same logits, for all limits and over several slices.
#[test]
fn the_device_chooses_as_the_sampler_does() {
    let Some(gpu) = gpu() else { return };
    let cases = [
        params(0.0, 0, 1.0, 1.0),
        params(1.0, 0, 1.0, 1.0),
        params(0.7, 40, 1.0, 1.0),
        params(1.0, 2000, 0.9, 1.0),
        params(1.3, 0, 0.5, 1.0),
        params(0.8, 50, 0.95, 1.3),
        params(0.0, 0, 1.0, 1.5),
        params(0.05, 0, 0.999, 0.8),
    ];
    for vocab in [100, 2500] {
        let weights = small(vocab, 8);
        let mut backend = backend(&gpu, &weights);
        let prompt = [5, 6, 7];
        for params in cases {
            let mut sampler = Sampler::new(params);
            sampler.note(&prompt);
            let mut draws = Sampler::new(params);
            backend.truncate(0);
            let all = logits(&mut backend, &prompt);
            backend.truncate(0);
            backend.begin_choosing(&params, &prompt).unwrap();
            let mut id = chosen(&mut backend, &prompt, draws.draw());
            let mut expected = sampler.choose(&all);
            for step in 0..6 {
                assert_eq!(id, expected, "{params:?}, vocabulary of {vocab}, step {step}");
                let len = backend.len();
                let all = logits(&mut backend, &[id]);
                backend.truncate(len);
                expected = sampler.choose(&all);
                id = chosen(&mut backend, &[id], draws.draw());
            }
        }
    }
}

/// Equal logits: the first ids are kept, whichever slice they are in.
#[test]
fn ties_go_to_the_first_ids() {
    let Some(gpu) = gpu() else { return };
    let mut weights = small(2500, 3);
    // A head of zeros: all logits are equal.
    let zeros = vec![0.0; 2500 * 64];
    weights.output = Some(crate::weights::Matrix::encode(GgmlType::F32, 2500, 64, &zeros).unwrap());
    let mut backend = backend(&gpu, &weights);
    for (params, most) in
        [(params(1.0, 10, 1.0, 1.0), 10), (params(1.0, 0, 0.5, 1.0), 1250), (params(1.0, 1500, 0.1, 1.0), 150)]
    {
        let mut largest = 0;
        for n in 0..12 {
            backend.truncate(0);
            backend.begin_choosing(&params, &[]).unwrap();
            largest = largest.max(chosen(&mut backend, &[1], Draw(n * 0xff_ffff / 11)));
        }
        // Rounding may move the limit of top_p by one.
        assert!(largest.abs_diff(most - 1) <= 1, "{params:?}: {largest}");
    }
    backend.truncate(0);
    let list = block_on(backend.forward(&[1], OutputKind::TopK(5))).unwrap();
    assert_eq!(list, Output::TopK((0..5).map(|id| (id, 0.0)).collect()));
}

/// Steps that are queued before their token is known give what single calls give, in one submission each; what ran ahead
/// too far is forgotten.
#[test]
fn steps_run_ahead() {
    let Some(gpu) = gpu() else { return };
    let weights = small(300, 4);
    let mut backend = backend(&gpu, &weights);
    for params in [params(0.0, 0, 1.0, 1.0), params(1.0, 20, 0.9, 1.2)] {
        let draws: Vec<Draw> = (0..9).map(|n| Draw(n * 1_777_777)).collect();
        let single = {
            backend.truncate(0);
            backend.begin_choosing(&params, &[3, 4]).unwrap();
            let mut ids = vec![chosen(&mut backend, &[3, 4], draws[0])];
            for &draw in &draws[1..] {
                let id = *ids.last().unwrap();
                ids.push(chosen(&mut backend, &[id], draw));
            }
            ids
        };
        backend.truncate(0);
        backend.begin_choosing(&params, &[3, 4]).unwrap();
        let mut ids = vec![chosen(&mut backend, &[3, 4], draws[0])];
        backend.queue(draws[1]).unwrap();
        let before = backend.counters();
        for draw in &draws[2..7] {
            backend.queue(*draw).unwrap();
            ids.push(block_on(backend.next_choice()).unwrap());
        }
        let steps = backend.counters();
        assert_eq!((steps.submits - before.submits, steps.dispatches - before.dispatches), (5, 5 * (5 + 4)));
        assert_eq!(ids, single[..ids.len()]);
        // One step is still under way: it is rolled back, and the sequence goes on from what is known.
        backend.truncate(2 + ids.len() - 1);
        backend.begin_choosing(&params, &[&[3, 4], &ids[..]].concat()).unwrap();
        ids.push(chosen(&mut backend, &[ids[5]], draws[6]));
        assert_eq!(ids, single[..7]);
        assert!(block_on(backend.next_choice()).is_err());
    }
}

#[test]
fn logits_of_every_position() {
    let Some(gpu) = gpu() else { return };
    let weights = small(130, 6);
    let tokens = synthetic::tokens(130, 40, 6);
    let oracle = Reference::new(&weights).logits(&tokens);
    let mut backend = backend(&gpu, &weights);
    let mut at = 0;
    // One column, a few, a tile, more than one call's worth.
    for columns in [1, 5, 12, 22] {
        let found = block_on(backend.forward(&tokens[at..at + columns], OutputKind::AllLogits)).unwrap();
        let Output::AllLogits(found) = found else { panic!("{found:?}") };
        assert_eq!(found.len(), columns * 130);
        for (found, expected) in found.chunks_exact(130).zip(&oracle[at..]) {
            assert!(Deviation::between(found, expected).max <= 1e-3);
        }
        at += columns;
    }
}

#[test]
fn snapshots_bring_the_cache_back() {
    let Some(gpu) = gpu() else { return };
    let weights = small(90, 7);
    let mut first = backend(&gpu, &weights);
    block_on(first.forward(&[1, 2, 3, 4, 5], OutputKind::Nothing)).unwrap();
    let saved = first.snapshot().unwrap();
    let expected = logits(&mut first, &[6]);
    // Something else in its place, then back; and into a fork.
    first.truncate(0);
    block_on(first.forward(&[9, 9, 9, 9, 9, 9, 9], OutputKind::Nothing)).unwrap();
    first.restore(&saved).unwrap();
    assert_eq!((first.len(), logits(&mut first, &[6])), (5, expected.clone()));
    let mut fork = first.fork().unwrap();
    fork.restore(&saved).unwrap();
    assert_eq!(logits(fork.as_mut(), &[6]), expected);
    // Another model's, and another device's.
    let other =
        synthetic::weights(synthetic::config([90, 64, 2, 2, 1, 64]), storage(GgmlType::F32, GgmlType::F32, false), 1);
    assert!(backend(&gpu, &other.unwrap()).restore(&saved).is_err());
    let elsewhere = another();
    assert!(backend(&elsewhere, &weights).restore(&saved).is_err());
}

/// The engine writes the same text whether the device chooses or not.
#[cfg(feature = "cpu")]
#[test]
fn the_engine_writes_the_same_on_both() {
    use crate::engine::tests::{model, options, run};
    use crate::{Engine, SamplingOptions};
    let Some(gpu) = gpu() else { return };
    let bytes = model(5, 256, GgmlType::F32);
    let mut device = block_on(Engine::from_gguf_gpu(&bytes, &gpu)).unwrap();
    let mut host = Engine::from_gguf_cpu(&bytes).unwrap();
    let free = |temperature, top_k, top_p, repetition_penalty, seed| SamplingOptions {
        temperature,
        top_k,
        top_p,
        repetition_penalty,
        seed,
        ..options(24)
    };
    for options in [
        options(24),
        free(1.0, 0, 1.0, 1.0, 1),
        free(0.8, 30, 0.9, 1.0, 2),
        free(0.0, 0, 1.0, 1.3, 0),
        free(1.0, 40, 1.0, 1.2, 3),
    ] {
        // Both at their ends and cut short, after which the cache has to be sound.
        for until in [usize::MAX, 3] {
            let expected = run(&mut host, "What is helium?", "", &options, until);
            let found = run(&mut device, "What is helium?", "", &options, until);
            assert_eq!(found.1, expected.1, "{options:?}");
            assert_eq!(found.2.finish, expected.2.finish);
        }
    }
}
