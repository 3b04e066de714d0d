// Causal attention with grouped heads and a streaming softmax: one workgroup for a head and a column. The cache is read
// in tiles of 64 positions; the running maximum, sum and mixture are rescaled whenever a tile raises the maximum, so no
// score is ever stored.
//
// From the host: PAIRS (half a head), KV_PAIRS, Q_PAIRS and O_PAIRS (half of a position's keys, of a column of queries, of
// a column of results), GROUP (query heads to a key head), SCALE (of scores, 1 / sqrt(head) with most), PARTS (how many shares a tile's
// positions are split into), SLOTS (pairs of the head that one thread mixes), WINDOW (positions that a token sees, itself
// included; 0 for all).

const TILE: u32 = 64u;
const LOWEST: f32 = -3.0e38;

@group(0) @binding(0) var<storage, read> queries: array<vec2<f32>>;
@group(0) @binding(1) var<storage, read> keys: array<Cached>;
@group(0) @binding(2) var<uniform> call: Call;
@group(0) @binding(3) var<storage, read> values: array<Cached>;
@group(0) @binding(4) var<storage, read_write> result: array<vec2<f32>>;

var<workgroup> query: array<vec2<f32>, PAIRS>;
var<workgroup> scores: array<f32, TILE>;
var<workgroup> mixed: array<vec2<f32>, TILE>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let column = group.y;
    let own = column * Q_PAIRS + group.x * PAIRS;
    let out = column * O_PAIRS + group.x * PAIRS;
    let head = (group.x / GROUP) * PAIRS;
    for (var i = thread; i < PAIRS; i += TILE) {
        query[i] = queries[own + i] * SCALE;
    }
    let seen = position_of(column) + 1u;
    let own_cache = cache_of(column);
    var begin = 0u;
    if (WINDOW > 0u) {
        begin = seen - min(seen, WINDOW);
    }
    // With SLOTS = 1 a thread mixes one pair over its share of the positions; else it mixes several pairs over all.
    var share = 0u;
    var first_pair = thread;
    if (SLOTS == 1u) {
        share = thread / PAIRS;
        first_pair = thread % PAIRS;
    }
    var top = LOWEST;
    var total = 0.0;
    var mix: array<vec2<f32>, SLOTS>;
    for (var start = begin; start < seen; start += TILE) {
        workgroupBarrier();
        let position = start + thread;
        var score = LOWEST;
        if (position < seen) {
            let at = (own_cache + position) * KV_PAIRS + head;
            var sum = vec2<f32>(0.0);
            for (var i = 0u; i < PAIRS; i++) {
                sum += query[i] * uncached(keys[at + i]);
            }
            score = capped(sum.x + sum.y);
        }
        scores[thread] = score;
        workgroupBarrier();
        var new_top = top;
        for (var i = 0u; i < TILE; i++) {
            new_top = max(new_top, scores[i]);
        }
        workgroupBarrier();
        scores[thread] = select(0.0, exp(score - new_top), position < seen);
        workgroupBarrier();
        let shrink = exp(top - new_top);
        top = new_top;
        total *= shrink;
        for (var i = 0u; i < TILE; i++) {
            total += scores[i];
        }
        let count = min(TILE, seen - start);
        for (var slot = 0u; slot < SLOTS; slot++) {
            let pair = first_pair + slot * TILE;
            var sum = mix[slot] * shrink;
            if (share < PARTS && pair < PAIRS) {
                for (var i = share; i < count; i += PARTS) {
                    sum += scores[i] * uncached(values[(own_cache + start + i) * KV_PAIRS + head + pair]);
                }
            }
            mix[slot] = sum;
        }
    }
    if (SLOTS == 1u) {
        mixed[thread] = mix[0];
        workgroupBarrier();
        if (thread < PAIRS) {
            var sum = vec2<f32>(0.0);
            for (var part = 0u; part < PARTS; part++) {
                sum += mixed[part * PAIRS + thread];
            }
            result[out + thread] = sum / total;
        }
    } else {
        for (var slot = 0u; slot < SLOTS; slot++) {
            let pair = first_pair + slot * TILE;
            if (pair < PAIRS) {
                result[out + pair] = mix[slot] / total;
            }
        }
    }
}
