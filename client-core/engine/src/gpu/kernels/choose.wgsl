// A list or a draw, from slices in order. List: the `top_k` best in order. Draw: among the `top_k` best, of those the
// fewest whose probabilities reach `top_p`, one by its probability. Both limits are a key from which on candidates are
// kept, found by bisection over all keys with counts and masses from the ordered slices; of candidates with exactly that
// key, the first by id are kept. A draw walks over the slices by id, within a slice from the best down.

const LIST: u32 = 2u;

@group(0) @binding(1) var<storage, read> masses: array<f32>;

struct Total {
    count: u32,
    mass: f32,
}

var<workgroup> counts: array<u32, THREADS>;
var<workgroup> sums: array<f32, THREADS>;
var<workgroup> list: array<Choice, PLACES>;

// How many of a slice have at least this key; nobody has none.
fn count_from(slice: u32, key: u32) -> u32 {
    var low = 0u;
    var high = SLICE;
    while (low < high) {
        let middle = (low + high) / 2u;
        if (candidate_at(slice, middle).key >= key) {
            low = middle + 1u;
        } else {
            high = middle;
        }
    }
    return low;
}

// What a slice's masses are multiplied with to be comparable with the others'.
fn slice_unit(slice: u32, top: f32) -> f32 {
    return exp((logit_of(candidate_at(slice, 0u).key) - top) / params.temperature);
}

fn mass_of(slice: u32, count: u32, top: f32) -> f32 {
    if (count == 0u) {
        return 0.0;
    }
    return masses[first_sorted + slice * SLICE + count - 1u] * slice_unit(slice, top);
}

// Everything with at least this key. To be called by all threads together.
fn total_from(key: u32, top: f32, thread: u32) -> Total {
    var count = 0u;
    var mass = 0.0;
    for (var i = 0u; i < PER_THREAD; i++) {
        let slice = thread * PER_THREAD + i;
        if (slice < SLICES) {
            let n = count_from(slice, key);
            count += n;
            mass += mass_of(slice, n, top);
        }
    }
    workgroupBarrier();
    counts[thread] = count;
    sums[thread] = mass;
    workgroupBarrier();
    for (var width = THREADS / 2u; width > 0u; width /= 2u) {
        if (thread < width) {
            counts[thread] += counts[thread + width];
            sums[thread] += sums[thread + width];
        }
        workgroupBarrier();
    }
    return Total(counts[0], sums[0]);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    begin(group.y);
    // The same once more: branches around barriers may only depend on what is seen to be the same for all threads.
    let call_params = call.sequences[group.y];
    let winner = best_of_all(thread);
    // The `top_k` best: everything above `cut`, and of those with exactly this key the first `ties`.
    let top = logit_of(winner.key);
    var cut = key_of(LOWEST);
    var ties = NOBODY;
    // Past everybody.
    let beyond_best = max(winner.key, cut) + 1u;
    if (call_params.top_k > 0u && call_params.top_k < VOCAB) {
        var above = beyond_best;
        for (var step = 0u; step < 32u; step++) {
            let middle = cut + (above - cut) / 2u;
            if (total_from(middle, top, thread).count >= params.top_k) {
                cut = middle;
            } else {
                above = middle;
            }
        }
        ties = params.top_k - min(params.top_k, total_from(cut + 1u, top, thread).count);
    }
    // Of those, the fewest whose masses reach `top_p`.
    if (call_params.mode != LIST && call_params.top_p < 1.0) {
        let all = total_from(cut, top, thread);
        let over = total_from(cut + 1u, top, thread);
        let kept = over.mass + f32(min(ties, all.count - over.count)) * exp((logit_of(cut) - top) / params.temperature);
        let goal = max(params.top_p * kept, 1e-30);
        let bound = cut;
        var above = beyond_best;
        for (var step = 0u; step < 32u; step++) {
            let middle = cut + (above - cut) / 2u;
            let mass = total_from(middle, top, thread).mass;
            // At the bound itself not all ties count; it is known to reach the goal.
            if (middle == bound || mass >= goal) {
                cut = middle;
            } else {
                above = middle;
            }
        }
        let beyond = total_from(cut + 1u, top, thread).mass;
        let weight = exp((logit_of(cut) - top) / params.temperature);
        let needed = u32(clamp(ceil((goal - beyond) / weight), 1.0, f32(VOCAB)));
        ties = select(needed, min(needed, ties), cut == bound);
    }

    // Ties are granted in the order of ids.
    var equal = 0u;
    for (var i = 0u; i < PER_THREAD; i++) {
        let slice = thread * PER_THREAD + i;
        if (slice < SLICES) {
            equal += count_from(slice, cut) - count_from(slice, cut + 1u);
        }
    }
    workgroupBarrier();
    counts[thread] = equal;
    workgroupBarrier();
    if (thread == 0u) {
        var left = ties;
        for (var i = 0u; i < THREADS; i++) {
            let granted = min(left, counts[i]);
            counts[i] = granted;
            left -= granted;
        }
    }
    workgroupBarrier();
    let granted = counts[thread];
    var left = granted;
    var count = 0u;
    var mass = 0.0;
    for (var i = 0u; i < PER_THREAD; i++) {
        let slice = thread * PER_THREAD + i;
        if (slice < SLICES) {
            let over = count_from(slice, cut + 1u);
            let extra = min(left, count_from(slice, cut) - over);
            left -= extra;
            count += over + extra;
            mass += mass_of(slice, over + extra, top);
        }
    }
    if (call_params.mode == LIST) {
        place(thread, cut, granted, count);
        return;
    }
    sums[thread] = mass;
    workgroupBarrier();
    if (thread == 0u) {
        var all = 0.0;
        for (var i = 0u; i < THREADS; i++) {
            all += sums[i];
        }
        // The last slices may be empty: rounding must not lead there.
        var goal = params.draw * all;
        var owner = 0u;
        for (var i = 0u; i < THREADS; i++) {
            if (sums[i] > 0.0) {
                owner = i;
                if (goal < sums[i]) {
                    break;
                }
                goal -= sums[i];
            }
        }
        leave(drawn(owner, cut, counts[owner], goal, top));
    }
}

// The candidate of `owner`'s slices at which the running mass passes `goal`.
fn drawn(owner: u32, cut: u32, granted: u32, goal: f32, top: f32) -> Choice {
    var rest = goal;
    var left = granted;
    var found = Choice(NOBODY, 0u);
    for (var i = 0u; i < PER_THREAD; i++) {
        let slice = owner * PER_THREAD + i;
        if (slice >= SLICES) {
            break;
        }
        let over = count_from(slice, cut + 1u);
        let extra = min(left, count_from(slice, cut) - over);
        left -= extra;
        let kept = over + extra;
        if (kept == 0u) {
            continue;
        }
        let unit = slice_unit(slice, top);
        // The first whose running mass is past the rest.
        var low = 0u;
        var high = kept;
        while (low < high) {
            let middle = (low + high) / 2u;
            if (masses[first_sorted + slice * SLICE + middle] * unit > rest) {
                high = middle;
            } else {
                low = middle + 1u;
            }
        }
        found = candidate_at(slice, min(low, kept - 1u));
        if (low < kept) {
            break;
        }
        rest -= masses[first_sorted + slice * SLICE + kept - 1u] * unit;
    }
    return found;
}

// Gathers the kept candidates, at most PLACES, and writes them in order. To be called by all threads together.
fn place(thread: u32, cut: u32, granted: u32, count: u32) {
    workgroupBarrier();
    counts[thread] = count;
    workgroupBarrier();
    if (thread == 0u) {
        var sum = 0u;
        for (var i = 0u; i < THREADS; i++) {
            let own = counts[i];
            counts[i] = sum;
            sum += own;
        }
    }
    for (var i = thread; i < PLACES; i += THREADS) {
        list[i] = Choice(NOBODY, 0u);
    }
    workgroupBarrier();
    var at = counts[thread];
    var left = granted;
    for (var i = 0u; i < PER_THREAD; i++) {
        let slice = thread * PER_THREAD + i;
        if (slice < SLICES) {
            let over = count_from(slice, cut + 1u);
            let extra = min(left, count_from(slice, cut) - over);
            left -= extra;
            for (var j = 0u; j < over + extra && at < PLACES; j++) {
                list[at] = candidate_at(slice, j);
                at++;
            }
        }
    }
    workgroupBarrier();
    if (thread < PLACES) {
        let own = list[thread];
        var rank = 0u;
        for (var i = 0u; i < PLACES; i++) {
            // Places that nobody took have to go to different ranks, too.
            if (before(list[i], own) || (i < thread && !before(own, list[i]))) {
                rank++;
            }
        }
        chosen[first_place + rank] = vec2<u32>(own.id, bitcast<u32>(logit_of(own.key)));
    }
}
