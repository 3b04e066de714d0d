// Q5_K: codes as in common_5.wgsl, then scales as in common_k.wgsl. A weight is d · code − m.

fn coded(block: u32, part: u32) -> Coded {
    let d = k_pair(block);
    return Coded(five_bits(block, part), 32.0 * d.x, -d.y - 32.0 * d.x);
}

fn bytes(block: u32) -> Bytes {
    return Bytes(five_bytes(block, 0u), five_bytes(block, 1u), k_pair(block) * vec2<f32>(1.0, -1.0));
}
