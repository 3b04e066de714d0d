// Queries are rotated and stored; keys are rotated and go into the cache with the values. The matrix holds the rows of
// q, k and v under each other; a unit's two rows are a pair that RoPE turns.
//
// From the host: Q_DIM, KV_DIM, HEAD_DIM, ROPE_DIM, OUT_STRIDE.

@group(0) @binding(4) var<storage, read_write> result: array<f32>;
@group(0) @binding(5) var<storage, read_write> keys: array<f32>;
@group(0) @binding(6) var<storage, read_write> values: array<f32>;
// (cos, sin) of every pair, for every column of the call.
@group(0) @binding(7) var<storage, read> rotation: array<vec2<f32>>;

fn rows_of(unit: u32) -> vec2<u32> {
    return vec2<u32>(2u * unit, 2u * unit + 1u);
}

fn turned(element: u32, column: u32, value: vec2<f32>) -> vec2<f32> {
    if (element >= ROPE_DIM) {
        return value;
    }
    let turn = rotation[column * (ROPE_DIM / 2u) + element / 2u];
    return vec2<f32>(value.x * turn.x - value.y * turn.y, value.x * turn.y + value.y * turn.x);
}

fn finish(unit: u32, rows: vec2<u32>, column: u32, value: vec2<f32>) {
    let row = rows.x;
    if (row < Q_DIM) {
        let q = turned(row % HEAD_DIM, column, value);
        result[column * OUT_STRIDE + row] = q.x;
        result[column * OUT_STRIDE + row + 1u] = q.y;
        return;
    }
    let at = (call.position + column) * KV_DIM;
    if (row < Q_DIM + KV_DIM) {
        let element = row - Q_DIM;
        let k = turned(element % HEAD_DIM, column, value);
        keys[at + element] = k.x;
        keys[at + element + 1u] = k.y;
    } else {
        let element = row - Q_DIM - KV_DIM;
        values[at + element] = value.x;
        values[at + element + 1u] = value.y;
    }
}
