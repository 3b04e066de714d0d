// The chat: turns with context, both sides' caches kept from turn to turn, Markdown that cannot run, a context that fills up.
import http from "node:http";
import { expect, listen, loadModel, startTandem, test } from "./harness.mjs";

const box = (page) => page.getByTestId("chat-box");
const answer = (page, n) => page.getByTestId(`chat-answer-${n}`);

/** Opens the chat once the model can answer. */
async function openChat(page, url, query = "") {
  await page.goto(`${url}#chat${query && `&${query}`}`);
  await expect(box(page)).toBeVisible();
  await loadModel(page);
}

/** Says something and waits for the answer's end. */
async function say(page, text, n) {
  await box(page).fill(text);
  await box(page).press("Enter");
  await over(page, n);
}

async function over(page, n) {
  await expect(page.getByTestId(`chat-turn-${n}`)).toBeVisible();
  await expect(page.getByTestId("chat-list")).toHaveAttribute("aria-busy", "false", { timeout: 90_000 });
}

/** What was measured of every ask so far. The page has to be listened to. */
const records = (page) => page.evaluate(() => window.heard.filter((event) => event.type === "done").map((event) => event.record));

/** An engine that answers with what it is told to, piece by piece. */
async function startEngine(pieces, pauseMs = 0) {
  const engine = { asked: [] };
  const server = http.createServer(async (request, response) => {
    if (request.method === "GET") return response.end(JSON.stringify({ object: "list", data: [{ id: "fake", object: "model" }] }));
    let body = "";
    for await (const chunk of request) body += chunk;
    engine.asked.push(JSON.parse(body));
    response.writeHead(200, { "content-type": "text/event-stream" });
    const send = (choice) => response.write(`data: ${JSON.stringify({ choices: [{ index: 0, ...choice }] })}\n\n`);
    for (const content of pieces(engine.asked.length)) {
      if (response.destroyed) return;
      send({ delta: { content } });
      if (pauseMs) await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
    send({ delta: {}, finish_reason: "stop" });
    response.end("data: [DONE]\n\n");
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  engine.url = `http://127.0.0.1:${server.address().port}`;
  engine.stop = () => (server.closeAllConnections(), server.close());
  return engine;
}

for (const mode of ["local-only", "server-only", "split"]) {
  test(`an answer of a chat that was cut goes on: ${mode}`, async ({ page, edge, problems }) => {
    await openChat(page, edge.url, `mode=${mode}&tokens=2&seed=7`);
    await say(page, "What is the currency of the country whose capital is Nairobi?", 0);
    await expect(page.getByTestId("chat-cut")).toContainText(/Cut here/);
    const begun = (await answer(page, 0).textContent()).trim();
    await page.getByTestId("chat-go-on").click();
    await expect.poll(async () => (await answer(page, 0).textContent()).trim().length).toBeGreaterThan(begun.length);
    await over(page, 0);
    expect((await answer(page, 0).textContent()).trim().startsWith(begun)).toBe(true);
    await expect(page.getByTestId("chat-turn-1")).toHaveCount(0);
    // What is said next follows the whole of it.
    await say(page, "What is the capital of Kenya?", 1);
    await expect(answer(page, 1)).not.toBeEmpty();
  });
}

for (const [mode, side] of [["local-only", "device"], ["server-only", "server"]]) {
  test(`a turn reads only what is new: ${mode}`, async ({ page, edge, problems }) => {
    await listen(page);
    await openChat(page, edge.url, `mode=${mode}`);
    await say(page, "What is the capital of Kenya?", 0);
    await say(page, "What is the currency of Japan?", 1);
    await say(page, "Which continent is Peru in?", 2);
    // The server keeps nothing of fewer than 16 tokens, which two short turns are not together.
    const [, first, second] = await records(page);
    const before = first[`${side}_read`].tokens + first[`${side}_tokens`];
    const read = second[`${side}_read`];
    // The last token of an answer is never computed further, unless somebody goes on; all before it is kept.
    expect(read.cached, JSON.stringify([first, second])).toBeGreaterThanOrEqual(before - 1);
    expect(read.tokens - read.cached).toBeLessThan(first[`${side}_read`].tokens);
    await expect(page.getByTestId("chat-note-2")).toContainText(`${side} read ${read.tokens - read.cached} new, ${read.cached} kept`);
  });
}

test("an answer is shared by α, in two colours, and both sides keep what was said", async ({ page, edge, problems }) => {
  await listen(page);
  await openChat(page, edge.url, "decider=manual&alpha=0.5&seed=7");
  await say(page, "What is the capital of Kenya?", 0);
  await say(page, "Which continent is Peru in?", 1);
  await expect(answer(page, 0)).not.toBeEmpty();
  await expect(answer(page, 1)).not.toBeEmpty();
  const origins = await page.locator(".chat [data-testid=token]").evaluateAll((all) => [...new Set(all.map((one) => one.dataset.origin))].sort());
  expect(origins).toEqual(["device", "server"]);
  const [first, second] = await records(page);
  // An answer of a few tokens cannot be shared finely.
  const shared = [first, second].filter((record) => !record.server_lost && record.device_tokens + record.server_tokens >= 5);
  for (const record of shared) expect(Math.abs(record.done_alpha - 0.5)).toBeLessThan(0.35);
  // However often the answer changed hands, each side computed less than half of what it was given to read.
  const read = second.device_read;
  expect(read.cached, JSON.stringify(second)).toBeGreaterThan(read.tokens / 2);
  await expect(page.getByTestId("chat-context-note")).toBeHidden();
  await expect(page.getByTestId("chat-tokens")).toContainText(/^\d+ of 512$/);
  // The playground beside it has its own questions.
  await page.getByTestId("view-playground").click();
  await expect(page.getByTestId("prompt")).toBeVisible();
  await expect(box(page)).toBeHidden();
  await page.getByTestId("view-chat").click();
  await expect(answer(page, 1)).not.toBeEmpty();
});

test("turns are edited, written anew, copied, and begun again", async ({ page, context, edge, problems }) => {
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await openChat(page, edge.url, "mode=server-only");
  await expect(page.getByTestId("chat-atlas")).toContainText("single questions");
  await say(page, "What is the capital of Kenya?", 0);
  await say(page, "What is the capital of France?", 1);
  await say(page, "What is the currency of Japan?", 2);
  await page.getByTestId("chat-copy-0").click();
  expect(await page.evaluate(() => navigator.clipboard.readText())).toBe((await answer(page, 0).textContent()).trim());

  await page.getByTestId("chat-edit-1").click();
  await page.getByTestId("chat-words").press("Escape");
  await expect(page.getByTestId("chat-words")).toHaveCount(0);
  await expect(answer(page, 2)).toBeVisible();
  await page.getByTestId("chat-edit-1").click();
  await page.getByTestId("chat-words").fill("What is the capital of Peru?");
  await page.getByTestId("chat-words").press("Enter");
  await expect(page.getByTestId("chat-question-1")).toHaveText("What is the capital of Peru?");
  await over(page, 1);
  await expect(page.getByTestId("chat-turn-2"), "what followed is dropped").toHaveCount(0);
  await expect(answer(page, 1)).toContainText("Lima");

  await page.getByTestId("chat-again").filter({ visible: true }).click();
  await over(page, 1);
  await expect(page.getByTestId("chat-question-1")).toHaveText("What is the capital of Peru?");
  await expect(page.getByTestId("chat-turn-2")).toHaveCount(0);
  await expect(answer(page, 1)).not.toBeEmpty();

  await page.getByTestId("chat-new").click();
  await expect(page.getByTestId("chat-turn-0")).toHaveCount(0);
  await expect(page.getByTestId("chat-atlas")).toBeVisible();
});

test("Shift and Enter make a line, Enter asks, Escape stops within the answer", async ({ page, problems }) => {
  const engine = await startEngine(() => Array.from({ length: 400 }, (_, n) => `word${n} `), 25);
  const tandem = await startTandem(["--upstream", engine.url]);
  await openChat(page, tandem.url, "mode=server-only&pacing=0");
  await box(page).fill("one");
  await box(page).press("Shift+Enter");
  await box(page).pressSequentially("two");
  await expect(page.getByTestId("chat-turn-0")).toHaveCount(0);
  await box(page).press("Enter");
  await expect(page.getByTestId("chat-question-0")).toHaveText("one\ntwo");
  await expect(answer(page, 0)).toContainText("word5");
  await expect(page.getByTestId("chat-stop")).toBeVisible();
  await page.keyboard.press("Escape");
  await over(page, 0);
  await expect(page.getByTestId("chat-problem")).toHaveText("Stopped.");
  const text = await answer(page, 0).textContent();
  expect(text).not.toContain("word399");
  await page.waitForTimeout(300);
  expect(await answer(page, 0).textContent(), "nothing comes after the end").toBe(text);
  // What was written stays part of the conversation.
  await box(page).fill("and then?");
  await box(page).press("Enter");
  await expect.poll(() => engine.asked.length).toBe(2);
  const roles = engine.asked[1].messages.map((message) => message.role);
  expect(roles).toEqual(["user", "assistant", "user"]);
  expect(engine.asked[1].messages[1].content.trim()).toBe(text.trim());
  await page.getByTestId("chat-new").click();
  await tandem.stop();
  engine.stop();
});

const MARKDOWN = `# Title

Some **bold** words, \`code\` and a [link](https://example.org/a), a [trap](javascript:alert(1)).

<script>window.pwned = 1</script>
<img src=x onerror="window.pwned = 1">

![picture](https://example.org/b.png)

- one
- two

\`\`\`rust
fn main() {
    println!("<b>hello</b>");
}
\`\`\`

| a | b |
| - | -: |
| 1 | 2 |
`;

test("Markdown is drawn, and nothing in it runs or is fetched", async ({ page, context, problems }) => {
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  const engine = await startEngine(() => MARKDOWN.match(/[\s\S]{1,7}/g), 2);
  const tandem = await startTandem(["--upstream", engine.url]);
  const elsewhere = [];
  page.on("request", (request) => !request.url().startsWith(tandem.url) && elsewhere.push(request.url()));
  await openChat(page, tandem.url, "mode=server-only&pacing=0");
  await say(page, "Show me", 0);
  const md = answer(page, 0);
  await expect(md.locator("h3")).toHaveText("Title");
  await expect(md.locator("strong")).toHaveText("bold");
  await expect(md.locator("li")).toHaveText(["one", "two"]);
  await expect(md.locator("td")).toHaveText(["1", "2"]);
  await expect(md.locator("pre code")).toHaveText('fn main() {\n    println!("<b>hello</b>");\n}\n');
  const links = await md.locator("a").evaluateAll((all) => all.map((a) => [a.href, a.rel, a.target]));
  const rel = "noopener noreferrer nofollow";
  expect(links).toEqual([
    ["https://example.org/a", rel, "_blank"],
    ["https://example.org/b.png", rel, "_blank"],
  ]);
  await expect(md).toContainText("<script>window.pwned = 1</script>");
  await expect(md.locator("script, img, iframe, style, object, b")).toHaveCount(0);
  expect(await page.evaluate(() => window.pwned)).toBeUndefined();
  expect(elsewhere).toEqual([]);
  await md.getByRole("button", { name: "Copy" }).click();
  expect(await page.evaluate(() => navigator.clipboard.readText())).toContain('println!("<b>hello</b>");');
  await page.getByTestId("chat-copy-0").click();
  expect(await page.evaluate(() => navigator.clipboard.readText()), "the answer as it was written").toBe(MARKDOWN.trim());
  await tandem.stop();
  engine.stop();
});

test("a long answer is drawn once a frame, and only its last block again", async ({ page, problems }) => {
  const blocks = Array.from({ length: 250 }, (_, n) => `Paragraph **${n}** with a few words more, so that it wraps somewhere.\n\n`);
  const engine = await startEngine(() => blocks.join("").match(/[\s\S]{1,5}/g), 0);
  const tandem = await startTandem(["--upstream", engine.url]);
  await openChat(page, tandem.url, "mode=server-only&pacing=0");
  await page.evaluate(() => {
    window.seen = { frames: 0, draws: 0, removed: 0, longest: 0 };
    new PerformanceObserver((list) => {
      for (const task of list.getEntries()) window.seen.longest = Math.max(window.seen.longest, task.duration);
    }).observe({ type: "longtask" });
    const watch = setInterval(() => {
      const md = document.querySelector("[data-testid=chat-answer-0]");
      if (!md) return;
      clearInterval(watch);
      new MutationObserver((changes) => {
        window.seen.draws += 1;
        window.seen.removed += changes.reduce((sum, change) => sum + change.removedNodes.length, 0);
      }).observe(md, { childList: true });
      const frame = () => ((window.seen.frames += 1), requestAnimationFrame(frame));
      requestAnimationFrame(frame);
    }, 1);
  });
  await say(page, "Tell me a lot", 0);
  await expect(answer(page, 0).locator("p")).toHaveCount(250);
  const seen = await page.evaluate(() => window.seen);
  const pieces = Math.ceil(blocks.join("").length / 5);
  console.log(`  ${pieces} tokens: ${JSON.stringify(seen)}`);
  expect(seen.draws, "once a frame").toBeLessThanOrEqual(seen.frames + 5);
  expect(seen.removed, "a settled block is never drawn again").toBeLessThanOrEqual(2 * seen.draws + 5);
  await tandem.stop();
  engine.stop();
});

test("a full context is said before, the oldest turns go, and a question too long by itself is refused", async ({ page, edge, problems }) => {
  await openChat(page, edge.url, "mode=server-only");
  const question = (country) => `What is the capital of ${country}? `.repeat(11).trim();
  const note = page.getByTestId("chat-context-note");
  const countries = ["Kenya", "France", "Peru", "Japan", "Chile", "Norway"];
  let turns = 0;
  for (const country of countries) {
    await box(page).fill(question(country));
    // What it would take is counted shortly after the last key.
    await page.waitForTimeout(800);
    if (await note.isVisible()) break;
    await box(page).press("Enter");
    await over(page, turns);
    turns += 1;
  }
  expect(turns).toBeGreaterThan(1);
  await expect(note).toContainText(/^Full: the oldest .* will be left out/);
  await expect(page.getByTestId("chat-context")).toHaveAttribute("data-left-out", "0");
  await box(page).press("Enter");
  await over(page, turns);
  await expect(page.getByTestId("chat-context")).not.toHaveAttribute("data-left-out", "0");
  await expect(page.getByTestId("chat-border").filter({ visible: true })).toHaveText("The models see the conversation from here on.");
  await expect(answer(page, turns)).not.toBeEmpty();
  const told = await page.getByTestId("chat-tokens").textContent();
  const [tokens, limit] = told.match(/\d+/g).map(Number);
  expect(tokens).toBeLessThanOrEqual(limit);

  await box(page).fill("What is the capital of Kenya? ".repeat(60).trim());
  await expect(note).toContainText("will be refused");
  await box(page).press("Enter");
  await expect(page.getByTestId(`chat-turn-${turns + 1}`).getByTestId("chat-problem")).toContainText("Shorten it");
});

for (const [name, width, height, scheme] of [["a phone", 360, 740, "dark"], ["a desktop", 1280, 900, "light"]]) {
  test(`the chat fits ${name}`, async ({ page, edge, problems }, testInfo) => {
    await page.setViewportSize({ width, height });
    await page.emulateMedia({ colorScheme: scheme });
    await openChat(page, edge.url, "decider=manual&alpha=0.5");
    await say(page, "What is the capital of Kenya?", 0);
    await say(page, "What is the currency of the country whose capital is Nairobi?", 1);
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(width);
    await expect(box(page)).toBeInViewport();
    await page.screenshot({ path: testInfo.outputPath(`chat-${width}.png`) });
  });
}

test("two real models chat", async ({ page, problems }) => {
  test.skip(!process.env.CHAT_MODEL, "CHAT_MODEL names no GGUF file of a model that people chat with");
  test.setTimeout(600_000);
  const tandem = await startTandem(["--model", process.env.CHAT_MODEL, "--device-model", process.env.CHAT_MODEL]);
  await listen(page);
  await page.goto(`${tandem.url}#chat&decider=manual&alpha=0.5&tokens=80&pacing=0&tier=cpu`);
  await expect(page.getByTestId("model-state")).toHaveAttribute("data-state", "ready", { timeout: 300_000 });
  await say(page, "Write a haiku about the sea.", 0);
  // A model that is told nothing of the first turn cannot know what "it" is.
  await say(page, "Say in one sentence what it is about.", 1);
  await expect(answer(page, 1)).toContainText(/sea|ocean|water|wave/i);
  await say(page, "Write a short Markdown list of three colours.", 2);
  const all = await records(page);
  console.log(all.map((r) => JSON.stringify([r.device_read, r.server_read, r.device_tokens, r.server_tokens, r.device_ttft_s, r.server_ttft_s])).join("\n"));
  for (const record of all.slice(1)) expect(record.device_read.cached).toBeGreaterThan(record.device_read.tokens / 2);
  await tandem.stop();
});
