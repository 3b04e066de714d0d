// Weights as halves: 16 words a block. Rows are padded with zeros to whole blocks when they are uploaded.

fn halves(low: u32, high: u32) -> vec4<f32> {
    return vec4<f32>(half_to_single(low & 0xffffu), half_to_single(low >> 16u),
                     half_to_single(high & 0xffffu), half_to_single(high >> 16u));
}

fn load_block(block: u32) -> Block {
    let a = weights[block * 4u];
    let b = weights[block * 4u + 1u];
    let c = weights[block * 4u + 2u];
    let d = weights[block * 4u + 3u];
    return Block(halves(a.x, a.y), halves(a.z, a.w), halves(b.x, b.y), halves(b.z, b.w),
                 halves(c.x, c.y), halves(c.z, c.w), halves(d.x, d.y), halves(d.z, d.w));
}
