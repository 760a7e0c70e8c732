//! The gradient of Winograd's convolution by its filter.
//!
//! ```text
//! dw[co, ci] = sum over tiles of F(3x3, MxM)(x, dy) = A'^T (sum over tiles (G' dy G'^T)[co] (B^T x B)[ci]) A'
//! ```
//! The sum over the tiles is, at every point, a product of matrices. The rows of tiles are cut into parts at places that the shape
//! decides; each part is summed in order, and then the parts.

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

use super::input::{Image, TransformInput};
use super::tile::{F2, F4, Tile};
use super::{BLOCK, Layout, Shape, each};
use crate::parts::Parts;
use crate::scratch::{Line, Scratch, numbers_mut};
use crate::simd::{Kernel, LANES, Simd, dispatch, lanes};

/// How many sums there are over the tiles, at most.
const PARTS: usize = 8;
/// The lines of all those sums together: they should stay in the third-level cache (4 MiB).
const SUMS: usize = 1 << 16;
/// Tiles that are summed at once, at least a row of them: the more, the less often the sums are read and written.
const TASK_TILES: usize = 256;

/// `dw [c_out, c_in, 3, 3]` from the input and the gradient of the output.
pub(in crate::conv) fn weight_gradient(shape: Shape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    match shape.small() {
        true => weight_gradient_by::<F2, 2, 4>(shape, x, dy, dw),
        false => weight_gradient_by::<F4, 4, 6>(shape, x, dy, dw),
    }
}

fn weight_gradient_by<T: Tile<M, A>, const M: usize, const A: usize>(shape: Shape, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let (rows, across) = shape.tiles(M);
    let (blocks_in, blocks_out) = (shape.c_in.div_ceil(BLOCK), shape.c_out.div_ceil(BLOCK));
    let lines = A * A * blocks_out * blocks_in * BLOCK;
    let parts = (SUMS / lines).min(rows).clamp(1, PARTS);
    let shared = parts < rayon::current_num_threads();
    let step = (TASK_TILES / across).max(1);
    let (x, dy) = (
        Image { numbers: x, channels: shape.c_in, h: shape.h, w: shape.w },
        Image { numbers: dy, channels: shape.c_out, h: shape.h, w: shape.w },
    );
    let mut sums = Scratch::new(parts * lines);
    sums.par_chunks_mut(lines).enumerate().for_each(|(part, sums)| {
        let part = rows * part / parts..rows * (part + 1) / parts;
        if part.is_empty() {
            sums.fill(Line::ZERO);
        }
        for start in part.clone().step_by(step) {
            let rows = start..part.end.min(start + step);
            let tiles = rows.len() * across;
            let (x_layout, dy_layout) = (Layout::by_block(blocks_in, tiles), Layout::by_block(blocks_out, tiles));
            let (mut x_points, mut dy_points) = (Scratch::new(A * A * x_layout.point), Scratch::new(A * A * dy_layout.point));

            let (x_out, dy_out) = (Parts::new(&mut x_points), Parts::new(&mut dy_points));
            each(shared, blocks_in + blocks_out, |block| {
                let (rows, tile) = (rows.clone(), PhantomData);
                match block.checked_sub(blocks_in) {
                    None => dispatch(TransformInput::<T, M, A> { image: x, rows, block, layout: x_layout, out: &x_out, tile }),
                    Some(block) => {
                        dispatch(TransformGradient::<T, M, A> { image: dy, rows, block, layout: dy_layout, out: &dy_out, tile })
                    }
                }
            });
            let out = Parts::new(sums);
            each(shared, A * A * blocks_in, |i| {
                let (point, block) = (i / blocks_in, i % blocks_in);
                // SAFETY: every pair of a point and a block of inputs has its own sums, and no two tasks share a pair.
                let sums = unsafe { out.part(i * blocks_out * BLOCK, blocks_out * BLOCK) };
                let x = &x_points[point * x_layout.point + block * x_layout.block..][..tiles];
                let dy = &dy_points[point * dy_layout.point..][..blocks_out * dy_layout.block];
                dispatch(OuterProduct { x, dy, stride: dy_layout.block, sums, first: start == part.start });
            });
        }
    });
    let sums = &sums;
    dw.par_chunks_mut(shape.c_in * 9).enumerate().for_each(|(k, dw)| {
        dispatch(Finish::<T, M, A> { shape, sums, parts, k, dw, tile: PhantomData });
    });
}

/// `sums += dy^T x` over some tiles at one point, for 16 inputs and all outputs.
struct OuterProduct<'a> {
    /// `[tile]`.
    x: &'a [Line],
    /// `[block][tile]`, blocks `stride` apart.
    dy: &'a [Line],
    stride: usize,
    /// `[output]`.
    sums: &'a mut [Line],
    /// Whether the sums start here.
    first: bool,
}

impl Kernel for OuterProduct<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if self.first {
            self.sums.fill(Line::ZERO);
        }
        for (dy, sums) in self.dy.chunks_exact(self.stride).zip(self.sums.as_chunks_mut::<BLOCK>().0) {
            // 16 outputs, as many at a time as the registers hold sums for.
            outer_product::<S, 0, 6>(s, dy, self.x, sums);
            outer_product::<S, 6, 5>(s, dy, self.x, sums);
            outer_product::<S, 11, 5>(s, dy, self.x, sums);
        }
    }
}

/// Outputs `FIRST .. FIRST + ROWS` of a block.
#[inline(always)]
fn outer_product<S: Simd, const FIRST: usize, const ROWS: usize>(s: S, dy: &[Line], x: &[Line], out: &mut [Line; BLOCK]) {
    let mut sums = [[s.zero(); 2]; ROWS];
    for (sum, out) in sums.iter_mut().zip(&out[FIRST..]) {
        *sum = [s.load(&out.0[0]), s.load(&out.0[1])];
    }
    for (dy, x) in dy.iter().zip(x) {
        let row = [s.load(&x.0[0]), s.load(&x.0[1])];
        for (i, sum) in sums.iter_mut().enumerate() {
            let v = s.splat(dy.0.as_flattened()[FIRST + i]);
            *sum = [s.mul_add(v, row[0], sum[0]), s.mul_add(v, row[1], sum[1])];
        }
    }
    for (sum, out) in sums.into_iter().zip(&mut out[FIRST..]) {
        s.store(sum[0], &mut out.0[0]);
        s.store(sum[1], &mut out.0[1]);
    }
}

/// `G' dy G'^T` of one block of 16 channels, for the tiles in `rows`.
struct TransformGradient<'a, T, const M: usize, const A: usize> {
    image: Image<'a>,
    rows: Range<usize>,
    block: usize,
    layout: Layout,
    out: &'a Parts<'a, Line>,
    tile: PhantomData<T>,
}

impl<T: Tile<M, A>, const M: usize, const A: usize> Kernel for TransformGradient<'_, T, M, A> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Image { h, w, .. } = self.image;
        let (down, across) = (h.div_ceil(M), w.div_ceil(M));
        let width = across * M;
        let mut scratch = Scratch::new((A * width).div_ceil(2));
        let (scratch, _) = numbers_mut(&mut scratch).as_chunks_mut::<LANES>();
        for (i_row, row) in self.rows.clone().enumerate() {
            let (n, top) = (row / down, row % down * M);
            for half in 0..2 {
                for (i, line) in scratch.chunks_exact_mut(width).enumerate().take(M) {
                    if top + i < h {
                        self.image.load_row(s, n, self.block * BLOCK + half * LANES, top + i, line);
                        line[w..].fill([0.0; LANES]);
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
                    let place = self.layout.place(self.block, i_row * across + tile);
                    for i in 0..A {
                        let line = &scratch[i * width + tile * M..][..M];
                        let points = T::output_gradient(s, lanes!(s, j in M => s.load(&line[j])));
                        for (j, v) in points.into_iter().enumerate() {
                            // SAFETY: every block has its own lines, and no two tasks share a block of the same tiles.
                            let line = unsafe { self.out.part((i * A + j) * self.layout.point + place, 1) };
                            s.store(v, &mut line[0].0[half]);
                        }
                    }
                }
            }
        }
    }
}

/// `dw [c_in, 3, 3]` of output `k`: the parts added, and read back from the points.
struct Finish<'a, T, const M: usize, const A: usize> {
    shape: Shape,
    sums: &'a [Line],
    parts: usize,
    k: usize,
    dw: &'a mut [f32],
    tile: PhantomData<T>,
}

impl<T: Tile<M, A>, const M: usize, const A: usize> Kernel for Finish<'_, T, M, A> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (blocks_in, outputs) = (self.shape.c_in.div_ceil(BLOCK), self.shape.c_out.next_multiple_of(BLOCK));
        let part = A * A * blocks_in * outputs;
        for (first, dw) in self.dw.chunks_mut(LANES * 9).enumerate() {
            let mut lines = [[s.zero(); 3]; A];
            for (i, line) in lines.iter_mut().enumerate() {
                let points = lanes!(s, j in A => {
                    let place = ((i * A + j) * blocks_in + first / 2) * outputs + self.k;
                    let mut sum = s.zero();
                    for p in 0..self.parts {
                        sum = s.add(sum, s.load(&self.sums[p * part + place].0[first % 2]));
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
