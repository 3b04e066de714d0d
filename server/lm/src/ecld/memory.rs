//! A whole model in double precision by the names of its tensors: what a reference's numbers are compared with.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::cut::{Cut, Edit, apply, zeroed};
use super::error::EcldError;
use super::names::gguf_kind;
use super::spec::{Block, Model, Spec};

/// A tensor's values, `[rows, cols]`; a vector is one column.
#[derive(Debug, Clone, PartialEq)]
pub struct Values {
    /// Rows first.
    pub shape: Vec<usize>,
    /// Row by row.
    pub values: Vec<f64>,
}

impl Values {
    fn cols(&self) -> usize {
        if self.shape.len() < 2 { 1 } else { self.shape.last().copied().unwrap_or(1) }
    }
}

/// A model in memory. Tensors have GGUF's names, without `.weight`.
#[derive(Debug, Clone)]
pub struct MemoryModel {
    spec: Spec,
    tensors: BTreeMap<String, Values>,
}

/// What a model has beside the tensors that all have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extras {
    /// The head is the embedding.
    pub tied: bool,
    /// Queries, keys and values have biases.
    pub bias: bool,
    /// Query and key heads are normalised.
    pub qk_norm: bool,
}

/// Names and shapes of all tensors of a model of these sizes.
pub fn layout(spec: &Spec, extras: Extras) -> Vec<(String, Vec<usize>)> {
    let (d, q, kv, f) = (spec.dim, spec.q_dim(), spec.kv_dim(), spec.ffn);
    let mut all = vec![("token_embd".to_owned(), vec![spec.vocab, d]), ("output_norm".to_owned(), vec![d])];
    if !extras.tied {
        all.push(("output".to_owned(), vec![spec.vocab, d]));
    }
    for layer in 0..spec.layers {
        let mut add = |part: &str, shape: &[usize]| all.push((format!("blk.{layer}.{part}"), shape.to_vec()));
        add("attn_norm", &[d]);
        add("ffn_norm", &[d]);
        add("attn_q", &[q, d]);
        add("attn_k", &[kv, d]);
        add("attn_v", &[kv, d]);
        add("attn_output", &[d, q]);
        if extras.bias {
            add("attn_q.bias", &[q]);
            add("attn_k.bias", &[kv]);
            add("attn_v.bias", &[kv]);
        }
        if extras.qk_norm {
            add("attn_q_norm", &[spec.head_dim]);
            add("attn_k_norm", &[spec.head_dim]);
        }
        add("ffn_gate", &[f, d]);
        add("ffn_up", &[f, d]);
        add("ffn_down", &[d, f]);
    }
    all
}

impl MemoryModel {
    /// From flat lists, which must be exactly those of [`layout`].
    ///
    /// # Errors
    /// A tensor is missing, has another number of values, holds no number, or belongs to nothing.
    pub fn new(spec: Spec, extras: Extras, mut lists: BTreeMap<String, Vec<f64>>) -> Result<Self, EcldError> {
        let mut tensors = BTreeMap::new();
        for (name, shape) in layout(&spec, extras) {
            let values = lists.remove(&name);
            let values = values.ok_or_else(|| EcldError::input(format!("tensor {name:?} is missing")))?;
            if shape.iter().product::<usize>() != values.len() {
                return Err(EcldError::input(format!(
                    "tensor {name:?} has {} values, its shape {shape:?} asks for another number",
                    values.len()
                )));
            }
            super::error::finite(&format!("tensor {name:?}"), &values)?;
            tensors.insert(name, Values { shape, values });
        }
        match lists.keys().next() {
            None => Ok(Self { spec, tensors }),
            Some(name) => Err(EcldError::input(format!("tensor {name:?} belongs to nothing in the config"))),
        }
    }

    /// Parameters, a tied head counted once.
    pub fn parameters(&self) -> usize {
        self.tensors.values().map(|t| t.values.len()).sum()
    }

    /// All tensors.
    pub fn tensors(&self) -> &BTreeMap<String, Values> {
        &self.tensors
    }

    /// The cut model (eq. 3, 5, 7, physically).
    pub fn cut(&self, cut: &Cut<'_>) -> Self {
        let mut tensors = BTreeMap::new();
        for (name, tensor) in &self.tensors {
            let (kind, layer) = gguf_kind(name);
            let Some(edit) = cut.edit(kind, layer) else { continue };
            let new = layer.and_then(|layer| Some((layer, cut.layer(layer)?)));
            let name = match new {
                Some((old, new)) => name.replacen(&format!("blk.{old}."), &format!("blk.{new}."), 1),
                None => name.clone(),
            };
            let values = apply(&edit, &tensor.values, tensor.cols(), Edit::scaled);
            tensors.insert(name, Values { shape: edit.shape(&tensor.shape), values });
        }
        Self { spec: cut.spec(), tensors }
    }

    /// W ⊙ M: the original's sizes, with zeros where the cut takes away.
    pub fn masked(&self, cut: &Cut<'_>) -> Self {
        let mut masked = self.clone();
        for (name, tensor) in &mut masked.tensors {
            let (kind, layer) = gguf_kind(name);
            tensor.values = zeroed(cut.edit(kind, layer).as_ref(), &tensor.values, tensor.cols());
        }
        masked
    }

    fn get(&self, name: &str) -> Result<Vec<f64>, EcldError> {
        self.find(name).ok_or_else(|| EcldError::input(format!("tensor {name:?} is missing")))
    }

    fn find(&self, name: &str) -> Option<Vec<f64>> {
        self.tensors.get(name).map(|tensor| tensor.values.clone())
    }
}

impl Model<f64> for MemoryModel {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn block(&self, layer: usize) -> Result<Arc<Block<f64>>, EcldError> {
        let get = |part: &str| self.get(&format!("blk.{layer}.{part}"));
        let find = |part: &str| self.find(&format!("blk.{layer}.{part}"));
        let bias = match (find("attn_q.bias"), find("attn_k.bias"), find("attn_v.bias")) {
            (Some(q), Some(k), Some(v)) => Some([q, k, v]),
            _ => None,
        };
        Ok(Arc::new(Block {
            attn_norm: get("attn_norm")?,
            q: get("attn_q")?,
            k: get("attn_k")?,
            v: get("attn_v")?,
            o: get("attn_output")?,
            bias,
            head_norms: find("attn_q_norm").zip(find("attn_k_norm")).map(|(q, k)| [q, k]),
            ffn_norm: get("ffn_norm")?,
            gate: get("ffn_gate")?,
            up: get("ffn_up")?,
            down: get("ffn_down")?,
            post_norms: None,
            rotation: Some(0),
            window: None,
        }))
    }

    fn embed(&self, tokens: &[u32]) -> Result<Vec<f64>, EcldError> {
        let (dim, all) = (self.spec.dim, self.get("token_embd")?);
        let mut out = Vec::with_capacity(tokens.len() * dim);
        for token in tokens {
            let row = all.get(*token as usize * dim..(*token as usize + 1) * dim);
            let row = row.ok_or_else(|| {
                EcldError::input(format!("token {token} is outside the vocabulary of {}", self.spec.vocab))
            })?;
            out.extend(row.iter().map(|v| v * self.spec.embedding_scale));
        }
        Ok(out)
    }

    fn output_norm(&self) -> Result<Vec<f64>, EcldError> {
        self.get("output_norm")
    }

    fn head(&self, rows: Range<usize>) -> Result<Vec<f64>, EcldError> {
        let all = self.find("output").map_or_else(|| self.get("token_embd"), Ok)?;
        let dim = self.spec.dim;
        let some = all.get(rows.start * dim..rows.end * dim);
        some.map(<[f64]>::to_vec).ok_or_else(|| EcldError::input("the output head has fewer rows than the vocabulary"))
    }
}
