// Files that are large, each in its way. A model that is large enough for the CPU kernels' own module: the compact model's
// tokenizer, and random weights of another shape. And the compact model itself, with gigabytes of nothing before its weights.
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const compact = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../../public/models/compact.gguf");
const [dim, heads, keyHeads, head, inner] = [1024, 16, 4, 64, 2816];
const sizes = {
  "llama.embedding_length": dim,
  "llama.attention.head_count": heads,
  "llama.attention.head_count_kv": keyHeads,
  "llama.feed_forward_length": inner,
  "llama.rope.dimension_count": head,
  "llama.attention.key_length": head,
  "llama.attention.value_length": head,
};
const widths = { 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 };

/** The compact model's metadata with these sizes, the length of its vocabulary, and where its list of tensors begins. */
function metadata(sizes = {}) {
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
  return { file, entries, vocab, tensorsAt: at };
}

/** Random blocks of Q8_0, of which matrices are repetitions: so many that no row begins as the one before it. */
function randomBlocks() {
  const blocks = Buffer.alloc(34 * 5003);
  let seed = 1;
  for (let block = 0; block < blocks.length; block += 34) {
    // A scale of 2⁻¹¹ in half precision, and 32 codes.
    blocks.writeUInt16LE(0x1000, block);
    for (let i = 2; i < 34; i += 1) {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      blocks[block + i] = seed >>> 24;
    }
  }
  return blocks;
}

/** Writes the model; returns its number of parameters in matrices. */
export function writeLargeModel(target, layers = 2) {
  const { entries, vocab } = metadata({ ...sizes, "llama.block_count": layers });
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
  let [offset, parameters] = [0, 0];
  const blocks = randomBlocks();
  const [infos, data] = [[], []];
  for (const [name, ...shape] of tensors) {
    const elements = shape.reduce((product, size) => product * size, 1);
    const matrix = shape.length === 2;
    const bytes = matrix ? Buffer.alloc((elements / 32) * 34, blocks) : Buffer.alloc(elements * 4);
    if (matrix) parameters += elements;
    else for (let i = 0; i < elements; i += 1) bytes.writeFloatLE(1, 4 * i);
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

/**
 * Writes the compact model with its tensors 4 and 6 GiB further back, in turns. Between them the file is sparse: it takes
 * little of the disk. Returns its length in bytes.
 */
export function writeFarModel(target) {
  const { file, tensorsAt } = metadata();
  const header = Buffer.from(file);
  const tensors = [];
  let at = tensorsAt;
  for (let count = Number(file.readBigUInt64LE(8)); count > 0; count -= 1) {
    at += 8 + Number(file.readBigUInt64LE(at));
    at += 4 + 8 * file.readUInt32LE(at) + 4;
    const [offset, shift] = [Number(file.readBigUInt64LE(at)), (tensors.length % 2 ? 6 : 4) * 2 ** 30];
    header.writeBigUInt64LE(BigInt(offset + shift), at);
    tensors.push({ offset, shift });
    at += 8;
  }
  const begin = Math.ceil(at / 32) * 32;
  const order = tensors.toSorted((a, b) => a.offset - b.offset);
  const out = fs.openSync(target, "w");
  fs.writeSync(out, header, 0, begin, 0);
  order.forEach(({ offset, shift }, i) => {
    const end = begin + (order[i + 1]?.offset ?? file.length - begin);
    fs.writeSync(out, file, begin + offset, end - begin - offset, begin + offset + shift);
  });
  const length = file.length + 6 * 2 ** 30;
  fs.ftruncateSync(out, length);
  fs.closeSync(out);
  return length;
}
