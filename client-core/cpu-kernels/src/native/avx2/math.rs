//! Activation functions, eight singles at a time: the operations of the portable [`F4`](crate::simd::F4) in their order,
//! and so its bits.

use std::arch::x86_64::*;

use super::singles;
use crate::glu::Gated;

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn of(x: f32) -> __m256 {
    _mm256_set1_ps(x)
}

/// eˣ to two units in the last place. Results below 1e-38 and above 1e38 are held there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub fn exp(x: __m256) -> __m256 {
    // In this order of operands NaN stays NaN.
    let x = _mm256_min_ps(of(88.3), _mm256_max_ps(of(-87.3), x));
    let n = _mm256_floor_ps(_mm256_add_ps(_mm256_mul_ps(x, of(std::f32::consts::LOG2_E)), of(0.5)));
    let r = _mm256_sub_ps(x, _mm256_mul_ps(n, of(0.693_359_4)));
    let r = _mm256_sub_ps(r, _mm256_mul_ps(n, of(-2.121_944_4e-4)));
    let mut p = of(1.987_569_1e-4);
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_6e-1, 5e-1] {
        p = _mm256_add_ps(_mm256_mul_ps(p, r), of(c));
    }
    let p = _mm256_add_ps(_mm256_add_ps(_mm256_mul_ps(_mm256_mul_ps(p, r), r), r), of(1.0));
    let power = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvttps_epi32(n), _mm256_set1_epi32(127)));
    _mm256_mul_ps(p, _mm256_castsi256_ps(power))
}

/// cap · tanh(x / cap).
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub fn capped(x: __m256, cap: f32) -> __m256 {
    let doubled = _mm256_add_ps(exp(_mm256_mul_ps(x, of(2.0 / cap))), of(1.0));
    _mm256_sub_ps(of(cap), _mm256_div_ps(of(2.0 * cap), doubled))
}

/// x · σ(x), or GELU by tanh.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn activated<const GELU: bool>(x: __m256) -> __m256 {
    let inside = if GELU {
        let square = _mm256_mul_ps(_mm256_mul_ps(of(0.071_354_814), x), x);
        _mm256_mul_ps(x, _mm256_add_ps(of(1.595_769_2), square))
    } else {
        x
    };
    _mm256_div_ps(x, _mm256_add_ps(exp(_mm256_sub_ps(of(0.0), inside)), of(1.0)))
}

/// A piece of [`Gated`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn gated(job: &Gated<'_>, piece: usize) {
    match job.gelu {
        true => gated_by::<true>(job, piece),
        false => gated_by::<false>(job, piece),
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn gated_by<const GELU: bool>(job: &Gated<'_>, piece: usize) {
    let ffn = job.ffn;
    for (i, row) in job.rows_of(piece) {
        let (gate, up) = row.split_at(ffn);
        let (gates, ups) = (gate.as_chunks::<8>(), up.as_chunks::<8>());
        for (at, (g, u)) in gates.0.iter().zip(ups.0).enumerate() {
            let y: [f32; 8] = bytemuck::cast(_mm256_mul_ps(activated::<GELU>(singles(g)), singles(u)));
            job.out.write(i * ffn + 8 * at, &y);
        }
        for (at, (g, u)) in gates.1.iter().zip(ups.1).enumerate() {
            let y = _mm256_cvtss_f32(activated::<GELU>(of(*g))) * u;
            job.out.write(i * ffn + 8 * gates.0.len() + at, &[y]);
        }
    }
}
