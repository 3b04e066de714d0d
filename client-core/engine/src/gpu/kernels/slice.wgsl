// One slice of a column's logits, tokens that are in the text already made less likely. From the host: SLICES, WORDS (of a
// sequence's bits).

const THREADS: u32 = 256u;

@group(0) @binding(0) var<storage, read> logits: array<f32>;
// A bit for every token that is in the text already.
@group(0) @binding(1) var<storage, read> seen: array<u32>;
@group(0) @binding(2) var<uniform> call: Call;
@group(0) @binding(3) var<storage, read_write> sorted: array<Choice>;

// The parameters of the column. To be set before anything else.
var<private> params: SequenceParams;
// Where its logits begin.
var<private> first_logit: u32;

fn begin(column: u32) {
    params = call.sequences[column];
    first_logit = column * VOCAB;
}

// Where a column's slice begins in the list of candidates.
fn slice_at(column: u32, slice: u32) -> u32 {
    return (column * SLICES + slice) * SLICE;
}

fn candidate(id: u32) -> Choice {
    if (id >= VOCAB) {
        return Choice(NOBODY, 0u);
    }
    var logit = logits[first_logit + id];
    if ((bitcast<u32>(logit) & 0x7fffffffu) > 0x7f800000u) {
        return Choice(NOBODY, 0u); // not a number
    }
    if (((seen[params.row * WORDS + (id >> 5u)] >> (id & 31u)) & 1u) == 1u) {
        logit = select(logit * params.penalty, logit / params.penalty, logit > 0.0);
    }
    return Choice(id, key_of(clamp(logit, LOWEST, HIGHEST)));
}
