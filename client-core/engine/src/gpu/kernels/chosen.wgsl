// Where a choice comes from and where it goes. One workgroup chooses for a column; a thread answers for PER_THREAD
// consecutive slices. The token is left for its sequence's next call (`tokens`, `seen`), so that a call can be queued before
// its token is known.
//
// From the host: SLICES, PER_THREAD, PLACES (of a column's list), CHUNK (tokens of a prompt's part come first in the list,
// then one for each sequence), WORDS (of a sequence's bits).

const THREADS: u32 = 256u;

@group(0) @binding(0) var<storage, read> sorted: array<Choice>;
@group(0) @binding(2) var<uniform> call: Call;
// Ids, with logits as bits.
@group(0) @binding(3) var<storage, read_write> chosen: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read_write> tokens: array<u32>;
@group(0) @binding(5) var<storage, read_write> seen: array<u32>;

var<workgroup> best: array<Choice, THREADS>;

// The parameters of the column, and where its candidates and its list begin. To be set before anything else.
var<private> params: SequenceParams;
var<private> first_sorted: u32;
var<private> first_place: u32;

fn begin(column: u32) {
    params = call.sequences[column];
    first_sorted = column * SLICES * SLICE;
    first_place = column * PLACES;
}

fn candidate_at(slice: u32, at: u32) -> Choice {
    return sorted[first_sorted + slice * SLICE + at];
}

// The best of the slices' bests. To be called by all threads together.
fn best_of_all(thread: u32) -> Choice {
    var mine = Choice(NOBODY, 0u);
    for (var i = 0u; i < PER_THREAD; i++) {
        let slice = thread * PER_THREAD + i;
        if (slice < SLICES && before(candidate_at(slice, 0u), mine)) {
            mine = candidate_at(slice, 0u);
        }
    }
    best[thread] = mine;
    workgroupBarrier();
    for (var width = THREADS / 2u; width > 0u; width /= 2u) {
        if (thread < width && before(best[thread + width], best[thread])) {
            best[thread] = best[thread + width];
        }
        workgroupBarrier();
    }
    return best[0];
}

fn leave(choice: Choice) {
    let logit = select(bitcast<u32>(logit_of(choice.key)), 0u, choice.id == NOBODY);
    chosen[first_place] = vec2<u32>(choice.id, logit);
    let id = min(choice.id, VOCAB - 1u);
    tokens[CHUNK + params.row] = id;
    seen[params.row * WORDS + (id >> 5u)] |= 1u << (id & 31u);
}
