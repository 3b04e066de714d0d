// What a block's bytes are multiplied with (see `Bytes`), where halves have minima of their own.

alias Factors = vec4<f32>;

// What minima of halves add to a product with activations of these sums.
fn of_minima(factors: Factors, sums: vec2<f32>) -> f32 {
    return dot(factors.zw, sums);
}
