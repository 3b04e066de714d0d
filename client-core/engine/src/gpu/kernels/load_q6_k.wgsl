// Q6_K: nibbles put into the order of Q4_0; pairs of bits as in common_2.wgsl; scales as in common_split.wgsl. A weight is
// d · byte · (code − 32).

fn sixes(word: u32, high: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>((nibble_codes(word) << vec4<u32>(17u)) | (pairs(high) << vec4<u32>(21u)) | vec4<u32>(0x3f800000u));
}

fn coded(block: u32, part: u32) -> Coded {
    let q = weights[block] >> vec4<u32>(4u * part);
    let high = pairs_word(HIGH, block, part);
    let d = half_scale(block, part);
    let codes = Half(sixes(q.x, high), sixes(q.y, high >> 8u), sixes(q.z, high >> 16u), sixes(q.w, high >> 24u));
    return Coded(codes, 64.0 * d, -96.0 * d);
}

// 4 · (code − 32): the code in the upper bits of a byte, its first bit turned over.
fn six_bytes(block: u32, part: u32) -> vec4<u32> {
    let high = pair_bytes(pairs_word(HIGH, block, part));
    let codes = nibble_bytes(weights[block] >> vec4<u32>(4u * part)) | (high << vec4<u32>(4u));
    return (codes << vec4<u32>(2u)) ^ vec4<u32>(0x80808080u);
}

fn bytes(block: u32) -> Bytes {
    let factors = vec2<f32>(half_scale(block, 0u), half_scale(block, 1u)) / 4.0;
    return Bytes(six_bytes(block, 0u), six_bytes(block, 1u), factors);
}
