// What goes wrong in the field: the server dies, the download is cut, there is no WebGPU.
import { chromium } from "@playwright/test";
import { family } from "./checkpoint.mjs";
import { answersAlone, ask, chromiumArgs, done, drop, expect, loadModel, open, origins, savesData, test } from "./harness.mjs";

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

for (const share of [0.01, 0.5, 0.99]) {
  test(`a download that is cut at ${100 * share} % keeps what arrived and goes on from there`, async ({ page, edge }) => {
    await savesData(page);
    await open(page, edge.url);
    const compact = await compactEntry(page, edge.url);
    // The first request is cut; all further ones fail until the connection is back.
    const cutAfterBytes = Math.floor(compact.bytes * share);
    let requests = 0;
    edge.rule = (request) => {
      if (!request.url.includes(compact.file)) return undefined;
      requests += 1;
      return requests === 1 ? { cutAfterBytes } : "refuse";
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
    expect(ranges, "only the rest is asked for").toEqual([`bytes=${cutAfterBytes}-`]);
  });
}

async function compactEntry(page, url) {
  const manifest = await (await page.request.get(`${url}models/manifest.json`)).json();
  return manifest.models.find((model) => model.id === "compact");
}

/** Runs some script in the engine worker before its own. */
async function inWorker(page, script) {
  await page.context().route("**/worker_boot.js", async (route) => {
    const reply = await route.fetch();
    await route.fulfill({ response: reply, body: script + (await reply.text()) });
  });
}

test("a browser that refuses room: the model stays in memory and the page says so", async ({ page, edge }) => {
  await savesData(page);
  const devtools = await page.context().newCDPSession(page);
  await devtools.send("Storage.overrideQuotaForOrigin", { origin: new URL(edge.url).origin, quotaSize: 100_000 });
  // Chromium keeps to the small quota, but still tells pages of a large one.
  await inWorker(page, "StorageManager.prototype.estimate = async () => ({ quota: 100_000, usage: 0 });");
  await open(page, edge.url);
  await expect(page.getByTestId("verdict")).toContainText(/not kept/);
  await page.getByTestId("load-model").click();
  await expect(page.getByTestId("notice")).toContainText(/only until this tab is closed.*(no more room|kept only)/);
  await expect(page.getByTestId("model-state")).toHaveAttribute("data-state", "ready", { timeout: 90_000 });
  await answersAlone(page);
});

test("storage that is cleared under way: the model arrives all the same", async ({ page, edge }) => {
  await savesData(page);
  await open(page, edge.url);
  const compact = await compactEntry(page, edge.url);
  let cleared;
  const devtools = await page.context().newCDPSession(page);
  const clear = () => devtools.send("Storage.clearDataForOrigin", { origin: new URL(edge.url).origin, storageTypes: "all" });
  edge.rule = (request) =>
    request.url.includes(compact.file)
      ? { delayMs: 150, onChunk: (sent) => sent > compact.bytes / 3 && (cleared ??= clear()) }
      : undefined;
  await page.getByTestId("load-model").click();
  await expect(page.getByTestId("model-state")).toHaveAttribute("data-state", "ready", { timeout: 90_000 });
  expect(cleared, "it was cleared").toBeDefined();
  await cleared;
  await answersAlone(page);
});

test("two tabs at once load the model and answer", async ({ page, edge }) => {
  const other = await page.context().newPage();
  edge.rule = (request) => (request.url.endsWith(".gguf") ? { delayMs: 50 } : undefined);
  const tabs = [page, other];
  await Promise.all(tabs.map((tab) => open(tab, edge.url)));
  for (const tab of tabs) await expect(tab.getByTestId("model-state")).toHaveAttribute("data-state", "ready", { timeout: 90_000 });
  await Promise.all(tabs.map((tab) => answersAlone(tab)));
  await other.close();
});

test("a model that a person wants does not wait for the one that comes by itself", async ({ page, edge }) => {
  const { files } = family("qwen3");
  edge.rule = (request) => (request.url.endsWith(".gguf") ? { delayMs: 1000 } : undefined);
  await open(page, edge.url);
  await expect(page.getByTestId("model-state")).toHaveAttribute("data-state", /downloading|loading/);
  await drop(page, Object.entries(files));
  await loadModel(page);
  await expect(page.getByTestId("notice").filter({ hasText: /cancel that first/ })).toHaveCount(0);
});

test("a tab that is hidden and frozen in the middle of an answer goes on when it comes back", async ({ page, edge }) => {
  edge.rule = (request) => (request.url.startsWith("/v1/chat") ? { delayMs: 150 } : undefined);
  await open(page, edge.url);
  await page.getByTestId("mode").selectOption("server-only");
  await ask(page, "What is the capital of Kenya?\nWhat is the capital of France?");
  await expect(page.getByTestId("token").first()).toBeVisible();
  const devtools = await page.context().newCDPSession(page);
  await devtools.send("Page.setWebLifecycleState", { state: "frozen" });
  await new Promise((resolve) => setTimeout(resolve, 3000));
  await devtools.send("Page.setWebLifecycleState", { state: "active" });
  await done(page);
  await expect(page.getByTestId("answer-0")).toContainText("Nairobi");
  await expect(page.getByTestId("answer-1")).toContainText("Paris");
});

test("a minute without a timer's tick is no reason to give the engine up", async ({ page, edge }) => {
  await page.clock.install();
  await open(page, edge.url);
  // What a tab sees that was hidden for a minute: time has passed, its timers have not run.
  await page.clock.fastForward(60_000);
  await expect(page.getByTestId("tier")).toHaveAttribute("data-tier", /web-gpu|cpu/);
  await expect(page.getByTestId("notice").filter({ hasText: /engine stopped/i })).toHaveCount(0);
  await loadModel(page);
  await answersAlone(page);
});

/** Lets a spec lose the GPU: `self.lastDevice` is the one in use. */
const keepDevice =
  "const ask = GPUAdapter.prototype.requestDevice;" +
  "GPUAdapter.prototype.requestDevice = async function (...args) { return (self.lastDevice = await ask.apply(this, args)); };";

test("a GPU that is lost in the middle of an answer: the CPU goes on, and the page says so", async ({ page, edge }) => {
  await inWorker(page, keepDevice);
  await open(page, edge.url, "?tier=web-gpu");
  await loadModel(page);
  await page.getByTestId("mode").selectOption("local-only");
  await ask(page, "What is the capital of Kenya?\nWhat is the capital of France?\nWhat is the capital of Peru?");
  await expect(page.getByTestId("token").first()).toBeVisible();
  await page.workers()[0].evaluate(() => self.lastDevice.destroy());
  await done(page);
  await expect(page.getByTestId("tier")).toHaveAttribute("data-tier", "cpu");
  await expect(page.getByTestId("notice").filter({ hasText: /CPU/ }).first()).toBeVisible();
  for (let n = 0; n < 3; n += 1) await expect(page.getByTestId(`answer-${n}`)).not.toBeEmpty();
  await answersAlone(page, 2);
});

test("a GPU that is lost while a dropped checkpoint writes: the CPU reads its files again and writes the same", async ({ page, edge }) => {
  const { files, prompt, answer, length } = family("qwen3");
  await inWorker(page, keepDevice);
  await open(page, edge.url, `?tier=web-gpu&tokens=${length}`);
  await drop(page, Object.entries(files));
  await page.getByTestId("other-model").click();
  await page.getByTestId("model-store").selectOption("F16");
  await loadModel(page);
  await page.getByTestId("mode").selectOption("local-only");
  await ask(page, prompt);
  await expect(page.getByTestId("token").first()).toBeVisible();
  await page.workers()[0].evaluate(() => self.lastDevice.destroy());
  await done(page);
  await expect(page.getByTestId("tier")).toHaveAttribute("data-tier", "cpu");
  // Where the CPU begins there is no space before its first token.
  const text = (await page.getByTestId("token").allTextContents()).join("");
  expect(text.match(/t\d+/g).join(" ")).toBe(answer);
});

test("the GPU's self-test runs once for a device and version; what failed is left out, and the page says so", async ({ page, edge }) => {
  await savesData(page);
  test.setTimeout(400_000);
  // An emulated GPU is not tested, so this one says that it is none. It leaves packed products out: to time them would take
  // it minutes, and engine.spec.mjs has their results.
  await inWorker(
    page,
    "const info = { vendor: 'test', architecture: '', device: '', description: 'A GPU under test' };" +
      "Object.defineProperty(GPUAdapter.prototype, 'info', { get: () => info });" +
      "Object.defineProperty(GPU.prototype, 'wgslLanguageFeatures', { get: () => new Set() });",
  );
  const tier = page.getByTestId("tier");
  const loaded = () => expect(page.getByTestId("model-state")).toHaveAttribute("data-state", "ready", { timeout: 180_000 });
  const kept = (instead) =>
    page.evaluate(async (instead) => {
      const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("proofs");
      const file = await folder.getFileHandle("webgpu.json");
      if (instead) {
        const stream = await file.createWritable();
        await stream.write(JSON.stringify(instead));
        await stream.close();
      }
      return JSON.parse(await (await file.getFile()).text());
    }, instead);
  await open(page, edge.url, "?tier=web-gpu");
  const state = page.getByTestId("model-state");
  const load = page.getByTestId("load-model");
  await load.click();
  await expect(tier).toContainText("are tested on this GPU");
  await expect(state).toContainText(/tested on this GPU, once: \d of \d trials/);
  // It ends with the trial that is under way, and says so meanwhile.
  await page.getByTestId("cancel-load").click();
  await expect(page.getByTestId("cancel-load")).toHaveText("Stopping …");
  await expect(page.getByTestId("cancel-load")).toBeFocused();
  await expect(state).toHaveAttribute("data-state", "cached", { timeout: 60_000 });
  await load.click();
  await loaded();
  await expect(tier).toContainText("passed the self-test");
  const first = await kept();
  expect(first.proof.failed).toEqual([]);
  const stored = first.proof.passed.filter((name) => /^Q\d/.test(name));
  expect(stored.length).toBeGreaterThan(0);

  const having = (name, change) => ({
    ...first,
    proof: { ...first.proof, passed: first.proof.passed.filter((it) => it !== name), failed: [[name, "made up"]], ...change },
  });
  // Believed, so not tried again. The page loads by itself what it has stored.
  const without = await kept(having("subgroups"));
  await open(page, edge.url, "?tier=web-gpu");
  await loaded();
  await expect(tier).toContainText("Left out: subgroups (made up)");
  expect(await kept()).toEqual(without);
  // Of other kernels: tried again.
  await kept(having("subgroups", { version: 0 }));
  await open(page, edge.url, "?tier=web-gpu");
  await loaded();
  await expect(tier).not.toContainText("made up");
  expect(await kept()).toEqual(first);
  // The model itself cannot be computed.
  await kept(having(stored[0]));
  await open(page, edge.url, "?tier=web-gpu");
  await expect(state).toHaveAttribute("data-state", "failed");
  await expect(state).toContainText(`self-test failed (${stored[0]}: made up)`);
});

test("a worker that is killed is started again, with its model", async ({ page, edge }) => {
  await page.clock.install();
  await open(page, edge.url);
  await loadModel(page);
  // Nobody tells the page: it has to find out.
  await page.workers()[0].evaluate(() => self.close());
  await page.clock.runFor(60_000);
  await expect(page.getByTestId("notice").filter({ hasText: /engine stopped/i }).first()).toBeVisible();
  await expect(page.getByTestId("model-state")).toHaveAttribute("data-state", "ready", { timeout: 90_000 });
  await answersAlone(page);
});

test("a download of wrong bytes is refused", async ({ page, edge }) => {
  await savesData(page);
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

// By the script that starts it: a browser asks several times for a file whose connection breaks.
const startsOfPolicy = (edge) => edge.requests.filter((request) => request.url.startsWith("/policy_boot.js")).length;

test("where the policy's module is not to be had, the closed form decides and the page says so", async ({ page, edge }) => {
  edge.rule = (request) => (request.url.startsWith("/policy_cpu") ? "refuse" : undefined);
  await open(page, edge.url, "?seed=3");
  const notice = page.getByTestId("notice").filter({ hasText: /policy.s module/ });
  await expect(notice).toContainText(/closed form decides/);
  await expect(notice).toHaveCount(1);
  await expect(page.getByTestId("policy-backend")).toContainText(/closed form decided/i);
  expect(Number.parseFloat(await page.getByTestId("decision-alpha").textContent())).toBeGreaterThanOrEqual(0);
  await loadModel(page);
  await ask(page, "What is the capital of Kenya?");
  await done(page);
  await expect(page.getByTestId("answer-0")).not.toBeEmpty();
  expect(startsOfPolicy(edge), "one more try, no more").toBe(2);
});

test("a policy's module that is still being built is waited for, while the closed form decides", async ({ page, edge }) => {
  let isBuilt = false;
  edge.rule = (request) => (!isBuilt && request.url.startsWith("/policy_cpu") ? "missing" : undefined);
  await page.context().route("**/assets.json", async (route) => {
    const reply = await route.fetch();
    const list = await reply.json();
    if (!isBuilt) delete list.files["policy_cpu_bg.wasm"];
    await route.fulfill({ json: list });
  });
  await open(page, edge.url, "?seed=3");
  await expect(page.getByTestId("notice").filter({ hasText: /still being built.*closed form decides/ })).toHaveCount(1);
  const backend = page.getByTestId("policy-backend");
  await expect(backend).toContainText(/closed form decided/i);
  expect(startsOfPolicy(edge)).toBe(1);
  isBuilt = true;
  await expect(backend).toContainText(/burn flex.* ms/, { timeout: 40_000 });
  expect(startsOfPolicy(edge), "nothing is started before it is there").toBe(2);
});

test("a policy's module that fails is started once more, and then left", async ({ page, edge }) => {
  await open(page, edge.url, "?seed=3");
  const backend = page.getByTestId("policy-backend");
  const alpha = page.getByTestId("decision-alpha");
  const fails = async () => {
    const worker = page.workers().find((worker) => worker.url().includes("policy_boot"));
    await worker.evaluate(() => {
      self.onmessage = () => {
        throw new Error("out of order");
      };
    });
    await page.getByRole("button", { name: "Next slot" }).click();
  };
  await expect(backend).toContainText(/burn flex.* ms/);
  const decided = await alpha.textContent();
  await fails();
  await expect(page.getByTestId("notice").filter({ hasText: /out of order.*once more/ })).toBeVisible();
  await page.getByTestId("reset").click();
  await expect(backend).toContainText(/burn flex.* ms/);
  await expect(alpha).toHaveText(decided);
  await fails();
  await expect(page.getByTestId("notice").filter({ hasText: /does not work.*out of order.*closed form decides/ })).toBeVisible();
  await expect(backend).toContainText(/closed form decided/i);
  await page.getByRole("button", { name: "Next slot" }).click();
  await expect(backend).toContainText(/closed form decided/i);
  expect(startsOfPolicy(edge)).toBe(2);
});

test("a deleted model is gone", async ({ page, tandem, problems }) => {
  await open(page, tandem.url);
  await loadModel(page);
  await page.getByTestId("delete-model").click();
  await expect(page.getByTestId("model-state")).toHaveAttribute("data-state", "absent");
  await page.reload();
  await expect(page.getByTestId("model-state")).toHaveAttribute("data-state", "absent");
  await expect(page.getByTestId("model-state")).toContainText(/waits to be asked for, since you deleted it/);
});
