// What every spec needs: the real binary on a port of its own, a proxy that can misbehave in front of it, and the page.
import { spawn } from "node:child_process";
import fs from "node:fs";
import http from "node:http";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { test as base, expect } from "@playwright/test";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");

/** Flags for headless Chromium; without a GPU, WebGPU runs on SwiftShader. */
export function chromiumArgs({ webgpu = true } = {}) {
  const flags = [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ];
  const gpu = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"];
  return webgpu ? [...flags, ...gpu] : [...flags, "--disable-gpu", "--disable-features=WebGPU"];
}

/** Starts `tandem serve`, on a free port unless one is named, and waits for its ready line. */
export async function startTandem(args = [], { listen = "127.0.0.1:0" } = {}) {
  const program = process.env.TANDEM ?? path.join(root, "target/debug/tandem");
  // Runs, rooms and all else of its own: never those of whoever starts the tests.
  const data = args.includes("--data") ? undefined : fs.mkdtempSync(path.join(os.tmpdir(), "tandem-data-"));
  if (data) args = [...args, "--data", data];
  const child = spawn(program, ["serve", "--listen", listen, "--page", path.join(root, "dist"), "--public", path.join(root, "public"), ...args], {
    cwd: root,
    stdio: ["ignore", "pipe", "pipe"],
  });
  if (data) child.on("exit", () => fs.rmSync(data, { recursive: true, force: true }));
  let log = "";
  const url = await new Promise((resolve, reject) => {
    const read = (chunk) => {
      log += chunk;
      const ready = log.match(/Tandem is ready at (https?:\/\/[\d.:]+\/)/);
      if (ready) resolve(ready[1]);
    };
    child.stdout.on("data", read);
    child.stderr.on("data", read);
    child.on("error", (error) => reject(new Error(`cannot start ${program}: ${error.message}`)));
    child.on("exit", (code) => reject(new Error(`tandem ended with ${code} before it was ready:\n${log}`)));
  });
  return {
    url,
    log: () => log,
    stop: () =>
      new Promise((resolve) => {
        if (child.exitCode !== null) return resolve(child.exitCode);
        child.on("exit", resolve);
        child.kill("SIGINT");
      }),
    kill: () => child.kill("SIGKILL"),
  };
}

/**
 * A proxy in front of the server, so that a spec can break the connection where it likes.
 * `rule(request)` returns nothing (pass on), "refuse", "missing" (a 404), or `{ cutAfterBytes, delayMs }` for the response body.
 */
export async function startProxy(target) {
  const proxy = { rule: () => undefined, down: false, requests: [] };
  const server = http.createServer((request, response) => {
    proxy.requests.push({ method: request.method, url: request.url, range: request.headers.range });
    if (proxy.down) return request.socket.destroy();
    const rule = proxy.rule(request) ?? {};
    if (rule === "refuse") return request.socket.destroy();
    if (rule === "missing") return response.writeHead(404).end();
    const to = new URL(request.url, target);
    // The name that the browser asked for goes on: the server compares it with the page's origin.
    const onward = http.request(to, { method: request.method, headers: request.headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      pass(answer, response, rule, proxy).catch(() => response.destroy());
    });
    onward.on("error", () => response.destroy());
    response.on("close", () => onward.destroy());
    request.pipe(onward);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  proxy.url = `http://127.0.0.1:${server.address().port}/`;
  proxy.goDown = () => {
    proxy.down = true;
    server.closeAllConnections();
  };
  proxy.comeBack = () => {
    proxy.down = false;
  };
  proxy.stop = () => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  };
  return proxy;
}

async function pass(from, to, { cutAfterBytes = Infinity, delayMs = 0, onChunk }, proxy) {
  let sent = 0;
  for await (const chunk of from) {
    if (delayMs) await new Promise((resolve) => setTimeout(resolve, delayMs));
    if (proxy.down) return to.destroy();
    const part = chunk.subarray(0, Math.max(0, cutAfterBytes - sent));
    if (part.length) to.write(part);
    sent += part.length;
    onChunk?.(sent);
    if (sent >= cutAfterBytes) {
      // What was written has to leave this process first, and to reach the page before the error does.
      await new Promise((resolve) => to.write("", resolve));
      await new Promise((resolve) => setTimeout(resolve, 500));
      return to.destroy();
    }
  }
  to.end();
}

/** One server for the whole worker process; one proxy a test. */
export const test = base.extend({
  tandem: [
    async ({}, use) => {
      const tandem = await startTandem();
      await use(tandem);
      await tandem.stop();
    },
    { scope: "worker" },
  ],
  edge: async ({ tandem }, use) => {
    const proxy = await startProxy(tandem.url);
    await use(proxy);
    await proxy.stop();
  },
  /** Errors that the page let through to the console; a spec that expects some empties the list. */
  problems: async ({ page }, use) => {
    const problems = [];
    page.on("pageerror", (error) => problems.push(`uncaught: ${error.message}`));
    page.on("console", (message) => {
      if (message.type() === "error") problems.push(message.text());
    });
    await use(problems);
    expect(problems, "errors in the page's console").toEqual([]);
  },
});

export { expect };

/** Opens the page and waits until the worker is up. */
export async function open(page, url, query = "") {
  await page.goto(url + query);
  await expect(page.getByTestId("prompt")).toBeVisible();
  await expect(page.getByTestId("tier")).toHaveAttribute("data-tier", /web-gpu|cpu|server-only/);
}

/** Lets the page wait with the model until it is asked for, as it does on a link that is paid for by what goes over it. */
export async function savesData(page) {
  await page.addInitScript(() => Object.defineProperty(Navigator.prototype, "connection", { get: () => ({ saveData: true }) }));
}

/** Loads the chosen model, where the page has not done so by itself, and waits until it can answer. */
export async function loadModel(page) {
  const state = page.getByTestId("model-state");
  // A model that comes by itself is on its way before the page has said a word about it. Nothing may go on looking for the
  // button afterwards: the next model's would be pressed.
  const waits = page.getByTestId("load-model");
  const until = Date.now() + 5_000;
  while (Date.now() < until && (await state.getAttribute("data-state")) !== "ready") {
    if (await waits.isVisible()) {
      await waits.click({ timeout: 2_000 }).catch(() => undefined);
      break;
    }
    await page.waitForTimeout(50);
  }
  await expect(state).toHaveAttribute("data-state", "ready", { timeout: 90_000 });
}

/** Types a prompt (or several, one a line) and asks. */
export async function ask(page, text) {
  await page.getByTestId("prompt").fill(text);
  await page.getByTestId("ask").click();
}

/** Waits until an ask is over: its row is in the log. */
export async function done(page, rows = 1) {
  await expect(page.getByTestId("log-row")).toHaveCount(rows, { timeout: 90_000 });
}

/** Origins of the tokens on the page, in order, without repeats. */
export function origins(page) {
  return page
    .getByTestId("token")
    .evaluateAll((tokens) => [...new Set(tokens.map((token) => token.dataset.origin))].sort());
}

/** Names a model by its address, as a person does. */
export async function look(page, address) {
  const other = page.getByTestId("other-model");
  if (!(await page.getByTestId("model-address").isVisible())) await other.click();
  await page.getByTestId("model-address").fill(address);
  await page.getByTestId("model-inspect").click();
}

/** Asks this device alone and waits for the answer, which is the log's row of this number. */
export async function answersAlone(page, rows = 1) {
  await page.getByTestId("mode").selectOption("local-only");
  await ask(page, "What is the capital of Kenya?");
  await done(page, rows);
  expect(await origins(page)).toEqual(["device"]);
}

/** Lets a spec speak with the page's engine worker: `window.engine(command)` sends, `window.heard` are the events. */
export async function listen(page) {
  await page.addInitScript(() => {
    const Worker = window.Worker;
    window.heard = [];
    window.Worker = class extends Worker {
      constructor(...args) {
        super(...args);
        window.engine = (command) => this.postMessage(JSON.stringify(command));
        this.addEventListener("message", ({ data }) => typeof data === "string" && window.heard.push(JSON.parse(data)));
      }
    };
  });
}

/** Begins to load the model that is chosen, presses Cancel at its first progress, and waits until the load is over. The page
 * has to be listened to. All of it may happen between two looks at the page: what the page was told counts. */
export async function cancelAtFirstProgress(page) {
  await page.evaluate(() => {
    const look = setInterval(() => {
      if (!window.heard.some(({ type, state }) => type === "model" && state.state === "loading" && state.read > 0)) return;
      clearInterval(look);
      document.querySelector("[data-testid=cancel-load]").click();
    }, 1);
  });
  await page.getByTestId("load-model").click();
  await page.waitForFunction(() => {
    const states = window.heard.filter(({ type }) => type === "model").map(({ state }) => state.state);
    const begun = states.indexOf("loading");
    return begun >= 0 && states.indexOf("absent", begun) > begun;
  });
  await expect(page.getByTestId("model-state")).toHaveAttribute("data-state", "absent");
}

/** Loads the model that is chosen; returns the answer to a question. */
export async function answerOf(page) {
  await expect(page.getByTestId("verdict")).toHaveAttribute("data-fits", "true");
  await page.getByTestId("load-model").click();
  await expect(page.getByTestId("model-state")).toHaveAttribute("data-state", "ready", { timeout: 60_000 });
  await answersAlone(page);
  return (await page.getByTestId("token").allTextContents()).join("");
}

/** Drops files, `[name, bytes]` each, onto the page. */
export async function drop(page, files) {
  const transfer = await page.evaluateHandle((files) => {
    const data = new DataTransfer();
    for (const [name, bytes] of files) data.items.add(new File([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))], name));
    return data;
  }, files.map(([name, bytes]) => [name, Buffer.from(bytes).toString("base64")]));
  await page.dispatchEvent("body", "drop", { dataTransfer: transfer });
}
