// The `top_k` largest logits, largest first, equal ones by id; with top_k = 1 this is the greedy choice. One workgroup
// goes over the logits once for every place: k is small, and nothing has to be sorted. From the host: VOCAB.

const THREADS: u32 = 256u;
const LOWEST: f32 = -3.4e38;

struct Choice {
    id: u32,
    logit: f32,
}

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read_write> chosen: array<Choice>;
@group(0) @binding(2) var<uniform> call: Call;

var<workgroup> best: array<Choice, THREADS>;

// Whether `a` comes before `b`.
fn before(a: Choice, b: Choice) -> bool {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) thread: u32) {
    var last = Choice(0u, LOWEST);
    for (var place = 0u; place < call.top_k; place++) {
        // An id past the end, so that any real token of the lowest logit comes before it.
        var mine = Choice(VOCAB, LOWEST);
        for (var id = thread; id < VOCAB; id += THREADS) {
            let candidate = Choice(id, logits[id]);
            if (before(candidate, mine) && (place == 0u || before(last, candidate))) {
                mine = candidate;
            }
        }
        best[thread] = mine;
        workgroupBarrier();
        for (var half = THREADS / 2u; half > 0u; half /= 2u) {
            if (thread < half && before(best[thread + half], best[thread])) {
                best[thread] = best[thread + half];
            }
            workgroupBarrier();
        }
        last = best[0];
        if (thread == 0u) {
            chosen[place] = last;
        }
        // Nobody may write `best` again before all have read the winner.
        workgroupBarrier();
    }
}
