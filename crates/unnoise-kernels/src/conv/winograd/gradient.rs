//! The gradient of Winograd's convolution by its filter.
//!
//! ```text
//! dw[co, ci] = sum over tiles of F(3x3, MxM)(x, dy) = A'^T (sum over tiles (G' dy G'^T)[co] (B^T x B)[ci]) A'
//! ```
//! The sum over the tiles is, at every point, a product of matrices. The rows of tiles are cut into [`PARTS`] at places that the shape
//! decides; each part is summed in order, and then the parts.

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

use super::tile::{F2, F4, Tile};
use super::{BLOCK, GROUP, Image, SCRATCH, Scratch, Shape, Square, TASK_TILES, Tiles, small, transform_input};
use crate::scratch::grow;
use crate::simd::{Kernel, LANES, Simd, dispatch, lanes};

/// How many sums there are over the tiles, at most: enough for as many threads, and few enough for the memory.
const PARTS: usize = 8;

/// `dw [c_out, c_in, 3, 3]` from the input and the gradient of the output.
pub(in crate::conv) fn weight_gradient(shape: Shape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    if small(shape) {
        weight_gradient_by::<F2, 2, 4, 17>(shape, x, dy, dw);
    } else {
        weight_gradient_by::<F4, 4, 6, 37>(shape, x, dy, dw);
    }
}

fn weight_gradient_by<T: Tile<M, A>, const M: usize, const A: usize, const STRIDE: usize>(
    shape: Shape,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
) {
    let (rows, columns) = shape.tiles(M);
    let step = (TASK_TILES / columns).max(1);
    let parts = rows.div_ceil(step).clamp(1, PARTS);
    let squares = A * A * shape.c_in.div_ceil(BLOCK) * shape.c_out.div_ceil(BLOCK);
    let mut sums = vec![Square::ZERO; parts * squares];
    sums.par_chunks_mut(squares).enumerate().for_each(|(part, sums)| {
        let part = rows * part / parts..rows * (part + 1) / parts;
        for start in part.clone().step_by(step) {
            let rows = start..(start + step).min(part.end);
            SCRATCH.with_borrow_mut(|scratch| {
                dispatch(Accumulate::<T, M, A, STRIDE> { shape, x, dy, rows, sums, scratch, tile: PhantomData });
            });
        }
    });
    let sums = &sums;
    dw.par_chunks_mut(shape.c_in * 9).enumerate().for_each(|(k, dw)| {
        dispatch(Finish::<T, M, A> { shape, sums, parts, k, dw, tile: PhantomData });
    });
}

/// Adds the products of some rows of tiles to `sums[point][output block][input block]`, whose squares are `[output][input]`.
struct Accumulate<'a, T, const M: usize, const A: usize, const STRIDE: usize> {
    shape: Shape,
    x: &'a [f32],
    dy: &'a [f32],
    rows: Range<usize>,
    sums: &'a mut [Square],
    scratch: &'a mut Scratch,
    tile: PhantomData<T>,
}

impl<T: Tile<M, A>, const M: usize, const A: usize, const STRIDE: usize> Kernel for Accumulate<'_, T, M, A, STRIDE> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Shape { c_in, c_out, h, w, .. } = self.shape;
        let (blocks_in, blocks_out) = (c_in.div_ceil(BLOCK), c_out.div_ceil(BLOCK));
        let tiles = self.rows.len() * w.div_ceil(M);
        let groups = tiles.div_ceil(GROUP);
        let input = grow(&mut self.scratch.input, groups * blocks_in * STRIDE, Tiles::ZERO);
        let output = grow(&mut self.scratch.output, groups * blocks_out * STRIDE, Tiles::ZERO);
        let scratch = grow(&mut self.scratch.rows, A * (w.div_ceil(M) * M + A - M), [0.0; LANES]);
        if !tiles.is_multiple_of(GROUP) {
            // The places behind the last tile are summed too.
            input[(groups - 1) * blocks_in * STRIDE..].fill(Tiles::ZERO);
            output[(groups - 1) * blocks_out * STRIDE..].fill(Tiles::ZERO);
        }
        transform_input::<S, T, M, A, STRIDE>(
            s,
            Image { numbers: self.x, channels: c_in, h, w },
            self.rows.clone(),
            scratch,
            input,
        );
        let gradient = Image { numbers: self.dy, channels: c_out, h, w };
        transform_output_gradient::<S, T, M, A, STRIDE>(s, gradient, self.rows, scratch, output);

        for (point, sums) in self.sums.chunks_exact_mut(blocks_out * blocks_in).enumerate() {
            for (k, sums) in sums.chunks_exact_mut(blocks_in).enumerate() {
                for (c, sum) in sums.iter_mut().enumerate() {
                    let dy = || output[k * STRIDE + point..].iter().step_by(blocks_out * STRIDE);
                    let x = || input[c * STRIDE + point..].iter().step_by(blocks_in * STRIDE);
                    // 16 rows, as many at a time as the registers hold sums for.
                    outer_product::<S, 0, 6>(s, dy().zip(x()), sum);
                    outer_product::<S, 6, 5>(s, dy().zip(x()), sum);
                    outer_product::<S, 11, 5>(s, dy().zip(x()), sum);
                }
            }
        }
    }
}

/// Rows `FIRST .. FIRST + ROWS` of `sum += dy^T x` over the tiles.
#[inline(always)]
fn outer_product<'a, S: Simd, const FIRST: usize, const ROWS: usize>(
    s: S,
    tiles: impl Iterator<Item = (&'a Tiles, &'a Tiles)>,
    sum: &mut Square,
) {
    let mut sums = [[s.zero(); 2]; ROWS];
    for (sums, sum) in sums.iter_mut().zip(&sum.0[FIRST..]) {
        *sums = [s.load(&sum[0]), s.load(&sum[1])];
    }
    for (dy, x) in tiles {
        for (dy, x) in dy.0.iter().zip(&x.0) {
            let row = [s.load(&x[0]), s.load(&x[1])];
            for (i, sum) in sums.iter_mut().enumerate() {
                let v = s.splat(dy[(FIRST + i) / LANES][(FIRST + i) % LANES]);
                *sum = [s.mul_add(v, row[0], sum[0]), s.mul_add(v, row[1], sum[1])];
            }
        }
    }
    for (i, v) in sums.into_iter().enumerate() {
        s.store(v[0], &mut sum.0[FIRST + i][0]);
        s.store(v[1], &mut sum.0[FIRST + i][1]);
    }
}

/// `G' dy G'^T` of the tiles in `rows`.
#[inline(always)]
fn transform_output_gradient<S: Simd, T: Tile<M, A>, const M: usize, const A: usize, const STRIDE: usize>(
    s: S,
    image: Image,
    rows: Range<usize>,
    scratch: &mut [[f32; LANES]],
    out: &mut [Tiles],
) {
    let (down, across) = (image.h.div_ceil(M), image.w.div_ceil(M));
    let width = across * M;
    let blocks = image.channels.div_ceil(BLOCK);
    for (i_row, row) in rows.enumerate() {
        let (n, top) = (row / down, row % down * M);
        for first in 0..blocks * 2 {
            for (i, line) in scratch.chunks_exact_mut(width).enumerate().take(M) {
                if top + i < image.h {
                    image.load_row(s, n, first * LANES, top + i, line);
                    line[image.w..].fill([0.0; LANES]);
                } else {
                    line.fill([0.0; LANES]);
                }
            }
            for x in 0..width {
                let column = T::output_gradient(s, lanes!(s, i in M => s.load(&scratch[i * width + x])));
                for (i, v) in column.into_iter().enumerate() {
                    s.store(v, &mut scratch[i * width + x]);
                }
            }
            for tile in 0..across {
                let place = i_row * across + tile;
                let block = &mut out[(place / GROUP * blocks + first / 2) * STRIDE..][..STRIDE];
                for i in 0..A {
                    let line = &scratch[i * width + tile * M..][..M];
                    let points = T::output_gradient(s, lanes!(s, j in M => s.load(&line[j])));
                    for (j, v) in points.into_iter().enumerate() {
                        s.store(v, &mut block[i * A + j].0[place % GROUP][first % 2]);
                    }
                }
            }
        }
    }
}

/// `dw [c_in, 3, 3]` of output `k`: the parts added, and read back from the points.
struct Finish<'a, T, const M: usize, const A: usize> {
    shape: Shape,
    sums: &'a [Square],
    parts: usize,
    k: usize,
    dw: &'a mut [f32],
    tile: PhantomData<T>,
}

impl<T: Tile<M, A>, const M: usize, const A: usize> Kernel for Finish<'_, T, M, A> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Shape { c_in, c_out, .. } = self.shape;
        let (blocks_in, blocks_out) = (c_in.div_ceil(BLOCK), c_out.div_ceil(BLOCK));
        let part = A * A * blocks_out * blocks_in;
        for (first, dw) in self.dw.chunks_mut(LANES * 9).enumerate() {
            let mut lines = [[s.zero(); 3]; A];
            for (i, line) in lines.iter_mut().enumerate() {
                let points = lanes!(s, j in A => {
                    let square = ((i * A + j) * blocks_out + self.k / BLOCK) * blocks_in + first / 2;
                    let mut sum = s.zero();
                    for p in 0..self.parts {
                        sum = s.add(sum, s.load(&self.sums[p * part + square].0[self.k % BLOCK][first % 2]));
                    }
                    sum
                });
                *line = T::filter_gradient(s, points);
            }
            for j in 0..3 {
                let column = T::filter_gradient(s, lanes!(s, i in A => lines[i][j]));
                for (i, v) in column.into_iter().enumerate() {
                    let mut lanes = [0.0; LANES];
                    s.store(v, &mut lanes);
                    for (dw, lane) in dw[i * 3 + j..].iter_mut().step_by(9).zip(lanes) {
                        *dw = lane;
                    }
                }
            }
        }
    }
}
