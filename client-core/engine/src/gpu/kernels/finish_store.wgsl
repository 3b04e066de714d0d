// Stored as it is: logits, capped where the model caps them, or what a norm is to follow. From the host: ROWS, OUT_STRIDE,
// LAST_ONLY (of one column only, stored as the first).

@group(0) @binding(4) var<storage, read_write> result: array<f32>;

fn rows_of(unit: u32) -> vec2<u32> {
    return vec2<u32>(2u * unit, min(2u * unit + 1u, ROWS - 1u));
}

fn finish(unit: u32, rows: vec2<u32>, column: u32, value: vec2<f32>) {
    let at = select(column * OUT_STRIDE, 0u, LAST_ONLY);
    result[at + rows.x] = capped(value.x);
    if (rows.y != rows.x) {
        result[at + rows.y] = capped(value.y);
    }
}
