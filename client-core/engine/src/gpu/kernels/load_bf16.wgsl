// Weights as the upper halves of singles: 16 words a block. Rows are padded with zeros to whole blocks when they are
// uploaded.

fn uppers(low: u32, high: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(low << 16u, low & 0xffff0000u, high << 16u, high & 0xffff0000u));
}

fn coded(block: u32, part: u32) -> Coded {
    let a = weights[block * 4u + part * 2u];
    let b = weights[block * 4u + part * 2u + 1u];
    return Coded(Half(uppers(a.x, a.y), uppers(a.z, a.w), uppers(b.x, b.y), uppers(b.z, b.w)), 1.0, 0.0);
}
