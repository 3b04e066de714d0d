//! What Gemma's generations have in common, and what their files leave unsaid.

use super::{Activation, ModelTraits};

/// A generation of Gemma.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Gemma {
    One,
    Two,
    Three,
}

impl Gemma {
    /// By GGUF's architecture or the model type of a `config.json`.
    pub(super) fn named(kind: &str) -> Option<Self> {
        match kind {
            "gemma" => Some(Self::One),
            "gemma2" => Some(Self::Two),
            "gemma3" | "gemma3_text" => Some(Self::Three),
            _ => None,
        }
    }

    /// Every so manieth block sees all tokens, where nothing else is said; the others see a window.
    pub(super) fn step(self) -> usize {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Three => 6,
        }
    }

    /// Whether norms stand behind attention and the feed-forward net too, and blocks may see only a window.
    pub(super) fn is_later(self) -> bool {
        self > Self::One
    }

    /// The caps of scores and of logits, where nothing is said of them.
    pub(super) fn caps(self) -> [Option<f64>; 2] {
        if self == Self::Two { [Some(50.0), Some(30.0)] } else { [None; 2] }
    }

    /// What holds for all of them in a model of width `dim`.
    pub(super) fn traits(dim: usize) -> ModelTraits {
        ModelTraits { activation: Activation::Gelu, embedding_scale: (dim as f32).sqrt(), ..ModelTraits::default() }
    }
}

/// Window of Gemma 2 and 3 where a file does not mention one.
pub(super) const WINDOW: usize = 4096;
/// Base of the positions of Gemma 3's blocks that see a window, where a file does not mention one.
pub(super) const LOCAL_BASE: f64 = 10_000.0;
