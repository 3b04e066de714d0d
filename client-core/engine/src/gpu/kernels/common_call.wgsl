// What one call computes: consecutive tokens of one sequence (number 0), or one token of each of several sequences (a line
// each). From the host: LINES.

struct SequenceParams {
    position: u32, // of the first column in its sequence
    row: u32,      // which of the sequences that share the caches
    top_k: u32,    // places of the list, or candidates of the draw; 0 for all
    mode: u32,     // how a token is chosen: see choose.wgsl
    temperature: f32,
    top_p: f32,
    penalty: f32,  // of tokens that are in the text already; 1 for none
    draw: f32,     // random, uniform in [0, 1)
}

struct Call {
    columns: u32,  // tokens in this call
    apart: u32,    // 1 where every column is another sequence's, 0 where all are of one
    capacity: u32, // tokens that a sequence's cache holds
    unused: u32,
    sequences: array<SequenceParams, LINES>,
}

// Where a column's token stands in its sequence.
fn position_of(column: u32) -> u32 {
    return call.sequences[column * call.apart].position + column * (1u - call.apart);
}

// Where a column's sequence begins in a cache, in positions.
fn cache_of(column: u32) -> u32 {
    return call.sequences[column * call.apart].row * call.capacity;
}
