// OpenAI's shapes over the engine: chat completions, whole or as chunks, and embeddings.
import { EdgeError } from "./channel.js";

const unsupported = (what) => new EdgeError("unsupported", `${what} is not supported by the engine in the tab.`);

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
  if ((request.n ?? 1) !== 1) throw unsupported("“n” above 1");
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

const usageOf = (record) => ({
  prompt_tokens: record.promptTokens,
  completion_tokens: record.tokens,
  total_tokens: record.promptTokens + record.tokens,
});

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
  const pieces = client.generate(messages, { ...optionsOf(request), signal });
  if (request.stream) return chunks(pieces, head, request.stream_options?.include_usage === true);
  let content = "";
  let step;
  while (!(step = await pieces.next()).done) content += step.value;
  return {
    ...head,
    object: "chat.completion",
    choices: [{ index: 0, message: { role: "assistant", content }, logprobs: null, finish_reason: step.value.finish }],
    usage: usageOf(step.value),
  };
}

async function* chunks(pieces, head, withUsage) {
  const chunk = (delta, finish_reason = null) => ({
    ...head,
    object: "chat.completion.chunk",
    choices: [{ index: 0, delta, logprobs: null, finish_reason }],
    ...(withUsage ? { usage: null } : {}),
  });
  try {
    yield chunk({ role: "assistant", content: "" });
    let step;
    while (!(step = await pieces.next()).done) yield chunk({ content: step.value });
    yield chunk({}, step.value.finish);
    if (withUsage) yield { ...head, object: "chat.completion.chunk", choices: [], usage: usageOf(step.value) };
  } finally {
    // Whoever leaves the loop early also stops the engine.
    await pieces.return();
  }
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
    const { vectors, tokens } = await this.#client.embed(texts, { signal });
    return {
      object: "list",
      model: request.model ?? this.#client.model,
      data: vectors.map((embedding, index) => ({ object: "embedding", index, embedding })),
      usage: { prompt_tokens: tokens, total_tokens: tokens },
    };
  }
}
