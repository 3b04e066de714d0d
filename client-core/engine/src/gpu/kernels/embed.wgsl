// The tokens' rows of the embedding, scaled. From the host: BLOCKS, X_STRIDE, EMBEDDING_SCALE, CHUNK (tokens of a prompt's
// part come first in the list, then one for each sequence).

@group(0) @binding(0) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> tokens: array<u32>;
@group(0) @binding(2) var<uniform> call: Call;
@group(0) @binding(3) var<storage, read_write> result: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let block = id.x / 2u;
    let part = id.x % 2u;
    let column = id.y;
    if (block >= BLOCKS || column >= call.columns) {
        return;
    }
    let place = select(column, CHUNK + call.sequences[column * call.apart].row, call.apart == 1u);
    let v = value_of(coded(tokens[place] * BLOCKS + block, part));
    let at = column * X_STRIDE + block * 8u + part * 4u;
    result[at] = v.a * EMBEDDING_SCALE;
    result[at + 1u] = v.b * EMBEDDING_SCALE;
    result[at + 2u] = v.c * EMBEDDING_SCALE;
    result[at + 3u] = v.d * EMBEDDING_SCALE;
}
