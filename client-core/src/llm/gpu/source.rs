//! Putting kernels together: the sizes of a model become constants in front of the WGSL text, so that compilers can
//! unroll, and a product is composed of how its weights are loaded, what goes in and what happens to what comes out.

use std::fmt::Write as _;

use super::CHUNK;
use super::pack::{Layout, Parts};
use super::tier::KernelSet;
use crate::llm::backend::MAX_ROWS;
use crate::llm::config::{Activation, ModelConfig, Positions};
use crate::llm::gguf::GgmlType;
use crate::llm::quant::BLOCK;
/// Candidates that one workgroup puts in order.
pub(super) use crate::llm::sampler::SLICE;
use crate::llm::weights::LayerTraits;

/// Columns that a product computes at once in a call of a few tokens; from one more on the tiled kernel is taken.
pub(super) const FEW: usize = 4;
/// Columns of a tile.
pub(super) const TILE_COLUMNS: usize = 32;
/// Units of a tile.
const TILE_UNITS: usize = 32;
/// Threads of a workgroup of `matmul.wgsl`.
const THREADS: usize = 64;
/// Most places of a list of candidates.
pub(super) const PLACES: usize = 64;

/// What goes into a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    Plain,
    Norm,
}

/// What happens to what comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finish {
    /// Logits of the last column.
    Last,
    /// Logits of every column.
    Store,
    /// Kept as it is, for a norm.
    Keep,
    Add,
    /// The gate's activation, times the other half.
    Gated,
    Qkv(Qkv),
}

/// What a block does with queries, keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Qkv {
    pub bias: bool,
    pub rope: Positions,
    /// Whether queries and keys are normalised.
    pub norms: [bool; 2],
    pub half_cache: bool,
}

impl Qkv {
    pub(super) fn new(traits: &LayerTraits, half_cache: bool) -> Self {
        Self {
            bias: traits.qkv_bias.is_some(),
            rope: traits.rope,
            norms: [traits.q_norm.is_some(), traits.k_norm.is_some()],
            half_cache,
        }
    }

    /// Whether a sixth dispatch stands between the product and attention.
    pub(super) fn head_norm(self) -> bool {
        self.norms != [false; 2]
    }

    /// Elements of a column of the queries' buffer.
    pub(super) fn stride(self, config: &ModelConfig) -> usize {
        padded(config.q_dim() + if self.head_norm() { config.kv_dim() } else { 0 })
    }

    /// What `rotate.wgsl` wants to know.
    fn rotation(self, config: &ModelConfig) -> String {
        let pairs = config.rope.dim / 2;
        let tables = 1 + usize::from(config.traits.local_rope.is_some());
        constants(&[
            ("ROPE_DIM", self.rope.table().map_or(0, |_| config.rope.dim)),
            ("TURNS", tables * pairs),
            ("FIRST_TURN", self.rope.table().unwrap_or(0) * pairs),
        ]) + include_str!("kernels/rotate.wgsl")
    }
}

/// How many columns a kernel is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Columns {
    One,
    Few,
    Tiled,
}

/// Everything that a product's text depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Product {
    dtype: GgmlType,
    rows: usize,
    blocks: usize,
    parts: Parts,
    scale_unit: f32,
    pub input: Input,
    pub finish: Finish,
    /// Elements from one column of the result to the next.
    out_stride: usize,
}

impl Product {
    pub(super) fn new(packed: &Layout, input: Input, finish: Finish, out_stride: usize) -> Self {
        let Layout { dtype, rows, blocks, parts, scale_unit, .. } = *packed;
        Self { dtype, rows, blocks, parts, scale_unit, input, finish, out_stride }
    }

    /// Pairs of rows.
    fn units(&self) -> usize {
        self.rows.div_ceil(2)
    }

    /// Lanes that share a row: enough rows' worth of threads for a small matrix, longer runs for a long row.
    fn lanes(&self) -> usize {
        match self.blocks {
            0..64 => 8,
            64..256 => 16,
            _ => 32,
        }
    }

    /// Units of a group of lanes: two where there are so many rows that the GPU is full anyway.
    fn pairs(&self, columns: Columns) -> usize {
        if columns == Columns::One && self.units() >= 2048 { 2 } else { 1 }
    }

    /// Workgroups along the rows.
    pub(super) fn groups(&self, columns: Columns) -> usize {
        match columns {
            Columns::Tiled => self.units().div_ceil(TILE_UNITS),
            _ => self.units().div_ceil(THREADS / self.lanes() * self.pairs(columns)),
        }
    }

    /// Whether the kernel for so many columns multiplies packed bytes: the rows have to be bytes, and where a caller asks
    /// for tiles in half precision, those are for all matrices.
    fn is_packed(&self, columns: Columns, set: KernelSet) -> bool {
        columns == Columns::Tiled && set.packed && !set.half && self.dtype.block_len() > 1
    }

    /// The text of the kernel.
    pub(super) fn source(&self, config: &ModelConfig, columns: Columns, set: KernelSet) -> String {
        let count = if columns == Columns::Few { FEW } else { 1 };
        let pairs = self.pairs(columns);
        let mut text = String::new();
        // Browsers ask for the directive; naga, which compiles natively, knows the functions but not yet the directive.
        if columns != Columns::Tiled && set.subgroups && cfg!(target_arch = "wasm32") {
            text += "enable subgroups;\n";
        }
        if columns == Columns::Tiled && set.half {
            text += "enable f16;\n";
        }
        let packed = self.is_packed(columns, set);
        if packed {
            text += "requires packed_4x8_integer_dot_product;\n";
        }
        text += &constants(&[
            ("COLS", count),
            ("PAIRS", pairs),
            ("LANES", self.lanes()),
            ("UNITS", self.units()),
            ("ROWS", self.rows),
            ("X_STRIDE", self.blocks * BLOCK / 4),
            ("OUT_STRIDE", self.out_stride),
            ("DIM", config.dim),
        ]);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "const EPSILON: f32 = {:e};", config.rms_eps);
        let _ = writeln!(text, "const LAST_ONLY: bool = {};", self.finish == Finish::Last);
        text += &call();
        text += &loader(self.dtype, self.blocks, self.parts, self.scale_unit);
        if columns == Columns::Tiled {
            text += include_str!("kernels/tile.wgsl");
        }
        if packed {
            let _ = writeln!(text, "const HALF_SCALES: bool = {};", self.dtype == GgmlType::Q6K);
            text += include_str!("kernels/matmul_packed.wgsl");
        } else if columns == Columns::Tiled {
            text += if set.half { "alias Tiled = vec4<f16>;\n" } else { "alias Tiled = vec4<f32>;\n" };
            text += include_str!("kernels/matmul_tiled.wgsl");
        } else {
            text += &repeated(include_str!("kernels/matmul.wgsl"), pairs, count);
            text += if set.subgroups {
                include_str!("kernels/lanes_subgroup.wgsl")
            } else {
                include_str!("kernels/lanes_shared.wgsl")
            };
        }
        text += match self.input {
            Input::Plain => include_str!("kernels/input_plain.wgsl"),
            Input::Norm => include_str!("kernels/input_norm.wgsl"),
        };
        match self.finish {
            Finish::Last | Finish::Store | Finish::Keep => {
                text += &capped(config.traits.logit_cap.filter(|_| self.finish != Finish::Keep));
                text += include_str!("kernels/finish_store.wgsl");
            }
            Finish::Add => text += include_str!("kernels/finish_add.wgsl"),
            Finish::Gated => {
                let _ = writeln!(text, "const GELU: bool = {};", config.traits.activation == Activation::Gelu);
                text += include_str!("kernels/finish_gated.wgsl");
            }
            Finish::Qkv(qkv) => {
                text += &constants(&[
                    ("Q_DIM", config.q_dim()),
                    ("KV_DIM", config.kv_dim()),
                    ("HEAD_DIM", config.head_dim),
                ]);
                let _ = writeln!(text, "const BIAS: bool = {};", qkv.bias);
                let _ = writeln!(text, "const HEAD_NORM: bool = {};", qkv.head_norm());
                text += cache(qkv.half_cache);
                text += &qkv.rotation(config);
                text += include_str!("kernels/finish_qkv.wgsl");
            }
        }
        text
    }
}

/// The text of `embed.wgsl`.
pub(super) fn embed(packed: &Layout, scale: f32) -> String {
    constants(&[("X_STRIDE", packed.blocks * BLOCK / 4), ("CHUNK", CHUNK)])
        + &format!("const EMBEDDING_SCALE: f32 = {scale:e};\n")
        + &call()
        + &loader(packed.dtype, packed.blocks, packed.parts, packed.scale_unit)
        + include_str!("kernels/embed.wgsl")
}

/// The text of `head_norm.wgsl`.
pub(super) fn head_norm(config: &ModelConfig, qkv: Qkv) -> String {
    let mut text = constants(&[
        ("PAIRS", config.head_dim / 2),
        ("HEADS", config.heads),
        ("KV_PAIRS", config.kv_dim() / 2),
        ("Q_PAIRS", qkv.stride(config) / 2),
    ]);
    let _ = writeln!(text, "const EPSILON: f32 = {:e};", config.rms_eps);
    let _ = writeln!(text, "const Q_NORM: bool = {};\nconst K_NORM: bool = {};", qkv.norms[0], qkv.norms[1]);
    text += &call();
    text += cache(qkv.half_cache);
    text += &qkv.rotation(config);
    text + include_str!("kernels/head_norm.wgsl")
}

/// The text of `post_norm_add.wgsl`.
pub(super) fn post_norm_add(config: &ModelConfig) -> String {
    let mut text = constants(&[("STRIDE", padded(config.dim) / 4), ("DIM", config.dim)]);
    let _ = writeln!(text, "const EPSILON: f32 = {:e};", config.rms_eps);
    text + include_str!("kernels/post_norm_add.wgsl")
}

/// The text of `attention.wgsl`.
pub(super) fn attention(config: &ModelConfig, qkv: Qkv, window: Option<usize>) -> String {
    let pairs = config.head_dim / 2;
    let mut text = constants(&[
        ("PAIRS", pairs),
        ("KV_PAIRS", config.kv_dim() / 2),
        ("Q_PAIRS", qkv.stride(config) / 2),
        ("O_PAIRS", padded(config.q_dim()) / 2),
        ("GROUP", config.heads / config.kv_heads),
        ("PARTS", (64 / pairs).max(1)),
        ("SLOTS", pairs.div_ceil(64)),
        // A window as long as the context is none.
        ("WINDOW", window.filter(|window| *window < config.context).unwrap_or(0)),
    ]);
    let _ = writeln!(text, "const SCALE: f32 = {:e};", config.score_scale());
    text += &capped(config.traits.score_cap);
    text += &call();
    text += cache(qkv.half_cache);
    text + include_str!("kernels/attention.wgsl")
}

/// The text of `peak.wgsl`.
pub(super) fn peak(vocab: usize) -> String {
    order(vocab) + include_str!("kernels/slice.wgsl") + include_str!("kernels/peak.wgsl")
}

/// The text of `sort.wgsl`.
pub(super) fn sort(vocab: usize) -> String {
    order(vocab) + include_str!("kernels/slice.wgsl") + include_str!("kernels/sort.wgsl")
}

/// The text of `best.wgsl`.
pub(super) fn best(vocab: usize) -> String {
    chosen(vocab) + include_str!("kernels/best.wgsl")
}

/// The text of `choose.wgsl`.
pub(super) fn choose(vocab: usize) -> String {
    chosen(vocab) + include_str!("kernels/choose.wgsl")
}

fn chosen(vocab: usize) -> String {
    let per_thread = vocab.div_ceil(SLICE).div_ceil(256);
    let sizes = constants(&[("PER_THREAD", per_thread), ("PLACES", PLACES), ("CHUNK", CHUNK)]);
    order(vocab) + &sizes + include_str!("kernels/chosen.wgsl")
}

fn order(vocab: usize) -> String {
    let words = vocab.div_ceil(32);
    constants(&[("VOCAB", vocab), ("SLICE", SLICE), ("SLICES", vocab.div_ceil(SLICE)), ("WORDS", words)])
        + &call()
        + include_str!("kernels/order.wgsl")
}

/// What every kernel is told about a call.
fn call() -> String {
    constants(&[("LINES", MAX_ROWS)]) + include_str!("kernels/common_call.wgsl")
}

/// Elements of an activation's column: whole blocks.
pub(super) fn padded(elements: usize) -> usize {
    elements.next_multiple_of(BLOCK)
}

fn cache(half: bool) -> &'static str {
    if half { include_str!("kernels/cache_f16.wgsl") } else { include_str!("kernels/cache_f32.wgsl") }
}

/// A function `capped`, which changes nothing where there is no cap.
fn capped(cap: Option<f32>) -> String {
    match cap {
        Some(cap) => format!("const CAP: f32 = {cap:e};\n{}", include_str!("kernels/capped.wgsl")),
        None => "fn capped(x: f32) -> f32 {\n    return x;\n}\n".to_owned(),
    }
}

fn constants(sizes: &[(&str, usize)]) -> String {
    let mut text = String::new();
    for (name, size) in sizes {
        let _ = writeln!(text, "const {name}: u32 = {size}u;");
    }
    text
}

/// How blocks become numbers.
fn loader(dtype: GgmlType, blocks: usize, parts: Parts, scale_unit: f32) -> String {
    let mut text =
        constants(&[("BLOCKS", blocks), ("HIGH", parts.high), ("SCALES", parts.scales), ("TOPS", parts.tops)]);
    let _ = writeln!(text, "const SCALE_UNIT: f32 = {scale_unit:e};");
    text += include_str!("kernels/common.wgsl");
    if matches!(dtype, GgmlType::Q4K | GgmlType::Q5K) {
        text += include_str!("kernels/common_k.wgsl");
    }
    if matches!(dtype, GgmlType::Q5_0 | GgmlType::Q5_1 | GgmlType::Q5K) {
        text += include_str!("kernels/common_5.wgsl");
    }
    text += match dtype {
        GgmlType::F32 => include_str!("kernels/load_f32.wgsl"),
        GgmlType::F16 => include_str!("kernels/load_f16.wgsl"),
        GgmlType::Bf16 => include_str!("kernels/load_bf16.wgsl"),
        GgmlType::Q4_0 => include_str!("kernels/load_q4_0.wgsl"),
        GgmlType::Q4_1 => include_str!("kernels/load_q4_1.wgsl"),
        GgmlType::Q5_0 => include_str!("kernels/load_q5_0.wgsl"),
        GgmlType::Q5_1 => include_str!("kernels/load_q5_1.wgsl"),
        GgmlType::Q8_0 => include_str!("kernels/load_q8_0.wgsl"),
        GgmlType::Q4K => include_str!("kernels/load_q4_k.wgsl"),
        GgmlType::Q5K => include_str!("kernels/load_q5_k.wgsl"),
        GgmlType::Q6K => include_str!("kernels/load_q6_k.wgsl"),
    };
    text
}

/// Repeats the lines of a text that begin with a marker: `@p` for every pair, `@c` for every column, `@pc` for both.
fn repeated(text: &str, pairs: usize, columns: usize) -> String {
    let mut out = String::with_capacity(2 * text.len());
    for line in text.lines() {
        let (line, pairs, columns) = if let Some(line) = line.strip_prefix("@pc ") {
            (line, pairs, columns)
        } else if let Some(line) = line.strip_prefix("@p ") {
            (line, pairs, 1)
        } else if let Some(line) = line.strip_prefix("@c ") {
            (line, 1, columns)
        } else {
            (line, 1, 1)
        };
        for pair in 0..pairs {
            for column in 0..columns {
                out += &line.replace("#p", &pair.to_string()).replace("#c", &column.to_string());
                out.push('\n');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tiled kernel of a set of kernels for a matrix stored like this, in products of packed bytes or not.
    #[test]
    fn what_is_quantised_is_packed() {
        let config = crate::llm::synthetic::config([64, 64, 1, 2, 1, 64]);
        let packed = KernelSet { packed: true, ..KernelSet::BASELINE };
        let half = KernelSet { half: true, ..packed };
        for (dtype, set, columns, expected) in [
            (GgmlType::Q4_0, packed, Columns::Tiled, true),
            (GgmlType::Q6K, packed, Columns::Tiled, true),
            (GgmlType::Q4_0, packed, Columns::Few, false),
            (GgmlType::Q4_0, KernelSet::BASELINE, Columns::Tiled, false),
            (GgmlType::Q4_0, half, Columns::Tiled, false),
            (GgmlType::F16, packed, Columns::Tiled, false),
        ] {
            let layout = Layout { dtype, rows: 64, blocks: 2, parts: Parts::default(), scale_unit: 1.0, bytes: 0 };
            let text = Product::new(&layout, Input::Plain, Finish::Add, 64).source(&config, columns, set);
            let found = text.starts_with("requires packed_4x8_integer_dot_product;") && text.contains("dot4I8Packed");
            assert_eq!(found, expected, "{dtype:?} {set:?} {columns:?}");
            assert_eq!(text.contains("HALF_SCALES: bool = true"), expected && dtype == GgmlType::Q6K);
        }
    }

    #[test]
    fn marked_lines_are_repeated() {
        let text = "@compute\n@p  b#p\n@pc c#p_#c\n@c d#c\n";
        assert_eq!(repeated(text, 2, 2), "@compute\n b0\n b1\nc0_0\nc0_1\nc1_0\nc1_1\nd0\nd1\n");
    }
}
