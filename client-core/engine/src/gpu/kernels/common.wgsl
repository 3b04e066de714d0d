// What all kernels that read weights share. A weight is `scale · code + offset`, its code being a number that the stored
// bits become without an integer conversion: they are put into the fraction of a number in [1, 2). From the host:
// HIGH, SCALES and TOPS (where the parts after the codes begin, in vectors of words), SCALE_UNIT (what stored scales are
// multiplied with).

// 16 consecutive elements: half of a block.
struct Half {
    a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>,
}

// Half of a block as stored.
struct Coded {
    codes: Half,
    scale: f32,
    offset: f32,
}

// A block of a quantised type as signed bytes, for products of integers: a weight is `factors.x · byte + factors.y`, or,
// where the two halves have scales of their own (HALF_SCALES), `factors.x · byte` and `factors.y · byte`, plus `factors.z`
// and `factors.w` where they have minima of their own, too (factors_4.wgsl).
struct Bytes {
    low: vec4<u32>,
    high: vec4<u32>,
    factors: Factors,
}

fn half_dot(u: Half, v: Half) -> f32 {
    return dot(u.a, v.a) + dot(u.b, v.b) + dot(u.c, v.c) + dot(u.d, v.d);
}

fn value_of(w: Coded) -> Half {
    return Half(w.codes.a * w.scale + w.offset, w.codes.b * w.scale + w.offset,
                w.codes.c * w.scale + w.offset, w.codes.d * w.scale + w.offset);
}

// Bits 19 to 22 become sixteenths over one.
fn sixteenths(bits: vec4<u32>) -> vec4<f32> {
    return bitcast<vec4<f32>>((bits & vec4<u32>(0x780000u)) | vec4<u32>(0x3f800000u));
}

// 1 + code / 16 of the codes in the low nibbles of a word's bytes.
fn nibbles(word: u32) -> vec4<f32> {
    return sixteenths(vec4<u32>(word << 19u, word << 11u, word << 3u, word >> 5u));
}

// The codes in the low nibbles of a word's bytes.
fn nibble_codes(word: u32) -> vec4<u32> {
    return vec4<u32>(word, word >> 8u, word >> 16u, word >> 24u) & vec4<u32>(15u);
}

// The same as bytes, of all words.
fn nibble_bytes(words: vec4<u32>) -> vec4<u32> {
    return words & vec4<u32>(0x0f0f0f0fu);
}

// Half to single precision by hand: `unpack2x16float` may flush subnormal halves to zero, which single weights are.
fn half_to_single(bits: u32) -> f32 {
    let exponent = (bits >> 10u) & 31u;
    let fraction = bits & 1023u;
    let normal = bitcast<f32>(((exponent + 112u) << 23u) | (fraction << 13u));
    let magnitude = select(normal, f32(fraction) * 5.9604644775390625e-8, exponent == 0u);
    return select(magnitude, -magnitude, (bits & 0x8000u) != 0u);
}

// The scale of a block: one half each.
fn block_scale(block: u32) -> f32 {
    let word = weights[SCALES + (block >> 3u)][(block >> 1u) & 3u];
    return unpack2x16float(word)[block & 1u] * SCALE_UNIT;
}

// The scale and the minimum of a block: two halves each.
fn block_pair(block: u32) -> vec2<f32> {
    return unpack2x16float(weights[SCALES + (block >> 2u)][block & 3u]) * SCALE_UNIT;
}
