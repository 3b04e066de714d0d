// The page, the real server and a real Chromium with its software WebGPU adapter (SwiftShader).
import { defineConfig } from "@playwright/test";
import { chromiumArgs } from "./e2e/harness.mjs";

export default defineConfig({
  testDir: "e2e",
  // Two cores: two pages with a WebGPU adapter in software would only slow each other down.
  workers: 1,
  // A machine that stalls in the middle of a timed scene is no bug of the page; what needed a second try is listed as flaky,
  // by `cargo xtask test` too, and is to be mended.
  retries: 1,
  timeout: 180_000,
  expect: { timeout: 30_000 },
  reporter: [["list"], ["json", { outputFile: "test-results/report.json" }]],
  use: {
    browserName: "chromium",
    launchOptions: { executablePath: process.env.CHROMIUM, args: chromiumArgs() },
    viewport: { width: 1280, height: 900 },
    screenshot: "only-on-failure",
    trace: "retain-on-failure",
  },
});
