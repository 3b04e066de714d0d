//! Putting kernels together: the sizes of a model become constants in front of the WGSL text, so that compilers can
//! unroll, and a product is composed of how its weights are loaded, what goes in and what happens to what comes out.

use std::fmt::Write as _;

use super::CHUNK;
use super::pack::{Layout, Parts};
use super::tier::KernelSet;
use crate::backend::MAX_ROWS;
use crate::config::{Activation, ModelConfig, Positions};
use crate::gguf::GgmlType;
use crate::quant::BLOCK;
/// Candidates that one workgroup puts in order.
pub(super) use crate::sampler::SLICE;
use crate::weights::LayerTraits;

/// The text of a file in `kernels/`, without its comments (`build.rs`).
macro_rules! wgsl {
    ($name:literal) => {
        include_str!(concat!(env!("OUT_DIR"), "/", $name, ".wgsl"))
    };
}

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
        ]) + wgsl!("rotate")
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
            text += wgsl!("tile");
        }
        if packed {
            let half_scales = matches!(self.dtype, GgmlType::Q2K | GgmlType::Q3K | GgmlType::Q6K);
            let _ = writeln!(text, "const HALF_SCALES: bool = {half_scales};");
            text += wgsl!("matmul_packed");
        } else if columns == Columns::Tiled {
            text += if set.half { "alias Tiled = vec4<f16>;\n" } else { "alias Tiled = vec4<f32>;\n" };
            text += wgsl!("matmul_tiled");
        } else {
            text += &repeated(wgsl!("matmul"), pairs, count);
            text += if set.subgroups { wgsl!("lanes_subgroup") } else { wgsl!("lanes_shared") };
        }
        text += match self.input {
            Input::Plain => wgsl!("input_plain"),
            Input::Norm => wgsl!("input_norm"),
        };
        match self.finish {
            Finish::Last | Finish::Store | Finish::Keep => {
                text += &capped(config.traits.logit_cap.filter(|_| self.finish != Finish::Keep));
                text += wgsl!("finish_store");
            }
            Finish::Add => text += wgsl!("finish_add"),
            Finish::Gated => {
                let _ = writeln!(text, "const GELU: bool = {};", config.traits.activation == Activation::Gelu);
                text += wgsl!("finish_gated");
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
                text += wgsl!("finish_qkv");
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
        + wgsl!("embed")
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
    text + wgsl!("head_norm")
}

/// The text of `post_norm_add.wgsl`.
pub(super) fn post_norm_add(config: &ModelConfig) -> String {
    let mut text = constants(&[("STRIDE", padded(config.dim) / 4), ("DIM", config.dim)]);
    let _ = writeln!(text, "const EPSILON: f32 = {:e};", config.rms_eps);
    text + wgsl!("post_norm_add")
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
    text + wgsl!("attention")
}

/// The text of `peak.wgsl`.
pub(super) fn peak(vocab: usize) -> String {
    order(vocab) + wgsl!("slice") + wgsl!("peak")
}

/// The text of `sort.wgsl`.
pub(super) fn sort(vocab: usize) -> String {
    order(vocab) + wgsl!("slice") + wgsl!("sort")
}

/// The text of `best.wgsl`.
pub(super) fn best(vocab: usize) -> String {
    chosen(vocab) + wgsl!("best")
}

/// The text of `choose.wgsl`.
pub(super) fn choose(vocab: usize) -> String {
    chosen(vocab) + wgsl!("choose")
}

fn chosen(vocab: usize) -> String {
    let per_thread = vocab.div_ceil(SLICE).div_ceil(256);
    let sizes = constants(&[("PER_THREAD", per_thread), ("PLACES", PLACES), ("CHUNK", CHUNK)]);
    order(vocab) + &sizes + wgsl!("chosen")
}

fn order(vocab: usize) -> String {
    let words = vocab.div_ceil(32);
    constants(&[("VOCAB", vocab), ("SLICE", SLICE), ("SLICES", vocab.div_ceil(SLICE)), ("WORDS", words)])
        + &call()
        + wgsl!("order")
}

/// What every kernel is told about a call.
fn call() -> String {
    constants(&[("LINES", MAX_ROWS)]) + wgsl!("common_call")
}

/// Elements of an activation's column: whole blocks.
pub(super) fn padded(elements: usize) -> usize {
    elements.next_multiple_of(BLOCK)
}

fn cache(half: bool) -> &'static str {
    if half { wgsl!("cache_f16") } else { wgsl!("cache_f32") }
}

/// A function `capped`, which changes nothing where there is no cap.
fn capped(cap: Option<f32>) -> String {
    match cap {
        Some(cap) => format!("const CAP: f32 = {cap:e};\n{}", wgsl!("capped")),
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
pub(super) fn loader(dtype: GgmlType, blocks: usize, parts: Parts, scale_unit: f32) -> String {
    let mut text =
        constants(&[("BLOCKS", blocks), ("HIGH", parts.high), ("SCALES", parts.scales), ("TOPS", parts.tops)]);
    let _ = writeln!(text, "const SCALE_UNIT: f32 = {scale_unit:e};");
    text += if dtype == GgmlType::Q2K { wgsl!("factors_4") } else { wgsl!("factors_2") };
    text += wgsl!("common");
    if matches!(dtype, GgmlType::Q4K | GgmlType::Q5K) {
        text += wgsl!("common_k");
    }
    let fives = matches!(dtype, GgmlType::Q5_0 | GgmlType::Q5_1 | GgmlType::Q5K);
    if fives || matches!(dtype, GgmlType::Q1_0 | GgmlType::Q3K) {
        text += wgsl!("common_1");
    }
    if fives {
        text += wgsl!("common_5");
    }
    if matches!(dtype, GgmlType::Q2K | GgmlType::Q3K | GgmlType::Q6K) {
        text += wgsl!("common_2");
    }
    if matches!(dtype, GgmlType::Q3K | GgmlType::Q6K) {
        text += wgsl!("common_split");
    }
    if matches!(dtype, GgmlType::Iq4Nl | GgmlType::Iq4Xs) {
        text += wgsl!("common_levels");
    }
    text += match dtype {
        GgmlType::F32 => wgsl!("load_f32"),
        GgmlType::F16 => wgsl!("load_f16"),
        GgmlType::Bf16 => wgsl!("load_bf16"),
        GgmlType::Q4_0 => wgsl!("load_q4_0"),
        GgmlType::Q4_1 => wgsl!("load_q4_1"),
        GgmlType::Q5_0 => wgsl!("load_q5_0"),
        GgmlType::Q5_1 => wgsl!("load_q5_1"),
        GgmlType::Q8_0 => wgsl!("load_q8_0"),
        GgmlType::Q4K => wgsl!("load_q4_k"),
        GgmlType::Q5K => wgsl!("load_q5_k"),
        GgmlType::Q6K => wgsl!("load_q6_k"),
        GgmlType::Q3K => wgsl!("load_q3_k"),
        GgmlType::Q2K => wgsl!("load_q2_k"),
        GgmlType::Q1_0 => wgsl!("load_q1_0"),
        GgmlType::Iq4Nl => wgsl!("load_iq4_nl"),
        GgmlType::Iq4Xs => wgsl!("load_iq4_xs"),
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
        let config = crate::synthetic::config([64, 64, 1, 2, 1, 64]);
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
