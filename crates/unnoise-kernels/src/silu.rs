//! The SiLU non-linearity.

use rayon::prelude::*;

use crate::error::{Result, check_lengths};
use crate::simd::{Kernel, LANES, Simd, dispatch};

/// Numbers per task.
const CHUNK: usize = 1 << 14;

/// The sigmoid linear unit of every element.
///
/// ```text
/// y = x / (1 + exp(-x))
/// ```
/// # Errors
/// `y` must be as long as `x`.
/// # Reference
/// S. Elfwing, E. Uchibe, K. Doya, Sigmoid-weighted linear units (2018), eq. 3, arXiv:1702.03118.
pub fn silu(x: &[f32], y: &mut [f32]) -> Result<()> {
    check_lengths("silu", &[("y", y.len(), x.len())])?;
    y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| dispatch(Forward { x, y }));
    Ok(())
}

/// The gradient of [`silu`] by its argument.
///
/// ```text
/// dx = dy s (1 + x (1 - s)),  s = 1 / (1 + exp(-x))
/// ```
/// # Errors
/// `dy` and `dx` must be as long as `x`.
pub fn silu_backward(x: &[f32], dy: &[f32], dx: &mut [f32]) -> Result<()> {
    check_lengths("silu_backward", &[("dy", dy.len(), x.len()), ("dx", dx.len(), x.len())])?;
    let chunks = dx.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).zip(dy.par_chunks(CHUNK));
    chunks.for_each(|((dx, x), dy)| dispatch(Backward { x, dy, dx }));
    Ok(())
}

/// `v sigmoid(v)` of eight numbers.
#[inline(always)]
pub(crate) fn silu_lanes<S: Simd>(s: S, v: S::V) -> S::V {
    s.mul(v, s.sigmoid(v))
}

/// The derivative of [`silu_lanes`].
#[inline(always)]
pub(crate) fn silu_slope_lanes<S: Simd>(s: S, v: S::V) -> S::V {
    let sigmoid = s.sigmoid(v);
    // s + v s (1 - s)
    s.mul_add(s.mul(v, sigmoid), s.sub(s.splat(1.0), sigmoid), sigmoid)
}

struct Forward<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (x, x_rest) = self.x.as_chunks::<LANES>();
        let (y, y_rest) = self.y.as_chunks_mut::<LANES>();
        for (x, y) in x.iter().zip(y) {
            s.store(silu_lanes(s, s.load(x)), y);
        }
        s.store_part(silu_lanes(s, s.load_part(x_rest)), y_rest);
    }
}

struct Backward<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (x, x_rest) = self.x.as_chunks::<LANES>();
        let (dy, dy_rest) = self.dy.as_chunks::<LANES>();
        let (dx, dx_rest) = self.dx.as_chunks_mut::<LANES>();
        for ((x, dy), dx) in x.iter().zip(dy).zip(dx) {
            s.store(s.mul(s.load(dy), silu_slope_lanes(s, s.load(x))), dx);
        }
        s.store_part(s.mul(s.load_part(dy_rest), silu_slope_lanes(s, s.load_part(x_rest))), dx_rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Close, normal};

    #[test]
    fn value_and_gradient_are_those_of_the_formula() {
        for n in [0, 1, 7, 8, 9, 1000, CHUNK + 5] {
            let (x, dy) = (normal(n, 1, 4.0), normal(n, 2, 1.0));
            let (mut y, mut dx) = (vec![0.0; n], vec![0.0; n]);
            silu(&x, &mut y).unwrap();
            silu_backward(&x, &dy, &mut dx).unwrap();
            let sigmoid = |x: f32| 1.0 / (1.0 + (-f64::from(x)).exp());
            // A handful of roundings of 6e-8 each, on numbers up to five times the rms.
            Close::new("y", 4e-6).check(&y, x.iter().map(|&x| f64::from(x) * sigmoid(x)));
            let slope = |x: f32| sigmoid(x) * (1.0 + f64::from(x) * (1.0 - sigmoid(x)));
            Close::new("dx", 4e-6).check(&dx, x.iter().zip(&dy).map(|(&x, &dy)| f64::from(dy) * slope(x)));
        }
    }

    #[test]
    fn far_from_zero_it_is_the_ramp() {
        let x = [1e4, -1e4, 100.0, -100.0, f32::INFINITY, f32::NAN, 0.0, -0.0];
        let mut y = [1.0; 8];
        silu(&x, &mut y).unwrap();
        assert_eq!([y[0], y[2], y[4], y[6]], [1e4, 100.0, f32::INFINITY, 0.0]);
        assert!(y[1].abs() < 1e-33 && y[3].abs() < 1e-35 && y[5].is_nan());
    }

    #[test]
    fn a_wrong_length_is_an_error() {
        let error = silu(&[1.0; 3], &mut [0.0; 2]).unwrap_err();
        assert_eq!(error.to_string(), "silu: y must hold 3 numbers, got 2");
    }
}
