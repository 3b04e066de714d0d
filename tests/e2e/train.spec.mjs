// Training: a run from its form to its policy in the playground.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import AxeBuilder from "@axe-core/playwright";
import { expect, startTandem, test as base } from "./harness.mjs";

/** A server with runs of its own, so that the specs see nobody else's. */
const test = base.extend({
  trainer: async ({}, use) => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tandem-runs-"));
    const tandem = await startTandem(["--runs", folder]);
    await use(tandem);
    await tandem.stop();
    fs.rmSync(folder, { recursive: true, force: true });
  },
});

/** Opens the training view and waits until the server's list is here. */
async function openTraining(page, url) {
  await page.goto(`${url}#train`);
  await expect(page.getByTestId("train")).toBeVisible();
  await expect(page.getByTestId("train-algo").locator("option").first()).toBeAttached();
}

/** A run that is small in everything but its steps: it logs many lines a second, also on a slow machine. */
async function fillForm(page, { users = 2 } = {}) {
  await page.getByTestId("train-users").fill(String(users));
  await page.getByTestId("train-steps").fill("100");
  await page.getByText("All hyper-parameters").click();
  const set = async (key, value) => {
    await page.getByTestId(key).fill(value);
    await page.getByTestId(key).press("Tab");
  };
  await set("train-envs", "4");
  for (const [key, value] of Object.entries({ hidden: "8", rollout_steps: "8", minibatch: "32", epochs: "1", eval_slots: "16", eval_every: "5" })) {
    await set(`hyper-${key}`, value);
  }
}

async function lines(page) {
  return Number(await page.getByTestId("chart-reward").getAttribute("data-lines"));
}

test("a run is started, followed, stopped, used and still there after a reload", async ({ page, trainer, problems }) => {
  await openTraining(page, trainer.url);
  await expect(page.getByTestId("train-off")).toBeHidden();
  await fillForm(page, { users: 3 });
  await page.getByTestId("train-start").click();
  const run = page.getByTestId("run-1");
  await expect(run).toHaveAttribute("data-state", "running");
  await expect.poll(() => lines(page)).toBeGreaterThan(3);
  const before = await lines(page);
  await expect.poll(() => lines(page), "the curve grows").toBeGreaterThan(before);
  await expect(page.getByTestId("chart-reward").locator("svg path").first()).toBeAttached();
  await expect(page.getByTestId("train-legend")).toContainText("optimum");
  await expect(page.getByTestId("train-legend")).toContainText("closed form");

  await expect(page.getByTestId("use-policy-1")).toBeEnabled();
  await page.getByTestId("stop-1").click();
  await expect(run).toHaveAttribute("data-state", "stopped");
  await expect(page.getByTestId("train-news")).toContainText("stopped");

  await page.getByTestId("use-policy-1").click();
  await expect(page.getByTestId("use-policy-1")).toHaveAttribute("aria-pressed", "true");
  await page.getByTestId("view-playground").click();
  await expect(page.getByTestId("users")).toHaveValue("3");
  await expect(page.getByTestId("policy-backend")).toContainText("run 1");
  await page.getByText("Shipped policy again").click();
  await expect(page.getByTestId("policy-backend")).toContainText("ppo-k3");

  await page.getByTestId("view-train").click();
  await expect(page).toHaveURL(/view=train/);
  await page.reload();
  await expect(run).toHaveAttribute("data-state", "stopped");
  await expect.poll(() => lines(page)).toBeGreaterThan(3);
  await page.getByTestId("resume-1").click();
  await expect(run).toHaveAttribute("data-state", "running");
  await page.getByTestId("stop-1").click();
  await expect(run).toHaveAttribute("data-state", "stopped");
  await page.getByTestId("delete-1").click();
  await page.getByTestId("delete-1").click();
  await expect(run).toHaveCount(0);
});

test("runs are compared, exported and drawn on other axes", async ({ page, trainer, problems }) => {
  await openTraining(page, trainer.url);
  await fillForm(page);
  for (const seed of ["1", "2"]) {
    await page.getByTestId("train-seed").fill(seed);
    await page.getByTestId("train-seed").press("Tab");
    await page.getByTestId("train-start").click();
    await expect(page.getByTestId(`run-${seed}`)).toBeVisible();
  }
  await expect(page.getByTestId("run-2")).toHaveAttribute("data-state", "queued");
  await expect.poll(() => lines(page)).toBeGreaterThan(6);
  await page.getByTestId("stop-1").click();
  await expect(page.getByTestId("run-2")).toHaveAttribute("data-state", "running");
  await expect(page.getByTestId("train-legend").getByRole("listitem").filter({ hasText: "Run" })).toHaveCount(2);
  await expect(page.getByTestId("use-policy-2")).toBeEnabled();
  await page.getByTestId("stop-2").click();
  await expect(page.getByTestId("run-2")).toHaveAttribute("data-state", "stopped");

  const drawing = () => page.getByTestId("chart-reward").locator(".plot").innerHTML();
  const plain = await drawing();
  await page.getByTestId("train-smoothing").fill("0.95");
  await expect.poll(drawing).not.toBe(plain);
  const smoothed = await drawing();
  await page.getByTestId("train-log-x").check();
  await expect.poll(drawing).not.toBe(smoothed);
  await page.getByTestId("chart-key-1").selectOption("eval/accuracy");
  await expect(page.getByTestId("chart-b")).toContainText("Mean accuracy");

  const save = async (id) => {
    const [download] = await Promise.all([page.waitForEvent("download"), page.getByTestId(id).click()]);
    return Buffer.concat(await (await download.createReadStream()).toArray());
  };
  const csv = (await save("train-csv")).toString().trim().split("\n");
  expect(csv[0]).toContain("run,algo,users,seed,global_step");
  expect(new Set(csv.slice(1).map((row) => row.split(",")[0]))).toEqual(new Set(["1", "2"]));
  const png = await save("chart-reward-png");
  expect(png.subarray(1, 4).toString()).toBe("PNG");

  await page.getByTestId("show-1").uncheck();
  await expect(page.getByTestId("train-legend").getByRole("listitem").filter({ hasText: "Run" })).toHaveCount(1);
});

test("a wrong request and a server that is gone are told", async ({ page, trainer }) => {
  await openTraining(page, trainer.url);
  await fillForm(page);
  await page.getByTestId("hyper-epochs").fill("1000");
  await page.getByTestId("hyper-epochs").press("Tab");
  await page.getByTestId("train-start").click();
  await expect(page.getByTestId("notice").filter({ hasText: "hyper.epochs" })).toBeVisible();
  await expect(page.getByTestId("run-1")).toHaveCount(0);
  await trainer.stop();
  await expect(page.getByTestId("train-off")).toContainText("cannot be reached");
  await expect(page.getByTestId("train-start")).toBeDisabled();
});

test("a server without training says so", async ({ page }) => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "tandem-runs-"));
  const tandem = await startTandem(["--runs", folder, "--no-training"]);
  await openTraining(page, tandem.url);
  await expect(page.getByTestId("train-off")).toContainText("--no-training");
  await expect(page.getByTestId("train-start")).toBeDisabled();
  await tandem.stop();
  fs.rmSync(folder, { recursive: true, force: true });
});

test("phone width: nothing sticks out, big enough to touch", async ({ page, trainer, problems }) => {
  await page.setViewportSize({ width: 390, height: 844 });
  await openTraining(page, trainer.url);
  await fillForm(page);
  await page.getByTestId("train-start").click();
  await expect.poll(() => lines(page)).toBeGreaterThan(3);
  expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(390);
  for (const id of ["train-start", "stop-1", "use-policy-1", "view-playground"]) {
    const target = await page.getByTestId(id).boundingBox();
    expect(target.height, id).toBeGreaterThanOrEqual(44);
  }
});

test("no accessibility violations, light and dark", async ({ page, trainer, problems }) => {
  await page.emulateMedia({ reducedMotion: "reduce" });
  await openTraining(page, trainer.url);
  await fillForm(page);
  await page.getByTestId("train-start").click();
  await expect.poll(() => lines(page)).toBeGreaterThan(3);
  await page.getByTestId("stop-1").click();
  await expect(page.getByTestId("run-1")).toHaveAttribute("data-state", "stopped");
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [1280, 390]) {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: 900 });
      const found = await new AxeBuilder({ page }).withTags(["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]).analyze();
      const told = found.violations.map((rule) => `${rule.id}: ${rule.nodes.map((node) => node.target.join(" ")).join(", ")}`);
      expect(told, `${colorScheme}, ${width} px`).toEqual([]);
    }
  }
});
