// Codes of five bits: nibbles as in Q4_0, then one word for every block with the fifth bits of its elements.

fn fives(word: u32, high: u32) -> vec4<f32> {
    let fifth = vec4<u32>(high, high >> 1u, high >> 2u, high >> 3u) & vec4<u32>(1u);
    return bitcast<vec4<f32>>((nibble_codes(word) << vec4<u32>(18u)) | (fifth << vec4<u32>(22u)) | vec4<u32>(0x3f800000u));
}

// The codes of half of a block as bytes.
fn five_bytes(block: u32, part: u32) -> vec4<u32> {
    let high = weights[HIGH + (block >> 2u)][block & 3u] >> (16u * part);
    let fifths = vec4<u32>(high, high >> 4u, high >> 8u, high >> 12u) & vec4<u32>(15u);
    // Copies of four bits, 7 bits apart, do not overlap, and have bit i at 8 · i.
    let spread = (fifths * 0x204081u) & vec4<u32>(0x01010101u);
    return nibble_bytes(weights[block] >> vec4<u32>(4u * part)) | (spread << vec4<u32>(4u));
}

// 1 + code / 32.
fn five_bits(block: u32, part: u32) -> Half {
    let q = weights[block] >> vec4<u32>(4u * part);
    let high = weights[HIGH + (block >> 2u)][block & 3u] >> (16u * part);
    return Half(fives(q.x, high), fives(q.y, high >> 4u), fives(q.z, high >> 8u), fives(q.w, high >> 12u));
}
