// The view of compact models: the report as tables and pictures, a variant into the tab, one question asked of two.
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { expect, loadModel, open, test } from "./harness.mjs";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const report = JSON.parse(fs.readFileSync(path.join(root, "public/reports/ecld.json"), "utf8"));

test("the view is fetched when it is opened, and shows what the report holds", async ({ page, edge, problems }) => {
  await open(page, edge.url);
  const asked = () => edge.requests.map((request) => request.url).filter((url) => /compact(_bg)?\.(js|wasm)|ecld\.json/.test(url));
  expect(asked(), "nothing of it before").toEqual([]);
  await page.getByTestId("view-compact").click();
  await expect(page.getByTestId("compact-table")).toBeVisible({ timeout: 60_000 });
  expect(asked().length).toBeGreaterThanOrEqual(3);
  await expect(page).toHaveURL(/#view=compact/);
  await expect(page.locator("[data-testid^=compact-row-]")).toHaveCount(report.variants.length);
  const first = report.variants.find((variant) => variant.group === "ecld");
  const row = page.getByTestId(`compact-row-${first.id}`);
  await expect(row).toContainText(first.title);
  await expect(row).toContainText(first.metrics[0].value.toFixed(2));

  const picture = page.locator("figure[data-testid=compact-quality] svg");
  await expect(picture).toBeVisible();
  const before = await picture.innerHTML();
  await page.getByTestId("compact-metric").selectOption({ label: "hallucination" });
  await expect.poll(() => picture.innerHTML()).not.toBe(before);
  if (report.curves.length) await expect(page.locator("figure[data-testid=compact-losses] svg")).toBeVisible();
  await expect(page.getByTestId("compact-cuts")).toContainText(/\d+ of \d+ blocks/);
  if (report.importance) await expect(page.getByTestId("compact-scores").locator("svg").first()).toBeVisible();
  else await expect(page.getByTestId("compact-scores")).toContainText("holds no scores");
});

test("a view that is not there yet is tried again by itself, and at a press", async ({ page, edge, problems }) => {
  let missed = 0;
  await page.route("**/compact.js*", (route) => ((missed += 1) <= 2 ? route.fulfill({ status: 404 }) : route.fallback()));
  await open(page, edge.url);
  await page.getByTestId("view-compact").click();
  await expect(page.getByTestId("compact-waits")).toContainText("may still be building it");
  await page.getByTestId("compact-waits").getByRole("button", { name: "Try again" }).click();
  await expect.poll(() => missed).toBe(2);
  await expect(page.getByTestId("compact-table")).toBeVisible({ timeout: 30_000 });
  expect(missed).toBe(3);
  // That it was missing stands in the console, as it should.
  problems.length = 0;
});

test("one question is asked of two variants, side by side, with their sizes", async ({ page, edge, problems }) => {
  await page.goto(`${edge.url}#compact`);
  await expect(page.getByTestId("compact-model-0")).toBeVisible({ timeout: 60_000 });
  await page.getByTestId("compact-model-0").selectOption("compact");
  await page.getByTestId("compact-model-1").selectOption("full");
  await expect(page.getByTestId("compact-model-1").locator("option:checked")).toContainText(/Atlas Full · 3.76 MB · Q8_0/);
  await page.getByTestId("compact-question").fill("What is the capital of Kenya?");
  await page.getByTestId("compact-question").press("Enter");
  await expect(page.getByTestId("compact-said-0")).toContainText("Nairobi", { timeout: 90_000 });
  await expect(page.getByTestId("compact-said-1")).toContainText("Nairobi", { timeout: 90_000 });
  await expect(page.getByTestId("compact-state-1")).toContainText(/first word after .*ms/);
  await page.getByTestId("compact-model-1").selectOption("compact");
  await page.getByTestId("compact-ask").click();
  await expect(page.getByTestId("compact-told")).toContainText("two different");
});

test("a variant goes into the tab, its size said before, and the conversation stays", async ({ page, edge, problems }) => {
  await page.goto(`${edge.url}#chat&mode=server-only`);
  await loadModel(page);
  await page.getByTestId("chat-box").fill("What is the capital of Kenya?");
  await page.getByTestId("chat-box").press("Enter");
  await expect(page.getByTestId("chat-answer-0")).toContainText("Nairobi", { timeout: 60_000 });
  await page.getByTestId("view-compact").click();
  const take = page.getByTestId("compact-take-full").last();
  await expect(take).toContainText("3.76 MB", { timeout: 60_000 });
  await take.click();
  await expect(page).toHaveURL(/view=chat.*model=full/);
  await expect(page.getByTestId("chat-answer-0"), "what was said is still there").toContainText("Nairobi");
  await expect(page.locator("#model-title")).toContainText("Atlas Full");
  await expect(page.getByTestId("load-model")).toContainText("3.76 MB");
  await loadModel(page);
  await page.getByTestId("chat-mode").selectOption("local-only");
  await page.getByTestId("chat-box").fill("What is the capital of Peru?");
  await page.getByTestId("chat-box").press("Enter");
  await expect(page.getByTestId("chat-answer-1")).toContainText("Lima", { timeout: 60_000 });
});

test("a report that cannot be had is said, and asked for again", async ({ page, edge }) => {
  edge.rule = (request) => (request.url.includes("ecld.json") ? "refuse" : undefined);
  await page.goto(`${edge.url}#compact`);
  await expect(page.getByTestId("compact-problem")).toContainText("could not be had", { timeout: 60_000 });
  edge.rule = () => undefined;
  await page.getByTestId("compact-problem").getByRole("button").click();
  await expect(page.getByTestId("compact-table")).toBeVisible();
});

for (const [name, width, height, scheme] of [["a phone", 360, 740, "dark"], ["a desktop", 1280, 900, "light"]]) {
  test(`the view fits ${name}`, async ({ page, edge, problems }, testInfo) => {
    await page.setViewportSize({ width, height });
    await page.emulateMedia({ colorScheme: scheme });
    await page.goto(`${edge.url}#compact`);
    await expect(page.getByTestId("compact-table")).toBeVisible({ timeout: 60_000 });
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(width);
    await page.screenshot({ path: testInfo.outputPath(`compact-${width}.png`), fullPage: true });
  });
}
