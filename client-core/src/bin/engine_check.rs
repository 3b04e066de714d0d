//! The engine's checks as a wasm module for a browser under test: `run_engine_checks(base_url)` returns a report.
//!
//! Expects `golden.json` under the base URL and the model files that it names under `models/` there. Not part of the
//! page: built and driven by the browser tests.

#[cfg(target_arch = "wasm32")]
mod browser {
    use client_core::llm::checks::{self, Check, Golden};
    use client_core::llm::gpu::GpuContext;
    use client_core::llm::{Engine, EngineError};
    use serde::Serialize;
    use wasm_bindgen::prelude::*;

    #[derive(Serialize)]
    struct Report {
        adapter: String,
        software: bool,
        checks: Vec<Check>,
    }

    /// Runs all checks; the report is JSON: `{ adapter, software, checks: [{ name, passed, detail }] }`.
    ///
    /// # Errors
    /// There is no WebGPU, or a file cannot be fetched.
    #[wasm_bindgen]
    pub async fn run_engine_checks(base_url: String) -> Result<String, JsError> {
        console_error_panic_hook::set_once();
        let gpu = GpuContext::request().await?;
        let mut checks = checks::numeric(&gpu).await;
        let golden: Vec<Golden> = serde_json::from_slice(&fetch(&format!("{base_url}golden.json")).await?)?;
        for golden in &golden {
            let bytes = fetch(&format!("{base_url}models/{}", golden.file)).await?;
            for engine in [Engine::from_gguf_gpu(&bytes, &gpu).await, Engine::from_gguf_cpu(&bytes)] {
                checks.push(match engine {
                    Ok(engine) => checks::golden(engine, &bytes, golden).await,
                    Err(error) => failed(&golden.file, &error),
                });
            }
        }
        let facts = gpu.facts();
        let report = Report { adapter: facts.name.clone(), software: facts.software, checks };
        Ok(serde_json::to_string(&report)?)
    }

    fn failed(file: &str, error: &EngineError) -> Check {
        Check { name: format!("{file} loads"), passed: false, detail: error.to_string() }
    }

    async fn fetch(url: &str) -> Result<Vec<u8>, JsError> {
        let response = gloo::net::http::Request::get(url).send().await?;
        if !response.ok() {
            return Err(JsError::new(&format!("{url}: status {}", response.status())));
        }
        Ok(response.binary().await?)
    }
}

fn main() {}
