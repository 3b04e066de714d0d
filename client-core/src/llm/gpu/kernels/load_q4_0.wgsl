// Q4_0: four words a block, elements 0..16 in the low nibbles and 16..32 in the high ones; the scales, two to a word,
// follow after all blocks.

fn nibbles(word: u32) -> vec4<f32> {
    let codes = vec4<u32>(word, word >> 8u, word >> 16u, word >> 24u) & vec4<u32>(15u);
    return vec4<f32>(codes) - vec4<f32>(8.0);
}

fn load_block(block: u32) -> Block {
    let d = block_scale(block);
    let q = weights[block];
    return Block(d * nibbles(q.x), d * nibbles(q.y), d * nibbles(q.z), d * nibbles(q.w),
                 d * nibbles(q.x >> 4u), d * nibbles(q.y >> 4u), d * nibbles(q.z >> 4u), d * nibbles(q.w >> 4u));
}
