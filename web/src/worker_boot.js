// Starts the engine worker. Its WebAssembly is compiled asynchronously; what the page sends meanwhile is kept and handed
// over, and a failure to start is told to the page, which could not see it otherwise.
"use strict";
const early = [];
const keep = (event) => early.push(event.data);
self.onmessage = keep;
importScripts("./worker.js");
wasm_bindgen({ module_or_path: "./worker_bg.wasm" }).then(
  () => {
    if (self.onmessage === keep) self.onmessage = null;
    for (const data of early.splice(0)) self.dispatchEvent(new MessageEvent("message", { data }));
  },
  (error) => self.postMessage({ type: "boot-failed", message: String(error) }),
);
