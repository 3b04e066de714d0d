// Weights as halves: 16 words a block. Rows are padded with zeros to whole blocks when they are uploaded.

fn halves(low: u32, high: u32) -> vec4<f32> {
    return vec4<f32>(half_to_single(low & 0xffffu), half_to_single(low >> 16u),
                     half_to_single(high & 0xffffu), half_to_single(high >> 16u));
}

fn coded(block: u32, part: u32) -> Coded {
    let a = weights[block * 4u + part * 2u];
    let b = weights[block * 4u + part * 2u + 1u];
    return Coded(Half(halves(a.x, a.y), halves(a.z, a.w), halves(b.x, b.y), halves(b.z, b.w)), 1.0, 0.0);
}
