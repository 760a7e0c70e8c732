//! The filters at the points.

use std::marker::PhantomData;

use super::tile::Tile;
use super::{BLOCK, Layout, Shape};
use crate::conv::weight::Direction;
use crate::parts::Parts;
use crate::scratch::Line;
use crate::simd::{Kernel, LANES, Simd, lanes};

/// Where the filters lie: `[point][output block][input]`.
#[derive(Clone, Copy)]
pub(super) struct FilterLayout {
    /// Lines of a point, and of a block of 16 outputs.
    pub(super) point: usize,
    pub(super) block: usize,
}

impl FilterLayout {
    pub(super) fn new(shape: Shape) -> Self {
        let block = shape.c_in.next_multiple_of(BLOCK);
        Self { point: Layout::apart(shape.c_out.div_ceil(BLOCK) * block), block }
    }
}

/// `U = G g G^T` of one block of 16 outputs.
pub(super) struct TransformFilter<'a, T, const M: usize, const A: usize> {
    shape: Shape,
    direction: Direction,
    weight: &'a [f32],
    block: usize,
    out: &'a Parts<'a, Line>,
    tile: PhantomData<T>,
}

impl<'a, T, const M: usize, const A: usize> TransformFilter<'a, T, M, A> {
    /// # Safety
    /// `out` must have the layout of the shape's filters at all points, and nothing else may use the block's lines meanwhile.
    pub(super) unsafe fn new(
        shape: Shape,
        direction: Direction,
        weight: &'a [f32],
        block: usize,
        out: &'a Parts<'a, Line>,
    ) -> Self {
        Self { shape, direction, weight, block, out, tile: PhantomData }
    }

    /// The taps between eight inputs from `first` on and the block's outputs: `[input][tap]`, zeros for channels that do not exist.
    #[inline(always)]
    fn taps<S: Simd>(&self, s: S, first: usize) -> [[Line; 9]; LANES] {
        let Shape { c_in, c_out, .. } = self.shape;
        let mut taps = [[Line::ZERO; 9]; LANES];
        for half in 0..2 {
            let mut by_output = [[0.0; 9 * LANES]; LANES];
            let outputs = self.block * BLOCK + half * LANES..c_out;
            for (k, filters) in outputs.zip(&mut by_output) {
                for (c, filter) in (first..c_in).zip(filters.as_chunks_mut::<9>().0) {
                    let start = match self.direction {
                        Direction::Forward => k * c_in + c,
                        Direction::Backward => c * c_out + k,
                    } * 9;
                    filter.copy_from_slice(&self.weight[start..start + 9]);
                }
            }
            for (i, taps) in taps.as_flattened_mut().as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                let eight = s.transpose(lanes!(s, k in LANES => s.load(&by_output[k].as_chunks::<LANES>().0[i])));
                for (p, tap) in taps.iter_mut().enumerate() {
                    s.store(eight[p], &mut tap.0[half]);
                }
            }
        }
        taps
    }
}

impl<T: Tile<M, A>, const M: usize, const A: usize> TransformFilter<'_, T, M, A> {
    /// Half of one input's filters with the first transform done, `[column][point]`.
    #[inline(always)]
    fn columns<S: Simd>(&self, s: S, taps: &[Line; 9], half: usize) -> [[S::V; A]; 3] {
        let mut columns = [[s.zero(); A]; 3];
        for (j, column) in columns.iter_mut().enumerate() {
            *column = T::filter(
                s,
                lanes!(s, i in 3 => {
                    let tap = i * 3 + j;
                    s.load(&taps[if self.direction == Direction::Forward { tap } else { 8 - tap }].0[half])
                }),
            );
        }
        columns
    }
}

impl<T: Tile<M, A>, const M: usize, const A: usize> Kernel for TransformFilter<'_, T, M, A> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let layout = FilterLayout::new(self.shape);
        for first in (0..layout.block).step_by(LANES) {
            for (c, taps) in self.taps(s, first).iter().enumerate() {
                let (low, high) = (self.columns(s, taps, 0), self.columns(s, taps, 1));
                let mut place = self.block * layout.block + first + c;
                for i in 0..A {
                    let low = T::filter(s, lanes!(s, j in 3 => low[j][i]));
                    let high = T::filter(s, lanes!(s, j in 3 => high[j][i]));
                    for j in 0..A {
                        // SAFETY: a line of this block, by the contract of `new`.
                        let [line] = unsafe { self.out.array(place) };
                        s.store(low[j], &mut line.0[0]);
                        s.store(high[j], &mut line.0[1]);
                        place += layout.point;
                    }
                }
            }
        }
    }
}
