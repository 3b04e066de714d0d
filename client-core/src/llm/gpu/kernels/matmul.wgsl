// Rows of a stored matrix times the columns of an activation: `y[column][row] = w[row] · x[column]`.
//
// A workgroup of 64 threads is eight units of eight lanes. A unit computes two rows (which two, and what happens to the
// results, is the epilogue's choice) for COLS columns; its lanes share the row's blocks. A block is dequantised once and
// used for all columns.
//
// From the host: COLS, BLOCKS (of a row), UNITS, X_STRIDE (of a column, in vectors), LAST_ONLY.

const LANES: u32 = 8u;
const THREADS: u32 = 64u;

@group(0) @binding(0) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<uniform> call: Call;

var<workgroup> sums: array<vec2<f32>, THREADS * COLS>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    var first = group.y * COLS;
    if (LAST_ONLY) {
        first = call.columns - 1u;
    }
    prepare(first, thread);

    let lane = thread % LANES;
    let unit = group.x * (THREADS / LANES) + thread / LANES;
    let rows = rows_of(min(unit, UNITS - 1u));
    var acc: array<vec2<f32>, COLS>;
    for (var block = lane; block < BLOCKS; block += LANES) {
        let upper = load_block(rows.x * BLOCKS + block);
        let lower = load_block(rows.y * BLOCKS + block);
        for (var c = 0u; c < COLS; c++) {
            let v = operand(first + c, block);
            acc[c] += vec2<f32>(block_dot(upper, v), block_dot(lower, v));
        }
    }
    for (var c = 0u; c < COLS; c++) {
        sums[c * THREADS + thread] = acc[c];
    }
    workgroupBarrier();
    // Each lane finishes some of the columns.
    for (var c = lane; c < COLS; c += LANES) {
        var sum = vec2<f32>(0.0);
        for (var other = 0u; other < LANES; other++) {
            sum += sums[c * THREADS + thread - lane + other];
        }
        let column = first + c;
        if (unit < UNITS && column < call.columns) {
            finish(unit, rows, column, sum * column_scale(c));
        }
    }
}
