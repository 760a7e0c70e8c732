//! The gradient of Winograd's convolution by its filter.
//!
//! ```text
//! dw[co, ci] = sum over tiles of F(3x3, MxM)(x, dy) = A'^T (sum over tiles (G' dy G'^T)[co] (B^T x B)[ci]) A'
//! ```
//! The sum over the tiles is, at every point, a product of matrices. The rows of tiles are cut into parts at places that the shape
//! decides; each part is summed in order, and then the parts.

use std::marker::PhantomData;

use rayon::prelude::*;

use super::input::{Image, OfGradient, OfInput, Transform};
use super::tile::{F2, F4, Tile};
use super::{BLOCK, Layout, Shape, each};
use crate::parts::Parts;
use crate::scratch::{Line, Scratch};
use crate::simd::{Kernel, LANES, Simd, dispatch, lanes};

/// How many sums there are over the tiles, at most, and about how many lines they take together: few enough for the second-level cache.
const PARTS: usize = 8;
const SUMS: usize = 1 << 16;
/// Tiles of one sum, at least: what a sum saves in waiting, it costs in adding.
const PART_TILES: usize = 128;
/// Tiles that are summed at once, at least a row of them, in a sum of one thread and in one that threads share: few stay in the
/// second-level cache, many read and write the sums less often.
const TASK_TILES: (usize, usize) = (96, 256);

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
    // `[point][input block][output]`.
    let point = Layout::apart(blocks_in * blocks_out * BLOCK);
    let lines = A * A * point;
    // Powers of two, which two or four threads share evenly.
    let most = (rows * across / PART_TILES).max(1);
    let parts = (SUMS / lines).clamp(1, PARTS).next_power_of_two().min(1 << most.ilog2());
    let shared = parts < rayon::current_num_threads();
    let step = (if shared { TASK_TILES.1 } else { TASK_TILES.0 } / across).max(1);
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
                let rows = rows.clone();
                if block < blocks_in {
                    // SAFETY: `x_out` has the layout, and every block is transformed once.
                    dispatch(unsafe { Transform::<OfInput<T, M>, A, M, A>::new(x, rows, block, x_layout, &x_out) });
                } else {
                    let block = block - blocks_in;
                    // SAFETY: as above.
                    dispatch(unsafe { Transform::<OfGradient<T>, M, M, A>::new(dy, rows, block, dy_layout, &dy_out) });
                }
            });
            let out = Parts::new(sums);
            each(shared, A * A * blocks_in, |i| {
                let (at, block) = (i / blocks_in, i % blocks_in);
                // SAFETY: every pair of a point and a block of inputs has its own sums, and no two tasks share a pair.
                let sums = unsafe { out.part(at * point + block * blocks_out * BLOCK, blocks_out * BLOCK) };
                let x = &x_points[at * x_layout.point + block * x_layout.block..][..tiles];
                let dy = &dy_points[at * dy_layout.point..][..blocks_out * dy_layout.block];
                dispatch(OuterProduct { x, dy, stride: dy_layout.block, sums, first: start == part.start });
            });
        }
    });
    let sums = &sums;
    dw.par_chunks_mut(BLOCK * shape.c_in * 9).enumerate().for_each(|(block, dw)| {
        dispatch(Finish::<T, M, A> { shape, sums, part: lines, point, block, dw, tile: PhantomData });
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

/// `dw [16, c_in, 3, 3]` of a block of outputs: the parts added, and read back from the points.
struct Finish<'a, T, const M: usize, const A: usize> {
    shape: Shape,
    sums: &'a [Line],
    /// Lines of a part, and of one of its points.
    part: usize,
    point: usize,
    block: usize,
    dw: &'a mut [f32],
    tile: PhantomData<T>,
}

impl<T: Tile<M, A>, const M: usize, const A: usize> Kernel for Finish<'_, T, M, A> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let outputs = self.shape.c_out.next_multiple_of(BLOCK);
        let length = self.shape.c_in * 9;
        let dw = std::mem::take(&mut self.dw);
        for (input, first) in (0..length).step_by(BLOCK * 9).enumerate() {
            for (k, dw) in dw.chunks_exact_mut(length).enumerate() {
                let place = input * outputs + self.block * BLOCK + k;
                let mut filters = [[0.0; 9]; BLOCK];
                for (half, filters) in filters.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                    self.filters(s, place, half, filters);
                }
                let dw = &mut dw[first..length.min(first + BLOCK * 9)];
                dw.copy_from_slice(&filters.as_flattened()[..dw.len()]);
            }
        }
    }
}

impl<T: Tile<M, A>, const M: usize, const A: usize> Finish<'_, T, M, A> {
    /// The gradients by eight filters, whose sums stand in half a line.
    #[inline(always)]
    fn filters<S: Simd>(&self, s: S, mut place: usize, half: usize, filters: &mut [[f32; 9]; LANES]) {
        let mut lines = [[s.zero(); 3]; A];
        for line in &mut lines {
            let mut points = [s.zero(); A];
            for v in &mut points {
                *v = s.load(&self.sums[place].0[half]);
                for part in self.sums.chunks_exact(self.part).skip(1) {
                    *v = s.add(*v, s.load(&part[place].0[half]));
                }
                place += self.point;
            }
            *line = T::filter_gradient(s, points);
        }
        // By tap, eight inputs each; and then by input.
        let mut taps = [[0.0; LANES]; 9];
        for j in 0..3 {
            let column = T::filter_gradient(s, lanes!(s, i in A => lines[i][j]));
            for (i, v) in column.into_iter().enumerate() {
                s.store(v, &mut taps[i * 3 + j]);
            }
        }
        let by_input = s.transpose(lanes!(s, i in LANES => s.load(&taps[i])));
        for (c, filter) in filters.iter_mut().enumerate() {
            let (eight, last) = filter.split_at_mut(LANES);
            s.store_part(by_input[c], eight);
            last[0] = taps[8][c];
        }
    }
}
