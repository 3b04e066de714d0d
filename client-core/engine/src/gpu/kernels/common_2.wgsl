// Pairs of bits of elements in their natural order, a word to half of a block.

// The pairs of half of a block, of the part of the buffer that begins at vector `first`.
fn pairs_word(first: u32, block: u32, part: u32) -> u32 {
    return weights[first + (block >> 1u)][(block & 1u) * 2u + part];
}

// The lowest four.
fn pairs(word: u32) -> vec4<u32> {
    return vec4<u32>(word, word >> 2u, word >> 4u, word >> 6u) & vec4<u32>(3u);
}

// All 16 as bytes.
fn pair_bytes(word: u32) -> vec4<u32> {
    // Four pairs, moved apart in two steps.
    let fours = vec4<u32>(word, word >> 8u, word >> 16u, word >> 24u) & vec4<u32>(255u);
    let twos = (fours | (fours << vec4<u32>(12u))) & vec4<u32>(0x000f000fu);
    return (twos | (twos << vec4<u32>(6u))) & vec4<u32>(0x03030303u);
}
