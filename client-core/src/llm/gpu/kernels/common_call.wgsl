// What one call computes.
struct Call {
    position: u32, // of the first column in the sequence
    columns: u32,  // tokens in this call
    top_k: u32,    // places of the list, or candidates of the draw; 0 for all
    mode: u32,     // how a token is chosen: see choose.wgsl
    temperature: f32,
    top_p: f32,
    penalty: f32,  // of tokens that are in the text already; 1 for none
    draw: f32,     // random, uniform in [0, 1)
}
