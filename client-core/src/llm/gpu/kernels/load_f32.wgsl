// Weights as singles: 32 words a block. Rows are padded with zeros to whole blocks when they are uploaded.

fn load_block(block: u32) -> Block {
    let at = block * 8u;
    return Block(
        bitcast<vec4<f32>>(weights[at]), bitcast<vec4<f32>>(weights[at + 1u]),
        bitcast<vec4<f32>>(weights[at + 2u]), bitcast<vec4<f32>>(weights[at + 3u]),
        bitcast<vec4<f32>>(weights[at + 4u]), bitcast<vec4<f32>>(weights[at + 5u]),
        bitcast<vec4<f32>>(weights[at + 6u]), bitcast<vec4<f32>>(weights[at + 7u]),
    );
}
