// The main job: a question is answered by two models, and the page shows who wrote what.
import { ask, done, expect, loadModel, open, origins, test } from "./harness.mjs";

const burst = [
  "What is the capital of Kenya?",
  "What is the capital of France?",
  "Which continent is Peru in?",
  "What is the currency of Japan?",
].join("\n");

test("a burst is answered by device and server, coloured and underlined by origin", async ({ page, edge, problems }) => {
  await open(page, edge.url, "?seed=7&tier=web-gpu&decider=manual&alpha=0.5");
  await expect(page.getByTestId("tier")).toHaveAttribute("data-tier", "web-gpu");
  await loadModel(page);
  await ask(page, burst);
  await done(page);
  expect(await origins(page)).toEqual(["device", "server"]);
  const looks = await page.getByTestId("token").evaluateAll((tokens) =>
    tokens.map((token) => {
      const style = getComputedStyle(token);
      return [token.dataset.origin, style.color, style.textDecorationStyle, style.borderBottomStyle].join(" ");
    }),
  );
  const byOrigin = (origin) => new Set(looks.filter((look) => look.startsWith(origin)).map((look) => look.slice(origin.length)));
  expect(byOrigin("device")).not.toEqual(byOrigin("server"));
  for (let n = 0; n < 4; n += 1) await expect(page.getByTestId(`answer-${n}`)).not.toBeEmpty();
  await expect(page.getByTestId("latency-measured")).toContainText(/\d/);
});

test("the policy decides, and the page says which backend and how fast", async ({ page, edge, problems }) => {
  await open(page, edge.url, "?seed=3");
  await expect(page.getByTestId("policy-backend")).toHaveAttribute("data-backend", "flex");
  await expect(page.getByTestId("policy-backend")).toContainText(/ms/);
  const alpha = Number.parseFloat(await page.getByTestId("decision-alpha").textContent());
  expect(alpha).toBeGreaterThan(0);
  expect(alpha).toBeLessThanOrEqual(100);
  for (const decider of ["oracle", "closed-form", "always-local", "always-offload"])
    await expect(page.getByTestId(`compare-row-${decider}`)).toBeVisible();
});

test("burn-wgpu takes over by a switch, decides the same, and flex comes back", async ({ page, edge, problems }) => {
  await open(page, edge.url, "?seed=3&tier=web-gpu");
  const backend = page.getByTestId("policy-backend");
  await expect(backend).toHaveAttribute("data-backend", "flex");
  const alpha = await page.getByTestId("decision-alpha").textContent();
  const power = await page.getByTestId("decision-power").textContent();
  await page.getByTestId("policy-backend-switch").click();
  // The module is large, and a software adapter compiles its shaders slowly.
  await expect(backend).toHaveAttribute("data-backend", "burn-wgpu", { timeout: 120_000 });
  await expect(backend).toContainText(/burn-wgpu on WebGPU.* ms/);
  await expect(page.getByTestId("decision-alpha")).toHaveText(alpha);
  await expect(page.getByTestId("decision-power")).toHaveText(power);
  await page.getByTestId("policy-backend-switch").click();
  await expect(backend).toHaveAttribute("data-backend", "flex");
});

test("the server answers before the model is here", async ({ page, edge, problems }) => {
  await open(page, edge.url);
  await expect(page.getByTestId("model-state")).toHaveAttribute("data-state", "absent");
  await ask(page, "What is the capital of Kenya?");
  await done(page);
  expect(await origins(page)).toEqual(["server"]);
  await expect(page.getByTestId("answer-0")).toContainText("Nairobi");
});

test("stop ends both sides at once and keeps what was written", async ({ page, edge, problems }) => {
  edge.rule = (request) => (request.url.startsWith("/v1/chat") ? { delayMs: 600 } : undefined);
  await open(page, edge.url);
  await page.getByTestId("mode").selectOption("server-only");
  await ask(page, burst);
  await expect(page.getByTestId("token").first()).toBeVisible();
  await page.getByTestId("stop").click();
  await expect(page.getByTestId("ask")).toBeEnabled();
  await done(page);
  await expect(page.getByTestId("log-row")).toContainText(/stopped/i);
  expect(await page.getByTestId("token").count()).toBeGreaterThan(0);
});

test("an empty prompt is refused with a word of help", async ({ page, edge, problems }) => {
  await open(page, edge.url);
  await page.getByTestId("prompt").fill("   ");
  await page.getByTestId("prompt").press("Enter");
  await expect(page.getByTestId("notice")).toContainText(/question|prompt/i);
  await expect(page.getByTestId("log-row")).toHaveCount(0);
});

test("a suggested burst fills the prompt", async ({ page, edge, problems }) => {
  await open(page, edge.url);
  for (const burst of ["burst-single", "burst-two-hop", "burst-mixed"]) {
    await page.getByTestId(burst).click();
    await expect(page.getByTestId("prompt")).not.toHaveValue("");
  }
});
