// Microseconds of a deployed decision: burn flex in wasm on one thread, network and action map, as the page's worker runs it.
import { test } from "@playwright/test";
import { serve } from "../e2e/check_server.mjs";

test("decisions of the shipped policies", async ({ page }) => {
  const server = await serve();
  try {
    await page.goto(server.url);
    const report = await page.evaluate(async (url) => {
      const { default: init, PolicyChecks } = await import(`${url}engine_check.js`);
      await init();
      const checks = await PolicyChecks.load(url);
      const micros = {};
      for (const id of checks.policies()) {
        await checks.flex_decide(id, 20);
        const samples = [];
        for (let round = 0; round < 15; round += 1) {
          const begun = performance.now();
          const decisions = await checks.flex_decide(id, 20);
          samples.push((1e3 * (performance.now() - begun)) / decisions);
        }
        micros[id] = Math.round(10 * samples.sort((a, b) => a - b)[7]) / 10;
      }
      return micros;
    }, server.url);
    console.log(JSON.stringify({ decision_us: report }, null, 2));
  } finally {
    server.stop();
  }
});
