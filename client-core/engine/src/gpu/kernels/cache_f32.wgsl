// Pairs of elements in the KV cache, in single precision.

alias Cached = vec2<f32>;

fn cached(pair: vec2<f32>) -> Cached {
    return pair;
}

fn uncached(pair: Cached) -> vec2<f32> {
    return pair;
}
