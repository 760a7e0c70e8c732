//! 3x3 correlation with stride 1 and one zero of padding, by Winograd's minimal filtering.
//!
//! The image is cut into `M x M` tiles; each, with its border of one, is taken to `A x A` points, where the correlation is a product of
//! matrices over the channels, one per point. That takes `A^2 / M^2` multiplications a pixel and channel pair instead of 9: 2.25 for
//! F(4x4), 4 for F(2x2).
//!
//! ```text
//! x [n, ci, h, w] --B^T . B--> V[point][tile, ci] --times U[point][ci, co]--> M[point][tile, co] --A^T . A--> y [n, co, h, w]
//! ```
//!
//! Eight channels sit in the lanes through both transforms. A task takes some rows of tiles through all three steps in its own scratch,
//! so nothing but the output is shared. Channels are filled up to 16 with zeros.

mod gradient;
mod tile;

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;

pub(super) use gradient::weight_gradient;
use tile::{F2, F4, Tile};

use crate::parts::Parts;
use crate::scratch::grow;
use crate::simd::{Kernel, LANES, Simd, dispatch, lanes};

/// Channels in one block of the transformed arrays.
const BLOCK: usize = 16;
/// Tiles in one block: the rows of the 6 x 16 product, whose twelve sums fill the registers.
const GROUP: usize = 6;
/// Tiles of one task, at least a row of them: their transform stays in the second-level cache.
const TASK_TILES: usize = 96;

/// Images and channels of a 3x3 convolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) n: usize,
    pub(super) c_in: usize,
    pub(super) c_out: usize,
    pub(super) h: usize,
    pub(super) w: usize,
}

impl Shape {
    /// Rows of tiles in all images, and tiles in a row.
    fn tiles(&self, m: usize) -> (usize, usize) {
        (self.n * self.h.div_ceil(m), self.w.div_ceil(m))
    }
}

/// Six tiles by 16 channels at one point: `[tile][half][lane]`.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Tiles([[[f32; LANES]; 2]; GROUP]);

/// 16 channels by 16 channels at one point: `[row][half][lane]`.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Square([[[f32; LANES]; 2]; BLOCK]);

impl Square {
    const ZERO: Self = Self([[[0.0; LANES]; 2]; BLOCK]);
}

impl Tiles {
    const ZERO: Self = Self([[[0.0; LANES]; 2]; GROUP]);
}

/// A thread's scratch, kept from call to call.
#[derive(Default)]
struct Scratch {
    /// The transformed input, `[group][channel block][point]`.
    input: Vec<Tiles>,
    /// The products, or the transformed gradient of the output, in the same order.
    output: Vec<Tiles>,
    /// One row of tiles, eight channels: `[row of the tile][column]`.
    rows: Vec<[f32; LANES]>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Whether the filter is used as it stands or as the gradient by the input needs it.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Direction {
    /// `weight` is `[c_out, c_in, 3, 3]`.
    Forward,
    /// `weight` is `[c_in, c_out, 3, 3]`: channels exchanged and taps reversed.
    Backward,
}

/// Correlates `x` with `weight` into `y`; sides up to 8 take F(2x2), which fits them better, larger ones F(4x4).
pub(super) fn correlate(shape: Shape, direction: Direction, x: &[f32], weight: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    if small(shape) {
        correlate_by::<F2, 2, 4, 17>(shape, direction, x, weight, bias, y);
    } else {
        correlate_by::<F4, 4, 6, 37>(shape, direction, x, weight, bias, y);
    }
}

fn small(shape: Shape) -> bool {
    shape.h.max(shape.w) <= 8
}

/// `STRIDE` is the distance between two channel blocks of a transformed array: the `A^2` points and one block of nothing, without
/// which the blocks of one point would share a few sets of the first-level cache.
fn correlate_by<T: Tile<M, A>, const M: usize, const A: usize, const STRIDE: usize>(
    shape: Shape,
    direction: Direction,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
) {
    let blocks_in = shape.c_in.div_ceil(BLOCK);
    let mut filter = vec![Square::ZERO; shape.c_out.div_ceil(BLOCK) * A * A * blocks_in];
    filter.par_chunks_mut(A * A * blocks_in).enumerate().for_each(|(block, out)| {
        dispatch(Filter::<T, M, A> { shape, direction, weight, block, out, tile: PhantomData });
    });
    let (rows, columns) = shape.tiles(M);
    // The result does not depend on this number, so it may look at the threads.
    let task = (TASK_TILES / columns).min(rows.div_ceil(rayon::current_num_threads())).max(1);
    let y = Parts::new(y);
    (0..rows.div_ceil(task)).into_par_iter().for_each(|i| {
        let rows = i * task..((i + 1) * task).min(rows);
        SCRATCH.with_borrow_mut(|scratch| {
            dispatch(Correlate::<T, M, A, STRIDE> { shape, x, filter: &filter, bias, y: &y, rows, scratch, tile: PhantomData });
        });
    });
}

/// The filters of one block of 16 outputs at all points, `[point][input block]`.
struct Filter<'a, T, const M: usize, const A: usize> {
    shape: Shape,
    direction: Direction,
    weight: &'a [f32],
    block: usize,
    out: &'a mut [Square],
    tile: PhantomData<T>,
}

impl<T: Tile<M, A>, const M: usize, const A: usize> Kernel for Filter<'_, T, M, A> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Shape { c_in, c_out, .. } = self.shape;
        let blocks_in = c_in.div_ceil(BLOCK);
        for c in 0..c_in {
            for half in 0..2 {
                let first = self.block * BLOCK + half * LANES;
                let mut taps = [[0.0; LANES]; 9];
                for (lane, k) in (first..c_out.min(first + LANES)).enumerate() {
                    let start = match self.direction {
                        Direction::Forward => (k * c_in + c) * 9,
                        Direction::Backward => (c * c_out + k) * 9,
                    };
                    for (i, &w) in self.weight[start..start + 9].iter().enumerate() {
                        taps[if self.direction == Direction::Forward { i } else { 8 - i }][lane] = w;
                    }
                }
                let taps = lanes!(s, i in 9 => s.load(&taps[i]));
                let mut columns = [[s.zero(); A]; 3];
                for (j, column) in columns.iter_mut().enumerate() {
                    *column = T::filter(s, [taps[j], taps[3 + j], taps[6 + j]]);
                }
                let [left, middle, right] = columns;
                for (i, ((left, middle), right)) in left.into_iter().zip(middle).zip(right).enumerate() {
                    for (j, v) in T::filter(s, [left, middle, right]).into_iter().enumerate() {
                        let square = &mut self.out[(i * A + j) * blocks_in + c / BLOCK];
                        s.store(v, &mut square.0[c % BLOCK][half]);
                    }
                }
            }
        }
    }
}

/// Some rows of tiles through the three steps.
struct Correlate<'a, T, const M: usize, const A: usize, const STRIDE: usize> {
    shape: Shape,
    x: &'a [f32],
    filter: &'a [Square],
    bias: Option<&'a [f32]>,
    y: &'a Parts<'a>,
    rows: Range<usize>,
    scratch: &'a mut Scratch,
    tile: PhantomData<T>,
}

impl<T: Tile<M, A>, const M: usize, const A: usize, const STRIDE: usize> Kernel for Correlate<'_, T, M, A, STRIDE> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Shape { c_in, c_out, w, .. } = self.shape;
        let (blocks_in, blocks_out) = (c_in.div_ceil(BLOCK), c_out.div_ceil(BLOCK));
        let groups = (self.rows.len() * w.div_ceil(M)).div_ceil(GROUP);
        let input = grow(&mut self.scratch.input, groups * blocks_in * STRIDE, Tiles::ZERO);
        let output = grow(&mut self.scratch.output, groups * blocks_out * STRIDE, Tiles::ZERO);
        let scratch = grow(&mut self.scratch.rows, A * (w.div_ceil(M) * M + A - M), [0.0; LANES]);
        let image = Image { numbers: self.x, channels: c_in, h: self.shape.h, w };

        transform_input::<S, T, M, A, STRIDE>(s, image, self.rows.clone(), scratch, input);
        for point in 0..A * A {
            for block in 0..blocks_out {
                let filter = &self.filter[(block * A * A + point) * blocks_in..][..blocks_in];
                for group in 0..groups {
                    let tiles = input[group * blocks_in * STRIDE + point..].iter().step_by(STRIDE);
                    product(s, tiles, filter, &mut output[(group * blocks_out + block) * STRIDE + point]);
                }
            }
        }
        transform_output::<S, T, M, A, STRIDE>(s, self.shape, self.rows, output, scratch, self.bias, self.y);
    }
}

/// Six tiles times the filters of 16 outputs, summed over all inputs, into `out`.
#[inline(always)]
fn product<'a, S: Simd>(s: S, tiles: impl Iterator<Item = &'a Tiles>, filter: &[Square], out: &mut Tiles) {
    let mut sums = [[s.zero(); 2]; GROUP];
    for (filter, tiles) in filter.iter().zip(tiles) {
        for k in 0..BLOCK {
            let row = [s.load(&filter.0[k][0]), s.load(&filter.0[k][1])];
            for (sum, tile) in sums.iter_mut().zip(&tiles.0) {
                let v = s.splat(tile[k / LANES][k % LANES]);
                *sum = [s.mul_add(v, row[0], sum[0]), s.mul_add(v, row[1], sum[1])];
            }
        }
    }
    for (sum, out) in sums.into_iter().zip(&mut out.0) {
        s.store(sum[0], &mut out[0]);
        s.store(sum[1], &mut out[1]);
    }
}

/// A batch of images.
#[derive(Clone, Copy)]
struct Image<'a> {
    numbers: &'a [f32],
    channels: usize,
    h: usize,
    w: usize,
}

impl Image<'_> {
    /// Row `y` of eight channels from `first` on, pixel by pixel into `out[0..w]`; channels that do not exist are zeros.
    #[inline(always)]
    fn load_row<S: Simd>(&self, s: S, n: usize, first: usize, y: usize, out: &mut [[f32; LANES]]) {
        let plane = self.h * self.w;
        let there = self.channels.saturating_sub(first).min(LANES);
        let mut rows: [&[f32]; LANES] = [&[]; LANES];
        for (k, row) in rows.iter_mut().enumerate().take(there) {
            *row = &self.numbers[(n * self.channels + first + k) * plane + y * self.w..][..self.w];
        }
        for (i, out) in out[..self.w].chunks_mut(LANES).enumerate() {
            let eight = lanes!(s, k in LANES => {
                let row = rows[k].get(i * LANES..).unwrap_or(&[]);
                match row.first_chunk() {
                    Some(eight) => s.load(eight),
                    None if row.is_empty() => s.zero(),
                    None => s.load_part(row),
                }
            });
            for (v, out) in s.transpose(eight).into_iter().zip(out) {
                s.store(v, out);
            }
        }
    }
}

/// `V = B^T x B` of the tiles in `rows`.
#[inline(always)]
fn transform_input<S: Simd, T: Tile<M, A>, const M: usize, const A: usize, const STRIDE: usize>(
    s: S,
    image: Image,
    rows: Range<usize>,
    scratch: &mut [[f32; LANES]],
    out: &mut [Tiles],
) {
    let (down, across) = (image.h.div_ceil(M), image.w.div_ceil(M));
    let width = across * M + A - M;
    let blocks = image.channels.div_ceil(BLOCK);
    for (first, row) in rows.enumerate().flat_map(|(i, row)| (0..blocks * 2).map(move |half| (half, (i, row)))) {
        let (i_row, row) = row;
        let (n, top) = (row / down, row % down * M);
        for (i, line) in scratch.chunks_exact_mut(width).enumerate() {
            match (top + i).checked_sub(1).filter(|&y| y < image.h) {
                Some(y) => {
                    line[0] = [0.0; LANES];
                    image.load_row(s, n, first * LANES, y, &mut line[1..]);
                    line[1 + image.w..].fill([0.0; LANES]);
                }
                None => line.fill([0.0; LANES]),
            }
        }
        for x in 0..width {
            let column = T::input(s, lanes!(s, i in A => s.load(&scratch[i * width + x])));
            for (i, v) in column.into_iter().enumerate() {
                s.store(v, &mut scratch[i * width + x]);
            }
        }
        for tile in 0..across {
            let place = i_row * across + tile;
            let block = &mut out[(place / GROUP * blocks + first / 2) * STRIDE..][..STRIDE];
            for i in 0..A {
                let line = &scratch[i * width + tile * M..][..A];
                let points = T::input(s, lanes!(s, j in A => s.load(&line[j])));
                for (j, v) in points.into_iter().enumerate() {
                    s.store(v, &mut block[i * A + j].0[place % GROUP][first % 2]);
                }
            }
        }
    }
}

/// `y = A^T M A + bias` of the tiles in `rows`.
#[inline(always)]
fn transform_output<S: Simd, T: Tile<M, A>, const M: usize, const A: usize, const STRIDE: usize>(
    s: S,
    shape: Shape,
    rows: Range<usize>,
    products: &[Tiles],
    scratch: &mut [[f32; LANES]],
    bias: Option<&[f32]>,
    y: &Parts,
) {
    let Shape { c_out, h, w, .. } = shape;
    let (down, across) = (h.div_ceil(M), w.div_ceil(M));
    let width = across * M;
    let blocks = c_out.div_ceil(BLOCK);
    for (i_row, row) in rows.enumerate() {
        let (n, top) = (row / down, row % down * M);
        for first in 0..c_out.div_ceil(LANES) {
            let there = (c_out - first * LANES).min(LANES);
            let bias = match bias {
                Some(bias) => s.load_part(&bias[first * LANES..][..there]),
                None => s.zero(),
            };
            for tile in 0..across {
                let place = i_row * across + tile;
                let block = &products[(place / GROUP * blocks + first / 2) * STRIDE..][..STRIDE];
                let mut lines = [[s.zero(); M]; A];
                for (i, line) in lines.iter_mut().enumerate() {
                    *line = T::output(s, lanes!(s, j in A => s.load(&block[i * A + j].0[place % GROUP][first % 2])));
                }
                for j in 0..M {
                    let column = T::output(s, lanes!(s, i in A => lines[i][j]));
                    for (i, v) in column.into_iter().enumerate() {
                        s.store(s.add(v, bias), &mut scratch[i * width + tile * M + j]);
                    }
                }
            }
            for (i, line) in scratch.chunks_exact(width).enumerate().take(M.min(h - top)) {
                for (x, pixels) in line[..w].chunks(LANES).enumerate() {
                    let eight = lanes!(s, k in LANES => match pixels.get(k) {
                        Some(pixel) => s.load(pixel),
                        None => s.zero(),
                    });
                    for (k, v) in s.transpose(eight).into_iter().enumerate().take(there) {
                        let start = ((n * c_out + first * LANES + k) * h + top + i) * w + x * LANES;
                        // SAFETY: a task writes the rows of its own tiles, and no two tasks share a tile.
                        let out = unsafe { y.part(start, pixels.len()) };
                        match out.first_chunk_mut() {
                            Some(eight) => s.store(v, eight),
                            None => s.store_part(v, out),
                        }
                    }
                }
            }
        }
    }
}
