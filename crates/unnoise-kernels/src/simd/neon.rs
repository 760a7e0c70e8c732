//! NEON, which every 64-bit ARM CPU has: eight lanes are two registers.

use std::arch::aarch64::*;
use std::array::from_fn;

use super::{LANES, Simd};

/// The instructions of the target's baseline.
#[derive(Clone, Copy)]
pub(crate) struct Neon;

type V = [float32x4_t; 2];

/// An expression of intrinsics.
macro_rules! neon {
    ($e:expr) => {{
        #[allow(unused_unsafe, reason = "most intrinsics are safe where the target has their instructions")]
        // SAFETY: the target's baseline has NEON, and the intrinsics below need no more. Those that take a pointer read or write four floats, and
        // their pointers come from references to eight, of which those are the first or the last four.
        unsafe {
            $e
        }
    }};
}

/// Both halves. Closures may touch these lanes: the instructions are the target's, not those of one function.
#[inline(always)]
fn halves(f: impl Fn(usize) -> float32x4_t) -> V {
    [f(0), f(1)]
}

impl Simd for Neon {
    type V = V;

    #[inline(always)]
    fn splat(self, x: f32) -> V {
        neon!([vdupq_n_f32(x); 2])
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> V {
        halves(|i| neon!(vld1q_f32(x.as_ptr().add(4 * i))))
    }
    #[inline(always)]
    fn store(self, v: V, y: &mut [f32; LANES]) {
        neon!({
            vst1q_f32(y.as_mut_ptr(), v[0]);
            vst1q_f32(y.as_mut_ptr().add(4), v[1]);
        })
    }
    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        halves(|i| neon!(vaddq_f32(a[i], b[i])))
    }
    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        halves(|i| neon!(vsubq_f32(a[i], b[i])))
    }
    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        halves(|i| neon!(vmulq_f32(a[i], b[i])))
    }
    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        halves(|i| neon!(vdivq_f32(a[i], b[i])))
    }
    #[inline(always)]
    fn mul_add(self, a: V, b: V, c: V) -> V {
        halves(|i| neon!(vfmaq_f32(c[i], a[i], b[i])))
    }
    #[inline(always)]
    fn neg_mul_add(self, a: V, b: V, c: V) -> V {
        halves(|i| neon!(vfmsq_f32(c[i], a[i], b[i])))
    }
    // Where an operand is NaN, so are the maximum and the minimum.
    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        halves(|i| neon!(vmaxq_f32(a[i], b[i])))
    }
    #[inline(always)]
    fn clamp(self, v: V, low: f32, high: f32) -> V {
        halves(|i| neon!(vminq_f32(vdupq_n_f32(high), vmaxq_f32(vdupq_n_f32(low), v[i]))))
    }
    #[inline(always)]
    fn round(self, v: V) -> V {
        halves(|i| neon!(vrndnq_f32(v[i])))
    }
    #[inline(always)]
    fn pow2(self, v: V) -> V {
        halves(|i| {
            neon!({
                let exponent = vaddq_s32(vcvtnq_s32_f32(v[i]), vdupq_n_s32(127));
                vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent))
            })
        })
    }
    // In the order of the other instruction sets.
    #[inline(always)]
    fn sum(self, v: V) -> f32 {
        neon!({
            let four = vaddq_f32(v[0], v[1]);
            vpadds_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)))
        })
    }
    #[inline(always)]
    fn sums(self, v: [V; 4]) -> [f32; 4] {
        v.map(|v| self.sum(v))
    }
    #[inline(always)]
    fn prefetch<T>(self, _: &T) {}
    #[inline(always)]
    fn transpose(self, r: [V; LANES]) -> [V; LANES] {
        let block = |i: usize, half: usize| transpose([r[i][half], r[i + 1][half], r[i + 2][half], r[i + 3][half]]);
        let blocks = [[block(0, 0), block(4, 0)], [block(0, 1), block(4, 1)]];
        from_fn(|j| blocks[j / 4].map(|block| block[j % 4]))
    }
}

/// Pairs of rows exchange their odd and even numbers, then pairs of pairs their halves.
#[inline(always)]
fn transpose(r: [float32x4_t; 4]) -> [float32x4_t; 4] {
    neon!({
        let wide = |v| vreinterpretq_f64_f32(v);
        let narrow = |v| vreinterpretq_f32_f64(v);
        let (even, odd) = ([vtrn1q_f32(r[0], r[1]), vtrn1q_f32(r[2], r[3])], [vtrn2q_f32(r[0], r[1]), vtrn2q_f32(r[2], r[3])]);
        let ([a, b], [c, d]) = (even.map(wide), odd.map(wide));
        [narrow(vtrn1q_f64(a, b)), narrow(vtrn1q_f64(c, d)), narrow(vtrn2q_f64(a, b)), narrow(vtrn2q_f64(c, d))]
    })
}
