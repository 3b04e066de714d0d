// The best candidate of every slice: all that a greedy choice needs.

var<workgroup> best: array<Choice, THREADS>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    begin(group.y);
    var mine = Choice(NOBODY, 0u);
    for (var i = thread; i < SLICE; i += THREADS) {
        let other = candidate(group.x * SLICE + i);
        if (before(other, mine)) {
            mine = other;
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
    if (thread == 0u) {
        sorted[slice_at(group.y, group.x)] = best[0];
    }
}
