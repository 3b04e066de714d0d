//! A GGUF file's weights as training has them, and back into a file like it.
//!
//! Training knows the plain Llama block: no biases, no norms of heads, no windows, one rotation, the embedding at both ends.
//! That is what the models that ship are, and SmolLM's; other files are refused with what they have beyond it.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use engine::gguf::{GgmlType, Gguf, Value};

use crate::checkpoint::values;
use crate::ecld::EcldError;
use crate::ecld::cut::Kind;
use crate::ecld::encode::{Fit, encode};
use crate::ecld::file::gguf::Metadata;
use crate::ecld::file::{Archive, Described, Format, PartFile, Teacher, TensorWriter};
use crate::ecld::spec::{Model as _, Spec};
use crate::model::{Llama, LlamaConfig};

/// The model of `archive`, ready to be trained.
///
/// # Errors
/// It is no GGUF file, has what training does not know, or cannot be read.
pub fn load(archive: &Archive, device: &Device) -> Result<Llama, EcldError> {
    let config = config(archive)?;
    let file = Teacher::new(archive, 0)?;
    let vocab: Vec<u32> = (0..config.vocab as u32).collect();
    let (d, q, kv, ffn) = (config.dim, config.q_dim(), config.kv_heads * config.head_dim(), config.ffn);
    let tensor = |values: Vec<f32>, shape: [usize; 2]| Tensor::<2>::from_data(TensorData::new(values, shape), device);
    // A row for every output there, a column here.
    let turned = |values: &[f32], [inputs, outputs]: [usize; 2]| {
        tensor(transposed(values, [outputs, inputs]), [inputs, outputs])
    };
    let mut weights = vec![tensor(file.embed(&vocab)?, [config.vocab, d])];
    for layer in 0..config.layers {
        let block = file.block(layer)?;
        weights.extend([
            tensor(block.attn_norm.clone(), [1, d]),
            turned(&block.q, [d, q]),
            turned(&block.k, [d, kv]),
            turned(&block.v, [d, kv]),
            turned(&block.o, [q, d]),
            tensor(block.ffn_norm.clone(), [1, d]),
            turned(&block.gate, [d, ffn]),
            turned(&block.up, [d, ffn]),
            turned(&block.down, [ffn, d]),
        ]);
    }
    weights.push(tensor(file.output_norm()?, [1, d]));
    Ok(Llama { config, weights })
}

/// Sizes of the file's model, if it is one that training knows.
fn config(archive: &Archive) -> Result<LlamaConfig, EcldError> {
    let fail = |what: &str| {
        let problem = format!("{what}: only Llama models with one embedding for both ends are trained here");
        EcldError::file(&archive.path, problem)
    };
    let Format::Gguf(head) = &archive.format else {
        let problem = "it is a Hugging Face folder: trained students are written, and quantised after that, as GGUF, so convert it \
                       first (only Llama models with one embedding for both ends are trained here)";
        return Err(EcldError::file(&archive.path, problem));
    };
    let gguf = Gguf::parse_header(head, archive.disk.size(0)).map_err(|e| EcldError::file(&archive.path, e))?;
    let architecture = gguf.get("general.architecture").and_then(Value::as_str).unwrap_or_default();
    if architecture != "llama" {
        return Err(fail(&format!("its architecture is {architecture:?}")));
    }
    let (plan, spec) = (&archive.plan, Spec::of(&archive.plan));
    let rope = &plan.config.rope;
    let plain_rope = rope.freq_divisors.iter().all(|divisor| *divisor == 1.0)
        && rope.magnitude == 1.0
        && rope.dim == spec.head_dim
        && spec.rotations.len() == 1;
    let scale = (spec.head_dim as f64).powf(-0.5);
    for (other, what) in [
        (!archive.tied(), "its output head is not its embedding"),
        (!plain_rope, "its rotary positions are scaled"),
        (spec.gelu, "it has another activation than SiLU"),
        (spec.score_cap.is_some() || spec.logit_cap.is_some(), "it caps scores or logits"),
        (spec.embedding_scale != 1.0, "it scales its embeddings"),
        ((spec.score_scale / scale - 1.0).abs() > 1e-6, "it scales attention in its own way"),
        (plan.layers.iter().any(|layer| layer.window.is_some()), "some blocks see only a window"),
        (plan.layers.iter().any(|layer| layer.rope.table().is_none()), "some blocks have no positions"),
        (plan.post_norms, "it has norms behind its parts"),
        (archive.tensors.iter().any(|t| matches!(t.kind, Kind::QueryBias | Kind::KeyValueBias)), "it has biases"),
        (archive.tensors.iter().any(|tensor| tensor.kind == Kind::HeadNorm), "it normalises its heads"),
    ] {
        if other {
            return Err(fail(what));
        }
    }
    let Spec { vocab, dim, layers, heads, kv_heads, head_dim, ffn, context, rms_eps, .. } = spec;
    Ok(LlamaConfig {
        vocab,
        dim,
        layers,
        heads,
        kv_heads,
        own_head_dim: (head_dim * heads != dim).then_some(head_dim),
        ffn,
        context,
        rope_theta: rope.base,
        rms_eps: rms_eps as f32,
    })
}

/// `values` `[rows, cols]` as `[cols, rows]`.
fn transposed(values: &[f32], [rows, cols]: [usize; 2]) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for col in 0..cols {
        out.extend((0..rows).filter_map(|row| values.get(row * cols + col)));
    }
    out
}

/// Writes `model` in single precision as a file like `archive`, which it was loaded from: tokenizer, template and all else are
/// that file's.
///
/// # Errors
/// A tensor of the file is none of the model's, a weight is no number, or the file cannot be written: nothing is left under its
/// name then.
pub fn save(archive: &Archive, model: &Llama, out: &Path) -> Result<(), EcldError> {
    let Format::Gguf(head) = &archive.format else {
        return Err(EcldError::file(&archive.path, "it is no GGUF file"));
    };
    let fail = |problem: &str| EcldError::file(&archive.path, problem);
    let mut metadata = Metadata::of(head).ok_or_else(|| fail("its metadata cannot be copied"))?;
    metadata.set_u32("general.file_type", 0);
    let names: Vec<String> = model.config.layout().into_iter().map(|(name, _)| name).collect();
    // A tied head that the file holds all the same is left out.
    let tensors: Vec<_> = archive.tensors.iter().filter(|tensor| tensor.kind != Kind::Output).collect();
    let described = tensors.iter().map(|tensor| Described::new(&tensor.name, tensor.shape.clone(), GgmlType::F32));
    let described = described.collect::<Result<Vec<_>, _>>()?;
    let header = metadata.header(&described);
    let mut writer = TensorWriter::begin(PartFile::create(out)?, &header, described, metadata.alignment())?;
    for tensor in tensors {
        let place = names.iter().position(|name| *name == tensor.name);
        let weight = place
            .and_then(|place| model.weights.get(place))
            .ok_or_else(|| EcldError::tensor(&archive.path, &tensor.name, "training knows no such tensor"))?;
        let kept = values(weight).map_err(|error| EcldError::tensor(out, &tensor.name, error))?;
        let filed = if place == Some(0) || !tensor.is_matrix() { kept } else { transposed(&kept, weight.dims()) };
        if filed.len() != tensor.elements() {
            return Err(EcldError::tensor(&archive.path, &tensor.name, "it has another shape than the model's"));
        }
        writer.begin_next()?;
        let bytes = encode(GgmlType::F32, &filed, Fit::Plain);
        writer.write(&bytes.map_err(|error| EcldError::tensor(out, &tensor.name, error))?)?;
    }
    writer.commit()
}
