// A room: two phones and a presenter in contexts of their own, the real server, which is killed in the middle.
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { expect, startTandem, test } from "./harness.mjs";

const PHONE = { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true };
const SCREEN = { viewport: { width: 1920, height: 1080 } };

function freePort() {
  return new Promise((resolve) => {
    const probe = net.createServer().listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

/** A server that comes back under the same address with what it has kept. */
async function keeper() {
  const data = fs.mkdtempSync(path.join(os.tmpdir(), "tandem-rooms-"));
  const listen = `127.0.0.1:${await freePort()}`;
  const start = () => startTandem(["--data", data, "--runs", path.join(data, "runs")], { listen });
  let tandem = await start();
  return {
    url: tandem.url,
    async killAndRestart(pause) {
      tandem.kill();
      await pause?.();
      tandem = await start();
    },
    async stop() {
      await tandem.stop();
      fs.rmSync(data, { recursive: true, force: true });
    },
  };
}

async function openRoom(browser, url, problems) {
  const presenter = await (await browser.newContext({ ...SCREEN, acceptDownloads: true })).newPage();
  watch(presenter, problems);
  await presenter.goto(`${url}room.html`);
  await presenter.getByTestId("open-room").click();
  await expect(presenter.getByTestId("connection")).toHaveAttribute("data-status", "open");
  const code = (await presenter.getByTestId("code").textContent()).replace(" ", "");
  expect(code).toMatch(/^[2-9B-DF-HJ-NP-TV-Z]{6}$/);
  return { presenter, code };
}

function watch(page, problems) {
  page.on("pageerror", (error) => problems.push(`uncaught: ${error.message}`));
}

/** What a phone has and headless Chromium has not: a battery, a screen that can be kept on, a motor. */
async function phoneContext(browser) {
  const context = await browser.newContext(PHONE);
  await context.addInitScript(() => {
    window.battery = { level: 0.15 };
    window.vibrated = [];
    const has = (name, value) => Object.defineProperty(Navigator.prototype, name, { configurable: true, value });
    has("getBattery", async () => window.battery);
    has("wakeLock", { request: async (kind) => ({ kind }) });
    has("vibrate", (ms) => Boolean(window.vibrated.push(ms)));
  });
  return context;
}

/** Joins; the phone's number, and how long that took. */
async function join(context, url, code, problems) {
  const page = await context.newPage();
  watch(page, problems);
  const began = Date.now();
  await page.goto(`${url}join.html#${code}`);
  await expect(page.getByTestId("mlu")).toHaveText(/^MLU \d+$/);
  return { page, mlu: await page.getByTestId("mlu").getAttribute("data-mlu"), seconds: (Date.now() - began) / 1000 };
}

const number = async (page, id) => Number((await page.getByTestId(id).textContent()).replace(/\D/g, ""));
const COUNTS = ["answers", "device-tokens", "server-tokens"];
const counts = async (page) => Promise.all(COUNTS.map((id) => number(page, id)));
const sum = (...all) => COUNTS.map((_, at) => all.reduce((total, one) => total + one[at], 0));

async function presenterSays(presenter, expected) {
  // Among the figures: the list of a round's answers stands elsewhere.
  await expect.poll(() => counts(presenter.locator(".numbers")), { timeout: 20_000 }).toEqual(expected);
}

/** Starts a round with one question for all. */
async function round(presenter, question) {
  await presenter.getByTestId("question-set").selectOption("typed");
  await presenter.getByTestId("round-question").fill(question);
  await presenter.getByTestId("start-round").click();
}

const answered = (page, text) =>
  Promise.all([
    expect(page.getByTestId("answer")).toHaveAttribute("data-outcome", "whole", { timeout: 60_000 }),
    expect(page.getByTestId("answer")).toContainText(text),
  ]);

test("two phones and a presenter: asking at once, coming back as oneself, a server that is killed in a round", async ({ browser }) => {
  test.setTimeout(300_000);
  const problems = [];
  const server = await keeper();
  const { presenter, code } = await openRoom(browser, server.url, problems);
  const contexts = [await phoneContext(browser), await phoneContext(browser)];
  const phones = [];
  for (const context of contexts) phones.push(await join(context, server.url, code, problems));
  expect(phones.map((phone) => phone.mlu)).toEqual(["1", "2"]);
  for (const phone of phones) expect(phone.seconds, "from the address to a seat").toBeLessThan(3);

  // One takes part without a model, one runs it.
  let [one, two] = phones.map((phone) => phone.page);
  await expect(one.getByTestId("verdict")).toContainText(/MB to fetch/);
  await expect(one.getByTestId("choice")).toContainText("battery is at 15 %");
  await expect(one.getByTestId("counts")).toContainText("The screen stays on.");
  await one.getByTestId("part-server").click();
  await two.getByTestId("part-model").click();
  await expect(two.getByTestId("model-state")).toHaveAttribute("data-state", "ready", { timeout: 90_000 });
  await expect(presenter.getByTestId("active")).toHaveText("2");
  for (const phone of [one, two]) {
    await expect(phone.getByTestId("why")).toHaveText(/\.$/);
    const last = await phone.getByTestId("decision").locator(".dial").last().boundingBox();
    expect(last.x + last.width, "what was decided fits the screen").toBeLessThanOrEqual(PHONE.viewport.width);
  }
  await expect(one.getByTestId("decision")).toHaveAttribute("data-alpha", "1.0000");

  // Both ask at once.
  await round(presenter, "What is the capital of Kenya?");
  await Promise.all([one, two].map((phone) => answered(phone, "Kenya")));
  await expect(one.getByTestId("answer-text")).toContainText("Nairobi");
  expect(await one.evaluate(() => window.vibrated.length), "a nudge that is felt").toBe(1);
  await expect(presenter.getByTestId("round")).toContainText("2 of 2 answered");
  await presenterSays(presenter, sum(await counts(one), await counts(two)));
  expect((await counts(one))[1], "a phone without a model writes nothing").toBe(0);

  // One of its own, of which the phone measures how near it is to the full model's.
  await expect(presenter.getByTestId("slider-gamma")).toBeHidden();
  await presenter.getByTestId("measure").check();
  await expect(presenter.getByTestId("slider-gamma")).toBeVisible();
  await presenter.getByTestId("slider-gamma").fill("0.8");
  await expect(presenter.getByTestId("measured-accuracy")).toHaveText("N/A");
  await two.getByTestId("question").fill("What is the capital of Peru?");
  await two.getByTestId("ask").click();
  await answered(two, "Peru");
  await expect(two.getByTestId("answer")).toContainText(/similarity [01]\.\d+, unsupported \d+ %/);
  const [, similarity] = (await two.getByTestId("answer").textContent()).match(/similarity ([01]\.\d+)/);
  await expect(presenter.getByTestId("measured-accuracy"), "of one answer so far").toHaveText(similarity);
  // What the server writes alone is its own reference, and the screen says so.
  await one.getByTestId("question").fill("What is the capital of Chad?");
  await one.getByTestId("ask").click();
  await answered(one, "Chad");
  await expect(presenter.getByTestId("own-references")).toContainText(/measured answers? (was|were) written by the server alone/);
  await presenter.getByTestId("measure").uncheck();
  await presenterSays(presenter, sum(await counts(one), await counts(two)));

  // What the phones measure of themselves, slot by slot, as the presenter sees it.
  await presenter.keyboard.press("m");
  const member = (mlu) => presenter.locator(`[data-testid=person][data-mlu='${mlu}']`);
  await expect(member(2)).toContainText("15 %");
  await two.evaluate(() => (window.battery.level = 0.9));
  await expect(member(2)).toContainText("90 %");
  await expect(member(2)).toContainText("model");
  await expect(member(1)).toContainText("server only");
  await presenter.keyboard.press("Escape");

  // A set of questions: each phone has its own.
  await presenter.getByTestId("question-set").selectOption({ index: 0 });
  await presenter.getByTestId("start-round").click();
  await expect(presenter.getByTestId("round")).toContainText("2 of 2 answered", { timeout: 60_000 });
  const asked = await presenter.getByTestId("answers").locator("li .muted").allTextContents();
  expect(new Set(asked).size, "two questions of the set").toBe(2);

  // One is killed: its seat is kept, and it comes back as itself.
  const before = await counts(one);
  await one.close();
  await expect(presenter.getByTestId("active")).toHaveText("1");
  const again = await join(contexts[0], server.url, code, problems);
  expect(again.mlu).toBe("1");
  one = again.page;
  await expect(one.getByTestId("choice"), "it is not asked again how it takes part").toHaveCount(0);
  await expect(presenter.getByTestId("active")).toHaveText("2");

  // The server is killed in the middle of a round, and everybody goes on: the round too.
  await presenter.getByTestId("question-set").selectOption("own");
  await presenter.getByTestId("start-round").click();
  for (const page of [one, two]) await expect(page.getByTestId("nudge")).toBeVisible();
  // What the server keeps it writes with the slots.
  const slot = async () => Number((await presenter.locator(".bar-people").textContent()).match(/slot (\d+)/)[1]);
  const begun = await slot();
  await expect.poll(slot).toBeGreaterThan(begun + 2);
  await server.killAndRestart(async () => {
    for (const page of [one, two, presenter]) await expect(page.getByTestId("trouble")).toContainText(/cut|reached/);
  });
  for (const page of [one, two, presenter]) {
    await expect(page.getByTestId("connection")).toHaveAttribute("data-status", "open", { timeout: 30_000 });
  }
  expect(await one.getByTestId("mlu").textContent()).toBe("MLU 1");
  expect(await two.getByTestId("mlu").textContent()).toBe("MLU 2");
  await expect(presenter.getByTestId("active")).toHaveText("2", { timeout: 20_000 });
  for (const page of [one, two]) {
    await page.getByTestId("question").fill("What is the capital of Norway?");
    await page.getByTestId("ask").click();
  }
  await Promise.all([one, two].map((phone) => answered(phone, "Norway")));
  await expect(presenter.getByTestId("round")).toContainText("Round 3 runs: 2 of 2 answered");
  await round(presenter, "What is the capital of France?");
  await Promise.all([one, two].map((phone) => answered(phone, "France")));
  await expect(presenter.getByTestId("round")).toContainText("2 of 2 answered");
  await presenterSays(presenter, sum(before, await counts(one), await counts(two)));

  // A presenter who reloads is still the presenter.
  await presenter.reload();
  await expect(presenter.getByTestId("active")).toHaveText("2");
  await presenter.getByTestId("lock").click();
  await expect(presenter.getByTestId("lock")).toHaveAttribute("aria-pressed", "true");
  const late = await (await browser.newContext(PHONE)).newPage();
  await late.goto(`${server.url}join.html#${code}`);
  await expect(late.getByTestId("trouble")).toContainText("locked");

  expect(problems).toEqual([]);
  await server.stop();
});

test("--lan: the code's address over TLS, for a phone that does not know the certificate", async ({ browser }) => {
  const problems = [];
  const server = await startTandem(["--lan"], { listen: "0.0.0.0:0" });
  // The address for others is the one in the QR code; a machine without a network has only its own.
  const url = server.log().match(/or (https:\/\/[\d.]+:\d+\/)/)?.[1] ?? server.url;
  expect(url).toMatch(/^https:/);
  const known = await (await browser.newContext(PHONE)).newPage();
  await expect(known.goto(url), "nobody vouches for the certificate").rejects.toThrow(/ERR_CERT/);
  const trusting = { ...PHONE, ignoreHTTPSErrors: true };
  const presenter = await (await browser.newContext({ ...SCREEN, ignoreHTTPSErrors: true })).newPage();
  watch(presenter, problems);
  await presenter.goto(`${url}room.html`);
  await presenter.getByTestId("open-room").click();
  await expect(presenter.getByTestId("connection")).toHaveAttribute("data-status", "open");
  const code = (await presenter.getByTestId("code").textContent()).replace(" ", "");
  const { page, mlu } = await join(await browser.newContext(trusting), url, code, problems);
  expect(mlu).toBe("1");
  expect(await page.evaluate(() => window.isSecureContext), "WebGPU and wake locks need that").toBe(true);
  await page.getByTestId("part-server").click();
  await page.getByTestId("question").fill("What is the capital of Peru?");
  await page.getByTestId("ask").click();
  await answered(page, "Lima");
  await expect(presenter.locator(".numbers").getByTestId("answers")).toHaveText("1");
  expect(problems).toEqual([]);
  await server.stop();
});

test("a rehearsal, a comparison, an export, and the export played again", async ({ browser }) => {
  const problems = [];
  const server = await keeper();
  const { presenter, code } = await openRoom(browser, server.url, problems);
  await presenter.getByTestId("slot-period").selectOption("0.2");
  await presenter.getByTestId("rehearse-count").fill("14");
  await presenter.getByTestId("rehearse-count").blur();
  await presenter.getByTestId("rehearse").click();
  await expect(presenter.getByTestId("active")).toHaveText("14");
  // More than a cell holds: two tiles, every MLU in one of them.
  await expect(presenter.locator(".tile")).toHaveCount(2);
  await expect(presenter.locator("[data-mlu]")).toHaveCount(14);

  // A slider is felt: with a hundredth of the bandwidth less is offloaded.
  const offloaded = () => number(presenter, "offloaded");
  const wide = await offloaded();
  await presenter.getByTestId("slider-bandwidth_hz").fill("0");
  await expect.poll(offloaded).toBeLessThan(wide);

  // Ways to decide in turn, with an interval after two whole turns.
  await presenter.getByTestId("turn-slots").fill("2");
  await presenter.getByTestId("turn-slots").blur();
  await presenter.getByTestId("compare").click();
  await expect(presenter.getByTestId("arms").locator("tbody tr")).toHaveCount(3);
  await expect(presenter.getByTestId("arms")).toContainText(/ms \[/, { timeout: 30_000 });
  await presenter.getByTestId("end-compare").click();

  // Members: named, moved, muted, removed.
  await presenter.keyboard.press("m");
  const person = presenter.getByTestId("person").filter({ has: presenter.locator("th", { hasText: /^3$/ }) });
  await person.getByRole("textbox").fill("Ada <b>");
  await person.getByRole("textbox").blur();
  await person.getByRole("combobox").selectOption("3");
  await person.getByRole("button", { name: "Mute" }).click();
  await expect(person).toContainText("muted");
  await expect(presenter.locator(".tile")).toHaveCount(3);
  presenter.on("dialog", (dialog) => dialog.accept());
  const gone = presenter.getByTestId("person").filter({ has: presenter.locator("th", { hasText: /^4$/ }) });
  await gone.getByRole("button", { name: "Remove" }).click();
  await expect(presenter.getByTestId("person")).toHaveCount(13);
  await presenter.keyboard.press("Escape");

  // The QR code is one key away.
  await presenter.keyboard.press("q");
  await expect(presenter.getByTestId("qr").locator("svg")).toBeVisible();
  await expect(presenter.getByTestId("join-address")).toContainText("join");
  await presenter.keyboard.press("q");
  await expect(presenter.getByTestId("qr")).toHaveCount(0);

  const download = async (id) => {
    await presenter.getByTestId("menu").click();
    const [file] = await Promise.all([presenter.waitForEvent("download"), presenter.getByTestId(id).click()]);
    await presenter.getByTestId("menu").click();
    return file.path();
  };
  await presenter.keyboard.press("p");
  const slot = () => presenter.locator(".bar-people").textContent();
  await expect(presenter.locator(".bar-people")).toContainText("paused");
  // A slot that had begun is still shown.
  let before;
  const stands = async () => {
    const now = await slot();
    const same = now === before;
    before = now;
    return same;
  };
  await expect.poll(stands, { intervals: [1500] }).toBe(true);
  const csv = fs.readFileSync(await download("export-csv"), "utf8").trim().split("\n");
  const json = await download("export-json");
  const room = JSON.parse(fs.readFileSync(json, "utf8"));
  expect(room.code).toBe(code);
  const rows = room.slots.flatMap((slot) => slot.cells.flatMap((cell) => cell.mlus)).length;
  expect(csv.length - 1, "a row a slot and device").toBe(rows);

  const replay = await (await browser.newContext(SCREEN)).newPage();
  watch(replay, problems);
  await replay.goto(`${server.url}room.html`);
  await server.stop();
  await replay.getByTestId("replay-file").setInputFiles(json);
  await expect(replay.getByTestId("replay-slot")).toContainText(`of ${room.slots.length}`);
  await replay.getByTestId("play").click();
  await replay.getByTestId("replay-at").fill("0");
  const [first] = room.slots;
  const active = first.cells.flatMap((cell) => cell.mlus).filter((mlu) => mlu.presence === "active").length;
  await expect(replay.getByTestId("active")).toHaveText(String(active));
  await expect(replay.locator(".tile")).toHaveCount(first.cells.length);
  expect(problems).toEqual([]);
});

test("a code that is typed, one that no room has, and a phone that leaves", async ({ browser, tandem }) => {
  const problems = [];
  const { presenter, code } = await openRoom(browser, tandem.url, problems);
  const phone = await (await browser.newContext({ ...PHONE, viewport: { width: 360, height: 640 } })).newPage();
  watch(phone, problems);
  await phone.goto(`${tandem.url}join.html`);
  await phone.getByTestId("code").fill("bcd 23");
  await expect(phone.getByTestId("join")).toBeDisabled();
  await phone.getByTestId("code").fill(`${code.slice(0, 3).toLowerCase()} ${code.slice(3)}`);
  await phone.getByTestId("join").click();
  await expect(phone.getByTestId("mlu")).toHaveText("MLU 1");
  const width = await phone.evaluate(() => document.documentElement.scrollWidth);
  expect(width, "nothing sticks out").toBeLessThanOrEqual(360);
  await phone.getByTestId("part-load").click();

  // Dragged: the presenter sees it move.
  const at = () => presenter.locator("[data-mlu='1']").getAttribute("transform");
  const before = await at();
  const map = await phone.getByTestId("map").boundingBox();
  await phone.touchscreen.tap(map.x + map.width * 0.3, map.y + map.height * 0.7);
  await expect.poll(at).not.toBe(before);

  await phone.getByTestId("leave").click();
  await expect(phone.getByTestId("trouble")).toContainText("left");
  await expect(presenter.getByTestId("active")).toHaveText("0");
  const wrong = code === "BCDFGH" ? "BCDFGJ" : "BCDFGH";
  await phone.goto(`${tandem.url}join.html#${wrong}`);
  await expect(phone.getByTestId("trouble")).toContainText("no room of this code");
  expect(problems).toEqual([]);
});
