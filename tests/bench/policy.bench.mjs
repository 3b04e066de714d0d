// Microseconds of a deployed decision: burn flex in wasm on one thread, network and action map, in the page's own worker and
// by that worker's clock; and of the same with the way there and back, for each number of users that is decided for.
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
      const { PolicyWorker } = await import(`${url}bench/policy_worker.mjs`);
      const worker = new PolicyWorker(`${url}page/policy_boot.js#cpu`);
      checks.difference(0, await worker.reply());
      const cases = {};
      for (let n = 0; n < checks.count(); n += 1) (cases[`${checks.policy(n)}, K = ${checks.users(n)}`] ??= []).push(n);
      const rounded = (micros) => Math.round(10 * micros) / 10;
      const out = { decision_us: {}, with_messages_us: {} };
      for (const [id, numbers] of Object.entries(cases)) {
        checks.difference(numbers[0], await worker.ask(checks.load_message(numbers[0])));
        const messages = numbers.map((n) => checks.decide_message(n));
        // The clock has steps of 5 µs: a round's mean is finer than that.
        const round = async () => {
          let inside = 0;
          const begun = performance.now();
          for (let n = 0; n < 200; n += 1) {
            const reply = await worker.ask(messages[n % messages.length]);
            if (!reply.Decided) throw new Error(JSON.stringify(reply));
            inside += reply.Decided.millis;
          }
          return [inside, performance.now() - begun].map((millis) => (1e3 * millis) / 200);
        };
        await round();
        const rounds = [];
        for (let n = 0; n < 15; n += 1) rounds.push(await round());
        const median = (which) => rounds.map((means) => means[which]).sort((a, b) => a - b)[7];
        out.decision_us[id] = rounded(median(0));
        out.with_messages_us[id] = rounded(median(1));
      }
      worker.end();
      return out;
    }, server.url);
    console.log(JSON.stringify(report, null, 2));
  } finally {
    server.stop();
  }
});
