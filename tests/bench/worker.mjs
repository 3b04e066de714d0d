// Runs the engine's checks and benches in a worker: threads may only be waited for there.
import init, { EngineBench, run_kernel_checks } from "../engine_check.js";

const ready = init();
let bench = null;

const jobs = {
  checks: ({ base }) => run_kernel_checks(base),
  load: async ({ spec }) => {
    bench?.free();
    bench = await EngineBench.load(JSON.stringify(spec));
    return JSON.parse(bench.about());
  },
  prefill: ({ tokens }) => bench.prefill(tokens),
  decode: ({ tokens }) => bench.decode(tokens),
  begin_rows: ({ rows, tokens }) => bench.begin_rows(rows, tokens),
  step_rows: ({ steps }) => bench.step_rows(steps),
  counters: () => Array.from(bench.counters()),
  memory: () => bench.memory_bytes(),
};

self.onmessage = async ({ data }) => {
  try {
    await ready;
    const begun = performance.now();
    const result = await jobs[data.run](data);
    self.postMessage({ result, seconds: (performance.now() - begun) / 1e3 });
  } catch (error) {
    self.postMessage({ error: String(error?.message ?? error) });
  }
};
