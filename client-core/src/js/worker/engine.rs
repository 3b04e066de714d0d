//! The loaded model: [`Engine`] as the port that a run writes through, with the way from a lost GPU onto the CPU.

use std::ops::ControlFlow;
use std::rc::Rc;

use async_trait::async_trait;

use super::{Hub, tier};
use crate::download::Shelf;
use crate::js::kernels::{Kernels, RemoteBackend};
use crate::js::shelf::OpfsShelf;
use crate::llm::gguf::Gguf;
use crate::llm::gpu::GpuContext;
use crate::llm::weights::ModelWeights;
use crate::llm::{Engine, EngineError, cpu};
use crate::offload::local::EnginePort;
use crate::offload::ports::{Clock, LocalEngine, LocalError, LocalFinish};
use crate::protocol::worker::{AskOptions, Event, ModelState, Tier, TierChoice};

/// Where a model's bytes can be had again.
pub(super) enum Origin {
    /// On the shelf.
    Shelf {
        /// Its name there.
        sha256: String,
        /// Its length.
        bytes: u64,
    },
    /// Only here: the shelf had no room.
    Memory(Rc<Vec<u8>>),
}

impl Origin {
    async fn bytes(&self) -> Result<Rc<Vec<u8>>, String> {
        match self {
            Self::Memory(bytes) => Ok(Rc::clone(bytes)),
            Self::Shelf { sha256, bytes } => match OpfsShelf::default().read(sha256).await {
                // It was verified when it was put there.
                Ok(Some(file)) if file.len() as u64 == *bytes => Ok(Rc::new(file)),
                Ok(_) => Err("the stored model is gone; load it again".to_owned()),
                Err(error) => Err(error.to_string()),
            },
        }
    }
}

/// A model in memory.
pub(super) struct Loaded {
    id: String,
    engine: Engine,
    on_gpu: bool,
    origin: Origin,
}

impl Loaded {
    /// Its id in the manifest.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn with_id(self, id: &str) -> Self {
        Self { id: id.to_owned(), ..self }
    }

    /// What its weights take.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.engine.info().weight_bytes
    }
}

/// Loads a model into the engine of the present tier; a GPU that refuses it is given up for the CPU.
pub(super) async fn load(hub: &Hub, bytes: &[u8], origin: Origin) -> Result<Loaded, String> {
    let gpu: Option<GpuContext> = hub.gpu.borrow().clone();
    let problem = match gpu {
        None => None,
        Some(gpu) => match Engine::from_gguf_gpu(bytes, &gpu).await {
            Ok(engine) => return Ok(Loaded { id: String::new(), engine, on_gpu: true, origin }),
            // A damaged file is damaged on the CPU too; let that path say so.
            Err(error) => Some(error.to_string()),
        },
    };
    if let Some(problem) = &problem
        && hub.choice.get() == TierChoice::WebGpu
    {
        return Err(format!("you chose WebGPU, but {problem}; choose the CPU"));
    }
    let engine = hub.cpu_engine(bytes).await.map_err(|error| error.to_string())?;
    if let Some(problem) = problem {
        hub.onto_cpu(&format!("The GPU could not take the model ({problem}), so the CPU computes."));
    }
    Ok(Loaded { id: String::new(), engine, on_gpu: false, origin })
}

impl Hub {
    /// An engine on the CPU: small models in this module, large ones in the best build of the kernels that loads.
    async fn cpu_engine(&self, bytes: &[u8]) -> Result<Engine, EngineError> {
        let large = Gguf::parse(bytes).map_err(EngineError::from).and_then(|gguf| ModelWeights::from_gguf(&gguf));
        if large.is_ok_and(|weights| cpu::Form::of(&weights) == cpu::Form::Stored)
            && let Some(kernels) = self.kernels().await
        {
            let device = format!("CPU, {}", kernels.build().name());
            if self.tier.borrow().tier == Tier::Cpu {
                self.tier.borrow_mut().device = device;
                self.emit(Event::Tier { tier: self.tier.borrow().clone() });
            }
            return Engine::from_gguf_onto(bytes, |weights| Ok(Box::new(RemoteBackend::new(&kernels, weights)?)));
        }
        Engine::from_gguf_cpu(bytes)
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
    pub(super) hub: &'a Hub,
    pub(super) loaded: &'a mut Loaded,
}

#[async_trait(?Send)]
impl LocalEngine for Writing<'_> {
    async fn entropy(&mut self, prompt: &str) -> Result<f32, LocalError> {
        let clock = || self.hub.clock.now_s();
        let entropy = EnginePort { engine: &mut self.loaded.engine, clock: &clock }.entropy(prompt).await;
        // Between two prompts the page gets a word in.
        self.hub.clock.sleep(0.0).await;
        entropy
    }

    async fn generate(
        &mut self,
        prompt: &str,
        prefix: &str,
        max_tokens: usize,
        options: &AskOptions,
        on_token: &mut dyn for<'t> FnMut(&'t str) -> ControlFlow<()>,
    ) -> Result<LocalFinish, LocalError> {
        let clock = || self.hub.clock.now_s();
        let mut port = EnginePort { engine: &mut self.loaded.engine, clock: &clock };
        port.generate(prompt, prefix, max_tokens, options, on_token).await
    }

    async fn recover(&mut self, error: &LocalError) -> Result<String, LocalError> {
        if !self.loaded.on_gpu {
            return Err(error.clone());
        }
        let failed = |problem: String| LocalError::new(format!("{error}, and the CPU could not take over: {problem}"));
        let bytes = self.loaded.origin.bytes().await.map_err(failed)?;
        self.loaded.engine = self.hub.cpu_engine(&bytes).await.map_err(|error| failed(error.to_string()))?;
        self.loaded.on_gpu = false;
        self.hub.onto_cpu(&format!("The CPU took over because {error}. Reload the page to try the GPU again."));
        let state = ModelState::Ready { memory_bytes: self.loaded.memory_bytes() };
        self.hub.emit(Event::Model { id: self.loaded.id.clone(), state });
        Ok(format!("The GPU failed in the middle of the answer ({error}); the CPU goes on."))
    }
}
