// Logits: of one column only, stored without stride. From the host: ROWS.

@group(0) @binding(4) var<storage, read_write> result: array<f32>;

fn rows_of(unit: u32) -> vec2<u32> {
    return vec2<u32>(2u * unit, min(2u * unit + 1u, ROWS - 1u));
}

fn finish(unit: u32, rows: vec2<u32>, column: u32, value: vec2<f32>) {
    result[rows.x] = value.x;
    result[rows.y] = select(value.x, value.y, rows.y != rows.x);
}
