// Single bits of elements in their natural order, a word to a block.

// The bits of half of a block, in the lower half of a word, of the part of the buffer that begins at vector `first`.
fn bits_word(first: u32, block: u32, part: u32) -> u32 {
    return weights[first + (block >> 2u)][block & 3u] >> (16u * part);
}

// The lowest four.
fn bits(word: u32) -> vec4<u32> {
    return vec4<u32>(word, word >> 1u, word >> 2u, word >> 3u) & vec4<u32>(1u);
}

// All 16 as bytes.
fn bit_bytes(word: u32) -> vec4<u32> {
    let fours = vec4<u32>(word, word >> 4u, word >> 8u, word >> 12u) & vec4<u32>(15u);
    // Copies of four bits, 7 bits apart, do not overlap, and have bit i at 8 · i.
    return (fours * 0x204081u) & vec4<u32>(0x01010101u);
}
