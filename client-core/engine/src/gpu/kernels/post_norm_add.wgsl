// RMSNorm of what attention or the feed-forward net gives, added to the residual stream. One workgroup for a column.
//
// From the host: STRIDE (of a column, in vectors), DIM (its true length), EPSILON.

const THREADS: u32 = 256u;

@group(0) @binding(0) var<storage, read> given: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> gain: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> result: array<vec4<f32>>;

var<workgroup> squares: array<f32, THREADS>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let own = group.y * STRIDE;
    var sum = 0.0;
    for (var i = thread; i < STRIDE; i += THREADS) {
        let v = given[own + i];
        sum += dot(v, v);
    }
    squares[thread] = sum;
    for (var step = THREADS / 2u; step > 0u; step /= 2u) {
        workgroupBarrier();
        if (thread < step) {
            squares[thread] += squares[thread + step];
        }
    }
    workgroupBarrier();
    let scale = 1.0 / sqrt(squares[0] / f32(DIM) + EPSILON);
    for (var i = thread; i < STRIDE; i += THREADS) {
        result[own + i] += given[own + i] * scale * gain[i];
    }
}
