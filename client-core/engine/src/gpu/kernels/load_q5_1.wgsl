// Q5_1: codes as in common_5.wgsl, then a scale d and a minimum m for every block. A weight is d · code + m.

fn coded(block: u32, part: u32) -> Coded {
    let d = block_pair(block);
    return Coded(five_bits(block, part), 32.0 * d.x, d.y - 32.0 * d.x);
}

fn bytes(block: u32) -> Bytes {
    return Bytes(five_bytes(block, 0u), five_bytes(block, 1u), block_pair(block));
}
