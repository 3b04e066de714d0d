// Sums over the lanes of a group, through workgroup memory.

struct Input {
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
}

var<workgroup> lane_sums: array<vec2<f32>, THREADS>;

fn numbered(input: Input) -> u32 {
    return input.index;
}

fn exchanged() -> u32 {
    return 1u;
}

fn lane_sum(value: vec2<f32>, thread: u32, lane: u32, reach: u32) -> vec2<f32> {
    // Nobody may write while others still read the sum before.
    workgroupBarrier();
    lane_sums[thread] = value;
    workgroupBarrier();
    var sum = vec2<f32>(0.0);
    if (lane == 0u) {
        for (var other = 0u; other < LANES; other++) {
            sum += lane_sums[thread + other];
        }
    }
    return sum;
}
