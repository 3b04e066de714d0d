// Where a choice comes from and where it goes. One workgroup chooses; a thread answers for PER_THREAD consecutive slices.
// The token is left for the next call (`tokens`, `seen`), so that a call can be queued before its token is known.
//
// From the host: SLICES, PER_THREAD.

const THREADS: u32 = 256u;

@group(0) @binding(0) var<storage, read> sorted: array<Choice>;
@group(0) @binding(2) var<uniform> call: Call;
// Ids, with logits as bits.
@group(0) @binding(3) var<storage, read_write> chosen: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read_write> tokens: array<u32>;
@group(0) @binding(5) var<storage, read_write> seen: array<u32>;

var<workgroup> best: array<Choice, THREADS>;

// The best of the slices' bests. To be called by all threads together.
fn best_of_all(thread: u32) -> Choice {
    var mine = Choice(NOBODY, 0u);
    for (var i = 0u; i < PER_THREAD; i++) {
        let slice = thread * PER_THREAD + i;
        if (slice < SLICES && before(sorted[slice * SLICE], mine)) {
            mine = sorted[slice * SLICE];
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
    chosen[0] = vec2<u32>(choice.id, logit);
    let id = min(choice.id, VOCAB - 1u);
    tokens[0] = id;
    seen[id >> 5u] |= 1u << (id & 31u);
}
