//! A whole pass with random weights of the sizes that people know, on one thread or several:
//! `cargo bench -p cpu-kernels --bench model -- [smollm2|qwen] [THREADS] [PROMPT] [TOKENS]`.
//!
//! Random weights take as long as trained ones. Tokens per second are printed by the wall's clock and by the time that
//! all threads computed, which a busy machine disturbs less.
#![allow(clippy::disallowed_methods, reason = "a bench measures time")]

use std::time::Instant;

use cpu_kernels::blocks::GgmlType;
use cpu_kernels::matrix::Matrix;
use cpu_kernels::model::{Layer, Model, ModelShape, OutputKind, Sequences};

fn matrix(format: GgmlType, rows: usize, cols: usize) -> Matrix {
    let size = format.block().1;
    let mut state = 1u32;
    let mut bytes = vec![0; rows * format.row_bytes(cols).unwrap_or_default()];
    for block in bytes.chunks_exact_mut(size) {
        for byte in block.iter_mut() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (state >> 24) as u8;
        }
        for at in format.halves() {
            // Small, so that activations stay small.
            block[*at + 1] = 0x10 | block[*at + 1] & 0x83;
        }
    }
    match Matrix::new(format, rows, cols, &bytes, false) {
        Ok(matrix) => matrix,
        Err(_) => panic!("{rows} rows of {cols} are no {format:?}"),
    }
}

fn model(name: &str) -> Model {
    // Vocabulary, width, layers, query heads, key heads, inner width; formats of the embedding, of attention, of gate and
    // up, of down.
    use GgmlType::{Q4_1, Q4K, Q5_0, Q6K, Q8_0};
    let ([vocab, dim, layers, heads, kv_heads, ffn], [table, attention, up, down]) = match name {
        "qwen" => ([151_936, 896, 24, 14, 2, 4864], [Q8_0, Q5_0, Q5_0, Q6K]),
        "qwen1.5" => ([151_936, 1536, 28, 12, 2, 8960], [Q6K, Q4K, Q4K, Q4K]),
        _ => ([49152, 576, 30, 9, 3, 1536], [Q4_1; 4]),
    };
    let head_dim = if name == "qwen1.5" { 128 } else { 64 };
    let shape = ModelShape {
        vocab,
        dim,
        heads,
        kv_heads,
        head_dim,
        ffn,
        rope_dim: head_dim,
        eps: 1e-5,
        tables: 1,
        gelu: false,
        embedding_scale: 1.0,
        score_scale: 1.0 / (head_dim as f32).sqrt(),
        score_cap: 0.0,
        logit_cap: 0.0,
    };
    let (q, kv) = (heads * head_dim, kv_heads * head_dim);
    let layers = (0..layers).map(|_| Layer {
        attn_norm: vec![1.0; dim],
        qkv: [matrix(attention, q, dim), matrix(attention, kv, dim), matrix(attention, kv, dim)],
        o: matrix(attention, dim, q),
        ffn_norm: vec![1.0; dim],
        gate_up: [matrix(up, ffn, dim), matrix(up, ffn, dim)],
        down: matrix(down, dim, ffn),
        qkv_bias: Vec::new(),
        q_norm: Vec::new(),
        k_norm: Vec::new(),
        post_attn_norm: Vec::new(),
        post_ffn_norm: Vec::new(),
        rope: Some(0),
        window: None,
    });
    match Model::new(shape, matrix(table, vocab, dim), layers.collect(), vec![1.0; dim], None) {
        Ok(model) => model,
        Err(_) => panic!("the sizes of {name} contradict each other"),
    }
}

/// Seconds that all threads of this process have computed, as far as the system says.
fn spent() -> f64 {
    let sum = |folder: std::fs::ReadDir| {
        let ns = |task: std::fs::DirEntry| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<f64>().ok()
        };
        folder.flatten().filter_map(ns).sum::<f64>() / 1e9
    };
    std::fs::read_dir("/proc/self/task").map_or(f64::NAN, sum)
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let number = |at: usize, or: usize| words.get(at).and_then(|word| word.parse().ok()).unwrap_or(or);
    let name = words.first().map_or("smollm2", String::as_str);
    let (threads, prompt, tokens) = (number(1, 1), number(2, 256), number(3, 64));
    cpu_kernels::pool::set_threads(threads);
    let before = Instant::now();
    let model = model(name);
    println!("{name}: {:.0} MB, made in {:.2} s", model.bytes() as f64 / 1e6, before.elapsed().as_secs_f64());
    let shape = model.shape();
    let rotation: Vec<f32> = (0..(prompt + tokens) * shape.rope_dim / 2)
        .flat_map(|at| {
            let (sin, cos) = ((at / (shape.rope_dim / 2)) as f32).sin_cos();
            [cos, sin]
        })
        .collect();
    let ids: Vec<u32> = (0..prompt as u32).map(|i| i * 7919 % shape.vocab as u32).collect();
    for _ in 0..3 {
        let mut sequences = Sequences::new(&model, 1);
        let mut timed = |ids: &[&[u32]]| {
            let (wall, cpu) = (Instant::now(), spent());
            for ids in ids {
                let from = sequences.len(0) * shape.rope_dim;
                let turns = &rotation[from..from + ids.len() * shape.rope_dim];
                if sequences.forward(&model, 0, ids, turns, OutputKind::Last).is_err() {
                    panic!("the input was refused");
                }
            }
            let tokens = ids.iter().map(|ids| ids.len()).sum::<usize>() as f64;
            (tokens / wall.elapsed().as_secs_f64(), tokens / (spent() - cpu))
        };
        let prefill = timed(&[&ids]);
        let decode = timed(&ids.iter().cycle().take(tokens).map(std::slice::from_ref).collect::<Vec<_>>());
        println!(
            "{threads} threads: prefill of {prompt} {:>7.1} tokens/s, {:>7.1} per second computed; decode {:>6.1}, {:>6.1}",
            prefill.0, prefill.1, decode.0, decode.1
        );
    }
}
