// A model that is large enough for the CPU kernels' own module: the compact model's tokenizer, and random weights of
// another shape.
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const compact = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../../public/models/compact.gguf");
const [dim, heads, keyHeads, head, inner, layers] = [1024, 16, 4, 64, 2816, 2];
const sizes = {
  "llama.embedding_length": dim,
  "llama.block_count": layers,
  "llama.attention.head_count": heads,
  "llama.attention.head_count_kv": keyHeads,
  "llama.feed_forward_length": inner,
  "llama.rope.dimension_count": head,
  "llama.attention.key_length": head,
  "llama.attention.value_length": head,
};
const widths = { 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 };

/** The compact model's metadata with other sizes, and the length of its vocabulary. */
function metadata() {
  const file = fs.readFileSync(compact);
  let at = 24;
  let vocab = 0;
  const entries = [];
  const text = () => {
    const length = Number(file.readBigUInt64LE(at));
    at += 8 + length;
    return file.toString("utf8", at - length, at);
  };
  const skip = (type) => {
    if (type === 8) text();
    else if (type === 9) {
      const [inside, count] = [file.readUInt32LE(at), Number(file.readBigUInt64LE(at + 4))];
      at += 12;
      for (let i = 0; i < count; i += 1) skip(inside);
    } else at += widths[type];
  };
  for (let count = Number(file.readBigUInt64LE(16)); count > 0; count -= 1) {
    const start = at;
    const key = text();
    const type = file.readUInt32LE(at);
    at += 4;
    const value = at;
    if (key === "tokenizer.ggml.tokens") vocab = Number(file.readBigUInt64LE(at + 4));
    skip(type);
    const entry = Buffer.from(file.subarray(start, at));
    if (key in sizes) entry.writeUInt32LE(sizes[key], value - start);
    entries.push(entry);
  }
  return { entries, vocab };
}

/** Writes the model; returns its number of parameters in matrices. */
export function writeLargeModel(target) {
  const { entries, vocab } = metadata();
  const tensors = [["token_embd", dim, vocab], ["output_norm", dim]];
  for (let layer = 0; layer < layers; layer += 1) {
    const of = (name, ...shape) => tensors.push([`blk.${layer}.${name}`, ...shape]);
    of("attn_norm", dim);
    of("ffn_norm", dim);
    of("attn_q", dim, heads * head);
    of("attn_k", dim, keyHeads * head);
    of("attn_v", dim, keyHeads * head);
    of("attn_output", heads * head, dim);
    of("ffn_gate", dim, inner);
    of("ffn_up", dim, inner);
    of("ffn_down", inner, dim);
  }
  let [seed, offset, parameters] = [1, 0, 0];
  const [infos, data] = [[], []];
  for (const [name, ...shape] of tensors) {
    const elements = shape.reduce((product, size) => product * size, 1);
    const matrix = shape.length === 2;
    const bytes = Buffer.alloc(matrix ? (elements / 32) * 34 : elements * 4);
    if (matrix) {
      parameters += elements;
      for (let block = 0; block < bytes.length; block += 34) {
        // A scale of 2⁻¹¹ in half precision, and 32 random codes.
        bytes.writeUInt16LE(0x1000, block);
        for (let i = 2; i < 34; i += 1) {
          seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
          bytes[block + i] = seed >>> 24;
        }
      }
    } else for (let i = 0; i < elements; i += 1) bytes.writeFloatLE(1, 4 * i);
    const label = Buffer.from(`${name}.weight`);
    const info = Buffer.alloc(8 + label.length + 4 + 8 * shape.length + 12);
    info.writeBigUInt64LE(BigInt(label.length));
    label.copy(info, 8);
    let at = info.writeUInt32LE(shape.length, 8 + label.length);
    for (const size of shape) at = info.writeBigUInt64LE(BigInt(size), at);
    info.writeBigUInt64LE(BigInt(offset), info.writeUInt32LE(matrix ? 8 : 0, at));
    infos.push(info);
    data.push(bytes, Buffer.alloc((32 - (bytes.length % 32)) % 32));
    offset += bytes.length + data.at(-1).length;
  }
  const head24 = Buffer.alloc(24);
  head24.write("GGUF");
  head24.writeUInt32LE(3, 4);
  head24.writeBigUInt64LE(BigInt(tensors.length), 8);
  head24.writeBigUInt64LE(BigInt(entries.length), 16);
  const header = Buffer.concat([head24, ...entries, ...infos]);
  fs.writeFileSync(target, Buffer.concat([header, Buffer.alloc((32 - (header.length % 32)) % 32), ...data]));
  return parameters;
}
