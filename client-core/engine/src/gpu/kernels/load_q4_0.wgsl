// Q4_0: four words a block, elements 0..16 in the low nibbles and 16..32 in the high ones; the scales, two to a word,
// follow after all blocks. A weight is d · (code − 8).

fn coded(block: u32, part: u32) -> Coded {
    let q = weights[block] >> vec4<u32>(4u * part);
    let d = block_scale(block);
    return Coded(Half(nibbles(q.x), nibbles(q.y), nibbles(q.z), nibbles(q.w)), 16.0 * d, -24.0 * d);
}

// 16 · (code − 8): the code in the upper half of a byte, its first bit turned over.
fn bytes(block: u32) -> Bytes {
    let q = weights[block];
    let sign = vec4<u32>(0x80808080u);
    let low = (nibble_bytes(q) << vec4<u32>(4u)) ^ sign;
    let high = (q & vec4<u32>(0xf0f0f0f0u)) ^ sign;
    return Bytes(low, high, vec2<f32>(block_scale(block) / 16.0, 0.0));
}
