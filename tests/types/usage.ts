// A page's use of the package, for the type checker: what is written here has to compile, and what is marked must not.
import { EdgeClient, EdgeError, type Verdict } from "tandem-client";

export async function use(file: File): Promise<string> {
  const client = await EdgeClient.create({ server: "https://edge.example/", tier: "cpu" });
  const verdict: Verdict = await client.inspect({ hub: "org/repo/model.gguf" }, { context: 2048 });
  if (!verdict.fits) return verdict.advice ?? verdict.remarks.join(" ");
  const abort = new AbortController();
  await client.load(file, { onProgress: ({ received, total }) => console.log(received / total), signal: abort.signal });

  await client.load([file, file], { storeAs: "Q4_0" });
  // @ts-expect-error that is a format of files, not one to store as
  await client.load([file], { storeAs: "Q4_K" });

  let text = "";
  const pieces = client.generate([{ role: "user", content: "Hello" }], { maxTokens: 8, stop: ["\n"] });
  for await (const piece of pieces) text += piece;

  const whole = await client.chat.completions.create({ messages: [{ role: "user", content: "Hello" }] });
  text += whole.choices[0]?.message.content ?? "";
  const stream = await client.chat.completions.create({ messages: [{ role: "user", content: "Hello" }], stream: true });
  for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
  const { data } = await client.embeddings.create({ input: ["a", "b"] });
  text += data.map(({ embedding }) => embedding.length).join();

  const answer = client.ask("What is the capital of Kenya?", { split: 0.5, world: { seed: 3 } });
  let step = await answer.next();
  while (!step.done) step = await answer.next();
  text += step.value.answers[0]?.parts.map(({ origin }) => origin).join();

  const memory = await client.memory();
  text += memory.wasmBytes + (memory.storedBytes ?? 0);
  client.addEventListener("lost", (event) => console.error((event as CustomEvent<EdgeError>).detail.code));

  // @ts-expect-error a split is one of the known words
  client.ask("x", { split: "sometimes" });
  // @ts-expect-error a number is no model
  await client.load(7);
  // @ts-expect-error a whole answer has no chunks
  for await (const chunk of await client.chat.completions.create({ messages: [] })) console.log(chunk);
  client.close();
  return text;
}
