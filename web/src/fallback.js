// The page where its own WebAssembly cannot run: without WebAssembly at all, or without its SIMD instructions, with which
// the page is compiled. The server answers everything, and this says so. Deliberately small: no map, no policy, no log.
"use strict";
(function () {
  // One function with i8x16.splat and i8x16.popcnt: valid only where SIMD is.
  const simd = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];
  const wasm = typeof WebAssembly === "object";
  if (wasm && WebAssembly.validate(new Uint8Array(simd))) {
    window.addEventListener("unhandledrejection", () => {
      const text = document.getElementById("shell-text");
      if (text) text.textContent = "The page did not start. Reload it; if that does not help, empty the browser’s cache.";
    });
    return;
  }

  const make = (tag, attributes, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const why = wasm ? "This browser runs no WebAssembly SIMD" : "This browser runs no WebAssembly";
  const prompt = make("textarea", {
    id: "prompt-box",
    class: "prompt",
    rows: "3",
    "data-testid": "prompt",
    placeholder: "What is the capital of Kenya?",
  });
  const ask = make("button", { class: "primary", "data-testid": "ask" }, "Ask");
  const stop = make("button", { "data-testid": "stop", hidden: "" }, "Stop");
  const notice = make("p", { class: "hint", "data-testid": "notice", role: "status" });
  const answers = make("ol", { class: "answer-list", "data-testid": "answers" });
  const tier = make(
    "p",
    { class: "hint", "data-testid": "tier", "data-tier": "server-only" },
    `${why}, so no model can run in this tab: the server answers everything.`,
  );
  let abort = null;

  async function answer(question, index, model) {
    const text = make("p", { class: "answer-text", "data-testid": `answer-${index}` });
    answers.append(make("li", { class: "answer" }, make("p", { class: "question" }, question), text));
    const response = await fetch("v1/chat/completions", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ model, messages: [{ role: "user", content: question }], temperature: 0, stream: true }),
      signal: abort.signal,
    });
    if (!response.ok) {
      const body = await response.json().catch(() => ({}));
      throw new Error(body.error?.message ?? `status ${response.status}`);
    }
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ""; ; ) {
      const { done, value } = await reader.read();
      if (done) throw new Error("the connection was cut");
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        const data = line.startsWith("data:") ? line.slice(5).trim() : "";
        if (data === "[DONE]") return;
        const choice = data && JSON.parse(data).choices?.[0];
        const piece = choice?.delta?.content;
        if (piece) text.append(make("span", { class: "token server", "data-testid": "token", "data-origin": "server" }, piece));
        if (choice?.finish_reason === "length") text.after(make("p", { class: "cut", "data-testid": "cut" }, "Cut here: the model’s context is full."));
      }
    }
  }

  async function run() {
    const questions = prompt.value.split("\n").map((line) => line.trim()).filter(Boolean);
    if (!questions.length) {
      notice.textContent = "Type a question first.";
      return;
    }
    if (abort) return;
    abort = new AbortController();
    notice.textContent = "";
    answers.replaceChildren();
    ask.disabled = true;
    stop.hidden = false;
    try {
      const health = await (await fetch("health", { signal: abort.signal })).json();
      for (const [index, question] of questions.entries()) await answer(question, index, health.model.id);
    } catch (error) {
      notice.textContent = abort.signal.aborted ? "Stopped." : `The server did not answer: ${error.message}. Try again.`;
    }
    abort = null;
    ask.disabled = false;
    stop.hidden = true;
  }

  ask.addEventListener("click", run);
  stop.addEventListener("click", () => abort?.abort());
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      run();
    }
  });
  document.addEventListener("keydown", (event) => event.key === "Escape" && abort?.abort());

  document.getElementById("app").replaceChildren(
    make(
      "div",
      { class: "page fallback" },
      make(
        "section",
        { class: "panel ask-panel" },
        make("h1", { class: "ask-title" }, make("label", { for: "prompt-box" }, "Ask the server")),
        tier,
        prompt,
        make("div", { class: "ask-row" }, make("p", { class: "hint" }, "One question a line."), make("div", { class: "ask-buttons" }, stop, ask)),
        notice,
        answers,
      ),
    ),
  );
})();
