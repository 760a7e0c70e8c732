//! What is not finite in an exact convolution, summed again as it is defined.
//!
//! A window that reaches over the edge is gathered with zeros. Zero times infinity is not a number, where the definition has no term.

use rayon::prelude::*;

use super::Conv2d;
use super::weight::Epilogue;

/// Replaces what is not finite by its sum.
fn repair(out: &mut [f32], sum: impl Fn(usize) -> f32 + Sync) {
    out.par_iter_mut().enumerate().filter(|(_, v)| !v.is_finite()).for_each(|(at, v)| *v = sum(at));
}

/// The parts of `at` as the index of an array whose last sides are these, and what is left for the first.
fn split<const N: usize>(mut at: usize, sides: [usize; N]) -> (usize, [usize; N]) {
    let mut parts = sides;
    for (part, side) in parts.iter_mut().zip(sides).rev() {
        (at, *part) = (at / side, at % side);
    }
    (at, parts)
}

impl Conv2d {
    /// What tap `a` of output `i` sees, in rows (axis 0) or columns (axis 1).
    fn seen(&self, axis: usize, i: usize, a: usize) -> Option<usize> {
        (i * self.stride + a).checked_sub(self.padding[axis].0).filter(|p| *p < [self.h, self.w][axis])
    }

    /// The output whose tap `a` sees `p`.
    fn seer(&self, axis: usize, outputs: usize, p: usize, a: usize) -> Option<usize> {
        let ahead = (p + self.padding[axis].0).checked_sub(a)?;
        (ahead.is_multiple_of(self.stride) && ahead / self.stride < outputs).then_some(ahead / self.stride)
    }

    /// All taps, and the pixels that `place` has for their rows and columns, where it has both.
    fn taps(&self, place: impl Fn(usize, usize) -> Option<usize>) -> impl Iterator<Item = ([usize; 2], [usize; 2])> {
        (0..self.kernel * self.kernel).filter_map(move |tap| {
            let [a, b] = [tap / self.kernel, tap % self.kernel];
            Some(([a, b], [place(0, a)?, place(1, b)?]))
        })
    }

    fn weight_at(&self, o: usize, c: usize, [a, b]: [usize; 2]) -> usize {
        ((o * self.c_in + c) * self.kernel + a) * self.kernel + b
    }
}

pub(super) fn forward(conv: &Conv2d, sides: [usize; 2], x: &[f32], weight: &[f32], epilogue: Epilogue, y: &mut [f32]) {
    repair(y, |at| {
        let (image, [o, i, j]) = split(at, [conv.c_out, sides[0], sides[1]]);
        let mut sum = epilogue.constant(conv.c_out, image, o) + epilogue.residual.map_or(0.0, |residual| residual[at]);
        for c in 0..conv.c_in {
            for (tap, [p, q]) in conv.taps(|axis, a| conv.seen(axis, [i, j][axis], a)) {
                sum += weight[conv.weight_at(o, c, tap)] * x[((image * conv.c_in + c) * conv.h + p) * conv.w + q];
            }
        }
        sum
    });
}

pub(super) fn backward_input(conv: &Conv2d, sides: [usize; 2], weight: &[f32], dy: &[f32], dx: &mut [f32]) {
    repair(dx, |at| {
        let (image, [c, p, q]) = split(at, [conv.c_in, conv.h, conv.w]);
        let mut sum = 0.0;
        for o in 0..conv.c_out {
            for (tap, [i, j]) in conv.taps(|axis, a| conv.seer(axis, sides[axis], [p, q][axis], a)) {
                sum += weight[conv.weight_at(o, c, tap)] * dy[((image * conv.c_out + o) * sides[0] + i) * sides[1] + j];
            }
        }
        sum
    });
}

pub(super) fn backward_weight(conv: &Conv2d, sides: [usize; 2], x: &[f32], dy: &[f32], dw: &mut [f32]) {
    repair(dw, |at| {
        let (o, [c, a, b]) = split(at, [conv.c_in, conv.kernel, conv.kernel]);
        let mut sum = 0.0;
        for image in 0..conv.n {
            for (i, j) in (0..sides[0]).flat_map(|i| (0..sides[1]).map(move |j| (i, j))) {
                if let (Some(p), Some(q)) = (conv.seen(0, i, a), conv.seen(1, j, b)) {
                    let dy = dy[((image * conv.c_out + o) * sides[0] + i) * sides[1] + j];
                    sum += dy * x[((image * conv.c_in + c) * conv.h + p) * conv.w + q];
                }
            }
        }
        sum
    });
}
