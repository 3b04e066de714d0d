// The activation goes through RMSNorm first. The gain is applied element by element; the common factor, which needs the
// sum of squares over the whole column, is taken out of the product and applied to its result.
//
// From the host: DIM (true length of a column), EPSILON.

@group(0) @binding(3) var<storage, read> gain: array<vec4<f32>>;

fn element(column: u32, i: u32) -> vec4<f32> {
    return x[column * X_STRIDE + i];
}

fn weighed(v: vec4<f32>, i: u32) -> vec4<f32> {
    return v * gain[i];
}

fn column_scale(squares: f32) -> f32 {
    return 1.0 / sqrt(squares / f32(DIM) + EPSILON);
}
