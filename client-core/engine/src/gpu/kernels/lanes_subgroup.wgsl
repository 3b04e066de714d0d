// Sums over the lanes of a group, by exchange within subgroups and through workgroup memory for what they do not cover.
//
// WGSL says neither how many threads a subgroup has (4 to 128) nor which threads of the workgroup they are. So threads are
// numbered here: a subgroup's active threads one after the other, the subgroups in the order in which they come by. An
// exchange reaches `width` neighbours, the most that every subgroup can take part in: all lanes of a group on most
// devices, four where subgroups are of four, none where a subgroup's numbers are not in step with its own ones.

struct Input {
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_invocation_id) own: u32,
}

// Threads that have their number.
var<workgroup> taken: atomic<u32>;
// Pieces that the lanes of a group fall into.
var<workgroup> pieces: atomic<u32>;
var<workgroup> width: u32;
var<workgroup> lane_sums: array<vec2<f32>, THREADS>;

fn numbered(input: Input) -> u32 {
    let rank = subgroupExclusiveAdd(1u);
    let count = subgroupAdd(1u);
    let in_step = subgroupAll(rank == input.own);
    var first = 0u;
    if (rank == 0u) {
        first = atomicAdd(&taken, count);
    }
    first = subgroupBroadcastFirst(first);
    if (rank == 0u) {
        // The largest power of two that divides all three.
        let span = 1u << firstTrailingBit(count | first | LANES);
        atomicMax(&pieces, LANES / select(1u, span, in_step));
    }
    workgroupBarrier();
    if (input.index == 0u) {
        width = LANES / atomicLoad(&pieces);
    }
    return first + rank;
}

// How many neighbours an exchange reaches.
fn exchanged() -> u32 {
    return workgroupUniformLoad(&width);
}

fn lane_sum(value: vec2<f32>, thread: u32, lane: u32, reach: u32) -> vec2<f32> {
    var sum = value;
    for (var step = 1u; step < reach; step *= 2u) {
        sum += subgroupShuffleXor(sum, step);
    }
    if (reach < LANES) {
        // Nobody may write while others still read the sum before.
        workgroupBarrier();
        lane_sums[thread] = sum;
        workgroupBarrier();
        if (lane == 0u) {
            for (var other = reach; other < LANES; other += reach) {
                sum += lane_sums[thread + other];
            }
        }
    }
    return sum;
}
