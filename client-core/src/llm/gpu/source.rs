//! Putting kernels together: the sizes of a model become constants in front of the WGSL text, so that compilers can
//! unroll, and a product is composed of how its weights are loaded, what goes in and what happens to what comes out.

use std::fmt::Write as _;

use crate::llm::config::ModelConfig;
use crate::llm::gguf::GgmlType;
use crate::llm::quant::BLOCK;

/// Columns that a product computes at once in a call of several tokens.
pub(super) const MANY: usize = 8;
/// Units of a workgroup of `matmul.wgsl`.
pub(super) const UNITS_PER_GROUP: usize = 8;

/// What goes into a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    Plain,
    Norm,
}

/// What happens to what comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finish {
    Store,
    Add,
    SwiGlu,
    Qkv,
}

/// Everything that a product's text depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Product {
    pub dtype: GgmlType,
    pub rows: usize,
    pub blocks: usize,
    pub scales: usize,
    pub input: Input,
    pub finish: Finish,
    /// Elements from one column of the result to the next.
    pub out_stride: usize,
}

impl Product {
    /// Units that a call has for every column.
    pub(super) fn units(&self) -> usize {
        self.rows.div_ceil(2)
    }

    /// The text for `columns` at once.
    pub(super) fn source(&self, config: &ModelConfig, columns: usize) -> String {
        let mut text = constants(&[
            ("COLS", columns),
            ("BLOCKS", self.blocks),
            ("SCALES", self.scales),
            ("UNITS", self.units()),
            ("ROWS", self.rows),
            ("X_STRIDE", self.blocks * BLOCK / 4),
            ("OUT_STRIDE", self.out_stride),
            ("DIM", config.dim),
            ("Q_DIM", config.q_dim()),
            ("KV_DIM", config.kv_dim()),
            ("HEAD_DIM", config.head_dim),
            ("ROPE_DIM", config.rope.dim),
        ]);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "const EPSILON: f32 = {:e};", config.rms_eps);
        let _ = writeln!(text, "const LAST_ONLY: bool = {};", self.finish == Finish::Store);
        text += include_str!("kernels/common_call.wgsl");
        text += include_str!("kernels/common.wgsl");
        text += loader(self.dtype);
        text += include_str!("kernels/matmul.wgsl");
        text += match self.input {
            Input::Plain => include_str!("kernels/input_plain.wgsl"),
            Input::Norm => include_str!("kernels/input_norm.wgsl"),
        };
        text += match self.finish {
            Finish::Store => include_str!("kernels/finish_store.wgsl"),
            Finish::Add => include_str!("kernels/finish_add.wgsl"),
            Finish::SwiGlu => include_str!("kernels/finish_swiglu.wgsl"),
            Finish::Qkv => include_str!("kernels/finish_qkv.wgsl"),
        };
        text
    }
}

/// The text of `embed.wgsl`.
pub(super) fn embed(dtype: GgmlType, blocks: usize, scales: usize) -> String {
    let sizes = constants(&[("BLOCKS", blocks), ("SCALES", scales), ("X_STRIDE", blocks * BLOCK / 4)]);
    sizes
        + include_str!("kernels/common_call.wgsl")
        + include_str!("kernels/common.wgsl")
        + loader(dtype)
        + include_str!("kernels/embed.wgsl")
}

/// The text of `attention.wgsl`.
pub(super) fn attention(config: &ModelConfig) -> String {
    let pairs = config.head_dim / 2;
    let mut text = constants(&[
        ("PAIRS", pairs),
        ("KV_PAIRS", config.kv_dim() / 2),
        ("Q_PAIRS", padded(config.q_dim()) / 2),
        ("GROUP", config.heads / config.kv_heads),
        ("PARTS", (64 / pairs).max(1)),
        ("SLOTS", pairs.div_ceil(64)),
    ]);
    let _ = writeln!(text, "const SCALE: f32 = {:e};", 1.0 / (config.head_dim as f32).sqrt());
    text += include_str!("kernels/common_call.wgsl");
    text + include_str!("kernels/attention.wgsl")
}

/// The text of `select.wgsl`.
pub(super) fn select(vocab: usize) -> String {
    constants(&[("VOCAB", vocab)]) + include_str!("kernels/common_call.wgsl") + include_str!("kernels/select.wgsl")
}

/// Elements of an activation's column: whole blocks.
pub(super) fn padded(elements: usize) -> usize {
    elements.next_multiple_of(BLOCK)
}

fn constants(sizes: &[(&str, usize)]) -> String {
    let mut text = String::new();
    for (name, size) in sizes {
        let _ = writeln!(text, "const {name}: u32 = {size}u;");
    }
    text
}

fn loader(dtype: GgmlType) -> &'static str {
    match dtype {
        GgmlType::Q4_0 => include_str!("kernels/load_q4_0.wgsl"),
        GgmlType::Q8_0 => include_str!("kernels/load_q8_0.wgsl"),
        GgmlType::F16 => include_str!("kernels/load_f16.wgsl"),
        // Everything else is turned into F32 when it is packed.
        _ => include_str!("kernels/load_f32.wgsl"),
    }
}
