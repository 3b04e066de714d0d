// Pairs of elements in the KV cache, in half precision: half the memory and half the traffic.

alias Cached = u32;

fn cached(pair: vec2<f32>) -> Cached {
    // Past the largest half the conversion is not defined.
    return pack2x16float(clamp(pair, vec2<f32>(-65504.0), vec2<f32>(65504.0)));
}

fn uncached(pair: Cached) -> vec2<f32> {
    return unpack2x16float(pair);
}
