// Q8_0: eight words of signed bytes a block; the scales, two to a word, follow after all blocks. A weight is d · byte.
// The bytes are moved up by 128 so that they too fit into a fraction.

fn bytes_of(word: u32) -> vec4<f32> {
    let w = word ^ 0x80808080u;
    let bits = vec4<u32>(w << 15u, w << 7u, w >> 1u, w >> 9u) & vec4<u32>(0x7f8000u);
    return bitcast<vec4<f32>>(bits | vec4<u32>(0x3f800000u));
}

fn coded(block: u32, part: u32) -> Coded {
    let d = block_scale(block);
    let q = weights[block * 2u + part];
    return Coded(Half(bytes_of(q.x), bytes_of(q.y), bytes_of(q.z), bytes_of(q.w)), 256.0 * d, -384.0 * d);
}

fn bytes(block: u32) -> Bytes {
    return Bytes(weights[block * 2u], weights[block * 2u + 1u], vec2<f32>(block_scale(block), 0.0));
}
