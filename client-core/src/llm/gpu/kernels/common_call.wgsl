// What one call computes.
struct Call {
    position: u32, // of the first column in the sequence
    columns: u32,  // tokens in this call
    top_k: u32,
    unused: u32,
}
