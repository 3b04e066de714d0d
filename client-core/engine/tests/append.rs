//! Rows of one batch on the CPU that read prompts and write at the same time, and that share their beginnings: each gets to
//! the last bit what it gets alone.
#![allow(clippy::unwrap_used)]

use engine::EngineError;
use engine::backend::{Backend, Batch, Output, OutputKind, Span};
use engine::cpu::{CpuBackend, Form};
use engine::gguf::GgmlType;
use engine::synthetic::{self, Family, Storage};
use pollster::block_on;

const VOCAB: usize = 80;

/// Of two families and several formats, each held in both ways.
fn backends() -> Vec<(String, CpuBackend)> {
    let cases = [
        (Family::Llama, GgmlType::Q4_0, GgmlType::Q8_0),
        (Family::Qwen3, GgmlType::Q8_0, GgmlType::F16),
        (Family::Gemma3(20), GgmlType::F16, GgmlType::F32),
    ];
    let mut all = Vec::new();
    for (family, blocks, embedding) in cases {
        let config = synthetic::config([VOCAB, 64, 2, 4, 2, 96]);
        let weights = synthetic::weights_like(family, config, Storage { blocks, embedding, untied: true }, 3).unwrap();
        for form in [Form::Singles, Form::Stored] {
            all.push((format!("{family:?} {form:?}"), CpuBackend::with_form(&weights, form).unwrap()));
        }
    }
    all
}

/// The logits after a text, computed in one go by a sequence alone.
fn alone(backend: &CpuBackend, tokens: &[u32]) -> Vec<f32> {
    match block_on(backend.fork().unwrap().forward(tokens, OutputKind::Logits)).unwrap() {
        Output::Logits(logits) => logits,
        other => panic!("{other:?}"),
    }
}

fn append(batch: &mut dyn Batch, spans: &[Span<'_>]) -> Vec<Vec<f32>> {
    block_on(batch.append(spans, &|| false)).unwrap()
}

fn span(row: usize, tokens: &[u32], logits: bool) -> Span<'_> {
    Span { row, tokens, logits }
}

#[test]
fn what_runs_beside_a_row_changes_no_bit_of_it() {
    for (name, backend) in backends() {
        let texts: Vec<Vec<u32>> =
            (0..12).map(|row| synthetic::tokens(VOCAB, 30 + 7 * row as usize, row as u64)).collect();
        // More rows than a tile of the kernels has columns, each with a text of its own, in parts that differ from pass to pass.
        let mut batch = block_on(backend.batch(texts.len(), 200)).unwrap();
        let mut pass = 0;
        while (0..texts.len()).any(|row| batch.len(row) < texts[row].len()) {
            pass += 1;
            let (mut spans, mut ends) = (Vec::new(), Vec::new());
            // Not in order, and not all.
            for row in (0..texts.len()).rev().filter(|row| (row + pass) % 5 != 0) {
                let len = batch.len(row);
                let rest = &texts[row][len..];
                let part =
                    if (row + pass) % 3 == 0 { rest.len().min(1 + (13 * row + pass) % 37) } else { rest.len().min(1) };
                if part > 0 {
                    // Logits are asked for at every second place.
                    let logits = (row + pass) % 2 == 0;
                    spans.push(span(row, &rest[..part], logits));
                    ends.extend(logits.then_some((row, len + part)));
                }
            }
            let found = if spans.is_empty() { Vec::new() } else { append(&mut *batch, &spans) };
            assert_eq!(found.len(), ends.len());
            for ((row, end), found) in ends.into_iter().zip(found) {
                assert!(found == alone(&backend, &texts[row][..end]), "{name} row {row} at {end}");
            }
        }
    }
}

#[test]
fn beginnings_that_are_shared_are_those_that_were_computed() {
    for (name, backend) in backends() {
        let text = synthetic::tokens(VOCAB, 120, 5);
        let other = synthetic::tokens(VOCAB, 60, 6);
        let mut batch = block_on(backend.batch(3, 200)).unwrap();
        append(&mut *batch, &[span(0, &text[..100], false)]);
        // From a row that runs on, at places inside and at the edges of steps, in two parts.
        for (first, second) in [(1, 33), (32, 64), (31, 95), (70, 99)] {
            batch.truncate(1, 0);
            batch.share(0, 1, first).unwrap();
            batch.share(0, 1, second).unwrap();
            assert_eq!((batch.len(0), batch.len(1)), (100, second));
            let found = append(&mut *batch, &[span(1, &text[second..], true)]);
            assert!(found[0] == alone(&backend, &text), "{name} {first} {second}");
        }
        // From what was taken out of a row, which serves for another text then.
        let kept = batch.take(0).unwrap();
        assert_eq!((kept.len, batch.len(0)), (100, 0));
        assert!(kept.state.bytes() > 0);
        let found = append(&mut *batch, &[span(0, &other, true)]);
        assert!(found[0] == alone(&backend, &other), "{name}");
        for len in [20, 64, 100] {
            batch.truncate(2, 0);
            batch.extend(2, &kept, len).unwrap();
            // Nothing is gone and nothing comes twice.
            batch.extend(2, &kept, len - 3).unwrap();
            assert_eq!(batch.len(2), len);
            let found = append(&mut *batch, &[span(2, &text[len..], true), span(0, &other[..1], true)]);
            assert!(found[0] == alone(&backend, &text), "{name} {len}");
        }
        assert!(batch.extend(2, &kept, 101).is_err());
        assert!(batch.share(0, 0, 1).is_err() && batch.share(0, 3, 1).is_err() && batch.take(3).is_err());
    }
    // Of another model, though of the same sizes.
    let all = backends();
    let [mut one, mut other] = [0, 1].map(|at| block_on(all[at].1.batch(1, 50)).unwrap());
    append(&mut *one, &[span(0, &[1, 2, 3], false)]);
    assert!(other.extend(0, &one.take(0).unwrap(), 2).is_err());
}

#[test]
fn what_cannot_be_appended_changes_nothing() {
    let (_, backend) = backends().swap_remove(0);
    let mut batch = block_on(backend.batch(3, 8)).unwrap();
    append(&mut *batch, &[span(0, &[1, 2, 3], false), span(1, &[4], true)]);
    let bad: [&[Span<'_>]; 6] = [
        &[],
        &[span(0, &[], true)],
        &[span(0, &[1], true), span(3, &[1], true)],
        &[span(0, &[1], true), span(0, &[1], true)],
        &[span(1, &[1], true), span(0, &[VOCAB as u32], true)],
        &[span(1, &[1], true), span(0, &[1; 6], true)],
    ];
    for spans in bad {
        assert!(block_on(batch.append(spans, &|| false)).is_err(), "{spans:?}");
        assert_eq!([0, 1, 2].map(|row| batch.len(row)), [3, 1, 0]);
    }
    let stopped = block_on(batch.append(&[span(0, &[1], true)], &|| true));
    assert!(matches!(stopped, Err(EngineError::Stopped)));
    assert_eq!(batch.len(0), 3);
    assert!(block_on(backend.batch(0, 8)).is_err());
}
