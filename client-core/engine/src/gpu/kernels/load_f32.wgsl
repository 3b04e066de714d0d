// Weights as singles: 32 words a block. Rows are padded with zeros to whole blocks when they are uploaded.

fn coded(block: u32, part: u32) -> Coded {
    let at = block * 8u + part * 4u;
    let codes = Half(bitcast<vec4<f32>>(weights[at]), bitcast<vec4<f32>>(weights[at + 1u]),
                     bitcast<vec4<f32>>(weights[at + 2u]), bitcast<vec4<f32>>(weights[at + 3u]));
    return Coded(codes, 1.0, 0.0);
}
