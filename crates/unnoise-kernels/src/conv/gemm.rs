//! Any other convolution: products of matrices over windows that are gathered as they are needed, never the whole matrix of windows.
//!
//! A window is the `c_in kernel kernel` numbers that one output pixel sees; `k` counts them in the weight's order.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::Conv2d;
use super::weight::{Direction, Epilogue, Form, Weight};
use crate::parts::Parts;
use crate::product::{PIXELS, Panel, ROWS, product};
use crate::scratch::{Line, grow, numbers, numbers_mut};
use crate::simd::{Kernel, LANES, Simd, dispatch, lanes};

/// Pixels of one forward task.
const TASK: usize = 64;
/// Input channels of one task of the gradient by the input.
const CHANNELS: usize = 16;
/// How many sums over the images the gradient by the weight makes, at most.
const PARTS: usize = 8;
/// Pixels that the gradient by the weight takes at once.
const LINE: usize = 256;

/// One number of the window, or one channel, for many pixels.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Pixels([[f32; LANES]; LINE / LANES]);

#[derive(Default)]
struct Scratch {
    /// One number of the window for 16 pixels.
    panels: Vec<Panel>,
    x: Vec<Pixels>,
    dy: Vec<Pixels>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// A shape that has been checked, with what follows from it.
#[derive(Clone, Copy)]
struct Windows {
    conv: Conv2d,
    /// Columns and pixels of the output.
    columns: usize,
    pixels: usize,
    /// Numbers of a window.
    size: usize,
    /// A window is one pixel, and every pixel has one.
    pointwise: bool,
}

impl Windows {
    fn new(conv: &Conv2d) -> Self {
        let [rows, columns] = conv.output_sides().expect("the shape was checked at the door");
        let pointwise = conv.kernel == 1 && conv.stride == 1 && conv.padding == [(0, 0); 2];
        Self { conv: *conv, columns, pixels: rows * columns, size: conv.c_in * conv.kernel * conv.kernel, pointwise }
    }

    /// Number `k` of the windows of the output pixels from `first` on.
    #[inline(always)]
    fn gather(&self, image: &[f32], k: usize, first: usize, out: &mut [f32]) {
        let Conv2d { h, w, kernel, .. } = self.conv;
        let plane = &image[k / (kernel * kernel) * h * w..][..h * w];
        if self.pointwise {
            return out.copy_from_slice(&plane[first..first + out.len()]);
        }
        self.runs(k, first, out.len(), |at, row, x| match row {
            None => out[at].fill(0.0),
            Some(y) => {
                let row = &plane[y * w..][..w];
                for (i, out) in out[at].iter_mut().enumerate() {
                    *out = row.get(x(i)).copied().unwrap_or(0.0);
                }
            }
        });
    }

    /// The reverse: adds to the pixels that number `k` of those windows comes from.
    #[inline(always)]
    fn scatter(&self, numbers: &[f32], k: usize, first: usize, plane: &mut [f32]) {
        let w = self.conv.w;
        self.runs(k, first, numbers.len(), |at, row, x| {
            let Some(y) = row else { return };
            let row = &mut plane[y * w..][..w];
            for (i, v) in numbers[at].iter().enumerate() {
                if let Some(pixel) = row.get_mut(x(i)) {
                    *pixel += v;
                }
            }
        });
    }

    /// Cuts the output pixels `first .. first + len` at the ends of rows, and says for each run where it lies, which input row number
    /// `k` of its windows is in (none: padding), and which column for the i-th of the run (past the end: padding).
    #[inline(always)]
    fn runs(&self, k: usize, first: usize, len: usize, mut f: impl FnMut(Range<usize>, Option<usize>, &dyn Fn(usize) -> usize)) {
        let Conv2d { h, kernel, stride, padding, .. } = self.conv;
        let (a, b) = (k / kernel % kernel, k % kernel);
        let mut done = 0;
        while done < len {
            let (i, j) = ((first + done) / self.columns, (first + done) % self.columns);
            let run = (self.columns - j).min(len - done);
            let row = (i * stride + a).checked_sub(padding[0].0).filter(|&y| y < h);
            f(done..done + run, row, &|i| ((j + i) * stride + b).wrapping_sub(padding[1].0));
            done += run;
        }
    }
}

/// The lines that [`pack`] fills.
fn packed_lines(rows: usize, size: usize) -> usize {
    (rows.div_ceil(ROWS) * ROWS * size).div_ceil(Line::LEN)
}

/// `matrix[i][k]` in groups of six rows, `[group][k][row]`, zeros behind the last row.
fn pack(rows: usize, size: usize, out: &mut [Line], entry: impl Fn(usize, usize) -> f32) {
    for (i, six) in numbers_mut(out).as_chunks_mut::<ROWS>().0.iter_mut().enumerate() {
        for (row, v) in (i / size * ROWS..).zip(six) {
            *v = if row < rows { entry(row, i % size) } else { 0.0 };
        }
    }
}

pub(super) fn forward(conv: &Conv2d, x: &[f32], weight: Weight, epilogue: Epilogue, y: &mut [f32]) {
    let windows = Windows::new(conv);
    let packed = weight.form(Direction::Forward, Form::Rows, packed_lines(conv.c_out, windows.size), |weight, out| {
        pack(conv.c_out, windows.size, out, |row, k| weight[row * windows.size + k]);
    });
    multiply(windows, x, numbers(&packed).as_chunks().0, epilogue, y);
}

/// `y = packed times windows of x`, and the epilogue.
fn multiply(windows: Windows, x: &[f32], packed: &[[f32; ROWS]], epilogue: Epilogue, y: &mut [f32]) {
    let y = Parts::new(y);
    let blocks = windows.pixels.div_ceil(TASK);
    (0..windows.conv.n * blocks).into_par_iter().for_each(|i| {
        let pixels = i % blocks * TASK..(i % blocks * TASK + TASK).min(windows.pixels);
        SCRATCH.with_borrow_mut(|scratch| {
            let panels = grow(&mut scratch.panels, windows.size, Panel::ZERO);
            dispatch(Multiply { windows, x, packed, epilogue, y: &y, image: i / blocks, pixels, panels });
        });
    });
}

struct Multiply<'a> {
    windows: Windows,
    x: &'a [f32],
    packed: &'a [[f32; ROWS]],
    epilogue: Epilogue<'a>,
    y: &'a Parts<'a>,
    image: usize,
    pixels: Range<usize>,
    panels: &'a mut [Panel],
}

impl Kernel for Multiply<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Windows { conv, size, pixels, .. } = self.windows;
        let length = conv.c_in * conv.h * conv.w;
        let image = &self.x[self.image * length..][..length];
        for first in self.pixels.clone().step_by(PIXELS) {
            let there = PIXELS.min(self.pixels.end - first);
            for (k, panel) in self.panels.iter_mut().enumerate() {
                self.windows.gather(image, k, first, &mut panel.0[..there]);
            }
            for (group, rows) in self.packed.chunks_exact(size).enumerate() {
                let outputs = group * ROWS..conv.c_out.min(group * ROWS + ROWS);
                let mut start = [[s.zero(); 2]; ROWS];
                for (start, o) in start.iter_mut().zip(outputs.clone()) {
                    *start = [s.splat(self.epilogue.constant(conv.c_out, self.image, o)); 2];
                }
                for (o, sums) in outputs.zip(&product(s, rows, self.panels, start)) {
                    let at = (self.image * conv.c_out + o) * pixels + first;
                    // SAFETY: a task writes the pixels of its own range of its own image, and no two tasks share one.
                    let out = unsafe { self.y.part(at, there) };
                    out.copy_from_slice(&sums.0[..there]);
                    if let Some(residual) = self.epilogue.residual {
                        out.iter_mut().zip(&residual[at..]).for_each(|(out, v)| *out += v);
                    }
                }
            }
        }
    }
}

pub(super) fn backward_input(conv: &Conv2d, weight: Weight, dy: &[f32], dx: &mut [f32]) {
    let windows = Windows::new(conv);
    // Row k of the transposed weight: what number k of a window gave to every output.
    let packed = weight.form(Direction::Backward, Form::Rows, packed_lines(windows.size, conv.c_out), |weight, out| {
        pack(windows.size, conv.c_out, out, |k, o| weight[o * windows.size + k]);
    });
    let packed = numbers(&packed).as_chunks().0;
    if windows.pointwise {
        let transposed = Conv2d { c_in: conv.c_out, c_out: conv.c_in, ..*conv };
        return multiply(Windows::new(&transposed), dy, packed, Epilogue::default(), dx);
    }
    // Blocks of channels whose rows are whole groups of six.
    let channels = CHANNELS.next_multiple_of(ROWS);
    let plane = conv.h * conv.w;
    let images = dx.par_chunks_mut(conv.c_in * plane).enumerate();
    let tasks =
        images.flat_map(|(image, dx)| dx.par_chunks_mut(channels * plane).enumerate().map(move |(block, dx)| (image, block, dx)));
    tasks.for_each(|(image, block, dx)| {
        SCRATCH.with_borrow_mut(|scratch| {
            let panels = grow(&mut scratch.panels, conv.c_out, Panel::ZERO);
            let rows = block * channels * conv.kernel * conv.kernel;
            dispatch(BackwardInput { windows, dy, packed: &packed[rows / ROWS * conv.c_out..], image, dx, panels });
        });
    });
}

/// The gradient by some channels of one image.
struct BackwardInput<'a> {
    windows: Windows,
    dy: &'a [f32],
    packed: &'a [[f32; ROWS]],
    image: usize,
    dx: &'a mut [f32],
    panels: &'a mut [Panel],
}

impl Kernel for BackwardInput<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Windows { conv, pixels, .. } = self.windows;
        let (plane, taps) = (conv.h * conv.w, conv.kernel * conv.kernel);
        let rows = self.dx.len() / plane * taps;
        let dy = &self.dy[self.image * conv.c_out * pixels..][..conv.c_out * pixels];
        self.dx.fill(0.0);
        for first in (0..pixels).step_by(PIXELS) {
            let there = PIXELS.min(pixels - first);
            for (panel, dy) in self.panels.iter_mut().zip(dy.chunks_exact(pixels)) {
                panel.0[..there].copy_from_slice(&dy[first..first + there]);
            }
            for (group, packed) in self.packed.chunks_exact(conv.c_out).take(rows.div_ceil(ROWS)).enumerate() {
                let sums = product(s, packed, self.panels, [[s.zero(); 2]; ROWS]);
                for (k, sums) in (group * ROWS..rows).zip(&sums) {
                    self.windows.scatter(&sums.0[..there], k, first, &mut self.dx[k / taps * plane..][..plane]);
                }
            }
        }
    }
}

pub(super) fn backward_weight(conv: &Conv2d, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let windows = Windows::new(conv);
    let parts = conv.n.clamp(1, PARTS);
    let mut sums = vec![0.0; parts * dw.len()];
    sums.par_chunks_mut(dw.len()).enumerate().for_each(|(part, dw)| {
        let images = conv.n * part / parts..conv.n * (part + 1) / parts;
        SCRATCH.with_borrow_mut(|scratch| dispatch(BackwardWeight { windows, x, dy, images, dw, scratch }));
    });
    dw.fill(0.0);
    for part in sums.chunks_exact(dw.len()) {
        dw.iter_mut().zip(part).for_each(|(dw, v)| *dw += v);
    }
}

/// Adds the gradients by the weight of some images to `dw`.
struct BackwardWeight<'a> {
    windows: Windows,
    x: &'a [f32],
    dy: &'a [f32],
    images: Range<usize>,
    dw: &'a mut [f32],
    scratch: &'a mut Scratch,
}

/// Outputs and numbers of the window in one register block of [`BackwardWeight`].
const OUTPUTS: usize = 4;
const NUMBERS: usize = 3;

impl Kernel for BackwardWeight<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Windows { conv, size, pixels, .. } = self.windows;
        let zero = Pixels([[0.0; LANES]; LINE / LANES]);
        let x_lines = grow(&mut self.scratch.x, size.next_multiple_of(NUMBERS), zero);
        let dy_lines = grow(&mut self.scratch.dy, conv.c_out.next_multiple_of(OUTPUTS), zero);
        for image in self.images {
            let x = &self.x[image * conv.c_in * conv.h * conv.w..][..conv.c_in * conv.h * conv.w];
            let dy = &self.dy[image * conv.c_out * pixels..][..conv.c_out * pixels];
            for first in (0..pixels).step_by(LINE) {
                let there = LINE.min(pixels - first);
                let eights = there.div_ceil(LANES);
                for (k, line) in x_lines[..size].iter_mut().enumerate() {
                    let line = line.0.as_flattened_mut();
                    self.windows.gather(x, k, first, &mut line[..there]);
                    line[there..eights * LANES].fill(0.0);
                }
                for (line, dy) in dy_lines.iter_mut().zip(dy.chunks_exact(pixels)) {
                    let line = line.0.as_flattened_mut();
                    line[..there].copy_from_slice(&dy[first..first + there]);
                    line[there..eights * LANES].fill(0.0);
                }
                for (k, x) in x_lines.as_chunks::<NUMBERS>().0.iter().enumerate() {
                    for (o, dy) in dy_lines.as_chunks::<OUTPUTS>().0.iter().enumerate() {
                        let sums = dot_products(s, dy, x, eights);
                        for (o, sums) in (o * OUTPUTS..conv.c_out).zip(sums) {
                            for (dw, v) in self.dw[o * size..][..size][k * NUMBERS..].iter_mut().zip(sums) {
                                *dw += v;
                            }
                        }
                    }
                }
            }
        }
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
    for (out, sums) in out.iter_mut().zip(sums) {
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = s.sum(sum);
        }
    }
    out
}
