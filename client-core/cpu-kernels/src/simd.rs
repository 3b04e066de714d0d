//! Four singles at a time: a vector of wasm's simd128, or an array that the compiler makes one of.

/// Sign, and the lower 28 bits: where a half's fields are in a single's, once it has been widened by its sign and shifted.
const HALF_FIELDS: u32 = 0x8fff_ffff;
/// 2¹¹²: the exponent there is 112 too small. Multiplying mends subnormal numbers as well.
const HALF_EXPONENTS: u32 = 0x7780_0000;

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod lanes {
    use std::arch::wasm32::*;

    use super::{HALF_EXPONENTS, HALF_FIELDS};

    /// Four singles.
    #[derive(Clone, Copy, Debug)]
    pub struct F4(v128);

    #[allow(missing_docs, reason = "named after what they do to each lane")]
    impl F4 {
        #[inline(always)]
        pub fn splat(x: f32) -> Self {
            Self(f32x4_splat(x))
        }

        #[inline(always)]
        pub fn load(x: &[f32; 4]) -> Self {
            Self(bytemuck::cast(*x))
        }

        /// Of numbers in half precision, none of them infinite.
        #[inline(always)]
        #[allow(unsafe_code)]
        pub fn load_halves(x: &[u16; 4]) -> Self {
            // SAFETY: four numbers of two bytes are there.
            let wide = unsafe { i32x4_load_extend_i16x4(x.as_ptr().cast()) };
            Self(f32x4_mul(
                v128_and(i32x4_shl(wide, 13), i32x4_splat(HALF_FIELDS as i32)),
                f32x4_splat(f32::from_bits(HALF_EXPONENTS)),
            ))
        }

        #[inline(always)]
        pub fn array(self) -> [f32; 4] {
            bytemuck::cast(self.0)
        }

        #[inline(always)]
        pub fn max(self, other: Self) -> Self {
            Self(f32x4_pmax(self.0, other.0))
        }

        #[inline(always)]
        pub fn min(self, other: Self) -> Self {
            Self(f32x4_pmin(self.0, other.0))
        }

        #[inline(always)]
        pub fn floor(self) -> Self {
            Self(f32x4_floor(self.0))
        }

        /// 2 to the power of whole numbers from −126 to 127.
        #[inline(always)]
        pub fn power_of_two(self) -> Self {
            Self(i32x4_shl(i32x4_add(i32x4_trunc_sat_f32x4(self.0), i32x4_splat(127)), 23))
        }

        /// The sums of four vectors, one to a lane.
        #[inline(always)]
        pub fn sums(rows: [Self; 4]) -> Self {
            let pairs = |a: Self, b: Self| {
                Self(f32x4_add(i32x4_shuffle::<0, 2, 4, 6>(a.0, b.0), i32x4_shuffle::<1, 3, 5, 7>(a.0, b.0)))
            };
            pairs(pairs(rows[0], rows[1]), pairs(rows[2], rows[3]))
        }
    }

    impl std::ops::Add for F4 {
        type Output = Self;

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            Self(f32x4_add(self.0, other.0))
        }
    }

    impl std::ops::Sub for F4 {
        type Output = Self;

        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            Self(f32x4_sub(self.0, other.0))
        }
    }

    impl std::ops::Mul for F4 {
        type Output = Self;

        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            Self(f32x4_mul(self.0, other.0))
        }
    }

    impl std::ops::Div for F4 {
        type Output = Self;

        #[inline(always)]
        fn div(self, other: Self) -> Self {
            Self(f32x4_div(self.0, other.0))
        }
    }
}

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod lanes {
    use super::{HALF_EXPONENTS, HALF_FIELDS};

    /// Four singles.
    #[derive(Clone, Copy, Debug)]
    pub struct F4([f32; 4]);

    #[allow(missing_docs, reason = "named after what they do to each lane")]
    impl F4 {
        #[inline(always)]
        fn both(self, other: Self, act: impl Fn(f32, f32) -> f32) -> Self {
            Self(std::array::from_fn(|i| act(self.0[i], other.0[i])))
        }

        #[inline(always)]
        pub fn splat(x: f32) -> Self {
            Self([x; 4])
        }

        #[inline(always)]
        pub fn load(x: &[f32; 4]) -> Self {
            Self(*x)
        }

        /// Of numbers in half precision, none of them infinite.
        #[inline(always)]
        pub fn load_halves(x: &[u16; 4]) -> Self {
            Self(x.map(|bits| {
                let fields = (i32::from(bits as i16) << 13) as u32 & HALF_FIELDS;
                f32::from_bits(fields) * f32::from_bits(HALF_EXPONENTS)
            }))
        }

        #[inline(always)]
        pub fn array(self) -> [f32; 4] {
            self.0
        }

        #[inline(always)]
        pub fn max(self, other: Self) -> Self {
            self.both(other, |a, b| if a < b { b } else { a })
        }

        #[inline(always)]
        pub fn min(self, other: Self) -> Self {
            self.both(other, |a, b| if b < a { b } else { a })
        }

        #[inline(always)]
        pub fn floor(self) -> Self {
            Self(self.0.map(f32::floor))
        }

        /// 2 to the power of whole numbers from −126 to 127.
        #[inline(always)]
        pub fn power_of_two(self) -> Self {
            Self(self.0.map(|n| f32::from_bits(((n as i32 + 127) << 23) as u32)))
        }

        /// The sums of four vectors, one to a lane.
        #[inline(always)]
        pub fn sums(rows: [Self; 4]) -> Self {
            Self(rows.map(|Self([a, b, c, d])| (a + b) + (c + d)))
        }
    }

    impl std::ops::Add for F4 {
        type Output = Self;

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            self.both(other, |a, b| a + b)
        }
    }

    impl std::ops::Sub for F4 {
        type Output = Self;

        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            self.both(other, |a, b| a - b)
        }
    }

    impl std::ops::Mul for F4 {
        type Output = Self;

        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            self.both(other, |a, b| a * b)
        }
    }

    impl std::ops::Div for F4 {
        type Output = Self;

        #[inline(always)]
        fn div(self, other: Self) -> Self {
            self.both(other, |a, b| a / b)
        }
    }
}

pub use lanes::F4;

impl F4 {
    /// eˣ to two units in the last place. Results below 1e-38 and above 1e38 are held there.
    #[inline(always)]
    pub fn exp(self) -> Self {
        let of = Self::splat;
        let x = self.max(of(-87.3)).min(of(88.3));
        let n = (x * of(std::f32::consts::LOG2_E) + of(0.5)).floor();
        // ln 2 in two parts, so that n · ln 2 is subtracted exactly.
        let r = x - n * of(0.693_359_4) - n * of(-2.121_944_4e-4);
        // (eʳ − 1 − r)/r² on |r| ≤ ln 2 / 2 as a polynomial, with the coefficients of the Cephes library's expf.
        let mut p = of(1.987_569_1e-4);
        for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_6e-1, 5e-1] {
            p = p * r + of(c);
        }
        (p * r * r + r + of(1.0)) * n.power_of_two()
    }

    /// cap · tanh(x / cap).
    #[inline(always)]
    pub fn capped(self, cap: f32) -> Self {
        let of = Self::splat;
        // tanh(y) = 1 − 2 / (e²ʸ + 1).
        let doubled = (self * of(2.0 / cap)).exp() + of(1.0);
        of(cap) - of(2.0 * cap) / doubled
    }
}

#[cfg(test)]
mod tests {
    use super::F4;

    #[test]
    fn halves_are_what_they_stand_for() {
        for bits in (0..=u16::MAX).filter(|bits| bits & 0x7c00 != 0x7c00) {
            let expect = half::f16::from_bits(bits).to_f32();
            let found = F4::load_halves(&[bits, 0, bits, 0x3c00]).array();
            assert_eq!(found.map(f32::to_bits), [expect, 0.0, expect, 1.0].map(f32::to_bits), "{bits:#x}");
        }
    }

    #[test]
    fn caps_are_exact_to_rounding() {
        for (cap, x) in
            [(30.0f32, 0.01f32), (30.0, -7.5), (50.0, 49.0), (2.5, -3.0), (50.0, 1e6), (50.0, -1e30), (3.0, 0.0)]
        {
            let expect = f64::from(cap) * (f64::from(x) / f64::from(cap)).tanh();
            let [found, ..] = F4::splat(x).capped(cap).array();
            assert!(
                (f64::from(found) - expect).abs() <= 3e-7 * f64::from(cap),
                "{x} within {cap}: {found} and {expect}"
            );
        }
    }

    #[test]
    fn the_exponential_is_exact_to_rounding() {
        for i in -2175..2200 {
            let x: [f32; 4] = std::array::from_fn(|lane| (4 * i + lane as i32) as f32 * 0.01);
            for (x, y) in x.iter().zip(F4::load(&x).exp().array()) {
                let expect = f64::from(*x).exp();
                let error = (f64::from(y) - expect).abs() / expect;
                assert!(error < 2.5e-7, "exp({x}) is off by {error:e}");
            }
        }
        assert_eq!(F4::splat(0.0).exp().array(), [1.0; 4]);
        assert!(F4::splat(-1000.0).exp().array()[0] < 2e-38 && F4::splat(1000.0).exp().array()[0] > 1e38);
    }
}
