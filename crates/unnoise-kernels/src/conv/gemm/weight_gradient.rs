//! The gradient by the weight: scalar products of what every output got with what it saw.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::super::Conv2d;
use super::windows::Windows;
use crate::parts::Parts;
use crate::scratch::grow;
use crate::simd::{Kernel, LANES, Simd, dispatch, lanes};

/// How many sums over the images there are, at most, and about how many numbers they take together.
const PARTS: usize = 8;
const SUMS: usize = 1 << 17;
/// Pixels that are taken at once.
const LINE: usize = 512;
/// Outputs and numbers of the window in one register block, and outputs whose lines stay in the first-level cache.
const OUTPUTS: usize = 4;
const NUMBERS: usize = 3;
const BLOCK: usize = 8;
/// Numbers of the window in a task, at least.
const SHARE: usize = 8 * NUMBERS;

/// One number of the window, or one channel, for many pixels.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Pixels([[f32; LANES]; LINE / LANES]);

/// The lines of a task: numbers of the window, and outputs.
#[derive(Default)]
struct Scratch {
    x: Vec<Pixels>,
    dy: Vec<Pixels>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The gradient by the weight of a convolution, into `dw`.
pub(in crate::conv) fn weight_gradient(conv: &Conv2d, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let windows = Windows::forward(conv);
    let (size, length) = (windows.size(), dw.len());
    // Powers of two, which two or four threads share evenly.
    let parts = (SUMS / length).clamp(1, PARTS).next_power_of_two().min(1 << conv.n.max(1).ilog2());
    // How many tasks share a part does not show in the result.
    let shares = (4 * rayon::current_num_threads()).div_ceil(parts).min(size.div_ceil(SHARE));
    let mut more = vec![0.0; (parts - 1) * length];
    dw.fill(0.0);
    {
        let sums: Vec<Parts> = std::iter::once(&mut *dw).chain(more.chunks_exact_mut(length)).map(Parts::new).collect();
        (0..parts * shares).into_par_iter().for_each(|i| {
            let (part, share) = (i / shares, i % shares);
            let images = conv.n * part / parts..conv.n * (part + 1) / parts;
            let triples = size.div_ceil(NUMBERS);
            let numbers = triples * share / shares * NUMBERS..size.min(triples * (share + 1) / shares * NUMBERS);
            let (windows, out) = (&windows, &sums[part]);
            SCRATCH.with_borrow_mut(|scratch| dispatch(Gradient { conv, windows, x, dy, images, numbers, out, scratch }));
        });
    }
    for part in more.chunks_exact(length) {
        dw.iter_mut().zip(part).for_each(|(dw, v)| *dw += v);
    }
}

/// Adds the gradients by some numbers of the window over some images.
struct Gradient<'a> {
    conv: &'a Conv2d,
    windows: &'a Windows,
    x: &'a [f32],
    dy: &'a [f32],
    images: Range<usize>,
    numbers: Range<usize>,
    out: &'a Parts<'a>,
    scratch: &'a mut Scratch,
}

impl Kernel for Gradient<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { windows, numbers, .. } = self;
        let (size, pixels, c_out) = (windows.size(), windows.pixels(), self.conv.c_out);
        let zero = Pixels([[0.0; LANES]; LINE / LANES]);
        let x_lines = grow(&mut self.scratch.x, numbers.len().next_multiple_of(NUMBERS), zero);
        let dy_lines = grow(&mut self.scratch.dy, c_out.next_multiple_of(OUTPUTS), zero);
        // The pixels of all images, one image behind the other: lines are full however small the images are.
        let all = self.images.start * pixels..self.images.end * pixels;
        for first in all.clone().step_by(LINE) {
            let line = first..all.end.min(first + LINE);
            let eights = line.len().div_ceil(LANES);
            for (k, out) in numbers.clone().zip(&mut *x_lines) {
                let out = &mut out.0.as_flattened_mut()[..eights * LANES];
                out[line.len()..].fill(0.0);
                for Run { image, pixel, at } in Runs::new(line.clone(), pixels) {
                    windows.gather(&self.x[image * windows.source()..][..windows.source()], k, pixel, &mut out[at]);
                }
            }
            for (o, out) in dy_lines[..c_out].iter_mut().enumerate() {
                let out = &mut out.0.as_flattened_mut()[..eights * LANES];
                out[line.len()..].fill(0.0);
                for Run { image, pixel, at } in Runs::new(line.clone(), pixels) {
                    let dy = &self.dy[(image * c_out + o) * pixels + pixel..][..at.len()];
                    out[at].copy_from_slice(dy);
                }
            }
            for (block, dy) in dy_lines.chunks(BLOCK).enumerate() {
                for (k, x) in numbers.clone().step_by(NUMBERS).zip(x_lines.as_chunks::<NUMBERS>().0) {
                    for (o, dy) in dy.as_chunks::<OUTPUTS>().0.iter().enumerate() {
                        let sums = dot_products(s, dy, x, eights);
                        for (o, sums) in (block * BLOCK + o * OUTPUTS..c_out).zip(sums) {
                            // SAFETY: a task adds to its own numbers of its own part's sums, and no two tasks share one.
                            let dw = unsafe { self.out.part(o * size + k, NUMBERS.min(numbers.end - k)) };
                            dw.iter_mut().zip(sums).for_each(|(dw, v)| *dw += v);
                        }
                    }
                }
            }
        }
    }
}

/// Some pixels of one image in a line.
struct Run {
    image: usize,
    /// The first of them, in the image.
    pixel: usize,
    /// Where in the line they lie.
    at: Range<usize>,
}

/// The runs of a line of pixels, counted over all images.
struct Runs {
    first: usize,
    line: Range<usize>,
    pixels: usize,
}

impl Runs {
    fn new(line: Range<usize>, pixels: usize) -> Self {
        Self { first: line.start, line, pixels }
    }
}

impl Iterator for Runs {
    type Item = Run;
    #[inline(always)]
    fn next(&mut self) -> Option<Run> {
        let start = self.line.start;
        if self.line.is_empty() {
            return None;
        }
        let (image, pixel) = (start / self.pixels, start % self.pixels);
        let end = self.line.end.min(start + self.pixels - pixel);
        self.line.start = end;
        Some(Run { image, pixel, at: start - self.first..end - self.first })
    }
}

/// The scalar products of four lines with three.
#[inline(always)]
fn dot_products<S: Simd>(s: S, a: &[Pixels; OUTPUTS], b: &[Pixels; NUMBERS], eights: usize) -> [[f32; NUMBERS]; OUTPUTS] {
    let mut sums = [[s.zero(); NUMBERS]; OUTPUTS];
    for i in 0..eights.min(LINE / LANES) {
        let b = lanes!(s, j in NUMBERS => s.load(&b[j].0[i]));
        for (sums, a) in sums.iter_mut().zip(a) {
            let a = s.load(&a.0[i]);
            for (sum, &b) in sums.iter_mut().zip(&b) {
                *sum = s.mul_add(a, b, *sum);
            }
        }
    }
    let mut out = [[0.0; NUMBERS]; OUTPUTS];
    for j in 0..NUMBERS {
        for (out, sum) in out.iter_mut().zip(s.sums([sums[0][j], sums[1][j], sums[2][j], sums[3][j]])) {
            out[j] = sum;
        }
    }
    out
}
