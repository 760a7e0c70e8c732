//! 3x3 convolutions with stride 1 and one zero of padding, to few channels.
//!
//! Gathering windows would move every pixel nine times for a handful of sums. Instead every tap takes its own product with all pixels, and the
//! products' images are shifted and added:
//!
//! ```text
//! t[o, a, b, i, j] = sum over c of weight[o, c, a, b] x[c, i, j]
//! y[o, i, j] = bias[o] + sum over a, b of t[o, a, b, i + a - 1, j + b - 1]
//! ```

use rayon::prelude::*;

use super::weight::{Direction, Epilogue, Weight};
use super::{Conv2d, gemm};
use crate::scratch::{Line, Scratch, numbers_mut};
use crate::simd::{Kernel, LANES, Simd, dispatch};

const TAPS: usize = 9;
/// Numbers of `t` that are in memory at once, unless one image takes more.
const NUMBERS: usize = 1 << 20;

pub(super) fn forward(conv: &Conv2d, x: &[f32], weight: Weight, epilogue: Epilogue, y: &mut [f32]) {
    let entry = |weight: &[f32], row: usize, c: usize| weight[(row / TAPS * conv.c_in + c) * TAPS + row % TAPS];
    correlate(conv, (weight, Direction::Forward), entry, x, epilogue, y);
}

pub(super) fn backward_input(conv: &Conv2d, weight: Weight, dy: &[f32], dx: &mut [f32]) {
    let entry = |weight: &[f32], row: usize, o: usize| weight[(o * conv.c_in + row / TAPS) * TAPS + TAPS - 1 - row % TAPS];
    let transposed = Conv2d { c_in: conv.c_out, c_out: conv.c_in, ..*conv };
    correlate(&transposed, (weight, Direction::Backward), entry, dy, Epilogue::default(), dx);
}

fn correlate(
    conv: &Conv2d,
    weight: (Weight, Direction),
    entry: impl Fn(&[f32], usize, usize) -> f32 + Copy + Sync,
    x: &[f32],
    epilogue: Epilogue,
    y: &mut [f32],
) {
    let Conv2d { c_in, c_out, h, w, .. } = *conv;
    let pixels = h * w;
    let images = (NUMBERS / (c_out * TAPS * pixels)).max(1);
    let blocks = x.chunks(images * c_in * pixels).zip(y.chunks_mut(images * c_out * pixels));
    for (block, (x, y)) in blocks.enumerate() {
        let n = x.len() / (c_in * pixels);
        let products = Conv2d { n, c_out: c_out * TAPS, kernel: 1, padding: [(0, 0); 2], ..*conv };
        let mut t = Scratch::new((n * c_out * TAPS * pixels).div_ceil(Line::LEN));
        let t = &mut numbers_mut(&mut t)[..n * c_out * TAPS * pixels];
        gemm::pointwise(&products, weight, entry, x, t);
        y.par_chunks_mut(pixels).zip(t.par_chunks(TAPS * pixels)).enumerate().for_each(|(i, (y, t))| {
            let at = block * images * c_out + i;
            let start = epilogue.constant(c_out, at / c_out, at % c_out);
            match epilogue.residual {
                Some(residual) => y.iter_mut().zip(&residual[at * pixels..]).for_each(|(y, v)| *y = start + v),
                None => y.fill(start),
            }
            dispatch(Add { t, w, y });
        });
    }
}

/// Adds the shifted images of the nine taps to a plane.
struct Add<'a> {
    t: &'a [f32],
    w: usize,
    y: &'a mut [f32],
}

impl Kernel for Add<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (w, pixels) = (self.w, self.y.len());
        for (tap, t) in self.t.chunks_exact(pixels).enumerate() {
            let (a, b) = (tap / 3, tap % 3);
            for (i, y) in self.y.chunks_exact_mut(w).enumerate() {
                let Some(row) = (i + a).checked_sub(1).filter(|row| row * w < pixels) else { continue };
                let row = &t[row * w..][..w];
                // Where the other reaches over the edge there is nothing to add.
                let (y, row) = match b {
                    0 => (&mut y[1..], &row[..w - 1]),
                    1 => (y, row),
                    _ => (&mut y[..w - 1], &row[1..]),
                };
                for (y, t) in y.chunks_mut(LANES).zip(row.chunks(LANES)) {
                    s.store_part(s.add(s.load_part(y), s.load_part(t)), y);
                }
            }
        }
    }
}

/// The same gradient as that of a convolution from `dy` to `x`, turned by half a circle.
pub(super) fn weight_gradient(conv: &Conv2d, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let mut turned = vec![0.0; dw.len()];
    gemm::weight_gradient(&Conv2d { c_in: conv.c_out, c_out: conv.c_in, ..*conv }, dy, x, &mut turned);
    for (i, filter) in dw.as_chunks_mut::<TAPS>().0.iter_mut().enumerate() {
        let (o, c) = (i / conv.c_in, i % conv.c_in);
        for (tap, v) in filter.iter_mut().enumerate() {
            *v = turned[(c * conv.c_out + o) * TAPS + TAPS - 1 - tap];
        }
    }
}
