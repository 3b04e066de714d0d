//! Tests that need several of the modules at once, on tiny models.

use super::batch::Mix;
use super::checkpoint::{self, Meta, values};
use super::corpus::{self, Corpus};
use super::export::{self, Scheme};
use super::model::{Llama, LlamaConfig, Rope, mask};
use super::tables::Table;
use super::train::{Distil, TrainConfig, TrainError, Trainer};
use super::{batch, tokenizer};
use burn::tensor::{Device, Int, Tensor, TensorData};
use engine::gguf::{GgmlType, Gguf};
use engine::weights::ModelWeights;
use tokenizers::Tokenizer;

fn tiny_corpus() -> Corpus {
    let rows: String = (0..24).map(|i| format!("Land{i}\tTown{i}\tcoin{}\n", (i * 7) % 24)).collect();
    let table = Table::parse("countries", &format!("name\tcapital\tcurrency\n{rows}")).expect("valid");
    corpus::generate(&[table], 5)
}

fn tiny_tokenizer(corpus: &Corpus) -> Tokenizer {
    tokenizer::train(400, &batch::tokenizer_texts(corpus)).expect("trains")
}

fn tiny_config(vocab: usize) -> LlamaConfig {
    LlamaConfig {
        vocab,
        dim: 64,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        own_head_dim: None,
        ffn: 96,
        context: 64,
        rope_theta: 1e4,
        rms_eps: 1e-5,
    }
}

fn tiny_run() -> TrainConfig {
    TrainConfig { steps: 6, rows: 8, len: 32, warmup: 2, mix: Mix::default(), ..TrainConfig::default() }
}

#[test]
fn a_resumed_run_equals_an_uninterrupted_one() {
    let (corpus, device) = (tiny_corpus(), Device::flex());
    let t = tiny_tokenizer(&corpus);
    let model = tiny_config(t.get_vocab_size(true));
    let mut whole = Trainer::new(Llama::init(&model, 1, &device), tiny_run(), &corpus, &t, &device);
    for _ in 0..6 {
        whole.step().expect("steps");
    }
    let mut first = Trainer::new(Llama::init(&model, 1, &device), tiny_run(), &corpus, &t, &device);
    for _ in 0..3 {
        first.step().expect("steps");
    }
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("checkpoint.safetensors");
    let meta = Meta { model: model.clone(), train: tiny_run(), position: first.position, corpus_seed: 5, lora: None };
    checkpoint::save(&path, &meta, &first.model, &first.state, None).expect("saves");
    let c = checkpoint::load(&path, &device).expect("loads");
    assert_eq!(c.meta, meta);
    let mut second = Trainer::resume(c.model, c.state, c.meta.position, tiny_run(), &corpus, &t, &device);
    for _ in 0..3 {
        second.step().expect("steps");
    }
    assert_eq!(second.position, whole.position);
    for (a, b) in whole.model.weights.iter().zip(&second.model.weights) {
        assert_eq!(values(a).expect("reads"), values(b).expect("reads"));
    }
}

fn tiny_model(t: &Tokenizer, device: &Device) -> Llama {
    Llama::init(&tiny_config(t.get_vocab_size(true)), 1, device)
}

#[test]
fn training_and_distilling_lower_the_loss() {
    let (corpus, device) = (tiny_corpus(), Device::flex());
    let t = tiny_tokenizer(&corpus);
    let config = TrainConfig { steps: 30, ..tiny_run() };
    let mut teacher = Trainer::new(tiny_model(&t, &device), config.clone(), &corpus, &t, &device);
    let losses: Vec<f32> = (0..30).map(|_| teacher.step().expect("steps").loss).collect();
    assert!(losses[29] < losses[0] * 0.6, "{losses:?}");
    let small =
        LlamaConfig { dim: 32, heads: 2, kv_heads: 1, ffn: 64, layers: 1, ..tiny_config(t.get_vocab_size(true)) };
    let distil = Distil { teacher: teacher.model.clone(), alpha: 0.5, temperature: 2.0 };
    let mut student = Trainer::new(Llama::init(&small, 1, &device), config, &corpus, &t, &device).with_teacher(distil);
    let losses: Vec<f32> = (0..30).map(|_| student.step().expect("steps").loss).collect();
    assert!(losses[29] < losses[0] * 0.8, "{losses:?}");
}

#[test]
fn no_number_stops_the_run_and_keeps_the_weights() {
    let (corpus, device) = (tiny_corpus(), Device::flex());
    let t = tiny_tokenizer(&corpus);
    let mut run = Trainer::new(tiny_model(&t, &device), tiny_run(), &corpus, &t, &device);
    let last = run.model.weights.len() - 1;
    run.model.weights[last] = run.model.weights[last].clone().mul_scalar(f32::NAN);
    let before = values(&run.model.weights[0]).expect("reads");
    assert!(matches!(run.step(), Err(TrainError::Diverged { step: 0, .. })));
    assert_eq!(before, values(&run.model.weights[0]).expect("reads"));
}

/// Logits of every position of `ids`, alone in a row.
fn burn_logits(model: &Llama, ids: &[u32], device: &Device) -> Vec<f32> {
    let n = ids.len();
    let tokens: Vec<i32> = ids.iter().map(|i| *i as i32).collect();
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(tokens, [1, n]), device);
    let m = mask(&vec![0; n], 1, n, model.config.heads / model.config.kv_heads, device);
    let hidden = model.hidden(tokens, &m, &Rope::new(&model.config, 1, n, device));
    values(&model.logits(hidden)).expect("reads")
}

#[test]
fn a_document_in_a_row_is_computed_as_if_alone() {
    let (corpus, device) = (tiny_corpus(), Device::flex());
    let t = tiny_tokenizer(&corpus);
    let model = Llama::init(&tiny_config(t.get_vocab_size(true)), 3, &device);
    let docs = batch::epoch(&corpus, &t, &Mix::default(), 1, 0).expect("tokenises");
    let (b, taken) = batch::pack(&docs, 1, 64);
    assert!(taken >= 2, "{taken}");
    let m = mask(&b.segments, 1, 64, 2, &device);
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(b.tokens.clone(), [1, 64]), &device);
    let packed = model.logits(model.hidden(tokens, &m, &Rope::new(&model.config, 1, 64, &device)));
    let packed = values(&packed).expect("reads");
    let (start, vocab) = (docs[0].ids.len(), model.config.vocab);
    let alone = burn_logits(&model, &docs[1].ids, &device);
    let same = &packed[start * vocab..(start + docs[1].ids.len()) * vocab];
    let worst = alone.iter().zip(same).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-4, "{worst}");
}

#[test]
fn the_engine_computes_what_training_computed() {
    let t = tiny_tokenizer(&tiny_corpus());
    let whole = tiny_config(t.get_vocab_size(true));
    // What is left of heads of 16 after half of the channels went.
    let cut = LlamaConfig { dim: 32, own_head_dim: Some(16), ..whole.clone() };
    for config in [whole, cut] {
        the_engine_computes(&t, &config);
    }
}

fn the_engine_computes(t: &Tokenizer, config: &LlamaConfig) {
    let device = Device::flex();
    let mut model = Llama::init(config, 9, &device);
    // Norms that are not all one, so that their place in the file matters.
    for w in &mut model.weights {
        if w.dims()[0] == 1 {
            *w = Tensor::random(w.dims(), burn::tensor::Distribution::Uniform(0.5, 1.5), &device);
        }
    }
    let ids = tokenizer::encode(t, "<|user|>What is the capital of Land3?<|assistant|>").expect("encodes");
    let want = burn_logits(&model, &ids, &device);
    let scheme = Scheme { matrices: GgmlType::F32, embedding: GgmlType::F32 };
    let file = export::gguf(&model, t, "tiny", scheme).expect("writes");
    let weights = ModelWeights::from_gguf(&Gguf::parse(&file).expect("valid")).expect("complete");
    let got: Vec<f32> = engine::reference::Reference::new(&weights).logits(&ids).concat();
    let worst = want.iter().zip(&got).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert_eq!(want.len(), got.len());
    assert!(worst < 1e-3, "{worst}");
    // The tokenizer inside the file is the one of training.
    let inside = engine::Tokenizer::from_gguf(&Gguf::parse(&file).expect("valid")).expect("complete");
    for text in ["<|user|>What is the capital of Land3?<|assistant|>Town3.<|end|>", "S\u{e3}o Tom\u{e9}, 42 coins"] {
        assert_eq!(
            inside.encode_prompt(text).expect("encodes"),
            tokenizer::encode(t, text).expect("encodes"),
            "{text}"
        );
    }
}
