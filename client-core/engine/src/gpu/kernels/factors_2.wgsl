// What a block's bytes are multiplied with (see `Bytes`), where at most one minimum is subtracted.

alias Factors = vec2<f32>;

// What minima of halves add to a product with activations of these sums.
fn of_minima(factors: Factors, sums: vec2<f32>) -> f32 {
    return 0.0;
}
