// The main job: a question is answered by two models, and the page shows who wrote what.
import { ask, done, expect, loadModel, open, origins, savesData, test } from "./harness.mjs";

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

for (const alpha of [0.3, 0.69]) {
  test(`the server writes the planned share of all tokens: ${alpha}`, async ({ page, edge, problems }) => {
    await open(page, edge.url, `?seed=7&decider=manual&alpha=${alpha}`);
    await loadModel(page);
    const countries = ["Kenya", "France", "Japan", "Peru", "Chile", "Norway"];
    const questions = countries.flatMap((country) => [`What is the currency of ${country}?`, `Which continent is ${country} in?`]);
    await ask(page, questions.join("\n"));
    await done(page);
    const told = await page.getByTestId("alpha-done").textContent();
    const [planned, written] = told.match(/\d\.\d+/g).map(Number);
    expect(planned).toBeCloseTo(alpha, 2);
    expect(Math.abs(written - alpha), told).toBeLessThanOrEqual(0.1);
    // What the page counts is what the worker counts, but for tokens without text.
    const counts = await page.getByTestId("token").evaluateAll((tokens) => [
      tokens.filter((token) => token.dataset.origin === "server").length,
      tokens.length,
    ]);
    expect(Math.abs(counts[0] / counts[1] - written), told).toBeLessThanOrEqual(0.05);
  });
}

test("a world is calibrated to the machines at hand, stands in the link, and is forgotten again", async ({ page, edge, problems }) => {
  await open(page, edge.url, "?seed=7");
  await loadModel(page);
  const world = page.getByTestId("world");
  await expect(world).toHaveAttribute("data-calibrated", "false");
  await page.getByTestId("calibrate").click();
  await expect(world).toHaveAttribute("data-calibrated", "true", { timeout: 60_000 });
  await expect(page.getByTestId("notice").first()).toContainText(/Measured: this device .*tok\/s, the server/);
  await expect(page).toHaveURL(/[#&]cal=\d/);
  await ask(page, burst);
  await done(page);
  await page.reload();
  await expect(world).toHaveAttribute("data-calibrated", "true");
  await world.getByRole("button", { name: "The paper’s" }).click();
  await expect(world).toHaveAttribute("data-calibrated", "false");
  await expect(page).not.toHaveURL(/cal=|[#&]size=/);
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
  await savesData(page);
  await open(page, edge.url);
  await expect(page.getByTestId("model-state")).toHaveAttribute("data-state", "absent");
  await ask(page, "What is the capital of Kenya?");
  await done(page);
  expect(await origins(page)).toEqual(["server"]);
  await expect(page.getByTestId("answer-0")).toContainText("Nairobi");
});

test("the small model comes by itself, and the page says so", async ({ page, edge, problems }) => {
  await open(page, edge.url);
  const state = page.getByTestId("model-state");
  await expect(state).toHaveAttribute("data-state", "ready", { timeout: 90_000 });
  await expect(state).toContainText(/loaded it by itself, since it is small \(461 kB\)/);
  await ask(page, burst);
  await done(page);
  await expect(page.getByTestId("pair")).toHaveAttribute("data-fit", "same");
  await expect(page.getByTestId("pair")).toBeHidden();
});

test("a browser that saves data is asked first, and the page says why", async ({ page, edge, problems }) => {
  await savesData(page);
  await open(page, edge.url);
  const state = page.getByTestId("model-state");
  await expect(state).toContainText(/waits to be asked for, since this browser saves data/);
  await expect(state).toHaveAttribute("data-state", "absent");
  expect(edge.requests.filter((request) => request.url.endsWith(".gguf"))).toEqual([]);
  await loadModel(page);
  await expect(state).not.toContainText("by itself");
});

for (const mode of ["local-only", "server-only"]) {
  test(`an answer that is cut says so and goes on when asked to: ${mode}`, async ({ page, edge, problems }) => {
    await open(page, edge.url, "?seed=7&tokens=2");
    await loadModel(page);
    await page.getByTestId("mode").selectOption(mode);
    const question = "What is the currency of the country whose capital is Nairobi?";
    const answer = page.getByTestId("answer-0");
    await ask(page, question);
    await done(page);
    await expect(page.getByTestId("cut")).toContainText(/Cut here/);
    const begun = (await answer.textContent()).trim();
    // The limit is for each piece.
    await page.getByTestId("sampling-max_tokens").evaluate((input) => {
      input.value = "64";
      input.dispatchEvent(new Event("change", { bubbles: true }));
    });
    await page.getByTestId("go-on-0").click();
    await done(page, 2);
    await expect(page.getByTestId("cut")).toHaveCount(0);
    const whole = (await answer.textContent()).trim();
    expect(whole.startsWith(begun) && whole.length > begun.length, `${begun} → ${whole}`).toBe(true);
    // It is what it is without a limit.
    await ask(page, question);
    await done(page, 3);
    await expect(page.getByTestId("cut")).toHaveCount(0);
    await expect(answer).toHaveText(whole);
  });
}

test("the page tells what the Atlas can be asked", async ({ page, edge, problems }) => {
  await open(page, edge.url);
  await page.getByTestId("atlas").click();
  await expect(page.locator(".atlas")).toContainText(/capital.*atomic number.*do not know/s);
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
