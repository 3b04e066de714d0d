// Starts one of the policy's workers: at `#gpu` the one on WebGPU, otherwise the one on the CPU. That a module does not start
// is told to the engine worker, which could not see it otherwise, in the form of a module's own first word.
"use strict";
const name = self.location.hash === "#gpu" ? "policy_gpu" : "policy_cpu";
importScripts(`./${name}.js`);
wasm_bindgen({ module_or_path: `./${name}_bg.wasm` }).catch((error) => self.postMessage({ Up: { problem: String(error) } }));
