// Checks in Chromium of what computes: the engine's kernels on the browser's WebGPU (SwiftShader without a GPU) and its
// wasm CPU backend against the f32 oracle, the shipped models against the answers that the same engine wrote natively,
// and both policy backends against the decisions that the server computed.
//
// Needs target/engine-check/ with the module, and dist/: `cargo xtask test` builds both.
import { expect, test } from "@playwright/test";
import { serve } from "./check_server.mjs";

test("the engine computes in the browser what it computes natively", async ({ page }) => {
  test.setTimeout(600_000);
  const server = await serve();
  try {
    await page.goto(server.url);
    const text = await page.evaluate(async (url) => {
      const engine = await import(`${url}engine_check.js`);
      await engine.default();
      return engine.run_engine_checks(url);
    }, server.url);
    const report = JSON.parse(text);
    console.log(`adapter: ${report.adapter}${report.software ? " (software)" : ""}`);
    for (const check of report.checks) console.log(`${check.passed ? "ok    " : "FAILED"} ${check.name}: ${check.detail}`);
    // Each model on the GPU and in two forms on the CPU, and the answers of what ships; on a real GPU more models.
    expect(report.checks.length).toBeGreaterThanOrEqual(report.software ? 16 : 34);
    const packs = await page.evaluate(() => navigator.gpu.wgslLanguageFeatures.has("packed_4x8_integer_dot_product"));
    expect(report.checks.some((check) => check.name.includes("packed 4x8"))).toBe(packs);
    expect(report.checks.filter((check) => !check.passed)).toEqual([]);
  } finally {
    server.stop();
  }
});

test("every build of the CPU kernels computes the same", async ({ page }) => {
  test.setTimeout(300_000);
  const server = await serve();
  try {
    await page.goto(server.url);
    const checks = await page.evaluate(async (url) => {
      const worker = new Worker(`${url}bench/worker.mjs`, { type: "module" });
      const answer = await new Promise((resolve, reject) => {
        worker.onmessage = (message) => resolve(message.data);
        worker.onerror = (error) => reject(new Error(error.message ?? "the worker did not start"));
        worker.postMessage({ run: "checks", base: url });
      });
      worker.terminate();
      if (answer.error) throw new Error(answer.error);
      return JSON.parse(answer.result);
    }, server.url);
    for (const check of checks) console.log(`${check.passed ? "ok    " : "FAILED"} ${check.name}: ${check.detail}`);
    // Chromium has relaxed SIMD, and the page is isolated: with two cores that makes four builds.
    expect(new Set(checks.map((check) => check.name.split(":")[0])).size).toBeGreaterThanOrEqual(2);
    expect(checks.some((check) => check.name.includes("relaxed"))).toBe(true);
    expect(checks.filter((check) => !check.passed)).toEqual([]);
  } finally {
    server.stop();
  }
});

test("both policy backends decide in the browser as the server does", async ({ page }) => {
  test.setTimeout(300_000);
  const server = await serve();
  try {
    await page.goto(server.url);
    const report = await page.evaluate(async (url) => {
      const { default: init, PolicyChecks } = await import(`${url}engine_check.js`);
      await init();
      const checks = await PolicyChecks.load(url);
      const { PolicyWorker } = await import(`${url}bench/policy_worker.mjs`);
      const largest = {};
      for (const backend of ["cpu", "gpu"]) {
        const worker = new PolicyWorker(`${url}page/policy_boot.js#${backend}`);
        checks.difference(0, await worker.reply());
        largest[backend] = 0;
        for (let n = 0; n < checks.count(); n += 1) {
          checks.difference(n, await worker.ask(checks.load_message(n)));
          largest[backend] = Math.max(largest[backend], checks.difference(n, await worker.ask(checks.decide_message(n))));
        }
        worker.end();
      }
      return { cases: checks.count(), flex: largest.cpu, wgpu: largest.gpu };
    }, server.url);
    console.log(`policies: ${report.cases} decisions; largest difference: flex ${report.flex}, wgpu ${report.wgpu}`);
    expect(report.cases).toBeGreaterThanOrEqual(5);
    expect(report.flex).toBeLessThanOrEqual(1e-4);
    expect(report.wgpu).toBeLessThanOrEqual(1e-4);
  } finally {
    server.stop();
  }
});
