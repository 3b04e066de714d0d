//! Which engine runs in the tab.

use serde::{Deserialize, Serialize};

/// The engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// Own WGSL kernels on WebGPU.
    WebGpu,
    /// Own kernels with wasm SIMD.
    Cpu,
    /// No engine in the tab.
    ServerOnly,
}

/// Which engine the page wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TierChoice {
    /// The best that works here.
    #[default]
    Auto,
    /// WebGPU or an error.
    WebGpu,
    /// The CPU backend.
    Cpu,
    /// No engine in the tab.
    ServerOnly,
}

/// What this tab can run, in plain words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TierReport {
    /// The engine in use.
    pub tier: Tier,
    /// Name of the GPU adapter or of the CPU build.
    pub device: String,
    /// Why this one, in a sentence.
    pub reason: String,
    /// Whether this looks like a desktop-class GPU (a software adapter or a phone does not).
    pub desktop_class: bool,
}
