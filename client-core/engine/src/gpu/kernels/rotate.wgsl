// RoPE: turns a pair of neighbours. From the host: ROPE_DIM (elements of a head that are rotated; 0 for none), TURNS
// (pairs of a column), FIRST_TURN (where those of this rotation begin among them).

// (cos, sin) of every pair of every rotation of the model, for every column of the call.
@group(0) @binding(7) var<storage, read> rotation: array<vec2<f32>>;

fn turned(element: u32, column: u32, value: vec2<f32>) -> vec2<f32> {
    if (element >= ROPE_DIM) {
        return value;
    }
    let turn = rotation[column * TURNS + FIRST_TURN + element / 2u];
    return vec2<f32>(value.x * turn.x - value.y * turn.y, value.x * turn.y + value.y * turn.x);
}
