//! The filters at the points.

use std::marker::PhantomData;

use super::tile::Tile;
use super::{BLOCK, Shape};
use crate::conv::weight::Direction;
use crate::parts::Parts;
use crate::scratch::Line;
use crate::simd::{Kernel, LANES, Simd, lanes};

/// `U = G g G^T` of one block of 16 outputs: its lines of `[point][output block][input]`.
pub(super) struct TransformFilter<'a, T, const M: usize, const A: usize> {
    shape: Shape,
    direction: Direction,
    weight: &'a [f32],
    block: usize,
    out: &'a Parts<'a, Line>,
    tile: PhantomData<T>,
}

impl<'a, T, const M: usize, const A: usize> TransformFilter<'a, T, M, A> {
    pub(super) fn new(shape: Shape, direction: Direction, weight: &'a [f32], block: usize, out: &'a Parts<'a, Line>) -> Self {
        Self { shape, direction, weight, block, out, tile: PhantomData }
    }

    /// The nine taps between eight inputs and eight outputs, `[tap of an input][output]`; zeros for channels that do not exist.
    #[inline(always)]
    fn taps<S: Simd>(&self, s: S, c: usize, k: usize) -> [[f32; LANES]; 9 * LANES] {
        let Shape { c_in, c_out, .. } = self.shape;
        let mut by_output = [[0.0; 9 * LANES]; LANES];
        for (k, filters) in (k..c_out.min(k + LANES)).zip(&mut by_output) {
            for (c, filter) in (c..c_in.min(c + LANES)).zip(filters.as_chunks_mut::<9>().0) {
                let start = match self.direction {
                    Direction::Forward => k * c_in + c,
                    Direction::Backward => c * c_out + k,
                } * 9;
                filter.copy_from_slice(&self.weight[start..start + 9]);
            }
        }
        let mut taps = [[0.0; LANES]; 9 * LANES];
        for (i, taps) in taps.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let rows = lanes!(s, k in LANES => s.load(&by_output[k].as_chunks::<LANES>().0[i]));
            for (v, taps) in s.transpose(rows).into_iter().zip(taps) {
                s.store(v, taps);
            }
        }
        taps
    }
}

impl<T: Tile<M, A>, const M: usize, const A: usize> Kernel for TransformFilter<'_, T, M, A> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let inputs = self.shape.c_in.next_multiple_of(BLOCK);
        let outputs = self.shape.c_out.next_multiple_of(BLOCK);
        for first in (0..inputs).step_by(LANES) {
            for half in 0..2 {
                let taps = self.taps(s, first, self.block * BLOCK + half * LANES);
                for (c, taps) in taps.as_chunks::<9>().0.iter().enumerate() {
                    let taps = lanes!(s, i in 9 => s.load(&taps[if self.direction == Direction::Forward { i } else { 8 - i }]));
                    let mut columns = [[s.zero(); A]; 3];
                    for (j, column) in columns.iter_mut().enumerate() {
                        *column = T::filter(s, [taps[j], taps[3 + j], taps[6 + j]]);
                    }
                    let [left, middle, right] = columns;
                    for (i, ((left, middle), right)) in left.into_iter().zip(middle).zip(right).enumerate() {
                        for (j, v) in T::filter(s, [left, middle, right]).into_iter().enumerate() {
                            let place = ((i * A + j) * outputs / BLOCK + self.block) * inputs + first + c;
                            // SAFETY: every block of outputs has its own lines, and no two tasks share a block.
                            let line = unsafe { self.out.part(place, 1) };
                            s.store(v, &mut line[0].0[half]);
                        }
                    }
                }
            }
        }
    }
}
