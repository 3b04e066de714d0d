// Rows of a stored matrix times a few columns of an activation: `y[column][row] = w[row] · x[column]`.
//
// A workgroup of 64 threads is split into groups of LANES. A group computes PAIRS units of two rows (which two, and what
// happens to the results, is the epilogue's choice) for COLS columns; its lanes share the rows' blocks. What is loaded of
// the activation serves all rows, what is decoded of the rows serves all columns.
//
// The host repeats a line that begins with a marker: `@p` for every pair of rows, whose number replaces a hash sign
// with p, `@c` for every column, `@pc` for both. Loops would leave it to each driver whether the accumulators stay in
// registers.
//
// From the host: COLS, PAIRS, LANES, BLOCKS (of a row), UNITS, X_STRIDE (of a column, in vectors), LAST_ONLY.

const THREADS: u32 = 64u;

@group(0) @binding(0) var<storage, read> weights: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<uniform> call: Call;

// A block of an activation, with the sums of its halves and of its squares.
struct Operand {
    low: Half,
    high: Half,
    sums: vec2<f32>,
    squares: f32,
}

// A block of a row.
struct RowBlock {
    low: Coded,
    high: Coded,
}

fn sum_of(v: Half) -> f32 {
    return dot(v.a + v.b + v.c + v.d, vec4<f32>(1.0));
}

fn operand(column: u32, block: u32) -> Operand {
    let i = block * 8u;
    let r0 = Half(element(column, i), element(column, i + 1u), element(column, i + 2u), element(column, i + 3u));
    let r1 = Half(element(column, i + 4u), element(column, i + 5u), element(column, i + 6u), element(column, i + 7u));
    let low = Half(weighed(r0.a, i), weighed(r0.b, i + 1u), weighed(r0.c, i + 2u), weighed(r0.d, i + 3u));
    let high = Half(weighed(r1.a, i + 4u), weighed(r1.b, i + 5u), weighed(r1.c, i + 6u), weighed(r1.d, i + 7u));
    return Operand(low, high, vec2<f32>(sum_of(low), sum_of(high)), half_dot(r0, r0) + half_dot(r1, r1));
}

fn row_block(row: u32, block: u32) -> RowBlock {
    let at = row * BLOCKS + block;
    return RowBlock(coded(at, 0u), coded(at, 1u));
}

fn product(w: RowBlock, v: Operand) -> f32 {
    return w.low.scale * half_dot(w.low.codes, v.low) + w.high.scale * half_dot(w.high.codes, v.high)
         + w.low.offset * v.sums.x + w.high.offset * v.sums.y;
}

@compute @workgroup_size(64)
fn main(input: Input) {
    let thread = numbered(input);
    let reach = exchanged();
    var first = input.group.y * COLS;
    if (LAST_ONLY) {
        first = call.columns - 1u;
    }
    let lane = thread % LANES;
    let unit = (input.group.x * (THREADS / LANES) + thread / LANES) * PAIRS;
@p    let rows#p = rows_of(min(unit + #pu, UNITS - 1u));
@pc    var acc#p_#c = vec2<f32>(0.0);
@c    var squares#c = 0.0;
    for (var block = lane; block < BLOCKS; block += LANES) {
@p        let upper#p = row_block(rows#p.x, block);
@p        let lower#p = row_block(rows#p.y, block);
@c        let v#c = operand(first + #cu, block);
@c        squares#c += v#c.squares;
@pc        acc#p_#c += vec2<f32>(product(upper#p, v#c), product(lower#p, v#c));
    }
@c    squares#c = lane_sum(vec2<f32>(squares#c, 0.0), thread, lane, reach).x;
@c    let scale#c = column_scale(squares#c);
@pc    acc#p_#c = lane_sum(acc#p_#c, thread, lane, reach);
    if (lane == 0u) {
@pc        if (unit + #pu < UNITS && first + #cu < call.columns) { finish(unit + #pu, rows#p, first + #cu, acc#p_#c * scale#c); }
    }
}
