// How long the page takes from its address to a model that is ready: the file of `--gguf`, fetched first and then from the
// browser's storage, on the CPU. The server is on the same machine.
import { loadModel, open, startTandem, test } from "../e2e/harness.mjs";

const file = process.env.BENCH_GGUF;
const seconds = (ms) => Number((ms / 1e3).toFixed(2));

test("a model is loaded", async ({ page }) => {
  test.skip(!file, "only with cargo xtask bench engine --gguf FILE");
  const tandem = await startTandem(["--model", file, "--device-model", file]);
  try {
    for (const from of ["the server", "storage", "storage", "storage"]) {
      const begun = Date.now();
      await open(page, tandem.url, "?record=1&mode=local-only&compare=0&tier=cpu");
      const opened = Date.now();
      await loadModel(page);
      const ready = Date.now();
      // What the worker says, ten times a second: from when it has the file to the first weights, to about the last, to the end.
      const worker = await page.evaluate(() => {
        const states = window.__tandem_events.filter(({ event }) => event.type === "model");
        const loading = states.filter(({ event }) => event.state.state === "loading");
        const end = states.findLast(({ event }) => event.state.state === "ready");
        const [begun, first] = [loading[0].t_ms, (loading.find(({ event }) => event.state.read > 0) ?? end).t_ms];
        return { header_and_tokenizer: first - begun, weights: Math.max(loading.at(-1).t_ms - first, 0), rest: end.t_ms - loading.at(-1).t_ms, memory_bytes: end.event.state.memory_bytes };
      });
      const { memory_bytes, ...parts } = worker;
      const times = Object.fromEntries(Object.entries(parts).map(([name, ms]) => [`${name}_s`, seconds(ms)]));
      console.log(JSON.stringify({ from, page_s: seconds(opened - begun), model_s: seconds(ready - opened), ...times, weights_mb: Math.round(memory_bytes / 1e6) }));
    }
  } finally {
    await tandem.stop();
  }
});
