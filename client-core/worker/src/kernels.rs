//! The CPU forward pass as a module of its own, in the best build that the browser runs.
//!
//! The `kernels` crate is part of the worker in its plainest build (simd128, one thread). Beside it lie four more, small
//! ones: with and without relaxed SIMD, for one thread or for several over a shared memory. [`Kernels::load`] takes the
//! best; [`RemoteBackend`] is a model in that module's memory. Weights are read and copied piece by piece, so that this
//! module's own memory, which cannot shrink, never holds more than two pieces of 8 MiB of them.
//!
//! Helpers are workers that run the same module over the same memory (`kernels_worker.js`). They claim pieces of work and
//! park when there is none, so that a machine that is busy elsewhere loses nothing by them.

mod sequences;

use std::pin::pin;
use std::rc::Rc;

use futures::stream::{self, StreamExt as _};
use js_sys::WebAssembly::{Instance, Memory, Module};
use js_sys::{Array, Atomics, Function, Int32Array, Object, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::Worker;

pub use self::sequences::{RemoteBackend, RemoteBatch};
use super::fetch;
use super::message::{describe, property};
use cpu_kernels::abi::{self, ACCEPTED, REFUSED};
use engine::config::{ModelConfig, Rotations};
use engine::cpu::{self, Form};
use engine::error::EngineError;
use engine::parts::{BlockPart, MatrixForm, PIECE_BYTES, Part, Weights};

/// Most threads, the worker's own included: more do not help a model that fits into a tab.
const MAX_THREADS: usize = 8;
/// Longest file that could be the kernels.
const MAX_FILE: usize = 4 << 20;
/// Stack of a helper.
const STACK: u32 = 1 << 17;
/// A module that a browser accepts when it has relaxed SIMD: one function that shuffles two vectors.
const RELAXED_PROBE: [u8; 38] = [
    0, 97, 115, 109, 1, 0, 0, 0, // magic, version
    1, 5, 1, 96, 0, 1, 123, // a type: () → v128
    3, 2, 1, 0, // a function of it
    10, 17, 1, 15, 0, // its code
    65, 1, 253, 15, // i8x16.splat 1
    65, 2, 253, 15, // i8x16.splat 2
    253, 128, 2, // i8x16.relaxed_swizzle
    253, 98, // i8x16.popcnt
    11,
];

/// What a browser can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Build {
    /// Relaxed SIMD.
    pub relaxed: bool,
    /// Threads over a shared memory, the worker's own included; 1 without.
    pub threads: usize,
}

impl Build {
    /// The best that this browser runs: threads need a page that is isolated from other origins.
    pub fn best() -> Self {
        let relaxed = js_sys::WebAssembly::validate(&Uint8Array::from(&RELAXED_PROBE[..])).unwrap_or(false);
        let global = js_sys::global();
        let isolated = property(&global, "crossOriginIsolated").is_some_and(|isolated| isolated.is_truthy());
        let cores = property(&global, "navigator")
            .and_then(|navigator| property(&navigator, "hardwareConcurrency"))
            .and_then(|cores| cores.as_f64());
        let threads = if isolated { cores.map_or(1, |cores| (cores as usize).clamp(1, MAX_THREADS)) } else { 1 };
        Self { relaxed, threads }
    }

    fn file(self) -> String {
        let simd = if self.relaxed { "relaxed" } else { "simd" };
        format!("kernels-{simd}{}.wasm", if self.threads > 1 { "-threads" } else { "" })
    }

    /// For people.
    pub fn name(self) -> String {
        let simd = if self.relaxed { "relaxed SIMD" } else { "SIMD" };
        match self.threads {
            1 => format!("WebAssembly {simd}, one thread"),
            threads => format!("WebAssembly {simd}, {threads} threads"),
        }
    }
}

/// An instance of the module.
#[derive(Debug)]
pub struct Kernels {
    build: Build,
    exports: JsValue,
    memory: Memory,
    helpers: Vec<Worker>,
    /// The module builds one model at a time, and weights are waited for meanwhile.
    building: futures::lock::Mutex<()>,
    /// Called by the module; kept for as long as it lives.
    _wake: Option<Closure<dyn Fn(u32)>>,
}

impl Drop for Kernels {
    fn drop(&mut self) {
        for helper in &self.helpers {
            helper.terminate();
        }
    }
}

fn words(error: JsValue) -> String {
    describe(&error)
}

impl Kernels {
    /// Fetches the module from beside the page (`base` ends with a slash), instantiates it, and starts its helpers.
    ///
    /// # Errors
    /// The file is not there, or the browser does not take it.
    pub async fn load(base: &str, build: Build) -> Result<Rc<Self>, String> {
        let url = format!("{base}{}", build.file());
        let bytes = Uint8Array::from(&*fetch::bytes(&url, MAX_FILE).await?);
        let module = JsFuture::from(js_sys::WebAssembly::compile(&bytes)).await.map_err(words)?;
        let module: Module = module.unchecked_into();
        let imports = Object::new();
        let set = |target: &Object, name: &str, value: &JsValue| {
            Reflect::set(target, &name.into(), value).map(drop).map_err(words)
        };
        let (mut memory, mut wake) = (None, None);
        if build.threads > 1 {
            let limits = Object::new();
            set(&limits, "initial", &64.into())?;
            set(&limits, "maximum", &65536.into())?;
            set(&limits, "shared", &true.into())?;
            let shared = Memory::new(&limits).map_err(words)?;
            let of_wake = shared.clone();
            let closure = Closure::<dyn Fn(u32)>::new(move |address: u32| {
                // It fails only for an address outside the memory.
                let _ = Atomics::notify(&Int32Array::new(&of_wake.buffer()), address / 4);
            });
            let (env, tandem) = (Object::new(), Object::new());
            set(&env, "memory", &shared)?;
            set(&tandem, "wake", closure.as_ref())?;
            let performance = property(&js_sys::global(), "performance").ok_or("there is no clock")?;
            let now: Function = property(&performance, "now").ok_or("there is no clock")?.unchecked_into();
            set(&tandem, "now", &now.bind0(&performance))?;
            set(&imports, "env", &env)?;
            set(&imports, "tandem", &tandem)?;
            (memory, wake) = (Some(shared), Some(closure));
        }
        let instance = JsFuture::from(js_sys::WebAssembly::instantiate_module(&module, &imports)).await;
        let instance: Instance = instance.map_err(words)?.unchecked_into();
        let exports: JsValue = instance.exports().into();
        let memory = match memory {
            Some(memory) => memory,
            None => property(&exports, "memory").ok_or("the kernels have no memory")?.unchecked_into(),
        };
        let mut kernels =
            Self { build, exports, memory, helpers: Vec::new(), building: futures::lock::Mutex::new(()), _wake: wake };
        for _ in 1..build.threads {
            let helper = kernels.helper(base, &module)?;
            kernels.helpers.push(helper);
        }
        if build.threads > 1 {
            kernels.call("set_helpers", &[kernels.helpers.len() as u32])?;
        }
        Ok(Rc::new(kernels))
    }

    /// The best build that loads; the reasons of those that did not go to `note`.
    pub async fn best(base: &str, mut note: impl FnMut(String)) -> Option<Rc<Self>> {
        let best = Build::best();
        let mut builds = vec![best, Build { threads: 1, ..best }];
        builds.dedup();
        for build in builds {
            match Self::load(base, build).await {
                Ok(kernels) => return Some(kernels),
                Err(problem) => note(format!("{} did not load: {problem}", build.file())),
            }
        }
        None
    }

    fn helper(&self, base: &str, module: &Module) -> Result<Worker, String> {
        let stack = self.call("allocate", &[STACK])?;
        if stack == 0 {
            return Err("there is no memory for a thread".to_owned());
        }
        let worker = Worker::new(&format!("{base}kernels_worker.js")).map_err(words)?;
        let start = Array::of3(module, &self.memory, &(stack + STACK).into());
        worker.post_message(&start).map_err(words)?;
        Ok(worker)
    }

    /// Which build it is.
    pub fn build(&self) -> Build {
        self.build
    }

    /// Bytes of its memory.
    pub fn memory_bytes(&self) -> u64 {
        property(&self.memory.buffer(), "byteLength").and_then(|bytes| bytes.as_f64()).unwrap_or(0.0) as u64
    }

    /// Whether the relaxed builds multiply bytes in one instruction: `None` for what is faster on this machine. Results are
    /// the same to the last bit.
    pub fn fuse(&self, choice: Option<bool>) {
        // A build without the function has one way only.
        let _ = self.call("fuse", &[abi::fuse_code(choice)]);
    }

    fn call(&self, name: &str, arguments: &[u32]) -> Result<u32, String> {
        let function = property(&self.exports, name).ok_or_else(|| format!("the kernels have no function {name}"))?;
        let function: Function = function.unchecked_into();
        let arguments: Array = arguments.iter().map(|word| JsValue::from_f64(f64::from(*word))).collect();
        let result = function.apply(&JsValue::UNDEFINED, &arguments).map_err(words)?;
        // wasm's numbers come out signed.
        Ok(result.as_f64().unwrap_or(0.0) as i64 as u32)
    }

    /// As [`call`](Self::call), with a refusal as an error.
    fn accepted(&self, name: &str, arguments: &[u32]) -> Result<u32, EngineError> {
        match self.call(name, arguments) {
            Ok(ACCEPTED) => Ok(ACCEPTED),
            Ok(_) => Err(EngineError::Inconsistent(format!("the CPU kernels refuse {name}"))),
            Err(problem) => Err(EngineError::Cpu(problem)),
        }
    }

    /// Copies `bytes` into the module's memory, hands their address to `act`, and frees them.
    fn with_bytes<T>(&self, bytes: &[u8], act: impl FnOnce(u32) -> Result<T, EngineError>) -> Result<T, EngineError> {
        let space = Space::new(self, bytes.len() as u64)?;
        space.write(0, bytes)?;
        act(space.start)
    }
}

fn no_memory() -> EngineError {
    EngineError::Cpu("there is no memory left for the model".into())
}

/// A part of a module's memory, given back when it is dropped.
struct Space<'k> {
    kernels: &'k Kernels,
    start: u32,
    len: u32,
}

impl Drop for Space<'_> {
    fn drop(&mut self) {
        // A module that cannot be called holds nothing that matters.
        let _ = self.kernels.call("release", &[self.start, self.len]);
    }
}

impl<'k> Space<'k> {
    fn new(kernels: &'k Kernels, bytes: u64) -> Result<Self, EngineError> {
        let len = u32::try_from(bytes).map_err(|_| EngineError::Unsupported("a tensor of over 4 GiB".into()))?;
        match kernels.call("allocate", &[len]).map_err(EngineError::Cpu)? {
            0 => Err(no_memory()),
            start => Ok(Self { kernels, start, len }),
        }
    }

    /// Copies `bytes` to byte `at` of it.
    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), EngineError> {
        let len = bytes.len() as u64;
        if at.checked_add(len).is_none_or(|end| end > self.len.into()) {
            return Err(EngineError::Inconsistent("a tensor came with too many bytes".into()));
        }
        // Whoever waited for the bytes may find that the memory has grown, and its buffer is another one.
        let buffer = self.kernels.memory.buffer();
        Uint8Array::new_with_byte_offset_and_length(&buffer, self.start + at as u32, len as u32).copy_from(bytes);
        Ok(())
    }
}

/// A model in a module's memory.
#[derive(Debug)]
struct RemoteModel {
    kernels: Rc<Kernels>,
    number: u32,
    config: ModelConfig,
    rotations: Rotations,
}

impl Drop for RemoteModel {
    fn drop(&mut self) {
        // A module that cannot be called holds nothing that matters.
        let _ = self.kernels.call("free_model", &[self.number]);
    }
}

async fn build(kernels: &Kernels, weights: &dyn Weights, form: Form) -> Result<u32, EngineError> {
    let config = weights.config();
    let bytes: Vec<u8> = abi::shape_words(&cpu::shape(config)).into_iter().flat_map(u32::to_le_bytes).collect();
    kernels
        .with_bytes(&bytes, |start| kernels.call("begin", &[start, config.layers as u32]).map_err(EngineError::Cpu))?;
    let vector = |number: u32, layer: u32, values: &[f32]| {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        kernels.with_bytes(&bytes, |start| kernels.accepted("vector", &[number, layer, start, values.len() as u32]))
    };
    let mut matrices = vec![(abi::EMBEDDING, 0, Part::Embedding)];
    if weights.form(Part::Output)?.is_some() {
        matrices.push((abi::HEAD, 0, Part::Output));
    }
    for (at, layer) in (0..).zip(0..config.layers) {
        matrices.extend((0..).zip(BlockPart::ALL).map(|(number, part)| (number, at, Part::Block(layer, part))));
    }
    let mut pieces = Vec::new();
    for (number, layer, part) in matrices {
        let stored = weights.required(part)?;
        pieces.extend(stored.pieces(stored.row_bytes(), PIECE_BYTES).map(|rows| (number, layer, part, stored, rows)));
    }
    // While a piece is laid out, the browser reads the next one.
    let read = stream::iter(pieces).map(async |(number, layer, part, stored, rows)| {
        let (first, len) = (rows.start as u32, rows.len() * stored.row_bytes());
        let bytes = weights.rows(part, rows).await?;
        if bytes.len() != len {
            return Err(EngineError::Inconsistent("a matrix has the wrong number of bytes".into()));
        }
        Ok((number, layer, stored, first, bytes))
    });
    let mut read = pin!(read.buffered(2));
    while let Some(piece) = read.next().await {
        let (number, layer, MatrixForm { dtype, rows, cols, .. }, first, bytes) = piece?;
        if first == 0 {
            let args = [number, layer, dtype.id(), rows as u32, cols as u32, u32::from(form == Form::Singles)];
            if kernels.call("matrix", &args).map_err(EngineError::Cpu)? != ACCEPTED {
                return Err(no_memory());
            }
        }
        let put = |start| kernels.accepted("rows", &[number, layer, dtype.id(), first, start, bytes.len() as u32]);
        kernels.with_bytes(&bytes, put)?;
    }
    for (at, layer) in (0..).zip(0..config.layers) {
        let has = weights.vectors(layer).await?;
        let traits = &has.traits;
        let vectors = [Some(&has.attn_norm), Some(&has.ffn_norm), traits.qkv_bias.as_ref()];
        let norms = [&traits.q_norm, &traits.k_norm, &traits.post_attn_norm, &traits.post_ffn_norm];
        let vectors = vectors.into_iter().chain(norms.map(Option::as_ref));
        for (number, values) in (0..).zip(vectors) {
            vector(number, at, values.map_or(&[], Vec::as_slice))?;
        }
        let (rotation, window) = (abi::optional_code(traits.rope.table()), abi::optional_code(traits.window));
        kernels.accepted("layer", &[at, rotation, window])?;
    }
    vector(abi::OUTPUT_NORM, 0, &weights.output_norm().await?)?;
    match kernels.call("finish", &[]).map_err(EngineError::Cpu)? {
        REFUSED => Err(EngineError::Unsupported("heads of more than 256 elements, on the CPU".into())),
        number => Ok(number),
    }
}
