//! Adapters of low rank as a file: llama.cpp's GGUF layout, which its `--lora` loads beside the model.
//!
//! | key | value |
//! | --- | --- |
//! | `general.type`, `adapter.type` | `adapter`, `lora` |
//! | `general.architecture` | the model's |
//! | `adapter.lora.alpha` | α; products count α/r |
//!
//! Of a tensor NAME `[out, in]` there are `NAME.lora_a` `[r, in]` and `NAME.lora_b` `[out, r]`, single precision, rows first.
//! This and not PEFT's safetensors, since the models here are GGUF files: names and the order of rows are those of the file
//! that the adapter goes with, where PEFT's queries and keys lie in another order and want a Hugging Face folder beside them.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use engine::gguf::{GgmlType, Gguf, Value};
use engine::quant;

use super::student;
use crate::checkpoint::values;
use crate::ecld::EcldError;
use crate::ecld::encode::{Fit, encode};
use crate::ecld::file::gguf::Metadata;
use crate::ecld::file::{Archive, Described, PartFile, TensorWriter};
use crate::lora::{Adapters, Lora, Pair, Target};
use crate::model::LlamaConfig;

/// The largest adapter that is read, bytes.
const LARGEST: u64 = 4 << 30;

/// Writes `lora`, adapters to the model of `base`, to `out`.
///
/// # Errors
/// A weight is no number, or the file cannot be written: nothing is left under its name then.
pub fn save(base: &Archive, lora: &Lora, config: &LlamaConfig, out: &Path) -> Result<(), EcldError> {
    let mut metadata = Metadata::default();
    metadata.set_text("general.type", "adapter");
    metadata.set_text("general.architecture", "llama");
    let name = base.path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    metadata.set_text("general.name", &format!("LoRA for {name}"));
    metadata.set_text("adapter.type", "lora");
    metadata.set_f32("adapter.lora.alpha", lora.settings.alpha);
    let (mut described, mut held) = (Vec::new(), Vec::new());
    for (place, name, _) in lora.settings.of(config) {
        let Some(pair) = lora.pair(place) else { continue };
        for (part, tensor) in [("lora_a", &pair.a), ("lora_b", &pair.b)] {
            let turned = tensor.clone().swap_dims(0, 1);
            described.push(Described::new(&format!("{name}.{part}"), turned.dims().to_vec(), GgmlType::F32)?);
            held.push(values(&turned).map_err(|error| EcldError::tensor(out, &name, error))?);
        }
    }
    let header = metadata.header(&described);
    let names: Vec<String> = described.iter().map(|tensor| tensor.name.clone()).collect();
    let mut writer = TensorWriter::begin(PartFile::create(out)?, &header, described, metadata.alignment())?;
    for (values, name) in held.iter().zip(names) {
        writer.begin_next()?;
        let bytes = encode(GgmlType::F32, values, Fit::Plain).map_err(|error| EcldError::tensor(out, &name, error))?;
        writer.write(&bytes)?;
    }
    writer.commit()
}

/// The adapters of the file `path` for a model of these sizes.
fn load(path: &Path, config: &LlamaConfig, device: &Device) -> Result<Lora, EcldError> {
    let size = std::fs::metadata(path).map_err(EcldError::io(path))?.len();
    if size > LARGEST {
        return Err(EcldError::file(path, "it is far too large for an adapter"));
    }
    let bytes = std::fs::read(path).map_err(EcldError::io(path))?;
    let gguf = Gguf::parse(&bytes).map_err(|error| EcldError::file(path, error))?;
    let text = |key: &str| gguf.get(key).and_then(Value::as_str).unwrap_or_default();
    if (text("general.type"), text("adapter.type")) != ("adapter", "lora") {
        return Err(EcldError::file(path, "it is no LoRA adapter: its general.type and adapter.type do not say so"));
    }
    let alpha = gguf.get("adapter.lora.alpha").and_then(Value::as_f64);
    let layout = config.layout();
    let mut known = 0;
    let mut found: Vec<Option<Pair>> = vec![None; layout.len()];
    let (mut ranks, mut targets): (Vec<usize>, Vec<Target>) = (Vec::new(), Vec::new());
    for ((name, [inputs, outputs]), pair) in layout.into_iter().zip(&mut found) {
        let half = |part: &str| -> Result<Option<(Tensor<2>, [usize; 2])>, EcldError> {
            let name = format!("{name}.{part}");
            let Some((info, bytes)) = gguf.tensor(&name) else { return Ok(None) };
            let fail = |problem: &str| EcldError::tensor(path, &name, problem);
            let [cols, rows] = info.dims[..] else { return Err(fail("it is no matrix")) };
            let mut values = vec![0.0; rows * cols];
            if !quant::dequantize(info.dtype, bytes, &mut values) || values.iter().any(|value| !value.is_finite()) {
                return Err(fail("it cannot be read, or holds what is no number"));
            }
            let tensor = Tensor::<2>::from_data(TensorData::new(values, [rows, cols]), device);
            Ok(Some((tensor.swap_dims(0, 1), [cols, rows])))
        };
        let (Some((a, of_a)), Some((b, of_b))) = (half("lora_a")?, half("lora_b")?) else { continue };
        if of_a[0] != inputs || of_b[1] != outputs || of_a[1] != of_b[0] {
            let problem = format!("adapters of {of_a:?} and {of_b:?} do not fit its [{inputs}, {outputs}]");
            return Err(EcldError::tensor(path, &name, problem));
        }
        known += 2;
        ranks.push(of_a[1]);
        targets.extend(Target::ALL.iter().filter(|(_, filed, _)| name.contains(filed)).map(|(_, _, target)| *target));
        *pair = Some(Pair { a, b, moments: [None, None] });
    }
    let total = gguf.tensors().len();
    if known == 0 || known != total {
        let problem = format!("{known} of its {total} tensors belong to the model: it is another model's adapter");
        return Err(EcldError::file(path, problem));
    }
    targets.sort_unstable();
    targets.dedup();
    let rank = ranks.first().copied().unwrap_or(1);
    if ranks.iter().any(|other| *other != rank) {
        return Err(EcldError::file(path, "its adapters have different ranks: only one for all is read"));
    }
    let settings = Adapters { rank, alpha: alpha.map_or(rank as f32, |alpha| alpha as f32), targets };
    Ok(Lora { settings, pairs: found })
}

/// Writes the model of `base` with the adapters of the file `adapter` merged into it, in single precision.
///
/// # Errors
/// A file cannot be read, the adapter is another model's, or the file cannot be written: nothing is left under its name then.
pub fn merge(base: &Archive, adapter: &Path, out: &Path, device: &Device) -> Result<Adapters, EcldError> {
    let model = student::load(base, device)?;
    let lora = load(adapter, &model.config, device)?;
    student::save(base, &lora.merged(&model), out)?;
    Ok(lora.settings)
}
