//! A model file back into burn: what [`export`](super::export) wrote, or a cut of it, to be trained on.

use burn::tensor::{Device, Tensor, TensorData};
use std::path::Path;

use super::ecld::EcldError;
use super::ecld::file::Archive;
use super::model::{Llama, LlamaConfig};

/// Reads the GGUF file at `path`. Stored values are taken as they are: what was rounded stays rounded.
///
/// # Errors
/// It cannot be read, or is of another architecture than [`Llama`]: a tensor is missing, left over or of another shape.
pub fn gguf(path: &Path, device: &Device) -> Result<Llama, EcldError> {
    let archive = Archive::open(path)?;
    let c = &archive.plan.config;
    let config = LlamaConfig {
        vocab: c.vocab,
        dim: c.dim,
        layers: c.layers,
        heads: c.heads,
        kv_heads: c.kv_heads,
        own_head_dim: (c.head_dim * c.heads != c.dim).then_some(c.head_dim),
        ffn: c.ffn,
        context: c.context,
        rope_theta: c.rope.base,
        rms_eps: c.rms_eps,
    };
    let layout = config.layout();
    if let Some(other) = archive.tensors.iter().find(|tensor| layout.iter().all(|(name, _)| *name != tensor.name)) {
        return Err(EcldError::tensor(
            path,
            &other.name,
            "training knows no such tensor: it takes Llama models with tied embeddings and without biases",
        ));
    }
    let mut weights = Vec::with_capacity(layout.len());
    for (name, [rows, cols]) in layout {
        let missing = || EcldError::tensor(path, &name, "it is missing");
        let stored = archive.tensors.iter().find(|tensor| tensor.name == name).ok_or_else(missing)?;
        // A matrix lies with one row per output there, `[in, out]` here; the embedding is the same in both.
        let is_turned = !name.contains("norm") && !name.starts_with("token_embd");
        let wanted = match (name.contains("norm"), is_turned) {
            (true, _) => vec![cols],
            (_, true) => vec![cols, rows],
            _ => vec![rows, cols],
        };
        if stored.shape != wanted {
            return Err(EcldError::tensor(path, &name, format!("it is {:?}, not {wanted:?}", stored.shape)));
        }
        let values = archive.rows(stored, 0..stored.row_count())?;
        let tensor = Tensor::<2>::from_data(
            TensorData::new(values, if is_turned { [cols, rows] } else { [rows, cols] }),
            device,
        );
        weights.push(if is_turned { tensor.swap_dims(0, 1) } else { tensor });
    }
    Ok(Llama { config, weights })
}

#[cfg(test)]
mod tests {
    use super::super::checkpoint::values;
    use super::super::export::{self, Scheme};
    use super::super::{corpus, tables, tokenizer};
    use super::*;
    use engine::gguf::GgmlType;

    #[test]
    fn what_was_written_comes_back() {
        let corpus = corpus::generate(&tables::embedded().expect("valid"), 1);
        let texts: Vec<String> = corpus.facts.iter().take(200).map(|fact| fact.answer.clone()).collect();
        let tokenizer = tokenizer::train(300, &texts).expect("trains");
        let vocab = tokenizer.get_vocab_size(true);
        // Heads whose width is not the model's by their number, as after a cut.
        let config = LlamaConfig {
            dim: 48,
            own_head_dim: Some(8),
            heads: 4,
            kv_heads: 2,
            ffn: 40,
            layers: 2,
            ..LlamaConfig::full(vocab)
        };
        let device = Device::flex();
        let model = Llama::init(&config, 3, &device);
        let scheme = Scheme { matrices: GgmlType::F32, embedding: GgmlType::F32 };
        let file = export::gguf(&model, &tokenizer, "a test", scheme).expect("is written");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, file).expect("is written");
        let back = gguf(&path, &device).expect("is read");
        assert_eq!(back.config, config);
        for ((a, b), (name, _)) in model.weights.iter().zip(&back.weights).zip(config.layout()) {
            assert_eq!((values(a).expect("values"), a.dims()), (values(b).expect("values"), b.dims()), "{name}");
        }
    }
}
