// Q6_K: nibbles put into the order of Q4_0; two words for every block with two more bits of each element; a signed byte
// for every half of a block; a half for every eight blocks. A weight is d · byte · (code − 32).

fn sixes(word: u32, high: u32) -> vec4<f32> {
    let upper = vec4<u32>(high, high >> 2u, high >> 4u, high >> 6u) & vec4<u32>(3u);
    return bitcast<vec4<f32>>((nibble_codes(word) << vec4<u32>(17u)) | (upper << vec4<u32>(21u)) | vec4<u32>(0x3f800000u));
}

fn coded(block: u32, part: u32) -> Coded {
    let q = weights[block] >> vec4<u32>(4u * part);
    let high = weights[HIGH + (block >> 1u)][(block & 1u) * 2u + part];
    let bytes = weights[SCALES + (block >> 3u)][(block >> 1u) & 3u];
    let byte = bitcast<i32>(bytes << (24u - 8u * ((block & 1u) * 2u + part))) >> 24u;
    let top = block >> 3u;
    let d = unpack2x16float(weights[TOPS + (top >> 3u)][(top >> 1u) & 3u])[top & 1u] * SCALE_UNIT * f32(byte);
    let codes = Half(sixes(q.x, high), sixes(q.y, high >> 8u), sixes(q.z, high >> 16u), sixes(q.w, high >> 24u));
    return Coded(codes, 64.0 * d, -96.0 * d);
}
