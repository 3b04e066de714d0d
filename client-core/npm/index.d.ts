/** What this tab can run, in plain words. */
export interface TierReport {
  tier: "web-gpu" | "cpu" | "server-only";
  /** Name of the GPU adapter or of the CPU build. */
  device: string;
  /** Why this one, in a sentence. */
  reason: string;
  desktopClass: boolean;
}

/** A model that the server offers. */
export interface ModelEntry {
  id: string;
  name: string;
  file: string;
  bytes: number;
  sha256: string;
  parameters: number;
  quantisation: string;
  contextLength: number;
  licence: string;
  /** Whether the server's owner wants pages to load it by themselves. */
  preferred?: boolean;
}

export interface ServerHealth {
  up: boolean;
  model?: string | null;
  rttMs?: number | null;
  problem?: string | null;
}

/**
 * Where a model comes from: a File or Blob with GGUF data; the Files of a safetensors checkpoint (config.json,
 * tokenizer.json, model.safetensors or its shards with their index, and what else belongs to it); the id of one of the
 * server's models; an address whose server allows it (CORS), of a GGUF file, or with a slash at the end of a checkpoint's
 * folder; or, of the hub that the server passes on, `organisation/repository/file.gguf` or a checkpoint's
 * `organisation/repository`.
 */
export type ModelSource = Blob | File[] | string | { server: string } | { url: string; sha256?: string } | { hub: string };

/** How the matrices of a safetensors checkpoint are stored when it is loaded; `Q8_0` unless said otherwise. */
export type StoreAs = "Q8_0" | "Q4_0" | "F16" | "F32";

/** What loading a model would take, and whether this tab can hold it. Sizes in bytes, contexts in tokens. */
export interface Verdict {
  name: string;
  parameters: number;
  quantisation: string;
  fileBytes: number;
  /** 0 for what is on this device. */
  downloadBytes: number;
  tier: TierReport["tier"];
  /** In GPU memory or in WebAssembly memory, by `tier`. */
  weightBytes: number;
  cacheBytes: number;
  /** WebAssembly memory at its highest, while the model is loaded. */
  loadBytes: number;
  context: number;
  longestContext: number;
  fits: boolean;
  /** Whether the browser has room to keep the file. */
  kept: boolean;
  remarks: string[];
  /** What to choose instead. */
  advice: string | null;
}

export interface MemoryReport {
  /** The worker's WebAssembly memory; it never shrinks. */
  wasmBytes: number;
  weightBytes: number;
  cacheBytes: number;
  /** Whether weights and cache are in GPU memory; else they are part of `wasmBytes`. */
  onGpu: boolean;
  storedBytes: number | null;
  quotaBytes: number | null;
}

export interface WriteOptions {
  /** From 1 to 4096; without it the end is the model's, or its context's. */
  maxTokens?: number;
  /** 0, the default, is greedy. */
  temperature?: number;
  topK?: number;
  topP?: number;
  /** 1, the default, is off; larger ones make repetitions less likely. */
  repetitionPenalty?: number;
  seed?: number;
  stop?: string[];
  signal?: AbortSignal;
}

export interface WriteRecord {
  promptTokens: number;
  cachedTokens: number;
  tokens: number;
  /** Seconds to the first token. */
  ttftS: number;
  /** Seconds from there to the last one. */
  decodeS: number;
  /** `length`: the answer was cut at `maxTokens` or at the end of the context. */
  finish: "stop" | "length";
}

export interface Message {
  role: string;
  content: string;
}

export interface ChatRequest {
  messages: { role: string; content: string | { type: "text"; text: string }[] }[];
  model?: string;
  max_tokens?: number | null;
  max_completion_tokens?: number | null;
  temperature?: number | null;
  top_p?: number | null;
  /** Extension. */
  top_k?: number;
  seed?: number | null;
  stop?: string | string[] | null;
  /** Choices, at most 16; each has a seed of its own, counted up from `seed`. */
  n?: number | null;
  stream?: boolean | null;
  stream_options?: { include_usage?: boolean } | null;
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
}

export interface ChatCompletion {
  id: string;
  object: "chat.completion";
  created: number;
  model: string;
  choices: {
    index: number;
    message: { role: "assistant"; content: string };
    logprobs: null;
    finish_reason: "stop" | "length";
  }[];
  usage: Usage;
}

export interface ChatCompletionChunk {
  id: string;
  object: "chat.completion.chunk";
  created: number;
  model: string;
  choices: {
    index: number;
    delta: { role?: "assistant"; content?: string };
    logprobs: null;
    finish_reason: "stop" | "length" | null;
  }[];
  usage?: Usage | null;
}

export interface Completions {
  create(request: ChatRequest & { stream: true }, options?: { signal?: AbortSignal }): Promise<AsyncIterable<ChatCompletionChunk>>;
  create(request: ChatRequest & { stream?: false | null }, options?: { signal?: AbortSignal }): Promise<ChatCompletion>;
}

export interface EmbeddingsResponse {
  object: "list";
  model: string;
  data: { object: "embedding"; index: number; embedding: number[] }[];
  usage: { prompt_tokens: number; total_tokens: number };
}

/** Who decides how much of an ask goes to the server: the trained policy and others, or a share from 0 to 1. */
export type Split = "policy" | "optimum" | "closed-form" | "local" | "server" | number;

export interface AskOptions extends WriteOptions {
  split?: Split;
  /** Share of the highest transmit power, from 0 to 1; only with a number as `split`. */
  power?: number;
  /** Where answers may be made. */
  mode?: "split" | "local-only" | "server-only";
  /** Settings of the simulated cell by the worker's names, such as `users`, `seed` and `values`. */
  world?: Record<string, unknown>;
  /** Hold the uplink back to the simulated rate. */
  pacing?: boolean;
}

/** What happens in an ask; `type` says which of the others are there. */
export interface AskEvent {
  type: "plan" | "token" | "prompt-done" | "notice" | "done";
  prompt?: number;
  origin?: "device" | "server";
  text?: string;
  /** Of `prompt-done`: whether the model ended its answer, or it was cut. */
  finish?: "stop" | "length";
  alpha?: number;
  powerW?: number;
  message?: string;
  [key: string]: unknown;
}

export interface AskResult {
  answers: { text: string; parts: { origin: "device" | "server"; text: string }[] }[];
  /** Modelled and measured times, tokens and energy of the slot. */
  record: Record<string, unknown>;
}

/** What went wrong: `code` for programs, `message` for people. */
export class EdgeError extends Error {
  readonly code: "invalid" | "unsupported" | "does-not-fit" | "load-failed" | "busy" | "failed" | "version" | "engine-lost" | "closed";
  /** With the code `does-not-fit`. */
  readonly verdict?: Verdict;
}

export interface ClientOptions {
  /** Address of a Tandem server; without one there is neither a list of models nor offloading. */
  server?: string;
  tier?: "auto" | "web-gpu" | "cpu" | "server-only";
  /** Address of worker_boot.js, where a bundler has moved it. */
  workerUrl?: string | URL;
  /** Settings of the simulated cell, see {@link AskOptions.world}. */
  world?: Record<string, unknown>;
}

/**
 * The engine in a worker of its own. Events of the worker (`tier`, `server`, `model`, `notice`, …) are dispatched with
 * their data as `detail`; `lost` says that the worker is gone.
 */
export class EdgeClient extends EventTarget {
  static create(options?: ClientOptions): Promise<EdgeClient>;
  readonly tier: TierReport;
  readonly models: ModelEntry[];
  readonly server: ServerHealth;
  /** Id of the model in memory. */
  readonly model: string | undefined;
  readonly chat: { completions: Completions };
  readonly embeddings: {
    create(
      request: { input: string | string[]; model?: string; encoding_format?: "float" },
      options?: { signal?: AbortSignal },
    ): Promise<EmbeddingsResponse>;
  };
  inspect(source: ModelSource, options?: { context?: number; storeAs?: StoreAs; signal?: AbortSignal }): Promise<Verdict>;
  load(
    source: ModelSource,
    options?: {
      context?: number;
      storeAs?: StoreAs;
      onProgress?: (progress: { received: number; total: number }) => void;
      signal?: AbortSignal;
      /** Load also what the verdict advises against. */
      force?: boolean;
    },
  ): Promise<{ id: string; memoryBytes: number; verdict: Verdict }>;
  delete(source: ModelSource, options?: { storeAs?: StoreAs }): Promise<void>;
  generate(input: string | Message[], options?: WriteOptions): AsyncGenerator<string, WriteRecord, void>;
  embed(texts: string[], options?: { signal?: AbortSignal }): Promise<{ vectors: number[][]; tokens: number }>;
  memory(): Promise<MemoryReport>;
  ask(prompts: string | string[], options?: AskOptions): AsyncGenerator<AskEvent, AskResult, void>;
  close(): void;
}
