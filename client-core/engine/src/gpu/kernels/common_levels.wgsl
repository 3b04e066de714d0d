// Codes of the IQ4 types: nibbles as in Q4_0, each a place among 16 levels. Chosen, not indexed: arrays that are indexed
// may lie in memory.

// The levels at four places, in the lowest byte of a word each.
fn level_words(places: vec4<u32>) -> vec4<u32> {
    let upper = (places & vec4<u32>(4u)) != vec4<u32>(0u);
    // -127 -104 -83 -65, -49 -35 -22 -10; 1 13 25 38, 53 69 89 113.
    let below = select(vec4<u32>(0xbfad9881u), vec4<u32>(0xf6eaddcfu), upper);
    let above = select(vec4<u32>(0x26190d01u), vec4<u32>(0x71594535u), upper);
    return select(below, above, places > vec4<u32>(7u)) >> ((places & vec4<u32>(3u)) << vec4<u32>(3u));
}

// The levels at the places in the low nibbles of a word's bytes.
fn levels(word: u32) -> vec4<f32> {
    let words = level_words(nibble_codes(word)) << vec4<u32>(24u);
    return vec4<f32>(bitcast<vec4<i32>>(words) >> vec4<u32>(24u));
}

// The levels of half of a block.
fn half_levels(block: u32, part: u32) -> Half {
    let q = weights[block] >> vec4<u32>(4u * part);
    return Half(levels(q.x), levels(q.y), levels(q.z), levels(q.w));
}

// The same as bytes.
fn level_bytes(block: u32, part: u32) -> vec4<u32> {
    let places = nibble_bytes(weights[block] >> vec4<u32>(4u * part));
    let byte = vec4<u32>(255u);
    let first = level_words(places & byte) & byte;
    let second = level_words((places >> vec4<u32>(8u)) & byte) & byte;
    let third = level_words((places >> vec4<u32>(16u)) & byte) & byte;
    let fourth = level_words(places >> vec4<u32>(24u));
    return first | (second << vec4<u32>(8u)) | (third << vec4<u32>(16u)) | (fourth << vec4<u32>(24u));
}
