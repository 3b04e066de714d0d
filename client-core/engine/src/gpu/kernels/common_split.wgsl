// Scales of Q3_K and Q6_K: a signed byte for every half of a block, a half for every eight blocks.

fn half_scale(block: u32, part: u32) -> f32 {
    let four = weights[SCALES + (block >> 3u)][(block >> 1u) & 3u];
    let byte = bitcast<i32>(four << (24u - 8u * ((block & 1u) * 2u + part))) >> 24u;
    let top = block >> 3u;
    return unpack2x16float(weights[TOPS + (top >> 3u)][(top >> 1u) & 3u])[top & 1u] * SCALE_UNIT * f32(byte);
}
