// IQ4_NL: codes as in common_levels.wgsl, then a scale for every block. A weight is d · level.

fn coded(block: u32, part: u32) -> Coded {
    return Coded(half_levels(block, part), block_scale(block), 0.0);
}

fn bytes(block: u32) -> Bytes {
    return Bytes(level_bytes(block, 0u), level_bytes(block, 1u), vec2<f32>(block_scale(block), 0.0));
}
