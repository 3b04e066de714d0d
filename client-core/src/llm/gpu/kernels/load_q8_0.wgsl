// Q8_0: eight words of signed bytes a block; the scales, two to a word, follow after all blocks.

fn signed_bytes(word: u32) -> vec4<f32> {
    let high = vec4<u32>(word << 24u, word << 16u, word << 8u, word);
    return vec4<f32>(bitcast<vec4<i32>>(high) >> vec4<u32>(24u));
}

fn load_block(block: u32) -> Block {
    let d = block_scale(block);
    let a = weights[block * 2u];
    let b = weights[block * 2u + 1u];
    return Block(d * signed_bytes(a.x), d * signed_bytes(a.y), d * signed_bytes(a.z), d * signed_bytes(a.w),
                 d * signed_bytes(b.x), d * signed_bytes(b.y), d * signed_bytes(b.z), d * signed_bytes(b.w));
}
