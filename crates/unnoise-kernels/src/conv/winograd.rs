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
//! Eight channels sit in the lanes through both transforms; channels are filled up to 16 with zeros. A task takes some rows of tiles
//! through all three steps. Where there are fewer tasks than threads, the threads share the steps of each.

#![allow(
    clippy::needless_range_loop,
    reason = "an index that the compiler knows keeps lanes in registers, an iterator of lanes may not"
)]

mod filter;
mod gradient;
mod input;
mod output;
mod tile;

use rayon::prelude::*;

pub(super) use gradient::weight_gradient;

use self::filter::{FilterLayout, TransformFilter};
use self::input::{Image, OfInput, Transform};
use self::output::TransformOutput;
use self::tile::{F2, F4, Tile};
use super::weight::{Direction, Epilogue, Form, Weight};
use crate::parts::Parts;
use crate::scratch::{Line, Scratch};
use crate::simd::{Kernel, Simd, dispatch};

/// Channels in one block of the transformed arrays: one line.
const BLOCK: usize = Line::LEN;
/// Tiles that are multiplied at once: the rows of the 6 x 16 product, whose twelve sums fill the registers.
const GROUP: usize = 6;
/// Tiles of a task that all threads share, at least a row of them.
const SHARED_TILES: usize = 96;
/// Tiles of a task of one thread. Few stay in the second-level cache with all their points, many make more of every filter that is read:
/// the most channels, in and out, that few tiles suit; then few; then many.
const TASK_TILES: (usize, usize, usize) = (256, 24, 72);

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

    /// Sides up to 8 take F(2x2): fewer tiles hang over the edge, and its points take less than half the memory of F(4x4), which sets the pace of
    /// a single image in a deep network.
    fn small(&self) -> bool {
        self.h.max(self.w) <= 8
    }
}

/// Where the transform of `blocks` times 16 channels of some tiles lies, counted in lines.
#[derive(Clone, Copy)]
struct Layout {
    point: usize,
    block: usize,
    group: usize,
}

impl Layout {
    /// `[point][group][block][tile]`: a product over the channels reads one line after the other.
    fn by_group(blocks: usize, tiles: usize) -> Self {
        let group = blocks * GROUP;
        Self { point: Self::apart(tiles.div_ceil(GROUP) * group), block: GROUP, group }
    }

    /// `[point][block][tile]`: a sum over the tiles reads one line after the other.
    fn by_block(blocks: usize, tiles: usize) -> Self {
        let block = tiles.next_multiple_of(GROUP);
        Self { point: Self::apart(blocks * block), block, group: GROUP }
    }

    /// So far apart that the points of a tile do not fall into the same few sets of the caches: one line more than pages.
    fn apart(lines: usize) -> usize {
        lines.next_multiple_of(64) + 1
    }

    /// The place of a tile at point 0.
    #[inline(always)]
    fn place(&self, block: usize, tile: usize) -> usize {
        block * self.block + tile / GROUP * self.group + tile % GROUP
    }
}

/// Calls `f(0), .., f(n - 1)`, on all threads or on this one.
fn each(shared: bool, n: usize, f: impl Fn(usize) + Sync + Send) {
    match shared {
        true => (0..n).into_par_iter().for_each(f),
        false => (0..n).for_each(f),
    }
}

/// Correlates `x` with `weight` into `y`. Going backwards the weight's channels are exchanged and its taps reversed; `shape` is that of
/// the correlation, not of the weight.
pub(super) fn correlate(shape: Shape, direction: Direction, x: &[f32], weight: Weight, epilogue: Epilogue, y: &mut [f32]) {
    match shape.small() {
        true => correlate_by::<F2, 2, 4>(shape, direction, Form::SmallTiles, x, weight, epilogue, y),
        false => correlate_by::<F4, 4, 6>(shape, direction, Form::LargeTiles, x, weight, epilogue, y),
    }
}

fn correlate_by<T: Tile<M, A>, const M: usize, const A: usize>(
    shape: Shape,
    direction: Direction,
    form: Form,
    x: &[f32],
    weight: Weight,
    epilogue: Epilogue,
    y: &mut [f32],
) {
    let (blocks_in, blocks_out) = (shape.c_in.div_ceil(BLOCK), shape.c_out.div_ceil(BLOCK));
    let u_layout = FilterLayout::new(shape);
    let u = weight.form(direction, form, A * A * u_layout.point, |weight, out| {
        let out = Parts::new(out);
        each(true, blocks_out, |block| {
            // SAFETY: `out` has the layout, and every block is transformed once.
            dispatch(unsafe { TransformFilter::<T, M, A>::new(shape, direction, weight, block, &out) });
        });
    });
    let (rows, across) = shape.tiles(M);
    // How the rows are cut does not show in the result, so it may depend on the threads.
    let (tiles, threads) = (rows * across, rayon::current_num_threads());
    let shared = tiles <= threads * SHARED_TILES;
    let (channels, few, many) = TASK_TILES;
    let tasks = match shared {
        true => tiles.div_ceil(SHARED_TILES),
        false => tiles.div_ceil(if shape.c_in + shape.c_out <= channels { few } else { many }).next_multiple_of(threads),
    };
    let step = rows.div_ceil(tasks.max(1)).max(1);
    let image = Image { numbers: x, channels: shape.c_in, h: shape.h, w: shape.w };
    let y = Parts::new(y);
    each(true, rows.div_ceil(step), |task| {
        let rows = task * step..rows.min((task + 1) * step);
        let tiles = rows.len() * across;
        let (v_layout, m_layout) = (Layout::by_group(blocks_in, tiles), Layout::by_block(blocks_out, tiles));
        let (mut v, mut m) = (Scratch::new(A * A * v_layout.point), Scratch::new(A * A * m_layout.point));

        let out = Parts::new(&mut v);
        each(shared, blocks_in, |block| {
            // SAFETY: `out` has the layout, and every block is transformed once.
            dispatch(unsafe { Transform::<OfInput<T, M>, A, M, A>::new(image, rows.clone(), block, v_layout, &out) });
        });
        let out = Parts::new(&mut m);
        each(shared, A * A * blocks_out, |i| {
            let (point, block) = (i / blocks_out, i % blocks_out);
            // SAFETY: every pair of a point and a block has its own lines, and no two tasks share a pair.
            let out = unsafe { out.part(point * m_layout.point + block * m_layout.block, m_layout.block) };
            let filters = &u[point * u_layout.point + block * u_layout.block..];
            dispatch(Product { tiles: &v[point * v_layout.point..], filters, blocks_in, out });
        });
        each(shared, blocks_out, |block| {
            // SAFETY: `y` is the shape's, no two tasks share a tile, and every block is transformed once.
            dispatch(unsafe { TransformOutput::<T, M, A>::new((shape, rows.clone(), block), m_layout, &m, epilogue, &y) });
        });
    });
}

/// The products of all tiles with the filters of 16 outputs, at one point.
struct Product<'a> {
    /// `[group][block][tile]`.
    tiles: &'a [Line],
    /// `[input]`, and behind them those of the next product.
    filters: &'a [Line],
    blocks_in: usize,
    /// `[group][tile]`.
    out: &'a mut [Line],
}

impl Kernel for Product<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (filters, next) = self.filters.split_at(self.blocks_in * BLOCK);
        let (groups, _) = self.out.as_chunks_mut::<GROUP>();
        // The next filters are on their way while these are used.
        let ahead = filters.len().div_ceil(groups.len());
        let mut next = next.chunks(ahead);
        for (tiles, out) in self.tiles.chunks_exact(self.blocks_in * GROUP).zip(groups) {
            for line in next.next().unwrap_or(&[]) {
                s.prefetch(line);
            }
            product(s, tiles, filters, out);
        }
    }
}

/// Six tiles times the filters of 16 outputs, summed over all inputs.
#[inline(always)]
fn product<S: Simd>(s: S, tiles: &[Line], filters: &[Line], out: &mut [Line; GROUP]) {
    let mut sums = [[s.zero(); 2]; GROUP];
    for (filter, tiles) in filters.as_chunks::<BLOCK>().0.iter().zip(tiles.as_chunks::<GROUP>().0) {
        for (k, filter) in filter.iter().enumerate() {
            let row = [s.load(&filter.0[0]), s.load(&filter.0[1])];
            for (sum, tile) in sums.iter_mut().zip(tiles) {
                let v = s.splat(tile.0.as_flattened()[k]);
                *sum = [s.mul_add(v, row[0], sum[0]), s.mul_add(v, row[1], sum[1])];
            }
        }
    }
    for (sum, out) in sums.into_iter().zip(out) {
        s.store(sum[0], &mut out.0[0]);
        s.store(sum[1], &mut out.0[1]);
    }
}
