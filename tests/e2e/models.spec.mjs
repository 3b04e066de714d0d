// The catalogue: a model that the server's owner chose for pages comes by itself; the picker has the others, and a choice stands
// in the link, survives a reload, and can be deleted.
import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { answersAlone, expect, open, startTandem, test } from "./harness.mjs";
import { writeLargeModel } from "./large_model.mjs";

/** A server with a catalogue of its own: one model more, which it has. */
async function withCatalogue(folder, args = []) {
  const stored = path.join(folder, "hub/elsewhere/mine");
  fs.mkdirSync(stored, { recursive: true });
  const file = path.join(stored, "mine.gguf");
  writeLargeModel(file, 1);
  const bytes = fs.readFileSync(file);
  const mine = {
    id: "mine",
    name: "Mine Tiny",
    role: "device",
    family: "Mine",
    tokenizer: "mine",
    parameters: 123_000_000,
    quantisation: "Q8_0",
    file: "mine.gguf",
    url: "https://models.example/mine.gguf",
    bytes: bytes.length,
    sha256: createHash("sha256").update(bytes).digest("hex"),
    licence: { id: "MIT", asks: "Keep the notice.", url: "https://models.example/licence" },
    context_length: 512,
    cache_width: 384,
  };
  const list = path.join(folder, "catalogue.json");
  fs.writeFileSync(list, JSON.stringify({ version: 1, models: [mine] }));
  const tandem = await startTandem(["--catalogue", list, "--hub-cache", path.join(folder, "hub"), ...args]);
  return { ...tandem, file };
}

test("the model that the owner chose for pages comes by itself", async ({ page, problems }, testInfo) => {
  const tandem = await withCatalogue(testInfo.outputPath("set"), ["--device-model", "mine"]);
  await open(page, tandem.url);
  await expect(page.locator("#model-title")).toContainText("Mine Tiny");
  const state = page.getByTestId("model-state");
  await expect(state).toHaveAttribute("data-state", "ready", { timeout: 60_000 });
  await expect(state).toContainText("this server is set up for it");
  await answersAlone(page);
  await tandem.stop();
});

/** How many stored models are remembered as what was wanted, as they are now; with `damage`, their first byte is another one then. */
const verified = (page, damage = false) =>
  page.evaluate(async (damage) => {
    const root = await navigator.storage.getDirectory();
    const [models, marks] = [await root.getDirectoryHandle("models"), await root.getDirectoryHandle("verified")];
    const write = async (handle, bytes) => {
      const stream = await handle.createWritable({ keepExistingData: true });
      await stream.write(bytes);
      await stream.close();
    };
    let count = 0;
    for await (const [name, handle] of models) {
      const file = await handle.getFile();
      const mark = await marks.getFileHandle(name);
      count += (await (await mark.getFile()).text()) === `${file.size} ${file.lastModified}` ? 1 : 0;
      if (!damage) continue;
      await write(handle, new Uint8Array([0]));
      // The profile of a test is in memory, where files do not say when they were written: on a disk the mark would be another.
      await write(mark, "0 0");
    }
    return count;
  }, damage);

test("a choice of the catalogue stands in the link, survives a reload, and can be deleted", async ({ page, problems }, testInfo) => {
  const tandem = await withCatalogue(testInfo.outputPath("set"));
  await open(page, tandem.url);
  const state = page.getByTestId("model-state");
  await expect(state).toHaveAttribute("data-state", "ready", { timeout: 60_000 });
  await page.getByTestId("other-model").click();
  const picker = page.getByTestId("model-picker");
  const options = await picker.locator("option").allTextContents();
  expect(options.some((text) => /Atlas Compact · 461 kB · Apache-2.0 · on this device/.test(text)), options.join("\n")).toBe(true);
  expect(options.some((text) => /SmolLM2 135M Instruct · 98.4 MB · Apache-2.0$/.test(text))).toBe(true);
  expect(options.some((text) => /Llama 3.2 1B Instruct · 808 MB · Llama-3.2$/.test(text))).toBe(true);
  expect(options.some((text) => /8B/.test(text)), "what is for servers is not offered to tabs").toBe(false);
  await picker.selectOption("mine");
  await expect(page.locator("#model-title")).toContainText("Mine Tiny");
  await expect(page.getByTestId("verdict")).toHaveAttribute("data-fits", "true");
  await expect(page.getByTestId("verdict")).toContainText("to download");
  await expect(page).toHaveURL(/#.*model=mine/);
  await page.getByTestId("load-model").click();
  await expect(state).toHaveAttribute("data-state", "ready", { timeout: 60_000 });

  await page.reload();
  await expect(page.locator("#model-title")).toContainText("Mine Tiny");
  await expect(state).toHaveAttribute("data-state", "ready", { timeout: 60_000 });
  // What is stored is hashed once, and once more where somebody has written into it: then it comes anew.
  expect(await verified(page, true)).toBe(2);
  expect(await verified(page)).toBe(0);
  await page.reload();
  await expect(state).toHaveAttribute("data-state", "ready", { timeout: 60_000 });
  expect(await verified(page)).toBe(1);
  await page.getByTestId("other-model").click();
  await expect(picker).toHaveValue("mine");
  await expect(picker.locator("option:checked")).toContainText("on this device");
  await page.getByTestId("delete-model").click();
  await expect(state).toHaveAttribute("data-state", "absent");
  await expect(picker.locator("option:checked")).not.toContainText("on this device");
  await page.reload();
  await expect(state).toHaveAttribute("data-state", "absent");
  await expect(page.getByTestId("load-model")).toBeVisible();
  await tandem.stop();
});
