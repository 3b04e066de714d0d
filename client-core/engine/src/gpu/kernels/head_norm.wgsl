// RMSNorm of every head of queries and keys, then RoPE: queries stay where they are, keys go into the cache. One workgroup
// for a head and a column.
//
// From the host: PAIRS (half a head), HEADS (of queries), KV_PAIRS (half of a position's keys), Q_PAIRS (half of a
// column), Q_NORM, K_NORM, EPSILON.

const THREADS: u32 = 32u;

@group(0) @binding(2) var<uniform> call: Call;
// Of queries, then of keys.
@group(0) @binding(3) var<storage, read> gain: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read_write> result: array<vec2<f32>>;
@group(0) @binding(5) var<storage, read_write> keys: array<Cached>;

var<workgroup> squares: array<f32, THREADS>;

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let column = group.y;
    let head = group.x;
    let is_key = head >= HEADS;
    let own = column * Q_PAIRS + head * PAIRS;
    var sum = 0.0;
    for (var i = thread; i < PAIRS; i += THREADS) {
        let v = result[own + i];
        sum += dot(v, v);
    }
    squares[thread] = sum;
    workgroupBarrier();
    sum = 0.0;
    for (var i = 0u; i < THREADS; i++) {
        sum += squares[i];
    }
    let scale = 1.0 / sqrt(sum / f32(2u * PAIRS) + EPSILON);
    let normed = select(Q_NORM, K_NORM, is_key);
    for (var i = thread; i < PAIRS; i += THREADS) {
        var v = result[own + i];
        if (normed) {
            v *= scale * gain[select(0u, PAIRS, is_key) + i];
        }
        v = turned(2u * i, column, v);
        if (is_key) {
            keys[(cache_of(column) + position_of(column)) * KV_PAIRS + (head - HEADS) * PAIRS + i] = cached(v);
        } else {
            result[own + i] = v;
        }
    }
}
