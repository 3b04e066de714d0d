// Rows of a stored matrix times many columns of an activation: `y[column][row] = w[row] · x[column]`.
//
// A tile as in tile.wgsl. A workgroup goes along the rows block by block: the 64 rows' blocks are decoded once, into
// workgroup memory, and serve all columns; the columns' blocks serve all rows.
//
// From the host: BLOCKS (of a row).

const COLUMN_PARTS: u32 = 8u;
// One more than the rows or columns of a tile, so that neighbours along a row lie in different banks.
const W_STRIDE: u32 = 65u;
const V_STRIDE: u32 = 33u;

// Vector k of a row at k · W_STRIDE + (which of its unit's two rows) · 32 + unit.
var<workgroup> tile_w: array<Tiled, 8u * W_STRIDE>;
// Vector k of a column at k · V_STRIDE + column.
var<workgroup> tile_v: array<Tiled, 8u * V_STRIDE>;

fn tile_dot(r0: vec4<f32>, r1: vec4<f32>, r2: vec4<f32>, r3: vec4<f32>, v: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(dot(r0, v), dot(r1, v), dot(r2, v), dot(r3, v));
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let first_unit = group.x * TILE_UNITS;
    let first = group.y * TILE_COLUMNS;

    // What this thread decodes: half of a block of one row.
    let slot = thread % 64u;
    let part = thread / 64u;
    let pair = rows_of(min(first_unit + slot % 32u, UNITS - 1u));
    let row = select(pair.x, pair.y, slot >= 32u);
    // What it loads of the activation: one vector of two columns. Columns past the last one of the call are whatever an
    // earlier call left there, and nothing is stored of them.
    let k = thread % 8u;
    let c = thread / 8u;
    var square0 = 0.0;
    var square1 = 0.0;
    // What it computes.
    let u = thread % 16u;
    let v = thread / 16u;
    var acc0 = vec4<f32>(0.0);
    var acc1 = vec4<f32>(0.0);
    var acc2 = vec4<f32>(0.0);
    var acc3 = vec4<f32>(0.0);
    for (var block = 0u; block < BLOCKS; block++) {
        let w = value_of(coded(row * BLOCKS + block, part));
        let i = block * 8u + k;
        let x0 = element(first + c, i);
        let x1 = element(first + c + 16u, i);
        square0 += dot(x0, x0);
        square1 += dot(x1, x1);
        workgroupBarrier();
        tile_w[(part * 4u) * W_STRIDE + slot] = Tiled(w.a);
        tile_w[(part * 4u + 1u) * W_STRIDE + slot] = Tiled(w.b);
        tile_w[(part * 4u + 2u) * W_STRIDE + slot] = Tiled(w.c);
        tile_w[(part * 4u + 3u) * W_STRIDE + slot] = Tiled(w.d);
        tile_v[k * V_STRIDE + c] = Tiled(weighed(x0, i));
        tile_v[k * V_STRIDE + c + 16u] = Tiled(weighed(x1, i));
        workgroupBarrier();
        for (var at = 0u; at < 8u; at++) {
            let r0 = vec4<f32>(tile_w[at * W_STRIDE + u]);
            let r1 = vec4<f32>(tile_w[at * W_STRIDE + u + 32u]);
            let r2 = vec4<f32>(tile_w[at * W_STRIDE + u + 16u]);
            let r3 = vec4<f32>(tile_w[at * W_STRIDE + u + 48u]);
            acc0 += tile_dot(r0, r1, r2, r3, vec4<f32>(tile_v[at * V_STRIDE + v]));
            acc1 += tile_dot(r0, r1, r2, r3, vec4<f32>(tile_v[at * V_STRIDE + v + 8u]));
            acc2 += tile_dot(r0, r1, r2, r3, vec4<f32>(tile_v[at * V_STRIDE + v + 16u]));
            acc3 += tile_dot(r0, r1, r2, r3, vec4<f32>(tile_v[at * V_STRIDE + v + 24u]));
        }
    }
    squares[c * COLUMN_PARTS + k] = square0;
    squares[(c + 16u) * COLUMN_PARTS + k] = square1;
    workgroupBarrier();
    let unit = first_unit + u;
    finish_column(unit, first + v, v, acc0);
    finish_column(unit, first + v + 8u, v + 8u, acc1);
    finish_column(unit, first + v + 16u, v + 16u, acc2);
    finish_column(unit, first + v + 24u, v + 24u, acc3);
}
