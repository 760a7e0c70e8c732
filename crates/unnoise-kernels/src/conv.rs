//! Two-dimensional convolution (correlation, as in every network), forward and both backwards.

mod exact;
mod gemm;
mod narrow;
mod weight;
mod winograd;

use rayon::prelude::*;

use self::weight::Direction;
pub use self::weight::{Epilogue, PreparedWeight, Weight};

use crate::error::{Error, Result, check_lengths, size};
use crate::simd::{Kernel, Simd, dispatch};

/// The shape of a convolution of `x [n, c_in, h, w]` with `weight [c_out, c_in, kernel, kernel]`.
///
/// ```text
/// y[n, o, i, j] = bias[o] + sum over c, a, b of weight[o, c, a, b] x[n, c, i stride + a - top, j stride + b - left]
/// ```
///
/// A 3x3 kernel with stride 1 and one zero of padding all around goes by Winograd's algorithm unless `exact` is set: F(2x2) where both sides
/// are at most 8, else F(4x4). To or from at most four channels, that would transform more than it multiplies. Everything else is a product of
/// matrices over windows that are gathered as they are needed. The shape of one image alone decides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conv2d {
    /// Images.
    pub n: usize,
    /// Channels of the input.
    pub c_in: usize,
    /// Channels of the output.
    pub c_out: usize,
    /// Rows of the input.
    pub h: usize,
    /// Columns of the input.
    pub w: usize,
    /// The side of the kernel.
    pub kernel: usize,
    /// The step between windows.
    pub stride: usize,
    /// Zeros around the input: `[(top, bottom), (left, right)]`.
    pub padding: [(usize, usize); 2],
    /// Whether a 3x3 convolution must be summed as it is defined, which takes four times as long: to compare with. Of any kernel, an infinity
    /// or a NaN then spoils no more than by the definition; else a transform spreads it over a tile, and an infinity times a zero of the padding is
    /// NaN.
    pub exact: bool,
}

impl Conv2d {
    /// Rows and columns of the output.
    ///
    /// # Errors
    /// Where a stride or a kernel is zero, the kernel is larger than the padded input, a stride exceeds 256, or a side or a padding 2^28.
    pub fn output_sides(&self) -> Result<[usize; 2]> {
        let (at, [(top, bottom), (left, right)]) = ("Conv2d", self.padding);
        let padding = [top, bottom, left, right].map(|got| ("padding", got, 0..=MAX_SIDE));
        let sides = [("h", self.h, 0..=MAX_SIDE), ("w", self.w, 0..=MAX_SIDE)];
        let window = [("stride", self.stride, 1..=MAX_STRIDE), ("kernel", self.kernel, 1..=MAX_SIDE)];
        for (what, got, range) in [&padding[..], &sides, &window].concat() {
            if !range.contains(&got) {
                return Err(Error::Shape { what, expected: format!("{} to {}", range.start(), range.end()), got, at });
            }
        }
        let side = |length: usize, (before, after): (usize, usize)| {
            let padded = length + before + after;
            let expected = || format!("at most the padded side {padded}");
            let room = padded.checked_sub(self.kernel);
            let room = room.ok_or_else(|| Error::Shape { what: "kernel", expected: expected(), got: self.kernel, at })?;
            Ok(room / self.stride + 1)
        };
        Ok([side(self.h, self.padding[0])?, side(self.w, self.padding[1])?])
    }

    /// The convolution of `x` plus the epilogue (of which a bias alone is `Some(bias)`), into `y [n, c_out, ..]`.
    ///
    /// # Errors
    /// Where the shape is not one, a slice does not have its length, or the weight was prepared for another shape.
    pub fn forward<'a>(
        &self,
        x: &[f32],
        weight: impl Into<Weight<'a>>,
        epilogue: impl Into<Epilogue<'a>>,
        y: &mut [f32],
    ) -> Result<()> {
        let (at, weight, epilogue) = ("Conv2d::forward", weight.into(), epilogue.into());
        let sides = self.check(at, x.len(), weight.raw().len(), ("y", y.len()))?;
        weight.check(self, at)?;
        epilogue.check(self, y.len(), at)?;
        match self.route() {
            _ if self.n == 0 => {}
            Route::Winograd(shape) => winograd::correlate(shape, Direction::Forward, x, weight, epilogue, y),
            Route::FewOutputs => narrow::forward(self, x, weight, epilogue, y),
            Route::FewInputs | Route::Any => gemm::forward(self, x, weight, epilogue, y),
        }
        if self.exact {
            exact::forward(self, sides, x, weight.raw(), epilogue, y);
        }
        Ok(())
    }

    /// The gradient by `x`, into `dx`.
    ///
    /// # Errors
    /// As for [`forward`](Self::forward).
    pub fn backward_input<'a>(&self, weight: impl Into<Weight<'a>>, dy: &[f32], dx: &mut [f32]) -> Result<()> {
        let (at, weight) = ("Conv2d::backward_input", weight.into());
        let sides = self.check(at, dx.len(), weight.raw().len(), ("dy", dy.len()))?;
        weight.check(self, at)?;
        match self.route() {
            _ if self.n == 0 => {}
            Route::Winograd(shape) => {
                let shape = winograd::Shape { c_in: shape.c_out, c_out: shape.c_in, ..shape };
                winograd::correlate(shape, Direction::Backward, dy, weight, Epilogue::default(), dx);
            }
            Route::FewInputs => narrow::backward_input(self, weight, dy, dx),
            Route::FewOutputs | Route::Any => gemm::backward_input(self, weight, dy, dx),
        }
        if self.exact {
            exact::backward_input(self, sides, weight.raw(), dy, dx);
        }
        Ok(())
    }

    /// The gradient by `weight`, into `dw`: the sum over the images, in an order that the shape decides.
    ///
    /// # Errors
    /// As for [`forward`](Self::forward).
    pub fn backward_weight(&self, x: &[f32], dy: &[f32], dw: &mut [f32]) -> Result<()> {
        let sides = self.check("Conv2d::backward_weight", x.len(), dw.len(), ("dy", dy.len()))?;
        match self.route() {
            _ if self.n == 0 => dw.fill(0.0),
            Route::Winograd(shape) => winograd::weight_gradient(shape, x, dy, dw),
            Route::FewOutputs => narrow::weight_gradient(self, x, dy, dw),
            Route::FewInputs | Route::Any => gemm::weight_gradient(self, x, dy, dw),
        }
        if self.exact {
            exact::backward_weight(self, sides, x, dy, dw);
        }
        Ok(())
    }

    fn route(&self) -> Route {
        if (self.kernel, self.stride, self.padding) != (3, 1, [(1, 1); 2]) {
            return Route::Any;
        }
        match (self.c_in <= FEW, self.c_out <= FEW, self.exact) {
            (true, _, _) => Route::FewInputs,
            (_, true, _) => Route::FewOutputs,
            (_, _, true) => Route::Any,
            _ => Route::Winograd(winograd::Shape { n: self.n, c_in: self.c_in, c_out: self.c_out, h: self.h, w: self.w }),
        }
    }

    /// The sides of the output, if all lengths are the shape's.
    fn check(&self, at: &'static str, x: usize, weight: usize, y: (&'static str, usize)) -> Result<[usize; 2]> {
        let sides = self.output_sides()?;
        for (what, got) in [("c_in", self.c_in), ("c_out", self.c_out), ("h", self.h), ("w", self.w)] {
            if got == 0 {
                return Err(Error::Shape { what, expected: "at least 1".into(), got, at });
            }
        }
        let lengths = [
            ("x", x, size([self.n, self.c_in, self.h, self.w])),
            ("weight", weight, size([self.c_out, self.c_in, self.kernel, self.kernel])),
            (y.0, y.1, size([self.n, self.c_out, sides[0], sides[1]])),
        ];
        check_lengths(at, &lengths)?;
        Ok(sides)
    }
}

/// So many channels are few.
const FEW: usize = 4;
/// The largest side and padding: the places of all taps fit a signed number, of 32 bits too.
pub(crate) const MAX_SIDE: usize = 1 << 28;
/// The largest stride, whose square is the number of classes that the gradient by the input has.
const MAX_STRIDE: usize = 1 << 8;

/// How a convolution is computed. Only what this says, and nothing of the threads, decides about the order of its sums, nor does the batch, but for the parts
/// that a gradient by the weight is summed in.
enum Route {
    /// 3x3, stride 1, one zero of padding, many channels, unless it must be exact.
    Winograd(winograd::Shape),
    /// The same from few channels.
    FewInputs,
    /// The same to few channels.
    FewOutputs,
    Any,
}

/// The sum of `dy [n, channels, pixels]` over images and pixels, into `db [channels]`: the gradient by a convolution's bias.
///
/// # Errors
/// Where `dy` does not hold `n` times `pixels` numbers for every one of `db`.
pub fn sum_by_channel(dy: &[f32], n: usize, pixels: usize, db: &mut [f32]) -> Result<()> {
    check_lengths("sum_by_channel", &[("dy", dy.len(), size([n, db.len(), pixels]))])?;
    let channels = db.len();
    db.par_iter_mut().enumerate().for_each(|(channel, db)| {
        let planes = dy.chunks_exact(pixels.max(1)).skip(channel).step_by(channels);
        *db = dispatch(Sum(planes));
    });
    Ok(())
}

/// The sum of all numbers of some planes.
struct Sum<I>(I);

impl<'a, I: Iterator<Item = &'a [f32]>> Kernel for Sum<I> {
    type Output = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        // One sum a plane: a single chain over the batch would lose digits.
        let mut total = 0.0;
        for plane in self.0 {
            total += s.sum_of(plane);
        }
        total
    }
}

#[cfg(test)]
mod speed;
#[cfg(test)]
mod tests;
