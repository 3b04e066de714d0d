// OpenAI's shapes over the engine: chat completions, whole or as chunks, and embeddings.
import { EdgeError } from "./channel.js";

const unsupported = (what) => new EdgeError("unsupported", `${what} is not supported by the engine in the tab.`);

/** Most choices of one completion: each of them waits for a row of its own. */
const MAX_CHOICES = 16;

/** A message's text; parts other than text are refused, not dropped. */
function textOf(content) {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) throw new EdgeError("invalid", "A message needs a text as its content.");
  return content
    .map((part) => {
      if (part.type !== "text") throw unsupported(`Content of type “${part.type}”`);
      return part.text;
    })
    .join("");
}

function optionsOf(request) {
  for (const name of ["tools", "functions", "logprobs", "response_format", "audio"])
    if (request[name]) throw unsupported(`“${name}”`);
  const n = request.n ?? 1;
  if (!Number.isInteger(n) || n < 1 || n > MAX_CHOICES) throw new EdgeError("invalid", `“n” has to be from 1 to ${MAX_CHOICES}.`);
  const stop = request.stop ?? [];
  return {
    maxTokens: request.max_completion_tokens ?? request.max_tokens ?? undefined,
    temperature: request.temperature ?? 1,
    topP: request.top_p ?? 1,
    topK: request.top_k ?? 0,
    seed: request.seed ?? crypto.getRandomValues(new Uint32Array(1))[0],
    stop: typeof stop === "string" ? [stop] : stop,
  };
}

const usageOf = (records) => {
  const prompt_tokens = records[0].promptTokens;
  const completion_tokens = records.reduce((sum, { tokens }) => sum + tokens, 0);
  return { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens };
};

/** `client.chat`. */
export class Chat {
  constructor(client) {
    this.completions = { create: (request, options) => create(client, request, options) };
  }
}

async function create(client, request, { signal } = {}) {
  if (!Array.isArray(request.messages) || !request.messages.length)
    throw new EdgeError("invalid", "“messages” has to be a list with at least one message.");
  const messages = request.messages.map(({ role, content }) => ({ role, content: textOf(content) }));
  const head = {
    id: `chatcmpl-${crypto.randomUUID()}`,
    created: Math.floor(Date.now() / 1000),
    model: request.model ?? client.model,
  };
  const { n } = request;
  const options = optionsOf(request);
  const leave = new AbortController();
  // What AbortSignal.any does, for browsers that lack it.
  if (signal?.aborted) leave.abort(signal.reason);
  signal?.addEventListener("abort", () => leave.abort(signal.reason), { signal: leave.signal });
  // Choices differ by their seeds, and are written at the same time.
  const text = (_, choice) => client.generate(messages, { ...options, seed: options.seed + choice, signal: leave.signal });
  const pieces = merged(Array.from({ length: n ?? 1 }, text), leave);
  if (request.stream) return chunks(pieces, n ?? 1, head, request.stream_options?.include_usage === true);
  const contents = Array.from({ length: n ?? 1 }, () => "");
  const records = [];
  for await (const { index, text, record } of pieces) {
    if (record) records[index] = record;
    else contents[index] += text;
  }
  return {
    ...head,
    object: "chat.completion",
    choices: contents.map((content, index) => ({
      index,
      message: { role: "assistant", content },
      logprobs: null,
      finish_reason: records[index].finish,
    })),
    usage: usageOf(records),
  };
}

/** What several generators yield and return, as it comes; all are stopped through `leave` when nobody listens any more. */
async function* merged(texts, leave) {
  const never = new Promise(() => {});
  const next = (index) => texts[index].next().then(({ done, value }) => ({ index, ...(done ? { record: value } : { text: value }) }));
  const coming = texts.map((_, index) => next(index));
  try {
    for (let open = texts.length; open > 0; ) {
      const piece = await Promise.race(coming);
      if (piece.record) open -= 1;
      coming[piece.index] = piece.record ? never : next(piece.index);
      yield piece;
    }
  } finally {
    for (const promise of coming) promise.catch(() => {});
    leave.abort();
  }
}

async function* chunks(pieces, n, head, withUsage) {
  const chunk = (index, delta, finish_reason = null) => ({
    ...head,
    object: "chat.completion.chunk",
    choices: [{ index, delta, logprobs: null, finish_reason }],
    ...(withUsage ? { usage: null } : {}),
  });
  const records = [];
  for (let index = 0; index < n; index++) yield chunk(index, { role: "assistant", content: "" });
  for await (const { index, text, record } of pieces) {
    if (record) records[index] = record;
    yield record ? chunk(index, {}, record.finish) : chunk(index, { content: text });
  }
  if (withUsage) yield { ...head, object: "chat.completion.chunk", choices: [], usage: usageOf(records) };
}

/** `client.embeddings`. */
export class Embeddings {
  #client;

  constructor(client) {
    this.#client = client;
  }

  async create(request, { signal } = {}) {
    if ((request.encoding_format ?? "float") !== "float") throw unsupported(`Format “${request.encoding_format}”`);
    if (request.dimensions) throw unsupported("“dimensions”");
    const texts = typeof request.input === "string" ? [request.input] : request.input;
    if (texts?.some((text) => typeof text !== "string")) throw unsupported("“input” as token ids");
    const { vectors, tokens } = await this.#client.embed(texts, { signal });
    return {
      object: "list",
      model: request.model ?? this.#client.model,
      data: vectors.map((embedding, index) => ({ object: "embedding", index, embedding })),
      usage: { prompt_tokens: tokens, total_tokens: tokens },
    };
  }
}
