// Tokens a second of both tiers on the page as it ships, in headless Chromium. Without a GPU, WebGPU is SwiftShader on
// the CPU: its rates say nothing about a GPU.
import { ask, done, loadModel, open, test } from "../e2e/harness.mjs";

// Answers of many tokens, so that there is something to time.
const prompt = [
  "Which languages are spoken in Switzerland?",
  "Which countries does France border?",
  "What is the currency of the home country of Jorge Luis Borges?",
  "What is the capital of the home country of Nikola Tesla?",
  "What are the famous works of William Shakespeare?",
  "Which languages are spoken in the country whose capital is Nairobi?",
].join("\n");
const rounds = 5;

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

for (const tier of ["web-gpu", "cpu"])
  test(`engine on ${tier}`, async ({ page, tandem }) => {
    // No comparison with the server's answers: it would compute beside the engine that is timed.
    await open(page, tandem.url, `?seed=7&record=1&mode=local-only&compare=0&tier=${tier}`);
    await loadModel(page);
    const records = [];
    for (let round = 0; round <= rounds; round += 1) {
      await ask(page, prompt);
      await done(page, round + 1);
      const record = await page.evaluate(
        () => window.__tandem_events.findLast((entry) => entry.event.type === "done").event.record,
      );
      // The first round compiles pipelines.
      if (round > 0) records.push(record);
    }
    const report = {
      tier: await page.getByTestId("tier").getAttribute("data-tier"),
      device: await page.getByTestId("tier").textContent(),
      rounds,
      tokens: median(records.map((record) => record.device_tokens)),
      decode_tokens_per_s: median(records.map((record) => record.device_tokens_per_s ?? 0)),
      ttft_s: median(records.map((record) => record.device_ttft_s ?? 0)),
    };
    console.log(JSON.stringify(report, null, 2));
  });
