// Candidates for the next token: an id with a key, whose order as an unsigned number is that of the logit. The vocabulary
// is cut into slices; a slice's candidates stand in order, the best first, equal ones by id. From the host: VOCAB, SLICE.

struct Choice {
    id: u32,
    key: u32,
}

const NOBODY: u32 = 0xffffffffu;
// Every real logit is clamped to this range, so that nobody comes after everybody.
const LOWEST: f32 = -3.3e38;
const HIGHEST: f32 = 3.3e38;

fn key_of(logit: f32) -> u32 {
    let bits = bitcast<u32>(logit);
    return select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
}

fn logit_of(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key & 0x7fffffffu, (key >> 31u) == 1u));
}

// Whether `a` comes before `b`.
fn before(a: Choice, b: Choice) -> bool {
    return a.key > b.key || (a.key == b.key && a.id < b.id);
}
