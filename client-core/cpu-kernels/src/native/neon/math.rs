//! Activation functions, four singles at a time: the operations of the portable [`F4`](crate::simd::F4) in their order, and so
//! its bits.

use std::arch::aarch64::*;

use crate::glu::Gated;

#[inline]
#[target_feature(enable = "neon,dotprod,fp16")]
fn of(x: f32) -> float32x4_t {
    vdupq_n_f32(x)
}

/// eˣ to two units in the last place. Results below 1e-38 and above 1e38 are held there.
#[inline]
#[target_feature(enable = "neon,dotprod,fp16")]
pub fn exp(x: float32x4_t) -> float32x4_t {
    let x = vminq_f32(of(88.3), vmaxq_f32(of(-87.3), x));
    let n = vrndmq_f32(vaddq_f32(vmulq_f32(x, of(std::f32::consts::LOG2_E)), of(0.5)));
    let r = vsubq_f32(x, vmulq_f32(n, of(0.693_359_4)));
    let r = vsubq_f32(r, vmulq_f32(n, of(-2.121_944_4e-4)));
    let mut p = of(1.987_569_1e-4);
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_6e-1, 5e-1] {
        p = vaddq_f32(vmulq_f32(p, r), of(c));
    }
    let p = vaddq_f32(vaddq_f32(vmulq_f32(vmulq_f32(p, r), r), r), of(1.0));
    let power = vshlq_n_s32::<23>(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)));
    vmulq_f32(p, vreinterpretq_f32_s32(power))
}

/// cap · tanh(x / cap).
#[inline]
#[target_feature(enable = "neon,dotprod,fp16")]
pub fn capped(x: float32x4_t, cap: f32) -> float32x4_t {
    let doubled = vaddq_f32(exp(vmulq_f32(x, of(2.0 / cap))), of(1.0));
    vsubq_f32(of(cap), vdivq_f32(of(2.0 * cap), doubled))
}

/// x · σ(x), or GELU by tanh.
#[inline]
#[target_feature(enable = "neon,dotprod,fp16")]
fn activated<const GELU: bool>(x: float32x4_t) -> float32x4_t {
    let inside = if GELU {
        let square = vmulq_f32(vmulq_f32(of(0.071_354_814), x), x);
        vmulq_f32(x, vaddq_f32(of(1.595_769_2), square))
    } else {
        x
    };
    vdivq_f32(x, vaddq_f32(exp(vsubq_f32(of(0.0), inside)), of(1.0)))
}

/// A piece of [`Gated`].
#[target_feature(enable = "neon,dotprod,fp16")]
pub fn gated(job: &Gated<'_>, piece: usize) {
    match job.gelu {
        true => gated_by::<true>(job, piece),
        false => gated_by::<false>(job, piece),
    }
}

#[target_feature(enable = "neon,dotprod,fp16")]
fn gated_by<const GELU: bool>(job: &Gated<'_>, piece: usize) {
    let ffn = job.ffn;
    for (i, row) in job.rows_of(piece) {
        let (gate, up) = row.split_at(ffn);
        let (gates, ups) = (gate.as_chunks::<4>(), up.as_chunks::<4>());
        for (at, (g, u)) in gates.0.iter().zip(ups.0).enumerate() {
            let y: [f32; 4] = bytemuck::cast(vmulq_f32(activated::<GELU>(bytemuck::cast(*g)), bytemuck::cast(*u)));
            job.out.write(i * ffn + 4 * at, &y);
        }
        for (at, (g, u)) in gates.1.iter().zip(ups.1).enumerate() {
            let y = vgetq_lane_f32::<0>(activated::<GELU>(of(*g))) * u;
            job.out.write(i * ffn + 4 * gates.0.len() + at, &[y]);
        }
    }
}
