//! AVX2 and FMA.

use std::arch::x86_64::*;

use super::{Kernel, LANES, Simd};

/// The proof that this CPU has AVX2 and FMA.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    pub(crate) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }

    /// Compiles `kernel` for these instructions and runs it.
    pub(crate) fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma")]
        fn inner<K: Kernel>(s: Avx2, kernel: K) -> K::Output {
            kernel.run(s)
        }
        // SAFETY: `self` exists only where `detect` has seen both features.
        unsafe { inner(self, kernel) }
    }
}

/// An expression of intrinsics, inside a method of [`Avx2`].
macro_rules! avx2 {
    ($e:expr) => {{
        // SAFETY: an `Avx2` exists only where `detect` has seen AVX2 and FMA, and the intrinsics below need no more. Those that take a
        // pointer read or write eight or four floats, and their pointers come from references to as many (no alignment is asked for);
        // a prefetch may have any address.
        unsafe { $e }
    }};
}

impl Simd for Avx2 {
    type V = __m256;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        avx2!(_mm256_set1_ps(x))
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> __m256 {
        avx2!(_mm256_loadu_ps(x.as_ptr()))
    }
    #[inline(always)]
    fn store(self, v: __m256, y: &mut [f32; LANES]) {
        avx2!(_mm256_storeu_ps(y.as_mut_ptr(), v))
    }
    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_div_ps(a, b))
    }
    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        avx2!(_mm256_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn neg_mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        avx2!(_mm256_fnmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        avx2!(_mm256_max_ps(a, b))
    }
    // Where an operand is NaN, the instructions return the second.
    #[inline(always)]
    fn clamp(self, v: __m256, low: f32, high: f32) -> __m256 {
        avx2!(_mm256_min_ps(_mm256_set1_ps(high), _mm256_max_ps(_mm256_set1_ps(low), v)))
    }
    #[inline(always)]
    fn round(self, v: __m256) -> __m256 {
        avx2!(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v))
    }
    #[inline(always)]
    fn pow2(self, v: __m256) -> __m256 {
        avx2!({
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(v), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
        })
    }
    #[inline(always)]
    fn sum(self, v: __m256) -> f32 {
        avx2!({
            let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        })
    }
    #[inline(always)]
    fn sums(self, v: [__m256; 4]) -> [f32; 4] {
        avx2!({
            let pairs = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
            let mut sums = [0.0; 4];
            _mm_storeu_ps(sums.as_mut_ptr(), _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps::<1>(pairs)));
            sums
        })
    }
    #[inline(always)]
    fn prefetch<T>(self, place: &T) {
        avx2!(_mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(place).cast()))
    }
    #[inline(always)]
    fn transpose(self, r: [__m256; LANES]) -> [__m256; LANES] {
        avx2!(transpose(r))
    }
}

/// Pairs of rows interleaved, then pairs of pairs, then the 128-bit halves exchanged.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn transpose(r: [__m256; LANES]) -> [__m256; LANES] {
    let pair = |i: usize| (_mm256_unpacklo_ps(r[i], r[i + 1]), _mm256_unpackhi_ps(r[i], r[i + 1]));
    let four = |i: usize| {
        let ((a_low, a_high), (b_low, b_high)) = (pair(i), pair(i + 2));
        [
            _mm256_shuffle_ps::<0x44>(a_low, b_low),
            _mm256_shuffle_ps::<0xEE>(a_low, b_low),
            _mm256_shuffle_ps::<0x44>(a_high, b_high),
            _mm256_shuffle_ps::<0xEE>(a_high, b_high),
        ]
    };
    let (a, b) = (four(0), four(4));
    [
        _mm256_permute2f128_ps::<0x20>(a[0], b[0]),
        _mm256_permute2f128_ps::<0x20>(a[1], b[1]),
        _mm256_permute2f128_ps::<0x20>(a[2], b[2]),
        _mm256_permute2f128_ps::<0x20>(a[3], b[3]),
        _mm256_permute2f128_ps::<0x31>(a[0], b[0]),
        _mm256_permute2f128_ps::<0x31>(a[1], b[1]),
        _mm256_permute2f128_ps::<0x31>(a[2], b[2]),
        _mm256_permute2f128_ps::<0x31>(a[3], b[3]),
    ]
}
