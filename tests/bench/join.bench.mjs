// From the QR code's address to "MLU 7" on a slow phone: cold cache, Lighthouse's slow 4G, the processor throttled. Prints times;
// nothing here can fail on one.
//
// The line is a proxy for TCP, not DevTools' throttling alone: that one slows requests, but neither handshakes nor (in every
// version) WebSockets. Both are measured.
import net from "node:net";
import { expect, test } from "@playwright/test";
import { startTandem } from "../e2e/harness.mjs";

const PHONE = { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true, deviceScaleFactor: 3 };
/** Lighthouse's "slow 4G". */
const LINE = { rttMs: 150, downBps: 1.6e6, upBps: 0.75e6 };
const PROCESSORS = [4, 6];
const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 5);

/** A line to the server: half a round trip each way, a rate that all connections share, a round trip before the first byte. */
function slowLine(port, { rttMs, downBps, upBps }) {
  const lane = (bps) => {
    let free = 0;
    // When a chunk has arrived that is sent now.
    return (bytes) => {
      free = Math.max(free, performance.now()) + (8e3 * bytes) / bps;
      return free + rttMs / 2 - performance.now();
    };
  };
  const [down, up] = [lane(downBps), lane(upBps)];
  const pass = (from, to, lane, opened) => {
    let last = opened;
    from.on("data", (chunk) => {
      // In pieces of a packet or two, so that connections take turns.
      for (let at = 0; at < chunk.length; at += 2800) {
        const part = chunk.subarray(at, at + 2800);
        last = Math.max(last, performance.now() + lane(part.length));
        setTimeout(() => to.writable && to.write(part), last - performance.now());
      }
    });
    from.on("end", () => setTimeout(() => to.end(), Math.max(0, last - performance.now()) + 5));
    from.on("error", () => to.destroy());
  };
  const server = net.createServer((near) => {
    const far = net.connect(port, "127.0.0.1");
    const opened = performance.now() + rttMs;
    pass(near, far, up, opened);
    pass(far, near, down, opened);
    near.on("close", () => far.destroy());
  });
  return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server)));
}

/** Opens the address in a fresh context; milliseconds from there to the number, and what was fetched for it. */
async function join(browser, url, cpu, network) {
  const context = await browser.newContext({ ...PHONE, ignoreHTTPSErrors: true });
  const page = await context.newPage();
  await page.addInitScript(() => {
    const seen = (name) => (window.seen[name] ??= performance.now());
    window.seen = {};
    const Plain = window.WebSocket;
    window.WebSocket = class extends Plain {
      constructor(...args) {
        super(...args);
        seen("socket_asked");
        this.addEventListener("open", () => seen("socket_open"));
      }
    };
    new MutationObserver(() => {
      if (document.querySelector("[data-testid=mlu]")) seen("page");
      if (document.querySelector("[data-testid=mlu][data-mlu]")) seen("mlu");
    }).observe(document, { subtree: true, childList: true, attributes: true });
  });
  const session = await context.newCDPSession(page);
  await session.send("Network.enable");
  if (network) {
    const { rttMs, downBps, upBps } = network;
    await session.send("Network.emulateNetworkConditions", { offline: false, latency: rttMs, downloadThroughput: downBps / 8, uploadThroughput: upBps / 8 });
  }
  let bytes = 0;
  session.on("Network.loadingFinished", ({ encodedDataLength }) => {
    bytes += encodedDataLength;
  });
  await session.send("Emulation.setCPUThrottlingRate", { rate: cpu });
  await page.goto(url);
  await expect(page.getByTestId("mlu")).toHaveText(/^MLU \d+$/, { timeout: 30_000 });
  const seen = await page.evaluate(() => window.seen);
  const files = await page.evaluate((mlu) => performance.getEntriesByType("resource").filter((one) => one.startTime < mlu).map((one) => ({ name: one.name.split("/").at(-1), from: Math.round(one.startTime), to: Math.round(one.responseEnd), bytes: one.encodedBodySize })), seen.mlu);
  const before = bytes;
  await context.close();
  return { ...seen, bytes: before, files };
}

const sorted = (values) => values.toSorted((a, b) => a - b);

for (const lan of [false, true])
  test(`joining over ${lan ? "https, as with --lan" : "http"}`, async ({ browser }) => {
    const server = await startTandem(lan ? ["--lan"] : [], lan ? { listen: "0.0.0.0:0" } : {});
    const own = new URL(server.url.replace("0.0.0.0", "127.0.0.1"));
    const line = await slowLine(Number(own.port), LINE);
    try {
      const setup = await browser.newContext({ ignoreHTTPSErrors: true });
      const made = await setup.request.post(`${own}api/rooms`, { data: {} });
      expect(made.status()).toBe(201);
      const { code } = await made.json();
      const throughLine = new URL(own);
      throughLine.port = line.address().port;
      const ways = [
        ["DevTools' throttling", own, LINE],
        ["a slow line", throughLine, undefined],
      ];
      for (const [name, base, network] of ways)
        for (const cpu of PROCESSORS) {
          const runs = [];
          for (let round = 0; round < ROUNDS; round += 1) runs.push(await join(browser, `${base}join#${code}`, cpu, network));
          const times = (key) => sorted(runs.map((run) => Math.round(run[key])));
          const median = (key) => times(key)[ROUNDS >> 1];
          console.log(
            JSON.stringify({
              way: name,
              scheme: own.protocol,
              ...LINE,
              cpu_slowdown: cpu,
              mlu_ms: median("mlu"),
              slowest_ms: times("mlu").at(-1),
              page_ms: median("page"),
              socket_asked_ms: median("socket_asked"),
              socket_open_ms: median("socket_open"),
              bytes_before: median("bytes"),
            }),
          );
          if (process.env.BENCH_FILES) console.log(JSON.stringify(runs[0].files, null, 1));
        }
    } finally {
      line.close();
      await server.stop();
    }
  });
