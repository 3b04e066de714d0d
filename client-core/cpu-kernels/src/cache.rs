//! Keys and values of one sequence, in all layers: what it takes to go on from a text without reading it again.

use crate::attention::{CacheForm, HeadCache};
use crate::layout::stride;
use crate::matrix::WrongSize;

/// See the module.
#[derive(Debug, Clone)]
pub struct Cache {
    /// `[layers][kv_heads]`.
    pub(crate) layers: Vec<Vec<HeadCache>>,
    /// Tokens in it.
    pub(crate) len: usize,
    /// Elements of a head, padded.
    stride: usize,
}

impl Cache {
    /// An empty one.
    pub(crate) fn new(layers: usize, kv_heads: usize, head_dim: usize, form: CacheForm) -> Self {
        let layers = vec![vec![HeadCache::new(form); kv_heads]; layers];
        Self { layers, len: 0, stride: stride(head_dim) }
    }

    /// An empty one for the same model.
    pub(crate) fn emptied(&self) -> Self {
        let layers = self.layers.iter().map(|heads| heads.iter().map(HeadCache::emptied).collect()).collect();
        Self { layers, len: 0, stride: self.stride }
    }

    /// Tokens in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Memory that it takes.
    pub fn bytes(&self) -> usize {
        self.layers.iter().flatten().map(HeadCache::bytes).sum()
    }

    /// Takes the tokens over from this one's end up to `len`; pages are shared where there are any.
    pub(crate) fn extend(&mut self, from: &Self, len: usize) -> Result<(), WrongSize> {
        let heads = |cache: &Self| cache.layers.iter().map(Vec::len).collect::<Vec<_>>();
        if len > from.len || self.stride != from.stride || heads(self) != heads(from) {
            return Err(WrongSize);
        }
        if len <= self.len {
            return Ok(());
        }
        let tokens = self.len..len;
        for (to, from) in self.layers.iter_mut().flatten().zip(from.layers.iter().flatten()) {
            to.extend(from, tokens.clone(), self.stride)?;
        }
        self.len = len;
        Ok(())
    }
}
