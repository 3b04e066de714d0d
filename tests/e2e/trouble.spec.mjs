// What goes wrong in the field: the server dies, the download is cut, there is no WebGPU.
import { chromium } from "@playwright/test";
import { ask, chromiumArgs, done, expect, loadModel, open, origins, test } from "./harness.mjs";

test("the server dies in the middle of an answer: the device finishes and the page says so", async ({ page, edge }) => {
  await open(page, edge.url, "?decider=manual&alpha=1");
  await loadModel(page);
  edge.rule = (request) =>
    request.url.startsWith("/v1/chat") ? { delayMs: 200, onChunk: (sent) => sent > 200 && edge.goDown() } : undefined;
  const questions = "What is the capital of Kenya?\nWhat is the capital of Peru?\nWhat is the capital of Norway?";
  await ask(page, questions);
  await done(page);
  await expect(page.getByTestId("notice").first()).toContainText(/server/i);
  expect(await origins(page)).toContain("device");
  for (let n = 0; n < 3; n += 1) await expect(page.getByTestId(`answer-${n}`)).not.toBeEmpty();
  await expect(page.getByTestId("server-health")).toHaveAttribute("data-up", "false");
  // It comes back by itself.
  edge.rule = () => undefined;
  edge.comeBack();
  await expect(page.getByTestId("server-health")).toHaveAttribute("data-up", "true", { timeout: 30_000 });
});

test("a cut download keeps what arrived and goes on from there", async ({ page, edge }) => {
  await open(page, edge.url);
  const manifest = await (await page.request.get(`${edge.url}models/manifest.json`)).json();
  const compact = manifest.models.find((model) => model.id === "compact");
  // The first request is cut in the middle; all further ones fail until the connection is back.
  let requests = 0;
  edge.rule = (request) => {
    if (!request.url.includes(compact.file)) return undefined;
    requests += 1;
    return requests === 1 ? { cutAfterBytes: Math.floor(compact.bytes / 2) } : "refuse";
  };
  await page.getByTestId("load-model").click();
  const state = page.getByTestId("model-state");
  await expect(state).toHaveAttribute("data-state", /partial|failed/);
  await expect(state).toContainText(/again|continue|resume|go on/i);
  edge.rule = () => undefined;
  edge.requests.length = 0;
  await page.getByTestId("load-model").click();
  await expect(state).toHaveAttribute("data-state", "ready", { timeout: 90_000 });
  const ranges = edge.requests.filter((request) => request.url.includes(compact.file)).map((request) => request.range);
  expect(ranges, "only the rest is asked for").toEqual([expect.stringMatching(/^bytes=[1-9]\d*-/)]);
});

test("a download of wrong bytes is refused", async ({ page, edge }) => {
  await open(page, edge.url);
  const manifest = await (await page.request.get(`${edge.url}models/manifest.json`)).json();
  const compact = manifest.models.find((model) => model.id === "compact");
  const wrong = Buffer.alloc(compact.bytes, 7);
  await page.context().route(`**/${compact.file}*`, (route) => route.fulfill({ body: wrong, contentType: "application/octet-stream" }));
  await page.getByTestId("load-model").click();
  await expect(page.getByTestId("model-state")).toHaveAttribute("data-state", "failed");
  await expect(page.getByTestId("model-state")).toContainText(/not the one that the server/);
  await page.context().unroute(`**/${compact.file}*`);
  await loadModel(page);
});

test("without WebGPU the CPU answers, and the page says why", async ({ tandem }) => {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: chromiumArgs({ webgpu: false }) });
  const page = await browser.newPage();
  await open(page, tandem.url);
  await expect(page.getByTestId("tier")).toHaveAttribute("data-tier", "cpu");
  await expect(page.getByTestId("tier")).toContainText(/WebGPU/);
  await loadModel(page);
  await page.getByTestId("mode").selectOption("local-only");
  await ask(page, "What is the capital of Kenya?");
  await done(page);
  expect(await origins(page)).toEqual(["device"]);
  await browser.close();
});

test("where the worker cannot start, the server answers all and the page says so", async ({ page, tandem }) => {
  await page.context().route("**/worker*.wasm", (route) => route.fulfill({ body: Buffer.from([0, 1, 2, 3]), contentType: "application/wasm" }));
  await page.goto(tandem.url);
  await expect(page.getByTestId("tier")).toHaveAttribute("data-tier", "server-only");
  await ask(page, "What is the capital of Kenya?");
  await expect(page.getByTestId("answer-0")).toContainText("Nairobi", { timeout: 60_000 });
  expect(await origins(page)).toEqual(["server"]);
});

test("a deleted model is gone", async ({ page, tandem, problems }) => {
  await open(page, tandem.url);
  await loadModel(page);
  await page.getByTestId("delete-model").click();
  await expect(page.getByTestId("model-state")).toHaveAttribute("data-state", "absent");
  await page.reload();
  await expect(page.getByTestId("model-state")).toHaveAttribute("data-state", "absent");
});
