// Q6_K: nibbles put into the order of Q4_0; two words for every block with two more bits of each element; a signed byte
// for every half of a block; a half for every eight blocks. A weight is d · byte · (code − 32).

fn sixes(word: u32, high: u32) -> vec4<f32> {
    let upper = vec4<u32>(high, high >> 2u, high >> 4u, high >> 6u) & vec4<u32>(3u);
    return bitcast<vec4<f32>>((nibble_codes(word) << vec4<u32>(17u)) | (upper << vec4<u32>(21u)) | vec4<u32>(0x3f800000u));
}

// The upper bits of the codes of half of a block.
fn upper_bits(block: u32, part: u32) -> u32 {
    return weights[HIGH + (block >> 1u)][(block & 1u) * 2u + part];
}

fn half_scale(block: u32, part: u32) -> f32 {
    let four = weights[SCALES + (block >> 3u)][(block >> 1u) & 3u];
    let byte = bitcast<i32>(four << (24u - 8u * ((block & 1u) * 2u + part))) >> 24u;
    let top = block >> 3u;
    return unpack2x16float(weights[TOPS + (top >> 3u)][(top >> 1u) & 3u])[top & 1u] * SCALE_UNIT * f32(byte);
}

fn coded(block: u32, part: u32) -> Coded {
    let q = weights[block] >> vec4<u32>(4u * part);
    let high = upper_bits(block, part);
    let d = half_scale(block, part);
    let codes = Half(sixes(q.x, high), sixes(q.y, high >> 8u), sixes(q.z, high >> 16u), sixes(q.w, high >> 24u));
    return Coded(codes, 64.0 * d, -96.0 * d);
}

// 4 · (code − 32): the code in the upper bits of a byte, its first bit turned over.
fn six_bytes(block: u32, part: u32) -> vec4<u32> {
    let high = upper_bits(block, part);
    // Four pairs of bits, moved apart in two steps.
    let pairs = vec4<u32>(high, high >> 8u, high >> 16u, high >> 24u) & vec4<u32>(255u);
    let twos = (pairs | (pairs << vec4<u32>(12u))) & vec4<u32>(0x000f000fu);
    let ones = (twos | (twos << vec4<u32>(6u))) & vec4<u32>(0x03030303u);
    let codes = nibble_bytes(weights[block] >> vec4<u32>(4u * part)) | (ones << vec4<u32>(4u));
    return (codes << vec4<u32>(2u)) ^ vec4<u32>(0x80808080u);
}

fn bytes(block: u32) -> Bytes {
    let factors = vec2<f32>(half_scale(block, 0u), half_scale(block, 1u)) / 4.0;
    return Bytes(six_bytes(block, 0u), six_bytes(block, 1u), factors);
}
