// Q5_0: codes as in common_5.wgsl, then a scale for every block. A weight is d · (code − 16).

fn coded(block: u32, part: u32) -> Coded {
    let d = block_scale(block);
    return Coded(five_bits(block, part), 32.0 * d, -48.0 * d);
}
