// What all kernels that read weights share. `SCALES` (where the scales begin, in vectors of words) comes from the host.

// 32 consecutive elements of a row or of an activation.
struct Block {
    a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>,
    e: vec4<f32>, f: vec4<f32>, g: vec4<f32>, h: vec4<f32>,
}

fn block_dot(u: Block, v: Block) -> f32 {
    let low = dot(u.a, v.a) + dot(u.b, v.b) + dot(u.c, v.c) + dot(u.d, v.d);
    return low + dot(u.e, v.e) + dot(u.f, v.f) + dot(u.g, v.g) + dot(u.h, v.h);
}

// Half to single precision by hand: `unpack2x16float` may flush subnormal halves to zero, and the scale of a block of
// small weights is one.
fn half_to_single(bits: u32) -> f32 {
    let exponent = (bits >> 10u) & 31u;
    let fraction = bits & 1023u;
    let normal = bitcast<f32>(((exponent + 112u) << 23u) | (fraction << 13u));
    let magnitude = select(normal, f32(fraction) * 5.9604644775390625e-8, exponent == 0u);
    return select(magnitude, -magnitude, (bits & 0x8000u) != 0u);
}

fn block_scale(block: u32) -> f32 {
    let word = weights[SCALES + (block >> 3u)][(block >> 1u) & 3u];
    return half_to_single((word >> ((block & 1u) * 16u)) & 0xffffu);
}
