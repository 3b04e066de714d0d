//! What loading a model would take, said before it is loaded.

use std::rc::Rc;

use futures::StreamExt;
use wasm_bindgen::JsCast;
use web_sys::WorkerGlobalScope;

use super::EngineWorker;
use super::models::{Remote, sentence};
use crate::file::{ModelFile, footprint_of_head};
use crate::message::property;
use crate::opfs::{OpfsStore, free_bytes, storage};
use client::download::{Source, SourceError, Wanted};
use client::protocol::engine::{MemoryReport, ModelSource, Verdict};
use client::protocol::worker::Event;
use client::verdict::{DeviceLimits, LONGEST_HEAD, ModelFootprint, judge};

impl EngineWorker {
    pub(super) async fn inspect(self: &Rc<Self>, ask: u64, source: &ModelSource, context: Option<u32>) {
        match self.verdict(source, context).await {
            Ok(verdict) => self.emit(Event::Inspected { ask, verdict }),
            Err(problem) => self.emit(Event::Failed { ask: Some(ask), message: sentence(&problem) }),
        }
    }

    async fn verdict(&self, source: &ModelSource, context: Option<u32>) -> Result<Verdict, String> {
        let (footprint, file_bytes, here_bytes) = match source {
            ModelSource::File { .. } => {
                let file = self.models.chosen_file(source)?;
                (file.footprint().await?, file.size(), file.size())
            }
            ModelSource::Files { name, store_as, .. } => {
                let files = self.models.chosen_files(source, *store_as).await?;
                let footprint = files.footprint(name).await.map_err(|error| error.to_string())?;
                (footprint, files.size(), files.size())
            }
            ModelSource::Folder { url, store_as } => self.inspect_folder(url, *store_as).await?,
            ModelSource::Server { id } => {
                let entry = self.model_entry(id).ok_or("the server does not offer this model (any more)")?;
                let stored = OpfsStore::default().stored(&entry.sha256).await;
                let footprint = match ModelFootprint::from_entry(&entry) {
                    Some(footprint) => footprint,
                    None => {
                        let wanted = self.wanted(&entry).map_err(|error| error.to_string())?;
                        self.footprint_of(&wanted, None).await?
                    }
                };
                (footprint, entry.bytes, stored.min(entry.bytes))
            }
            ModelSource::Url { url, sha256 } => {
                let remote = self.look_at_url(url, sha256.as_deref()).await?;
                let stored = OpfsStore::default().stored(&remote.wanted.name).await;
                let bytes = remote.wanted.bytes;
                let footprint = self.footprint_of(&remote.wanted.clone(), Some(remote)).await?;
                (footprint, bytes, stored.min(bytes))
            }
        };
        let others: Vec<_> = self.manifest.borrow().models.clone();
        Ok(judge(&footprint, file_bytes, here_bytes, context, self.device_limits().await, &others))
    }

    /// The footprint of a file that may be in the store; else from the beginning of what its server sends.
    async fn footprint_of(&self, wanted: &Wanted, remote: Option<Remote>) -> Result<ModelFootprint, String> {
        let store = OpfsStore::default();
        if store.stored(&wanted.name).await == wanted.bytes
            && let Ok(Some(file)) = store.file(&wanted.name).await
        {
            return ModelFile::Blob(file.into()).footprint().await;
        }
        let mut body = match remote {
            Some(Remote { reply, .. }) => reply.chunks()?.map(|chunk| chunk.map_err(SourceError::Cut)).boxed_local(),
            None => self.server().open(&wanted.url, 0).await.map_err(|error| error.to_string())?.body,
        };
        let mut head = Vec::new();
        let mut tried = 0;
        loop {
            let chunk = body.next().await.transpose().map_err(|error| error.to_string())?;
            let over = chunk.is_none() || head.len() >= LONGEST_HEAD;
            head.extend(chunk.unwrap_or_default());
            // Parsing is repeated only when there is twice as much: headers of many megabytes come in small chunks.
            if over || head.len() >= 2 * tried {
                tried = head.len();
                if let Some(footprint) = footprint_of_head(&head, wanted.bytes, over) {
                    return footprint;
                }
            }
        }
    }

    async fn device_limits(&self) -> DeviceLimits {
        let storage_bytes = free_bytes().await;
        DeviceLimits {
            tier: self.tier.borrow().tier,
            binding_bytes: self.gpu.borrow().as_ref().map(|gpu| gpu.caps().max_binding_bytes),
            device_bytes: device_memory(),
            storage_bytes,
        }
    }

    pub(super) async fn measure(&self, ask: u64) {
        let (stored_bytes, quota_bytes) = storage().await;
        let engine = self.models.look(|loaded| (loaded.memory_bytes(), loaded.cache_bytes(), loaded.on_gpu()));
        let (weight_bytes, cache_bytes, on_gpu) = engine.unwrap_or_default();
        let wasm_bytes = wasm_bindgen::memory()
            .dyn_into::<js_sys::WebAssembly::Memory>()
            .ok()
            .and_then(|memory| property(&memory.buffer(), "byteLength")?.as_f64())
            .unwrap_or(0.0) as u64;
        // Large models are in the memory of the kernels' module.
        let kernels = self.kernels.lock().await.as_ref().map_or(0, |kernels| kernels.memory_bytes());
        let wasm_bytes = wasm_bytes + kernels;
        let memory = MemoryReport { wasm_bytes, weight_bytes, cache_bytes, on_gpu, stored_bytes, quota_bytes };
        self.emit(Event::Memory { ask, memory });
    }
}

/// The device's memory as the browser tells it.
fn device_memory() -> Option<u64> {
    let scope: WorkerGlobalScope = js_sys::global().dyn_into().ok()?;
    let gib = property(&scope.navigator(), "deviceMemory")?.as_f64()?;
    Some((gib * f64::from(1 << 30)) as u64)
}
