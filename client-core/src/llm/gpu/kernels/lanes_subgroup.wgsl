// Sums over the lanes of a group, which are neighbours in a subgroup: that a subgroup has at least LANES threads, and
// that its threads are consecutive ones of the workgroup, is proved by the self-test on each device.

fn lane_sum(value: vec2<f32>, thread: u32, lane: u32) -> vec2<f32> {
    var sum = value;
    for (var step = 1u; step < LANES; step *= 2u) {
        sum += subgroupShuffleXor(sum, step);
    }
    return sum;
}
