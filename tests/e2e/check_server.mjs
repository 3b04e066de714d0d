// A file server for the checks that run in a browser without the page: the module target/engine-check/, the page's files,
// models and policies, the golden answers.
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import { fileURLToPath } from "node:url";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const built = process.env.ENGINE_CHECK ?? path.join(root, "target/engine-check");
const folders = {
  "/models/": path.join(root, "public/models"),
  "/policies/": path.join(root, "public/policies"),
  "/page/": path.join(root, "dist"),
  "/bench/": path.join(root, "tests/bench"),
  // Another engine, for the bench.
  "/wllama/wasm/": path.join(process.env.BENCH_WLLAMA ?? "", "esm/wasm"),
  "/wllama/": path.join(process.env.BENCH_WLLAMA ?? "", "esm"),
  "/": built,
};
// Threads over a shared memory need a page that is isolated from other origins.
const isolated = { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp" };
const types = { ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".json": "application/json" };

/** Starts it. */
export async function serve() {
  const server = http.createServer((request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    if (pathname === "/") return response.writeHead(200, { "content-type": "text/html", ...isolated }).end("<title>engine</title>");
    const [prefix, folder] = Object.entries(folders).find(([prefix]) => pathname.startsWith(prefix));
    // A model of the caller's own, for the bench.
    if (pathname === "/model.gguf" && !process.env.BENCH_GGUF) return response.writeHead(404).end();
    const file = pathname === "/model.gguf" ? process.env.BENCH_GGUF : pathname === "/golden.json" ? path.join(root, "tests/golden/engine.json") : path.join(folder, path.basename(pathname));
    if (!fs.existsSync(file)) return response.writeHead(404).end();
    response.writeHead(200, { ...isolated, "content-type": types[path.extname(file)] ?? "application/octet-stream" });
    fs.createReadStream(file).pipe(response);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}/`, stop: () => server.close() };
}
