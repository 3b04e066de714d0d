//! What a device can do: one value that says it, instead of questions about features all over the page.

/// Where the device's own part of an answer is computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecutionTier {
    /// On the GPU, through WebGPU.
    WebGpu {
        /// The adapter's name, where the browser tells it.
        adapter: String,
        /// Whether the "GPU" is a program on the CPU: correct, but not fast.
        software: bool,
        /// Largest matrix that a kernel can see, bytes.
        max_binding_bytes: u64,
    },
    /// On the CPU, in WebAssembly with SIMD.
    CpuSimd {
        /// Why not on the GPU, as a clause.
        reason: String,
    },
    /// Not at all: the server answers everything.
    ServerOnly {
        /// Why, as a clause.
        reason: String,
    },
}

impl ExecutionTier {
    /// The tier of a device whose WebGPU was asked for.
    #[cfg(feature = "gpu")]
    pub fn of_gpu(gpu: &Result<super::gpu::GpuContext, super::EngineError>) -> Self {
        match gpu {
            Ok(gpu) => {
                let facts = gpu.facts();
                Self::WebGpu {
                    adapter: facts.name.clone(),
                    software: facts.software,
                    max_binding_bytes: facts.max_binding_bytes,
                }
            }
            Err(error) => Self::CpuSimd { reason: error.to_string() },
        }
    }

    /// A short name for labels: `WebGPU`, `CPU`, `server only`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::WebGpu { .. } => "WebGPU",
            Self::CpuSimd { .. } => "CPU",
            Self::ServerOnly { .. } => "server only",
        }
    }

    /// One sentence for people.
    pub fn describe(&self) -> String {
        match self {
            Self::WebGpu { adapter, software: true, .. } => {
                format!(
                    "This device computes on WebGPU, but the GPU is emulated in software ({adapter}): expect it to be slow."
                )
            }
            Self::WebGpu { adapter, .. } if adapter.is_empty() => {
                "This device computes on its GPU, through WebGPU.".into()
            }
            Self::WebGpu { adapter, .. } => format!("This device computes on its GPU ({adapter}), through WebGPU."),
            Self::CpuSimd { reason } => format!("This device computes on its CPU, because {reason}."),
            Self::ServerOnly { reason } => format!("The server answers everything, because {reason}."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_and_why() {
        let gpu = |software| ExecutionTier::WebGpu { adapter: "X1".into(), software, max_binding_bytes: 1 << 27 };
        for (tier, name, part) in [
            (gpu(false), "WebGPU", "its GPU (X1)"),
            (gpu(true), "WebGPU", "emulated"),
            (ExecutionTier::CpuSimd { reason: "there is no adapter".into() }, "CPU", "because there is no adapter."),
            (ExecutionTier::ServerOnly { reason: "WebAssembly has no SIMD".into() }, "server only", "no SIMD."),
        ] {
            assert_eq!(tier.name(), name);
            assert!(tier.describe().contains(part), "{}", tier.describe());
        }
    }
}
