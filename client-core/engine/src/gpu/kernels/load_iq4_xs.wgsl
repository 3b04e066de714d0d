// IQ4_XS: codes as in common_levels.wgsl; two words for every eight blocks: a half, the upper two bits of each block's
// scale, and its lower four. A weight is d · (scale − 32) · level.

fn xs_scale(block: u32) -> f32 {
    let v = weights[SCALES + (block >> 4u)];
    let first = ((block >> 3u) & 1u) * 2u;
    let j = block & 7u;
    let low = (v[first + 1u] >> (4u * j)) & 15u;
    let high = (v[first] >> (16u + 2u * j)) & 3u;
    return unpack2x16float(v[first]).x * SCALE_UNIT * f32(i32(low | (high << 4u)) - 32);
}

fn coded(block: u32, part: u32) -> Coded {
    return Coded(half_levels(block, part), xs_scale(block), 0.0);
}

fn bytes(block: u32) -> Bytes {
    return Bytes(level_bytes(block, 0u), level_bytes(block, 1u), vec2<f32>(xs_scale(block), 0.0));
}
