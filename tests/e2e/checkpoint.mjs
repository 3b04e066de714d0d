// Safetensors checkpoints for the specs, made of what lies here: the golden families with a vocabulary of "t0", "t1", …, the
// compact model's weights, and random ones.
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const models = path.join(root, "public/models");
const families = path.join(root, "tests/golden/families");

/** A safetensors file of `[name, shape, dtype, bytes]`s. */
function safetensors(tensors) {
  let at = 0;
  const entries = tensors.map(([name, shape, dtype, bytes]) => [name, { dtype, shape, data_offsets: [at, (at += bytes.length)] }]);
  const header = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  return Buffer.concat([length, header, ...tensors.map(([, , , bytes]) => bytes)]);
}

/** Writes files, by name, into a folder; returns their paths. */
export function writeFiles(folder, files) {
  fs.mkdirSync(folder, { recursive: true });
  return Object.entries(files).map(([name, content]) => {
    fs.writeFileSync(path.join(folder, name), content);
    return path.join(folder, name);
  });
}

/**
 * A golden family's files by name, with a prompt that is its golden one and the golden answer to it, both as text. The chat
 * template hands the question on as it is, with a space between it and the answer.
 */
export function family(name) {
  const folder = path.join(families, name);
  const golden = JSON.parse(fs.readFileSync(path.join(folder, "golden.json")));
  const text = (ids) => ids.map((id) => `t${id}`).join(" ");
  const names = fs.readdirSync(folder).filter((file) => /^(config|model\.safetensors\.index)\.json$|\.safetensors$/.test(file));
  const config = JSON.parse(fs.readFileSync(path.join(folder, "config.json")));
  // The golden answer goes on after an end token, a model's does not; where little would be left, it is none.
  const end = golden.greedy.indexOf(config.eos_token_id);
  if (end >= 0 && end < 16) delete config.eos_token_id;
  const greedy = golden.greedy.slice(0, end < 16 ? golden.greedy.length : end);
  const vocab = Object.fromEntries(Array.from({ length: 80 }, (_, id) => [`t${id}`, id]));
  return {
    files: {
      ...Object.fromEntries(names.map((file) => [file, fs.readFileSync(path.join(folder, file))])),
      "config.json": JSON.stringify(config),
      "tokenizer.json": JSON.stringify({ version: "1.0", added_tokens: [], pre_tokenizer: { type: "WhitespaceSplit" }, model: { type: "WordLevel", vocab, unk_token: "t0" } }),
      "chat_template.jinja": "{{ messages[0].content }}{{ ' ' }}",
    },
    prompt: text(golden.prompt),
    answer: text(greedy),
    // As many as the golden answer has: random weights hardly end one by themselves.
    length: golden.greedy.length,
  };
}

const widths = { 0: "readUInt8", 1: "readInt8", 2: "readUInt16LE", 3: "readInt16LE", 4: "readUInt32LE", 5: "readInt32LE", 6: "readFloatLE", 10: "readBigUInt64LE", 11: "readBigInt64LE", 12: "readDoubleLE" };
const bytesOf = { 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 10: 8, 11: 8, 12: 8 };

/** A GGUF file's metadata, and its tensors as `{ name, dims, type, at }`. */
function readGguf(file) {
  let at = 24;
  const size = () => Number(file.readBigUInt64LE((at += 8) - 8));
  const text = () => {
    const length = size();
    return file.toString("utf8", at, (at += length));
  };
  const value = (type) => {
    if (type === 8) return text();
    if (type === 7) return file[(at += 1) - 1] === 1;
    if (type === 9) {
      const inside = file.readUInt32LE((at += 4) - 4);
      return Array.from({ length: size() }, () => value(inside));
    }
    return file[widths[type]]((at += bytesOf[type]) - bytesOf[type]);
  };
  const metadata = {};
  for (let count = Number(file.readBigUInt64LE(16)); count > 0; count -= 1) {
    const key = text();
    metadata[key] = value(file.readUInt32LE((at += 4) - 4));
  }
  const tensors = Array.from({ length: Number(file.readBigUInt64LE(8)) }, () => {
    const name = text();
    const rank = file.readUInt32LE((at += 4) - 4);
    const dims = Array.from({ length: rank }, size);
    return { name, dims, type: file.readUInt32LE((at += 4) - 4), at: size() };
  });
  const begin = Math.ceil(at / 32) * 32;
  return { metadata, tensors: tensors.map((tensor) => ({ ...tensor, at: begin + tensor.at })) };
}

function fromHalf(bits) {
  const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
  const size = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24;
  return bits >> 15 ? -size : size;
}

/** The nearest half-precision number; ties to even. */
function toHalf(value) {
  const size = Math.abs(value);
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const exponent = Math.max(-14, Math.floor(Math.log2(size || 2 ** -14)));
  const steps = size / 2 ** (exponent - 10);
  let whole = Math.floor(steps);
  if (steps - whole > 0.5 || (steps - whole === 0.5 && whole % 2)) whole += 1;
  return sign | (whole < 1024 ? whole : ((exponent + 15) << 10) + whole - 1024);
}

/** A stored tensor's numbers: F32, Q4_0 or Q8_0. */
function decode(file, { dims, type, at }) {
  const out = new Float32Array(dims.reduce((product, size) => product * size, 1));
  for (let i = 0; type === 0 && i < out.length; i += 1) out[i] = file.readFloatLE(at + 4 * i);
  const bytes = { 2: 18, 8: 34 }[type] ?? 0;
  if (type !== 0 && !bytes) throw new Error(`type ${type} is not decoded here`);
  for (let block = 0; bytes && block < out.length / 32; block += 1) {
    const start = at + block * bytes;
    const scale = fromHalf(file.readUInt16LE(start));
    for (let i = 0; i < 32; i += 1) {
      const nibble = () => ((file[start + 2 + (i % 16)] >> (i < 16 ? 0 : 4)) & 15) - 8;
      out[32 * block + i] = scale * (type === 2 ? nibble() : file.readInt8(start + 2 + i));
    }
  }
  return out;
}

const hfNames = {
  token_embd: "model.embed_tokens", output_norm: "model.norm", attn_norm: "input_layernorm", ffn_norm: "post_attention_layernorm",
  attn_q: "self_attn.q_proj", attn_k: "self_attn.k_proj", attn_v: "self_attn.v_proj", attn_output: "self_attn.o_proj",
  ffn_gate: "mlp.gate_proj", ffn_up: "mlp.up_proj", ffn_down: "mlp.down_proj",
};

/**
 * The compact model as a checkpoint: its very weights in single precision and one file, or in half precision (which keeps
 * the blocks that they come from) and two shards with an index.
 */
export function compactCheckpoint({ sharded = false } = {}) {
  const file = fs.readFileSync(path.join(models, "compact.gguf"));
  const { metadata, tensors } = readGguf(file);
  const of = (key) => metadata[`llama.${key}`];
  const [heads, keyHeads, dim] = [of("attention.head_count"), of("attention.head_count_kv"), of("embedding_length")];
  const head = dim / heads;
  const list = tensors.map((tensor) => {
    const [, layer, part] = tensor.name.match(/^(?:blk\.(\d+)\.)?(\w+)\.weight$/);
    const name = `${layer === undefined ? "" : `model.layers.${layer}.`}${hfNames[part]}.weight`;
    const shape = [...tensor.dims].reverse();
    let values = decode(file, tensor);
    if (part === "attn_q" || part === "attn_k") {
      // Theirs rotates row i of a head with row i + head/2, ours neighbours.
      const turned = new Float32Array(values.length);
      for (let row = 0; row < shape[0]; row += 1) {
        const [first, i] = [row - (row % head), row % head];
        const from = first + (i < head / 2 ? 2 * i : 2 * (i - head / 2) + 1);
        turned.set(values.subarray(from * dim, (from + 1) * dim), row * dim);
      }
      values = turned;
    }
    const halves = sharded && shape.length === 2;
    const bytes = halves ? Buffer.from(Uint16Array.from(values, toHalf).buffer) : Buffer.from(values.buffer);
    return [name, shape, halves ? "F16" : "F32", bytes];
  });
  const config = {
    model_type: "llama", vocab_size: metadata["tokenizer.ggml.tokens"].length, hidden_size: dim, num_attention_heads: heads,
    num_key_value_heads: keyHeads, num_hidden_layers: of("block_count"), intermediate_size: of("feed_forward_length"),
    max_position_embeddings: of("context_length"), rms_norm_eps: of("attention.layer_norm_rms_epsilon"),
    rope_theta: of("rope.freq_base"), tie_word_embeddings: true, hidden_act: "silu",
  };
  const eos = metadata["tokenizer.ggml.tokens"][metadata["tokenizer.ggml.eos_token_id"]];
  const texts = {
    "config.json": JSON.stringify(config),
    "tokenizer.json": fs.readFileSync(path.join(models, "tokenizer.json")),
    "tokenizer_config.json": JSON.stringify({ eos_token: eos, bos_token: eos, add_bos_token: false, chat_template: metadata["tokenizer.chat_template"] }),
    "generation_config.json": JSON.stringify({ eos_token_id: metadata["tokenizer.ggml.eos_token_id"] }),
  };
  if (!sharded) return { ...texts, "model.safetensors": safetensors(list) };
  const half = Math.ceil(list.length / 2);
  const shards = { "model-00001-of-00002.safetensors": list.slice(0, half), "model-00002-of-00002.safetensors": list.slice(half) };
  const weight_map = Object.fromEntries(Object.entries(shards).flatMap(([shard, part]) => part.map(([name]) => [name, shard])));
  const total_size = list.reduce((sum, [, , , bytes]) => sum + bytes.length, 0);
  const files = Object.fromEntries(Object.entries(shards).map(([shard, part]) => [shard, safetensors(part)]));
  return { ...texts, "model.safetensors.index.json": JSON.stringify({ metadata: { total_size }, weight_map }), ...files };
}

/** A checkpoint of random weights in half precision with the compact model's vocabulary: 25 MB a layer. */
export function largeCheckpoint(layers) {
  const small = compactCheckpoint();
  const config = {
    ...JSON.parse(small["config.json"]), hidden_size: 1024, num_attention_heads: 16, num_key_value_heads: 4, num_hidden_layers: layers,
    intermediate_size: 2816, _name_or_path: "random",
  };
  const { hidden_size: dim, intermediate_size: inner, vocab_size: vocab } = config;
  // Halves between 2⁻⁷ and 2⁻⁵ with any sign, of which matrices are repetitions.
  const noise = new Uint16Array(2 * 5003);
  let seed = 1;
  for (let i = 0; i < noise.length; i += 1) {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    noise[i] = ((seed >>> 16) & 0x87ff) | 0x2000;
  }
  const tensors = [];
  const add = (name, ...shape) => {
    const elements = shape.reduce((product, size) => product * size, 1);
    const bytes = shape.length === 2 ? Buffer.alloc(2 * elements, Buffer.from(noise.buffer)) : Buffer.from(new Float32Array(elements).fill(1).buffer);
    tensors.push([`${name}.weight`, shape, shape.length === 2 ? "F16" : "F32", bytes]);
  };
  add("model.embed_tokens", vocab, dim);
  add("model.norm", dim);
  for (let layer = 0; layer < layers; layer += 1) {
    const of = (part, ...shape) => add(`model.layers.${layer}.${hfNames[part]}`, ...shape);
    of("attn_norm", dim);
    of("ffn_norm", dim);
    of("attn_q", dim, dim);
    of("attn_k", dim / 4, dim);
    of("attn_v", dim / 4, dim);
    of("attn_output", dim, dim);
    of("ffn_gate", inner, dim);
    of("ffn_up", inner, dim);
    of("ffn_down", dim, inner);
  }
  return { ...small, "config.json": JSON.stringify(config), "model.safetensors": safetensors(tensors) };
}
