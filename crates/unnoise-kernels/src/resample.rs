//! Between two resolutions: every pixel becomes a square of four, and four become one.

use rayon::prelude::*;

use crate::error::{Result, check_lengths, size};
use crate::filled::filled;
use crate::simd::{Kernel, LANES, Simd, dispatch, lanes};

/// So many numbers of the finer side are worth a thread's waking.
const CHUNK: usize = 1 << 14;

/// Planes whose sides are even, and the same at half the resolution.
///
/// With a factor of 1 [`spread`](Self::spread) is nearest-neighbour up-sampling, and [`gather`](Self::gather) its gradient; with 1/4 `gather` is
/// the mean of every 2x2 square, and `spread` its gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Resample2 {
    /// Planes: images times channels.
    pub planes: usize,
    /// Rows of the coarse side.
    pub h: usize,
    /// Columns of the coarse side.
    pub w: usize,
}

impl Resample2 {
    /// `y[2 i + a, 2 j + b] = factor x[i, j]` for `a, b` in `{0, 1}`: from `x [planes, h, w]` to a new `y [planes, 2 h, 2 w]`.
    ///
    /// # Errors
    /// Where `x` does not have its length, or the memory does not suffice.
    pub fn spread(&self, x: &[f32], factor: f32) -> Result<Vec<f32>> {
        let (at, Self { planes, h, w }) = ("Resample2::spread", *self);
        check_lengths(at, &[("x", x.len(), size([planes, h, w]))])?;
        if x.is_empty() {
            return Ok(Vec::new());
        }
        let write = |y: &mut [f32]| {
            // Two rows of `y` a row of `x`.
            let rows = y.par_chunks_exact_mut(4 * w).zip(x.par_chunks_exact(w));
            rows.with_min_len(CHUNK.div_ceil(4 * w)).for_each(|(y, x)| dispatch(Spread { x, factor, y }));
            Ok(())
        };
        // SAFETY: every row of `x` writes its two rows of `y`, whole, and none is read.
        unsafe { filled(&[planes, 4, h, w], at, write) }
    }

    /// `x[i, j] = factor sum over a, b in {0, 1} of y[2 i + a, 2 j + b]`: from `y [planes, 2 h, 2 w]` to a new `x [planes, h, w]`.
    ///
    /// # Errors
    /// Where `y` does not have its length, or the memory does not suffice.
    pub fn gather(&self, y: &[f32], factor: f32) -> Result<Vec<f32>> {
        let (at, Self { planes, h, w }) = ("Resample2::gather", *self);
        check_lengths(at, &[("y", y.len(), size([planes, h, w, 4]))])?;
        if y.is_empty() {
            return Ok(Vec::new());
        }
        let write = |x: &mut [f32]| {
            let rows = x.par_chunks_exact_mut(w).zip(y.par_chunks_exact(4 * w));
            rows.with_min_len(CHUNK.div_ceil(4 * w)).for_each(|(x, y)| dispatch(Gather { y, factor, x }));
            Ok(())
        };
        // SAFETY: every two rows of `y` write their row of `x`, whole, and none is read.
        unsafe { filled(&[planes, h, w], at, write) }
    }
}

/// A row to two rows of twice the length, one behind the other.
struct Spread<'a> {
    x: &'a [f32],
    factor: f32,
    y: &'a mut [f32],
}

impl Kernel for Spread<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (upper, lower) = self.y.split_at_mut(2 * self.x.len());
        let ((x, x_rest), (y, y_rest)) = (self.x.as_chunks::<LANES>(), upper.as_chunks_mut::<2>().0.as_chunks_mut::<LANES>());
        for (x, y) in x.iter().zip(y) {
            *y = pairs(s, x, self.factor);
        }
        let pairs = pairs(s, x_rest, self.factor);
        y_rest.copy_from_slice(&pairs[..y_rest.len()]);
        lower.copy_from_slice(upper);
    }
}

/// At most eight numbers times `factor`, each twice.
#[inline(always)]
fn pairs<S: Simd>(s: S, x: &[f32], factor: f32) -> [[f32; 2]; LANES] {
    let mut scaled = [0.0; LANES];
    s.store(s.mul(s.load_part(x), s.splat(factor)), &mut scaled);
    let mut pairs = [[0.0; 2]; LANES];
    for (pair, v) in pairs.iter_mut().zip(scaled) {
        *pair = [v; 2];
    }
    pairs
}

/// Two rows, one behind the other, to a row of half the length.
struct Gather<'a> {
    y: &'a [f32],
    factor: f32,
    x: &'a mut [f32],
}

impl Kernel for Gather<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (upper, lower) = self.y.split_at(2 * self.x.len());
        let ((upper, upper_rest), (lower, lower_rest)) =
            (upper.as_chunks::<2>().0.as_chunks::<LANES>(), lower.as_chunks::<2>().0.as_chunks::<LANES>());
        let (x, x_rest) = self.x.as_chunks_mut::<LANES>();
        for ((x, upper), lower) in x.iter_mut().zip(upper).zip(lower) {
            s.store(squares(s, upper, lower, self.factor), x);
        }
        let mut rest = [[[0.0; 2]; LANES]; 2];
        rest[0][..x_rest.len()].copy_from_slice(upper_rest);
        rest[1][..x_rest.len()].copy_from_slice(lower_rest);
        s.store_part(squares(s, &rest[0], &rest[1], self.factor), x_rest);
    }
}

/// `factor` times the sums of eight squares.
#[inline(always)]
fn squares<S: Simd>(s: S, upper: &[[f32; 2]; LANES], lower: &[[f32; 2]; LANES], factor: f32) -> S::V {
    let mut corners = [[0.0; LANES]; 4];
    for j in 0..LANES {
        [corners[0][j], corners[1][j]] = upper[j];
        [corners[2][j], corners[3][j]] = lower[j];
    }
    let [a, b, c, d] = lanes!(s, i in 4 => s.load(&corners[i]));
    s.mul(s.add(s.add(a, b), s.add(c, d)), s.splat(factor))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::check::{Close, NOT_FINITE, normal};

    proptest! {
        #[test]
        fn both_are_those_of_the_definition((planes, h, w) in (0..4usize, 1..9usize, 1..40usize), seed in 0..1000u64) {
            let shape = Resample2 { planes, h, w };
            let (x, y) = (normal(planes * h * w, seed, 1.0), normal(planes * h * w * 4, seed + 1, 1.0));
            let fine = |i: usize| (i / (4 * h * w), i / (2 * w) % (2 * h), i % (2 * w));
            let spread = shape.spread(&x, 0.75).unwrap();
            for (i, v) in spread.iter().enumerate() {
                let (plane, row, column) = fine(i);
                assert_eq!(*v, 0.75 * x[(plane * h + row / 2) * w + column / 2]);
            }
            let mut sums = vec![0.0; x.len()];
            for (i, v) in y.iter().enumerate() {
                let (plane, row, column) = fine(i);
                sums[(plane * h + row / 2) * w + column / 2] += 0.25 * f64::from(*v);
            }
            // Three additions of numbers of size two, where all may come out small.
            Close::new("means", 1e-6).of_at_least(0.5).check(&shape.gather(&y, 0.25).unwrap(), sums);
        }
    }

    #[test]
    fn what_is_not_finite_stays_so_and_in_its_place() {
        let shape = Resample2 { planes: 2, h: 3, w: 13 };
        for (bad, at) in NOT_FINITE.into_iter().flat_map(|bad| [(bad, 3), (bad, 70)]) {
            let (mut x, mut y) = (normal(2 * 3 * 13, 1, 1.0), normal(2 * 3 * 13 * 4, 2, 1.0));
            x[at] = bad;
            y[at] = bad;
            let spread = shape.spread(&x, 0.5).unwrap();
            let place = |i: usize| (i / (4 * 39) * 3 + i / 26 % 6 / 2) * 13 + i % 26 / 2;
            assert!(spread.iter().enumerate().all(|(i, v)| v.is_finite() == (place(i) != at)));
            let gather = shape.gather(&y, 0.5).unwrap();
            assert!(gather.iter().enumerate().all(|(i, v)| v.is_finite() == (i != place(at))));
        }
    }

    #[test]
    fn a_wrong_length_is_an_error() {
        let shape = Resample2 { planes: 2, h: 3, w: 5 };
        let error = shape.spread(&[0.0; 29], 1.0).unwrap_err();
        assert_eq!(error.to_string(), "Resample2::spread: x must hold 30 numbers, got 29");
        let error = shape.gather(&[0.0; 30], 1.0).unwrap_err();
        assert_eq!(error.to_string(), "Resample2::gather: y must hold 120 numbers, got 30");
        let absurd = Resample2 { planes: 1 << 62, h: 4, w: 4 };
        assert!(absurd.spread(&[], 1.0).is_err() && absurd.gather(&[], 1.0).is_err());
        for none in [Resample2 { planes: 0, h: 1, w: 1 << 62 }, Resample2 { planes: 1, h: 0, w: 1 << 62 }] {
            assert!(none.spread(&[], 1.0).unwrap().is_empty() && none.gather(&[], 1.0).unwrap().is_empty());
        }
        assert_eq!(Resample2 { planes: 1, h: 0, w: 0 }.spread(&[], 1.0).unwrap(), []);
    }
}
