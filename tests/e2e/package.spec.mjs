// The npm package on pages without leptos: what it promises in its types, in Chromium.
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test as base } from "@playwright/test";
import { family } from "./checkpoint.mjs";
import { startTandem } from "./harness.mjs";

const tests = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..");
const root = path.resolve(tests, "..");
const built = process.env.NPM_PACKAGE ?? path.join(root, "target/npm/tandem-client");
const manifest = JSON.parse(fs.readFileSync(path.join(root, "public/models/manifest.json"), "utf8"));
const full = manifest.models.find((model) => model.id === "full");
const types = { ".js": "text/javascript", ".wasm": "application/wasm", ".html": "text/html" };

/** The package's folder and the models, as some other site would serve them; with an empty page at /. */
async function serve() {
  const server = http.createServer((request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    if (pathname === "/") return response.writeHead(200, { "content-type": "text/html" }).end("<title>a page</title>");
    const file = pathname.startsWith("/models/")
      ? path.join(root, "public/models", path.basename(pathname))
      : path.join(built, path.normalize(pathname));
    if (!file.startsWith(root) || !fs.existsSync(file)) return response.writeHead(404).end();
    response.writeHead(200, {
      "content-type": types[path.extname(file)] ?? "application/octet-stream",
      "content-length": fs.statSync(file).size,
    });
    fs.createReadStream(file).pipe(response);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}/`, stop: () => server.close() };
}

const test = base.extend({
  site: async ({ page }, use) => {
    const site = await serve();
    await page.goto(site.url);
    await use(site);
    site.stop();
  },
});

test("types", () => {
  execFileSync("npx", ["tsc", "-p", "types"], { cwd: tests, stdio: "pipe" });
});

test("the example page loads a model and answers", async ({ page, site }) => {
  await page.goto(`${site.url}example/index.html?model=/models/full.gguf`);
  await expect(page.locator("#tier")).toContainText(/Q8_0/, { timeout: 60_000 });
  await page.getByRole("button", { name: "Ask" }).click();
  await expect(page.locator("#answer")).toContainText("Nairobi");
  expect(fs.readFileSync(path.join(built, "example/index.html"), "utf8").trim().split("\n").length).toBeLessThanOrEqual(30);
});

test("verdict, loading, writing, chat, embeddings, memory, files", async ({ page, site }) => {
  const seen = await page.evaluate(async () => {
    const { EdgeClient, EdgeError } = await import("/index.js");
    const client = await EdgeClient.create({ tier: "cpu" });
    const out = { tier: client.tier.tier };
    out.early = await client.embed(["x"]).catch((error) => [error instanceof EdgeError, error.message]);
    out.verdict = await client.inspect("/models/full.gguf", { context: 256 });
    const progress = [];
    out.loaded = await client.load("/models/full.gguf", { context: 256, onProgress: (p) => progress.push(p) });
    const messages = [{ role: "user", content: "What is the capital of Kenya?" }];

    const pieces = client.generate(messages, { maxTokens: 32 });
    out.text = "";
    let step;
    while (!(step = await pieces.next()).done) out.text += step.value;
    out.record = step.value;

    const request = { model: "m", messages, temperature: 0, max_tokens: 32 };
    out.whole = await client.chat.completions.create(request);
    out.chunks = [];
    for await (const chunk of await client.chat.completions.create({ ...request, stream: true, stream_options: { include_usage: true } }))
      out.chunks.push(chunk);
    out.tools = await client.chat.completions.create({ ...request, tools: [{}] }).catch((error) => error.code);
    out.embeddings = await client.embeddings.create({ input: ["Nairobi is in Kenya.", "Nairobi is in Kenya.", "Helium"] });
    out.memory = await client.memory();

    const file = new File([await (await fetch("/models/full.gguf")).blob()], "mine.gguf");
    out.file = await client.load(file);
    out.model = client.model;
    await client.delete("/models/full.gguf");
    out.bad = await client.load(new Blob(["no model"])).catch((error) => [error.code, error.message]);
    out.missing = await client.load("/models/none.gguf").catch((error) => [error.code, error.message]);
    client.close();
    out.closed = await client.embed(["x"]).catch((error) => error.code);
    return out;
  });
  expect(seen.tier).toBe("cpu");
  expect(seen.early).toEqual([true, expect.stringMatching(/no model is loaded/i)]);
  expect(seen.verdict).toMatchObject({ fits: true, context: 256, longestContext: 512, fileBytes: full.bytes, downloadBytes: full.bytes, quantisation: "Q8_0" });
  expect(seen.verdict.cacheBytes).toBe(256 * 1024 * 4);
  expect(seen.loaded.memoryBytes).toBeGreaterThan(1_000_000);
  expect(seen.text).toContain("Nairobi");
  expect(seen.record).toMatchObject({ finish: "stop" });
  expect(seen.record.tokens).toBeGreaterThan(1);
  expect(seen.whole).toMatchObject({
    object: "chat.completion",
    model: "m",
    choices: [{ index: 0, message: { role: "assistant", content: seen.text }, finish_reason: "stop" }],
  });
  expect(seen.whole.usage.total_tokens).toBe(seen.whole.usage.prompt_tokens + seen.whole.usage.completion_tokens);
  expect(seen.chunks[0].choices[0].delta).toEqual({ role: "assistant", content: "" });
  expect(seen.chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("")).toBe(seen.text);
  expect(seen.chunks.at(-2).choices[0].finish_reason).toBe("stop");
  expect(seen.chunks.at(-1)).toMatchObject({ choices: [], usage: seen.whole.usage });
  expect(seen.tools).toBe("unsupported");
  const [first, again, other] = seen.embeddings.data.map(({ embedding }) => embedding);
  const dot = (a, b) => a.reduce((sum, value, n) => sum + value * b[n], 0);
  expect(dot(first, first)).toBeCloseTo(1, 4);
  expect(again).toEqual(first);
  expect(dot(first, other)).toBeLessThan(0.999);
  expect(seen.memory).toMatchObject({ onGpu: false, weightBytes: seen.loaded.memoryBytes, cacheBytes: 256 * 1024 * 4 });
  expect(seen.memory.wasmBytes).toBeGreaterThan(1_000_000);
  expect(seen.memory.storedBytes).toBeGreaterThan(3_000_000);
  expect(seen.file.id).toBe("file:mine.gguf");
  expect(seen.model).toBe("file:mine.gguf");
  expect(seen.bad).toEqual(["failed", expect.stringMatching(/GGUF/)]);
  expect(seen.missing).toEqual(["failed", expect.stringMatching(/404/)]);
  expect(seen.closed).toBe("closed");
});

test("texts that are asked for at once are written at the same time, each as it is alone", async ({ page, site }) => {
  const seen = await page.evaluate(async () => {
    const { EdgeClient } = await import("/index.js");
    const client = await EdgeClient.create({ tier: "cpu" });
    await client.load("/models/full.gguf", { context: 256 });
    const told = [];
    const write = async (name, input, options) => {
      let text = "";
      const pieces = client.generate(input, options);
      for (;;) {
        const { done, value } = await pieces.next();
        if (done) return { text, tokens: value.tokens, prompt: value.promptTokens, finish: value.finish };
        told.push(name);
        text += value;
      }
    };
    const chat = (content) => [{ role: "user", content }];
    const asked = [
      [chat("What is the capital of Kenya?"), { maxTokens: 24 }],
      ["Nairobi is ", { maxTokens: 24, temperature: 0.9, seed: 3 }],
      [chat("What is the capital of Peru?"), { maxTokens: 24, temperature: 0.7, topK: 8, seed: 5 }],
      // With all that it may become it is longer than a row.
      ["Helium is ", { maxTokens: 250, stop: ["."] }],
      [chat("Who was Ada Lovelace?"), { maxTokens: 5 }],
      ["The ", { maxTokens: 24, repetitionPenalty: 1.3 }],
    ];
    const alone = [];
    for (const [input, options] of asked) alone.push(await write("alone", input, options));
    told.length = 0;
    const stop = new AbortController();
    const stopped = write("stopped", "Water ", { maxTokens: 200, temperature: 1, signal: stop.signal }).catch((error) => error.name);
    const together = Promise.all(asked.map(([input, options], n) => write(n, input, options)));
    stop.abort();
    const out = { alone, together: await together, stopped: await stopped, order: [...told] };
    const request = { messages: asked[2][0], max_tokens: 24, temperature: 0.7, top_k: 8, seed: 4, n: 3 };
    out.choices = await client.chat.completions.create(request);
    out.streamed = ["", "", ""];
    for await (const { choices } of await client.chat.completions.create({ ...request, stream: true }))
      for (const { index, delta } of choices) out.streamed[index] += delta.content ?? "";
    out.many = await client.chat.completions.create({ ...request, n: 17 }).catch((error) => [error.code, error.message]);
    // Leaving early stops every choice: the next answer does not wait for them.
    for await (const chunk of await client.chat.completions.create({ ...request, max_tokens: 200, stream: true }))
      if (chunk.choices[0].delta.content) break;
    out.after = await write("after", ...asked[0]);
    client.close();
    return out;
  });
  expect(seen.together).toEqual(seen.alone);
  expect(new Set(seen.together.map(({ text }) => text)).size).toBe(6);
  expect(seen.stopped).toBe("AbortError");
  expect(seen.order).not.toContain("stopped");
  expect(seen.choices.choices.map(({ index }) => index)).toEqual([0, 1, 2]);
  const contents = seen.choices.choices.map(({ message }) => message.content);
  expect(contents[1]).toBe(seen.alone[2].text);
  expect(seen.streamed).toEqual(contents);
  expect(seen.choices.usage.completion_tokens).toBeGreaterThan(seen.alone[2].tokens);
  expect(seen.many).toEqual(["invalid", expect.stringContaining("16")]);
  expect(seen.after).toEqual(seen.alone[0]);
  // One after the other, every text would come in one piece.
  const changes = seen.order.filter((name, at) => name !== seen.order[at - 1]).length;
  expect(changes).toBeGreaterThan(new Set(seen.order).size);
});

test("a checkpoint's files are loaded, stored as one says, and write what transformers writes", async ({ page, site }) => {
  const { files, prompt, answer } = family("llama");
  const wire = Object.entries(files).map(([name, bytes]) => [name, Buffer.from(bytes).toString("base64")]);
  const seen = await page.evaluate(
    async ([wire, prompt]) => {
      const { EdgeClient } = await import("/index.js");
      const client = await EdgeClient.create({ tier: "cpu" });
      const files = wire.map(([name, bytes]) => new File([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))], name));
      const out = {};
      const failed = (error) => [error.code, error.message];
      out.missing = await client.load(files.filter(({ name }) => name !== "tokenizer.json")).catch(failed);
      out.type = await client.load(files, { storeAs: "Q4_K" }).catch(failed);
      out.unnamed = await client.load([new Blob(["x"])]).catch(failed);
      out.eight = (await client.load(files)).verdict.quantisation;
      const loaded = await client.load(files, { storeAs: "F16" });
      out.half = loaded.verdict.quantisation;
      out.bytes = [loaded.memoryBytes, (await client.memory()).weightBytes];
      out.text = "";
      for await (const piece of client.generate(prompt, { maxTokens: 64 })) out.text += piece;
      await client.delete(files, { storeAs: "F16" });
      out.model = client.model;
      client.close();
      return out;
    },
    [wire, prompt],
  );
  expect(seen.missing).toEqual(["failed", expect.stringMatching(/^The file tokenizer\.json is missing/)]);
  expect(seen.type[0]).toBe("invalid");
  expect(seen.unnamed[0]).toBe("invalid");
  expect([seen.eight, seen.half]).toEqual(["Q8_0", "F16"]);
  expect(seen.bytes[0]).toBe(seen.bytes[1]);
  expect(seen.text.trim()).toBe(answer);
  expect(seen.model).toBeUndefined();
});

test("aborting ends a download and an answer, and the engine goes on", async ({ page, site }) => {
  const seen = await page.evaluate(async () => {
    const { EdgeClient } = await import("/index.js");
    const client = await EdgeClient.create({ tier: "cpu" });
    const out = {};
    const before = AbortSignal.abort();
    out.before = await client.load("/models/full.gguf", { signal: before }).catch((error) => error.name);
    await client.load("/models/full.gguf");
    const messages = [{ role: "user", content: "Tell me about Kenya." }];
    const abort = new AbortController();
    out.pieces = 0;
    try {
      for await (const _ of client.generate(messages, { maxTokens: 400, signal: abort.signal })) if ((out.pieces += 1) === 3) abort.abort();
    } catch (error) {
      out.during = error.name;
    }
    // Leaving the loop stops it too: the next answer need not wait for 400 tokens.
    for await (const _ of client.generate(messages, { maxTokens: 400 })) break;
    let text = "";
    for await (const piece of client.generate([{ role: "user", content: "What is the capital of Kenya?" }])) text += piece;
    out.text = text;
    return out;
  });
  expect(seen.before).toBe("AbortError");
  expect(seen.during).toBe("AbortError");
  expect(seen.pieces).toBeLessThan(20);
  expect(seen.text).toContain("Nairobi");
});

test("WebGPU writes the same as the CPU", async ({ page, site }) => {
  const texts = await page.evaluate(async () => {
    const { EdgeClient } = await import("/index.js");
    const texts = [];
    for (const tier of ["cpu", "web-gpu"]) {
      const client = await EdgeClient.create({ tier });
      await client.load("/models/compact.gguf");
      let text = `${client.tier.tier}:`;
      for await (const piece of client.generate([{ role: "user", content: "What is the capital of Kenya?" }])) text += piece;
      texts.push(text);
      client.close();
    }
    return texts;
  });
  expect(texts[0].length).toBeGreaterThan(8);
  expect(texts[1].replace("web-gpu:", "cpu:")).toBe(texts[0]);
});

test("the offloading client shares an answer with the server", async ({ page, site }) => {
  const tandem = await startTandem(["--cors-origin", "*"]);
  const seen = await page.evaluate(async (server) => {
    const { EdgeClient } = await import("/index.js");
    const client = await EdgeClient.create({ server, tier: "cpu" });
    const out = { models: client.models.map((model) => model.id), server: client.server.up };
    // The policy's module is in the package, too.
    const decision = new Promise((resolve) =>
      client.addEventListener("world", ({ detail }) => detail.view.decision && resolve(detail.view.decision)),
    );
    await client.load("compact");
    const prompts = ["What is the capital of Kenya?", "What is the capital of France?", "What is the currency of Japan?"];
    for (const split of [0, 0.5, 1, "policy"]) {
      const events = client.ask(prompts, { split, maxTokens: 24 });
      let step;
      while (!(step = await events.next()).done);
      out[split] = step.value;
    }
    out.decision = await decision;
    return out;
  }, tandem.url);
  await tandem.stop();
  const writers = (result) => [...new Set(result.answers.flatMap((answer) => answer.parts.map((part) => part.origin)))].sort();
  // Those that ship, and what the catalogue offers besides.
  expect(seen.models).toEqual(expect.arrayContaining(["full", "compact", "smollm2-135m"]));
  expect(seen.server).toBe(true);
  expect(writers(seen[0])).toEqual(["device"]);
  expect(writers(seen[0.5])).toEqual(["device", "server"]);
  expect(writers(seen[1])).toEqual(["server"]);
  expect(seen[1].answers[0].text).toContain("Nairobi");
  expect(seen.policy.record.alpha).toBeGreaterThan(0);
  expect(seen.decision).toMatchObject({ backend: "flex" });
  expect(seen[0.5].record).toMatchObject({ alpha: 0.5, prompts: 3 });
});

test("a dead worker is told, and a new client finds the stored model", async ({ page, site }) => {
  const seen = await page.evaluate(async () => {
    const { EdgeClient } = await import("/index.js");
    const missing = await EdgeClient.create({ workerUrl: "/worker/none.js" }).catch((error) => error.code);
    const first = await EdgeClient.create({ tier: "cpu" });
    await first.load("/models/compact.gguf");
    first.close();
    const second = await EdgeClient.create({ tier: "cpu" });
    const verdict = await second.inspect("/models/compact.gguf");
    return { missing, downloadBytes: verdict.downloadBytes };
  });
  expect(seen).toEqual({ missing: "engine-lost", downloadBytes: 0 });
});
