//! Any other convolution: products of matrices over windows that are gathered as they are needed, never the whole matrix of windows.
//!
//! A window is what one pixel of the result sees: some taps of every channel, counted by `k`, the taps of a channel behind each other. The
//! gradient by the input is of the same kind as the convolution: with stride `s` the input's pixels fall into `s^2` classes by their
//! coordinates modulo `s`, and what a class sees of `dy` is a window, of those taps whose position modulo `s` matches.

mod weight_gradient;
mod windows;

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

pub(super) use self::weight_gradient::weight_gradient;
use self::windows::Windows;
use super::Conv2d;
use super::weight::{Direction, Epilogue, Form, Weight};
use crate::parts::Parts;
use crate::product::{PIXELS, Panel, ROWS, product};
use crate::scratch::{Line, grow, numbers, numbers_mut};
use crate::simd::{Kernel, LANES, Simd, dispatch};

/// Pixels of a task.
const TASK: usize = 64;
/// Numbers of the windows that are gathered and multiplied at once: a panel of them stays in the first-level cache.
const DEPTH: usize = 256;
/// So many products are worth a task of their own.
const PRODUCTS: usize = 1 << 17;

/// So many numbers are worth a thread's waking to pack them.
const PACKED: usize = 1 << 14;

/// The memory of a task.
#[derive(Default)]
struct Scratch {
    /// `[panel][k]`: some numbers of the windows of 16 pixels.
    panels: Vec<Panel>,
    /// `[panel][group][row]`: the sums so far.
    sums: Vec<Panel>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The lines that [`pack`] fills.
fn packed_lines(rows: usize, size: usize) -> usize {
    (rows.div_ceil(ROWS) * ROWS * size).div_ceil(Line::LEN)
}

/// `matrix[i][k]` in groups of six rows, `[group][k][row]`, zeros behind the last row.
fn pack(rows: usize, size: usize, out: &mut [Line], entry: impl Fn(usize, usize) -> f32 + Sync) {
    let groups = numbers_mut(out).par_chunks_exact_mut((ROWS * size).max(1)).take(rows.div_ceil(ROWS)).enumerate();
    groups.with_min_len(PACKED.div_ceil(ROWS * size.max(1))).for_each(|(group, out)| {
        for (k, six) in out.as_chunks_mut::<ROWS>().0.iter_mut().enumerate() {
            for (row, v) in (group * ROWS..).zip(six) {
                *v = if row < rows { entry(row, k) } else { 0.0 };
            }
        }
    });
}

pub(super) fn forward(conv: &Conv2d, x: &[f32], weight: Weight, epilogue: Epilogue, y: &mut [f32]) {
    let windows = Windows::forward(conv);
    let size = windows.size();
    let packed = weight.form(Direction::Forward, Form::Rows, packed_lines(conv.c_out, size), |weight, out| {
        pack(conv.c_out, size, out, |row, k| weight[row * size + k]);
    });
    let product = Product { windows, rows: conv.c_out, packed: numbers(&packed).as_chunks().0 };
    multiply(conv.n, &[product], x, epilogue, y);
}

pub(super) fn backward_input(conv: &Conv2d, weight: Weight, dy: &[f32], dx: &mut [f32]) {
    let taps = conv.kernel * conv.kernel;
    let classes = Windows::backward(conv);
    // Row c of a class: what channel c gave to the outputs that the class's windows see.
    let lines: Vec<usize> = classes.iter().map(|(windows, _)| packed_lines(conv.c_in, windows.size())).collect();
    let packed = weight.form(Direction::Backward, Form::Rows, lines.iter().sum(), |weight, mut out| {
        for ((windows, positions), &lines) in classes.iter().zip(&lines) {
            let class = out.split_off_mut(..lines).expect("as many lines as all classes take");
            let seen = positions.len().max(1);
            pack(conv.c_in, windows.size(), class, |c, k| weight[(k / seen * conv.c_in + c) * taps + positions[k % seen]]);
        }
    });
    let mut rest = &*packed;
    let products: Vec<Product> = (classes.into_iter().zip(lines))
        .map(|((windows, _), lines)| {
            let (class, behind) = rest.split_at(lines);
            rest = behind;
            Product { windows, rows: conv.c_in, packed: numbers(class).as_chunks().0 }
        })
        .collect();
    multiply(conv.n, &products, dy, Epilogue::default(), dx);
}

/// `y = matrix x` at every pixel, where `entry(row, c)` is the matrix.
pub(super) fn pointwise(
    conv: &Conv2d,
    (weight, direction): (Weight, Direction),
    entry: impl Fn(&[f32], usize, usize) -> f32 + Sync,
    x: &[f32],
    y: &mut [f32],
) {
    let packed = weight.form(direction, Form::Rows, packed_lines(conv.c_out, conv.c_in), |weight, out| {
        pack(conv.c_out, conv.c_in, out, |row, c| entry(weight, row, c));
    });
    let product = Product { windows: Windows::forward(conv), rows: conv.c_out, packed: numbers(&packed).as_chunks().0 };
    multiply(conv.n, &[product], x, Epilogue::default(), y);
}

/// A matrix to be multiplied with windows.
struct Product<'a> {
    windows: Windows,
    /// Rows of the matrix: channels of the result.
    rows: usize,
    /// What [`pack`] has written.
    packed: &'a [[f32; ROWS]],
}

/// The products with all windows of `n` images `x`, and the epilogue, into `y`: the windows' pixels must be `y`'s, each once.
fn multiply(n: usize, products: &[Product], x: &[f32], epilogue: Epilogue, y: &mut [f32]) {
    let y = Parts::new(y);
    for product in products {
        let (blocks, groups) = (product.windows.pixels().div_ceil(TASK), product.rows.div_ceil(ROWS));
        // Where there are few pixels, threads share the rows. That does not show in the result, so it may depend on the threads.
        let worth = (groups * ROWS * TASK * product.windows.size()).div_ceil(PRODUCTS).clamp(1, groups);
        let shares = (2 * rayon::current_num_threads()).div_ceil((n * blocks).max(1)).min(worth);
        (0..n * blocks * shares).into_par_iter().for_each(|i| {
            let (share, block, image) = (i % shares, i / shares % blocks, i / shares / blocks);
            let pixels = block * TASK..product.windows.pixels().min((block + 1) * TASK);
            let groups = groups * share / shares..groups * (share + 1) / shares;
            let out = Target { product, epilogue, y: &y, image, pixels };
            SCRATCH.with_borrow_mut(|scratch| dispatch(Multiply { x, groups, out, scratch }));
        });
    }
}

/// Where the results of a task go.
struct Target<'a> {
    product: &'a Product<'a>,
    epilogue: Epilogue<'a>,
    y: &'a Parts<'a>,
    image: usize,
    pixels: Range<usize>,
}

/// Some groups of rows at some pixels of an image.
struct Multiply<'a> {
    x: &'a [f32],
    groups: Range<usize>,
    out: Target<'a>,
    scratch: &'a mut Scratch,
}

impl Kernel for Multiply<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { x, groups, out, scratch } = self;
        let Product { windows, packed, .. } = out.product;
        let size = windows.size();
        let image = &x[out.image * windows.source()..][..windows.source()];
        let panels = out.pixels.len().div_ceil(PIXELS);
        let gathered = grow(&mut scratch.panels, TASK / PIXELS * DEPTH, Panel::ZERO);
        let kept = grow(&mut scratch.sums, panels * groups.len() * ROWS, Panel::ZERO);
        // Once even if a window is empty.
        for first in (0..size.max(1)).step_by(DEPTH) {
            let depth = first..size.min(first + DEPTH);
            for (i, k) in depth.clone().enumerate() {
                let mut line = [0.0; TASK];
                windows.gather(image, k, out.pixels.start, &mut line[..out.pixels.len()]);
                for (panel, line) in line.as_chunks::<PIXELS>().0.iter().enumerate().take(panels) {
                    gathered[panel * DEPTH + i].0 = *line;
                }
            }
            let mut ahead = windows.ahead(image, depth.end, out.pixels.clone(), panels * groups.len());
            for (panel, sums) in kept.chunks_exact_mut(groups.len() * ROWS).enumerate() {
                let lines = &gathered[panel * DEPTH..][..depth.len()];
                for (group, sums) in groups.clone().zip(sums.as_chunks_mut::<ROWS>().0) {
                    ahead.fetch(s);
                    let start = if first == 0 { out.start(s, group) } else { load(s, sums) };
                    *sums = product(s, &packed[group * size..][depth.clone()], lines, start);
                    if depth.end == size {
                        out.store(s, group, panel * PIXELS, sums);
                    }
                }
            }
        }
    }
}

/// Six rows of 16 pixels.
#[inline(always)]
fn load<S: Simd>(s: S, sums: &[Panel; ROWS]) -> [[S::V; 2]; ROWS] {
    let mut out = [[s.zero(); 2]; ROWS];
    for (out, sums) in out.iter_mut().zip(sums) {
        *out = sums.load(s);
    }
    out
}

impl Target<'_> {
    /// What the sums of a group start with.
    #[inline(always)]
    fn start<S: Simd>(&self, s: S, group: usize) -> [[S::V; 2]; ROWS] {
        let rows = self.product.rows;
        let mut start = [[s.zero(); 2]; ROWS];
        for (start, row) in start.iter_mut().zip(group * ROWS..rows) {
            *start = [s.splat(self.epilogue.constant(rows, self.image, row)); 2];
        }
        start
    }

    /// Stores the sums of a group at 16 pixels of the task, from `offset` on.
    #[inline(always)]
    fn store<S: Simd>(&self, s: S, group: usize, offset: usize, sums: &[Panel; ROWS]) {
        let Product { windows, rows, .. } = self.product;
        let (first, there) = (self.pixels.start + offset, PIXELS.min(self.pixels.len() - offset));
        let (plane, whole) = (windows.target(), windows.dense());
        for (row, sums) in (group * ROWS..*rows).zip(sums) {
            let at = (self.image * rows + row) * plane;
            if whole {
                // SAFETY: a task writes the pixels of its own range and rows of its own image, and no two tasks share one.
                let out = unsafe { self.y.part(at + first, there) };
                let residual = self.epilogue.residual.map(|residual| &residual[at + first..][..there]);
                match (out.as_chunks_mut::<LANES>(), residual.map(<[f32]>::as_chunks::<LANES>)) {
                    (([low, high], []), None) => {
                        let [a, b] = sums.load(s);
                        s.store(a, low);
                        s.store(b, high);
                    }
                    (([low, high], []), Some(([c, d], _))) => {
                        let [a, b] = sums.load(s);
                        s.store(s.add(a, s.load(c)), low);
                        s.store(s.add(b, s.load(d)), high);
                    }
                    _ => {
                        out.copy_from_slice(&sums.0[..there]);
                        if let Some(residual) = residual {
                            out.iter_mut().zip(residual).for_each(|(out, v)| *out += v);
                        }
                    }
                }
                continue;
            }
            for (v, place) in sums.0.iter().zip(windows.places(first, there)) {
                // SAFETY: as above; pixels of different classes are different.
                let [out] = unsafe { self.y.array(at + place) };
                *out = v + self.epilogue.residual.map_or(0.0, |residual| residual[at + place]);
            }
        }
    }
}
