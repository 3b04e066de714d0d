// Q1_0: single bits as in common_1.wgsl, then a scale for every four blocks. A weight is d where the bit is 1, else −d.

fn signs(word: u32) -> vec4<f32> {
    let above = vec4<u32>(word << 31u, word << 30u, word << 29u, word << 28u) & vec4<u32>(0x80000000u);
    return bitcast<vec4<f32>>(above ^ vec4<u32>(0xbf800000u));
}

fn coded(block: u32, part: u32) -> Coded {
    let q = bits_word(0u, block, part);
    return Coded(Half(signs(q), signs(q >> 4u), signs(q >> 8u), signs(q >> 12u)), block_scale(block >> 2u), 0.0);
}

// 1 or −1.
fn sign_bytes(block: u32, part: u32) -> vec4<u32> {
    return (bit_bytes(bits_word(0u, block, part)) * 254u) ^ vec4<u32>(0xffffffffu);
}

fn bytes(block: u32) -> Bytes {
    return Bytes(sign_bytes(block, 0u), sign_bytes(block, 1u), vec2<f32>(block_scale(block >> 2u), 0.0));
}
