// act(gate) · up. The matrix holds the rows of gate, then those of up. From the host: ROWS, OUT_STRIDE, GELU (which act is;
// else it is SiLU).

@group(0) @binding(4) var<storage, read_write> result: array<f32>;

fn rows_of(unit: u32) -> vec2<u32> {
    return vec2<u32>(unit, unit + ROWS / 2u);
}

fn finish(unit: u32, rows: vec2<u32>, column: u32, value: vec2<f32>) {
    // Both are x · sigmoid(inside). GELU is the approximation by tanh, with sqrt(8 / pi) and that times 0.044715.
    var inside = value.x;
    if (GELU) {
        inside *= 1.5957692 + 0.071354814 * value.x * value.x;
    }
    // Past 80 the exponential would overflow, and the result is zero to the last bit anyway.
    let gate = value.x / (1.0 + exp(min(-inside, 80.0)));
    result[column * OUT_STRIDE + unit] = gate * value.y;
}
