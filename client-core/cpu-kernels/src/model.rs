//! Weights, sequences, and the forward pass.

use crate::attention::{self, CacheForm, HeadCache};
use crate::cache::Cache;
use crate::layout::{AttentionShape, MAX_HEAD, stride};
use crate::math;
use crate::matrix::{Matrix, Store, WrongSize};
use crate::product::{Activations, multiply};

/// Tokens that go through the blocks together; more would push the activations out of the caches.
const CHUNK: usize = 64;

/// Sizes of a model. All are at least 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModelShape {
    /// Tokens.
    pub vocab: usize,
    /// Width of the residual stream.
    pub dim: usize,
    /// Query heads.
    pub heads: usize,
    /// Key heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements of a head, at most [`MAX_HEAD`].
    pub head_dim: usize,
    /// Inner width of the feed-forward net.
    pub ffn: usize,
    /// Elements of a head that are rotated; even.
    pub rope_dim: usize,
    /// ε of RMSNorm.
    pub eps: f32,
    /// Rotations of a position, of which a layer takes one.
    pub tables: usize,
    /// Whether the gate goes through GELU instead of SiLU.
    pub gelu: bool,
    /// What embeddings are multiplied with.
    pub embedding_scale: f32,
    /// What scores are multiplied with.
    pub score_scale: f32,
    /// c, where scores are held within ±c by c·tanh(score / c); 0 for none.
    pub score_cap: f32,
    /// The same for logits.
    pub logit_cap: f32,
}

impl ModelShape {
    fn q_dim(&self) -> usize {
        self.heads * self.head_dim
    }

    fn kv_dim(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Numbers of a position's rotations.
    fn rotation_width(&self) -> usize {
        self.tables * self.rope_dim
    }
}

/// One block.
#[derive(Debug)]
pub struct Layer {
    /// RMSNorm before attention, `[dim]`.
    pub attn_norm: Vec<f32>,
    /// Queries, keys and values: `[q_dim, dim]`, twice `[kv_dim, dim]`.
    pub qkv: [Matrix; 3],
    /// Attention's way back, `[dim, q_dim]`.
    pub o: Matrix,
    /// RMSNorm before the feed-forward net, `[dim]`.
    pub ffn_norm: Vec<f32>,
    /// The feed-forward net's gate and its other half, each `[ffn, dim]`.
    pub gate_up: [Matrix; 2],
    /// Its way back, `[dim, ffn]`.
    pub down: Matrix,
    /// Added to queries, keys and values, `[q_dim + 2·kv_dim]`, or empty.
    pub qkv_bias: Vec<f32>,
    /// RMSNorm of every query head, `[head_dim]`, or empty.
    pub q_norm: Vec<f32>,
    /// RMSNorm of every key head, `[head_dim]`, or empty.
    pub k_norm: Vec<f32>,
    /// RMSNorm of what attention gives, `[dim]`, or empty.
    pub post_attn_norm: Vec<f32>,
    /// RMSNorm of what the feed-forward net gives, `[dim]`, or empty.
    pub post_ffn_norm: Vec<f32>,
    /// Which of a position's rotations queries and keys go through.
    pub rope: Option<usize>,
    /// Tokens that a token sees, itself included.
    pub window: Option<usize>,
}

/// A model's weights, in the form in which they are multiplied.
#[derive(Debug)]
pub struct Model {
    shape: ModelShape,
    embedding: Matrix,
    layers: Vec<Layer>,
    output_norm: Vec<f32>,
    head: Option<Matrix>,
}

impl Model {
    /// Joins the parts; `head` is `None` where the embedding is also the head.
    ///
    /// # Errors
    /// A part has another size than `shape` says, or heads are larger than [`MAX_HEAD`].
    pub fn new(
        shape: ModelShape,
        embedding: Matrix,
        layers: Vec<Layer>,
        output_norm: Vec<f32>,
        head: Option<Matrix>,
    ) -> Result<Self, WrongSize> {
        let (q_dim, kv_dim) = (shape.q_dim(), shape.kv_dim());
        let is = |matrix: &Matrix, rows: usize, cols: usize| matrix.rows == rows && matrix.cols == cols;
        let optional = |values: &[f32], len: usize| values.is_empty() || values.len() == len;
        let fits = layers.iter().all(|l| {
            let [q, k, v] = &l.qkv;
            let [gate, up] = &l.gate_up;
            l.attn_norm.len() == shape.dim
                && l.ffn_norm.len() == shape.dim
                && is(q, q_dim, shape.dim)
                && is(k, kv_dim, shape.dim)
                && is(v, kv_dim, shape.dim)
                && is(&l.o, shape.dim, q_dim)
                && is(gate, shape.ffn, shape.dim)
                && is(up, shape.ffn, shape.dim)
                && is(&l.down, shape.dim, shape.ffn)
                && optional(&l.qkv_bias, q_dim + 2 * kv_dim)
                && optional(&l.q_norm, shape.head_dim)
                && optional(&l.k_norm, shape.head_dim)
                && optional(&l.post_attn_norm, shape.dim)
                && optional(&l.post_ffn_norm, shape.dim)
                && l.rope.is_none_or(|table| table < shape.tables)
                && l.window != Some(0)
        }) && is(&embedding, shape.vocab, shape.dim)
            && head.as_ref().is_none_or(|head| is(head, shape.vocab, shape.dim))
            && output_norm.len() == shape.dim
            && (1..=MAX_HEAD).contains(&shape.head_dim)
            && shape.kv_heads > 0
            && shape.heads.is_multiple_of(shape.kv_heads)
            && shape.rope_dim.is_multiple_of(2)
            && shape.rope_dim <= shape.head_dim;
        if fits { Ok(Self { shape, embedding, layers, output_norm, head }) } else { Err(WrongSize) }
    }

    /// Its sizes.
    pub fn shape(&self) -> ModelShape {
        self.shape
    }

    /// Whether a pass can be made over these tokens with these rotations, `[tokens, tables, rope_dim]`.
    fn takes(&self, tokens: &[u32], rotation: &[f32]) -> Result<(), WrongSize> {
        let known = tokens.iter().all(|id| (*id as usize) < self.shape.vocab);
        if known && rotation.len() == tokens.len() * self.shape.rotation_width() { Ok(()) } else { Err(WrongSize) }
    }

    /// Bytes that its matrices take.
    pub fn bytes(&self) -> usize {
        let layers = self.layers.iter().flat_map(|l| l.qkv.iter().chain(&l.gate_up).chain([&l.o, &l.down]));
        layers.chain([&self.embedding]).chain(&self.head).map(Matrix::bytes).sum()
    }
}

/// What a pass is to leave in [`Sequences::output`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputKind {
    /// Nothing.
    Nothing,
    /// The logits at the last position, `[vocab]`.
    Last,
    /// The logits at every position of the call, `[m, vocab]`.
    Every,
    /// The final normalised hidden states, `[m, dim]`.
    Hidden,
}

/// Tokens that a pass appends to one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Which row.
    pub row: usize,
    /// How many tokens, at least one.
    pub count: usize,
    /// Whether the logits after the last of them are wanted.
    pub logits: bool,
}

/// One sequence or several over the same weights, by row, and scratch memory to compute in.
#[derive(Debug)]
pub struct Sequences {
    caches: Vec<Cache>,
    scratch: Scratch,
}

/// What a pass computes in, from call to call.
#[derive(Debug, Default)]
struct Scratch {
    x: Vec<f32>,
    input: Activations,
    heads: Activations,
    inner: Activations,
    rows: Vec<f32>,
    /// Much wider: apart, so that neither is filled with zeros again and again.
    gates: Vec<f32>,
    q: Vec<f32>,
    output: Vec<f32>,
}

impl Sequences {
    /// So many empty ones.
    pub fn new(model: &Model, rows: usize) -> Self {
        // Models that are held exactly are computed exactly, the cache included.
        let form = model.layers.iter().find_map(|layer| match layer.qkv[1].store {
            Store::Single(_) | Store::Half(..) => None,
            Store::Planar(_) => Some(CacheForm::Half),
            #[cfg(not(target_arch = "wasm32"))]
            Store::Packed(_) => Some(CacheForm::Native),
        });
        let form = form.unwrap_or(CacheForm::Single);
        let cache = Cache::new(model.layers.len(), model.shape.kv_heads, model.shape.head_dim, form);
        Self { caches: vec![cache; rows], scratch: Scratch::default() }
    }

    /// How many there are.
    pub fn rows(&self) -> usize {
        self.caches.len()
    }

    /// Tokens in a row's cache; 0 where there is no such row.
    pub fn len(&self, row: usize) -> usize {
        self.caches.get(row).map_or(0, |cache| cache.len)
    }

    /// Memory that a row's cache takes; 0 where there is no such row.
    pub fn cache_bytes(&self, row: usize) -> usize {
        self.caches.get(row).map_or(0, Cache::bytes)
    }

    /// Whether all caches are empty.
    pub fn is_empty(&self) -> bool {
        self.caches.iter().all(|cache| cache.len == 0)
    }

    /// Forgets all tokens of a row after the first `len`.
    pub fn truncate(&mut self, row: usize, len: usize) {
        if let Some(cache) = self.caches.get_mut(row) {
            cache.len = cache.len.min(len);
        }
    }

    /// What the last pass left.
    pub fn output(&self) -> &[f32] {
        &self.scratch.output
    }

    /// Appends `tokens` to a row at positions `len ..`. `rotation` holds (cos, sin) pairs,
    /// `[tokens, tables, rope_dim]`.
    ///
    /// # Errors
    /// There is no such row, a token is outside the vocabulary, or `rotation` has another size. The row is then as it was.
    pub fn forward(
        &mut self,
        model: &Model,
        row: usize,
        tokens: &[u32],
        rotation: &[f32],
        want: OutputKind,
    ) -> Result<(), WrongSize> {
        #[cfg(not(target_arch = "wasm32"))]
        let _caller = crate::pool::Caller::enter();
        let width = model.shape.rotation_width();
        self.scratch.output.clear();
        let Some(cache) = self.caches.get_mut(row) else { return Err(WrongSize) };
        model.takes(tokens, rotation)?;
        let chunks = tokens.len().div_ceil(CHUNK);
        for (i, chunk) in tokens.chunks(CHUNK).enumerate() {
            let turns = &rotation[i * CHUNK * width..][..chunk.len() * width];
            self.scratch.blocks(model, chunk, turns, &mut [(&mut *cache, chunk.len())], &|| false);
            let last = i + 1 == chunks;
            match want {
                OutputKind::Last if last => self.scratch.head(model, chunk.len() - 1..chunk.len()),
                OutputKind::Every => self.scratch.head(model, 0..chunk.len()),
                OutputKind::Hidden => self.scratch.hidden(model),
                _ => {}
            }
        }
        Ok(())
    }

    /// Appends one token to each of some `rows`, all in one pass over the weights, and leaves the logits after each,
    /// `[rows, vocab]`. `rows` ascend; `rotation` is `[rows, tables, rope_dim]`, each for its row's next position. Every row gets
    /// to the last bit what [`forward`](Self::forward) would give it.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), or the rows do not ascend, or there are not as many tokens. All rows are then as they
    /// were.
    pub fn step(&mut self, model: &Model, rows: &[u32], tokens: &[u32], rotation: &[f32]) -> Result<(), WrongSize> {
        if !rows.is_sorted_by(|a, b| a < b) {
            self.scratch.output.clear();
            return Err(WrongSize);
        }
        let span = |row: &u32| Span { row: *row as usize, count: 1, logits: true };
        let spans: Vec<Span> = rows.iter().map(span).collect();
        self.append(model, &spans, tokens, rotation, &|| false).map(drop)
    }

    /// Appends tokens to some rows, all in one pass over the weights, and leaves the logits that the spans want, `[wanted,
    /// vocab]`. `tokens` and `rotation`, `[tokens, tables, rope_dim]`, follow the spans; no row comes up twice. Every row gets to
    /// the last bit what [`forward`](Self::forward) would give it. Before every layer `stop` is asked; where it
    /// says so, the rows are as they were, and `false` is returned.
    ///
    /// # Errors
    /// There is no such row, a row comes up twice, a span is empty, a token is outside the vocabulary, or `tokens` or `rotation`
    /// has another size. All rows are then as they were.
    pub fn append(
        &mut self,
        model: &Model,
        spans: &[Span],
        tokens: &[u32],
        rotation: &[f32],
        stop: &dyn Fn() -> bool,
    ) -> Result<bool, WrongSize> {
        #[cfg(not(target_arch = "wasm32"))]
        let _caller = crate::pool::Caller::enter();
        self.scratch.output.clear();
        model.takes(tokens, rotation)?;
        let mut caches: Vec<_> = self.caches.iter_mut().map(Some).collect();
        let mut groups = Vec::with_capacity(spans.len());
        let (mut wanted, mut end) = (Vec::new(), 0);
        for span in spans {
            let cache = caches.get_mut(span.row).and_then(Option::take).ok_or(WrongSize)?;
            if span.count == 0 || span.count > tokens.len() - end {
                return Err(WrongSize);
            }
            end += span.count;
            if span.logits {
                wanted.push(end - 1);
            }
            groups.push((cache, span.count));
        }
        if end != tokens.len() || end == 0 {
            return Err(WrongSize);
        }
        if !self.scratch.blocks(model, tokens, rotation, &mut groups, stop) {
            return Ok(false);
        }
        self.scratch.heads(model, &wanted);
        Ok(true)
    }

    /// Takes a row's keys and values out; the row is empty then. `None` where there is no such row.
    pub fn take(&mut self, row: usize) -> Option<Cache> {
        let cache = self.caches.get_mut(row)?;
        let empty = cache.emptied();
        Some(std::mem::replace(cache, empty))
    }

    /// Makes a row longer, up to `len` tokens, with the next ones of `from`, which begins with the same tokens as the row. A row
    /// that is as long already stays as it is.
    ///
    /// # Errors
    /// There is no such row, or `from` is shorter or of another model.
    pub fn extend(&mut self, row: usize, from: &Cache, len: usize) -> Result<(), WrongSize> {
        self.caches.get_mut(row).ok_or(WrongSize)?.extend(from, len)
    }

    /// As [`extend`](Self::extend), from another row.
    ///
    /// # Errors
    /// As there.
    pub fn share(&mut self, from: usize, row: usize, len: usize) -> Result<(), WrongSize> {
        let [from, to] = self.caches.get_disjoint_mut([from, row]).map_err(|_| WrongSize)?;
        to.extend(from, len)
    }
}

impl Scratch {
    /// All blocks for `m` tokens: the next so many of each group's sequence, in the order of the groups. Only attention
    /// tells sequences apart; every product looks at its weights once for all of them.
    /// False when `stop` said so before a layer: nothing is appended then.
    fn blocks(
        &mut self,
        model: &Model,
        tokens: &[u32],
        rotation: &[f32],
        groups: &mut [(&mut Cache, usize)],
        stop: &dyn Fn() -> bool,
    ) -> bool {
        let (shape, m) = (&model.shape, tokens.len());
        let (q_dim, kv_dim) = (shape.q_dim(), shape.kv_dim());
        let q_stride = shape.heads * stride(shape.head_dim);
        self.x.resize(m * shape.dim, 0.0);
        for (x, token) in self.x.chunks_exact_mut(shape.dim).zip(tokens) {
            model.embedding.row(*token as usize, x);
            math::scale(x, shape.embedding_scale);
        }
        for (at, layer) in model.layers.iter().enumerate() {
            if stop() {
                return false;
            }
            math::rms_norm(&self.x, &layer.attn_norm, shape.eps, self.input.prepare(m, shape.dim));
            let [q, k, v] = &layer.qkv;
            multiply(&[q, k, v], &mut self.input, &mut self.rows);
            if !layer.qkv_bias.is_empty() {
                for row in self.rows.chunks_exact_mut(q_dim + 2 * kv_dim) {
                    math::add(row, &layer.qkv_bias);
                }
            }
            let heads = AttentionShape {
                heads: shape.heads,
                kv_heads: shape.kv_heads,
                head_dim: shape.head_dim,
                window: layer.window,
                scale: shape.score_scale,
                cap: shape.score_cap,
            };
            self.q.clear();
            self.q.resize(m * q_stride, 0.0);
            let out = self.heads.prepare(m, q_dim);
            let mut first = 0;
            for (cache, count) in groups.iter_mut() {
                let (part, len) = (first..first + *count, cache.len);
                let of = |width: usize| part.start * width..part.end * width;
                let q = &mut self.q[of(q_stride)];
                let cache = &mut cache.layers[at];
                split_qkv_into_cache(
                    &mut self.rows[of(q_dim + 2 * kv_dim)],
                    layer,
                    shape,
                    &rotation[of(shape.rotation_width())],
                    len,
                    q,
                    cache,
                );
                attention::attend(q, cache, len, *count, heads, &mut out[of(q_dim)]);
                first = part.end;
            }
            multiply(&[&layer.o], &mut self.heads, &mut self.rows);
            math::rms_norm_rows(&mut self.rows, &layer.post_attn_norm, shape.eps);
            math::add(&mut self.x, &self.rows);

            math::rms_norm(&self.x, &layer.ffn_norm, shape.eps, self.input.prepare(m, shape.dim));
            let [gate, up] = &layer.gate_up;
            multiply(&[gate, up], &mut self.input, &mut self.gates);
            math::gated(&self.gates, shape.ffn, shape.gelu, self.inner.prepare(m, shape.ffn));
            multiply(&[&layer.down], &mut self.inner, &mut self.rows);
            math::rms_norm_rows(&mut self.rows, &layer.post_ffn_norm, shape.eps);
            math::add(&mut self.x, &self.rows);
        }
        for (cache, count) in groups {
            cache.len += *count;
        }
        true
    }

    /// Appends the logits at some rows of the residual stream, which ascend, to the output. What else is in it is lost.
    fn heads(&mut self, model: &Model, rows: &[usize]) {
        let dim = model.shape.dim;
        for (to, from) in rows.iter().enumerate() {
            self.x.copy_within(from * dim..(from + 1) * dim, to * dim);
        }
        if !rows.is_empty() {
            self.head(model, 0..rows.len());
        }
    }

    /// Appends the logits at some rows of the residual stream to the output.
    fn head(&mut self, model: &Model, rows: std::ops::Range<usize>) {
        let dim = model.shape.dim;
        let x = &self.x[rows.start * dim..rows.end * dim];
        math::rms_norm(x, &model.output_norm, model.shape.eps, self.input.prepare(rows.len(), dim));
        multiply(&[model.head.as_ref().unwrap_or(&model.embedding)], &mut self.input, &mut self.rows);
        math::cap(&mut self.rows, model.shape.logit_cap);
        self.output.extend_from_slice(&self.rows);
    }

    /// Appends the final normalised hidden states to the output.
    fn hidden(&mut self, model: &Model) {
        let from = self.output.len();
        self.output.resize(from + self.x.len(), 0.0);
        math::rms_norm(&self.x, &model.output_norm, model.shape.eps, &mut self.output[from..]);
    }
}

/// Takes queries, keys and values apart: queries into `q`, `[m][heads][stride]`, which holds zeros, the others to the end of
/// the cache, which holds `len` tokens. Norms and rotations are applied on the way.
fn split_qkv_into_cache(
    rows: &mut [f32],
    layer: &Layer,
    shape: &ModelShape,
    rotation: &[f32],
    len: usize,
    q: &mut [f32],
    cache: &mut [HeadCache],
) {
    let stride = stride(shape.head_dim);
    let turned = |head: &mut [f32], norm: &[f32], turns: &[f32]| {
        if !norm.is_empty() {
            math::rms_norm_in_place(head, norm, shape.eps);
        }
        if let Some(table) = layer.rope {
            math::rope(head, &turns[table * shape.rope_dim..][..shape.rope_dim]);
        }
    };
    let mut queries = q.chunks_exact_mut(stride);
    for (i, row) in rows.chunks_exact_mut(shape.q_dim() + 2 * shape.kv_dim()).enumerate() {
        let turns = &rotation[i * shape.rotation_width()..][..shape.rotation_width()];
        let (q_row, kv) = row.split_at_mut(shape.q_dim());
        let (k_row, v_row) = kv.split_at_mut(shape.kv_dim());
        for (head, place) in q_row.chunks_exact_mut(shape.head_dim).zip(&mut queries) {
            turned(head, &layer.q_norm, turns);
            place[..shape.head_dim].copy_from_slice(head);
        }
        let keys = k_row.chunks_exact_mut(shape.head_dim).zip(v_row.chunks_exact(shape.head_dim));
        for ((key, value), cache) in keys.zip(cache.iter_mut()) {
            turned(key, &layer.k_norm, turns);
            cache.put(len + i, key, value);
        }
    }
}
