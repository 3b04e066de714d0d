// What the kernels share that compute 32 units of two rows for 32 columns in a workgroup of 128 threads. A thread keeps
// two units, 16 apart, times four columns in registers. Sums of squares, for a norm, come by the way: in each kernel
// COLUMN_PARTS threads see a part of a column each.
//
// From the host: UNITS, X_STRIDE (of a column, in vectors).

const TILE_UNITS: u32 = 32u;
const TILE_COLUMNS: u32 = 32u;

@group(0) @binding(0) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<uniform> call: Call;

// Part k of a column's squares at column · COLUMN_PARTS + k.
var<workgroup> squares: array<f32, TILE_COLUMNS * COLUMN_PARTS>;

fn column_squares(column: u32) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < COLUMN_PARTS; i++) {
        sum += squares[column * COLUMN_PARTS + i];
    }
    return sum;
}

fn finish_column(unit: u32, column: u32, local: u32, value: vec4<f32>) {
    if (column >= call.columns) {
        return;
    }
    let scaled = value * column_scale(column_squares(local));
    if (unit < UNITS) {
        finish(unit, rows_of(unit), column, scaled.xy);
    }
    if (unit + 16u < UNITS) {
        finish(unit + 16u, rows_of(unit + 16u), column, scaled.zw);
    }
}
