//! The engine: a tokenizer, a chat template and a backend, joined to something that answers.

use std::ops::ControlFlow;

use super::backend::{Backend, Counters, Output, OutputKind};
use super::continuation::Continuation;
use super::error::EngineError;
use super::generate::{ChatMessage, FinishReason, GenerationStats, SamplingOptions, TokenEvent};
use super::gguf::{Gguf, Value};
use super::parts::Weights;
use super::prompt::Prompt;
use super::safetensors::TokenizerFiles;
use super::sampler;
use super::template::ChatTemplate;
use super::together::Together;
use super::tokenizer::Tokenizer;
use super::yielding::{YieldNow, default_yield};

/// Steps that are under way at once where the device chooses: one runs while the next is encoded.
const STEPS_AHEAD: usize = 2;

/// What the engine runs, for people.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// Name from the file.
    pub name: String,
    /// Number of parameters; a tied embedding counts once.
    pub parameters: u64,
    /// Bytes of the matrices as stored.
    pub weight_bytes: u64,
    /// How most of them are stored: `Q4_0`, `Q8_0`, `F32`, …
    pub quantisation: &'static str,
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// Width of the residual stream.
    pub dim: usize,
    /// Blocks.
    pub layers: usize,
    /// Longest sequence, tokens.
    pub context: usize,
    /// `"cpu"` or `"webgpu"`.
    pub backend: &'static str,
}

/// A loaded model with one conversation's KV cache. Natively it is `Send`.
pub struct Engine {
    info: ModelInfo,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    backend: Box<dyn Backend>,
    /// The tokens whose keys and values the backend's cache holds.
    cached: Vec<u32>,
    yield_now: Option<YieldNow>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("info", &self.info).field("cached", &self.cached.len()).finish_non_exhaustive()
    }
}

/// What a model's files hold besides tensors.
#[derive(Debug, Clone)]
pub struct ChatTokenizer {
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    /// Conversations to text.
    pub template: ChatTemplate,
}

impl ChatTokenizer {
    /// From the metadata of a GGUF file.
    ///
    /// # Errors
    /// The tokenizer cannot be built. A chat template that cannot be read is an error only where it is to be rendered.
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Self, EngineError> {
        let tokenizer = Tokenizer::from_gguf(gguf)?;
        let source = gguf.get("tokenizer.chat_template").and_then(Value::as_str);
        let template = template(&tokenizer, Ok(source));
        Ok(Self { tokenizer, template })
    }

    /// From the files of a Hugging Face checkpoint.
    ///
    /// # Errors
    /// As [`from_gguf`](Self::from_gguf), or one of the files is not JSON.
    pub fn from_files(files: &TokenizerFiles<'_>) -> Result<Self, EngineError> {
        let mut tokenizer = Tokenizer::from_json(files.tokenizer, files.tokenizer_config)?;
        tokenizer.stop_at(files.stops()?);
        let source = files.template();
        let template = template(&tokenizer, source.as_ref().map(Option::as_deref));
        Ok(Self { tokenizer, template })
    }

    /// As [`Engine::prompt`].
    ///
    /// # Errors
    /// The template refuses the messages.
    pub fn prompt(&self, messages: &[ChatMessage], assistant_prefix: &str) -> Result<Prompt, EngineError> {
        Prompt::of_chat(&self.tokenizer, &self.template, messages, assistant_prefix)
    }
}

/// The chat template; one that cannot be read leaves the model to go on with plain texts, and says why when it is needed.
fn template(tokenizer: &Tokenizer, source: Result<Option<&str>, &EngineError>) -> ChatTemplate {
    let (bos, eos) = (tokenizer.special_text(tokenizer.bos()), tokenizer.special_text(tokenizer.eos()));
    let template = source.map_err(ToString::to_string);
    let template = template.and_then(|source| ChatTemplate::new(source, &bos, &eos).map_err(|error| error.to_string()));
    template.unwrap_or_else(|why| ChatTemplate::broken(&why))
}

impl Engine {
    /// Loads a GGUF file onto the CPU.
    ///
    /// # Errors
    /// The file is damaged, is of a model that is not supported, or contradicts itself.
    #[cfg(feature = "cpu")]
    pub fn from_gguf_cpu(bytes: &[u8]) -> Result<Self, EngineError> {
        let gguf = Gguf::parse(bytes)?;
        let words = ChatTokenizer::from_gguf(&gguf)?;
        let weights = super::weights::ModelWeights::from_gguf(&gguf)?;
        let backend = super::cpu::backend(&weights)?;
        Self::from_parts(words.tokenizer, words.template, &weights, backend)
    }

    /// Loads a GGUF file that is on disk onto the CPU. Where our own kernels run the model, it is read in pieces, so that
    /// there never is a second copy of it in memory.
    ///
    /// # Errors
    /// As [`from_gguf_cpu`](Self::from_gguf_cpu), or [`EngineError::File`] where it cannot be read.
    #[cfg(all(feature = "cpu", not(target_arch = "wasm32")))]
    pub fn from_gguf_file(path: &std::path::Path) -> Result<Self, EngineError> {
        Self::from_gguf_file_in(path, None, None)
    }

    /// As [`from_gguf_file`](Self::from_gguf_file), with a context of `context` tokens at most, where `available` bytes of
    /// memory are free: see [`Need::context_in`](super::cpu::memory::Need::context_in).
    ///
    /// # Errors
    /// As there, or [`EngineError::NoMemory`], before any weight is read.
    #[cfg(all(feature = "cpu", not(target_arch = "wasm32")))]
    pub fn from_gguf_file_in(
        path: &std::path::Path,
        available: Option<u64>,
        context: Option<usize>,
    ) -> Result<Self, EngineError> {
        use super::disk::DiskFile;
        let file = DiskFile::open(path)?;
        let head = file.head()?;
        let gguf = Gguf::parse_header(&head, file.size())?;
        let mut weights = super::assemble::at_once(super::assemble::WeightStream::from_gguf(&gguf, &file))?;
        let need = super::cpu::memory::Need::of(&weights)?;
        let context = need.context_in(available, context)?;
        weights.limit_context(context);
        // Large vocabularies take as long as the weights of a small model.
        std::thread::scope(|scope| {
            let words = scope.spawn(|| ChatTokenizer::from_gguf(&gguf));
            let words = || words.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            if !super::cpu::runs_here(&weights)? {
                let bytes = file.all()?;
                let gguf = Gguf::parse(&bytes)?;
                let mut weights = super::weights::ModelWeights::from_gguf(&gguf)?;
                weights.config.context = context;
                let backend = super::cpu::backend(&weights)?;
                let ChatTokenizer { tokenizer, template } = words()?;
                return Self::from_parts(tokenizer, template, &weights, backend);
            }
            let backend = super::cpu::CpuBackend::read(&weights)?;
            let ChatTokenizer { tokenizer, template } = words()?;
            Self::from_parts(tokenizer, template, &weights, Box::new(backend))
        })
    }

    /// Loads a GGUF file onto the GPU.
    ///
    /// # Errors
    /// As [`from_gguf_cpu`](Self::from_gguf_cpu), and what the GPU refuses.
    #[cfg(feature = "gpu")]
    pub async fn from_gguf_gpu(bytes: &[u8], gpu: &super::gpu::GpuContext) -> Result<Self, EngineError> {
        let gguf = Gguf::parse(bytes)?;
        let words = ChatTokenizer::from_gguf(&gguf)?;
        let weights = super::weights::ModelWeights::from_gguf(&gguf)?;
        let backend = Box::new(super::gpu::GpuBackend::new(gpu, &weights).await?);
        Self::from_parts(words.tokenizer, words.template, &weights, backend)
    }

    /// Loads a Hugging Face checkpoint of the Llama architecture onto the CPU.
    ///
    /// # Errors
    /// A file is malformed, a tensor is missing or of another shape, or the model is of another architecture.
    #[cfg(feature = "cpu")]
    pub fn from_safetensors_cpu(files: &super::safetensors::Checkpoint<'_>) -> Result<Self, EngineError> {
        Self::from_safetensors_cpu_in(files, None)
    }

    /// As [`from_safetensors_cpu`](Self::from_safetensors_cpu), with a context of `context` tokens at most.
    ///
    /// # Errors
    /// As there.
    #[cfg(feature = "cpu")]
    pub fn from_safetensors_cpu_in(
        files: &super::safetensors::Checkpoint<'_>,
        context: Option<usize>,
    ) -> Result<Self, EngineError> {
        let ChatTokenizer { tokenizer, template } = ChatTokenizer::from_files(&files.words)?;
        let mut weights = files.weights()?;
        weights.config.context = context.map_or(weights.config.context, |most| weights.config.context.min(most.max(1)));
        let backend = super::cpu::backend(&weights)?;
        Self::from_parts(tokenizer, template, &weights, backend)
    }

    /// Joins parts that were made elsewhere: the seam for other backends and other file formats.
    ///
    /// # Errors
    /// The tokenizer has more tokens than the model; a tensor is missing or has another shape.
    pub fn from_parts(
        tokenizer: Tokenizer,
        template: ChatTemplate,
        weights: &dyn Weights,
        backend: Box<dyn Backend>,
    ) -> Result<Self, EngineError> {
        let (config, totals) = (weights.config(), weights.totals()?);
        if tokenizer.vocab_size() > config.vocab {
            return Err(EngineError::Inconsistent(format!(
                "the tokenizer has {} tokens, the model only {}",
                tokenizer.vocab_size(),
                config.vocab
            )));
        }
        tokenizer.check_ids(config.vocab)?;
        let info = ModelInfo {
            name: config.name.clone(),
            parameters: totals.parameters,
            weight_bytes: totals.bytes,
            quantisation: totals.quantisation,
            vocab: config.vocab,
            dim: config.dim,
            layers: config.layers,
            context: backend.capacity(),
            backend: backend.name(),
        };
        Ok(Self { info, tokenizer, template, backend, cached: Vec::new(), yield_now: default_yield() })
    }

    /// A second conversation over the same weights, with an empty KV cache. Cheap on the CPU.
    ///
    /// # Errors
    /// The device has no memory for another cache.
    pub fn fork(&self) -> Result<Self, EngineError> {
        Ok(Self {
            info: self.info.clone(),
            tokenizer: self.tokenizer.clone(),
            template: self.template.clone(),
            backend: self.backend.fork()?,
            cached: Vec::new(),
            yield_now: self.yield_now,
        })
    }

    /// Room for `rows` answers at the same time over the same weights, each of at most `capacity` tokens with its prompt.
    ///
    /// # Errors
    /// [`EngineError::NotOffered`] where the backend computes one sequence at a time; there is no memory for their caches.
    pub async fn together(&self, rows: usize, capacity: usize) -> Result<Together, EngineError> {
        let batch = self.backend.batch(rows, capacity).await?;
        Ok(Together::new(self.tokenizer.clone(), batch, self.backend.prefill_chunk(), self.yield_now))
    }

    /// Takes the engine apart, for whoever drives the backend in another way: one conversation is too few for a server.
    pub fn into_parts(self) -> (ChatTokenizer, Box<dyn Backend>) {
        (ChatTokenizer { tokenizer: self.tokenizer, template: self.template }, self.backend)
    }

    /// What is loaded.
    pub fn info(&self) -> ModelInfo {
        self.info.clone()
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Dispatches and submissions so far; all zero on the CPU.
    pub fn counters(&self) -> Counters {
        self.backend.counters()
    }

    /// States the time that chat templates see: seconds since 1970, shown as UTC. Without it they see a fixed day.
    pub fn set_now(&mut self, unix_s: i64) {
        self.template.set_now(unix_s);
    }

    /// Has it give way between tokens with this, where other tasks share its thread: a server's answer that arrives
    /// meanwhile, for one. In a browser it does so by itself.
    pub fn set_yield(&mut self, yield_now: YieldNow) {
        self.yield_now = Some(yield_now);
    }

    /// Forgets the conversation; the memory of the KV cache is kept.
    pub fn reset(&mut self) {
        self.backend.truncate(0);
        self.cached.clear();
    }

    /// The text of the prompt that `messages` make, for people: the chat template's with `assistant_prefix` at its end.
    /// Which of the control tokens' texts in it came from the template cannot be seen from it; [`prompt`](Self::prompt) knows.
    ///
    /// # Errors
    /// The template refuses the messages.
    pub fn render(&self, messages: &[ChatMessage], assistant_prefix: &str) -> Result<String, EngineError> {
        Ok(self.template.render(messages)? + assistant_prefix)
    }

    /// The prompt that `messages` make, with `assistant_prefix` at its end. Only the template writes control tokens: what
    /// reads like one in a message or in the prefix is text.
    ///
    /// # Errors
    /// The template refuses the messages.
    pub fn prompt(&self, messages: &[ChatMessage], assistant_prefix: &str) -> Result<Prompt, EngineError> {
        Prompt::of_chat(&self.tokenizer, &self.template, messages, assistant_prefix)
    }

    /// Answers a conversation. `assistant_prefix` is the part of the answer that is already written (by the server, when
    /// a prompt is shared); generation goes on after it. `clock` returns seconds. `on_token` sees every token and may
    /// break; generation then ends before the next token is computed.
    ///
    /// # Errors
    /// The template's, a prompt that does not fit into the context, or the backend's. The engine can be used again
    /// after an error, except after [`EngineError::DeviceLost`].
    pub async fn generate(
        &mut self,
        messages: &[ChatMessage],
        assistant_prefix: &str,
        options: &SamplingOptions,
        clock: &dyn Fn() -> f64,
        on_token: &mut dyn FnMut(TokenEvent<'_>) -> ControlFlow<()>,
    ) -> Result<GenerationStats, EngineError> {
        let prompt = self.prompt(messages, assistant_prefix)?;
        self.complete(prompt, options, clock, on_token).await
    }

    /// Continues a text, without a chat template. A `&str` is plain text: see [`Prompt`] for other kinds.
    ///
    /// # Errors
    /// As [`generate`](Self::generate).
    pub async fn complete(
        &mut self,
        prompt: impl Into<Prompt>,
        options: &SamplingOptions,
        clock: &dyn Fn() -> f64,
        on_token: &mut dyn FnMut(TokenEvent<'_>) -> ControlFlow<()>,
    ) -> Result<GenerationStats, EngineError> {
        let started = clock();
        let prompt = prompt.into().tokens(&self.tokenizer)?;
        let mut text = Continuation::new(&self.tokenizer, options, &prompt)?;
        self.backend.truncate(self.cached.len());
        let on_device = text.is_plain()
            && match self.backend.begin_choosing(text.sampler().params(), &prompt) {
                Ok(()) => true,
                Err(EngineError::NotOffered { .. }) => false,
                Err(error) => return Err(error),
            };
        let want = if on_device { OutputKind::Choice(text.sampler().draw()) } else { OutputKind::Logits };
        let (output, cached_tokens) = self.prefill(&prompt, want).await?;
        let mut id = text.choose(&output)?;
        let mut ahead = 0;
        let prefilled = clock();
        let mut stats = GenerationStats {
            prompt_tokens: prompt.len(),
            cached_tokens,
            generated_tokens: 0,
            prefill_s: prefilled - started,
            decode_s: 0.0,
            ttft_s: prefilled - started,
            finish: FinishReason::Length,
        };
        while text.left() > 0 {
            if on_device {
                // What runs ahead of a token that turns out to be the last is rolled back below.
                let left = (text.left() - 1).min(STEPS_AHEAD);
                while ahead < left && self.backend.len() < self.backend.capacity() {
                    self.backend.queue(text.sampler().draw())?;
                    ahead += 1;
                }
            }
            let full = self.cached.len() >= self.backend.capacity();
            if let Some(finish) = text.take(id, full, on_token)? {
                stats.finish = finish;
                break;
            }
            if let Some(yield_now) = self.yield_now {
                yield_now().await;
            }
            id = if on_device {
                let next = self.backend.next_choice().await?;
                ahead -= 1;
                self.cached.push(id);
                next
            } else {
                let output = self.advance(&[id], want).await?;
                text.choose(&output)?
            };
        }
        self.backend.truncate(self.cached.len());
        stats.generated_tokens = text.tokens();
        stats.decode_s = clock() - prefilled;
        Ok(stats)
    }

    /// The entropy of the first token of the answer, nats: how uncertain the model is before it begins.
    ///
    /// # Errors
    /// As [`generate`](Self::generate).
    pub async fn first_token_entropy(&mut self, messages: &[ChatMessage]) -> Result<f32, EngineError> {
        let prompt = self.prompt(messages, "")?.tokens(&self.tokenizer)?;
        match self.prefill(&prompt, OutputKind::Logits).await?.0 {
            Output::Logits(logits) => Ok(sampler::entropy(&logits)),
            _ => Err(self.not_offered("logits")),
        }
    }

    /// The final normalised hidden states of `text`: its tokens' texts, and `[tokens][dim]`. The conversation in the
    /// cache is not touched.
    ///
    /// # Errors
    /// The text is empty or does not fit into the context, or the backend does not return hidden states.
    pub async fn hidden_states(&mut self, text: &str) -> Result<(Vec<String>, Vec<Vec<f32>>), EngineError> {
        let ids = self.tokenizer.encode_whole(text)?;
        let mut sequence = self.backend.fork()?;
        let Output::Hidden(flat) = sequence.forward(&ids, OutputKind::Hidden).await? else {
            return Err(self.not_offered("hidden states"));
        };
        let tokens = ids.iter().map(|&id| self.tokenizer.token_text(id)).collect();
        Ok((tokens, flat.chunks_exact(self.info.dim).map(<[f32]>::to_vec).collect()))
    }

    fn not_offered(&self, what: &'static str) -> EngineError {
        EngineError::NotOffered { backend: self.info.backend, what }
    }

    /// Brings the cache to exactly `prompt`, keeping the beginning that it has in common with what is there. Returns
    /// what the last position gives, and how many tokens were there.
    async fn prefill(&mut self, prompt: &[u32], want: OutputKind) -> Result<(Output, usize), EngineError> {
        let Some(before_last) = prompt.len().checked_sub(1) else { return Err(EngineError::EmptyPrompt) };
        if prompt.len() > self.backend.capacity() {
            return Err(EngineError::PromptTooLong { tokens: prompt.len(), context: self.backend.capacity() });
        }
        // The last token is always computed anew: its output is what is asked for.
        let common = self.cached.iter().zip(prompt).take_while(|(a, b)| a == b).count().min(before_last);
        self.cached.truncate(common);
        self.backend.truncate(common);
        let mut output = Output::Nothing;
        let size = self.backend.prefill_chunk().max(1);
        let mut chunks = prompt.get(common..).unwrap_or_default().chunks(size).peekable();
        while let Some(chunk) = chunks.next() {
            let more = chunks.peek().is_some();
            output = self.advance(chunk, if more { OutputKind::Nothing } else { want }).await?;
            if more && let Some(yield_now) = self.yield_now {
                yield_now().await;
            }
        }
        Ok((output, common))
    }

    async fn advance(&mut self, tokens: &[u32], want: OutputKind) -> Result<Output, EngineError> {
        // Should the future be dropped or fail on the way, the cache's content is in doubt: start from `cached`.
        self.backend.truncate(self.cached.len());
        let output = self.backend.forward(tokens, want).await?;
        self.cached.extend_from_slice(tokens);
        Ok(output)
    }
}

#[cfg(all(test, feature = "cpu"))]
#[path = "engine_tests.rs"]
pub(crate) mod tests;

#[cfg(all(test, feature = "cpu"))]
#[path = "scripted_tests.rs"]
mod scripted_tests;
