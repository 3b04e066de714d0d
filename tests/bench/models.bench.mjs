// Rates of the engine on a model of the size that people have: random weights of SmolLM2-135M's shape, or a GGUF file of
// the caller's own (BENCH_GGUF). Tokens a second by the wall clock and by the CPU seconds of the whole process tree.
import { expect, test } from "@playwright/test";
import fs from "node:fs";
import { serve } from "../e2e/check_server.mjs";

const shape = [49152, 576, 30, 9, 3, 1536];
const storages = { Q8_0: 8, Q4_0: 2 };
const hertz = 100;

/** Processes below this one, with CPU seconds and resident bytes. */
function tree() {
  const processes = new Map();
  for (const pid of fs.readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      const stat = fs.readFileSync(`/proc/${pid}/stat`, "utf8");
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      processes.set(Number(pid), { parent: Number(fields[1]), cpu: (Number(fields[11]) + Number(fields[12])) / hertz, rss: Number(fields[21]) * 4096 });
    } catch {
      // It ended while we looked.
    }
  }
  const below = (pid) => pid === process.pid || (processes.has(pid) && pid > 1 && below(processes.get(pid).parent));
  const ours = [...processes].filter(([pid]) => pid !== process.pid && below(pid)).map(([, found]) => found);
  return { cpu: ours.reduce((sum, found) => sum + found.cpu, 0), rss: ours.reduce((sum, found) => sum + found.rss, 0) };
}

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
const round = (value, digits = 1) => Number(value.toFixed(digits));

/** What is measured: the caller's file, or random weights stored in two ways. */
function models(url) {
  if (process.env.BENCH_GGUF) return { file: { gguf: `${url}model.gguf` } };
  return Object.fromEntries(Object.entries(storages).map(([name, storage]) => [name, { storage }]));
}

async function measure(page, url, spec, lengths = [16, 128, 512]) {
  await page.goto(url);
  await page.evaluate((url) => {
    const worker = new Worker(`${url}bench/worker.mjs`, { type: "module" });
    window.call = (message) =>
      new Promise((resolve, reject) => {
        worker.onmessage = ({ data }) => (data.error ? reject(new Error(data.error)) : resolve(data));
        worker.onerror = (error) => reject(new Error(error.message ?? "the worker did not start"));
        worker.postMessage(message);
      });
  }, url);
  const call = (message) => page.evaluate((message) => window.call(message), message);
  const timed = async (message) => {
    const before = tree();
    const { seconds } = await call(message);
    return { seconds, cpu: tree().cpu - before.cpu };
  };
  const loaded = await call({ run: "load", spec });
  const report = { ...loaded.result, load_s: round(loaded.seconds), ttft_ms: {}, prefill_tokens_per_s: {}, prefill_tokens_per_cpu_s: {} };
  const slow = spec.backend === "webgpu";
  let peak = 0;
  for (const tokens of slow ? [16] : lengths) {
    // The first pass compiles.
    await call({ run: "prefill", tokens });
    const runs = [];
    for (let i = 0; i < (slow ? 1 : 5); i += 1) runs.push(await timed({ run: "prefill", tokens }));
    const seconds = median(runs.map((run) => run.seconds));
    report.ttft_ms[tokens] = round(1e3 * seconds);
    report.prefill_tokens_per_s[tokens] = round(tokens / seconds);
    report.prefill_tokens_per_cpu_s[tokens] = round((runs.length * tokens) / runs.reduce((sum, run) => sum + run.cpu, 0));
    peak = Math.max(peak, tree().rss);
  }
  await call({ run: "prefill", tokens: slow ? 16 : 128 });
  const before = (await call({ run: "counters" })).result;
  const tokens = slow ? 4 : 64;
  await call({ run: "decode", tokens: slow ? 1 : 16 });
  const runs = [];
  for (let i = 0; i < (slow ? 1 : 3); i += 1) runs.push(await timed({ run: "decode", tokens }));
  const after = (await call({ run: "counters" })).result;
  const decoded = runs.length * tokens + (slow ? 1 : 16);
  const rate = tokens / median(runs.map((run) => run.seconds));
  report.decode_tokens_per_s = round(rate);
  report.decode_tokens_per_cpu_s = round((runs.length * tokens) / runs.reduce((sum, run) => sum + run.cpu, 0));
  report.decode_gb_per_s = round((rate * loaded.result.weight_bytes) / 1e9);
  report.dispatches_per_token = round((after[0] - before[0]) / decoded);
  report.submits_per_token = round((after[1] - before[1]) / decoded);
  // Several sequences, a token each in one pass.
  const rows = 4;
  await call({ run: "begin_rows", rows, tokens: slow ? 4 : 128 });
  await call({ run: "step_rows", steps: slow ? 1 : 4 });
  const steps = slow ? 2 : 32;
  const together = [];
  for (let i = 0; i < (slow ? 1 : 3); i += 1) together.push(await timed({ run: "step_rows", steps }));
  report.four_together_tokens_per_s = round((rows * steps) / median(together.map((run) => run.seconds)));
  report.four_together_tokens_per_cpu_s = round((together.length * rows * steps) / together.reduce((sum, run) => sum + run.cpu, 0));
  report.kernel_memory_mb = round((await call({ run: "memory" })).result / 1e6);
  report.browser_rss_mb = round(Math.max(peak, tree().rss) / 1e6);
  return report;
}

/** wllama (llama.cpp in wasm) on the same file, by its own clock: tokens a second of a prompt that it has not seen, and of what follows. */
async function wllama(page, url, threads) {
  await page.goto(url);
  const report = await page.evaluate(async ({ url, threads }) => {
    const { Wllama } = await import(`${url}wllama/index.js`);
    const engine = new Wllama({ default: `${url}wllama/wasm/wllama.wasm` }, { suppressNativeLog: true });
    const file = await (await fetch(`${url}model.gguf`)).blob();
    const begun = performance.now();
    await engine.loadModel([file], { n_ctx: 1024, n_threads: threads, n_gpu_layers: 0 });
    const load_s = (performance.now() - begun) / 1e3;
    const words = "river stone winter letter garden window market engine silver shadow island bridge copper meadow".split(" ");
    let asked = 0;
    const ask = async (length, max_tokens) => {
      asked += 1;
      const prompt = Array.from({ length }, (_, at) => words[(at * (asked + 2) + asked) % words.length]).join(" ");
      const answer = await engine.createCompletion({ prompt, max_tokens, temperature: 0, ignore_eos: true, cache_prompt: false });
      return answer.timings;
    };
    await ask(16, 4);
    const runs = [];
    for (let i = 0; i < 3; i += 1) runs.push(await ask(100, 64));
    // Half a thousand tokens of a prompt, unless that takes a minute.
    const long = runs[0].prompt_per_second < 15 ? null : await ask(400, 2);
    const used = engine.getNumThreads();
    await engine.exit();
    return { load_s, threads: used, runs, long };
  }, { url, threads });
  return {
    build: `wllama, ${report.threads} thread${report.threads === 1 ? "" : "s"}`,
    load_s: round(report.load_s),
    prompt_tokens: report.runs.map((run) => run.prompt_n),
    prefill_tokens_per_s: { 128: round(median(report.runs.map((run) => run.prompt_per_second))), 512: report.long && round(report.long.prompt_per_second) },
    decode_tokens_per_s: round(median(report.runs.map((run) => run.predicted_per_second))),
    prefill_tokens_per_cpu_s: {},
    ttft_ms: {},
  };
}

const row = (name, r) =>
  [name, r.build, r.prefill_tokens_per_s[128] ?? r.prefill_tokens_per_s[16], r.prefill_tokens_per_cpu_s[128] ?? "", r.decode_tokens_per_s, r.decode_tokens_per_cpu_s, r.four_together_tokens_per_s, r.four_together_tokens_per_cpu_s, r.decode_gb_per_s, r.ttft_ms[128] ?? r.ttft_ms[16], r.browser_rss_mb].join(" | ");
const header = "model | build | prefill tok/s | per CPU-s | decode tok/s | per CPU-s | four together tok/s | per CPU-s | GB/s | TTFT ms | RSS MB";

test("the engine on a larger model", async ({ page }) => {
  const server = await serve();
  const reports = {};
  try {
    for (const [name, model] of Object.entries(models(server.url))) {
      const spec = { base: server.url, shape, storage: 0, threads: 1, backend: "cpu", ...model };
      const beside = async (threads) => {
        if (model.gguf && process.env.BENCH_WLLAMA) reports[`wllama, ${threads}`] = await wllama(page, server.url, threads);
      };
      reports[`${name}, one thread`] = await measure(page, server.url, spec);
      await beside(1);
      reports[`${name}, threads`] = await measure(page, server.url, { ...spec, threads: 8 });
      await beside(2);
      if (process.env.BENCH_GPU) reports[`${name}, WebGPU`] = await measure(page, server.url, { ...spec, backend: "webgpu" });
    }
  } finally {
    server.stop();
  }
  console.log(JSON.stringify(reports, null, 2));
  console.log([header, ...Object.entries(reports).map(([name, r]) => row(name, r))].join("\n"));
  expect(Object.keys(reports).length).toBeGreaterThan(0);
});

// `--busy N`: the caller keeps N cores busy meanwhile. One after the other and several times over, so that what else the
// machine does falls on both alike.
test("two threads beside one on a busy machine", async ({ page }) => {
  const busy = Number(process.env.BENCH_BUSY ?? 0);
  test.skip(busy === 0, "only with cargo xtask bench engine --busy N");
  const server = await serve();
  const reports = {};
  const rows = [];
  try {
    for (const [name, model] of Object.entries(models(server.url))) {
      const spec = { base: server.url, shape, storage: 0, backend: "cpu", ...model };
      const rounds = [];
      for (let i = 0; i < 3; i += 1) {
        const one = await measure(page, server.url, { ...spec, threads: 1 }, [128]);
        const two = await measure(page, server.url, { ...spec, threads: 2 }, [128]);
        rounds.push({ one, two });
      }
      const ratio = (rate) => round(median(rounds.map(({ one, two }) => rate(two) / rate(one))), 2);
      const two_threads_by_one = { prefill: ratio((r) => r.prefill_tokens_per_s[128]), decode: ratio((r) => r.decode_tokens_per_s) };
      reports[name] = { busy_cores: busy, two_threads_by_one, rounds };
      for (const { one, two } of rounds) rows.push(row(`${name}, one thread`, one), row(`${name}, two threads`, two));
      rows.push(`${name}, two threads / one, ${busy} cores busy | median of ${rounds.length} | ${two_threads_by_one.prefill} | | ${two_threads_by_one.decode} | | | | | |`);
    }
  } finally {
    server.stop();
  }
  console.log(JSON.stringify(reports, null, 2));
  console.log([header, ...rows].join("\n"));
  expect(rows.length).toBeGreaterThan(0);
});
