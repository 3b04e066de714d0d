// The activation goes through RMSNorm first. Every workgroup computes the mean square for itself: that costs less than a
// dispatch of its own. The gain is applied element by element; the common factor is taken out of the sum.
//
// From the host: DIM (true length of a column), EPSILON.

@group(0) @binding(3) var<storage, read> gain: array<vec4<f32>>;

var<workgroup> squares: array<f32, THREADS * COLS>;
var<workgroup> scales: array<f32, COLS>;

fn prepare(first: u32, thread: u32) {
    for (var c = 0u; c < COLS; c++) {
        var sum = vec4<f32>(0.0);
        // Elements past DIM are zero.
        for (var i = thread; i < X_STRIDE; i += THREADS) {
            let v = x[(first + c) * X_STRIDE + i];
            sum += v * v;
        }
        squares[c * THREADS + thread] = sum.x + sum.y + sum.z + sum.w;
    }
    workgroupBarrier();
    if (thread < COLS) {
        var sum = 0.0;
        for (var i = 0u; i < THREADS; i++) {
            sum += squares[thread * THREADS + i];
        }
        scales[thread] = 1.0 / sqrt(sum / f32(DIM) + EPSILON);
    }
    workgroupBarrier();
}

fn column_scale(c: u32) -> f32 {
    return scales[c];
}

fn operand(column: u32, block: u32) -> Block {
    let at = column * X_STRIDE + block * 8u;
    let g = block * 8u;
    return Block(x[at] * gain[g], x[at + 1u] * gain[g + 1u], x[at + 2u] * gain[g + 2u], x[at + 3u] * gain[g + 3u],
                 x[at + 4u] * gain[g + 4u], x[at + 5u] * gain[g + 5u], x[at + 6u] * gain[g + 6u],
                 x[at + 7u] * gain[g + 7u]);
}
