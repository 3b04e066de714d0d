// silu(gate) · up. The matrix holds the rows of gate, then those of up. From the host: ROWS, OUT_STRIDE.

@group(0) @binding(4) var<storage, read_write> result: array<f32>;

fn rows_of(unit: u32) -> vec2<u32> {
    return vec2<u32>(unit, unit + ROWS / 2u);
}

fn finish(unit: u32, rows: vec2<u32>, column: u32, value: vec2<f32>) {
    // Past 80 the exponential would overflow, and silu is zero to the last bit anyway.
    let silu = value.x / (1.0 + exp(min(-value.x, 80.0)));
    result[column * OUT_STRIDE + unit] = silu * value.y;
}
