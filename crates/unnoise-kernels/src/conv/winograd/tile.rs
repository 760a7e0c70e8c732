//! The one-dimensional transforms of Winograd's convolution.
//!
//! `M` outputs of a 3-tap correlation come from `A = M + 2` products: input and filter are evaluated at `A` points (the last one is
//! infinity), multiplied, and the product polynomial is read back. The gradient by the filter is the transposed problem: `M` taps, 3 outputs.

use crate::simd::Simd;

/// The transforms of `M` outputs through `A` points.
pub(super) trait Tile<const M: usize, const A: usize>: Send + Sync {
    /// `B^T d`: the input at the points.
    fn input<S: Simd>(s: S, d: [S::V; A]) -> [S::V; A];
    /// `G g`: the filter at the points.
    fn filter<S: Simd>(s: S, g: [S::V; 3]) -> [S::V; A];
    /// `A^T m`: the outputs.
    fn output<S: Simd>(s: S, m: [S::V; A]) -> [S::V; M];
    /// The filter's transform for `M` taps, which are the output's gradient.
    fn output_gradient<S: Simd>(s: S, dy: [S::V; M]) -> [S::V; A];
    /// The output's transform for 3 outputs, which are the filter's gradient.
    fn filter_gradient<S: Simd>(s: S, m: [S::V; A]) -> [S::V; 3];
}

/// F(2, 3) at the points 0, 1, -1, infinity.
///
/// # Reference
/// A. Lavin and S. Gray, Fast algorithms for convolutional neural networks (2015), section 4.1, arXiv:1509.09308.
pub(super) struct F2;

impl Tile<2, 4> for F2 {
    #[inline(always)]
    fn input<S: Simd>(s: S, d: [S::V; 4]) -> [S::V; 4] {
        [s.sub(d[0], d[2]), s.add(d[1], d[2]), s.sub(d[2], d[1]), s.sub(d[3], d[1])]
    }
    #[inline(always)]
    fn filter<S: Simd>(s: S, g: [S::V; 3]) -> [S::V; 4] {
        let half = s.splat(0.5);
        let (even, odd) = (s.mul(half, s.add(g[0], g[2])), s.mul(half, g[1]));
        [g[0], s.add(even, odd), s.sub(even, odd), g[2]]
    }
    #[inline(always)]
    fn output<S: Simd>(s: S, m: [S::V; 4]) -> [S::V; 2] {
        [s.add(m[0], s.add(m[1], m[2])), s.add(s.sub(m[1], m[2]), m[3])]
    }
    #[inline(always)]
    fn output_gradient<S: Simd>(s: S, dy: [S::V; 2]) -> [S::V; 4] {
        let half = s.splat(0.5);
        [dy[0], s.mul(half, s.add(dy[0], dy[1])), s.mul(half, s.sub(dy[0], dy[1])), dy[1]]
    }
    #[inline(always)]
    fn filter_gradient<S: Simd>(s: S, m: [S::V; 4]) -> [S::V; 3] {
        let sum = s.add(m[1], m[2]);
        [s.add(m[0], sum), s.sub(m[1], m[2]), s.add(sum, m[3])]
    }
}

/// F(4, 3) at the points 0, +-p, +-q, infinity with p = 11/16, q = 11/8.
///
/// The usual points +-1, +-2 lose twice as many digits; these keep the constants exact and the rounding error at 1.3 to 1.6 times that
/// of the direct sum in `f32`.
///
/// # Reference
/// The construction for any points: S. Winograd, Arithmetic complexity of computations (1980); that the points decide the error:
/// B. Barabasz et al., Error analysis and improving the accuracy of Winograd convolution (2020), arXiv:1803.10986.
pub(super) struct F4;

const P: f64 = 0.6875;
const Q: f64 = 1.375;
const PP: f64 = P * P;
const QQ: f64 = Q * Q;
/// The filter's factors at 0, +-p and +-q: one over the product of the distances to the other points.
const AT_ZERO: f64 = 1.0 / (PP * QQ);
const AT_P: f64 = 1.0 / (2.0 * PP * (PP - QQ));
const AT_Q: f64 = 1.0 / (2.0 * QQ * (QQ - PP));

#[inline(always)]
fn c<S: Simd>(s: S, x: f64) -> S::V {
    s.splat(x as f32)
}

/// `(even + odd, even - odd)`: the values at a point and at its negative.
#[inline(always)]
fn pair<S: Simd>(s: S, even: S::V, odd: S::V) -> (S::V, S::V) {
    (s.add(even, odd), s.sub(even, odd))
}

/// x^4 - (p^2 + q^2) x^2 + p^2 q^2: the input at 0 and, one further, at infinity.
#[inline(always)]
fn end<S: Simd>(s: S, d0: S::V, d2: S::V, d4: S::V) -> S::V {
    s.mul_add(c(s, PP * QQ), d0, s.neg_mul_add(c(s, PP + QQ), d2, d4))
}

/// (x^2 +- r x) (x^2 - other^2): the input at +-r.
#[inline(always)]
fn inner<S: Simd>(s: S, d: [S::V; 6], r: f64, other: f64) -> (S::V, S::V) {
    let even = s.neg_mul_add(c(s, other), d[2], d[4]);
    pair(s, even, s.mul(c(s, r), s.neg_mul_add(c(s, other), d[1], d[3])))
}

/// Taps at +-r.
#[inline(always)]
fn taps<S: Simd>(s: S, g: [S::V; 4], r: f64, factor: f64) -> (S::V, S::V) {
    let even = s.mul_add(c(s, factor * r * r), g[2], s.mul(c(s, factor), g[0]));
    pair(s, even, s.mul_add(c(s, factor * r * r * r), g[3], s.mul(c(s, factor * r), g[1])))
}

impl Tile<4, 6> for F4 {
    #[inline(always)]
    fn input<S: Simd>(s: S, d: [S::V; 6]) -> [S::V; 6] {
        let ((p, minus_p), (q, minus_q)) = (inner(s, d, P, QQ), inner(s, d, Q, PP));
        [end(s, d[0], d[2], d[4]), p, minus_p, q, minus_q, end(s, d[1], d[3], d[5])]
    }
    #[inline(always)]
    fn filter<S: Simd>(s: S, g: [S::V; 3]) -> [S::V; 6] {
        let ((p, minus_p), (q, minus_q)) =
            (taps(s, [g[0], g[1], g[2], s.zero()], P, AT_P), taps(s, [g[0], g[1], g[2], s.zero()], Q, AT_Q));
        [s.mul(c(s, AT_ZERO), g[0]), p, minus_p, q, minus_q, g[2]]
    }
    #[inline(always)]
    fn output<S: Simd>(s: S, m: [S::V; 6]) -> [S::V; 4] {
        let (sum_p, sum_q) = (s.add(m[1], m[2]), s.add(m[3], m[4]));
        let (diff_p, diff_q) = (s.sub(m[1], m[2]), s.sub(m[3], m[4]));
        [
            s.add(m[0], s.add(sum_p, sum_q)),
            s.mul_add(c(s, P), diff_p, s.mul(c(s, Q), diff_q)),
            s.mul_add(c(s, PP), sum_p, s.mul(c(s, QQ), sum_q)),
            s.mul_add(c(s, P * PP), diff_p, s.mul_add(c(s, Q * QQ), diff_q, m[5])),
        ]
    }
    #[inline(always)]
    fn output_gradient<S: Simd>(s: S, dy: [S::V; 4]) -> [S::V; 6] {
        let ((p, minus_p), (q, minus_q)) = (taps(s, dy, P, AT_P), taps(s, dy, Q, AT_Q));
        [s.mul(c(s, AT_ZERO), dy[0]), p, minus_p, q, minus_q, dy[3]]
    }
    #[inline(always)]
    fn filter_gradient<S: Simd>(s: S, m: [S::V; 6]) -> [S::V; 3] {
        let (sum_p, sum_q) = (s.add(m[1], m[2]), s.add(m[3], m[4]));
        let (diff_p, diff_q) = (s.sub(m[1], m[2]), s.sub(m[3], m[4]));
        [
            s.add(m[0], s.add(sum_p, sum_q)),
            s.mul_add(c(s, P), diff_p, s.mul(c(s, Q), diff_q)),
            s.mul_add(c(s, PP), sum_p, s.mul_add(c(s, QQ), sum_q, m[5])),
        ]
    }
}
