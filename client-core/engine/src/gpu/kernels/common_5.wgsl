// Codes of five bits: nibbles as in Q4_0, then one word for every block with the fifth bits of its elements.

fn fives(word: u32, high: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>((nibble_codes(word) << vec4<u32>(18u)) | (bits(high) << vec4<u32>(22u)) | vec4<u32>(0x3f800000u));
}

// The codes of half of a block as bytes.
fn five_bytes(block: u32, part: u32) -> vec4<u32> {
    let fifths = bit_bytes(bits_word(HIGH, block, part));
    return nibble_bytes(weights[block] >> vec4<u32>(4u * part)) | (fifths << vec4<u32>(4u));
}

// 1 + code / 32.
fn five_bits(block: u32, part: u32) -> Half {
    let q = weights[block] >> vec4<u32>(4u * part);
    let high = bits_word(HIGH, block, part);
    return Half(fives(q.x, high), fives(q.y, high >> 4u), fives(q.z, high >> 8u), fives(q.w, high >> 12u));
}
