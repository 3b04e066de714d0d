// The greedy choice.

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) thread: u32) {
    let winner = best_of_all(thread);
    if (thread == 0u) {
        leave(winner);
    }
}
