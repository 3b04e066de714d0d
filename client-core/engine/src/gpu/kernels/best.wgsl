// The greedy choice.

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    begin(group.y);
    let winner = best_of_all(thread);
    if (thread == 0u) {
        leave(winner);
    }
}
