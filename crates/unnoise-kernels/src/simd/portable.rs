//! Plain arrays, for every other CPU: the compiler vectorises them for its baseline.

use std::array::from_fn;

use super::{LANES, Simd};

/// No instructions beyond the baseline.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

type V = [f32; LANES];

impl Simd for Portable {
    type V = V;

    #[inline(always)]
    fn splat(self, x: f32) -> V {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, x: &V) -> V {
        *x
    }
    #[inline(always)]
    fn store(self, v: V, y: &mut V) {
        *y = v;
    }
    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        from_fn(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        from_fn(|i| a[i] / b[i])
    }
    // Not `f32::mul_add`: without the instruction that is a call into the C library for every number.
    #[inline(always)]
    fn mul_add(self, a: V, b: V, c: V) -> V {
        from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn neg_mul_add(self, a: V, b: V, c: V) -> V {
        from_fn(|i| c[i] - a[i] * b[i])
    }
    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn clamp(self, v: V, low: f32, high: f32) -> V {
        v.map(|x| x.clamp(low, high))
    }
    #[inline(always)]
    fn round(self, v: V) -> V {
        // Adding and taking away 1.5 2^23 leaves no room for a fraction; exact for |x| < 2^22.
        const SHIFT: f32 = 12_582_912.0;
        v.map(|x| (x + SHIFT) - SHIFT)
    }
    #[inline(always)]
    fn pow2(self, v: V) -> V {
        v.map(|x| f32::from_bits(((x as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    fn sum(self, v: V) -> f32 {
        let four: [f32; 4] = from_fn(|i| v[i] + v[i + 4]);
        (four[0] + four[2]) + (four[1] + four[3])
    }
    #[inline(always)]
    fn sums(self, v: [V; 4]) -> [f32; 4] {
        v.map(|v| self.sum(v))
    }
    #[inline(always)]
    fn prefetch<T>(self, _: &T) {}
    #[inline(always)]
    fn transpose(self, rows: [V; LANES]) -> [V; LANES] {
        from_fn(|j| from_fn(|i| rows[i][j]))
    }
}
