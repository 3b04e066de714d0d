// Every slice in order (bitonic), and the running sums of its candidates' weights exp((logit − best of the slice) /
// temperature).

@group(0) @binding(4) var<storage, read_write> masses: array<f32>;

var<workgroup> run: array<Choice, SLICE>;
var<workgroup> sums: array<f32, THREADS>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    begin(group.y);
    let base = group.x * SLICE;
    for (var i = thread; i < SLICE; i += THREADS) {
        run[i] = candidate(base + i);
    }
    workgroupBarrier();
    for (var size = 2u; size <= SLICE; size *= 2u) {
        for (var stride = size / 2u; stride > 0u; stride /= 2u) {
            for (var i = thread; i < SLICE / 2u; i += THREADS) {
                let low = (i / stride) * stride * 2u + i % stride;
                let high = low + stride;
                // Runs alternate in direction until the last one.
                let a = run[low];
                let b = run[high];
                if (before(b, a) == ((low & size) == 0u)) {
                    run[low] = b;
                    run[high] = a;
                }
            }
            workgroupBarrier();
        }
    }
    let top = logit_of(run[0].key);
    let share = SLICE / THREADS;
    var weights: array<f32, SLICE / THREADS>;
    var sum = 0.0;
    for (var i = 0u; i < share; i++) {
        let mine = run[thread * share + i];
        if (mine.id != NOBODY) {
            sum += exp((logit_of(mine.key) - top) / params.temperature);
        }
        weights[i] = sum;
    }
    sums[thread] = sum;
    workgroupBarrier();
    for (var step = 1u; step < THREADS; step *= 2u) {
        var more = 0.0;
        if (thread >= step) {
            more = sums[thread - step];
        }
        workgroupBarrier();
        sums[thread] += more;
        workgroupBarrier();
    }
    let earlier = sums[thread] - sum;
    let place = slice_at(group.y, group.x);
    for (var i = 0u; i < share; i++) {
        let at = thread * share + i;
        sorted[place + at] = run[at];
        masses[place + at] = earlier + weights[i];
    }
}
