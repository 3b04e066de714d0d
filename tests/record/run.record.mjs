// A real burst, answered by the real models on the real page; its events with their times become the recorded run.
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { ask, done, expect, loadModel, open, test } from "../e2e/harness.mjs";

const file = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../../public/reports/recorded-run.json");
const questions = [
  "What is the capital of Kenya?",
  "What is the currency of Japan?",
  "Which continent is Peru in?",
  "What is the currency of the country whose capital is Nairobi?",
];

test("record", async ({ page, tandem }) => {
  await open(page, tandem.url, "?seed=7&record=1");
  await loadModel(page);
  // The first ask compiles pipelines and fills caches; the second one is what a visitor would see.
  await ask(page, questions[0]);
  await done(page, 1);
  const before = await page.evaluate(() => window.__tandem_events.length);
  await ask(page, questions.join("\n"));
  await done(page, 2);
  await page.waitForFunction(
    (from) => window.__tandem_events.slice(from).some((entry) => entry.event.type === "compared"),
    before,
  );
  const recorded = await page.evaluate((from) => window.__tandem_events.slice(from), before);
  const start = recorded[0].t_ms;
  const events = recorded
    .filter((entry) => ["plan", "token", "prompt-done", "done", "compared", "world"].includes(entry.event.type))
    .map((entry) => ({ ...entry, t_ms: Math.round((entry.t_ms - start) * 10) / 10 }));
  expect(events.filter((entry) => entry.event.type === "token").length).toBeGreaterThan(4);
  fs.writeFileSync(file, `${JSON.stringify({ version: 1, prompts: questions, events })}\n`);
});
