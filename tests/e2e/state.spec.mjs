// State, layout, keyboard.
import { ask, done, expect, loadModel, open, savesData, test } from "./harness.mjs";

test("a reload keeps model and state", async ({ page, edge, problems }) => {
  await open(page, edge.url, "?seed=11");
  await loadModel(page);
  await page.getByTestId("users").selectOption("3");
  await page.getByTestId("decider").selectOption("oracle");
  await expect(page).toHaveURL(/decider=oracle/);
  edge.requests.length = 0;
  await page.reload();
  await expect(page.getByTestId("model-state")).toHaveAttribute("data-state", "ready", { timeout: 60_000 });
  expect(edge.requests.filter((request) => request.url.endsWith(".gguf"))).toEqual([]);
  await expect(page.getByTestId("users")).toHaveValue("3");
  await expect(page.getByTestId("decider")).toHaveValue("oracle");
  await expect(page.getByTestId("seed")).toHaveValue("11");
  await expect(page.getByTestId("device-2")).toBeVisible();
});

test("the same seed gives the same world", async ({ page, edge, problems }) => {
  const look = async () => {
    await open(page, edge.url, "?seed=21&users=4");
    await expect(page.getByTestId("device-3")).toBeVisible();
    return page.getByTestId("map").evaluate((map) =>
      [...map.querySelectorAll("[data-testid^=device-]")].map((device) => device.getAttribute("transform")).join(";"),
    );
  };
  const first = await look();
  expect(await look()).toBe(first);
});

test("a slider's consequence is seen at once", async ({ page, edge, problems }) => {
  await open(page, edge.url, "?seed=5");
  const before = await page.getByTestId("latency-modelled").textContent();
  await page.getByTestId("slider-device_hz").fill("40");
  await expect(page.getByTestId("latency-modelled")).not.toHaveText(before);
});

test("a device moves by keyboard", async ({ page, edge, problems }) => {
  await open(page, edge.url, "?seed=5");
  const device = page.getByTestId("device-0");
  const before = await device.getAttribute("transform");
  await device.focus();
  for (let n = 0; n < 5; n += 1) await page.keyboard.press("ArrowRight");
  await expect(device).not.toHaveAttribute("transform", before);
});

test("phone width: one column, nothing sticks out, big enough to touch", async ({ page, edge, problems }) => {
  await page.setViewportSize({ width: 390, height: 844 });
  await savesData(page);
  await open(page, edge.url);
  expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(390);
  const box = await page.getByTestId("prompt").boundingBox();
  expect(box.y).toBeLessThan(844);
  for (const id of ["ask", "burst-single", "load-model"]) {
    const target = await page.getByTestId(id).boundingBox();
    expect(target.height, id).toBeGreaterThanOrEqual(44);
  }
  await ask(page, "What is the capital of Kenya?");
  await done(page);
  await expect(page.getByTestId("answer-0")).toContainText("Nairobi");
});

test("keyboard: slash focuses, Enter asks, the log exports", async ({ page, edge, problems }) => {
  await open(page, edge.url);
  await page.getByTestId("theme").focus();
  await page.keyboard.press("/");
  await expect(page.getByTestId("prompt")).toBeFocused();
  await page.keyboard.type("What is the capital of Peru?");
  await page.keyboard.press("Enter");
  await done(page);
  const [download] = await Promise.all([page.waitForEvent("download"), page.getByTestId("export-csv").click()]);
  const csv = await (await download.createReadStream()).toArray();
  const lines = Buffer.concat(csv).toString().trim().split("\n");
  expect(lines).toHaveLength(2);
  expect(lines[0]).toContain("alpha");
});

test("a recorded run plays before the model is here", async ({ page, edge, problems }) => {
  await savesData(page);
  await open(page, edge.url);
  await expect(page.getByTestId("recorded")).toBeVisible();
  await expect(page.getByTestId("token").first()).toBeVisible();
});
