// EdgeClient: the engine worker behind an API for pages. The worker speaks in JSON texts; files travel beside their command.
import { Channel, EdgeError, abortError, camel } from "./lib/channel.js";
import { Chat, Embeddings } from "./lib/openai.js";

export { EdgeError };

/** Version of the messages that this file speaks; the worker says its own. */
const VERSION = 8;

/** How the matrices of a checkpoint can be stored. */
const STORE_AS = ["Q8_0", "Q4_0", "F16", "F32"];

const DECIDERS = { policy: "policy", optimum: "oracle", "closed-form": "closed-form", local: "always-local", server: "always-offload" };

/** Options of writing, in the worker's names; what is not given is the worker's default. */
function writeOptions(options) {
  const names = { maxTokens: "max_tokens", temperature: "temperature", topK: "top_k", topP: "top_p", repetitionPenalty: "repetition_penalty", seed: "seed", stop: "stop" };
  const given = Object.entries(names).filter(([name]) => options[name] !== undefined);
  const out = Object.fromEntries(given.map(([name, wire]) => [wire, options[name]]));
  if (out.seed !== undefined && !(Number.isSafeInteger(out.seed) && out.seed >= 0))
    throw new EdgeError("invalid", "A seed is a whole number from 0 to 2^53 − 1.");
  return out;
}

export class EdgeClient extends EventTarget {
  #worker;
  #ready = new Channel();
  #channels = new Map();
  #loads = new Map();
  #numbers = 0;
  #files = 0;
  #names = new WeakMap();
  #closed;
  /** What this tab can run. */
  tier;
  /** Models that the server offers. */
  models = [];
  /** Whether the server answers. */
  server = { up: false };
  /** Id of the model in memory. */
  model;
  /** OpenAI's chat API. */
  chat = new Chat(this);
  /** OpenAI's embeddings API. */
  embeddings = new Embeddings(this);

  /** Starts the engine. It does not load a model. */
  static async create({ server = "", tier = "auto", workerUrl, world = {} } = {}) {
    const client = new EdgeClient();
    // Written so that bundlers see it.
    client.#worker = workerUrl ? new Worker(workerUrl) : new Worker(new URL("./worker/worker_boot.js", import.meta.url));
    client.#worker.onmessage = ({ data }) => client.#hear(data);
    client.#worker.onerror = (event) => {
      event.preventDefault?.();
      client.#lost(new EdgeError("engine-lost", event.message || "The engine's worker could not be started."));
    };
    const base_url = server ? new URL(server, globalThis.location?.href).href : "";
    client.#say({ type: "init", version: VERSION, base_url, tier, world });
    await client.#ready.next();
    return client;
  }

  /** What loading a model would take, and whether this tab can hold it. */
  async inspect(source, { context, storeAs, signal } = {}) {
    const named = this.#source(source, storeAs);
    const { verdict } = await this.#question("inspect", { source: named.source, context: context ?? null }, "inspected", signal, named.files);
    return camel(verdict);
  }

  /** Downloads (or takes from the browser's storage) and loads a model. */
  async load(source, { context, storeAs, onProgress, signal, force = false } = {}) {
    signal?.throwIfAborted();
    const named = this.#source(source, storeAs);
    const verdict = await this.inspect(source, { context, storeAs, signal });
    if (!verdict.fits && !force)
      throw new EdgeError("does-not-fit", [...verdict.remarks, verdict.advice].filter(Boolean).join(" "), { verdict });
    if (this.#loads.has(named.id)) throw new EdgeError("busy", "This model is being loaded already.");
    const states = new Channel();
    this.#loads.set(named.id, states);
    const cancel = () => this.#say({ type: "cancel-load" });
    signal?.addEventListener("abort", cancel);
    try {
      this.#say({ type: "load-model", source: named.source, context: context ?? null }, named.files);
      while (true) {
        const state = await states.next();
        if (state.state === "downloading") onProgress?.({ received: state.received, total: state.total });
        if (state.state === "ready") {
          this.model = named.id;
          return { id: named.id, memoryBytes: state.memory_bytes, verdict };
        }
        if (state.state === "failed") throw new EdgeError("load-failed", state.message);
        if (state.state === "refused") throw new EdgeError("busy", state.message);
        // "absent", "partial" and "cached" are also what the worker reports of every model after its start.
        if (["absent", "partial", "cached"].includes(state.state) && signal?.aborted) throw abortError(signal);
      }
    } finally {
      signal?.removeEventListener("abort", cancel);
      this.#loads.delete(named.id);
    }
  }

  /** Removes a model from memory and from the browser's storage. */
  async delete(source, { storeAs } = {}) {
    const { id } = this.#source(source, storeAs);
    const states = new Channel();
    this.#loads.set(id, states);
    try {
      this.#say({ type: "delete-model", id });
      await states.next();
      if (this.model === id) this.model = undefined;
    } finally {
      this.#loads.delete(id);
    }
  }

  /** Writes on: a text as it is, or a conversation through the model's chat template. Yields text; returns what it took. */
  async *generate(input, { signal, ...options } = {}) {
    signal?.throwIfAborted();
    const wire = typeof input === "string" ? { text: input } : { chat: input };
    const task = this.#begin(signal);
    try {
      this.#say({ type: "write", ask: task.ask, input: wire, options: writeOptions(options) });
      while (true) {
        const event = await task.channel.next();
        // What was written before the engine heard of it is of no interest any more.
        if (signal?.aborted) throw abortError(signal);
        if (event.type === "text") yield event.text;
        if (event.type === "written") {
          task.over = true;
          return camel(event.record);
        }
      }
    } finally {
      task.end();
    }
  }

  /** Vectors of length 1: the mean of the final hidden states. */
  async embed(texts, { signal } = {}) {
    const { vectors, tokens } = await this.#question("embed", { texts }, "embedded", signal);
    return { vectors, tokens };
  }

  /** What the engine occupies. */
  async memory() {
    return camel((await this.#question("measure", {}, "memory")).memory);
  }

  /**
   * Answers prompts together with the server: by a share α of the work, or by whoever decides it. Yields the worker's events;
   * returns the answers and the slot's record.
   */
  async *ask(prompts, { split = "policy", power = 1, mode = "split", world = {}, pacing = false, signal, ...options } = {}) {
    signal?.throwIfAborted();
    const manual = typeof split === "number";
    if (!manual && !DECIDERS[split]) throw new EdgeError("invalid", `“split” is a number from 0 to 1 or one of ${Object.keys(DECIDERS).join(", ")}.`);
    const decider = manual ? { decider: "manual", manual_alpha: split, manual_power: power } : { decider: DECIDERS[split] };
    const list = typeof prompts === "string" ? [prompts] : prompts;
    const answers = list.map(() => ({ text: "", parts: [] }));
    const task = this.#begin(signal);
    try {
      this.#say({ type: "set-world", world: { users: 1, ...world, ...decider } });
      this.#say({ type: "ask", ask: task.ask, prompts: list, options: { mode, pacing, compare: false, sampling: writeOptions(options) } });
      while (true) {
        const event = await task.channel.next();
        if (signal?.aborted) throw abortError(signal);
        const answer = answers[event.prompt];
        if (event.type === "token" && answer) {
          answer.text += event.text;
          const last = answer.parts.at(-1);
          if (last?.origin === event.origin) last.text += event.text;
          else answer.parts.push({ origin: event.origin, text: event.text });
        }
        yield camel(event);
        if (event.type === "done") {
          task.over = true;
          return { answers, record: camel(event.record) };
        }
      }
    } finally {
      task.end();
    }
  }

  /** Ends the engine and everything that it is doing. */
  close() {
    this.#lost(new EdgeError("closed", "The client is closed."));
  }

  /** A source in the worker's words, the id that it has there, and the files that travel with it. */
  #source(source, storeAs = "Q8_0") {
    const store_as = STORE_AS.find((name) => name === storeAs);
    if (!store_as) throw new EdgeError("invalid", `“storeAs” is one of ${STORE_AS.join(", ")}.`);
    if (Array.isArray(source)) {
      const gguf = source.find((file) => file.name?.endsWith(".gguf"));
      if (gguf) return this.#source(gguf);
      if (!source.length || !source.every((file) => file instanceof File)) throw new EdgeError("invalid", "A checkpoint is a list of Files with their names.");
      const { name } = source.find((file) => file.name.endsWith(".safetensors")) ?? source[0];
      const bytes = source.reduce((sum, file) => sum + file.size, 0);
      return { id: `files:${name}:${bytes}#${store_as}`, source: { from: "files", name, bytes, store_as }, files: source };
    }
    if (source instanceof Blob) {
      // Two pieces of data without a name are two models.
      if (!this.#names.has(source)) this.#names.set(source, source.name ?? `data ${(this.#files += 1)}`);
      const name = this.#names.get(source);
      return { id: `file:${name}`, source: { from: "file", name }, files: [source] };
    }
    const { server, hub, url, sha256 = null } = typeof source === "string" ? this.#named(source) : source;
    if (server) return { id: server, source: { from: "server", id: server } };
    const address = hub ? `models/hub/${hub}${hub.split("/").length === 2 ? "/" : ""}` : url;
    if (!address) throw new EdgeError("invalid", "A model is a File, a list of Files, an address, or an id of the server's.");
    const absolute = hub ? address : new URL(address, globalThis.location?.href).href;
    if (absolute.endsWith("/")) return { id: `${absolute}#${store_as}`, source: { from: "folder", url: absolute, store_as } };
    return { id: absolute, source: { from: "url", url: absolute, sha256 } };
  }

  #named(text) {
    return this.models.some((model) => model.id === text) ? { server: text } : { url: text };
  }

  #begin(signal) {
    const ask = (this.#numbers += 1);
    const channel = new Channel();
    this.#channels.set(ask, channel);
    const stop = () => this.#say({ type: "stop", ask });
    signal?.addEventListener("abort", stop);
    const task = { ask, channel, over: false };
    task.end = () => {
      signal?.removeEventListener("abort", stop);
      this.#channels.delete(ask);
      if (!task.over && !this.#closed) stop();
    };
    return task;
  }

  async #question(type, fields, answer, signal, files) {
    signal?.throwIfAborted();
    const task = this.#begin(signal);
    const aborted = () => task.channel.fail(abortError(signal));
    signal?.addEventListener("abort", aborted);
    try {
      this.#say({ type, ask: task.ask, ...fields }, files);
      while (true) {
        const event = await task.channel.next();
        if (event.type === answer) {
          task.over = true;
          return event;
        }
      }
    } finally {
      signal?.removeEventListener("abort", aborted);
      task.end();
    }
  }

  #say(command, files) {
    if (this.#closed) throw this.#closed;
    const text = JSON.stringify(command);
    this.#worker.postMessage(files ? { command: text, files } : text);
  }

  #hear(data) {
    if (data?.type === "boot-failed") return this.#lost(new EdgeError("engine-lost", `The engine did not start: ${data.message}`));
    const event = JSON.parse(data);
    if (event.type === "ready") {
      Object.assign(this, { tier: camel(event.tier), models: camel(event.models), server: camel(event.server) });
      if (event.version !== VERSION) return this.#lost(new EdgeError("version", "The package's files are of different versions."));
      this.#ready.push(event);
    }
    if (event.type === "tier") this.tier = camel(event.tier);
    if (event.type === "server") this.server = camel(event.server);
    if (event.type === "model") this.#loads.get(event.id)?.push(event.state);
    const channel = this.#channels.get(event.ask);
    if (event.type === "failed" && channel) channel.fail(new EdgeError("failed", event.message));
    else if (event.type === "failed" && event.ask == null) for (const load of this.#loads.values()) load.push({ state: "refused", message: event.message });
    else channel?.push(event);
    this.dispatchEvent(new CustomEvent(event.type, { detail: camel(event) }));
  }

  #lost(error) {
    if (this.#closed) return;
    this.#closed = error;
    this.#worker.terminate();
    for (const channel of [this.#ready, ...this.#channels.values(), ...this.#loads.values()]) channel.fail(error);
    this.dispatchEvent(new CustomEvent("lost", { detail: error }));
  }
}
