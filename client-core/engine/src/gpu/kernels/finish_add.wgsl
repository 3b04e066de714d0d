// Back into the residual stream. From the host: ROWS, OUT_STRIDE (of a column, in elements).

@group(0) @binding(4) var<storage, read_write> result: array<f32>;

fn rows_of(unit: u32) -> vec2<u32> {
    return vec2<u32>(2u * unit, min(2u * unit + 1u, ROWS - 1u));
}

fn finish(unit: u32, rows: vec2<u32>, column: u32, value: vec2<f32>) {
    let at = column * OUT_STRIDE;
    result[at + rows.x] += value.x;
    if (rows.y != rows.x) {
        result[at + rows.y] += value.y;
    }
}
