// As matmul_tiled.wgsl, for quantised rows, in products of packed bytes (WGSL's packed_4x8_integer_dot_product).
//
// A code is a signed byte. An activation becomes a number of 16 bits, 256 · upper + lower, both signed bytes too, times a
// scale that it shares with the other elements of its block: eight bits alone would be off by more than 1e-3 in the
// logits. A block of a row times a block of a column is then two sums of products of bytes, exact, and one multiplication
// by both scales. What is wrong is an activation, by at most half of 1/32512 of its block's largest.
//
// Bounds: uppers are in [-127, 127], lowers and codes in [-128, 127]. So 32 products of codes and whole numbers are at most
// 32 · 128 · (256 · 127 + 128), less than 2^27.
//
// A tile as in tile.wgsl. A workgroup goes along the rows two blocks at a time; each thread decodes a block of a row and
// quantises half a block of a column.
//
// From the host: BLOCKS (of a row), HALF_SCALES (see `Bytes`).

const COLUMN_PARTS: u32 = 4u;
// What a block's largest magnitude becomes. A quotient's error, a few units in its last place, rounds away.
const LARGEST: f32 = 32512.0;
// Blocks that are smaller in all elements count as this large: neither the scale nor its inverse leaves the normal range.
const TINY: f32 = 1e-30;
// More than the rows or columns of a tile, so that what neighbours write lies in different banks.
const W_STRIDE: u32 = 66u;
const V_STRIDE: u32 = 33u;

// Half h of a row's block b at (2 · b + h) · W_STRIDE + (which of its unit's two rows) · 32 + unit: a vector is 16 bytes.
var<workgroup> tile_w: array<vec4<u32>, 4u * W_STRIDE>;
var<workgroup> factors: array<Factors, 2u * W_STRIDE>;
// Half h of a column's block b, uppers and then lowers, from 2 · (2 · b + h) · V_STRIDE + column on.
var<workgroup> tile_v: array<vec4<u32>, 8u * V_STRIDE>;
// The block's scale and the half's sum, at (2 · b + h) · V_STRIDE + column.
var<workgroup> scales: array<vec2<f32>, 4u * V_STRIDE>;
// The largest magnitudes of what each thread quantises.
var<workgroup> peaks: array<f32, 128>;

// A block of a column.
struct Quantised {
    upper_low: vec4<u32>,
    lower_low: vec4<u32>,
    upper_high: vec4<u32>,
    lower_high: vec4<u32>,
    scale: f32,
    sums: vec2<f32>,
}

fn largest(v: Half) -> f32 {
    let four = max(max(abs(v.a), abs(v.b)), max(abs(v.c), abs(v.d)));
    return max(max(four.x, four.y), max(four.z, four.w));
}

fn integers(v: vec4<f32>, inverse: f32) -> vec4<i32> {
    return vec4<i32>(round(v * inverse));
}

// What is left to the upper byte once the lower one is a signed byte.
fn upper(q: vec4<i32>) -> u32 {
    return pack4xI8((q + vec4<i32>(128)) >> vec4<u32>(8u));
}

fn bytes_dot(a: vec4<u32>, b: vec4<u32>) -> i32 {
    return dot4I8Packed(a.x, b.x) + dot4I8Packed(a.y, b.y) + dot4I8Packed(a.z, b.z) + dot4I8Packed(a.w, b.w);
}

fn product(w: Bytes, v: Quantised) -> f32 {
    let low = 256 * bytes_dot(w.low, v.upper_low) + bytes_dot(w.low, v.lower_low);
    let high = 256 * bytes_dot(w.high, v.upper_high) + bytes_dot(w.high, v.lower_high);
    if (HALF_SCALES) {
        return v.scale * (w.factors.x * f32(low) + w.factors.y * f32(high)) + of_minima(w.factors, v.sums);
    }
    return w.factors.x * (v.scale * f32(low + high)) + w.factors.y * (v.sums.x + v.sums.y);
}

fn products(r0: Bytes, r1: Bytes, r2: Bytes, r3: Bytes, v: Quantised) -> vec4<f32> {
    return vec4<f32>(product(r0, v), product(r1, v), product(r2, v), product(r3, v));
}

fn row_block(block: u32, row: u32) -> Bytes {
    let at = 2u * block * W_STRIDE + row;
    return Bytes(tile_w[at], tile_w[at + W_STRIDE], factors[block * W_STRIDE + row]);
}

fn column_block(block: u32, column: u32) -> Quantised {
    let at = 4u * block * V_STRIDE + column;
    let low = scales[2u * block * V_STRIDE + column];
    let high = scales[(2u * block + 1u) * V_STRIDE + column];
    return Quantised(tile_v[at], tile_v[at + V_STRIDE], tile_v[at + 2u * V_STRIDE], tile_v[at + 3u * V_STRIDE],
                     low.x, vec2<f32>(low.y, high.y));
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let first_unit = group.x * TILE_UNITS;
    let first = group.y * TILE_COLUMNS;

    // What this thread decodes: one of two blocks of a row.
    let slot = thread / 2u;
    let second = thread % 2u;
    let pair = rows_of(min(first_unit + slot % 32u, UNITS - 1u));
    let row = select(pair.x, pair.y, slot >= 32u);
    // What it quantises: half of one of two blocks of a column. Columns past the last one of the call are whatever an
    // earlier call left there, and nothing is stored of them.
    let c = thread / 4u;
    let k = thread % 4u;
    var square = 0.0;
    // What it computes.
    let u = thread % 16u;
    let v = thread / 16u;
    var acc0 = vec4<f32>(0.0);
    var acc1 = vec4<f32>(0.0);
    var acc2 = vec4<f32>(0.0);
    var acc3 = vec4<f32>(0.0);
    for (var block = 0u; block < BLOCKS; block += 2u) {
        // Behind an odd number of blocks comes one of zeros, whatever it is multiplied with.
        let w = bytes(row * BLOCKS + min(block + second, BLOCKS - 1u));
        var values = Half();
        if (block + k / 2u < BLOCKS) {
            let i = block * 8u + k * 4u;
            let raw = Half(element(first + c, i), element(first + c, i + 1u),
                           element(first + c, i + 2u), element(first + c, i + 3u));
            square += half_dot(raw, raw);
            values = Half(weighed(raw.a, i), weighed(raw.b, i + 1u), weighed(raw.c, i + 2u), weighed(raw.d, i + 3u));
        }
        // Read by the neighbour behind the barrier, and not again before everyone is past the next one.
        peaks[thread] = largest(values);
        workgroupBarrier();
        tile_w[2u * second * W_STRIDE + slot] = w.low;
        tile_w[(2u * second + 1u) * W_STRIDE + slot] = w.high;
        factors[second * W_STRIDE + slot] = w.factors;
        let peak = max(max(peaks[thread], peaks[thread ^ 1u]), TINY);
        let scale = peak / LARGEST;
        let inverse = LARGEST / peak;
        let qa = integers(values.a, inverse);
        let qb = integers(values.b, inverse);
        let qc = integers(values.c, inverse);
        let qd = integers(values.d, inverse);
        let sum = qa + qb + qc + qd;
        tile_v[2u * k * V_STRIDE + c] = vec4<u32>(upper(qa), upper(qb), upper(qc), upper(qd));
        tile_v[(2u * k + 1u) * V_STRIDE + c] = vec4<u32>(pack4xI8(qa), pack4xI8(qb), pack4xI8(qc), pack4xI8(qd));
        scales[k * V_STRIDE + c] = vec2<f32>(scale, scale * f32(sum.x + sum.y + sum.z + sum.w));
        workgroupBarrier();
        for (var b = 0u; b < 2u; b++) {
            let r0 = row_block(b, u);
            let r1 = row_block(b, u + 32u);
            let r2 = row_block(b, u + 16u);
            let r3 = row_block(b, u + 48u);
            acc0 += products(r0, r1, r2, r3, column_block(b, v));
            acc1 += products(r0, r1, r2, r3, column_block(b, v + 8u));
            acc2 += products(r0, r1, r2, r3, column_block(b, v + 16u));
            acc3 += products(r0, r1, r2, r3, column_block(b, v + 24u));
        }
    }
    squares[thread] = square;
    workgroupBarrier();
    let unit = first_unit + u;
    finish_column(unit, first + v, v, acc0);
    finish_column(unit, first + v + 8u, v + 8u, acc1);
    finish_column(unit, first + v + 16u, v + 16u, acc2);
    finish_column(unit, first + v + 24u, v + 24u, acc3);
}
