// Q3_K: pairs of bits as in common_2.wgsl, third bits as in common_1.wgsl, scales as in common_split.wgsl. A weight is
// d · byte · (code − 4).

// 1 + code / 8.
fn threes(low: u32, high: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>((pairs(low) << vec4<u32>(20u)) | (bits(high) << vec4<u32>(22u)) | vec4<u32>(0x3f800000u));
}

fn coded(block: u32, part: u32) -> Coded {
    let low = pairs_word(0u, block, part);
    let high = bits_word(HIGH, block, part);
    let d = half_scale(block, part);
    let codes = Half(threes(low, high), threes(low >> 8u, high >> 4u),
                     threes(low >> 16u, high >> 8u), threes(low >> 24u, high >> 12u));
    return Coded(codes, 8.0 * d, -12.0 * d);
}

// 32 · (code − 4): the code in the upper bits of a byte, its first bit turned over.
fn three_bytes(block: u32, part: u32) -> vec4<u32> {
    let low = pair_bytes(pairs_word(0u, block, part));
    let high = bit_bytes(bits_word(HIGH, block, part));
    return ((low << vec4<u32>(5u)) | (high << vec4<u32>(7u))) ^ vec4<u32>(0x80808080u);
}

fn bytes(block: u32) -> Bytes {
    let factors = vec2<f32>(half_scale(block, 0u), half_scale(block, 1u)) / 32.0;
    return Bytes(three_bytes(block, 0u), three_bytes(block, 1u), factors);
}
