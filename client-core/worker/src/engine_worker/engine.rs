//! The loaded model: [`Engine`] as the port that a run writes through, with the way from a lost GPU onto the CPU.

use std::ops::ControlFlow;
use std::rc::Rc;

use async_trait::async_trait;

use super::{EngineWorker, tier};
use crate::kernels::{Kernels, RemoteBackend};
use crate::reading::{ModelFiles, Reading};
use client::offload::local::{EnginePort, messages};
use client::offload::ports::{Clock, Jobs, LocalEngine, LocalError, Written};
use client::offload::signal::StopFlag;
use client::protocol::engine::Turn;
use client::protocol::worker::{AskOptions, Event, ModelState, Tier, TierChoice};
use client::verdict;
use engine::assemble::WeightStream;
use engine::backend::Backend;
use engine::files::{Files, ReadAt};
use engine::gpu::{GpuBackend, GpuContext};
use engine::parts::Weights;
use engine::{Engine, EngineError, cpu};

/// A model in memory.
pub(super) struct Loaded {
    id: String,
    engine: Engine,
    on_gpu: bool,
    /// Where its bytes can be had again.
    files: ModelFiles,
    context: Option<u32>,
    /// Numbers that the KV cache holds for a token.
    cache_width: u64,
    /// What its weights take where they are.
    held_bytes: u64,
}

impl Loaded {
    /// What its weights take.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// What its KV cache takes when it is full.
    pub(super) fn cache_bytes(&self) -> u64 {
        let info = self.engine.info();
        let is_exact = verdict::is_exact_on_cpu(info.parameters, info.quantisation);
        verdict::cache_bytes(self.cache_width, info.context as u64, self.on_gpu, is_exact)
    }

    /// Its name, and what its vocabulary is recognised by.
    pub(super) fn words(&self) -> (String, String) {
        (self.engine.info().name, self.engine.tokenizer().fingerprint())
    }

    /// Whether both are in GPU memory.
    pub(super) fn on_gpu(&self) -> bool {
        self.on_gpu
    }

    /// The tokens that its context holds, and those of a conversation with the next thing that a person says in it.
    pub(super) fn count(&self, earlier: &[Turn], prompt: &str) -> Result<(usize, usize), String> {
        let count = || self.engine.prompt(&messages(earlier, prompt), "")?.tokens(self.engine.tokenizer());
        let tokens = count().map_err(|error| error.to_string())?;
        Ok((self.engine.info().context, tokens.len()))
    }

    /// The engine, whose chat template sees the present time.
    pub(super) fn engine(&mut self) -> &mut Engine {
        self.engine.set_now((js_sys::Date::now() / 1e3) as i64);
        &mut self.engine
    }
}

/// Loads a model into the engine of the present tier; a GPU that refuses it is given up for the CPU. `progress` is told the
/// bytes that have been read and those that will be.
pub(super) async fn load(
    engine_worker: &EngineWorker,
    id: &str,
    files: ModelFiles,
    context: Option<u32>,
    stop: &StopFlag,
    progress: &dyn Fn(u64, u64),
) -> Result<Loaded, String> {
    let reading = Reading::new(&files, stop, progress);
    let gpu: Option<GpuContext> = engine_worker.gpu.borrow().clone();
    let loaded = |Built { engine, cache_width, held_bytes }, on_gpu| Loaded {
        id: id.to_owned(),
        engine,
        on_gpu,
        files: files.clone(),
        context,
        cache_width,
        held_bytes,
    };
    let problem = match &gpu {
        None => None,
        Some(gpu) => match build(engine_worker, &reading, context, Some(gpu)).await {
            Ok(built) => return Ok(loaded(built, true)),
            Err(error) if stop.is_stopped() => return Err(error.to_string()),
            // A damaged file is damaged on the CPU too; let that path say so.
            Err(error) => Some(error.to_string()),
        },
    };
    if let Some(problem) = &problem
        && engine_worker.choice.get() == TierChoice::WebGpu
    {
        return Err(format!("you chose WebGPU, but {problem}; choose the CPU"));
    }
    let built = build(engine_worker, &reading, context, None).await.map_err(|error| error.to_string())?;
    if let Some(problem) = problem {
        engine_worker.onto_cpu(&format!("The GPU could not take the model ({problem}), so the CPU computes."));
    }
    Ok(loaded(built, false))
}

/// See [`Loaded`].
struct Built {
    engine: Engine,
    cache_width: u64,
    held_bytes: u64,
}

/// An engine over a model, with a context of at most so many tokens. Files are read piece by piece: they may be larger than
/// this memory.
async fn build(
    engine_worker: &EngineWorker,
    reading: &Reading<'_>,
    context: Option<u32>,
    gpu: Option<&GpuContext>,
) -> Result<Built, EngineError> {
    let (words, mut weights) = reading.open().await?;
    weights.limit_context(context.and_then(|context| usize::try_from(context).ok()).unwrap_or(usize::MAX));
    let config = weights.config();
    let cache_width = 2 * config.layers as u64 * config.kv_dim() as u64;
    let held_bytes = if gpu.is_some() { weights.totals()?.bytes } else { cpu::portable_bytes(&weights)? };
    let backend: Box<dyn Backend> = match gpu {
        Some(gpu) => {
            Box::new(GpuBackend::new(&engine_worker.tested(gpu, &weights, reading.stop).await?, &weights).await?)
        }
        None => engine_worker.cpu_backend(&weights).await?,
    };
    let engine = Engine::from_parts(words.tokenizer, words.template, &weights, backend)?;
    Ok(Built { engine, cache_width, held_bytes })
}

impl EngineWorker {
    /// The CPU's backend: small models in this module, large ones in the best build of the kernels that loads.
    async fn cpu_backend<R: ReadAt>(&self, weights: &WeightStream<Files<R>>) -> Result<Box<dyn Backend>, EngineError> {
        if cpu::Form::of_size(weights.totals()?.parameters) == cpu::Form::Stored
            && let Some(kernels) = self.kernels().await
        {
            if self.tier.borrow().tier == Tier::Cpu {
                self.tier.borrow_mut().device = kernels.build().name();
                self.emit(Event::Tier { tier: self.tier.borrow().clone() });
            }
            return Ok(Box::new(RemoteBackend::new(&kernels, weights).await?));
        }
        cpu::backend(&weights.collect().await?)
    }

    /// The kernels' module; fetched when it is first needed.
    async fn kernels(&self) -> Option<Rc<Kernels>> {
        let mut kernels = self.kernels.lock().await;
        if kernels.is_none() {
            let here = self.scope.location().href();
            let base = here.rsplit_once('/').map_or("", |(folder, _)| folder);
            let note = |problem: String| self.notice(format!("The CPU runs in a slower build: {problem}."));
            *kernels = Kernels::best(&format!("{base}/"), note).await;
        }
        kernels.clone()
    }

    /// The GPU is out of the game.
    fn onto_cpu(&self, reason: &str) {
        self.gpu.borrow_mut().take();
        if self.tier.borrow().tier != Tier::Cpu {
            *self.tier.borrow_mut() = tier::cpu(reason);
            self.emit(Event::Tier { tier: self.tier.borrow().clone() });
        }
    }
}

/// The engine for the time of an ask.
pub(super) struct Writing<'a> {
    pub(super) engine_worker: &'a EngineWorker,
    pub(super) loaded: &'a mut Loaded,
}

#[async_trait(?Send)]
impl LocalEngine for Writing<'_> {
    async fn entropy(&mut self, earlier: &[Turn], prompt: &str) -> Result<f32, LocalError> {
        let clock = || self.engine_worker.clock.now_s();
        let entropy = EnginePort { engine: self.loaded.engine(), clock: &clock }.entropy(earlier, prompt).await;
        // Yields between two prompts, so that queued messages of the page are handled.
        self.engine_worker.clock.sleep(0.0).await;
        entropy
    }

    async fn generate(
        &mut self,
        prompt: &str,
        prefix: &str,
        max_tokens: usize,
        options: &AskOptions,
        on_token: &mut dyn for<'t> FnMut(&'t str) -> ControlFlow<()>,
    ) -> Result<Written, LocalError> {
        let clock = || self.engine_worker.clock.now_s();
        let mut port = EnginePort { engine: self.loaded.engine(), clock: &clock };
        port.generate(prompt, prefix, max_tokens, options, on_token).await
    }

    async fn answer_all(&mut self, jobs: &mut dyn Jobs, options: &AskOptions) -> Result<(), LocalError> {
        let clock = || self.engine_worker.clock.now_s();
        EnginePort { engine: self.loaded.engine(), clock: &clock }.answer_all(jobs, options).await
    }

    async fn recover(&mut self, error: &LocalError) -> Result<String, LocalError> {
        if !self.loaded.on_gpu {
            return Err(error.clone());
        }
        let failed = |problem: String| LocalError::new(format!("{error}, and the CPU could not take over: {problem}"));
        let (files, stop) = (self.loaded.files.clone(), StopFlag::default());
        let reading = Reading::new(&files, &stop, &|_, _| ());
        let built = build(self.engine_worker, &reading, self.loaded.context, None).await;
        let built = built.map_err(|error| failed(error.to_string()))?;
        (self.loaded.engine, self.loaded.held_bytes) = (built.engine, built.held_bytes);
        self.loaded.on_gpu = false;
        self.engine_worker
            .onto_cpu(&format!("The CPU took over because {error}. Reload the page to try the GPU again."));
        let state = ModelState::Ready { memory_bytes: self.loaded.memory_bytes() };
        self.engine_worker.emit(Event::Model { id: self.loaded.id.clone(), state });
        Ok(format!("The GPU failed in the middle of the answer ({error}); the CPU goes on."))
    }
}
