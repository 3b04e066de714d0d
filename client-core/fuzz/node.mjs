// The driver inside wasm32: node node.mjs FILE.wasm TARGET EXECUTIONS SEED, with FILE from
// cargo build --release --lib --target wasm32-unknown-unknown. TARGET is 0 gguf, 1 safetensors, 2 tokenizer, 3 template, 4 tokenizer_json,
// 5 folder. Nothing unwinds here: these two show that the checks hold without it.
import { readFile } from "node:fs/promises";

const [file, target = "0", executions = "100000", seed = "1"] = process.argv.slice(2);
const module = await WebAssembly.compile(await readFile(file));
// What is imported belongs to parts that the targets do not reach; a call of one would be a mistake.
const imports = {};
for (const { module: from, name } of WebAssembly.Module.imports(module)) {
    (imports[from] ??= {})[name] = () => {
        throw new Error(`${from}.${name} was called`);
    };
}
const { exports } = await WebAssembly.instantiate(module, imports);
const sound = exports.mutate(Number(target), Number(executions), Number(seed)) >>> 0;
console.log(`wasm32, target ${target}: ${executions} executions from seed ${seed}, ${sound} of them sound, no crash`);
