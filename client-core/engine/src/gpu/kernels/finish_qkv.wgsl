// Queries are rotated and stored; keys are rotated and go into the cache with the values. The matrix holds the rows of
// q, k and v under each other; a unit's two rows are a pair that RoPE turns. Where heads are normalised before they are
// rotated (HEAD_NORM), keys are stored beside the queries, as they are, and head_norm.wgsl does the rest.
//
// From the host: Q_DIM, KV_DIM, HEAD_DIM, OUT_STRIDE, BIAS, HEAD_NORM.

@group(0) @binding(4) var<storage, read_write> result: array<f32>;
@group(0) @binding(5) var<storage, read_write> keys: array<Cached>;
@group(0) @binding(6) var<storage, read_write> values: array<Cached>;
@group(0) @binding(8) var<storage, read> bias: array<f32>;

fn rows_of(unit: u32) -> vec2<u32> {
    return vec2<u32>(2u * unit, 2u * unit + 1u);
}

fn finish(unit: u32, rows: vec2<u32>, column: u32, product: vec2<f32>) {
    let row = rows.x;
    let place = (cache_of(column) + position_of(column)) * KV_DIM;
    var value = product;
    if (BIAS) {
        value += vec2<f32>(bias[row], bias[row + 1u]);
    }
    if (row >= Q_DIM + KV_DIM) {
        values[(place + row - Q_DIM - KV_DIM) / 2u] = cached(value);
        return;
    }
    if (!HEAD_NORM) {
        value = turned(row % HEAD_DIM, column, value);
    }
    if (row < Q_DIM || HEAD_NORM) {
        result[column * OUT_STRIDE + row] = value.x;
        result[column * OUT_STRIDE + row + 1u] = value.y;
    } else {
        keys[(place + row - Q_DIM) / 2u] = cached(value);
    }
}
