//! Checks of the LLM engine and of the policies as a wasm module for a browser under test.
//!
//! - `run_engine_checks(base_url)` returns a report. Expects `golden.json` under the base URL and the model files that it
//!   names under `models/` there.
//! - `PolicyChecks` compares both policy backends with `policies/golden.json`, in the page's own workers, which the spec
//!   starts and hands the messages to.
//! - `run_kernel_checks(base_url)` holds the builds of the CPU kernels against each other; `EngineBench` is what
//!   `cargo xtask bench engine` times.
//!
//! Not part of the page: built and driven by the browser tests.

#[cfg(target_arch = "wasm32")]
mod kernels;

#[cfg(target_arch = "wasm32")]
mod browser {
    use engine::checks::{self, Check, Golden, Scope};
    use engine::gpu::GpuContext;
    use engine::{Engine, EngineError};
    use policy::{GoldenCase, GoldenDecisions, PolicyManifest};
    use serde::Serialize;
    use wasm_bindgen::prelude::*;
    use worker::message::{from_js, to_js};
    use worker::policy_link::{Bytes, Reply, Request};

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
        // All of them run natively, on lavapipe or a GPU.
        let scope = if gpu.caps().software { Scope::Few } else { Scope::All };
        let mut checks = checks::numeric(&gpu, scope).await;
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
        let caps = gpu.caps();
        let report = Report { adapter: caps.name.clone(), software: caps.software, checks };
        Ok(serde_json::to_string(&report)?)
    }

    /// The decisions that every backend has to reproduce, and the policies that they are of.
    #[wasm_bindgen]
    pub struct PolicyChecks {
        cases: Vec<(GoldenCase, Vec<u8>)>,
    }

    #[wasm_bindgen]
    impl PolicyChecks {
        /// Reads what lies under `policies/` of the base URL.
        ///
        /// # Errors
        /// A file is missing or damaged.
        pub async fn load(base_url: String) -> Result<PolicyChecks, JsError> {
            console_error_panic_hook::set_once();
            let text = async |name: &str| {
                let bytes = fetch(&format!("{base_url}policies/{name}")).await?;
                String::from_utf8(bytes).map_err(|error| JsError::new(&error.to_string()))
            };
            let manifest = PolicyManifest::parse(&text("manifest.json").await?)?;
            let golden = GoldenDecisions::parse(&text("golden.json").await?)?;
            let mut files = std::collections::BTreeMap::new();
            let fixed = manifest.policies.iter().map(|entry| (&entry.id, &entry.file));
            let sets = manifest.sets.iter().map(|entry| (&entry.id, &entry.file));
            for (id, file) in fixed.chain(sets) {
                files.insert(id.clone(), fetch(&format!("{base_url}policies/{file}")).await?);
            }
            let unknown = |id: &str| JsError::new(&format!("golden.json names {id}, which the manifest does not have"));
            let with_file = |case: GoldenCase| match files.get(&case.policy) {
                Some(bytes) => Ok((case, bytes.clone())),
                None => Err(unknown(&case.policy)),
            };
            Ok(Self { cases: golden.cases.into_iter().map(with_file).collect::<Result<_, _>>()? })
        }

        /// Number of decisions.
        #[must_use]
        pub fn count(&self) -> usize {
            self.cases.len()
        }

        /// Id of the policy of a decision.
        #[must_use]
        pub fn policy(&self, case: usize) -> String {
            self.cases[case].0.policy.clone()
        }

        /// Number of users of a decision.
        #[must_use]
        pub fn users(&self, case: usize) -> usize {
            self.cases[case].0.decision.len()
        }

        /// The message that gives a policy's worker the policy of a decision.
        ///
        /// # Errors
        /// It cannot be posted.
        pub fn load_message(&self, case: usize) -> Result<JsValue, JsError> {
            let bytes = Bytes(self.cases[case].1.clone());
            to_js(&Request::Load { call: 1, bytes }).map_err(|error| JsError::new(&error))
        }

        /// The message that asks a policy's worker for a decision.
        ///
        /// # Errors
        /// It cannot be posted.
        pub fn decide_message(&self, case: usize) -> Result<JsValue, JsError> {
            let (params, seen) = (Box::default(), self.cases[case].0.observation.clone());
            to_js(&Request::Decide { call: 2, params, seen }).map_err(|error| JsError::new(&error))
        }

        /// The difference of the decision in the worker's reply; `None` for a reply that reports success without one.
        ///
        /// # Errors
        /// The reply reports a failure.
        pub fn difference(&self, case: usize, reply: JsValue) -> Result<Option<f64>, JsError> {
            match from_js::<Reply>(reply).map_err(|error| JsError::new(&error))? {
                Reply::Up { problem: None } | Reply::Loaded { .. } => Ok(None),
                Reply::Decided { decisions, .. } => Ok(Some(self.cases[case].0.difference(&decisions))),
                Reply::Up { problem: Some(problem) } | Reply::Failed { problem, .. } => Err(JsError::new(&problem)),
            }
        }
    }

    fn failed(file: &str, error: &EngineError) -> Check {
        Check { name: format!("{file} loads"), passed: false, detail: error.to_string() }
    }

    pub(super) async fn fetch(url: &str) -> Result<Vec<u8>, JsError> {
        let response = gloo::net::http::Request::get(url).send().await?;
        if !response.ok() {
            return Err(JsError::new(&format!("{url}: status {}", response.status())));
        }
        Ok(response.binary().await?)
    }
}

fn main() {}
