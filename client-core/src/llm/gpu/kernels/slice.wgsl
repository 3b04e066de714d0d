// One slice of the logits, tokens that are in the text already made less likely.

const THREADS: u32 = 256u;

@group(0) @binding(0) var<storage, read> logits: array<f32>;
// A bit for every token that is in the text already.
@group(0) @binding(1) var<storage, read> seen: array<u32>;
@group(0) @binding(2) var<uniform> call: Call;
@group(0) @binding(3) var<storage, read_write> sorted: array<Choice>;

fn candidate(id: u32) -> Choice {
    if (id >= VOCAB) {
        return Choice(NOBODY, 0u);
    }
    var logit = logits[id];
    if ((bitcast<u32>(logit) & 0x7fffffffu) > 0x7f800000u) {
        return Choice(NOBODY, 0u); // not a number
    }
    if (((seen[id >> 5u] >> (id & 31u)) & 1u) == 1u) {
        logit = select(logit * call.penalty, logit / call.penalty, logit > 0.0);
    }
    return Choice(id, key_of(clamp(logit, LOWEST, HIGHEST)));
}
