//! Fully connected layers: products of few rows with a large matrix.

use std::ops::Range;

use rayon::prelude::*;

use crate::conv::{Conv2d, Epilogue, MAX_SIDE};
use crate::error::{Error, Result, check_lengths, size};
use crate::parts::Parts;
use crate::simd::{Kernel, LANES, Simd, dispatch, lanes};

/// Outputs and rows of the register block: twelve sums.
const OUTPUTS: usize = 4;
const ROWS: usize = 3;
/// Outputs of a task.
const TASK: usize = 16;
/// So many products are worth a thread's waking.
const PRODUCTS: usize = 1 << 18;

/// The shape of a linear layer from `x [rows, c_in]` to `y [rows, c_out]`, whose `weight` is `[c_out, c_in]`.
///
/// ```text
/// y[r, o] = bias[o] + sum over i of weight[o, i] x[r, i]
/// ```
///
/// One row, as a time embedding has while sampling, takes one pass over the weight. A row's bits do not depend on the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linear {
    /// Rows: one an image.
    pub rows: usize,
    /// Numbers of a row of the input.
    pub c_in: usize,
    /// Numbers of a row of the output.
    pub c_out: usize,
}

impl Linear {
    /// The layer's output for `x`, into `y`.
    ///
    /// # Errors
    /// Where `c_in` or `c_out` is zero or above 2^28, or a slice does not have its length.
    pub fn forward(&self, x: &[f32], weight: &[f32], bias: Option<&[f32]>, y: &mut [f32]) -> Result<()> {
        let [of_x, of_weight, of_y] = self.sizes();
        let bias_length = bias.map_or(self.c_out, <[f32]>::len);
        let lengths = [("x", x.len(), of_x), ("weight", weight.len(), of_weight)];
        self.check("Linear::forward", lengths, [("y", y.len(), of_y), ("bias", bias_length, self.c_out)])?;
        let y = Parts::new(y);
        let tasks = (0..self.c_out.div_ceil(TASK)).into_par_iter();
        tasks.with_min_len(PRODUCTS.div_ceil(TASK * self.c_in * self.rows.max(1))).for_each(|i| {
            let outputs = i * TASK..self.c_out.min((i + 1) * TASK);
            dispatch(Forward { shape: *self, x, weight, bias, y: &y, outputs });
        });
        Ok(())
    }

    /// The gradient by `x`, into `dx`.
    ///
    /// # Errors
    /// As for [`forward`](Self::forward).
    pub fn backward_input(&self, weight: &[f32], dy: &[f32], dx: &mut [f32]) -> Result<()> {
        let [of_x, of_weight, of_y] = self.sizes();
        let lengths = [("weight", weight.len(), of_weight), ("dy", dy.len(), of_y)];
        self.check("Linear::backward_input", lengths, [("dx", dx.len(), of_x); 2])?;
        match self.rows {
            0 => Ok(()),
            _ => self.pointwise().forward(weight, dy, Epilogue::default(), dx),
        }
    }

    /// The gradient by `weight`, into `dw`: the sum over the rows in their order.
    ///
    /// # Errors
    /// As for [`forward`](Self::forward).
    pub fn backward_weight(&self, x: &[f32], dy: &[f32], dw: &mut [f32]) -> Result<()> {
        let [of_x, of_weight, of_y] = self.sizes();
        let lengths = [("x", x.len(), of_x), ("dy", dy.len(), of_y)];
        self.check("Linear::backward_weight", lengths, [("dw", dw.len(), of_weight); 2])?;
        match self.rows {
            0 => dw.fill(0.0),
            _ => self.pointwise().backward_input(dy, x, dw)?,
        }
        Ok(())
    }

    /// The gradient by `bias`, into `db`: the sum over the rows in their order.
    ///
    /// # Errors
    /// As for [`forward`](Self::forward).
    pub fn backward_bias(&self, dy: &[f32], db: &mut [f32]) -> Result<()> {
        let [_, _, of_y] = self.sizes();
        self.check("Linear::backward_bias", [("dy", dy.len(), of_y); 2], [("db", db.len(), self.c_out); 2])?;
        db.fill(0.0);
        for row in dy.chunks_exact(self.c_out) {
            db.iter_mut().zip(row).for_each(|(db, dy)| *db += dy);
        }
        Ok(())
    }

    /// Both gradients are products of matrices that lie as those of a pointwise convolution do: the rows are its output channels, and
    /// `c_in` its pixels.
    ///
    /// ```text
    /// dx[r, i] = sum over o of dy[r, o] weight[o, i]     y[o, p] = sum over c of weight[o, c] x[c, p]
    /// dw[o, i] = sum over r of dy[r, o] x[r, i]         dx[c, p] = sum over o of weight[o, c] dy[o, p]
    /// ```
    fn pointwise(&self) -> Conv2d {
        Conv2d {
            n: 1,
            c_in: self.c_out,
            c_out: self.rows,
            h: 1,
            w: self.c_in,
            kernel: 1,
            stride: 1,
            padding: [(0, 0); 2],
            exact: false,
        }
    }

    /// The lengths of `x`, the weight and `y`.
    fn sizes(&self) -> [usize; 3] {
        let Self { rows, c_in, c_out } = *self;
        [size([rows, c_in]), size([c_out, c_in]), size([rows, c_out])]
    }

    fn check(&self, at: &'static str, given: [Length; 2], more: [Length; 2]) -> Result<()> {
        for (what, got) in [("c_in", self.c_in), ("c_out", self.c_out)] {
            if !(1..=MAX_SIDE).contains(&got) {
                return Err(Error::Shape { what, expected: format!("1 to {MAX_SIDE}"), got, at });
            }
        }
        check_lengths(at, &[given, more].concat())
    }
}

/// A slice's name, its length, and the length that the shape asks for.
type Length = (&'static str, usize, usize);

/// Some outputs of all rows.
struct Forward<'a> {
    shape: Linear,
    x: &'a [f32],
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    y: &'a Parts<'a>,
    outputs: Range<usize>,
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Linear { rows, c_in, c_out } = self.shape;
        for first in self.outputs.clone().step_by(OUTPUTS) {
            let outputs = OUTPUTS.min(self.outputs.end - first);
            let bias = self.bias.map_or(&[][..], |bias| &bias[first..][..outputs]);
            // Behind the last output or row the last is taken again, and not written.
            let weights: [_; OUTPUTS] = std::array::from_fn(|i| &self.weight[(first + i.min(outputs - 1)) * c_in..][..c_in]);
            for row in (0..rows).step_by(ROWS) {
                let x: [_; ROWS] = std::array::from_fn(|i| &self.x[(row + i).min(rows - 1) * c_in..][..c_in]);
                let sums = dot_products(s, weights, x);
                for (r, row) in (row..rows).take(ROWS).enumerate() {
                    // SAFETY: a task writes its own outputs, and no two tasks share one.
                    let y = unsafe { self.y.part(row * c_out + first, outputs) };
                    for (o, (y, sums)) in y.iter_mut().zip(&sums).enumerate() {
                        *y = sums[r] + bias.get(o).copied().unwrap_or(0.0);
                    }
                }
            }
        }
    }
}

/// The scalar products of four rows of the weight with three of the input, all as long as the first, each in one chain of eight lanes.
#[inline(always)]
fn dot_products<S: Simd>(s: S, weights: [&[f32]; OUTPUTS], rows: [&[f32]; ROWS]) -> [[f32; ROWS]; OUTPUTS] {
    let eights = weights[0].len() / LANES;
    // Equal lengths, which the compiler sees.
    let w = weights.map(|row| &row.as_chunks::<LANES>().0[..eights]);
    let x = rows.map(|row| &row.as_chunks::<LANES>().0[..eights]);
    let mut sums = [[s.zero(); ROWS]; OUTPUTS];
    for i in 0..eights {
        // Twelve sums, three of these and one of the weights: all 16 registers.
        let x = lanes!(s, r in ROWS => s.load(&x[r][i]));
        for (sums, w) in sums.iter_mut().zip(&w) {
            let w = s.load(&w[i]);
            for (sum, &x) in sums.iter_mut().zip(&x) {
                *sum = s.mul_add(w, x, *sum);
            }
        }
    }
    let mut out = [[0.0; ROWS]; OUTPUTS];
    let rest = eights * LANES;
    for (o, (out, sums)) in out.iter_mut().zip(sums).enumerate() {
        // Also where nothing is left: behind a branch the sums would leave their registers.
        let w = s.load_part(&weights[o][rest..]);
        for (r, (out, sum)) in out.iter_mut().zip(sums).enumerate() {
            *out = s.sum(s.mul_add(w, s.load_part(&rows[r][rest..]), sum));
        }
    }
    out
}

#[cfg(test)]
mod tests;
