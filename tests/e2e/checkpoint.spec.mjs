// Safetensors checkpoints in the page: dropped as files or as a folder, picked, or from a hub; quantised while they are read.
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { compactCheckpoint, family, largeCheckpoint, writeFiles } from "./checkpoint.mjs";
import { answerOf, ask, cancelAtFirstProgress, done, drop, expect, listen, loadModel, look, open, savesData, startTandem, test } from "./harness.mjs";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const compact = path.join(root, "public/models/compact.gguf");

/** Unfolds what chooses other models, and says how checkpoints are to be stored. */
async function storeAs(page, type) {
  if (!(await page.getByTestId("model-store").isVisible())) await page.getByTestId("other-model").click();
  await page.getByTestId("model-store").selectOption(type);
}

/** Drops a folder from the disk as a person would: the browser itself makes the event. */
async function dropFolder(page, folder) {
  const session = await page.context().newCDPSession(page);
  const data = { items: [], files: [folder], dragOperationsMask: 1 };
  for (const type of ["dragEnter", "dragOver", "drop"]) await session.send("Input.dispatchDragEvent", { type, x: 200, y: 200, data });
}

async function load(page) {
  await expect(page.getByTestId("verdict")).toHaveAttribute("data-fits", "true");
  await page.getByTestId("load-model").click();
  await expect(page.getByTestId("model-state")).toHaveAttribute("data-state", "ready", { timeout: 90_000 });
}

// The small model does not come by itself: what is loaded here is what a spec asks for.
test.beforeEach(({ page }) => savesData(page));

for (const [tier, name] of [["cpu", "llama"], ["web-gpu", "llama"], ["cpu", "qwen3"], ["web-gpu", "smollm3"], ["cpu", "gemma3"], ["web-gpu", "gemma2"], ["web-gpu", "gemma3"]]) {
  test(`a dropped checkpoint writes the tokens that transformers writes: ${name}, ${tier}`, async ({ page, edge, problems }) => {
    const { files, prompt, answer, length } = family(name);
    await open(page, edge.url, `?tier=${tier}&tokens=${length}`);
    await storeAs(page, "F16");
    await drop(page, Object.entries(files));
    await expect(page.getByTestId("verdict")).toContainText("Nothing to download");
    await expect(page.locator(".model-facts")).toContainText("F16");
    await load(page);
    await page.getByTestId("mode").selectOption("local-only");
    await ask(page, prompt);
    await done(page);
    const text = (await page.getByTestId("token").allTextContents()).join("");
    expect(text.trim()).toBe(answer);
    await expect(page.getByTestId("tier")).toHaveAttribute("data-tier", tier);
  });
}

for (const tier of ["cpu", "web-gpu"]) {
  test(`a checkpoint stored as Q4_0 answers as the GGUF file of the same weights: ${tier}`, async ({ page, edge, problems }, testInfo) => {
    const query = `?seed=7&tier=${tier}`;
    await open(page, edge.url, query);
    await page.getByTestId("other-model").click();
    await page.getByTestId("model-file").setInputFiles(compact);
    const expected = await answerOf(page);
    expect(expected.length).toBeGreaterThan(0);

    // One file in single precision, picked.
    await open(page, edge.url, query);
    await storeAs(page, "Q4_0");
    await page.getByTestId("model-file").setInputFiles(writeFiles(testInfo.outputPath("one"), compactCheckpoint()));
    await expect(page.locator("#model-title")).toContainText("model.safetensors");
    expect(await answerOf(page)).toBe(expected);

    // Two shards in half precision, in a folder that is dropped. What else lies there is none of our business.
    const folder = testInfo.outputPath("atlas");
    writeFiles(folder, { ...compactCheckpoint({ sharded: true }), "README.md": "# Atlas", ".gitattributes": "" });
    writeFiles(path.join(folder, "onnx"), { "config.json": "{}", "model.safetensors": "no" });
    await open(page, edge.url, query);
    await storeAs(page, "Q4_0");
    await dropFolder(page, folder);
    await expect(page.locator("#model-title")).toContainText("atlas");
    expect(await answerOf(page)).toBe(expected);
    await expect(page.getByTestId("tier")).toHaveAttribute("data-tier", tier);
  });
}

test("the verdict follows the type that is chosen, and another type is another load", async ({ page, edge, problems }) => {
  await open(page, edge.url, "?tier=web-gpu");
  await drop(page, Object.entries(compactCheckpoint()));
  const [verdict, state, facts] = [page.getByTestId("verdict"), page.getByTestId("model-state"), page.locator(".model-facts")];
  await expect(facts).toContainText("Q8_0");
  // 704,512 weights in matrices: 34 bytes for each 32 of them, or 18.
  await expect(verdict).toContainText("749 kB weights");
  await load(page);
  await storeAs(page, "Q4_0");
  await expect(facts).toContainText("Q4_0");
  await expect(verdict).toContainText("396 kB weights");
  await expect(state).toHaveAttribute("data-state", "absent");
  await load(page);
  await storeAs(page, "Q8_0");
  await expect(state).toHaveAttribute("data-state", "absent");
  await page.getByTestId("model-store").selectOption("F32");
  await expect(verdict).toContainText("2.82 MB weights");
});

test("what is missing, damaged or foreign is said in words", async ({ page, edge, problems }) => {
  await open(page, edge.url, "?tier=cpu");
  const one = compactCheckpoint();
  const two = compactCheckpoint({ sharded: true });
  const without = (files, ...names) => Object.entries(files).filter(([name]) => !names.includes(name));
  const damaged = Buffer.from(one["model.safetensors"]);
  damaged.write("damaged", 8);
  const other = JSON.stringify({ ...JSON.parse(one["config.json"]), model_type: "mamba" });
  const wider = JSON.stringify({ ...JSON.parse(one["config.json"]), intermediate_size: 512 });
  const short = one["model.safetensors"].subarray(0, 100_000);
  const whole = Buffer.from(one["model.safetensors"]);
  const name = '"model.layers.0.self_attn.q_proj.weight":{"dtype":"';
  whole.write("I32", whole.indexOf(name) + name.length);
  for (const [files, words] of [
    [without(one, "tokenizer.json"), "The file tokenizer.json is missing: drop it together with the other files."],
    [without(one, "tokenizer.json", "config.json"), "The files config.json and tokenizer.json are missing: drop them together"],
    [without(two, "model-00002-of-00002.safetensors"), "The file model-00002-of-00002.safetensors is missing"],
    [without(two, "model-00001-of-00002.safetensors", "model.safetensors.index.json"), "The file model-00001-of-00002.safetensors is missing"],
    [Object.entries({ ...one, "model.safetensors": damaged }), "The file model.safetensors cannot be used: the safetensors header cannot be read"],
    [Object.entries({ ...one, "model.safetensors": short }), "lies outside the file"],
    [Object.entries({ ...one, "model.safetensors": whole }), "only F32, F16 and BF16 are"],
    [Object.entries({ ...one, "config.json": other }), "this engine runs llama, mistral, qwen2, qwen3, smollm3, gemma, gemma2, gemma3_text and gemma3"],
    [Object.entries({ ...one, "config.json": wider }), "has the shape [256, 128], but the model's sizes ask for [512, 128]"],
    [Object.entries({ ...one, "config.json": "{" }), "config.json cannot be read"],
    [Object.entries({ ...two, "model.safetensors.index.json": "[]" }), "index.json cannot be read"],
  ]) {
    await drop(page, files);
    await expect(page.getByTestId("verdict")).toContainText(words);
    await expect(page.getByTestId("verdict")).toHaveAttribute("data-fits", "false");
  }
  // A tokenizer is read when the model is loaded.
  await drop(page, Object.entries({ ...one, "tokenizer.json": "{}" }));
  await expect(page.getByTestId("verdict")).toHaveAttribute("data-fits", "true");
  await page.getByTestId("load-model").click();
  await expect(page.getByTestId("model-state")).toHaveAttribute("data-state", "failed");
  await expect(page.getByTestId("notice").last()).toContainText("okenizer");
  // The same files again, whole now.
  await drop(page, Object.entries(one));
  await load(page);
});

for (const tier of ["web-gpu", "cpu"]) {
  test(`a checkpoint is quantised piece by piece with progress, and the load can be stopped: ${tier}`, async ({ page, edge, problems }, testInfo) => {
    const paths = writeFiles(testInfo.outputPath("large"), largeCheckpoint(8));
    const size = paths.reduce((sum, file) => sum + fs.statSync(file).size, 0);
    await listen(page);
    await open(page, edge.url, `?tier=${tier}`);
    await page.getByTestId("other-model").click();
    await page.getByTestId("model-file").setInputFiles(paths);
    await expect(page.getByTestId("verdict")).toHaveAttribute("data-fits", "true");
    const state = page.getByTestId("model-state");
    await cancelAtFirstProgress(page);
    await page.getByTestId("load-model").click();
    await expect(state).toHaveAttribute("data-state", "ready", { timeout: 120_000 });
    const seen = await page.evaluate(async () => {
      const progress = window.heard.filter(({ type, state }) => type === "model" && state.state === "loading" && state.read > 0);
      window.engine({ type: "measure", ask: 99 });
      const report = () => window.heard.find(({ type, ask }) => type === "memory" && ask === 99);
      while (!report()) await new Promise((resolve) => setTimeout(resolve, 10));
      return { progress: progress.map(({ state }) => state), memory: report().memory };
    });
    console.log(`${tier}: files of ${size} bytes, ${seen.memory.wasm_bytes} bytes of WebAssembly memory, ${seen.memory.weight_bytes} of weights, ${seen.progress.length} reports`);
    expect(seen.progress.length).toBeGreaterThan(2);
    for (const { read, total } of seen.progress) {
      expect(read).toBeLessThanOrEqual(total);
      expect(total).toBeGreaterThan(0.9 * size);
    }
    // Eight bits and a scale in place of sixteen; the CPU's kernels hold scales in single precision.
    expect(seen.memory.weight_bytes).toBeLessThan((seen.memory.on_gpu ? 0.55 : 0.57) * size);
    const own = seen.memory.wasm_bytes - (seen.memory.on_gpu ? 0 : seen.memory.weight_bytes);
    expect(own).toBeLessThan(size / 2);
  });
}

/** A hub that has one repository with these files. */
async function startHub(files) {
  const requests = [];
  const server = http.createServer((request, response) => {
    requests.push(request.url);
    const bytes = request.url.startsWith("/org/atlas/resolve/main/") && files[path.basename(request.url)];
    if (!bytes) return response.writeHead(404).end();
    response.writeHead(200, { "content-length": Buffer.byteLength(bytes), etag: '"v1"' }).end(bytes);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}/`, requests, stop: () => server.close() };
}

for (const sharded of [false, true]) {
  test(`a hub's checkpoint comes through the server and stays on this device: ${sharded ? "two shards" : "one file"}`, async ({ page }) => {
    const files = compactCheckpoint({ sharded });
    const size = Object.values(files).reduce((sum, bytes) => sum + Buffer.byteLength(bytes), 0);
    const hub = await startHub(files);
    const cache = fs.mkdtempSync(path.join(root, "target/hub-"));
    const tandem = await startTandem(["--hub", hub.url, "--hub-cache", cache]);
    await open(page, tandem.url, "?seed=7&tier=cpu");
    await look(page, "org/none");
    await expect(page.getByTestId("verdict")).toContainText(/no config.json, so this is no safetensors checkpoint/);
    await look(page, "org/atlas");
    await expect(page.locator("#model-title")).toContainText("atlas");
    await expect(page.getByTestId("verdict")).toContainText(/to download/);
    await storeAs(page, "Q4_0");
    const answer = await answerOf(page);
    expect(answer.length).toBeGreaterThan(0);
    for (const name of Object.keys(files)) expect(fs.existsSync(path.join(cache, "org/atlas", name)), name).toBe(true);
    const stored = await page.evaluate(async () => {
      let bytes = 0;
      const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("models");
      for await (const handle of folder.values()) bytes += (await handle.getFile()).size;
      return bytes;
    });
    expect(stored).toBe(size);

    // The hub is gone, and what it gave is here.
    hub.stop();
    await open(page, tandem.url, "?seed=7&tier=cpu");
    await look(page, "org/atlas");
    await expect(page.getByTestId("verdict")).toContainText("Nothing to download");
    await storeAs(page, "Q4_0");
    expect(await answerOf(page)).toBe(answer);
    await page.getByTestId("delete-model").click();
    await expect(page.getByTestId("model-state")).toHaveAttribute("data-state", "absent");
    await expect(page.getByTestId("verdict")).toContainText(/to download/);
    await tandem.stop();
    fs.rmSync(cache, { recursive: true });
  });
}

test("two models that have nothing to do with each other are told as such, and the one that fits is offered", async ({ page, edge, problems }) => {
  const { files, prompt } = family("qwen3");
  await open(page, edge.url, "?tier=cpu&decider=manual&alpha=0.5");
  await drop(page, Object.entries(files));
  await load(page);
  const pair = page.getByTestId("pair");
  await expect(pair).toHaveAttribute("data-fit", "different");
  await expect(pair).toContainText(/do not belong together.*different tokens.*Load Atlas Compact/);
  // Words of both are not compared.
  await ask(page, prompt);
  await done(page);
  await expect(page.locator(".reference")).toHaveCount(0);
  await page.getByTestId("take-pair").click();
  await loadModel(page);
  await expect(page.locator("#model-title")).toContainText("Atlas Compact");
  await expect(pair).toHaveAttribute("data-fit", "same");
  await expect(pair).toBeHidden();
});
