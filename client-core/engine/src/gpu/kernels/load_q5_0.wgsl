// Q5_0: codes as in common_5.wgsl, then a scale for every block. A weight is d · (code − 16).

fn coded(block: u32, part: u32) -> Coded {
    let d = block_scale(block);
    return Coded(five_bits(block, part), 32.0 * d, -48.0 * d);
}

// 8 · (code − 16): the code in the upper bits of a byte, its first bit turned over.
fn bytes(block: u32) -> Bytes {
    let sign = vec4<u32>(0x80808080u);
    let low = (five_bytes(block, 0u) << vec4<u32>(3u)) ^ sign;
    let high = (five_bytes(block, 1u) << vec4<u32>(3u)) ^ sign;
    return Bytes(low, high, vec2<f32>(block_scale(block) / 8.0, 0.0));
}
