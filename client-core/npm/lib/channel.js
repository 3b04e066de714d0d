// What a worker says about one task, as something that can be awaited piece by piece.

/** What went wrong, with a `code` for programs and a `message` for people. */
export class EdgeError extends Error {
  constructor(code, message, details = {}) {
    super(message);
    this.name = "EdgeError";
    this.code = code;
    Object.assign(this, details);
  }
}

/** The error that an aborted task ends with. */
export function abortError(signal) {
  return signal?.reason ?? new DOMException("It was aborted.", "AbortError");
}

/** A queue between whoever pushes and one who awaits. Its length is bounded by what one task can say. */
export class Channel {
  #items = [];
  #waiting;
  #failure;

  push(item) {
    this.#items.push(item);
    this.#waiting?.();
  }

  fail(error) {
    this.#failure ??= error;
    this.#waiting?.();
  }

  async next() {
    while (true) {
      if (this.#items.length) return this.#items.shift();
      if (this.#failure) throw this.#failure;
      await new Promise((resolve) => (this.#waiting = resolve));
      this.#waiting = undefined;
    }
  }
}

/** The same data with keys as JavaScript writes them: `weight_bytes` becomes `weightBytes`. */
export function camel(value) {
  if (Array.isArray(value)) return value.map(camel);
  if (value === null || typeof value !== "object") return value;
  const key = (name) => name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [key(name), camel(inner)]));
}
