// Q4_K: nibbles put into the order of Q4_0, then scales as in common_k.wgsl. A weight is d · code − m.

fn coded(block: u32, part: u32) -> Coded {
    let q = weights[block] >> vec4<u32>(4u * part);
    let d = k_pair(block);
    return Coded(Half(nibbles(q.x), nibbles(q.y), nibbles(q.z), nibbles(q.w)), 16.0 * d.x, -d.y - 16.0 * d.x);
}

fn bytes(block: u32) -> Bytes {
    let q = weights[block];
    return Bytes(nibble_bytes(q), nibble_bytes(q >> vec4<u32>(4u)), k_pair(block) * vec2<f32>(1.0, -1.0));
}
