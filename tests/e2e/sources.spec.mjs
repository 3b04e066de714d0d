// Models from elsewhere: an address with CORS, a file that is picked or dropped, a hub behind the server; and the verdict
// that comes before loading.
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { answerOf, answersAlone, cancelAtFirstProgress, drop, expect, listen, look, open, savesData, startTandem, test } from "./harness.mjs";
import { writeFarModel, writeLargeModel } from "./large_model.mjs";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const compact = path.join(root, "public/models/compact.gguf");

/** Another site with one model; `requests` is what it was asked for. */
async function elsewhere({ cors = true } = {}) {
  const bytes = fs.readFileSync(compact);
  const requests = [];
  const server = http.createServer((request, response) => {
    requests.push({ url: request.url, range: request.headers.range, method: request.method });
    const allow = cors ? { "access-control-allow-origin": "*", "access-control-allow-headers": "range" } : {};
    if (request.method === "OPTIONS") return response.writeHead(204, allow).end();
    if (!request.url.endsWith(".gguf")) return response.writeHead(404, allow).end();
    const from = Number(request.headers.range?.match(/bytes=(\d+)-/)?.[1] ?? 0);
    const range = from ? { "content-range": `bytes ${from}-${bytes.length - 1}/${bytes.length}` } : {};
    response.writeHead(from ? 206 : 200, { ...allow, ...range, "content-length": bytes.length - from, etag: '"v1"' });
    response.end(bytes.subarray(from));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}/`, requests, stop: () => server.close() };
}

// The small model does not come by itself: what is loaded here is what a spec asks for.
test.beforeEach(({ page }) => savesData(page));

test("before loading, the page says what the model takes and that it fits", async ({ page, edge, problems }) => {
  await open(page, edge.url);
  const verdict = page.getByTestId("verdict");
  await expect(verdict).toHaveAttribute("data-fits", "true");
  await expect(verdict).toContainText(/461 kB to download .*context of 512 tokens/);
  expect(edge.requests.filter((request) => request.url.endsWith(".gguf")), "nothing was fetched for that").toEqual([]);
});

test("a model from another address is inspected, loaded, and found again without its server", async ({ page, edge, problems }) => {
  const site = await elsewhere();
  await open(page, edge.url);
  await look(page, `${site.url}m.gguf`);
  await expect(page.getByTestId("verdict")).toHaveAttribute("data-fits", "true");
  await expect(page.locator("#model-title")).toContainText("m.gguf");
  const state = page.getByTestId("model-state");
  await page.getByTestId("load-model").click();
  await expect(state).toHaveAttribute("data-state", "ready", { timeout: 60_000 });
  await answersAlone(page);
  site.stop();
  await page.reload();
  await expect(page.getByTestId("tier")).toHaveAttribute("data-tier", /web-gpu|cpu/);
  await look(page, `${site.url}m.gguf`);
  await page.getByTestId("load-model").click();
  await expect(state).toHaveAttribute("data-state", "ready", { timeout: 60_000 });
  problems.length = 0;
});

test("an address that allows no other sites gets a clear word", async ({ page, edge }) => {
  const site = await elsewhere({ cors: false });
  await open(page, edge.url);
  await look(page, `${site.url}m.gguf`);
  await expect(page.getByTestId("verdict")).toHaveAttribute("data-fits", "false");
  await expect(page.getByTestId("verdict")).toContainText(/CORS/);
  await look(page, "not an address");
  await expect(page.getByTestId("notice").last()).toContainText(/https:/);
  site.stop();
});

test("a picked file is read from the disk, and the compact model can come back", async ({ page, edge, problems }) => {
  await open(page, edge.url);
  await page.getByTestId("other-model").focus();
  await page.keyboard.press("Enter");
  await page.getByTestId("model-context").selectOption("512");
  await page.getByTestId("model-file").setInputFiles(compact);
  await expect(page.getByTestId("verdict")).toContainText(/Nothing to download/);
  await page.getByTestId("load-model").click();
  await expect(page.getByTestId("model-state")).toHaveAttribute("data-state", "ready", { timeout: 60_000 });
  await answersAlone(page);
  expect(edge.requests.filter((request) => request.url.endsWith(".gguf"))).toEqual([]);
  await page.getByTestId("own-model").click();
  await expect(page.getByTestId("model-state")).toHaveAttribute("data-state", "absent");
});

test("a large model computes in the best build of the CPU kernels", async ({ page, edge, problems }, testInfo) => {
  const file = testInfo.outputPath("large.gguf");
  expect(writeLargeModel(file)).toBeGreaterThan(16_000_000);
  await open(page, edge.url, "?seed=7&tier=cpu");
  await page.getByTestId("other-model").click();
  await page.getByTestId("model-file").setInputFiles(file);
  await expect(page.getByTestId("verdict")).toHaveAttribute("data-fits", "true");
  await page.getByTestId("load-model").click();
  await expect(page.getByTestId("model-state")).toHaveAttribute("data-state", "ready", { timeout: 60_000 });
  await expect(page.getByTestId("tier")).toContainText("relaxed SIMD");
  await answersAlone(page);
});

for (const tier of ["web-gpu", "cpu"]) {
  test(`a dropped file of more than 4 GiB answers as the small one in it: ${tier}`, async ({ page, edge, problems }, testInfo) => {
    const file = testInfo.outputPath("far.gguf");
    expect(writeFarModel(file)).toBeGreaterThan(6 * 2 ** 30);
    const query = `?seed=7&tier=${tier}`;
    await open(page, edge.url, query);
    await expect(page.getByTestId("tier")).toHaveAttribute("data-tier", tier);
    await page.getByTestId("other-model").click();
    await page.getByTestId("model-file").setInputFiles(compact);
    await expect(page.locator("#model-title")).toContainText("compact.gguf");
    const expected = await answerOf(page);
    expect(expected.length).toBeGreaterThan(0);

    await open(page, edge.url, query);
    await page.evaluate(() => document.body.append(Object.assign(document.createElement("input"), { type: "file", id: "hand" })));
    await page.locator("#hand").setInputFiles(file);
    const transfer = await page.evaluateHandle(() => {
      const data = new DataTransfer();
      data.items.add(document.querySelector("#hand").files[0]);
      return data;
    });
    await page.dispatchEvent("body", "drop", { dataTransfer: transfer });
    await expect(page.locator("#model-title")).toContainText("far.gguf");
    expect(await answerOf(page)).toBe(expected);
    await expect(page.getByTestId("tier")).toHaveAttribute("data-tier", tier);
    fs.rmSync(file);
  });

  test(`a load takes a small part of the file in the worker's memory, and can be stopped: ${tier}`, async ({ page, edge, problems }, testInfo) => {
    const file = testInfo.outputPath("mid.gguf");
    writeLargeModel(file, 12);
    const { size } = fs.statSync(file);
    await listen(page);
    await open(page, edge.url, `?tier=${tier}`);
    await page.getByTestId("other-model").click();
    await page.getByTestId("model-context").selectOption("512");
    await page.getByTestId("model-file").setInputFiles(file);
    await expect(page.getByTestId("verdict")).toHaveAttribute("data-fits", "true");
    const state = page.getByTestId("model-state");
    await cancelAtFirstProgress(page);
    // And to its end.
    await page.getByTestId("load-model").click();
    await expect(state).toHaveAttribute("data-state", "ready", { timeout: 90_000 });
    const seen = await page.evaluate(async () => {
      const progress = window.heard.filter(({ type, state }) => type === "model" && state.state === "loading" && state.read > 0);
      window.engine({ type: "measure", ask: 99 });
      const report = () => window.heard.find(({ type, ask }) => type === "memory" && ask === 99);
      while (!report()) await new Promise((resolve) => setTimeout(resolve, 10));
      return { progress: progress.map(({ state }) => state), memory: report().memory };
    });
    console.log(`${tier}: a file of ${size} bytes, ${seen.memory.wasm_bytes} bytes of WebAssembly memory, ${seen.progress.length} reports`);
    expect(seen.progress.length).toBeGreaterThan(1);
    for (const { read, total } of seen.progress) expect(read).toBeLessThanOrEqual(total);
    expect(seen.memory.on_gpu).toBe(tier === "web-gpu");
    // The CPU's weights are in the kernels' memory; what is left is the worker's own.
    const own = seen.memory.wasm_bytes - (seen.memory.on_gpu ? 0 : seen.memory.weight_bytes);
    expect(own).toBeLessThan(size / 2);
    fs.rmSync(file);
  });
}

test("a dropped file is inspected; one that is no model is refused", async ({ page, edge, problems }) => {
  await open(page, edge.url);
  await drop(page, [["mine.gguf", fs.readFileSync(compact)]]);
  await expect(page.locator("#model-title")).toContainText("mine.gguf");
  await expect(page.getByTestId("verdict")).toHaveAttribute("data-fits", "true");
  await drop(page, [["damaged.gguf", "GGUFnonsense"]]);
  await expect(page.getByTestId("verdict")).toHaveAttribute("data-fits", "false");
  await drop(page, [["notes.txt", "hello"]]);
  await expect(page.locator("#model-title")).toContainText("notes.txt");
  await expect(page.getByTestId("verdict")).toContainText(/no model here: it takes a GGUF file/);
});

test("a hub's file comes through the server and stays in its cache", async ({ page }) => {
  const site = await elsewhere();
  const cache = fs.mkdtempSync(path.join(root, "target/hub-"));
  const tandem = await startTandem(["--hub", site.url, "--hub-cache", cache]);
  await open(page, tandem.url);
  await look(page, "org/repo/m.gguf");
  await page.getByTestId("load-model").click();
  await expect(page.getByTestId("model-state")).toHaveAttribute("data-state", "ready", { timeout: 60_000 });
  expect(site.requests.map((request) => request.url)).toEqual(["/org/repo/resolve/main/m.gguf"]);
  expect(fs.statSync(path.join(cache, "org/repo/m.gguf")).size).toBe(fs.statSync(compact).size);
  await tandem.stop();
  site.stop();
  fs.rmSync(cache, { recursive: true });
});
