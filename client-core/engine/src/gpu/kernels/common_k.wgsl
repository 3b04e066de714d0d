// Scale and minimum of a block of Q4_K and Q5_K: eight blocks share a vector with two halves that multiply all scales
// and all minima, then 8 six-bit scales and minima in ggml's twelve bytes.

fn scale_byte(v: vec4<u32>, index: u32) -> u32 {
    return (v[1u + (index >> 2u)] >> ((index & 3u) * 8u)) & 255u;
}

fn k_pair(block: u32) -> vec2<f32> {
    let v = weights[SCALES + (block >> 3u)];
    let j = block & 7u;
    let low = scale_byte(v, j & 3u);
    let high = scale_byte(v, (j & 3u) + 4u);
    let mixed = scale_byte(v, (j & 3u) + 8u);
    var scale = low & 63u;
    var minimum = high & 63u;
    if (j > 3u) {
        scale = (mixed & 15u) | ((low >> 6u) << 4u);
        minimum = (mixed >> 4u) | ((high >> 6u) << 4u);
    }
    return unpack2x16float(v.x) * SCALE_UNIT * vec2<f32>(f32(scale), f32(minimum));
}
