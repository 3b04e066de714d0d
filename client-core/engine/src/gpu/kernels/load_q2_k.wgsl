// Q2_K: pairs of bits as in common_2.wgsl; a byte for every half of a block, with a factor of the scale below and one of
// the minimum above; two halves for every eight blocks. A weight is d · low · code − m · high.

// The scale and the minimum of half of a block.
fn half_pair(block: u32, part: u32) -> vec2<f32> {
    let factors = weights[SCALES + (block >> 3u)][(block >> 1u) & 3u] >> (8u * ((block & 1u) * 2u + part));
    let top = block >> 3u;
    let units = unpack2x16float(weights[TOPS + (top >> 2u)][top & 3u]) * SCALE_UNIT;
    return units * vec2<f32>(f32(factors & 15u), f32((factors >> 4u) & 15u));
}

// code / 4, and not more than that: then a weight is rounded once, as in the reference.
fn quarters(word: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>((pairs(word) << vec4<u32>(21u)) | vec4<u32>(0x3f800000u)) - vec4<f32>(1.0);
}

fn coded(block: u32, part: u32) -> Coded {
    let q = pairs_word(0u, block, part);
    let d = half_pair(block, part);
    return Coded(Half(quarters(q), quarters(q >> 8u), quarters(q >> 16u), quarters(q >> 24u)), 4.0 * d.x, -d.y);
}

fn bytes(block: u32) -> Bytes {
    let low = half_pair(block, 0u);
    let high = half_pair(block, 1u);
    return Bytes(pair_bytes(pairs_word(0u, block, 0u)), pair_bytes(pairs_word(0u, block, 1u)),
                 vec4<f32>(low.x, high.x, -low.y, -high.y));
}
